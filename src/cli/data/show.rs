//! `simclr data show`.

use super::Place;
use crate::cli::embed::refused;
use crate::cli::ui::Ui;
use crate::config::{Error, Origin};
use crate::data::Found;
use crate::report::disk;
use crate::train::views;
use crate::words::plural;
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Examples, 2 to 16
    #[arg(short = 'n', long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=views::MOST as i64))]
    number: u32,
    /// The picture to write, a PNG
    #[arg(short, long, value_name = "FILE", default_value = "views.png", value_parser = png)]
    out: PathBuf,
    /// YAML file of the recipe
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A value of the recipe that goes before the file's, KEY=VALUE, such as image_size=96
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// A name that says what is written.
fn png(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(ending) if ending.eq_ignore_ascii_case("png") => Ok(path),
        _ => Err("a name that ends in .png".into()),
    }
}

/// Keys that are settled by the arguments, or are about what comes after the first step, and what to do.
const WITHOUT_EFFECT: [(&str, &str); 12] = [
    ("dataset", PLACE),
    ("data_dir", PLACE),
    ("train_split", PLACE),
    ("eval_split", PLACE),
    ("subset_list", "examples of the whole split are shown"),
    ("train_batch_size", "say how many examples with -n"),
    ("train_epochs", STEP),
    ("train_steps", STEP),
    ("warmup_epochs", STEP),
    ("input_pipelines", STEP),
    ("runtime.devices", STEP),
    ("model_dir", "name the picture with --out"),
];
const PLACE: &str = "name the folder, and what to show of it with --dataset and --split";
const STEP: &str = "the views are those of the first step, on one device";

/// Refuses keys that a user sets for this command alone, in vain; a recipe has them for its run.
fn refuse_without_effect(overrides: &[String]) -> Result<(), Error> {
    for (key, found) in overrides.iter().filter_map(|text| text.split_once('=')) {
        let known = WITHOUT_EFFECT.iter().find(|(name, _)| *name == key.trim());
        if let Some(&(key, remedy)) = known {
            return Err(Error::NotTaken {
                key,
                origin: Origin::Argument,
                found: found.into(),
                remedy,
            });
        }
    }
    Ok(())
}

/// Refuses a sheet in a class folder, where it would take the place of a picture or be one more.
fn refuse_among_pictures(out: &Path, found: &Found) -> anyhow::Result<()> {
    let (Ok(folder), Ok(dir)) = (disk::parent(out).canonicalize(), found.dir.canonicalize()) else {
        return Ok(());
    };
    match found.dataset == "folder" && folder != dir && folder.starts_with(&dir) {
        true => Err(refused(out, "it would lie among the pictures".into())),
        false => Ok(()),
    }
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    refuse_without_effect(&arguments.overrides)?;
    let (found, examples) = arguments.place.open()?;
    refuse_among_pictures(&arguments.out, &found)?;
    let description = examples.description();
    let mut overrides = arguments.overrides.clone();
    if arguments.config.is_none()
        && let Some([side, _]) = description.image
    {
        overrides.insert(0, format!("image_size={side}"));
    }
    let batch = description.examples.min(arguments.number as usize);
    // A step of as many images as are shown, on one device.
    overrides.extend([
        format!("dataset={}", serde_json::json!(found.dataset)),
        format!("data_dir={}", serde_json::json!(found.dir)),
        format!("train_batch_size={batch}"),
        "input_pipelines=1".into(),
        "train_steps=1".into(),
        "warmup_epochs=0".into(),
        "runtime.devices=1".into(),
    ]);
    let loaded = crate::config::load(arguments.config.as_deref(), &overrides)?;
    let (engine, _) = crate::cli::pretrain::open(&loaded, ui)?;
    let examples = Arc::new(examples.upright(loaded.config.upright));
    let sheet = views::show(&loaded, &engine, &examples)?;
    std::fs::write(&arguments.out, sheet.png())
        .with_context(|| format!("cannot write {}", arguments.out.display()))?;
    ui.result(&format!(
        "{batch} example{}, each with {} of {} pixels: {}",
        plural(batch),
        if loaded.config.finetune || loaded.config.distill.is_some() {
            "one view"
        } else {
            "two views"
        },
        loaded.config.image_size,
        arguments.out.display()
    ))?;
    Ok(0)
}
