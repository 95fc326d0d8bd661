//! Why a checkpoint could not be written, or may not be used.

use std::io;
use std::path::{Path, PathBuf};

use super::{Dtype, FORMAT_VERSION};
use crate::error::Class;
use crate::report::disk;
use crate::train::run_dir::{self, Difference, back, other};

/// Why a checkpoint could not be written, or may not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no.
    #[error("cannot {action} `{path}`: {source}; {}; earlier checkpoints are untouched", disk::remedy(.source))]
    Io {
        /// What was tried, as in "cannot {action}".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The bucket said no.
    #[error("{0}; earlier checkpoints are untouched")]
    Bucket(Box<crate::data::Error>),
    /// The run folder is not this process's any more.
    #[error(transparent)]
    RunDir(Box<run_dir::Error>),
    /// A path that does not lead to a checkpoint.
    #[error(
        "`{path}` is not a checkpoint, expected a folder with `manifest.json` in it, \
         such as `MODEL_DIR/checkpoints/step-00000100`; correct the path"
    )]
    NotACheckpoint {
        /// As given.
        path: PathBuf,
    },
    /// Written by a later program.
    #[error(
        "checkpoint `{path}` has format version {found}, expected {FORMAT_VERSION}; \
         use the version of simclr that wrote it"
    )]
    Version {
        /// The checkpoint.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file is missing, cut, or altered.
    #[error("checkpoint `{path}` is damaged: {what}; {}", remedy(.previous, *.resumes))]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong, with what was found and expected.
        what: String,
        /// The newest whole checkpoint before it.
        previous: Option<PathBuf>,
        /// Whether a run was to go on from it, rather than something else to open it.
        resumes: bool,
    },
    /// The arrays are those of another network.
    #[error("checkpoint `{path}` does not fit this network: {}", first(.mismatches))]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// Every tensor that differs; at least one.
        mismatches: Vec<TensorMismatch>,
    },
    /// A checkpoint of a run with another configuration.
    #[error(
        "checkpoint `{path}` belongs to a run {}; {} or name another checkpoint",
        other(.differences), back(.differences)
    )]
    OtherConfig {
        /// The checkpoint.
        path: PathBuf,
        /// Every key whose value differs.
        differences: Vec<Difference>,
    },
    /// Arrays that make no state.
    #[error("cannot save the state: `{tensor}` {what}; this is a bug")]
    Invalid {
        /// Which array.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
}

/// A tensor that is not as expected.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorMismatch {
    /// Its name.
    pub tensor: String,
    /// As in the checkpoint; `None` when it is not there.
    pub found: Option<(Dtype, Vec<usize>)>,
    /// As the network has it; `None` when it has none of this name.
    pub expected: Option<(Dtype, Vec<usize>)>,
}

impl From<run_dir::Error> for Error {
    fn from(error: run_dir::Error) -> Self {
        match error {
            run_dir::Error::Bucket(error) => Error::Bucket(error),
            error => Error::RunDir(Box::new(error)),
        }
    }
}

impl From<crate::data::Error> for Error {
    fn from(error: crate::data::Error) -> Self {
        Error::Bucket(Box::new(error))
    }
}

impl Error {
    /// What the reader can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Io { .. } => Class::Environment,
            Error::Bucket(error) => error.class(),
            Error::RunDir(error) => error.class(),
            Error::NotACheckpoint { .. } => Class::Usage,
            Error::Version { .. }
            | Error::Damaged { .. }
            | Error::Mismatch { .. }
            | Error::OtherConfig { .. } => Class::Check,
            Error::Invalid { .. } => Class::Failed,
        }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }

    pub(super) fn damaged(path: &Path, what: String) -> Error {
        Error::Damaged {
            path: path.to_owned(),
            what,
            previous: None,
            resumes: true,
        }
    }
}

impl std::fmt::Display for TensorMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (found, expected) = (shape(&self.found), shape(&self.expected));
        write!(
            f,
            "tensor `{}` found {found}, expected {expected}",
            self.tensor
        )
    }
}

fn shape(shape: &Option<(Dtype, Vec<usize>)>) -> String {
    let Some((dtype, dims)) = shape else {
        return "nothing".to_owned();
    };
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    format!("{}[{}]", dtype.to_string().to_lowercase(), dims.join(","))
}

fn first(mismatches: &[TensorMismatch]) -> String {
    let first = mismatches
        .first()
        .map(TensorMismatch::to_string)
        .unwrap_or_default();
    let others = mismatches.len().saturating_sub(1);
    let others = match others {
        0 => String::new(),
        1 => ", and 1 other tensor differs".to_owned(),
        n => format!(", and {n} other tensors differ"),
    };
    format!("{first}{others}; use the configuration it was trained with")
}

fn remedy(previous: &Option<PathBuf>, resumes: bool) -> String {
    match (previous, resumes) {
        (Some(path), true) => format!(
            "to go on from the one before it, add `--resume-from {}` (nothing is deleted)",
            path.display()
        ),
        (Some(path), false) => format!("give the one before it instead, `{}`", path.display()),
        (None, resumes) => format!(
            "there is no whole one before it: restore it from a copy, or {}",
            match resumes {
                true => "choose another `model_dir`",
                false => "give another run",
            }
        ),
    }
}
