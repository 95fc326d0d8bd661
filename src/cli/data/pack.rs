//! `simclr data pack`.

use crate::cli::ui::Ui;
use crate::data::Words;
use crate::data::pack::{PackSpec, pack};
use crate::report::progress::count;
use crate::words::plural;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Folder, local or gs://BUCKET/…, with SPLIT/CLASS/pictures, CLASS/pictures, or pictures without classes
    images: PathBuf,
    /// Folder to write NAME/1.0.0 into, local or gs://BUCKET/… (then packed in the folder for temporary files first): a data_dir
    out: PathBuf,
    /// Name of the new data set
    #[arg(long, default_value = "pictures", value_parser = name)]
    name: String,
    /// Size of a file, about
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    shard_size: u64,
}

/// A name as TFDS has them.
fn name(text: &str) -> Result<String, String> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if first && text.bytes().all(rest) {
        Ok(text.into())
    } else {
        Err("a name of small letters, digits and _".into())
    }
}

const WORDS: Words = Words {
    no_folder: "name the folder that holds the pictures",
    not_there: "name the folder that has the pictures",
};

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let spec = PackSpec {
        name: arguments.name.clone(),
        shard_bytes: arguments.shard_size << 20,
    };
    let bar = super::bar(ui, "packing");
    let packed = pack(&arguments.images, &arguments.out, &spec, &|| bar.inc(1));
    bar.finish_and_clear();
    let (folder, splits) = packed.map_err(|error| error.in_words_of(&WORDS))?;
    let mut text = format!("{}\n", folder.display());
    for split in &splits {
        text.push_str(&format!(
            "  {:<12}{} example{} in {} file{}\n",
            split.split,
            count(split.lengths.iter().sum()),
            plural(split.lengths.iter().sum::<u64>()),
            split.lengths.len(),
            plural(split.lengths.len())
        ));
    }
    text.push_str(&format!(
        "  train with dataset={} data_dir={}\n",
        spec.name,
        arguments.out.display()
    ));
    ui.result(&text)?;
    Ok(0)
}
