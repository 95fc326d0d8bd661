//! Other programs' formats: what comes in from the original's checkpoints, and what goes out to everybody else's tools.
//!
//! | file | what it does |
//! |---|---|
//! | [`tensor_bundle`] | TensorFlow's checkpoint files, read and written |
//! | [`names`] | our names of variables, and those of others |
//! | `object_graph` | which variable has which key in TF2 checkpoints |
//! | [`import`] | the original's checkpoints as ours |
//! | [`export`] | trained networks for other programs |
//! | `folder` | new folders, whole or not there |
//! | [`inspect`] | what any of the files this program meets holds |

mod error;
pub mod export;
mod folder;
pub mod import;
pub mod inspect;
pub mod names;
mod object_graph;
pub mod tensor_bundle;

pub use error::Error;
