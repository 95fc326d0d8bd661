//! Who writes to a run folder in a bucket. No lock of a machine is seen by another, and whether a process elsewhere still runs nobody can tell:
//! so the last one that entered writes, and one that finds another's name stops. One that has not entered yet gives way to checkpoints that
//! appear meanwhile, since only a process that lives makes them. What is on its way when another enters still arrives; a state that arrives
//! so for a step that the other has saved, too, has another hash than its manifest says, unless it is the same.

use super::run_dir::{self, Error};
use crate::report::{events::host_name, wall_time};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// The object that names the writer. It stays there when a run ends: deleting it could take away a later one's name.
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
        let Writer {
            machine, process, ..
        } = self;
        let seconds = self.began / 1_000_000_000;
        let [hours, minutes] = [seconds / 3600 % 24, seconds / 60 % 60];
        let seconds = seconds % 60;
        write!(
            f,
            "process {process} on `{machine}` (begun {hours:02}:{minutes:02}:{seconds:02} UTC)"
        )
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

    /// Writes its name to a folder. The one that was there, if it is of another machine: of this one a lock tells, as long as it has one cache.
    ///
    /// # Errors
    /// The bucket's.
    pub(super) fn enter(&self, folder: &Path) -> Result<Option<Writer>, Error> {
        let before = found(folder)?.filter(|before| before.machine != self.machine);
        let name = serde_json::to_vec(self).expect("a name and two numbers are valid JSON");
        run_dir::replace(&folder.join(FILE), name)?;
        Ok(before)
    }

    /// # Errors
    /// If another process has entered, or the bucket refuses.
    pub(super) fn check(&self, folder: &Path) -> Result<(), Error> {
        match found(folder)? {
            Some(found) if found == *self => Ok(()),
            Some(by) => Err(Error::TakenOver {
                path: folder.to_owned(),
                by: by.to_string(),
                expected: self.to_string(),
            }),
            None => Err(Error::NoWriter {
                path: folder.join(FILE),
                expected: self.to_string(),
            }),
        }
    }
}

/// The name in a folder; none if there is none, or none that can be read.
pub(super) fn found(folder: &Path) -> Result<Option<Writer>, Error> {
    let content = run_dir::content(&folder.join(FILE))?;
    Ok(content.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
