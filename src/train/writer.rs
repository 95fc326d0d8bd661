//! Who writes to a folder in a bucket. No lock of a machine is seen by another, and whether a process elsewhere still runs nobody can tell:
//! so the last one that began writes, and one that finds another's name stops.

use super::run_dir::{self, Error};
use crate::data::store;
use crate::report::{events::host_name, progress, wall_time};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// The object that names the writer.
const FILE: &str = "writer.json";

/// A process that writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Its machine's name.
    machine: String,
    /// Its number there.
    process: u32,
    /// When it began, in nanoseconds since 1970, so that no other is taken for it.
    began: u64,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on `{}`", self.process, self.machine)
    }
}

impl Writer {
    /// This process, from now on.
    pub(super) fn new() -> Self {
        Writer {
            machine: host_name(),
            process: std::process::id(),
            began: (wall_time() * 1e9) as u64,
        }
    }

    /// Writes its name to a folder in a bucket, and tells of the one that it finds there.
    ///
    /// # Errors
    /// The bucket's.
    pub(super) fn enter(&self, folder: &Path) -> Result<(), Error> {
        if let Some(before) = found(folder)? {
            let ago = self.began.saturating_sub(before.began) as f64 * 1e-9;
            tracing::warn!(
                "{before} began to write to {} {} ago and did not say that it ended; if it still runs, it stops at its next checkpoint",
                folder.display(),
                progress::duration(ago)
            );
        }
        let name = serde_json::to_vec(self).expect("a name and two numbers are valid JSON");
        run_dir::replace(&folder.join(FILE), name)
    }

    /// # Errors
    /// If another process has begun to write there, or the bucket refuses.
    pub(super) fn check(&self, folder: &Path) -> Result<(), Error> {
        let by = found(folder)?;
        if by.as_ref() == Some(self) {
            return Ok(());
        }
        Err(Error::TakenOver {
            path: folder.to_owned(),
            by,
        })
    }

    /// Takes its name away, as the last that it does there.
    ///
    /// # Errors
    /// The bucket's.
    pub(super) fn leave(&self, folder: &Path) -> Result<(), Error> {
        Ok(store::remove(&folder.join(FILE))?)
    }
}

/// The name in a folder; none if there is none, or one that cannot be read, which is nobody's.
fn found(folder: &Path) -> Result<Option<Writer>, Error> {
    let content = run_dir::content(&folder.join(FILE))?;
    Ok(content.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
