//! `simclr data`: what is known of a data set before it is trained on.

mod bench;
mod check;
mod pack;
mod show;
mod subset;

use super::ui::Ui;
use crate::data::{Error, Examples, Found, Words, find};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Read every byte of a data set: counts, CRCs, features, labels, pictures; exit code 4 if it may not be trained on
    Check(check::Arguments),
    /// Draw examples, each with the two views that a recipe makes of it, as a PNG
    Show(show::Arguments),
    /// Measure reading, decoding and cropping, each alone and all together, on this machine
    Bench(bench::Arguments),
    /// Pack a folder of pictures into TFRecords that TFDS can open
    Pack(pack::Arguments),
    /// Draw a list of examples, balanced by class, from a seed: what subset_list takes
    Subset(subset::Arguments),
}

/// Which split.
#[derive(Args)]
struct Place {
    /// Folder with the data, local or gs://BUCKET/…: TFRecords of TFDS or of ImageNet's classic layout, CIFAR's binary archive, or class folders of pictures
    dir: PathBuf,
    /// Only this data set, where the folder holds several
    #[arg(long)]
    dataset: Option<String>,
    /// Only this split
    #[arg(long)]
    split: Option<String>,
}

impl Place {
    /// The splits that fit what was named.
    fn all(&self) -> Result<Vec<Found>, Error> {
        let mut found = find(&self.dir)?;
        let known: Vec<String> = found
            .iter()
            .map(|found| format!("{} of {}", found.split, found.dataset))
            .collect();
        let fits =
            |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| w == name);
        found
            .retain(|found| fits(&self.dataset, &found.dataset) && fits(&self.split, &found.split));
        if found.is_empty() {
            let dataset = self
                .dataset
                .as_ref()
                .map(|name| format!("data set `{name}`"));
            let split = self.split.as_ref().map(|name| format!("split `{name}`"));
            let wanted: Vec<String> = split.into_iter().chain(dataset).collect();
            return Err(Error::OtherSets {
                wanted: wanted.join(" of "),
                dir: self.dir.clone(),
                found: known.join(", "),
                options: "--dataset and --split",
            });
        }
        Ok(found)
    }

    /// The split to train on: `train` unless another one was named.
    fn one(&self) -> Result<Found, Error> {
        let mut found = self.all()?;
        let train = found.iter().position(|found| found.split == "train");
        Ok(found.swap_remove(train.unwrap_or(0)))
    }

    /// The examples of that split.
    fn open(&self) -> Result<(Found, Examples), Error> {
        let found = self.one()?;
        let examples = Examples::open(&found.dataset, &found.split, Some(&found.dir));
        Ok((found, examples.map_err(|error| error.in_words_of(&WORDS))?))
    }
}

/// What a [`Place`] has in place of keys.
const WORDS: Words = Words {
    no_folder: "name the folder that holds the data",
    not_there: "name the folder that has it, or another split with --split",
};

/// A bar on a terminal, nothing elsewhere.
fn bar(ui: &Ui, what: &str) -> ProgressBar {
    let live = ui.screen.style() == crate::report::progress::Style::Live;
    let target = if live {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let template = format!("{what}  {{human_pos}} examples  {{per_sec}}  {{elapsed}}");
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or(ProgressStyle::default_bar()));
    bar
}

pub(super) fn run(command: &Command, ui: &Ui) -> anyhow::Result<u8> {
    match command {
        Command::Check(arguments) => check::run(arguments, ui),
        Command::Show(arguments) => show::run(arguments, ui),
        Command::Bench(arguments) => bench::run(arguments, ui),
        Command::Pack(arguments) => pack::run(arguments, ui),
        Command::Subset(arguments) => subset::run(arguments, ui),
    }
}
