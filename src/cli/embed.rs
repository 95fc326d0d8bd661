//! `simclr embed` and `simclr predict`: a trained network on pictures that the user points at.

use super::ui::Ui;
use crate::config::{Loaded, Origin};
use crate::data::Examples;
use crate::data::pictures::{self, Cutter, Picture};
use crate::report::arrays::{self, Format};
use crate::report::disk;
use crate::train::checkpoint;
use crate::train::inference::{Inference, Seen};
use crate::train::setup;
use crate::train::trained::{self, Keys, Trained};
use crate::words::plural;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct Arguments {
    /// A run folder (its newest checkpoint) or a checkpoint
    run: PathBuf,
    /// Pictures, folders of pictures, lists of files (.txt), record files (.tfrecord)
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// File to write: .npy (the names beside it), .safetensors or .csv
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Device and such, as key=value; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

#[derive(Args)]
pub(super) struct PredictArguments {
    /// A fine-tuned run (its newest checkpoint) or a checkpoint
    run: PathBuf,
    /// Pictures, folders of pictures, lists of files (.txt), record files (.tfrecord)
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Classes to list of each picture
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Device and such, as key=value; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Where classes without names in the checkpoint get them.
const CLASSES: Keys = Keys {
    about: "the set that names the classes",
    names: &["dataset", "data_dir", "train_split"],
};

/// `simclr embed`.
pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let format = Format::of(&arguments.out)?;
    refuse_in_checkpoint(&arguments.out)?;
    let real = |path: &Path| path.canonicalize().ok();
    let out = real(&arguments.out);
    if out.is_some() && arguments.images.iter().any(|image| real(image) == out) {
        return Err(refused(&arguments.out, "it is one of the pictures".into()));
    }
    let trained = trained::open(&arguments.run)?;
    let taken = [Keys::PICTURES, Keys::LAUNCHES, Keys::DEVICES];
    let loaded = trained.with(&arguments.overrides, &taken)?;
    let pictures = pictures::find(&arguments.images)?;
    let (seen, width) = see(&trained, &loaded, &pictures, ui)?;
    let names: Vec<String> = pictures.iter().map(Picture::name).collect();
    format.write(&arguments.out, &names, width, &seen.features)?;
    ui.result(&format!(
        "{} picture{}, {width} features each, in {}",
        names.len(),
        plural(names.len()),
        arguments.out.display()
    ))?;
    Ok(0)
}

/// Refuses to write among the files of a checkpoint, which are its own.
pub(super) fn refuse_in_checkpoint(out: &Path) -> anyhow::Result<()> {
    let folder = disk::parent(out);
    match checkpoint::is_checkpoint(&folder)? && folder.join("state.safetensors").exists() {
        true => Err(refused(
            out,
            format!("`{}` is a checkpoint", folder.display()),
        )),
        false => Ok(()),
    }
}

/// What must not be written over.
pub(super) fn refused(out: &Path, reason: String) -> anyhow::Error {
    let path = out.to_owned();
    arrays::Error::Taken { path, reason }.into()
}

/// `simclr predict`.
pub(super) fn predict(arguments: &PredictArguments, ui: &Ui) -> anyhow::Result<u8> {
    let trained = trained::open(&arguments.run)?;
    let taken = [CLASSES, Keys::PICTURES, Keys::LAUNCHES, Keys::DEVICES];
    let loaded = trained.with(&arguments.overrides, &taken)?;
    let Some(classes) = trained.network.num_classes else {
        return Err(trained::Error::NoHead {
            path: trained.checkpoint,
        }
        .into());
    };
    let pictures = pictures::find(&arguments.images)?;
    let (seen, _) = see(&trained, &loaded, &pictures, ui)?;
    let names = class_names(&trained, &loaded, classes, ui);
    let name = |class: usize| names.get(class).cloned().unwrap_or(class.to_string());
    let mut rows = Vec::new();
    for (picture, logits) in pictures.iter().zip(seen.logits.chunks_exact(classes)) {
        let best: Vec<(usize, f64)> = probabilities(logits)
            .into_iter()
            .take(arguments.top as usize)
            .collect();
        rows.push((picture.name(), best));
    }
    let text = if arguments.json {
        let list: Vec<_> = rows
            .iter()
            .map(|(picture, best)| {
                let best: Vec<_> = best
                    .iter()
                    .map(|&(class, p)| {
                        serde_json::json!({"class": class, "name": name(class), "probability": p})
                    })
                    .collect();
                serde_json::json!({"picture": picture, "classes": best})
            })
            .collect();
        serde_json::to_string_pretty(&list)?
    } else {
        let line = |(picture, best): &(String, Vec<(usize, f64)>)| {
            let best: Vec<String> = best
                .iter()
                .map(|&(class, p)| format!("{} {:.1} %", name(class), 100.0 * p))
                .collect();
            format!("{picture}  {}\n", best.join(", "))
        };
        rows.iter().map(line).collect()
    };
    ui.result(&text)?;
    Ok(0)
}

/// The names of the classes: as the checkpoint keeps them, or, with a word, as its data set has them; none if that is not here, or has
/// another number of them.
fn class_names(trained: &Trained, loaded: &Loaded, classes: usize, ui: &Ui) -> Vec<String> {
    let config = &loaded.config;
    let kept = &trained.manifest.class_names;
    if kept.len() == classes {
        return kept.clone();
    }
    let set = &config.dataset;
    let names = match crate::data::class_names(set) {
        Some(known) => known,
        None => match Examples::open(set, &config.train_split, config.data_dir.as_deref()) {
            Ok(train) => train.description().class_names.clone(),
            Err(error) => {
                ui.note(&format!("classes are numbers here: {error}"));
                return Vec::new();
            }
        },
    };
    if names.is_empty() {
        ui.note(&format!(
            "classes are numbers here: neither the checkpoint nor the files of {set} name them"
        ));
        return Vec::new();
    }
    let another = "--set dataset=SET names another set";
    if names.len() != classes {
        let found = names.len();
        ui.note(&format!(
            "classes are numbers here: the supervised head has {classes}, {set} has names for {found}; {another}"
        ));
        return Vec::new();
    }
    if loaded.origin("dataset") != Origin::Argument {
        ui.note(&format!(
            "the checkpoint keeps no names of its classes, which have those of {set} here; {another}"
        ));
    }
    names
}

/// Classes with their probabilities, the most probable first; of equals the first.
fn probabilities(logits: &[f32]) -> Vec<(usize, f64)> {
    let top = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let weights: Vec<f64> = logits.iter().map(|&x| f64::from(x - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut all: Vec<(usize, f64)> = weights.iter().map(|w| w / sum).enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

/// Runs the network on pictures, a bounded number of them decoded at a time.
fn see(
    trained: &Trained,
    loaded: &Loaded,
    pictures: &[Picture],
    ui: &Ui,
) -> anyhow::Result<(Seen, usize)> {
    let config = &loaded.config;
    let (engine, devices) = super::pretrain::open_to_evaluate(loaded, ui)?;
    let batch = config.eval_batch_size.min(pictures.len());
    let (network, values) = (&trained.network, &trained.values);
    let inference = Inference::new(&engine, config, network, values, devices, batch)?;
    let kernel = setup::augmentation(config).resize;
    let mut cutter = Cutter::new(network.image_size, kernel, config.upright);
    let mut seen = Seen::default();
    for part in pictures.chunks(batch) {
        let found = inference.run(&cutter.cut(part)?)?;
        seen.features.extend(found.features);
        seen.logits.extend(found.logits);
    }
    Ok((seen, inference.width))
}
