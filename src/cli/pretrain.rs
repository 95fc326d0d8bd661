//! `simclr pretrain`, `simclr finetune` and `simclr distill`.

use super::Configuration;
use super::ui::Ui;
use crate::cluster;
use crate::cluster::identity::{Identity, Wanted};
use crate::cluster::metadata::Metadata;
use crate::config::{self, Loaded, Mode};
use crate::engine::{self, Choice, Engine};
use crate::pjrt::{Platform, tpu_chips};
use crate::train::pretrain::{Run, pretrain};
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
    let stopped = session.train(arguments, &loaded, ui, true)?;
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
        return Ok(loaded);
    };
    let before = model_dir(&loaded, arguments.configuration.config.as_deref()).join("config.yaml");
    let from = match trained::open(checkpoint) {
        Ok(found) => found.loaded,
        Err(_) if before.is_file() => config::load(Some(&before), &[])?,
        Err(error) => return Err(error.into()),
    };
    Ok(loaded.inherit(&from, &trained::SHARED_KEYS)?)
}

/// What training and evaluation of one process share.
pub(super) struct Session {
    pub(super) model_dir: PathBuf,
    pub(super) engine: Engine,
    pub(super) devices: usize,
    pub(super) stop: Stop,
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
        one_host(&loaded.config.runtime.platform)?;
        let (engine, devices) = open(loaded, ui)?;
        Ok(Session {
            model_dir: model_dir(loaded, arguments.configuration.config.as_deref()),
            engine,
            devices,
            stop: Stop::listen()?,
        })
    }

    /// Trains, and prints the closing summary.
    pub(super) fn train(
        &self,
        arguments: &Arguments,
        loaded: &Loaded,
        ui: &Ui,
        measure: bool,
    ) -> anyhow::Result<Option<StopKind>> {
        let outcome = pretrain(&Run {
            loaded,
            model_dir: &self.model_dir,
            engine: &self.engine,
            devices: self.devices,
            resume_from: arguments.resume_from.as_deref(),
            measure,
            screen: &ui.screen,
            log: &ui.log,
            stop: &self.stop,
        })?;
        let text = if arguments.json {
            outcome.summary.json()
        } else {
            outcome.summary.text()
        };
        ui.result(&text)?;
        Ok(outcome.stopped)
    }
}

/// Refuses a worker that is one of several: a client there would wait for the others for ever, without a word.
fn one_host(platform: &str) -> Result<(), cluster::Error> {
    let chips = tpu_chips();
    if platform != Platform::Tpu.name() && (platform != "auto" || chips == 0) {
        return Ok(());
    }
    // A machine without chips is no TPU VM, and has nobody to ask.
    let server = (chips > 0).then(Metadata::new);
    match Identity::find(
        Wanted::default(),
        &|name| std::env::var(name).ok(),
        server.as_ref(),
    ) {
        Ok(found) if found.processes > 1 => Err(cluster::Error::SeveralHosts {
            process: found.process,
            processes: found.processes,
        }),
        Ok(_) => Ok(()),
        // Who cannot be told is taken to be alone; `simclr doctor` says what is wrong.
        Err(error) => {
            tracing::info!("which worker this is cannot be told: {error}");
            Ok(())
        }
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
    let runtime = &loaded.config.runtime;
    let compiler_options = setup::compiler_options(loaded)?;
    let choice = Choice {
        platform: &runtime.platform,
        plugin: runtime.plugin.as_deref(),
        devices: runtime.devices,
        cpu_devices: one_per_core(loaded.config.train_batch_size),
        disable_passes: &runtime.disable_passes,
        compiler_options: &compiler_options,
        executable_cache: runtime.executable_cache,
        preallocate: runtime.preallocate,
    };
    Ok(engine::open(choice, &mut |line| ui.note(line))?)
}

/// One replica per core, if they can share the batch equally: each core then works on its own small arrays, which is faster than
/// several threads on one large array (`docs/benchmarks.md`).
fn one_per_core(batch: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    (1..=cores)
        .rev()
        .find(|devices| batch.is_multiple_of(*devices))
        .unwrap_or(1)
}
