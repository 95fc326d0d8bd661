//! `simclr data subset`.

use crate::cli::ui::Ui;
use crate::data::subset::{Size, draw};
use crate::data::{Examples, told_apart};
use crate::report::arrays::Error;
use crate::report::disk;
use crate::report::progress::count;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Data set: cifar10, shapes32, imagenet2012, folder, … (the key `dataset`)
    dataset: String,
    /// Folder with the data set (the key `data_dir`)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Split to draw from
    #[arg(long, default_value = "train")]
    split: String,
    /// Share of the whole split; classes differ by one example at most
    #[arg(long, value_parser = percent, required_unless_present = "per_class", conflicts_with = "per_class")]
    percent: Option<f64>,
    /// Examples of each class
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    per_class: Option<u32>,
    /// What is drawn follows from it and the names of the examples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// List to write, one name a line: what `subset_list` takes
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("a number above 0, at most 100".into()),
    }
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let size = match (arguments.percent, arguments.per_class) {
        (Some(percent), _) => Size::Percent(percent),
        (None, per_class) => Size::PerClass(per_class.unwrap_or(1) as usize),
    };
    let unwritable = |source| Error::Io {
        path: arguments.out.clone(),
        source,
    };
    // Names of a large set take a while: not in vain.
    std::fs::read_dir(disk::parent(&arguments.out)).map_err(unwritable)?;
    let dir = arguments.data_dir.as_deref();
    let examples = Examples::listed(&arguments.dataset, &arguments.split, dir, None, false)?;
    let names = examples.names()?;
    told_apart(names.iter().map(|(name, _)| name.as_str()))?;
    let described = examples.description();
    let chosen = draw(&names, described.classes, size, arguments.seed);
    let mut of_class = vec![0usize; described.classes];
    let drawn: std::collections::HashSet<&str> = chosen.iter().map(String::as_str).collect();
    for (_, class) in names
        .iter()
        .filter(|(name, _)| drawn.contains(name.as_str()))
    {
        of_class[*class as usize] += 1;
    }
    disk::replace(&arguments.out, (chosen.join("\n") + "\n").as_bytes()).map_err(unwritable)?;
    let (least, most) = (of_class.iter().min(), of_class.iter().max());
    let each = match (least.copied().unwrap_or(0), most.copied().unwrap_or(0)) {
        (least, most) if least == most => count(least as u64),
        (least, most) => format!("{} to {}", count(least as u64), count(most as u64)),
    };
    ui.result(&format!(
        "{} of {} examples of {} ({}), {each} of each of {} classes, in {}\n  train on them with subset_list={}",
        count(chosen.len() as u64),
        count(names.len() as u64),
        arguments.dataset,
        arguments.split,
        described.classes,
        arguments.out.display(),
        arguments.out.display(),
    ))?;
    Ok(0)
}
