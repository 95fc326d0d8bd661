//! The training step, its loop, checkpoints, the run folder, signals.
//!
//! | file | what it does |
//! |---|---|
//! | [`setup`] | from a configuration and data to the step's choices |
//! | [`step`] | the step as one module |
//! | `launch` | the program with its state and data on the devices |
//! | [`pretrain`] | the loop |
//! | [`evaluate`] | features of a split, and what they are worth |
//! | [`classify`] | what a supervised head is worth on a split |
//! | [`judge`] | both, of a trained network |
//! | [`follow`] | that of each checkpoint as it appears, and the original's files of results |
//! | `evaluation` | that before and after a run, and the summary |
//! | `start` | what a new run begins with: initial values, another run's weights |
//! | [`inference`] | a network in evaluation mode: features and logits |
//! | `input_watch` | whether the devices wait for examples, and why |
//! | `measure` | times of the first steps, for `simclr bench` |
//! | [`ahead`], [`forecast`] | the step compiled for devices that are not there, and what the compiler says of it |
//! | `given` | the step without data and augmentation, for comparisons |
//! | `profile` | where a step's time goes, for `simclr bench --profile` |
//! | `resume` | where a run goes on |
//! | [`state`] | the arrays of a run on devices, in checkpoints, and at the start |
//! | [`checkpoint`] | checkpoints on disk |
//! | [`trained`] | opening a run or a checkpoint for what comes after it |
//! | [`run_dir`] | the run folder |
//! | `stage`, `writer` | the near side of one in a bucket, and who writes there |
//! | [`views`] | pictures of views |
//! | [`signals`] | requests to stop |

pub mod ahead;
pub mod checkpoint;
pub mod classify;
pub mod evaluate;
mod evaluation;
pub mod follow;
pub mod forecast;
mod given;
pub mod inference;
mod input_watch;
pub mod judge;
mod launch;
mod measure;
pub mod objective;
pub mod pretrain;
pub mod processes;
mod profile;
mod resume;
pub mod run_dir;
pub mod setup;
pub mod signals;
mod stage;
mod start;
pub mod state;
pub mod step;
pub mod trained;
pub mod views;
mod writer;

pub use given::dump;
pub use measure::{Measured, Traced, measure};
pub use profile::{Profile, Row, profile, traced};

use crate::error::Class;
use crate::{config, data, engine, report};

/// What to do about images without classes.
const OTHER_SET: &str = "name a set that has classes with dataset and data_dir";

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Data(#[from] data::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Step(#[from] step::Error),
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    #[error(transparent)]
    Trained(#[from] trained::Error),
    #[error(transparent)]
    RunDir(#[from] run_dir::Error),
    #[error(transparent)]
    Report(#[from] report::Error),
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    #[error(
        "this process has replicas {replicas:?} of {all}; expected that all processes have equally many devices, for equal parts of each step"
    )]
    Uneven { replicas: Vec<usize>, all: usize },
    #[error(
        "images of data set `{name}` have many sizes, expected images of one size, to measure raw pixels; set runtime.eval_pixels=false"
    )]
    NotInMemory { name: String },
    #[error("`teacher` `{}` {found}, expected {expected}", path.display())]
    Teacher {
        path: std::path::PathBuf,
        found: String,
        expected: String,
    },
    #[error("{source}; the state of step {step} is kept on this machine: go on from it with `--resume-from {}`", kept.display())]
    NotSent {
        source: Box<Error>,
        step: u64,
        kept: std::path::PathBuf,
    },
    #[error("{source}; and the state of step {step} could not be kept on this machine: {local}")]
    NotKept {
        source: Box<Error>,
        step: u64,
        local: Box<checkpoint::Error>,
    },
    #[error(
        "`{name}` has {found} classes, the network's supervised head {expected}; evaluate it on the data set it was trained on"
    )]
    Classes {
        name: String,
        found: usize,
        expected: usize,
    },
    #[error(
        "class {class} of the supervised head is `{learned}`, that of `{name}` is `{found}`, expected the classes that it was trained on; evaluate it on `{trained}`"
    )]
    OtherClasses {
        name: String,
        class: usize,
        found: String,
        learned: String,
        trained: String,
    },
    #[error("images of `{name}` have no classes {purpose}, expected two or more; {remedy}")]
    NoClasses {
        name: String,
        purpose: &'static str,
        remedy: &'static str,
    },
    #[error(
        "images of `{name}` have {height} rows and {width} columns, the network's image_size is {side}; evaluate it on images of that size"
    )]
    ImageSide {
        name: String,
        height: usize,
        width: usize,
        side: usize,
    },
    #[error(
        "`eval_split` {split} of `{name}` are the very images of `train_split` {training}, expected others; make a folder {split} in data_dir, or set eval_split={training} to evaluate on the images trained on"
    )]
    SameImages {
        name: String,
        split: String,
        training: String,
    },
    #[error(
        "{what} is not a number at step {step} (seed {seed}), expected finite numbers; lower learning_rate or raise temperature, and {again}"
    )]
    NotANumber {
        what: String,
        step: u64,
        seed: u64,
        again: String,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Config(error) => error.class(),
            Error::Data(error) => error.class(),
            Error::Engine(error) => error.class(),
            Error::Step(error) => error.class(),
            Error::Checkpoint(error) => error.class(),
            Error::Trained(error) => error.class(),
            Error::RunDir(error) => error.class(),
            Error::NotSent { source, .. } | Error::NotKept { source, .. } => source.class(),
            Error::Report(error) => error.class(),
            Error::Cluster(error) => error.class(),
            Error::Uneven { .. } => Class::Environment,
            Error::NotInMemory { .. } => Class::Usage,
            Error::Classes { .. }
            | Error::OtherClasses { .. }
            | Error::NoClasses { .. }
            | Error::Teacher { .. }
            | Error::ImageSide { .. }
            | Error::SameImages { .. } => Class::Usage,
            Error::NotANumber { .. } => Class::Failed,
        }
    }
}
