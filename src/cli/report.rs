//! `simclr report`.

use super::ui::Ui;
use crate::config::{self, Loaded};
use crate::data;
use crate::report::page::{self, Map, Neighbours, Run, Setting, map};
use crate::report::{Picture, Scalars, disk, metrics};
use crate::train::inference::Inference;
use crate::train::trained::{self, Keys, Trained};
use crate::train::{run_dir, setup, views};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
pub(super) struct Arguments {
    /// Run folders
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// File to write, .html
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Leave out what needs the data set: views, neighbours, map
    #[arg(long)]
    curves_only: bool,
    /// Device, place of the data and such, as key=value; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Examples of the evaluation split that the map shows at most.
const MAPPED: usize = 1500;
/// Largest side of a picture among neighbours.
const SIDE: usize = 96;
/// Rows of neighbours, and neighbours in a row.
const NEIGHBOURS: [usize; 2] = [8, 8];

/// Keys of the views that a page shows.
const VIEWS: Keys = Keys {
    about: "the views",
    names: &[
        "train_batch_size",
        "shuffle_window",
        "input_pipelines",
        "color_jitter_strength",
        "use_blur",
        "brightness",
        "runtime.seed",
        "runtime.input",
        // No view depends on these, but the plan and the step do that views are made with.
        "warmup_epochs",
        "teacher",
        "distill_share",
    ],
};
const TAKEN: [Keys; 5] = [
    Keys::DATA,
    Keys::PICTURES,
    VIEWS,
    Keys::LAUNCHES,
    Keys::DEVICES,
];

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    // Before anything is computed.
    disk::writable(&arguments.out).map_err(|source| crate::report::arrays::Error::Io {
        path: arguments.out.clone(),
        source,
    })?;
    let ending = arguments.out.extension().and_then(|ending| ending.to_str());
    if !ending.is_some_and(|ending| matches!(&*ending.to_ascii_lowercase(), "html" | "htm")) {
        return Err(crate::report::arrays::Error::Ending {
            path: arguments.out.clone(),
            endings: ".html or .htm",
        }
        .into());
    }
    super::embed::refuse_in_checkpoint(&arguments.out)?;
    let mut runs = arguments
        .runs
        .iter()
        .map(|path| gather(path, arguments, ui))
        .collect::<anyhow::Result<Vec<Run>>>()?;
    name_apart(&mut runs, &arguments.runs);
    let text = page::page(&runs);
    disk::replace(&arguments.out, text.as_bytes()).map_err(|source| {
        crate::report::arrays::Error::Io {
            path: arguments.out.clone(),
            source,
        }
    })?;
    ui.result(&format!(
        "{} of {} bytes",
        arguments.out.display(),
        text.len()
    ))?;
    Ok(0)
}

/// What to do about data that cannot be had.
const WITHOUT: &str =
    "--set data_dir=DIR says where they are now, --curves-only makes the page without them";

fn gather(path: &Path, arguments: &Arguments, ui: &Ui) -> anyhow::Result<Run> {
    let file = path.join(metrics::FILE);
    let Some(content) = run_dir::content(&file)? else {
        return Err(trained::Error::NoMetrics {
            path: path.to_owned(),
        }
        .into());
    };
    let name = path.canonicalize().unwrap_or(path.to_owned());
    let mut run = Run {
        name: name
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned(),
        lines: metrics::rows(&file, &content)?,
        ..Run::default()
    };
    match trained::open(path) {
        Ok(trained) => {
            let file = path.join("eval").join(metrics::FILE);
            let found = run_dir::content(&file)?.unwrap_or_default();
            let found = metrics::rows(&file, &found)?;
            run.lines = with_evaluations(run.lines, found, trained.manifest.step);
            let loaded = trained.with(&arguments.overrides, &TAKEN)?;
            let config = &trained.loaded.config;
            run.about = format!(
                "{}, ResNet-{} ×{}, {} steps ({:.1} epochs)",
                config.dataset,
                config.resnet_depth,
                config.width_multiplier,
                trained.manifest.step,
                trained.manifest.epoch
            );
            run.settings = settings(&trained.loaded)?;
            if !arguments.curves_only {
                look(&mut run, &trained, &loaded, ui).map_err(|error| {
                    match error.is::<data::Error>() {
                        // The first words of an error are those that are shown.
                        true => {
                            let words = format!("`{}`: {error}; {WITHOUT}", path.display());
                            error.context(words)
                        }
                        false => error,
                    }
                })?;
            }
        }
        // A run that has just begun has curves only.
        Err(trained::Error::NoCheckpoint { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(run)
}

/// What makes a run what it is.
fn settings(loaded: &Loaded) -> Result<Vec<Setting>, config::Error> {
    // A checkpoint's configuration has all keys.
    let defaults = config::load(None, &[])?;
    let identity = loaded.identity().into_iter();
    let setting = |(key, value): (String, String)| Setting {
        set: value != defaults.value(&key),
        key,
        value,
    };
    Ok(identity.map(setting).collect())
}

/// Runs of one name are called by their paths.
fn name_apart(runs: &mut [Run], paths: &[PathBuf]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (run, path) in runs.iter_mut().zip(paths) {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = path.display().to_string();
        }
    }
}

/// The metrics of training with those that `simclr run` found about the run's checkpoints up to `step` (later ones were set aside); the
/// names of the original's first generation (`behaviour: v1`) as those of the second.
fn with_evaluations(mut lines: Vec<Scalars>, found: Vec<Scalars>, step: u64) -> Vec<Scalars> {
    for found in found.into_iter().filter(|line| line.step <= step) {
        let values = found.values.iter().map(|(tag, &value)| {
            let name = tag.trim_start_matches("eval/");
            (format!("eval/{name}"), value)
        });
        match lines.binary_search_by_key(&found.step, |line| line.step) {
            Ok(place) => lines[place].values.extend(values),
            Err(place) => {
                let mut line = Scalars::new(found.step, found.epoch);
                line.values.extend(values);
                lines.insert(place, line);
            }
        }
    }
    lines
}

/// Adds views, neighbours and map.
fn look(run: &mut Run, trained: &Trained, loaded: &Loaded, ui: &Ui) -> anyhow::Result<()> {
    let config = &loaded.config;
    let open = |split: &str| setup::examples(config, split).map(Arc::new);
    let (engine, devices) = super::pretrain::open_to_evaluate(loaded, ui)?;
    if !config.finetune {
        let train = open(&config.train_split)?;
        run.views = Some(views::show(loaded, &engine, &train)?);
    }
    let test = match open(&config.eval_split) {
        Ok(test) => test,
        Err(error @ data::Error::NotFound { .. }) => {
            let name = &run.name;
            ui.note(&format!("{name}: neighbours and map are left out: {error}"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let (network, values) = (&trained.network, &trained.values);
    let batch = config.eval_batch_size.min(test.description().examples);
    let inference = Inference::new(&engine, config, network, values, devices, batch)?;
    let width = inference.width;
    let glance = inference.glance(&test, config, MAPPED)?;
    let (features, labels) = (glance.seen.features, glance.labels);
    let classes = test.description().class_names.clone();
    let side = network.image_size;
    let example = |i: usize| {
        let class = labels[i] as usize;
        let picture = Picture {
            width: side,
            height: side,
            rgb: glance.pixels[i * side * side * 3..][..side * side * 3].to_vec(),
        };
        let name = match test.description().has_classes() {
            true => classes.get(class).cloned().unwrap_or(class.to_string()),
            false => String::new(),
        };
        (picture.shrunk(SIDE), name)
    };
    let [rows, columns] = NEIGHBOURS;
    run.neighbours = (0..rows.min(labels.len()))
        .map(|query| Neighbours {
            query: example(query),
            nearest: map::nearest(&features, width, query, columns)
                .into_iter()
                .map(example)
                .collect(),
        })
        .collect();
    let mapped = labels.len().min(MAPPED);
    let (places, shares) = map::principal(&features[..mapped * width], width);
    run.map = Some(Map {
        points: places.into_iter().zip(labels).collect(),
        classes,
        shares,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_join_their_steps_under_one_name() {
        let line = |step: u64, tag: &str, value: f64| {
            let mut line = Scalars::new(step, step as f64);
            line.set(tag, value);
            line
        };
        let of_training = vec![line(2, "loss", 1.0), line(6, "loss", 2.0)];
        let found = vec![
            line(4, "label_top_1_accuracy", 0.4),
            line(6, "eval/label_top_1_accuracy", 0.6),
            line(8, "eval/label_top_1_accuracy", 0.8),
        ];
        let all = with_evaluations(of_training, found, 6);
        let top1: Vec<_> = all
            .iter()
            .map(|line| (line.step, line.get("eval/label_top_1_accuracy")))
            .collect();
        assert_eq!(top1, [(2, None), (4, Some(0.4)), (6, Some(0.6))]);
        assert_eq!(all[2].get("loss"), Some(2.0));
    }
}
