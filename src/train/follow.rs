//! Evaluation of a run's checkpoints, each as it appears, and the files that the original writes about it (reference §5.3, §5.4).

use super::judge::{Judged, judge, knows, suits};
use super::pretrain::say;
use super::run_dir::{self, Error as RunDirError};
use super::signals::{Stop, StopKind};
use super::stage::Stage;
use super::trained::{self, SHARED_KEYS, Trained};
use super::{Error, checkpoint, setup};
use crate::config::{Behaviour, Loaded, Plan};
use crate::data::{Examples, store};
use crate::engine::Engine;
use crate::hlo::Literal;
use crate::report::{Recorder, Scalars, Screen, metrics, wall_time};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What evaluation gets from the command line.
pub struct Follow<'a> {
    /// The configuration; what nobody has set of network and data is as the run has it.
    pub loaded: &'a Loaded,
    /// The run folder. Training may go on in it: it is only read, but for the files of results.
    pub model_dir: &'a Path,
    /// The engine.
    pub engine: &'a Engine,
    /// Devices to use.
    pub devices: usize,
    /// Where notes go.
    pub screen: &'a Screen,
    /// Requests to stop.
    pub stop: &'a Stop,
}

/// Between two looks for a new checkpoint.
const PAUSE: Duration = Duration::from_millis(500);
/// The same of a bucket, where a look costs a request.
const REMOTE_PAUSE: Duration = Duration::from_secs(5);

/// What one evaluation found: the content of `result.json`.
pub type Found = Map<String, Value>;

/// Evaluates the newest checkpoint of a run once.
///
/// # Errors
/// If there is none, or it cannot be evaluated, or its results not be written.
pub fn newest(follow: &Follow) -> Result<Found, Error> {
    let trained = trained::open(follow.model_dir)?;
    Evaluator::new(follow, &trained)?.evaluate(&trained)
}

/// Evaluates the newest checkpoint, then each new one as it appears, until one is that of the run's last step. A checkpoint that is
/// deleted while it is read is passed over. `tell` is told each result.
///
/// # Errors
/// As [`newest`]; a run folder without a checkpoint is waited for.
pub fn follow(
    follow: &Follow,
    tell: &mut dyn FnMut(&Found) -> std::io::Result<()>,
) -> Result<Option<StopKind>, Error> {
    let folder = follow.model_dir.join("checkpoints");
    let mut evaluator = None;
    let mut done = None;
    let mut waiting = false;
    loop {
        let mut new = checkpoint::list(&folder)?;
        new.retain(|(step, _)| Some(*step) > done);
        if done.is_none() {
            new = new.pop().into_iter().collect();
        }
        for (step, path) in &new {
            let trained = match trained::open(path) {
                Err(_)
                    if !checkpoint::list(&folder)?
                        .iter()
                        .any(|(_, there)| there == path) =>
                {
                    tracing::info!("{} was deleted while it was read", path.display());
                    continue;
                }
                trained => trained?,
            };
            let evaluator: &mut Evaluator = match &mut evaluator {
                Some(evaluator) => evaluator,
                none => none.insert(Evaluator::new(follow, &trained)?),
            };
            let found = evaluator.evaluate(&trained)?;
            // A reader who went away is no reason to stop writing results.
            tell(&found).ok();
            done = Some(*step);
            if *step >= evaluator.last_step {
                return Ok(None);
            }
            if let Some(kind) = follow.stop.requested() {
                return Ok(Some(kind));
            }
        }
        if new.is_empty() {
            if !std::mem::replace(&mut waiting, true) {
                let mut text = format!("waiting for a new checkpoint in {}", folder.display());
                if !store::is_dir(follow.model_dir)? {
                    text += &format!("; {} is not there yet", follow.model_dir.display());
                }
                say(follow.screen, &text);
            }
            if let Some(kind) = follow.stop.requested() {
                return Ok(Some(kind));
            }
            std::thread::sleep(match store::is_remote(&folder) {
                true => REMOTE_PAUSE,
                false => PAUSE,
            });
        }
    }
}

/// What evaluations of one run share.
struct Evaluator<'a> {
    follow: &'a Follow<'a>,
    loaded: Loaded,
    train: Arc<Examples>,
    test: Arc<Examples>,
    /// Whether features are measured, not only a head.
    features: bool,
    recorder: Recorder,
    /// Of a run in a bucket, where the recorder writes.
    stage: Option<Stage>,
    last_step: u64,
    /// Numbers of the variables whose squares are part of the loss.
    decayed: Vec<usize>,
    weight_decay: f64,
}

impl<'a> Evaluator<'a> {
    fn new(follow: &'a Follow<'a>, trained: &Trained) -> Result<Self, Error> {
        // Also the list it was trained on: the last step follows from it.
        let keys = [&SHARED_KEYS[..], &["subset_list", "on_bad_record"]].concat();
        let loaded = follow.loaded.inherit(&trained.loaded, &keys)?;
        let config = &loaded.config;
        // Features say what pretraining is worth, a head what fine-tuning is.
        let features = config.runtime.eval && !config.finetune && config.distill.is_none();
        if !features && trained.network.num_classes.is_none() {
            let path = trained.checkpoint.clone();
            return Err(trained::Error::NoHead { path }.into());
        }
        let open = |split: &str| setup::examples(config, split).map(Arc::new);
        let (train, test) = (open(&config.train_split)?, open(&config.eval_split)?);
        let with = features.then(|| train.description());
        suits(trained, test.description(), with)?;
        match knows(trained, test.description()) {
            Err(error) if features => {
                let text = format!("the supervised head is left out: {error}");
                say(follow.screen, &text);
            }
            known => known?,
        }
        // The run's own step, whatever devices there are here.
        let described = train.description();
        let plan = Plan::new(&trained.loaded, described.examples, 1)?;
        let mut spec = setup::spec(&trained.loaded, described, &plan)?;
        // Whatever set it is evaluated on.
        spec.network = trained.network.clone();
        let decayed = spec
            .trained()?
            .into_iter()
            .filter(|&number| spec.optimizer.in_loss(&trained.variables[number]))
            .collect();
        let folder = match &config.eval_name {
            None => "eval".to_owned(),
            Some(name) => format!("eval_{name}"),
        };
        let folder = follow.model_dir.join(folder);
        let stage = match store::is_remote(&folder) {
            true => Some(Stage::open(&folder)?),
            false => None,
        };
        if let Some(stage) = &stage {
            stage.fetch(&[metrics::FILE])?;
            stage.share();
        }
        let near = stage.as_ref().map_or(folder.as_path(), Stage::near);
        std::fs::create_dir_all(near).map_err(RunDirError::io("create", near))?;
        let recorder = Recorder::open(near, Some(trained.manifest.step), wall_time())?;
        Ok(Evaluator {
            stage,
            follow,
            train,
            test,
            features,
            recorder,
            last_step: plan.total_steps,
            decayed,
            weight_decay: trained.loaded.config.weight_decay,
            loaded,
        })
    }

    fn evaluate(&mut self, trained: &Trained) -> Result<Found, Error> {
        let Follow {
            engine, devices, ..
        } = *self.follow;
        let config = &self.loaded.config;
        let train = self.features.then_some(&self.train);
        let judged = judge(engine, devices, trained, config, &self.test, train)?;
        let decay = self.decay(trained);
        let scalars = scalars(&judged, decay, config.behaviour, trained);
        self.recorder.scalars(&scalars, wall_time())?;
        if let Some(stage) = &self.stage {
            stage.send()?;
        }
        let found = result(&scalars);
        self.write(&found, trained.manifest.step)?;
        Ok(found)
    }

    /// ½λΣ‖v‖² of what the loss decays (reference §4.4).
    fn decay(&self, trained: &Trained) -> f64 {
        let squares = |value: &Literal| -> f64 {
            let values = value.to_vec::<f32>();
            values.iter().map(|&x| f64::from(x).powi(2)).sum()
        };
        let mut sum = 0.0; // the sum of no numbers is -0.0
        for &number in &self.decayed {
            sum += squares(&trained.values[number]);
        }
        0.5 * self.weight_decay * sum
    }

    /// `result.json`, `result_<step>.json` and `flags.json`, each whole or as it was.
    fn write(&self, found: &Found, step: u64) -> Result<(), Error> {
        let flags: Map<String, Value> = self
            .loaded
            .entries()
            .map(|(key, value, _)| (key.name.to_owned(), value.to_json()))
            .collect();
        let files = [
            (format!("result_{step}.json"), found),
            ("result.json".to_owned(), found),
            ("flags.json".to_owned(), &flags),
        ];
        for (name, content) in files {
            let path: PathBuf = self.follow.model_dir.join(name);
            let text = serde_json::to_string_pretty(content).unwrap_or_default();
            run_dir::replace(&path, text.into_bytes())?;
        }
        Ok(())
    }
}

/// The metrics by the names that the generation followed gives them: the second's begin with `eval/`, the first also has `loss`.
fn scalars(judged: &Judged, decay: f64, behaviour: Behaviour, trained: &Trained) -> Scalars {
    let (step, epoch) = (trained.manifest.step, trained.manifest.epoch);
    let mut scalars = Scalars::new(step, epoch);
    let mut set = |tag: &str, value: f64| {
        let tag = match behaviour {
            Behaviour::Tf2 => tag,
            Behaviour::V1 => tag.trim_start_matches("eval/"),
        };
        scalars.set(tag, value);
    };
    for (tag, _, value) in judged.figures() {
        set(tag, value);
    }
    set("eval/regularization_loss", decay);
    if let (Behaviour::V1, Some(found)) = (behaviour, &judged.classified) {
        set("eval/loss", found.loss + decay);
    }
    scalars
}

/// Every value a float, as the original writes them.
fn result(scalars: &Scalars) -> Found {
    let mut found: Found = scalars
        .values
        .iter()
        .map(|(tag, &value)| (tag.clone(), Value::from(value)))
        .collect();
    found.insert("global_step".into(), Value::from(scalars.step as f64));
    found
}
