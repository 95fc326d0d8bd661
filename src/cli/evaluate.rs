//! `simclr evaluate`.

use super::ui::Ui;
use crate::config::Config;
use crate::data::Description;
use crate::eval::Classified;
use crate::train::evaluate::{FIGURES, Worth};
use crate::train::judge::{Judged, judge, knows, suits};
use crate::train::setup;
use crate::train::trained::{self, Keys, Trained};
use clap::Args;
use std::collections::BTreeSet;
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

/// The keys that change what is found.
const TAKEN: [Keys; 4] = [Keys::DATA, Keys::PICTURES, Keys::BATCHES, Keys::DEVICES];
/// Columns of a screen.
const SCREEN: usize = 120;

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let trained = trained::open(&arguments.run)?;
    let loaded = trained.with(&arguments.overrides, &TAKEN)?;
    if arguments.head_only && trained.network.num_classes.is_none() {
        return Err(trained::Error::NoHead {
            path: trained.checkpoint,
        }
        .into());
    }
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
    let mut notes = Vec::new();
    match knows(&trained, described) {
        Err(error) if !arguments.head_only => {
            notes.push(format!("the supervised head is left out: {error}"));
        }
        known => {
            known?;
            if trained.network.num_classes.is_some() && described.name == "folder" {
                of_training(&trained, described, ui)?;
            }
        }
    }
    notes.extend(already_seen(&trained, config, train.is_some()));
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
            figures.insert("class_accuracy".into(), serde_json::json!(found.by_class()));
        }
        if let Some(worth) = &worth {
            for ((tag, _), value) in worth.of(&FIGURES) {
                figures.insert(tag.trim_start_matches("eval/").into(), value.into());
            }
        }
        ui.result(&serde_json::to_string_pretty(&serde_json::json!({
            "checkpoint": trained.checkpoint,
            "step": step,
            "dataset": config.dataset,
            "split": config.eval_split,
            "figures": figures,
            "notes": notes,
        }))?)?;
    } else {
        let mut text = format!(
            "step {step} of {} on {} ({})\n\n",
            trained.checkpoint.display(),
            config.dataset,
            config.eval_split
        );
        text.push_str(&figures_text(classified.as_ref(), worth.as_ref()));
        for note in &notes {
            text.push_str(&format!("  note: {note}\n"));
        }
        if let Some(found) = &classified {
            text.push_str(&confusion_text(found, names));
        }
        ui.result(&text)?;
    }
    Ok(0)
}

/// Holds a folder of classes against the one that the head was trained on, which gave its classes their numbers.
fn of_training(trained: &Trained, test: &Description, ui: &Ui) -> anyhow::Result<()> {
    let config = &trained.loaded.config;
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
        // The images trained on need not be here, nor be asked where the checkpoint has told the names.
        Err(_) if !trained.manifest.class_names.is_empty() => Ok(()),
        Err(error) => {
            crate::train::pretrain::say(
                &ui.screen,
                &format!("the classes were not compared with those trained on: {error}"),
            );
            Ok(())
        }
    }
}

/// What a reader of the figures has to know where the network, k-NN or the probe has seen the images before.
fn already_seen(trained: &Trained, config: &Config, features: bool) -> Vec<String> {
    let own = &trained.loaded.config;
    let (set, split) = (&config.dataset, &config.eval_split);
    let mut notes = Vec::new();
    // Another folder of class folders is another set of that name.
    let same_place = set != "folder" || config.data_dir == own.data_dir;
    // The configuration of an import does not tell what the network was trained on.
    let known = !trained.manifest.imported();
    if known && (set, split) == (&own.dataset, &own.train_split) && same_place {
        notes.push(format!(
            "by its configuration the network was trained on {set} ({split}) itself; images that are new to it would say what it is worth"
        ));
    }
    if features && *split == config.train_split {
        notes.push(format!(
            "k-NN and linear probe learn from the very images that they are measured on (train_split and eval_split are {split})"
        ));
    }
    notes
}

fn figures_text(classified: Option<&Classified>, worth: Option<&Worth>) -> String {
    let mut lines = Vec::new();
    if let Some(found) = classified {
        lines.push(("top-1", 100.0 * found.top1, " %"));
        lines.push(("top-5", 100.0 * found.top5, " %"));
        lines.push(("cross-entropy", found.loss, ""));
    }
    if let Some(worth) = worth {
        for ((_, name), value) in worth.of(&FIGURES) {
            lines.push((name, 100.0 * value, " %"));
        }
    }
    lines
        .into_iter()
        .map(|(name, value, unit)| format!("  {name:<14} {value:>8.2}{unit}\n"))
        .collect()
}

/// Columns of a class's own accuracy, with the space before them.
const RIGHT: usize = 9;
/// Letters that a name in the head has at least, or numbers stand there.
const LETTERS: usize = 4;

/// The table of which class was taken for which, with the share of each that was not mistaken, where it fits a screen.
fn confusion_text(found: &Classified, names: &[String]) -> String {
    let classes = found.confusion.len();
    let elsewhere =
        format!("\n  {classes} classes: the confusion table and their accuracies are in --json\n");
    if classes > 20 {
        return elsewhere;
    }
    let digits = |number: usize| number.to_string().len();
    let largest = found.confusion.iter().flatten().max().copied();
    let count = digits(largest.unwrap_or(0) as usize).max(digits(classes - 1));
    let of = |class: usize| names.get(class).cloned().unwrap_or(class.to_string());
    let mut rows: Vec<String> = (0..classes).map(of).collect();
    let longest = |names: &[String]| names.iter().map(|name| name.chars().count()).max();
    let cut = |name: &String, most: usize| name.chars().take(most).collect::<String>();
    // Names in the head too, cut to what is left of the screen, if that tells them apart.
    let left = SCREEN.saturating_sub(2 + longest(&rows).unwrap_or(0) + RIGHT) / classes;
    let short: Vec<String> = rows
        .iter()
        .map(|name| cut(name, left.saturating_sub(1)))
        .collect();
    let distinct: BTreeSet<&String> = short.iter().collect();
    let told = |name: &String, short: &String| name == short || short.chars().count() >= LETTERS;
    let named = distinct.len() == classes && rows.iter().zip(&short).all(|(a, b)| told(a, b));
    let head = if named && left > count {
        short
    } else {
        for (class, name) in rows.iter_mut().enumerate().filter(|_| !names.is_empty()) {
            *name = format!("{class} {name}");
        }
        (0..classes).map(|class| class.to_string()).collect()
    };
    let wide = longest(&head).unwrap_or(0).max(count) + 1;
    let Some(room) = SCREEN
        .checked_sub(2 + RIGHT + classes * wide)
        .filter(|&room| room >= LETTERS)
    else {
        return elsewhere;
    };
    let first = longest(&rows).unwrap_or(0).min(room);
    let mut text = "\n  rows: true class, columns: class of the largest logit\n".to_owned();
    let mut line = |name: &String, right: String, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>wide$}")).collect();
        let name = cut(name, first);
        text.push_str(&format!("  {name:>first$}{right:>RIGHT$}{cells}\n"));
    };
    line(&String::new(), "right".into(), head);
    let shares = found.by_class();
    for ((name, row), share) in rows.iter().zip(&found.confusion).zip(shares) {
        let right = share.map_or("–".into(), |share| format!("{:.1} %", 100.0 * share));
        line(name, right, row.iter().map(u32::to_string).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str], count: u32) -> String {
        let mut confusion = vec![vec![0; names.len()]; names.len()];
        for (class, row) in confusion.iter_mut().enumerate() {
            row[class] = count;
        }
        let found = Classified {
            examples: 1,
            top1: 1.0,
            top5: 1.0,
            loss: 0.0,
            confusion,
        };
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let text = confusion_text(&found, &names);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest.unwrap_or(0) <= SCREEN, "{text}");
        text
    }

    #[test]
    fn the_table_has_heads_and_accuracies_within_the_screen() {
        let cifar = crate::data::class_names("cifar10").unwrap();
        let cifar: Vec<&str> = cifar.iter().map(String::as_str).collect();
        let text = table(&cifar, 1000);
        let words = |line: usize| -> Vec<String> {
            let line = text.lines().nth(line).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(words(2)[..3], ["right", "airplane", "automobi"], "{text}");
        assert_eq!(words(4)[..5], ["automobile", "100.0", "%", "0", "1000"]);
    }

    #[test]
    fn names_that_a_cut_makes_alike_become_numbers() {
        let names: Vec<String> = (0..20).map(|i| format!("n014407{i:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = table(&names, 50);
        assert!(text.contains("  12 n01440712  100.0 %"), "{text}");
        assert!(table(&names, 50_000).contains("--json"));
        assert!(table(&["a"; 21], 1).contains("--json"));
        assert!(table(&["", "b"], 1).contains("right"));
        assert!(table(&[""; 3], 0).contains('–'));
    }
}
