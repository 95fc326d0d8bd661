//! Configuration: YAML and `key=value` to one plain, checked struct. Keys are the original's flag names (reference §1), with a
//! `runtime` section and a few keys of ours.
//!
//! Invariant: plain data, no input or output but reading the file, nothing known of devices or graphs.

mod load;
mod plan;
pub mod schema;
mod typed;
mod value;

pub use load::{Loaded, load, load_text};
pub use plan::Plan;
pub use typed::{Behaviour, Config, Distill, Mode, Runtime, Scaling};
pub use value::Value;

use crate::error::Class;
use std::fmt;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used. Each names the key, the place, and a remedy.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("configuration `{}` cannot be read: {source}; give the path of a YAML file", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("configuration `{}` holds {found}, expected {expected}", path.display())]
    NotText {
        path: PathBuf,
        found: String,
        expected: &'static str,
    },
    #[error("configuration `{}` is not valid YAML: {reason}; correct it there", path.display())]
    NotYaml { path: PathBuf, reason: String },
    #[error(
        "{origin}: `{key}` is given in line {before} too, expected it once; keep one of the two lines"
    )]
    Twice {
        key: &'static str,
        origin: Origin,
        before: u64,
    },
    #[error("{origin}: unknown key `{key}`; {}", hint(.nearest))]
    UnknownKey {
        key: String,
        origin: Origin,
        nearest: Option<&'static str>,
    },
    #[error("{origin}: unknown section `{section}`; {}", hint(.nearest))]
    UnknownSection {
        section: String,
        origin: Origin,
        nearest: Option<&'static str>,
    },
    #[error("{origin}: `{key}` is {found}, expected {expected}")]
    WrongType {
        key: &'static str,
        origin: Origin,
        found: String,
        expected: String,
    },
    #[error("{origin}: `{key}` is {found}, expected {expected}")]
    BadValue {
        key: &'static str,
        origin: Origin,
        found: String,
        expected: String,
    },
    #[error("{origin}: `{key}: {found}` is not taken; {remedy}")]
    NotTaken {
        key: &'static str,
        origin: Origin,
        found: String,
        remedy: &'static str,
    },
    #[error("`{argument}` is no override; {}", write_instead(argument))]
    NotAnOverride { argument: String },
}

impl Error {
    /// The user changes the configuration.
    pub fn class(&self) -> Class {
        Class::Usage
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The table of keys.
    Default,
    /// A line of a file.
    File(PathBuf, u64),
    /// An argument.
    Argument,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Argument => f.write_str("command line"),
        }
    }
}

/// What to write in place of a word that is no override.
fn write_instead(argument: &str) -> String {
    let file = Path::new(argument);
    let yaml = file
        .extension()
        .is_some_and(|name| name == "yaml" || name == "yml");
    match yaml || file.is_file() {
        true => format!(
            "a configuration file is given with --config {argument}, where a command takes one"
        ),
        false => "write key=value, such as temperature=0.5".into(),
    }
}

fn hint(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "expected one of those that `simclr config --keys` lists".into(),
    }
}
