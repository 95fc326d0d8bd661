//! The pretraining loop: restore, launch, check, log, save, stop.

use super::checkpoint::{self, Manifest};
use super::evaluate::{FIGURES, Worth, features, worth, worth_of_pixels};
use super::run_dir::RunDir;
use super::signals::{Stop, StopKind};
use super::step::{METRICS, StepModule, StepSpec};
use super::{Error, setup, state};
use crate::augment::Key;
use crate::config::{Loaded, Plan};
use crate::data::{self, ImageSet, order::Order};
use crate::engine::{Engine, Program};
use crate::hlo::{DType, Graph, Literal, Module, Shape};
use crate::pjrt::{Argument, Buffer};
use crate::report::picture::{Layout, contact_sheet};
use crate::report::progress::{Standing, rate, seconds_left};
use crate::report::scalars::tags;
use crate::report::summary::{Figure, Next, Unit, Written};
use crate::report::{LogFile, Progress, Recorder, Scalars, Screen, Summary, metrics, wall_time};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the loop gets from the command line.
pub struct Run<'a> {
    /// The configuration.
    pub loaded: &'a Loaded,
    /// The run folder.
    pub model_dir: &'a Path,
    /// The engine and the number of devices to use.
    pub engine: &'a Engine,
    /// Devices to use.
    pub devices: usize,
    /// A checkpoint to go on from instead of the newest.
    pub resume_from: Option<&'a Path>,
    /// Where progress goes.
    pub screen: &'a Screen,
    /// The log, opened in the run folder.
    pub log: &'a LogFile,
    /// Requests to stop.
    pub stop: &'a Stop,
}

/// How a run ended.
pub struct Outcome {
    /// Why it stopped before its end, if it did; everything is saved.
    pub stopped: Option<StopKind>,
    /// The closing words.
    pub summary: Summary,
}

/// A launch is aimed at this long when the program chooses its number of steps.
const LAUNCH: Duration = Duration::from_secs(1);

/// Pretrains until the end of the plan or a request to stop.
///
/// # Errors
/// Bad configuration or data, a plugin that refuses, a disk that refuses, a loss that is not a number.
pub fn pretrain(run: &Run) -> Result<Outcome, Error> {
    let config = &run.loaded.config;
    let started = Instant::now();
    let data_dir = config.data_dir.as_deref();
    let train = data::load(&config.dataset, &config.train_split, data_dir)?;
    let plan = Plan::new(run.loaded, train.len(), run.devices)?;
    let spec = setup::spec(run.loaded, &train, &plan)?;
    let step_module = spec.module()?;

    let mut identity = run.loaded.identity();
    identity.push(("data".into(), train.fingerprint.clone()));
    let run_dir = RunDir::open(run.model_dir, &identity, &run.loaded.to_yaml())?;
    run.log.open(&run_dir.log())?;
    tracing::info!("{}", plan.explain());

    let specs = state::specs(&step_module.state);
    let chosen = match run.resume_from {
        Some(path) => Some(path.to_path_buf()),
        None => checkpoint::latest(&run_dir.checkpoints())?,
    };
    let (mut step, values) = match &chosen {
        Some(path) => {
            let (manifest, arrays) = checkpoint::load(path, &specs)?;
            if run.resume_from.is_some() {
                checkpoint::set_aside_after(&run_dir.checkpoints(), manifest.step)?;
            }
            say(
                run.screen,
                &format!("resuming at step {} from {}", manifest.step, path.display()),
            );
            (manifest.step, state::literals(&step_module.state, arrays))
        }
        None => (
            0,
            state::initial(
                &step_module.state,
                &step_module.variables,
                config.runtime.seed,
            ),
        ),
    };
    let resumed = chosen.is_some().then_some(step);
    let mut recorder = Recorder::open(run_dir.path(), resumed, wall_time())?;

    let mut evaluation = Evaluation::new(run, &spec, &train, &run_dir, step)?;
    if step == 0 {
        evaluation.before(&values[..step_module.variables.len()], &mut recorder)?;
    }
    let views = pairs(run.engine, &spec, &train, config.runtime.seed, step)?;
    recorder.image(tags::IMAGE, step, &views, wall_time())?;

    say(run.screen, &format!("{}; compiling", plan.explain()));
    let program = run.engine.compile(&step_module.module)?;
    let made = if program.from_cache() {
        "taken from the cache of compiled programs"
    } else {
        "compiled"
    };
    tracing::info!("{made} in {:.1} s", program.compile_time().as_secs_f64());
    let mut launcher = Launcher {
        engine: run.engine,
        spec: &spec,
        buffers: state::put(run.engine, &program, &values)?,
        fixed: Fixed::put(run.engine, &program, &train, config.runtime.seed)?,
        program,
        order: Order::new(config.runtime.seed, train.len()),
    };
    let saver = Saver {
        run,
        plan: &plan,
        module: &step_module,
        run_dir: &run_dir,
        identity: &identity,
        module_hash: hash(&step_module.module),
    };
    drop(values);

    let mut progress = Progress::start(run.screen, step, plan.total_steps);
    let mut window = Window::default();
    let mut speed = Speed::default();
    let first_step = step;
    let trained = Instant::now();
    let mut stopped = None;
    let mut saved = resumed;
    while step < plan.total_steps {
        let fixed = config.runtime.steps_per_launch;
        let count = steps_from(step, &plan, &spec, fixed, &speed);
        let launch = launcher.launch(step, count)?;
        for row in &launch.metrics {
            step += 1;
            if !row.iter().all(|x| x.is_finite()) {
                let from = match saved {
                    Some(saved) if saved > 0 => format!("the checkpoint of step {saved}"),
                    _ => "the beginning".into(),
                };
                return Err(Error::NotANumber {
                    step,
                    seed: config.runtime.seed,
                    from,
                });
            }
            window.add(row);
            if step % plan.summary_steps == 0 || step == plan.total_steps {
                let scalars = window.take(step, plan.epoch(step), &launch, spec.batch);
                recorder.scalars(&scalars, wall_time())?;
            }
        }
        speed.add(count, launch.total);
        if let Some(row) = launch.metrics.last() {
            let seconds = speed.seconds_per_step();
            progress.update(
                &Standing {
                    step,
                    steps: plan.total_steps,
                    epoch: plan.epoch(step),
                    epochs: plan.epoch(plan.total_steps),
                    loss: row[0],
                    contrast_accuracy: row[1],
                    learning_rate: row[7],
                    images_per_second: spec.batch as f64 / seconds,
                    seconds_left: seconds_left(step, plan.total_steps, seconds),
                },
                started.elapsed().as_secs_f64(),
            );
        }
        stopped = run.stop.requested();
        let due = step % plan.checkpoint_steps == 0 || step == plan.total_steps;
        if due || stopped.is_some() {
            saver.save(step, spec.batch, &launcher.buffers)?;
            saved = Some(step);
        }
        if stopped.is_some() {
            break;
        }
    }
    drop(progress);
    let seconds = trained.elapsed().as_secs_f64();
    let steps = step - first_step;
    let images_per_second = (steps * spec.batch as u64) as f64 / seconds.max(1e-9);
    if stopped.is_none() {
        let count = step_module.variables.len();
        let values: Vec<Literal> = {
            let arrays = state::read(&step_module.state[..count], &launcher.buffers)?;
            state::literals(&step_module.state[..count], arrays)
        };
        evaluation.after(&values, &mut recorder, step, plan.epoch(step))?;
    }
    let headline = match stopped {
        None => format!(
            "pretrained {steps} steps ({:.1} epochs) in {}, {} images/s",
            plan.epoch(steps),
            crate::report::progress::duration(seconds),
            rate(images_per_second)
        ),
        Some(_) => format!("stopped and saved at step {step} of {}", plan.total_steps),
    };
    let summary = evaluation.summary(headline, &run_dir, &recorder, stopped.is_some());
    Ok(Outcome { stopped, summary })
}

fn say(screen: &Screen, text: &str) {
    tracing::info!("{text}");
    if screen.style() != crate::report::progress::Style::Quiet {
        // A closed standard error does not stop a run.
        screen.write_above(format!("{text}\n").as_bytes()).ok();
    }
}

fn hash(module: &Module) -> String {
    Sha256::digest(module.to_proto_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Arguments of every launch that never change: `[replica]`.
struct Fixed {
    seed: Vec<Buffer>,
    images: Vec<Buffer>,
    labels: Vec<Buffer>,
}

impl Fixed {
    fn put(engine: &Engine, program: &Program, data: &ImageSet, seed: u64) -> Result<Self, Error> {
        let dims = [data.len() as i64, data.height as i64, data.width as i64, 3];
        let images = Literal::new(&dims, &data.images);
        let labels: Vec<i32> = data.labels.iter().map(|&label| label as i32).collect();
        let labels = Literal::new(&[data.len() as i64], &labels);
        let seed = Literal::new(&[2], &[seed as u32, (seed >> 32) as u32]);
        let everywhere = |literal: &Literal| -> Result<Vec<Buffer>, crate::engine::Error> {
            program
                .devices()
                .iter()
                .map(|device| engine.put(literal, device))
                .collect()
        };
        Ok(Fixed {
            seed: everywhere(&seed)?,
            images: everywhere(&images)?,
            labels: everywhere(&labels)?,
        })
    }
}

/// The program with its state and data: what a launch needs.
struct Launcher<'a> {
    engine: &'a Engine,
    spec: &'a StepSpec,
    program: Program,
    /// `[replica][array]`.
    buffers: Vec<Vec<Buffer>>,
    fixed: Fixed,
    order: Order,
}

/// What saving needs beside the state.
struct Saver<'a> {
    run: &'a Run<'a>,
    plan: &'a Plan,
    module: &'a StepModule,
    run_dir: &'a RunDir,
    identity: &'a [(String, String)],
    module_hash: String,
}

/// What a launch gave.
struct Launch {
    /// A row per step.
    metrics: Vec<[f32; METRICS.len()]>,
    /// Wall time of the whole launch.
    total: Duration,
    /// The part in which the device had nothing to do.
    host: Duration,
}

/// How many steps the next launch takes: to the next point where the loop must look, and about a second long.
fn steps_from(step: u64, plan: &Plan, spec: &StepSpec, fixed: usize, speed: &Speed) -> usize {
    let to_checkpoint = plan.checkpoint_steps - step % plan.checkpoint_steps;
    let room = to_checkpoint.min(plan.total_steps - step) as usize;
    let most = spec.steps_per_launch.min(room);
    if fixed > 0 {
        return most;
    }
    let aimed = LAUNCH.as_secs_f64() / speed.seconds_per_step();
    (aimed as usize).clamp(1, most)
}

impl Launcher<'_> {
    /// Runs `count` steps from `step` on and waits for them.
    fn launch(&mut self, step: u64, count: usize) -> Result<Launch, Error> {
        let begin = Instant::now();
        let (most, n) = (self.spec.steps_per_launch, self.spec.per_replica());
        let batch = self.spec.batch;
        let chosen = self.order.indices(step * batch as u64, count * batch);
        let mut arguments = Vec::new();
        for (replica, (device, state)) in self
            .program
            .devices()
            .iter()
            .zip(self.buffers.drain(..))
            .enumerate()
        {
            // Rows of this replica in each step's batch; steps that do not run read nothing.
            let mut indices = vec![0u32; most * n];
            for k in 0..count {
                let from = k * batch + replica * n;
                indices[k * n..(k + 1) * n].copy_from_slice(&chosen[from..from + n]);
            }
            let engine = self.engine;
            let count = engine.put(&Literal::scalar(count as i32), device)?;
            let indices = engine.put(&Literal::new(&[most as i64, n as i64], &indices), device)?;
            let mut list: Vec<Argument> = state.into_iter().map(Argument::Donate).collect();
            list.push(Argument::Keep(&self.fixed.seed[replica]));
            list.push(Argument::Donate(count));
            list.push(Argument::Donate(indices));
            list.push(Argument::Keep(&self.fixed.images[replica]));
            list.push(Argument::Keep(&self.fixed.labels[replica]));
            arguments.push(list);
        }
        let host = begin.elapsed();
        let mut results = self.program.launch(arguments)?;
        let mut metrics = Vec::new();
        for list in &mut results {
            metrics.extend(list.pop());
        }
        self.buffers = results;
        let bytes = metrics[0].to_host().map_err(crate::engine::Error::Pjrt)?;
        let shape = Shape::new(DType::F32, [most as i64, METRICS.len() as i64]);
        let table = Literal::from_bytes(shape.clone(), bytes)
            .unwrap_or_else(|| Literal::zeros(shape))
            .to_vec::<f32>();
        let rows = table.chunks_exact(METRICS.len()).take(count);
        Ok(Launch {
            metrics: rows
                .map(|row| {
                    let mut copy = [0.0; METRICS.len()];
                    copy.copy_from_slice(row);
                    copy
                })
                .collect(),
            total: begin.elapsed(),
            host,
        })
    }
}

impl Saver<'_> {
    fn save(&self, step: u64, batch: usize, buffers: &[Vec<Buffer>]) -> Result<PathBuf, Error> {
        let config = &self.run.loaded.config;
        let arrays = state::read(&self.module.state, buffers)?;
        let manifest = Manifest {
            step,
            epoch: self.plan.epoch(step),
            data_position: step * batch as u64,
            seed: config.runtime.seed,
            module_hash: self.module_hash.clone(),
            config: self.identity.to_vec(),
            config_yaml: self.run.loaded.to_yaml(),
        };
        let keep = config.keep_checkpoint_max;
        let path = checkpoint::save(&self.run_dir.checkpoints(), &manifest, &arrays, keep)?;
        tracing::info!("saved {}", path.display());
        Ok(path)
    }
}

/// Seconds per step of recent launches.
#[derive(Default)]
struct Speed {
    seconds: Option<f64>,
}

impl Speed {
    fn add(&mut self, steps: usize, time: Duration) {
        let now = time.as_secs_f64() / steps.max(1) as f64;
        self.seconds = Some(match self.seconds {
            Some(before) => 0.8 * before + 0.2 * now,
            None => now,
        });
    }

    fn seconds_per_step(&self) -> f64 {
        self.seconds.unwrap_or(1.0).max(1e-6)
    }
}

/// Sums since the last line of metrics.
#[derive(Default)]
struct Window {
    sums: [f64; METRICS.len()],
    steps: usize,
    last_rate: f32,
}

impl Window {
    fn add(&mut self, row: &[f32; METRICS.len()]) {
        for (sum, &value) in self.sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
        self.steps += 1;
        self.last_rate = row[METRICS.len() - 1];
    }

    /// Means of the window; the rate is that of its last step.
    fn take(&mut self, step: u64, epoch: f64, launch: &Launch, batch: usize) -> Scalars {
        let mut scalars = Scalars::new(step, epoch);
        let steps = self.steps.max(1) as f64;
        for (tag, sum) in METRICS.iter().zip(self.sums) {
            scalars.set(tag, sum / steps);
        }
        scalars.set(tags::LEARNING_RATE, self.last_rate);
        let per_step = launch.total.as_secs_f64() / launch.metrics.len().max(1) as f64;
        scalars.set(tags::STEP_TIME, per_step);
        scalars.set(tags::IMAGES_PER_SECOND, batch as f64 / per_step);
        scalars.set(
            tags::HOST_WAIT,
            launch.host.as_secs_f64() / launch.total.as_secs_f64(),
        );
        *self = Window::default();
        scalars
    }
}

/// A picture of the first pairs of views that this start trains on.
fn pairs(
    engine: &Engine,
    spec: &StepSpec,
    data: &ImageSet,
    seed: u64,
    step: u64,
) -> Result<crate::report::Picture, Error> {
    let n = spec.batch.min(16);
    let chosen = Order::new(seed, data.len()).indices(step * spec.batch as u64, n);
    let mut bytes = Vec::new();
    for index in chosen {
        bytes.extend_from_slice(data.image(index as usize));
    }
    let dims = [n as i64, data.height as i64, data.width as i64, 3];
    let graph = Graph::new();
    let images = graph.parameter("images", Shape::new(DType::U8, dims));
    let key = Key {
        seed: [graph.scalar(seed as u32), graph.scalar((seed >> 32) as u32)],
        step: graph.scalar(step as u32),
    };
    let place = graph.iota(DType::U32, &[n as i64], 0);
    let views = spec.augmentation.two_views(images, key, place);
    let module = graph
        .finish("views", &[views])
        .map_err(crate::engine::Error::Hlo)?;
    let program = engine.compile(&module)?;
    let views = program.run(engine, &[vec![Literal::new(&dims, &bytes)]])?[0][0].to_vec::<f32>();
    let side = spec.augmentation.image_size;
    let (first, second) = views.split_at(n * side * side * 3);
    Ok(contact_sheet(
        first,
        second,
        [n, side, side, 3],
        Layout::for_side(side),
    )?)
}

/// Figures before and after.
struct Evaluation<'a> {
    run: &'a Run<'a>,
    spec: &'a StepSpec,
    train: &'a ImageSet,
    test: Option<ImageSet>,
    before: Option<Worth>,
    after: Option<Worth>,
    pixels: Option<Worth>,
}

impl<'a> Evaluation<'a> {
    fn new(
        run: &'a Run<'a>,
        spec: &'a StepSpec,
        train: &'a ImageSet,
        run_dir: &RunDir,
        step: u64,
    ) -> Result<Self, Error> {
        let config = &run.loaded.config;
        let test = if config.runtime.eval {
            let dir = config.data_dir.as_deref();
            Some(data::load(&config.dataset, &config.eval_split, dir)?)
        } else {
            None
        };
        let mut evaluation = Evaluation {
            run,
            spec,
            train,
            test,
            before: None,
            after: None,
            pixels: None,
        };
        if step > 0 {
            // A resumed run takes the figures of its beginning from its own metrics.
            if let Some(line) = metrics::read(&run_dir.metrics())?
                .into_iter()
                .find(|line| line.step == 0)
            {
                evaluation.before = read(&line, "");
                evaluation.pixels = read(&line, "_pixels");
            }
        }
        Ok(evaluation)
    }

    fn before(&mut self, variables: &[Literal], recorder: &mut Recorder) -> Result<(), Error> {
        let Some(test) = &self.test else {
            return Ok(());
        };
        say(self.run.screen, "measuring the untrained network");
        let mut scalars = Scalars::new(0, 0.0);
        if self.run.loaded.config.runtime.eval_pixels {
            let worth = worth_of_pixels(self.run.engine, self.train, test)?;
            write(&mut scalars, &worth, "_pixels");
            self.pixels = Some(worth);
        }
        let worth = self.measure(variables, test)?;
        write(&mut scalars, &worth, "");
        self.before = Some(worth);
        Ok(recorder.scalars(&scalars, wall_time())?)
    }

    fn after(
        &mut self,
        variables: &[Literal],
        recorder: &mut Recorder,
        step: u64,
        epoch: f64,
    ) -> Result<(), Error> {
        let Some(test) = &self.test else {
            return Ok(());
        };
        say(self.run.screen, "measuring the trained network");
        let worth = self.measure(variables, test)?;
        let mut scalars = Scalars::new(step, epoch);
        write(&mut scalars, &worth, "");
        self.after = Some(worth);
        Ok(recorder.scalars(&scalars, wall_time())?)
    }

    fn measure(&self, variables: &[Literal], test: &ImageSet) -> Result<Worth, Error> {
        let batch = self.run.loaded.config.eval_batch_size;
        let of = |set: &ImageSet| features(self.run.engine, self.spec, variables, set, batch);
        worth(self.run.engine, &of(self.train)?, &of(test)?)
    }

    fn summary(
        &self,
        headline: String,
        run_dir: &RunDir,
        recorder: &Recorder,
        stopped: bool,
    ) -> Summary {
        let mut figures = Vec::new();
        let at = |worth: &Option<Worth>, i: usize| worth.map(|worth| worth.values[i]);
        for (i, (_, name)) in FIGURES.iter().enumerate() {
            figures.push(Figure {
                name: name.to_string(),
                unit: Unit::Share,
                before: at(&self.before, i),
                after: at(&self.after, i),
            });
        }
        figures.retain(|figure| figure.before.is_some() || figure.after.is_some());
        let mut notes = Vec::new();
        if let Some(pixels) = self.pixels {
            let texts: Vec<String> = FIGURES
                .iter()
                .zip(pixels.values)
                .map(|((_, name), value)| format!("{name} {:.1} %", 100.0 * value))
                .collect();
            notes.push(format!("the same on raw pixels: {}", texts.join(", ")));
        }
        let written = |name: &str, path: PathBuf| Written {
            name: name.into(),
            path,
        };
        let folder = run_dir.path().display();
        let next = if stopped {
            vec![Next {
                purpose: "go on".into(),
                command: "the same command again".into(),
            }]
        } else {
            vec![Next {
                purpose: "curves and views".into(),
                command: format!("tensorboard --logdir {folder}"),
            }]
        };
        Summary {
            headline,
            figures,
            notes,
            paths: vec![
                written("checkpoints", run_dir.checkpoints()),
                written("metrics", recorder.metrics_path().into()),
                written("configuration", run_dir.config()),
                written("log", run_dir.log()),
            ],
            next,
        }
    }
}

fn write(scalars: &mut Scalars, worth: &Worth, suffix: &str) {
    for ((tag, _), value) in FIGURES.iter().zip(worth.values) {
        scalars.set(&format!("{tag}{suffix}"), value);
    }
}

fn read(scalars: &Scalars, suffix: &str) -> Option<Worth> {
    let mut values = [0.0; FIGURES.len()];
    for (value, (tag, _)) in values.iter_mut().zip(FIGURES) {
        *value = scalars.get(&format!("{tag}{suffix}"))?;
    }
    Some(Worth { values })
}

/// What [`measure`] found.
pub struct Measured {
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
    /// The plugin's count of floating-point operations of a launch's program, where it tells.
    pub flops: Option<f64>,
}

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
/// process.
///
/// # Errors
/// As [`pretrain`].
pub fn measure(
    loaded: &Loaded,
    engine: &Engine,
    devices: usize,
    steps: usize,
    begin: Instant,
) -> Result<Measured, Error> {
    let config = &loaded.config;
    let train = data::load(
        &config.dataset,
        &config.train_split,
        config.data_dir.as_deref(),
    )?;
    let plan = Plan::new(loaded, train.len(), devices)?;
    let spec = setup::spec(loaded, &train, &plan)?;
    let module = spec.module()?;
    let program = engine.compile(&module.module)?;
    let (compile, from_cache) = (program.compile_time(), program.from_cache());
    let values = state::initial(&module.state, &module.variables, config.runtime.seed);
    let buffers = state::put(engine, &program, &values)?;
    let fixed = Fixed::put(engine, &program, &train, config.runtime.seed)?;
    let memory = program.executable().memory_use().ok();
    let flops = program.executable().cost_analysis().ok().and_then(|costs| {
        costs
            .into_iter()
            .find(|(name, _)| name == "flops")
            .map(|(_, value)| value)
    });
    let mut launcher = Launcher {
        engine,
        spec: &spec,
        program,
        buffers,
        fixed,
        order: Order::new(config.runtime.seed, train.len()),
    };
    let first = launcher.launch(0, 1)?;
    let mut found = Measured {
        batch: spec.batch,
        compile,
        from_cache,
        first_step: begin.elapsed(),
        steps: Vec::new(),
        host_wait: 0.0,
        losses: first.metrics.iter().map(|row| row[0]).collect(),
        memory,
        flops,
    };
    let (mut host, mut total) = (Duration::ZERO, Duration::ZERO);
    // One step per launch, so that each is timed; a fixed steps_per_launch is kept as the user set it.
    let at_once = match config.runtime.steps_per_launch {
        0 => 1,
        count => count,
    };
    let mut step = 1;
    while step <= steps as u64 {
        let launch = launcher.launch(step, at_once)?;
        found
            .steps
            .push(launch.total.as_secs_f64() / at_once as f64);
        found.losses.extend(launch.metrics.iter().map(|row| row[0]));
        host += launch.host;
        total += launch.total;
        step += at_once as u64;
    }
    found.host_wait = host.as_secs_f64() / total.as_secs_f64();
    Ok(found)
}
