//! What can go wrong with plugins.

use crate::error::Class;
use std::fmt;
use std::path::PathBuf;

/// The status code of a plugin's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub i32);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "CANCELLED",
            2 => "UNKNOWN",
            3 => "INVALID_ARGUMENT",
            4 => "DEADLINE_EXCEEDED",
            5 => "NOT_FOUND",
            6 => "ALREADY_EXISTS",
            7 => "PERMISSION_DENIED",
            8 => "RESOURCE_EXHAUSTED",
            9 => "FAILED_PRECONDITION",
            10 => "ABORTED",
            11 => "OUT_OF_RANGE",
            12 => "UNIMPLEMENTED",
            13 => "INTERNAL",
            14 => "UNAVAILABLE",
            15 => "DATA_LOSS",
            16 => "UNAUTHENTICATED",
            other => return write!(f, "code {other}"),
        })
    }
}

/// An error of a plugin, of finding one, or of using one wrongly.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "plugin {path} does not exist; check runtime.plugin, --plugin or the environment variable that names it"
    )]
    NoSuchFile { path: PathBuf },
    #[error(
        "plugin {path} cannot be loaded: {reason}; expected a PJRT plugin for this machine; name another, or run `simclr plugins install`"
    )]
    NotLoadable { path: PathBuf, reason: String },
    #[error(
        "plugin {path} has {found} bytes, expected {expected} at least: a copy that broke off; copy it again, or run `simclr plugins install`"
    )]
    Truncated {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error(
        "{path} is a shared library but no PJRT plugin (it has no GetPjrtApi); name a plugin, or run `simclr plugins install cpu`"
    )]
    NotAPlugin { path: PathBuf },
    #[error("plugin {path} has PJRT API {}.{}, and 0.{oldest} or a later 0.x is needed; install a newer plugin", version.0, version.1)]
    Version {
        path: PathBuf,
        version: (i32, i32),
        oldest: i32,
    },
    #[error("plugin {path} (PJRT API {}.{}) does not have the call {call}; install a newer plugin", version.0, version.1)]
    NoSuchCall {
        call: &'static str,
        path: PathBuf,
        version: (i32, i32),
    },
    #[error("{call} failed with {code}: {message} (plugin {path})")]
    Plugin {
        call: &'static str,
        code: Code,
        message: String,
        path: PathBuf,
    },
    #[error(
        "no {platform} plugin found (looked at {looked}); run `simclr plugins install {install}`, or set {variable} to a plugin file"
    )]
    NotFound {
        platform: String,
        looked: String,
        install: &'static str,
        variable: &'static str,
    },
    #[error(
        "the CUDA plugin {path} finds no assembler (ptxas) beside it and compiles nothing; run `simclr plugins install cuda13`, or install nvidia-cuda-nvcc into the same Python"
    )]
    NoAssembler { path: PathBuf },
    #[error(
        "the devices of plugin {path} are in use: {message}; end the process that has them, which `simclr doctor` names: a second one cannot use them"
    )]
    InUse { path: PathBuf, message: String },
    #[error(
        "plugin {path} does not take an option of `runtime.compiler_options`: {message}; correct it or leave it out"
    )]
    Option { path: PathBuf, message: String },
    #[error("{0}")]
    Misuse(String),
    #[error(
        "cannot {what} {path}: {source}; free space or allow writing there, or set XDG_CACHE_HOME to another folder"
    )]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "the {package} plugin could not be fetched: {reason}; with network access run `simclr plugins install {package}`, or copy the plugin file to this machine and set {variable} to it"
    )]
    Fetch {
        package: &'static str,
        reason: String,
        variable: &'static str,
    },
    #[error(
        "{file} has SHA-256 {found}, and {expected} was expected; it was not installed: delete it and try again"
    )]
    Hash {
        file: PathBuf,
        found: String,
        expected: String,
    },
}

impl Error {
    /// The same, with a remedy where somebody else has the devices.
    pub(super) fn of_client(self) -> Self {
        match self {
            Error::Plugin { message, path, .. }
                if message.contains("resource busy")
                    // A port in use is no chip in use.
                    || message.contains("already in use") && !message.contains("ddress already") =>
            {
                Error::InUse { path, message }
            }
            other => other,
        }
    }

    /// The same, in words of ours where a compiler's are of no help.
    pub(super) fn of_compiler(self) -> Self {
        match self {
            Error::Plugin { message, path, .. }
                if message.contains("No PTX compilation provider") =>
            {
                Error::NoAssembler { path }
            }
            Error::Plugin { message, path, .. } if message.contains("No such compile option") => {
                Error::Option { path, message }
            }
            other => other,
        }
    }

    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Plugin { .. } | Error::Misuse(_) => Class::Failed,
            Error::Option { .. } => Class::Usage,
            _ => Class::Environment,
        }
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_no_chip_in_use() {
        let of = |message: &str| {
            let (code, path) = (Code(14), "libtpu.so".into());
            let (call, message) = ("PJRT_Client_Create", message.into());
            let error = Error::Plugin {
                call,
                code,
                message,
                path,
            };
            matches!(error.of_client(), Error::InUse { .. })
        };
        assert!(of("The TPU is already in use by process with pid 4711."));
        assert!(!of("bind: Address already in use"));
    }

    #[test]
    fn a_missing_assembler_has_a_remedy() {
        let refusal = |message: &str| Error::Plugin {
            call: "PJRT_Compile",
            code: Code(14),
            message: message.into(),
            path: "xla_cuda_plugin.so".into(),
        };
        let told = refusal("No PTX compilation provider is available. Neither ptxas/nvlink nor");
        let told = told.of_compiler();
        assert!(
            told.to_string().contains("plugins install cuda13"),
            "{told}"
        );
        assert_eq!(told.class(), Class::Environment);
        let other = refusal("something else").of_compiler().to_string();
        assert!(other.contains("UNAVAILABLE: something else"), "{other}");
    }
}
