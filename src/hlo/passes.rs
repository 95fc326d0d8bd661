//! Rewrites for a target, applied after differentiation, so that a model is written once.
//!
//! A pass is a function from module to module with a name by which `runtime.disable_passes` switches it off. No pass changes a
//! result beyond rounding.

use super::graph::Error;
use super::module::Module;

/// One rewrite.
#[derive(Clone, Copy)]
pub struct Pass {
    /// The name in `runtime.disable_passes`.
    pub name: &'static str,
    /// What it does and why, in one line.
    pub about: &'static str,
    /// The rewrite.
    pub run: fn(&Module) -> Result<Module, Error>,
}

/// Every pass of every platform.
pub const ALL: &[Pass] = &[];

/// The passes for a platform by its PJRT name (`cpu`, `cuda`, `tpu`), in order.
pub fn for_platform(platform: &str) -> Vec<Pass> {
    match platform {
        "cpu" => ALL.to_vec(),
        _ => Vec::new(),
    }
}
