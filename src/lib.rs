//! SimCLR pretraining as a compiler frontend.
//!
//! The modules, in the order in which a batch meets them:
//!
//! | module | what it does | may use |
//! |---|---|---|
//! | [`cli`] | the commands; the only module that prints results and exits | everything |
//! | [`cluster`] | the machines of a run: slices, hosts | – |
//! | [`config`] | YAML and `key=value` to one plain, resolved configuration | – |
//! | [`data`] | records, decoding, the order of examples, streams of crops | the host's part of `augment` |
//! | [`augment`] | the views of an image, as HLO | `hlo` |
//! | [`nn`], [`model`] | layers and networks, as HLO | `hlo`, `grad` |
//! | [`loss`] | NT-Xent and cross-entropy, as HLO | `hlo`, `grad` |
//! | [`grad`] | reverse-mode differentiation of a graph | `hlo` |
//! | [`optim`] | LARS, momentum, Adam, schedules, as HLO | `hlo` |
//! | [`hlo`] | the graph, shape inference, target passes, lowering to a module | – |
//! | [`pjrt`] | the PJRT C API: plugins, clients, buffers, launches | – |
//! | [`loops`] | loops of ours that CPU programs call | `pjrt`, names from `hlo` |
//! | [`engine`] | where a module of `hlo` meets a client of `pjrt` | `hlo`, `pjrt`, `loops` |
//! | [`train`] | the training step, its loop, checkpoints | all above |
//! | [`eval`] | k-NN and linear probe on frozen features | all above |
//! | [`interop`] | other programs' checkpoints, in and out | all above |
//! | [`report`] | metrics, TensorBoard events, progress, pictures | – |

pub mod augment;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod data;
pub mod engine;
pub mod error;
pub mod eval;
pub mod grad;
pub mod hlo;
pub mod interop;
pub mod loops;
pub mod loss;
pub mod model;
pub mod nn;
pub mod optim;
pub mod pjrt;
pub mod places;
pub mod random;
pub mod report;
pub mod train;
mod words;

/// Message types generated from `proto/` at build time.
#[allow(missing_docs)]
pub mod proto {
    /// Our minimal copy of XLA's HLO module messages.
    pub mod hlo {
        include!(concat!(env!("OUT_DIR"), "/simclr.hlo.rs"));
    }
    /// Our minimal copy of the messages in TensorFlow's checkpoints.
    pub mod tensor_bundle {
        include!(concat!(env!("OUT_DIR"), "/simclr.tensor_bundle.rs"));
    }
    /// Our minimal copy of the messages of a record with a picture.
    pub mod example {
        include!(concat!(env!("OUT_DIR"), "/simclr.example.rs"));
    }
    /// Our minimal copy of XLA's compile options.
    pub mod compile {
        include!(concat!(env!("OUT_DIR"), "/simclr.compile.rs"));
    }
    /// Our minimal copy of the messages of XLA's profiles.
    pub mod xplane {
        include!(concat!(env!("OUT_DIR"), "/simclr.xplane.rs"));
    }
}
