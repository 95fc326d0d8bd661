//! `simclr report`.

use super::ui::Ui;
use crate::report::page::{self, Map, Neighbours, Run, map};
use crate::report::{Picture, disk, metrics};
use crate::train::inference::Inference;
use crate::train::trained::{self, Trained};
use crate::train::{run_dir, setup, views};
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
pub(super) struct Arguments {
    /// Run folders
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// File to write
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
/// Rows of neighbours, and neighbours in a row.
const NEIGHBOURS: [usize; 2] = [8, 8];

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    // Before anything is computed.
    let folder = disk::parent(&arguments.out);
    std::fs::read_dir(&folder).map_err(|source| crate::report::arrays::Error::Io {
        path: arguments.out.clone(),
        source,
    })?;
    let runs = arguments
        .runs
        .iter()
        .map(|path| gather(path, arguments, ui))
        .collect::<anyhow::Result<Vec<Run>>>()?;
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

fn gather(path: &Path, arguments: &Arguments, ui: &Ui) -> anyhow::Result<Run> {
    let file = path.join(metrics::FILE);
    if !file.is_file() {
        return Err(run_dir::Error::Foreign {
            path: path.to_owned(),
            found: format!("has no `{}`", metrics::FILE),
        })
        .context("a report is about run folders");
    }
    let name = path.canonicalize().unwrap_or(path.to_owned());
    let mut run = Run {
        name: name
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned(),
        lines: metrics::read(&file)?,
        ..Run::default()
    };
    match trained::open(path) {
        Ok(trained) => {
            let config = &trained.loaded.config;
            run.about = format!(
                "{}, ResNet-{} ×{}, {} steps ({:.1} epochs)",
                config.dataset,
                config.resnet_depth,
                config.width_multiplier,
                trained.manifest.step,
                trained.manifest.epoch
            );
            if !arguments.curves_only {
                look(&mut run, &trained, arguments, ui)?;
            }
        }
        // A run that has just begun has curves only.
        Err(trained::Error::NoCheckpoint { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(run)
}

/// Adds views, neighbours and map.
fn look(run: &mut Run, trained: &Trained, arguments: &Arguments, ui: &Ui) -> anyhow::Result<()> {
    let loaded = trained.loaded.with(&arguments.overrides)?;
    let config = &loaded.config;
    let open = |split: &str| setup::examples(config, split).map(Arc::new);
    let (engine, devices) = super::pretrain::open(&loaded, ui)?;
    if !config.finetune {
        let train = open(&config.train_split)?;
        run.views = Some(views::show(&loaded, &engine, &train)?);
    }
    let test = open(&config.eval_split)?;
    let Some(set) = test.memory() else {
        ui.note("neighbours and map are left out: the evaluation split is not held in memory");
        return Ok(());
    };
    let (network, values) = (&trained.network, &trained.values);
    let batch = config.eval_batch_size.min(set.len());
    let inference = Inference::new(&engine, config, network, values, devices, batch)?;
    let width = inference.width;
    let features = inference.run(&set.images)?.features;
    let classes = set.class_names.clone();
    let example = |i: usize| {
        let class = set.labels[i] as usize;
        let picture = Picture {
            width: set.width,
            height: set.height,
            rgb: set.image(i).to_vec(),
        };
        (
            picture,
            classes.get(class).cloned().unwrap_or(class.to_string()),
        )
    };
    let [rows, columns] = NEIGHBOURS;
    run.neighbours = (0..rows.min(set.len()))
        .map(|query| Neighbours {
            query: example(query),
            nearest: map::nearest(&features, width, query, columns)
                .into_iter()
                .map(example)
                .collect(),
        })
        .collect();
    let mapped = set.len().min(MAPPED);
    let places = map::principal(&features[..mapped * width], width);
    run.map = Some(Map {
        points: places.into_iter().zip(set.labels.iter().copied()).collect(),
        classes,
    });
    Ok(())
}
