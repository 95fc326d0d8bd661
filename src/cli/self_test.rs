//! `simclr self-test`, which is not listed: whether a plugin's inside may be called, in a process that need not survive the answer.

use super::isolated::{self, Error, end_with_parent, own_error};
use crate::engine::{self, NotPassed};
use clap::Args;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// It takes two seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the test of a plugin in a child, which an interruption of this process does not reach.
pub(super) fn in_child(plugin: &Path) -> Result<(), NotPassed> {
    let arguments = ["self-test".into(), "--plugin".into(), plugin.into()];
    let (reason, lasting) = match isolated::run(arguments, &[], Some(LIMIT)) {
        Ok(ended) if ended.code == 0 => return Ok(()),
        Ok(ended) => {
            let error = own_error(&ended.words).map_or("", |at| &ended.words[at..]);
            let error = error.trim_start_matches("error: ").trim_end();
            (error.to_string(), true)
        }
        Err(Error::Crashed { status, words }) => {
            let own = status
                .signal()
                .is_some_and(|signal| OWN_ENDS.contains(&signal));
            (format!("it ended itself ({status}): {words}"), own)
        }
        Err(error) => (error.to_string(), false),
    };
    Err(NotPassed { reason, lasting })
}

/// Signals by which a program ends itself; others somebody sends.
const OWN_ENDS: [i32; 5] = [
    libc::SIGILL,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
];
