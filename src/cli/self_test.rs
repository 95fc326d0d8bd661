//! `simclr self-test`, which is not listed: whether a plugin's inside may be called, in a process that need not survive the answer.

use super::isolated::{self, Error, end_with_parent, own_error};
use crate::engine;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct Arguments {
    /// The plugin's file
    #[arg(long, value_name = "FILE")]
    plugin: PathBuf,
}

/// In the child.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    end_with_parent();
    engine::self_test(&arguments.plugin)?;
    Ok(0)
}

/// Runs the test of a plugin in a child; what went wrong, in words.
pub(super) fn in_child(plugin: &Path) -> Result<(), String> {
    let arguments = ["self-test".into(), "--plugin".into(), plugin.into()];
    match isolated::run(arguments, &[]) {
        Ok(ended) if ended.code == 0 => Ok(()),
        Ok(ended) => {
            let error = own_error(&ended.words).map_or("", |at| &ended.words[at..]);
            Err(error.trim_start_matches("error: ").trim_end().to_string())
        }
        Err(Error::Crashed { status, words }) => {
            Err(format!("it ended itself ({status}): {words}"))
        }
        Err(error) => Err(error.to_string()),
    }
}
