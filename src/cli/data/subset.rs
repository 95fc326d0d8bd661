//! `simclr data subset`.

use crate::cli::ui::Ui;
use crate::data::subset::{Size, draw};
use crate::data::{Error as DataError, Examples, Words, told_apart};
use crate::report::arrays::Error;
use crate::report::disk;
use crate::report::progress::count;
use crate::words::plural;
use clap::Args;
use std::collections::HashSet;
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
    /// Share of the whole split; classes differ by one example at most, but for those that have fewer, which give all they have
    #[arg(long, value_parser = percent, required_unless_present = "per_class", conflicts_with = "per_class")]
    percent: Option<f64>,
    /// Examples of each class; one that has fewer gives all it has
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

const WORDS: Words = Words {
    no_folder: "set --data-dir to the folder that holds the data set",
    not_there: "set --data-dir to the folder that has it, or --split to one of its splits",
};

/// How many classes have fewer examples than the share of the others, and that share.
fn short(size: Size, of_class: &[usize], there: &[usize]) -> (usize, usize) {
    let share = match size {
        Size::PerClass(share) => share,
        Size::Percent(_) => {
            let both = of_class.iter().zip(there);
            let left = both.filter(|(given, there)| given < there);
            // Of a whole set nothing is left to share.
            left.map(|(given, _)| *given).min().unwrap_or(0)
        }
    };
    (there.iter().filter(|&&n| n < share).count(), share)
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
    let examples = Examples::listed(&arguments.dataset, &arguments.split, dir, None, false)
        .map_err(|error| error.in_words_of(&WORDS))?;
    let names = examples.names()?;
    told_apart(names.iter().map(|(name, _)| name.as_str()))?;
    let described = examples.description();
    let chosen = draw(&names, described.classes, size, arguments.seed);
    if let (Size::Percent(percent), true) = (size, chosen.is_empty()) {
        return Err(DataError::NothingDrawn {
            percent,
            examples: names.len(),
        }
        .into());
    }
    let drawn: HashSet<&str> = chosen.iter().map(String::as_str).collect();
    let (mut of_class, mut there) = (vec![0; described.classes], vec![0; described.classes]);
    for (name, class) in &names {
        there[*class as usize] += 1;
        of_class[*class as usize] += usize::from(drawn.contains(name.as_str()));
    }
    disk::replace(&arguments.out, (chosen.join("\n") + "\n").as_bytes()).map_err(unwritable)?;
    let (least, most) = (of_class.iter().min(), of_class.iter().max());
    let each = match (least.copied().unwrap_or(0), most.copied().unwrap_or(0)) {
        (least, most) if least == most => count(least as u64),
        (least, most) => format!("{} to {}", count(least as u64), count(most as u64)),
    };
    let short = match short(size, &of_class, &there) {
        (0, _) => String::new(),
        (1, share) => format!(
            "  1 of the classes has fewer than {share} example{} and gives all it has\n",
            plural(share)
        ),
        (classes, share) => format!(
            "  {} of the classes have fewer than {share} example{} and give all they have\n",
            count(classes as u64),
            plural(share)
        ),
    };
    ui.result(&format!(
        "{} of {} examples of {} ({}), {each} of each of {} classes, in {}\n{short}  train on them with subset_list={}",
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
