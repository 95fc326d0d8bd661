//! `simclr evaluate`.

use super::ui::Ui;
use crate::config::Config;
use crate::data::Description;
use crate::eval::Classified;
use crate::train::evaluate::{FIGURES, Worth};
use crate::train::judge::{Judged, judge, suits};
use crate::train::setup;
use crate::train::trained;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Args)]
pub(super) struct Arguments {
    /// A run folder (its newest checkpoint) or a checkpoint
    run: PathBuf,
    /// Values that go before those it was trained with, such as data_dir=DIR or eval_batch_size=64
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Leave out k-NN and linear probe, which need the features of the training split too
    #[arg(long)]
    head_only: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let trained = trained::open(&arguments.run)?;
    let loaded = trained.loaded.with(&arguments.overrides)?;
    let config = &loaded.config;
    let open = |split: &str| setup::examples(config, split).map(Arc::new);
    let test = open(&config.eval_split)?;
    let described = test.description();
    let train = if arguments.head_only {
        None
    } else {
        Some(open(&config.train_split)?)
    };
    suits(
        &trained,
        described,
        train.as_ref().map(|train| train.description()),
    )?;
    if let Some(_) = trained.network.num_classes
        && described.name == "folder"
    {
        of_training(&trained.loaded.config, described, ui)?;
    }
    let (engine, devices) = super::pretrain::open_to_evaluate(&loaded, ui)?;
    let Judged { classified, worth } =
        judge(&engine, devices, &trained, config, &test, train.as_ref())?;
    let step = trained.manifest.step;
    let names = &described.class_names;
    if arguments.json {
        let mut figures = serde_json::Map::new();
        if let Some(found) = &classified {
            figures.insert("top_1".into(), found.top1.into());
            figures.insert("top_5".into(), found.top5.into());
            figures.insert("loss".into(), found.loss.into());
            figures.insert("confusion".into(), serde_json::json!(found.confusion));
        }
        if let Some(worth) = &worth {
            for ((tag, _), value) in FIGURES.iter().zip(&worth.values) {
                figures.insert(tag.trim_start_matches("eval/").into(), (*value).into());
            }
        }
        ui.result(&serde_json::to_string_pretty(&serde_json::json!({
            "checkpoint": trained.checkpoint,
            "step": step,
            "dataset": config.dataset,
            "split": config.eval_split,
            "figures": figures,
        }))?)?;
    } else {
        let mut text = format!(
            "step {step} of {} on {} ({})\n\n",
            trained.checkpoint.display(),
            config.dataset,
            config.eval_split
        );
        text.push_str(&figures_text(classified.as_ref(), worth.as_ref()));
        if let Some(found) = &classified {
            text.push_str(&confusion_text(found, names));
        }
        ui.result(&text)?;
    }
    Ok(0)
}

/// Holds a folder of classes against the one that the head was trained on, which gave its classes their numbers.
fn of_training(config: &Config, test: &Description, ui: &Ui) -> anyhow::Result<()> {
    match setup::examples(config, &config.train_split) {
        Ok(train) => {
            let train = train.description();
            if test.is_also(train) {
                return Err(crate::train::Error::SameImages {
                    name: test.name.clone(),
                    split: test.split.clone(),
                    training: train.split.clone(),
                }
                .into());
            }
            Ok(test.labelled_as(train)?)
        }
        // The images trained on need not be here.
        Err(error) => {
            crate::train::pretrain::say(
                &ui.screen,
                &format!("the classes were not compared with those trained on: {error}"),
            );
            Ok(())
        }
    }
}

fn figures_text(classified: Option<&Classified>, worth: Option<&Worth>) -> String {
    let mut lines = Vec::new();
    if let Some(found) = classified {
        lines.push(("top-1", 100.0 * found.top1, " %"));
        lines.push(("top-5", 100.0 * found.top5, " %"));
        lines.push(("cross-entropy", found.loss, ""));
    }
    if let Some(worth) = worth {
        for ((_, name), value) in FIGURES.iter().zip(&worth.values) {
            lines.push((name, 100.0 * value, " %"));
        }
    }
    lines
        .into_iter()
        .map(|(name, value, unit)| format!("  {name:<14} {value:>8.2}{unit}\n"))
        .collect()
}

/// The table of which class was taken for which, where it fits a screen.
fn confusion_text(found: &Classified, names: &[String]) -> String {
    let classes = found.confusion.len();
    if classes > 20 {
        return format!("\n  {classes} classes: the confusion table is in --json\n");
    }
    let mut text = "\n  rows: true class, columns: class of the largest logit\n".to_owned();
    for (class, row) in found.confusion.iter().enumerate() {
        let name = names.get(class).cloned().unwrap_or(class.to_string());
        text.push_str(&format!("  {name:>12}"));
        for count in row {
            text.push_str(&format!("{count:>6}"));
        }
        text.push('\n');
    }
    text
}
