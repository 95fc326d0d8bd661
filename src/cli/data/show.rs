//! `simclr data show`.

use super::Place;
use crate::cli::ui::Ui;
use crate::data::Examples;
use crate::train::views;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Examples
    #[arg(short = 'n', long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=views::MOST as i64))]
    number: u32,
    /// The picture to write
    #[arg(short, long, value_name = "FILE", default_value = "views.png")]
    out: PathBuf,
    /// YAML file of the recipe
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A value of the recipe that goes before the file's, KEY=VALUE, such as image_size=96
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let found = arguments.place.one()?;
    let examples = Examples::open(&found.dataset, &found.split, Some(&found.dir))?;
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
        "{} examples, each with {} of {} pixels: {}",
        batch,
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
