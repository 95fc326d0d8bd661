//! What a run's features are worth before, between and after, and the summary that says so.

use super::classify::{CLASSIFIED, classify};
use super::evaluate::{FIGURES, Worth, features, neighbours, worth, worth_of_pixels};
use super::inference::{Inference, Reach};
use super::objective::Objective;
use super::pretrain::{Run, say};
use super::run_dir::RunDir;
use super::step::StepSpec;
use super::{Error, setup};
use crate::data::{Description, Examples};
use crate::eval::Features;
use crate::hlo::Literal;
use crate::report::summary::{Figure, Next, Unit, Written};
use crate::report::{Recorder, Scalars, Summary, metrics, wall_time};
use std::path::PathBuf;
use std::sync::Arc;

/// Whether a run measures itself on this set.
///
/// # Errors
/// If its labels are not those that the network learns.
fn suited(
    run: &Run,
    spec: &StepSpec,
    train: &Description,
    test: &Description,
) -> Result<bool, Error> {
    if test.is_also(train) {
        say(
            run.screen,
            &format!(
                "no evaluation: eval_split {} of {} are the images trained on (train_split {}); make a folder {} in data_dir for others",
                test.split, test.name, train.split, test.split
            ),
        );
        return Ok(false);
    }
    test.labelled_as(train)?;
    match spec.network.num_classes {
        Some(classes) if classes != test.classes => Err(Error::Classes {
            name: test.name.clone(),
            found: test.classes,
            expected: classes,
        }),
        _ => Ok(true),
    }
}

/// Whether the run is measured before and after. The leader's devices are enough for that.
fn ends(run: &Run) -> bool {
    run.loaded.config.runtime.eval && !run.judged && run.processes.leads()
}

/// The split that a run is measured on; none if it is not, which is said where the user might expect it.
///
/// # Errors
/// If there is no such split, or its labels are not those that the network learns.
pub(super) fn split(
    run: &Run,
    spec: &StepSpec,
    train: &Description,
) -> Result<Option<Arc<Examples>>, Error> {
    let config = &run.loaded.config;
    if !ends(run) && (config.knn_epochs == 0 || !run.processes.leads()) {
        return Ok(None);
    }
    if !train.has_classes() {
        let text = format!(
            "no evaluation: {} has no classes; give `simclr evaluate` a set that has them, by dataset and data_dir",
            train.name
        );
        say(run.screen, &text);
        return Ok(None);
    }
    let found = setup::examples(config, &config.eval_split)?;
    Ok(suited(run, spec, train, found.description())?.then(|| Arc::new(found)))
}

/// Figures before and after.
pub(super) struct Evaluation<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) spec: &'a StepSpec,
    /// Tags and names of what is measured.
    pub(super) figures: &'static [(&'static str, &'static str)],
    pub(super) train: &'a Arc<Examples>,
    pub(super) test: Option<Arc<Examples>>,
    /// Whether to measure before and after.
    ends: bool,
    /// The network in evaluation mode, compiled once.
    inference: Option<Inference<'a>>,
    pub(super) before: Option<Worth>,
    pub(super) after: Option<Worth>,
    pub(super) pixels: Option<Worth>,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(
        run: &'a Run<'a>,
        spec: &'a StepSpec,
        train: &'a Arc<Examples>,
        test: Option<Arc<Examples>>,
        run_dir: &RunDir,
        step: u64,
    ) -> Result<Self, Error> {
        let mut evaluation = Evaluation {
            run,
            spec,
            figures: match spec.objective {
                Objective::Pretrain { .. } => &FIGURES,
                Objective::Finetune { .. } | Objective::Distill { .. } => &CLASSIFIED,
            },
            train,
            test,
            ends: ends(run),
            inference: None,
            before: None,
            after: None,
            pixels: None,
        };
        if step > 0 {
            // A resumed run takes the figures of its beginning from its own metrics.
            if let Some(line) = metrics::read(&run_dir.near().join(metrics::FILE))?
                .into_iter()
                .find(|line| line.step == 0)
            {
                evaluation.before = evaluation.read(&line, "");
                evaluation.pixels = evaluation.read(&line, "_pixels");
            }
        }
        Ok(evaluation)
    }

    pub(super) fn before(
        &mut self,
        variables: &[Literal],
        recorder: &mut Recorder,
    ) -> Result<(), Error> {
        let Some(test) = self.test.clone().filter(|_| self.ends) else {
            return Ok(());
        };
        if let Objective::Finetune { .. } | Objective::Distill { .. } = self.spec.objective {
            // A head that has not learned anything says nothing.
            return Ok(());
        }
        say(self.run.screen, "measuring the untrained network");
        let mut scalars = Scalars::new(0, 0.0);
        if self.run.loaded.config.runtime.eval_pixels {
            let worth = worth_of_pixels(self.run.engine, self.train, &test)?;
            self.write(&mut scalars, &worth, "_pixels");
            self.pixels = Some(worth);
        }
        let worth = self.measure(variables, &test)?;
        self.write(&mut scalars, &worth, "");
        self.before = Some(worth);
        if self.run.loaded.config.knn_epochs == 0 {
            // Its weights would lie beside training's until the end.
            self.inference = None;
        }
        Ok(recorder.scalars(&scalars, wall_time())?)
    }

    /// Measures k-NN in the middle of pretraining.
    pub(super) fn between(
        &mut self,
        variables: &[Literal],
        recorder: &mut Recorder,
        step: u64,
        epoch: f64,
    ) -> Result<(), Error> {
        let Some(test) = self.test.clone() else {
            return Ok(());
        };
        let (train, test) = self.features(variables, &test)?;
        let found = Worth {
            values: neighbours(self.run.engine, &train, &test)?,
        };
        let mut scalars = Scalars::new(step, epoch);
        let mut texts = Vec::new();
        for (&(tag, name), value) in found.of(self.figures) {
            scalars.set(tag, value);
            texts.push(format!("{name} {:.1} %", 100.0 * value));
        }
        if texts.is_empty() {
            return Ok(());
        }
        recorder.scalars(&scalars, wall_time())?;
        say(
            self.run.screen,
            &format!("epoch {epoch:.1}: {}", texts.join(", ")),
        );
        Ok(())
    }

    /// Whether the end of the run is measured.
    pub(super) fn at_end(&self) -> bool {
        self.ends && self.test.is_some()
    }

    pub(super) fn after(
        &mut self,
        variables: &[Literal],
        recorder: &mut Recorder,
        step: u64,
        epoch: f64,
    ) -> Result<(), Error> {
        let Some(test) = self.test.clone().filter(|_| self.ends) else {
            return Ok(());
        };
        say(self.run.screen, "measuring the trained network");
        let worth = self.measure(variables, &test)?;
        let mut scalars = Scalars::new(step, epoch);
        self.write(&mut scalars, &worth, "");
        self.after = Some(worth);
        Ok(recorder.scalars(&scalars, wall_time())?)
    }

    /// Features of the training and the evaluation split.
    fn features(
        &mut self,
        variables: &[Literal],
        test: &Arc<Examples>,
    ) -> Result<(Features, Features), Error> {
        let config = &self.run.loaded.config;
        let inference = match &mut self.inference {
            Some(inference) => {
                inference.load(variables)?;
                inference
            }
            none => {
                let (engine, network) = (self.run.engine, &self.spec.network);
                let own = engine.client().devices().len();
                let replicas = self.spec.settings.replicas.min(own);
                let batch = config.eval_batch_size.min(test.description().examples);
                let made = Inference::new(engine, config, network, variables, replicas, batch)?;
                none.insert(made)
            }
        };
        let train = features(inference, self.train, config, Reach::Whole)?;
        Ok((train, features(inference, test, config, Reach::EvalSteps)?))
    }

    fn measure(&mut self, variables: &[Literal], test: &Arc<Examples>) -> Result<Worth, Error> {
        let config = &self.run.loaded.config;
        if let Objective::Finetune { .. } | Objective::Distill { .. } = self.spec.objective {
            let engine = self.run.engine;
            let devices = self.run.devices.min(engine.client().devices().len());
            let network = &self.spec.network;
            let found = classify(engine, config, network, variables, devices, test)?;
            return Ok(Worth {
                values: vec![Some(found.top1), Some(found.top5)],
            });
        }
        let (train, test) = self.features(variables, test)?;
        worth(self.run.engine, &train, &test)
    }

    fn write(&self, scalars: &mut Scalars, worth: &Worth, suffix: &str) {
        for ((tag, _), value) in worth.of(self.figures) {
            scalars.set(&format!("{tag}{suffix}"), value);
        }
    }

    fn read(&self, scalars: &Scalars, suffix: &str) -> Option<Worth> {
        let value = |&(tag, _): &(&str, _)| scalars.get(&format!("{tag}{suffix}"));
        let values: Vec<Option<f64>> = self.figures.iter().map(value).collect();
        let measured = values.iter().any(Option::is_some);
        measured.then_some(Worth { values })
    }

    pub(super) fn summary(&self, headline: String, run_dir: &RunDir, stopped: bool) -> Summary {
        let mut figures = Vec::new();
        let at = |worth: &Option<Worth>, i: usize| worth.as_ref().and_then(|worth| worth.values[i]);
        for (i, (_, name)) in self.figures.iter().enumerate() {
            figures.push(Figure {
                name: name.to_string(),
                unit: Unit::Share,
                before: at(&self.before, i),
                after: at(&self.after, i),
            });
        }
        figures.retain(|figure| figure.before.is_some() || figure.after.is_some());
        let mut notes = Vec::new();
        if let Some(pixels) = &self.pixels {
            let texts: Vec<String> = pixels
                .of(self.figures)
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
                written("metrics", run_dir.metrics()),
                written("configuration", run_dir.config()),
                written("log", run_dir.log()),
            ],
            next,
        }
    }
}
