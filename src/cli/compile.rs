//! `simclr compile`.

use super::Configuration;
use super::isolated::{self, run_again};
use super::target::Wanted;
use super::ui::Ui;
use crate::config::Loaded;
use crate::data::{self, Description};
use crate::engine::{Choice, optimized_module};
use crate::hlo::Module;
use crate::pjrt::{Compiled, OptionValue, Plugin, WITHOUT_TPU};
use crate::train::forecast::Forecast;
use crate::train::setup;
use crate::train::{self, ahead};
use anyhow::Context;
use clap::{ArgGroup, Args};
use prost::Message;
use std::path::{Path, PathBuf};

/// The exit code when the step does not fit.
const DOES_NOT_FIT: u8 = 4;

#[derive(Args)]
#[command(group = ArgGroup::new("device").args(["topology", "target"]).required(true))]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// TPU slice: a topology such as v5e:4x4, or a rented name such as v3-128
    #[arg(long, value_name = "SLICE")]
    topology: Option<String>,
    /// Something else than a TPU: cpu, cuda:a100, cuda:h100 or cuda:h200
    #[arg(long)]
    target: Option<String>,
    /// Devices of the target [default: 1]
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

impl Arguments {
    fn wanted(&self) -> Result<Wanted, crate::cluster::Error> {
        Wanted::parse(
            self.topology.as_deref(),
            self.target.as_deref(),
            self.devices,
        )
    }
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
    let wanted = arguments.wanted()?;
    describe(&loaded)?;
    let named = loaded.config.runtime.plugin.as_deref();
    let place = wanted.ensure_plugin(named, arguments.install, ui)?;
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
    if let (Some(file), Some(_)) = (&arguments.save, &forecast.refusal) {
        ui.note(&format!(
            "{} was not written: the step does not fit, and there is no program",
            file.display()
        ));
    }
    Ok(if forecast.fits { 0 } else { DOES_NOT_FIT })
}

/// The training split, which need not be there: published sets are known by their facts.
fn describe(loaded: &Loaded) -> Result<Description, data::Error> {
    Description::published(&loaded.config.dataset, &loaded.config.train_split)
}

/// The work, in the child.
fn compile(arguments: &Arguments, ui: &Ui) -> anyhow::Result<Forecast> {
    let loaded = arguments.configuration.load()?;
    let wanted = arguments.wanted()?;
    let data = describe(&loaded)?;
    let site = wanted.site();
    let named = loaded.config.runtime.plugin.as_deref();
    let path = wanted.ensure_plugin(named, false, ui)?;
    let plugin = Plugin::load(&path)?;
    match wanted.ahead() {
        Some(mut target) => {
            target.compiler = setup::compiler_options(&loaded)?;
            if let Some(folder) = &arguments.dump {
                target.compiler.extend(dump_options(folder));
            }
            let topology = target.topology(&plugin).map_err(train::Error::Engine)?;
            let found = ahead::for_topology(&loaded, &data, &plugin, &topology, &target, &site)?;
            if let Some(folder) = &arguments.dump {
                dump(folder, "step", &found.module)?;
            }
            let Some(program) = &found.program else {
                return Ok(found.forecast);
            };
            if let Some(folder) = &arguments.dump {
                dump(folder, "step_after_passes", &program.module)?;
                dump_optimized(folder, &program.compiled)?;
            }
            if let Some(file) = &arguments.save {
                // Options that only make the compiler write files do not matter to the program.
                target.compiler = setup::compiler_options(&loaded)?;
                program.save(&plugin, &topology, &target, file)?;
            }
            Ok(found.forecast)
        }
        // The CPU plugin compiles only for a client of its own.
        None => {
            let devices = wanted.devices();
            let options = setup::compiler_options(&loaded)?;
            let mut with_dump = options.clone();
            if let Some(folder) = &arguments.dump {
                with_dump.extend(dump_options(folder));
            }
            let passes = setup::passes(&loaded)?;
            let (engine, devices) = crate::engine::open(
                Choice {
                    platform: "cpu",
                    plugin: Some(&path),
                    devices,
                    cpu_devices: devices,
                    passes: &passes,
                    executable_cache: false,
                    preallocate: true,
                    node: None,
                    compiler_options: &with_dump,
                },
                &mut |line| ui.note(line),
            )?;
            let (forecast, module, program) =
                ahead::for_engine(&loaded, &data, &engine, devices, &plugin, &site)?;
            if let Some(folder) = &arguments.dump {
                dump(folder, "step", &module)?;
                dump(folder, "step_after_passes", &engine.rewritten(&module)?)?;
                dump_optimized(folder, program.executable().compiled())?;
            }
            if let Some(file) = &arguments.save {
                let engine = engine.with_compiler_options(&options);
                engine.save(&module, &program, file)?;
            }
            Ok(forecast)
        }
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

/// Writes a module as text and as proto.
fn dump(folder: &Path, name: &str, module: &Module) -> anyhow::Result<()> {
    write(
        folder,
        &format!("{name}.txt"),
        module.to_string().as_bytes(),
    )?;
    write(folder, &format!("{name}.pb"), &module.to_proto_bytes())
}

/// Writes the module as it came out of the compiler, where the plugin gives it.
fn dump_optimized(folder: &Path, compiled: &Compiled) -> anyhow::Result<()> {
    match optimized_module(&compiled.optimized_program()?) {
        Some(module) => write(folder, "step_optimized.pb", &module.encode_to_vec()),
        None => Ok(()),
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(name);
    std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
