//! `simclr compile`.

use super::Configuration;
use super::isolated::{self, run_again};
use super::ui::Ui;
use crate::cluster::{self, slice::Slice};
use crate::config::Loaded;
use crate::data::{self, Description};
use crate::engine::{Choice, Target, optimized_module};
use crate::hlo::Module;
use crate::pjrt::{OptionValue, Package, Platform, Plugin, WITHOUT_TPU, find, install};
use crate::train::forecast::Forecast;
use crate::train::setup;
use crate::train::{
    self,
    ahead::{self, Site},
};
use anyhow::Context;
use clap::Args;
use prost::Message;
use std::path::{Path, PathBuf};

/// The exit code when the step does not fit.
const DOES_NOT_FIT: u8 = 4;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// TPU slice: a topology such as v5e:4x4, or a rented name such as v3-128
    #[arg(long, value_name = "SLICE", required_unless_present = "target")]
    topology: Option<String>,
    /// Something else than a TPU
    #[arg(long, value_name = "cpu", conflicts_with = "topology")]
    target: Option<String>,
    /// Devices of the target, where a topology does not say
    #[arg(long, value_name = "N", requires = "target")]
    devices: Option<usize>,
    /// Fetch the compiler's plugin if it is not there
    #[arg(long)]
    install: bool,
    /// Write the module before and after the compiler's optimisation to this folder
    #[arg(long, value_name = "FOLDER")]
    dump: Option<PathBuf>,
    /// Write the compiled program to this file, for runtime.executable
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Compile in this very process: the compiler may end it
    #[arg(long, hide = true)]
    here: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    if arguments.here {
        isolated::end_with_parent();
        let forecast = compile(arguments, ui)?;
        ui.result(&forecast.json())?;
        return Ok(0);
    }
    // What can be told wrong without a compiler is told by this process.
    let loaded = arguments.configuration.load()?;
    let wanted = Wanted::of(arguments)?;
    describe(&loaded)?;
    let place = wanted.ensure_plugin(&loaded, arguments.install, ui)?;
    ui.note(&format!(
        "compiling the step for {} with {}",
        wanted.name(),
        place.display()
    ));
    let ended = run_again(&["--here"], &WITHOUT_TPU)?;
    if ended.code != 0 {
        ui.relay(&ended.words);
        return Ok(ended.code);
    }
    let forecast: Forecast =
        serde_json::from_str(&ended.output).context("the child's answer is not a forecast")?;
    let text = if arguments.json {
        forecast.json()
    } else {
        forecast.text()
    };
    ui.result(&text)?;
    Ok(if forecast.fits { 0 } else { DOES_NOT_FIT })
}

/// What to compile for.
enum Wanted {
    Tpu(Slice),
    Cpu { devices: usize },
}

impl Wanted {
    fn of(arguments: &Arguments) -> Result<Self, cluster::Error> {
        match (&arguments.topology, &arguments.target) {
            (Some(name), _) => Ok(Wanted::Tpu(Slice::parse(name)?)),
            (None, Some(target)) if target == "cpu" => Ok(Wanted::Cpu {
                devices: arguments.devices.unwrap_or(1).max(1),
            }),
            (None, target) => Err(cluster::Error::UnknownTarget {
                found: target.clone().unwrap_or_default(),
            }),
        }
    }

    fn name(&self) -> String {
        match self {
            Wanted::Tpu(slice) => slice.topology(),
            Wanted::Cpu { devices } => format!("cpu × {devices}"),
        }
    }

    fn platform(&self) -> Platform {
        match self {
            Wanted::Tpu(_) => Platform::Tpu,
            Wanted::Cpu { .. } => Platform::Cpu,
        }
    }

    /// The plugin's file; it is fetched if it is missing and the user wants that.
    fn ensure_plugin(&self, loaded: &Loaded, fetch: bool, ui: &Ui) -> anyhow::Result<PathBuf> {
        let named = loaded.config.runtime.plugin.as_deref();
        match find(self.platform(), named) {
            Ok(found) => Ok(found.path),
            Err(error) if fetch && named.is_none() => {
                ui.note(&format!("{error}; fetching it with pip, once"));
                let package = match self.platform() {
                    Platform::Tpu => Package::Tpu,
                    Platform::Cuda => Package::Cuda12,
                    Platform::Cpu => Package::Cpu,
                };
                Ok(install(package)?.path)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn site(&self) -> Site {
        match self {
            Wanted::Tpu(slice) => Site {
                name: slice.topology(),
                rented: slice.rented(),
                peak_flops: Some(slice.peak_flops_per_device()),
                capacity: None,
            },
            Wanted::Cpu { .. } => Site {
                name: self.name(),
                ..Site::default()
            },
        }
    }
}

/// The training split, which need not be there: published sets are known by their facts.
fn describe(loaded: &Loaded) -> Result<Description, data::Error> {
    Description::published(&loaded.config.dataset, &loaded.config.train_split)
}

/// The work, in the child.
fn compile(arguments: &Arguments, ui: &Ui) -> anyhow::Result<Forecast> {
    let loaded = arguments.configuration.load()?;
    let wanted = Wanted::of(arguments)?;
    let data = describe(&loaded)?;
    let site = wanted.site();
    let path = wanted.ensure_plugin(&loaded, false, ui)?;
    let plugin = Plugin::load(&path)?;
    match &wanted {
        Wanted::Tpu(slice) => {
            let mut target = tpu_target(slice);
            target.compiler = setup::compiler_options(&loaded)?;
            if let Some(folder) = &arguments.dump {
                target.compiler.extend(dump_options(folder));
            }
            let topology = target.topology(&plugin).map_err(train::Error::Engine)?;
            let found = ahead::for_topology(&loaded, &data, &plugin, &topology, &target, &site)?;
            let Some(program) = &found.program else {
                return Ok(found.forecast);
            };
            if let Some(folder) = &arguments.dump {
                let optimized = program.compiled.optimized_program()?;
                dump(folder, &found.module, Some(&program.module), &optimized)?;
            }
            if let Some(file) = &arguments.save {
                // Options that only make the compiler write files do not matter to the program.
                target.compiler = setup::compiler_options(&loaded)?;
                program.save(&plugin, &topology, &target, file)?;
            }
            Ok(found.forecast)
        }
        Wanted::Cpu { devices } => {
            let runtime = &loaded.config.runtime;
            let options = setup::compiler_options(&loaded)?;
            let (engine, devices) = crate::engine::open(
                Choice {
                    platform: "cpu",
                    plugin: Some(&path),
                    devices: *devices,
                    cpu_devices: *devices,
                    disable_passes: &runtime.disable_passes,
                    executable_cache: false,
                    compiler_options: &options,
                },
                &mut |line| ui.note(line),
            )?;
            let (forecast, module, program) =
                ahead::for_engine(&loaded, &data, &engine, devices, &plugin, &site)?;
            if let Some(folder) = &arguments.dump {
                let optimized = program.executable().compiled().optimized_program()?;
                dump(folder, &module, None, &optimized)?;
            }
            if let Some(file) = &arguments.save {
                engine.save(&module, &program, file)?;
            }
            Ok(forecast)
        }
    }
}

/// A slice in libtpu's words.
pub(super) fn tpu_target(slice: &Slice) -> Target {
    let mut options = Vec::new();
    let host: Vec<i64> = slice.host().iter().map(|&side| side as i64).collect();
    if host != [2, 2, 1] {
        options.push(("chips_per_host_bounds", OptionValue::IntList(host)));
    }
    if slice.generation.name == "v4" {
        // One device per chip, as programs on a rented v4 see it.
        options.push(("chip_config_name", OptionValue::Str("megacore".into())));
    }
    Target {
        platform: "tpu",
        topology: slice.topology(),
        options,
        compiler: Vec::new(),
    }
}

/// Compiler options that make a plugin write its own text of the module.
fn dump_options(folder: &Path) -> Vec<(String, OptionValue)> {
    let to = folder.join("compiler").display().to_string();
    vec![
        ("xla_dump_to".into(), OptionValue::Str(to)),
        ("xla_dump_hlo_as_text".into(), OptionValue::Bool(true)),
    ]
}

/// Writes the module as built, as given to the compiler, and as it came out.
fn dump(
    folder: &Path,
    built: &Module,
    prepared: Option<&Module>,
    optimized: &[u8],
) -> anyhow::Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    write("step.txt", built.to_string().as_bytes())?;
    write("step.pb", &built.to_proto_bytes())?;
    if let Some(prepared) = prepared {
        write("step_after_passes.txt", prepared.to_string().as_bytes())?;
        write("step_after_passes.pb", &prepared.to_proto_bytes())?;
    }
    if let Some(module) = optimized_module(optimized) {
        write("step_optimized.pb", &module.encode_to_vec())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_lite_slices_are_one_host() {
        let options = |name: &str| tpu_target(&Slice::parse(name).unwrap()).options;
        let bounds =
            |list: &[i64]| vec![("chips_per_host_bounds", OptionValue::IntList(list.to_vec()))];
        assert_eq!(options("v5litepod-8"), bounds(&[2, 4, 1]));
        assert_eq!(options("v6e-1"), bounds(&[1, 1, 1]));
        assert!(options("v5e:4x4").is_empty());
        assert!(options("v3-8").is_empty());
        assert_eq!(options("v4-8")[0].0, "chip_config_name");
    }
}
