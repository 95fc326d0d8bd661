//! The machines of a run: which slices there are, which process of how many this one is, how processes find each other.
//!
//! | file | what it does |
//! |---|---|
//! | [`slice`] | names of TPU slices, and what their chips are |
//! | [`gpu`] | GPUs that can be compiled for |
//! | [`agreement`] | that all processes run the same and are there, and when all stop |
//! | [`doctor`] | what a worker needs, and what to do where it is missing |
//! | [`identity`] | which process of how many this one is |
//! | [`metadata`] | the metadata server of a Cloud TPU VM |
//! | [`store`] | a key-value service over TCP, by which processes exchange what they must agree on |
//!
//! Invariant: nothing here knows of graphs or plugins.

pub mod agreement;
pub mod doctor;
pub mod gpu;
pub mod identity;
pub mod metadata;
pub mod slice;
pub mod store;

use crate::error::Class;

/// What can go wrong with machines.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("topology `{found}` is unknown; expected {expected}{}", suggestion(.nearest))]
    UnknownSlice {
        found: String,
        expected: String,
        nearest: Option<String>,
    },
    #[error(
        "this run is of {expected} process(es), and the {platform} plugin shows devices of {found}; start the same command on every host, or use this host alone with --processes 1 and without variables that choose chips (TPU_VISIBLE_CHIPS and the like)"
    )]
    OtherProcesses {
        platform: String,
        found: usize,
        expected: usize,
    },
    #[error(
        "runtime.devices is {found} and {processes} processes have {all} devices together; expected {all} or 0, so that each takes part with all it has; --processes 1 takes this host alone"
    )]
    PartOfDevices {
        found: usize,
        all: usize,
        processes: usize,
    },
    #[error(
        "target `{found}` is unknown; expected cpu, {}, or a TPU slice by --topology",
        gpu::Gpu::targets().join(", ")
    )]
    UnknownTarget { found: String },
    #[error(
        "the metadata server at {url} cannot be asked: {reason}; where there is none, TPU_WORKER_ID and TPU_WORKER_HOSTNAMES say which worker this is, and --processes 1 takes this host alone"
    )]
    Metadata { url: String, reason: String },
    #[error(
        "{what} is `{found}`, which cannot be understood; set TPU_WORKER_ID and TPU_WORKER_HOSTNAMES to this worker's number and the list of all, or take this host alone with --processes 1"
    )]
    Garbled { what: String, found: String },
    #[error(
        "the process is {process} and the number of processes {processes}; expected both, and a process below the number of processes"
    )]
    Place { process: String, processes: String },
    #[error(
        "there are {processes} processes and nobody says where process 0 is; give its HOST:PORT"
    )]
    NoCoordinator { processes: usize },
    #[error(
        "the service of process 0 at {address} {what}: {reason}; start process 0 first, on a port that the others can reach"
    )]
    Store {
        address: String,
        what: &'static str,
        reason: String,
    },
    #[error(
        "process {process} is gone without a word: it was killed, or its machine is gone; the same command everywhere goes on from the last checkpoint"
    )]
    Lost { process: String },
    #[error(
        "process 0 is gone without a word: its service at {address} was lost ({reason}); the same command everywhere goes on from the last checkpoint"
    )]
    LostService { address: String, reason: String },
    #[error(
        "number {process} of this run is taken: by a start of it that has not been missed yet, which is over in a minute at most, or by a process that was given the same number; each process needs its own"
    )]
    Taken { process: usize },
    #[error("`{key}` was not there after {seconds} s; {waiting}")]
    TimedOut {
        key: String,
        seconds: u64,
        waiting: &'static str,
    },
    #[error(
        "process {process} has another {what} ({found}) than process 0 ({expected}); start all processes with the same program, plugin, configuration and environment"
    )]
    Disagree {
        what: String,
        process: usize,
        found: String,
        expected: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    let words = |nearest| format!("; did you mean `{nearest}`?");
    nearest.as_ref().map_or(String::new(), words)
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::UnknownSlice { .. }
            | Error::UnknownTarget { .. }
            | Error::OtherProcesses { .. }
            | Error::PartOfDevices { .. }
            | Error::Place { .. }
            | Error::NoCoordinator { .. }
            | Error::Disagree { .. } => Class::Usage,
            Error::Metadata { .. }
            | Error::Garbled { .. }
            | Error::Store { .. }
            | Error::TimedOut { .. } => Class::Environment,
            Error::Lost { .. } | Error::LostService { .. } | Error::Taken { .. } => Class::Again,
        }
    }
}
