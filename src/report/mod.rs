//! What a run tells: metrics, TensorBoard events, progress, pictures, the closing summary, the log.
//!
//! Invariant: nothing here decides anything about training, and nothing here prints by itself: text comes back
//! as a `String`, or goes to a sink that the command line opened. Time enters only as an argument.
//!
//! | file | what it does |
//! |---|---|
//! | [`scalars`] | the named numbers of one step, and the tags of the original |
//! | [`metrics`] | `metrics.jsonl`, one line per step |
//! | [`events`] | TensorBoard event files |
//! | [`recorder`] | one call that writes both |
//! | [`progress`] | the live line on a terminal, plain lines elsewhere |
//! | [`picture`] | contact sheets of view pairs as PNG |
//! | [`arrays`] | tables of features as NumPy, safetensors, CSV |
//! | [`page`] | one HTML page about runs |
//! | [`summary`] | the closing words of a run, as text and as JSON |
//! | [`log_file`] | `log.txt`, fed by `tracing` |
//! | [`disk`] | files that are there whole or not at all |

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Class;

pub mod arrays;
pub mod disk;
pub mod events;
pub mod log_file;
pub mod metrics;
pub mod page;
pub mod picture;
pub mod progress;
pub mod recorder;
pub mod scalars;
pub mod summary;

pub use events::EventFile;
pub use log_file::{LogFile, PRINTED};
pub use metrics::Metrics;
pub use picture::Picture;
pub use progress::{Progress, Screen};
pub use recorder::Recorder;
pub use scalars::Scalars;
pub use summary::Summary;

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no.
    #[error("cannot {action} `{path}`: {source}; {}", disk::remedy(.source))]
    Io {
        /// What was tried, as in "cannot {action}".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A line of a metrics file that is not ours; a torn *last* line is no error.
    #[error(
        "line {line} of `{path}` is {found}, expected one JSON object with `step`, `epoch` and numbers; \
         repair or delete the file to go on"
    )]
    Metrics {
        /// The metrics file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        found: String,
    },
    /// Metrics must be written in the order of steps.
    #[error(
        "metrics of step {found} arrived after those of step {last} in `{path}`, expected a later step; this is a bug"
    )]
    StepBack {
        /// The metrics file.
        path: PathBuf,
        /// The step that came.
        found: u64,
        /// The newest step in the file.
        last: u64,
    },
    /// Pixels that do not fit their stated dimensions.
    #[error("cannot draw the views: {what}: found {found}, expected {expected}; this is a bug")]
    Picture {
        /// Which quantity.
        what: &'static str,
        /// As it came.
        found: String,
        /// As it has to be.
        expected: String,
    },
}

impl Error {
    /// What the reader can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Io { .. } => Class::Environment,
            Error::Metrics { .. } => Class::Check,
            Error::StepBack { .. } | Error::Picture { .. } => Class::Failed,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }
}

/// Seconds since 1970 by the system's clock, for the callers that need a wall time to pass on.
pub fn wall_time() -> f64 {
    // A clock before 1970 is a broken clock; zero is as good as any other answer then.
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
