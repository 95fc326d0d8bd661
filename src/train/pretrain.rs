//! The loop of pretraining and fine-tuning: restore, launch, check, log, save, stop.

use super::checkpoint::{self, Manifest};
use super::evaluation::{self, Evaluation};
use super::input_watch::InputWatch;
use super::launch::{Launch, Launcher};
use super::objective::Objective;
use super::processes::Processes;
use super::resume::Point;
use super::run_dir::{self, RunDir, SAVED};
use super::signals::{Stop, StopKind};
use super::step::{StepModule, StepSpec};
use super::{Error, setup, state, views};
use crate::config::{Loaded, Plan};
use crate::engine::Engine;
use crate::hlo::{Literal, Module};
use crate::pjrt::Buffer;
use crate::report::progress::{Standing, rate, seconds_left};
use crate::report::scalars::tags;
use crate::report::{
    self, LogFile, Progress, Recorder, Scalars, Screen, Summary, log_file, metrics, wall_time,
};
use crate::words::counted;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

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
    /// Whether evaluation follows: then nothing is measured before and after.
    pub judged: bool,
    /// Where progress goes.
    pub screen: &'a Screen,
    /// The log, opened in the run folder.
    pub log: &'a LogFile,
    /// Requests to stop.
    pub stop: &'a Stop,
    /// Who trains together.
    pub processes: &'a Processes,
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

/// Pretrains or fine-tunes, as the configuration says, until the end of the plan or a request to stop.
///
/// # Errors
/// Bad configuration or data, a plugin that refuses, a disk that refuses, a loss that is not a number.
pub fn pretrain(run: &Run) -> Result<Outcome, Error> {
    // Left last, since a log in a bucket ends with it; what the program says of an error comes too late for that.
    let mut run_dir = None;
    let result = train(run, &mut run_dir);
    let stage = run_dir.as_ref().and_then(RunDir::stage);
    if let (Err(error), Some(stage)) = (&result, stage)
        && stage.sends_at_end()
    {
        tracing::error!(target: report::PRINTED, "{error}");
    }
    result
}

fn train(run: &Run, run_dir: &mut Option<RunDir>) -> Result<Outcome, Error> {
    let config = &run.loaded.config;
    let started = Instant::now();
    let train = Arc::new(setup::examples(config, &config.train_split)?);
    let described = train.description();
    let plan = Plan::new(run.loaded, described.examples, run.devices)?;
    let spec = setup::spec(run.loaded, described, &plan)?;
    let step_module = spec.module()?;
    if run.judged && !described.has_classes() {
        let name = described.name.clone();
        return Err(Error::NoClasses {
            name,
            purpose: "to evaluate by",
            remedy: "set `mode` to train, and give `simclr evaluate` a set that has them",
        });
    }

    if let Objective::Pretrain { .. } = spec.objective
        && config.lineareval_while_pretraining
        && !described.has_classes()
    {
        let text = format!("no online classifier: {} has no classes", described.name);
        say(run.screen, &text);
    }

    if let Some(text) = run.processes.read_for_each_other(config.input_pipelines)
        && train.in_shards()
    {
        say(run.screen, &text);
    }

    let mut identity = run.loaded.identity();
    identity.push((run_dir::DATA.into(), described.fingerprint.clone()));
    let module_hash = hash(&step_module.module);
    run.processes.same_configuration(run.loaded)?;
    run.processes.same("data", &described.fingerprint)?;
    run.processes.same("module", &module_hash)?;
    run.processes.same_compiler(run.engine)?;
    // These decide how many steps a launch takes, which devices that wait for each other must agree on.
    let lengths = format!(
        "{} and {}",
        plan.checkpoint_steps, run.loaded.config.knn_epochs
    );
    let what = "steps between checkpoints and epochs between measurements";
    run.processes.same(what, &lengths)?;
    let leads = run.processes.leads();
    // What a process that does not lead writes is for nobody.
    let aside = match leads {
        true => None,
        false => Some(tempfile::tempdir().map_err(report::Error::io("create", run.model_dir))?),
    };
    let own_dir = aside.as_ref().map_or(run.model_dir, TempDir::path);
    // Of a new run all that it begins from is read first: what is refused leaves no folder that would refuse the corrected command.
    let find = || Point::find(run, &identity, &step_module);
    let begin = match leads && run_dir::is_run(run.model_dir)? {
        true => None,
        false => Some(find()?),
    };
    let test = evaluation::split(run, &spec, train.description())?;
    // Until here a signal ends the program at once: a bucket that does not answer is tried for minutes.
    run.stop.wait_for_save();
    let yaml = run.loaded.to_yaml();
    let run_dir = &*run_dir.insert(RunDir::open_or_begin_anew(own_dir, &identity, &yaml)?);
    if leads {
        run.log.open(&run_dir.near().join(log_file::FILE))?;
    }
    // Another process may have begun it meanwhile.
    let mut point = match begin.filter(|_| run_dir.is_new()) {
        Some(point) => point,
        None => find()?,
    };
    if let Some(text) = run_dir.take_over(&identity)? {
        say(run.screen, &text);
    }
    run.processes
        .same("step to go on from", &point.step.to_string())?;
    if run.processes.several() {
        // The same path may lead to other weights on another machine.
        let teacher = spec.objective.teacher().map(|(_, value)| value);
        let weights = point.values.iter().chain(teacher);
        run.processes.same(
            "weights to begin with",
            &digest(weights.map(Literal::bytes)),
        )?;
    }
    let mut step = point.step;
    let resumed = point.resumed.then_some(step);
    if let Some(text) = point.hole(&run_dir.near().join(metrics::FILE), &plan)?
        && leads
    {
        say(run.screen, &text);
    }
    let mut recorder = Recorder::open(run_dir.near(), resumed, wall_time())?;

    let mut evaluation = Evaluation::new(run, &spec, &train, test, run_dir, step)?;
    if step == 0 {
        evaluation.before(&point.values[..step_module.variables.len()], &mut recorder)?;
    }
    if let Objective::Pretrain { .. } = spec.objective
        && leads
    {
        let views = views::sheet(run.engine, config, &spec, &train, step, None)?;
        recorder.image(tags::IMAGE, step, &views, wall_time())?;
    }

    let close = |evaluation: &Evaluation, headline: String, stopped, saved: Option<u64>, note| {
        tracing::info!("{headline}");
        let mut summary = evaluation.summary(headline, run_dir, Option::is_some(&stopped));
        if saved.is_none() {
            // There is nothing to compare with, and not all is there.
            (summary.figures, summary.notes) = Default::default();
        }
        summary.notes.extend(note);
        run_dir.send()?;
        if saved.is_none() {
            summary.paths.retain(|written| run_dir.has(&written.path));
        }
        Ok(Outcome { stopped, summary })
    };
    let asked = run.stop.requested();
    if let Some(kind) = asked.filter(|_| !run.processes.several()) {
        // Compiling may take minutes, and no other process waits for this one.
        run.processes.end();
        let headline = stopped_at(resumed, step, &plan);
        return close(&evaluation, headline, Some(kind), resumed, None);
    }

    let plan_text = plan.explain(run.engine.client().platform_name());
    say(run.screen, &format!("{plan_text}; compiling"));
    let program = match &config.runtime.executable {
        None => run.engine.compile(&step_module.module)?,
        Some(file) => {
            let (program, unusable) = run.engine.compile_or_load(&step_module.module, file)?;
            if let Some(reason) = unusable {
                let file = file.display();
                say(
                    run.screen,
                    &format!(
                        "the saved program {file} was not used, and the step compiled anew: {reason}"
                    ),
                );
            }
            program
        }
    };
    let made = if program.from_cache() {
        "taken as compiled earlier"
    } else {
        "compiled"
    };
    tracing::info!("{made} in {:.1} s", program.compile_time().as_secs_f64());
    let compiled_hash = program.hash().to_string();
    if let Some(text) = point.otherwise_compiled(&compiled_hash) {
        say(run.screen, &text);
    }
    let mut launcher = Launcher::new(
        run.engine,
        &spec,
        program,
        &point.values,
        &train,
        config,
        step,
    )?;
    let saver = Saver {
        run,
        plan: &plan,
        module: &step_module,
        run_dir,
        identity: &identity,
        module_hash,
        compiled_hash,
        class_names: match spec.network.num_classes {
            Some(_) => &described.class_names,
            None => &[],
        },
    };
    // They are on the devices.
    point.values = Vec::new();

    let mut progress = Progress::start(run.screen, step, plan.total_steps);
    let mut window = Window::new(spec.metrics());
    let mut speed = Speed::default();
    let mut input = InputWatch::default();
    let first_step = step;
    // Spent on measurements in between, which are no training.
    let mut measured = Duration::ZERO;
    let knn_steps = config.knn_epochs * plan.epoch_steps;
    let most = spec.steps_per_launch;
    let mut stopped = run.processes.stop(step, most, run.stop.requested())?;
    run.processes.ready()?;
    // Several processes that were asked to stop by now agree on it after their first launch.
    if stopped.is_none() {
        // Nothing is refused any more.
        if leads {
            if let Some(text) = run_dir.enter()? {
                say(run.screen, &text);
            }
            point.settle(run_dir)?;
        }
        run.processes.entered()?;
    }
    let trained = Instant::now();
    let mut saved = resumed;
    // What led to a loss that is not a number is told, too; that one is the error.
    let tell_rest = |window: &mut Window, step, launch: &Launch, recorder: &mut Recorder| {
        if window.steps > 0 {
            let scalars = window.take(step, plan.epoch(step), launch, spec.batch);
            if let Err(error) = recorder.scalars(&scalars, wall_time()) {
                tracing::warn!("{error}");
            }
        }
    };
    while stopped.is_none() && step < plan.total_steps {
        // A clock of each process would make launches of different lengths.
        let fixed = config.runtime.steps_per_launch > 0 || run.processes.several();
        let steps = |from| steps_from(from, &plan, knn_steps, &spec, fixed, &speed);
        let launch = match launcher.launch(step, &steps) {
            Err(error @ Error::Data(_)) if saved != Some(step) => {
                // What was learned so far outlives a bad example.
                saver.save(step, spec.batch, &launcher.buffers, saved)?;
                return Err(error);
            }
            launch => launch?,
        };
        for row in &launch.metrics {
            step += 1;
            if !row.iter().all(|x| x.is_finite()) {
                tell_rest(&mut window, step - 1, &launch, &mut recorder);
                return Err(saver.not_a_number("the loss", step, saved));
            }
            window.add(row);
            if step % plan.summary_steps == 0 || step == plan.total_steps {
                let scalars = window.take(step, plan.epoch(step), &launch, spec.batch);
                recorder.scalars(&scalars, wall_time())?;
            }
        }
        speed.add(launch.metrics.len(), launch.total);
        if let Some((stages, _)) = launcher.stream()
            && let Some(line) = input.add(launch.waited, launch.total, stages)
        {
            say(run.screen, &line);
        }
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
                    learning_rate: row.last().copied().unwrap_or_default(),
                    images_per_second: spec.batch as f64 / seconds,
                    seconds_left: seconds_left(step, plan.total_steps, seconds),
                },
                started.elapsed().as_secs_f64(),
            );
        }
        stopped = run.processes.stop(step, most, run.stop.requested())?;
        let last = step == plan.total_steps;
        let due = step % plan.checkpoint_steps == 0 || last;
        if due || stopped.is_some() {
            let result = saver.save(step, spec.batch, &launcher.buffers, saved);
            if let Err(Error::NotANumber { .. }) = result {
                tell_rest(&mut window, step, &launch, &mut recorder);
            }
            result?;
            run.processes.saved(step)?;
            saved = Some(step);
        }
        // After the checkpoint, which what is wrong with the evaluation's pictures must not cost.
        if knn_steps > 0
            && step % knn_steps == 0
            && stopped.is_none()
            && !(last && evaluation.at_end())
        {
            let begin = Instant::now();
            let values = variables(&step_module, &launcher.buffers)?;
            evaluation.between(&values, &mut recorder, step, plan.epoch(step))?;
            measured += begin.elapsed();
        }
    }
    drop(progress);
    run.processes.end();
    let seconds = (trained.elapsed() - measured).as_secs_f64();
    let steps = step - first_step;
    let images_per_second = (steps * spec.batch as u64) as f64 / seconds.max(1e-9);
    if stopped.is_none() {
        let values = variables(&step_module, &launcher.buffers)?;
        evaluation.after(&values, &mut recorder, step, plan.epoch(step))?;
    }
    let done = match spec.objective {
        Objective::Pretrain { .. } => "pretrained",
        Objective::Finetune { .. } => "fine-tuned",
        Objective::Distill { .. } => "distilled",
    };
    let headline = match stopped {
        Some(_) => stopped_at(saved, step, &plan),
        None if steps == 0 => format!("{done} before: all {} are done", counted(step, "step")),
        None => format!(
            "{done} {} ({:.1} epochs) in {}, {} images/s{}",
            counted(steps, "step"),
            plan.epoch(steps),
            crate::report::progress::duration(seconds),
            rate(images_per_second),
            match first_step {
                0 => String::new(),
                _ => format!("; {step} steps in all"),
            }
        ),
    };
    let note = match launcher.stream() {
        Some((_, skipped @ 1..)) => Some(format!(
            "{skipped} examples could not be had and were replaced; the log names them"
        )),
        _ => None,
    };
    close(&evaluation, headline, stopped, saved, note)
}

/// The headline of a run that was stopped.
fn stopped_at(saved: Option<u64>, step: u64, plan: &Plan) -> String {
    match saved {
        None => "stopped before the first step".into(),
        Some(_) => format!("stopped and saved at step {step} of {}", plan.total_steps),
    }
}

pub(crate) fn say(screen: &Screen, text: &str) {
    tracing::info!("{text}");
    if screen.style() != crate::report::progress::Style::Quiet {
        // A closed standard error does not stop a run.
        screen.write_above(format!("{text}\n").as_bytes()).ok();
    }
}

/// SHA-256 of a module, in hex.
pub(super) fn hash(module: &Module) -> String {
    digest([&module.to_proto_bytes()[..]])
}

/// SHA-256 of bytes one after the other, in hex.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    let bytes = digest.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What saving needs beside the state.
struct Saver<'a> {
    run: &'a Run<'a>,
    plan: &'a Plan,
    module: &'a StepModule,
    run_dir: &'a RunDir,
    identity: &'a [(String, String)],
    module_hash: String,
    compiled_hash: String,
    class_names: &'a [String],
}

/// The variables' values, from the devices.
fn variables(module: &StepModule, buffers: &[Vec<Buffer>]) -> Result<Vec<Literal>, Error> {
    let own = &module.state[..module.variables.len()];
    Ok(state::literals(own, state::read(own, buffers)?))
}

/// How many steps the next launch takes: to the next point where the loop must look, and about a second long.
fn steps_from(
    step: u64,
    plan: &Plan,
    knn_steps: u64,
    spec: &StepSpec,
    fixed: bool,
    speed: &Speed,
) -> usize {
    let to_next = |every: u64| every - step % every;
    let mut room = to_next(plan.checkpoint_steps).min(plan.total_steps - step);
    if knn_steps > 0 {
        room = room.min(to_next(knn_steps));
    }
    let room = room as usize;
    let most = spec.steps_per_launch.min(room);
    if fixed || most == 0 {
        return most;
    }
    let aimed = LAUNCH.as_secs_f64() / speed.seconds_per_step();
    (aimed as usize).clamp(1, most)
}

impl Saver<'_> {
    /// Saves the state after `step`, unless it is spoilt; `before` is the step of the last checkpoint.
    fn save(
        &self,
        step: u64,
        batch: usize,
        buffers: &[Vec<Buffer>],
        before: Option<u64>,
    ) -> Result<(), Error> {
        if !self.run.processes.leads() {
            return Ok(());
        }
        let config = &self.run.loaded.config;
        let arrays = state::read(&self.module.state, buffers)?;
        // The loss of a step is computed before its update: only the next one would show that the update went wrong.
        if let Some(array) = arrays.iter().find(|array| !state::is_finite(array)) {
            return Err(self.not_a_number(&format!("`{}`", array.name), step, before));
        }
        let manifest = Manifest {
            step,
            epoch: self.plan.epoch(step),
            data_position: step * batch as u64,
            seed: config.runtime.seed,
            module_hash: self.module_hash.clone(),
            compiled_hash: self.compiled_hash.clone(),
            config: self.identity.to_vec(),
            config_yaml: self.run.loaded.to_yaml(),
            class_names: self.class_names.to_vec(),
        };
        let keep = config.keep_checkpoint_max;
        // Before the checkpoint, so that whoever goes on from it finds the steps that led to it.
        let saved = self.run_dir.send().map_err(Error::from).and_then(|()| {
            let folder = self.run_dir.checkpoints();
            let alone = || Ok(self.run_dir.check()?);
            match checkpoint::save_if(&folder, &manifest, &arrays, keep, &alone) {
                Err(checkpoint::Error::RunDir(error)) => Err(Error::RunDir(*error)),
                saved => Ok(saved?),
            }
        });
        let path = match (saved, self.run_dir.stage()) {
            (Err(source), Some(stage)) => {
                stage.give_up();
                if let Error::RunDir(run_dir::Error::TakenOver { .. }) = source {
                    return Err(source);
                }
                let source = Box::new(source);
                // What was learned outlives a bucket that cannot be reached.
                return Err(
                    match checkpoint::save(&stage.kept(), &manifest, &arrays, 1) {
                        Ok(kept) => Error::NotSent { source, step, kept },
                        Err(local) => Error::NotKept {
                            source,
                            step,
                            local: Box::new(local),
                        },
                    },
                );
            }
            (saved, stage) => {
                if let Some(stage) = stage {
                    checkpoint::remove_up_to(&stage.kept(), step);
                }
                saved?
            }
        };
        tracing::info!("{SAVED}{}", path.display());
        Ok(())
    }

    fn not_a_number(&self, what: &str, step: u64, saved: Option<u64>) -> Error {
        let again = match (saved, self.run_dir.stage()) {
            (Some(saved @ 1..), _) => {
                let path = checkpoint::path_of(&self.run_dir.checkpoints(), saved);
                format!(
                    "start in another model_dir from the weights of the last checkpoint: checkpoint={}",
                    path.display()
                )
            }
            (_, Some(_)) => "start again from the beginning, in another model_dir".into(),
            (_, None) => "start again from the beginning".into(),
        };
        Error::NotANumber {
            what: what.into(),
            step,
            seed: self.run.loaded.config.runtime.seed,
            again,
        }
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
struct Window {
    tags: &'static [&'static str],
    sums: Vec<f64>,
    steps: usize,
    last_rate: f32,
}

impl Window {
    fn new(tags: &'static [&'static str]) -> Self {
        Window {
            tags,
            sums: vec![0.0; tags.len()],
            steps: 0,
            last_rate: 0.0,
        }
    }

    fn add(&mut self, row: &[f32]) {
        for (sum, &value) in self.sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
        self.steps += 1;
        self.last_rate = row.last().copied().unwrap_or_default();
    }

    /// Means of the window; the rate is that of its last step.
    fn take(&mut self, step: u64, epoch: f64, launch: &Launch, batch: usize) -> Scalars {
        let mut scalars = Scalars::new(step, epoch);
        let steps = self.steps.max(1) as f64;
        for (tag, sum) in self.tags.iter().zip(&self.sums) {
            scalars.set(tag, sum / steps);
        }
        scalars.set(tags::LEARNING_RATE, self.last_rate);
        let per_step = launch.total.as_secs_f64() / launch.metrics.len().max(1) as f64;
        scalars.set(tags::STEP_TIME, per_step);
        scalars.set(tags::IMAGES_PER_SECOND, batch as f64 / per_step);
        scalars.set(
            tags::HOST_WAIT,
            launch.waited.as_secs_f64() / launch.total.as_secs_f64(),
        );
        let steps = launch.metrics.len().max(1) as f64;
        scalars.set(tags::INPUT_WAIT, launch.waited.as_secs_f64() / steps);
        *self = Window::new(self.tags);
        scalars
    }
}
