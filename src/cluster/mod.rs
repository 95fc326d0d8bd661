//! The machines of a run: which slices there are.
//!
//! | file | what it does |
//! |---|---|
//! | [`slice`] | names of TPU slices, and what their chips are |
//!
//! Invariant: nothing here knows of graphs or plugins.

pub mod slice;

use crate::error::Class;

/// What can go wrong with machines.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("topology `{found}` is unknown; expected {expected}; did you mean `{nearest}`?")]
    UnknownSlice {
        found: String,
        expected: String,
        nearest: String,
    },
    #[error("target `{found}` is unknown; expected cpu, or a TPU slice by --topology")]
    UnknownTarget { found: String },
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::UnknownSlice { .. } | Error::UnknownTarget { .. } => Class::Usage,
        }
    }
}
