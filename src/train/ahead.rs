//! The training step compiled for devices that need not be there, and what the compiler says of it.

use super::forecast::{Forecast, Memory};
use super::measure::cpu_seconds;
use super::{Error, pretrain, setup};
use crate::config::{Loaded, Plan};
use crate::data::Description;
use crate::engine::{self, Ahead, Engine, Target, collectives, optimized_module, out_of_memory};
use crate::hlo::Module;
use crate::pjrt::{Compiled, Plugin, Topology};
use std::time::Instant;

/// What is known of the devices beside what the compiler tells.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Its name, such as `v3:8x8`.
    pub name: String,
    /// How it is rented.
    pub rented: Option<String>,
    /// Operations per second of a device.
    pub peak_flops: Option<f64>,
    /// Bytes per second to and from a device's memory.
    pub bandwidth: Option<f64>,
    /// Bytes of a device's memory that a program gets, where that is not what the plugin tells.
    pub capacity: Option<u64>,
}

/// A step compiled ahead of time, with what it was made from.
pub struct Compilation {
    /// What the compiler says.
    pub forecast: Forecast,
    /// The module as built, before the passes of the target.
    pub module: Module,
    /// The program; none if it does not fit.
    pub program: Option<Ahead>,
}

/// Compiles the step of a configuration for all devices of a topology, or the first `runtime.devices` of them.
///
/// # Errors
/// If the configuration does not fit the data or the devices, or the compiler refuses for another reason than memory.
pub fn for_topology(
    loaded: &Loaded,
    data: &Description,
    plugin: &Plugin,
    topology: &Topology,
    target: &Target,
    site: &Site,
) -> Result<Compilation, Error> {
    let there = topology.devices().len();
    let devices = match loaded.config.runtime.devices {
        0 => there,
        wanted if wanted <= there => wanted,
        wanted => {
            return Err(Error::Engine(engine::Error::TooFewDevices {
                replicas: wanted,
                devices: there,
                platform: site.name.clone(),
            }));
        }
    };
    let (module, mut forecast) = start(loaded, data, devices, site)?;
    if let Some(first) = topology.devices().first() {
        forecast.device_kind = first.kind.clone();
        let told = first.number("device_memory_bytes_limit");
        let told = told.and_then(|bytes| u64::try_from(bytes).ok());
        forecast.capacity = site.capacity.or(told);
    }
    forecast.hosts = topology.processes();
    forecast.compiler = version(plugin, topology.version());
    let passes = super::setup::passes(loaded)?;
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let result = engine::compile_ahead(topology, target, &module, &passes);
    forecast.compile_seconds = begin.elapsed().as_secs_f64();
    forecast.compile_cpu_seconds = cpu.zip(cpu_seconds()).map(|(a, b)| b - a);
    let program = match result {
        Ok(program) => {
            read(&mut forecast, &program.compiled);
            Some(program)
        }
        Err(error) => {
            let Some(refusal) = out_of_memory(&error) else {
                return Err(Error::Engine(error));
            };
            forecast.fits = false;
            forecast.needed = refusal.needed;
            forecast.refusal = Some(refusal.message);
            None
        }
    };
    Ok(Compilation {
        forecast,
        module,
        program,
    })
}

/// Compiles the step of a configuration for the devices of an engine, and reports it in the same way.
///
/// # Errors
/// As [`for_topology`].
pub fn for_engine(
    loaded: &Loaded,
    data: &Description,
    engine: &Engine,
    devices: usize,
    plugin: &Plugin,
    site: &Site,
) -> Result<(Forecast, Module, engine::Program), Error> {
    let (module, mut forecast) = start(loaded, data, devices, site)?;
    let client = engine.client();
    if let Some(first) = client.devices().first() {
        forecast.device_kind = first.kind().into();
    }
    forecast.compiler = version(plugin, client.platform_version());
    let cpu = cpu_seconds();
    let program = engine.without_cache().compile(&module)?;
    forecast.compile_seconds = program.compile_time().as_secs_f64();
    forecast.compile_cpu_seconds = cpu.zip(cpu_seconds()).map(|(a, b)| b - a);
    read(&mut forecast, program.executable().compiled());
    Ok((forecast, module, program))
}

/// The module and what is known before it is compiled.
fn start(
    loaded: &Loaded,
    data: &Description,
    devices: usize,
    site: &Site,
) -> Result<(Module, Forecast), Error> {
    let plan = Plan::new(loaded, data.examples, devices)?;
    let spec = setup::spec(loaded, data, &plan)?;
    let module = spec.module()?.module;
    let forecast = Forecast {
        target: site.name.clone(),
        rented: site.rented.clone(),
        device_kind: String::new(),
        compiler: String::new(),
        devices,
        hosts: 1,
        batch: spec.batch,
        per_device: plan.per_replica,
        steps_per_launch: spec.steps_per_launch,
        total_steps: plan.total_steps,
        precision: if loaded.config.runtime.bf16 {
            "bf16"
        } else {
            "f32"
        }
        .into(),
        remat: loaded.config.runtime.remat.clone(),
        fits: true,
        memory: None,
        capacity: site.capacity,
        refusal: None,
        needed: None,
        flops: None,
        bytes_accessed: None,
        optimal_seconds: None,
        peak_flops: site.peak_flops,
        bandwidth: site.bandwidth,
        collectives: Vec::new(),
        compile_seconds: 0.0,
        compile_cpu_seconds: None,
        module_hash: pretrain::hash(&module),
    };
    Ok((module, forecast))
}

/// Name, version and API of a compiler in one line. Plugins tell their build over several.
fn version(plugin: &Plugin, text: &str) -> String {
    let (major, minor) = plugin.api_version();
    let words: Vec<&str> = text.split_whitespace().collect();
    format!("{} (PJRT API {major}.{minor})", words.join(" "))
}

/// What the compiler tells of a program.
fn read(forecast: &mut Forecast, compiled: &Compiled) {
    if let Ok(found) = compiled.memory_use() {
        let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
        let memory = Memory {
            arguments: bytes(found.argument),
            outputs: bytes(found.output),
            aliased: bytes(found.alias),
            temporaries: bytes(found.temp),
            code: bytes(found.code),
        };
        forecast.fits = forecast
            .capacity
            .is_none_or(|there| memory.total() <= there);
        forecast.memory = Some(memory);
    }
    if let Ok(costs) = compiled.cost_analysis() {
        let cost = |name: &str| {
            let found = costs.iter().find(|(key, _)| key == name);
            found.map(|&(_, value)| value).filter(|value| *value > 0.0)
        };
        forecast.flops = cost("flops");
        forecast.bytes_accessed = cost("bytes accessed");
        forecast.optimal_seconds = cost("optimal_seconds");
    }
    let optimized = compiled.optimized_program().ok();
    if let Some(module) = optimized.and_then(|bytes| optimized_module(&bytes)) {
        forecast.collectives = collectives(&module);
    }
}
