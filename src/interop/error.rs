//! Why another program's file could not be read or written.

use crate::error::Class;
use crate::train::checkpoint;
use crate::{config, data, hlo, model};
use std::io;
use std::path::{Path, PathBuf};

/// Why another program's file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are what the message of their variant says
pub enum Error {
    #[error("cannot {action} `{}`: {source}; {}", path.display(), remedy(.source))]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "`{}` is no TensorFlow checkpoint: {found}; give its prefix, such as DIR/model.ckpt-1000, or the folder with its `checkpoint` file",
        path.display()
    )]
    NotABundle { path: PathBuf, found: String },
    #[error("`{}` is there already, expected a new or empty folder; choose another one", path.display())]
    Taken { path: PathBuf },
    #[error("`{}` is an address in a bucket, expected a folder of this machine; write there, and copy it to the bucket", path.display())]
    Remote { path: PathBuf },
    #[error("`{}` is damaged: {what}; fetch it again", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("`{}` is nothing that this program reads: {found}, expected a run folder, a checkpoint of this program or of TensorFlow, a safetensors file, a TFRecord file or a compiled program", path.display())]
    Unknown { path: PathBuf, found: String },
    #[error(
        "`{}` holds no network of this program: {what} in the nearest, {nearest}; expected a SimCLR checkpoint of a ResNet-10, 18, 34, 50, 101, 152 or 200",
        path.display()
    )]
    UnknownNetwork {
        path: PathBuf,
        nearest: String,
        what: String,
    },
    #[error("the program has no value `{name}`, expected one of {known}")]
    NoEndpoint { name: String, known: String },
    #[error(
        "`--{flag}` changes nothing about `--format {format}`, expected one of {formats}; leave it out, or choose another format"
    )]
    WithoutEffect {
        flag: &'static str,
        format: String,
        formats: &'static str,
    },
    #[error(transparent)]
    Hlo(#[from] hlo::Error),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    #[error(transparent)]
    Data(#[from] data::Error),
    #[error("`{}` {found}, expected {expected}", path.display())]
    Unsupported {
        path: PathBuf,
        found: String,
        expected: String,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Io { .. } => Class::Environment,
            Error::NotABundle { .. }
            | Error::Unknown { .. }
            | Error::Taken { .. }
            | Error::Remote { .. } => Class::Usage,
            Error::Checkpoint(error) => error.class(),
            Error::Data(error) => error.class(),
            Error::NoEndpoint { .. } | Error::WithoutEffect { .. } => Class::Usage,
            Error::Hlo(error) => error.class(),
            Error::Config(error) => error.class(),
            Error::Model(error) => error.class(),
            Error::Damaged { .. } | Error::Unsupported { .. } | Error::UnknownNetwork { .. } => {
                Class::Check
            }
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

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Error {
        Error::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "correct the path",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or choose another folder"
        }
        _ => "check its permissions, or choose another path",
    }
}
