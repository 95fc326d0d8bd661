//! `simclr pretrain`, `simclr finetune` and `simclr distill`.

use super::Configuration;
use super::together::{self, Place, Together};
use super::ui::Ui;
use crate::config::{self, Loaded, Mode, Origin};
use crate::engine::{self, Choice, Engine};
use crate::pjrt::Node;
use crate::train::pretrain::{Run, pretrain, say};
use crate::train::processes::Processes;
use crate::train::run_dir;
use crate::train::setup;
use crate::train::signals::{Stop, StopKind};
use crate::train::trained;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) configuration: Configuration,
    /// Go on from this checkpoint instead of the newest one in model_dir; later ones are set aside, not deleted
    #[arg(long, value_name = "CHECKPOINT")]
    resume_from: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Print the closing summary as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `simclr pretrain`.
pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let loaded = arguments.configuration.load()?;
    if loaded.config.finetune || loaded.config.distill.is_some() {
        return Err(loaded
            .bad(
                "train_mode",
                "pretrain, or the command `simclr finetune` or `simclr distill`",
            )
            .into());
    }
    train(arguments, loaded, ui)
}

/// `simclr finetune`.
pub(super) fn finetune(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let loaded = arguments
        .configuration
        .load_with(&["train_mode=finetune"])?;
    train(arguments, loaded, ui)
}

/// `simclr distill`.
pub(super) fn distill(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let loaded = arguments.configuration.load_with(&["train_mode=distill"])?;
    train(arguments, loaded, ui)
}

fn train(arguments: &Arguments, loaded: Loaded, ui: &Ui) -> anyhow::Result<u8> {
    if loaded.config.mode != Mode::Train {
        let expected = "train, or the command `simclr run`";
        return Err(loaded.bad("mode", expected).into());
    }
    let loaded = inherited(loaded, arguments)?;
    let session = Session::open(arguments, &loaded, ui)?;
    let stopped = session.train(arguments, &loaded, ui, false)?;
    Ok(stopped.map_or(0, StopKind::exit_code))
}

/// Nobody has to say again what a run builds on: of fine-tuning, network and data are those of the checkpoint, or, if that is gone,
/// of this run so far; of distillation, the data are the teacher's.
pub(super) fn inherited(loaded: Loaded, arguments: &Arguments) -> anyhow::Result<Loaded> {
    if let Some(choice) = &loaded.config.distill {
        let from = trained::open(&choice.teacher)?.loaded;
        return Ok(loaded.inherit(&from, &trained::DATA_KEYS)?);
    }
    if !loaded.config.finetune {
        return Ok(loaded);
    }
    let Some(checkpoint) = &loaded.config.checkpoint else {
        // Data that somebody names can be learned from initial values, too.
        if loaded.config.data_dir.is_none() && loaded.origin("dataset") == Origin::Default {
            let expected = "the run to fine-tune (checkpoint=RUN), whose network and data are taken; or dataset and data_dir, to train from initial values";
            return Err(loaded.bad("checkpoint", expected).into());
        }
        return Ok(loaded);
    };
    let before = model_dir(&loaded, arguments.configuration.config.as_deref()).join("config.yaml");
    let from = match trained::open(checkpoint) {
        Ok(found) => found.loaded,
        Err(error) => match run_dir::content(&before)? {
            None => return Err(error.into()),
            Some(text) => config::load_text(&String::from_utf8_lossy(&text), &before, &[])?,
        },
    };
    Ok(loaded.inherit(&from, &trained::SHARED_KEYS)?)
}

/// What training and evaluation of one process share.
pub(super) struct Session {
    pub(super) model_dir: PathBuf,
    pub(super) engine: Engine,
    pub(super) devices: usize,
    pub(super) stop: Stop,
    pub(super) processes: Processes,
}

impl Session {
    pub(super) fn open(arguments: &Arguments, loaded: &Loaded, ui: &Ui) -> anyhow::Result<Self> {
        let (batch, devices) = (
            loaded.config.train_batch_size,
            loaded.config.runtime.devices,
        );
        if devices > 0 && !batch.is_multiple_of(devices) {
            // Before a client makes so many devices.
            let expected =
                format!("a multiple of the number of devices, {devices} (runtime.devices)");
            return Err(loaded.bad("train_batch_size", expected).into());
        }
        let stop = Stop::listen()?;
        let together = Together::join(&arguments.place, &loaded.config.runtime.platform)?;
        let node = together.node();
        let (engine, devices) = together.open(ui, loaded, || {
            open_among(loaded, ui, loaded.config.train_batch_size, node.as_ref())
        })?;
        drop(node);
        let processes = together.processes(&engine, devices)?;
        if processes.several() {
            // They stop at one step; who left before would be missed.
            stop.wait_for_save();
        }
        let screen = together::screen(&processes, ui);
        Stop::announce(move |line| say(&screen, line))?;
        together::watch_notice(&stop);
        Ok(Session {
            model_dir: model_dir(loaded, arguments.configuration.config.as_deref()),
            processes,
            engine,
            devices,
            stop,
        })
    }

    /// Trains, and prints the closing summary. `judged`: evaluation follows.
    pub(super) fn train(
        &self,
        arguments: &Arguments,
        loaded: &Loaded,
        ui: &Ui,
        judged: bool,
    ) -> anyhow::Result<Option<StopKind>> {
        let screen = together::screen(&self.processes, ui);
        let result = pretrain(&Run {
            loaded,
            model_dir: &self.model_dir,
            engine: &self.engine,
            devices: self.devices,
            resume_from: arguments.resume_from.as_deref(),
            judged,
            screen: &screen,
            log: &ui.log,
            stop: &self.stop,
            processes: &self.processes,
        });
        let result = result.map_err(anyhow::Error::from);
        if let Err(error) = &result {
            together::tell_failure(&self.processes, error, together::LOSS);
        }
        let outcome = result?;
        if !self.processes.leads() {
            return Ok(outcome.stopped);
        }
        let text = if arguments.json {
            outcome.summary.json()
        } else {
            outcome.summary.text()
        };
        let told = ui.result(&text);
        if outcome.stopped.is_none() {
            // Of one that was stopped, a terminal that is gone may be the reason.
            told?;
        }
        Ok(outcome.stopped)
    }
}

/// `model_dir`, or a folder named after the configuration.
fn model_dir(loaded: &Loaded, config: Option<&Path>) -> PathBuf {
    loaded.config.model_dir.clone().unwrap_or_else(|| {
        let stem = config.and_then(Path::file_stem);
        PathBuf::from("runs").join(stem.unwrap_or(if loaded.config.distill.is_some() {
            "distill".as_ref()
        } else if loaded.config.finetune {
            "finetune".as_ref()
        } else {
            "pretrain".as_ref()
        }))
    })
}

/// The engine that a configuration asks for.
pub(super) fn open(loaded: &Loaded, ui: &Ui) -> anyhow::Result<(Engine, usize)> {
    open_among(loaded, ui, loaded.config.train_batch_size, None)
}

/// As [`open`], for what runs in batches of evaluation alone.
pub(super) fn open_to_evaluate(loaded: &Loaded, ui: &Ui) -> anyhow::Result<(Engine, usize)> {
    open_among(loaded, ui, loaded.config.eval_batch_size, None)
}

fn open_among(
    loaded: &Loaded,
    ui: &Ui,
    batch: usize,
    node: Option<&Node>,
) -> anyhow::Result<(Engine, usize)> {
    let runtime = &loaded.config.runtime;
    let compiler_options = setup::compiler_options(loaded)?;
    let passes = setup::passes(loaded)?;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let choice = Choice {
        platform: &runtime.platform,
        plugin: runtime.plugin.as_deref(),
        devices: runtime.devices,
        cpu_devices: cpu_replicas(batch, cores),
        passes: &passes,
        compiler_options: &compiler_options,
        executable_cache: runtime.executable_cache,
        preallocate: runtime.preallocate,
        node,
    };
    Ok(engine::open(choice, &mut |line| ui.note(line))?)
}

/// Cores that share a replica, and images that each of them should have at least.
const CORES: usize = 2;
const IMAGES_PER_CORE: usize = 32;

/// One replica for every two cores, if they can share the batch equally and each core has enough of it. Two threads on the same arrays take less
/// time than two replicas, which both do the work on the variables and wait for one another (`docs/benchmarks.md`); how many more could
/// share one was not measured. Evaluation, which has no such work, is opened by the same rule.
fn cpu_replicas(batch: usize, cores: usize) -> usize {
    (1..=(cores / CORES).min(batch / (CORES * IMAGES_PER_CORE)))
        .rev()
        .find(|replicas| batch.is_multiple_of(*replicas))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::cpu_replicas;

    #[test]
    fn replicas_share_the_batch_equally_and_have_enough_of_it() {
        for (batch, cores, replicas) in [
            (256, 1, 1),
            (256, 2, 1),
            (256, 4, 2),
            (256, 5, 2),
            (128, 8, 2),
            (127, 4, 1),
            (192, 8, 3),
            (256, 8, 4),
            (260, 6, 2),
            (8, 16, 1),
        ] {
            assert_eq!(cpu_replicas(batch, cores), replicas, "{batch}, {cores}");
        }
    }
}
