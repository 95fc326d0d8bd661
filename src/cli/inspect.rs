//! `simclr inspect`.

use super::ui::Ui;
use crate::interop::inspect::inspect;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Arguments {
    /// A run folder, a checkpoint, a TensorFlow checkpoint (prefix, file or folder), a safetensors or TFRecord file, a compiled
    /// program
    path: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let contents = inspect(&arguments.path)?;
    let text = if arguments.json {
        contents.json()
    } else {
        contents.text()
    };
    ui.result(&text)?;
    Ok(0)
}
