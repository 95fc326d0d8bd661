//! Times the first steps of a configuration.

use super::launch::Launcher;
use super::{Error, given, setup, state};
use crate::config::{Loaded, Plan};
use crate::engine::{Engine, optimized_module};
use crate::hlo::Module;
use crate::pjrt::{Profiler, Trace};
use crate::proto::hlo::HloModuleProto;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What [`measure`] found.
pub struct Measured {
    /// The step, before the target's passes.
    pub module: Module,
    /// Images per step.
    pub batch: usize,
    /// Time the plugin took to compile the step.
    pub compile: Duration,
    /// Whether it came from the cache of compiled programs instead.
    pub from_cache: bool,
    /// From `begin` to the end of the first step.
    pub first_step: Duration,
    /// Seconds per step of each launch after the first.
    steps: Vec<f64>,
    /// Share of the time in which the device waited for the host.
    pub host_wait: f64,
    /// Loss of each step.
    pub losses: Vec<f32>,
    /// Device memory, where the plugin tells.
    pub memory: Option<crate::pjrt::MemoryUse>,
    /// The most memory of the first device in use so far, bytes, where the plugin tells.
    pub peak_device_memory: Option<i64>,
    /// The most memory that the process has held, bytes, where the system tells.
    pub peak_memory: Option<u64>,
    /// Processor time of the whole process per image of the steps after the second launch (after the first, where there are no more),
    /// where the system tells.
    pub cpu_seconds_per_image: Option<f64>,
    /// The plugin's count of floating-point operations of a launch's program, where it tells.
    pub flops: Option<f64>,
    /// What the plugin's profiler saw in [`TRACED`] launches more, where it has one and it was asked for.
    pub traced: Option<Traced>,
}

/// A recording of some steps, and the program that ran.
pub struct Traced {
    /// What happened.
    pub trace: Trace,
    /// Steps recorded.
    pub steps: usize,
    /// The program after the plugin's optimisation, where it gives it.
    pub optimized: Option<HloModuleProto>,
}

/// Launches that are recorded.
const TRACED: usize = 3;

impl Measured {
    /// Least, median and most seconds per step.
    pub fn step_seconds(&self) -> (f64, f64, f64) {
        let mut sorted = self.steps.clone();
        sorted.sort_by(f64::total_cmp);
        match (sorted.first(), sorted.last()) {
            (Some(&low), Some(&high)) => (low, sorted[sorted.len() / 2], high),
            _ => (0.0, 0.0, 0.0),
        }
    }
}

/// Runs the first steps of a configuration without writing anything, and times them; the first one from `begin`, the start of the
/// process. `step_only` leaves out data and augmentation: the views are made up; `trace` records some more steps at the end with the
/// plugin's profiler.
///
/// # Errors
/// As [`pretrain`].
pub fn measure(
    loaded: &Loaded,
    engine: &Engine,
    devices: usize,
    steps: usize,
    step_only: bool,
    trace: bool,
    begin: Instant,
) -> Result<Measured, Error> {
    let config = &loaded.config;
    let (spec, train) = if step_only {
        (given::spec(loaded, devices)?, None)
    } else {
        let train = setup::examples(config, &config.train_split)?;
        let plan = Plan::new(loaded, train.description().examples, devices)?;
        let spec = setup::spec(loaded, train.description(), &plan)?;
        (spec, Some(Arc::new(train)))
    };
    let module = spec.module()?;
    // Drawn meanwhile: the compiler's first passes use one core.
    let (program, values) = std::thread::scope(|threads| {
        let (state, variables) = (&module.state, &module.variables);
        let seed = config.runtime.seed;
        let values = threads.spawn(move || state::initial(state, variables, seed));
        let program = engine.compile(&module.module);
        (program, values.join())
    });
    let program = program?;
    let values = values.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (compile, from_cache) = (program.compile_time(), program.from_cache());
    let memory = program.executable().compiled().memory_use().ok();
    let flops = program
        .executable()
        .compiled()
        .cost_analysis()
        .ok()
        .and_then(|costs| {
            costs
                .into_iter()
                .find(|(name, _)| name == "flops")
                .map(|(_, value)| value)
        });
    let optimized = if trace {
        let compiled = program.executable().compiled();
        compiled.optimized_program().ok()
    } else {
        None
    };
    let mut launcher = match &train {
        Some(train) => Launcher::new(engine, &spec, program, &values, train, config, 0)?,
        None => {
            let views = given::views(&spec);
            Launcher::on_views(engine, &spec, program, &values, &views, config.runtime.seed)?
        }
    };
    // The devices have them now.
    drop(values);
    // One step per launch, so that each is timed; a fixed steps_per_launch is kept as the user set it.
    let at_once = match config.runtime.steps_per_launch {
        0 => 1,
        count => count,
    };
    let first = launcher.launch(0, &|step| if step == 0 { 1 } else { at_once })?;
    let mut found = Measured {
        module: module.module,
        batch: spec.batch,
        compile,
        from_cache,
        first_step: begin.elapsed(),
        steps: Vec::new(),
        host_wait: 0.0,
        losses: first.metrics.iter().map(|row| row[0]).collect(),
        memory,
        peak_device_memory: None,
        peak_memory: None,
        cpu_seconds_per_image: None,
        flops,
        traced: None,
    };
    // In the second launch the process has its memory anew (`pjrt::settle_memory`), which is no step's work.
    let mut cpu_before = cpu_seconds();
    let mut counted_from = 1;
    let (mut host, mut total) = (Duration::ZERO, Duration::ZERO);
    let mut step = 1;
    while step <= steps as u64 {
        let launch = launcher.launch(step, &|_| at_once)?;
        found
            .steps
            .push(launch.total.as_secs_f64() / at_once as f64);
        found.losses.extend(launch.metrics.iter().map(|row| row[0]));
        host += launch.waited;
        total += launch.total;
        step += at_once as u64;
        if counted_from == 1 && step <= steps as u64 {
            (cpu_before, counted_from) = (cpu_seconds(), step);
        }
    }
    if let (Some(before), Some(after)) = (cpu_before, cpu_seconds()) {
        let images = (step - counted_from) as f64 * spec.batch as f64;
        found.cpu_seconds_per_image = Some((after - before) / images);
    }
    let client = engine.client();
    found.peak_device_memory = client
        .device_memory(&client.devices()[0])
        .and_then(|m| m.peak);
    found.peak_memory = peak_memory();
    found.host_wait = host.as_secs_f64() / total.as_secs_f64();
    let profiler = if trace {
        Profiler::start(engine.client()).map_err(crate::engine::Error::Pjrt)?
    } else {
        None
    };
    if let Some(profiler) = profiler {
        for _ in 0..TRACED {
            launcher.launch(step, &|_| at_once)?;
            step += at_once as u64;
        }
        found.traced = Some(Traced {
            trace: profiler.stop().map_err(crate::engine::Error::Pjrt)?,
            steps: TRACED * at_once,
            optimized: optimized.and_then(|program| optimized_module(&program)),
        });
    }
    Ok(found)
}

/// Processor time of this process and all its threads so far (Linux).
pub(super) fn cpu_seconds() -> Option<f64> {
    /// Linux counts it in hundredths of a second on every architecture that plugins exist for.
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything, in parentheses: state, then 10 numbers, then user and system time.
    let (_, rest) = text.rsplit_once(')')?;
    let mut numbers = rest.split_whitespace().skip(11);
    let user: f64 = numbers.next()?.parse().ok()?;
    let system: f64 = numbers.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// The most resident memory so far, bytes (Linux).
fn peak_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}
