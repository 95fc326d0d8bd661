//! (module train)
pub mod checkpoint;
pub mod run_dir;
pub mod signals;
pub mod step;
