//! Rewrites for a target, applied after differentiation, so that a model is written once.
//!
//! A pass is a function from module to module with a name by which `runtime.disable_passes` switches it off. No pass changes a
//! result beyond rounding. `docs/benchmarks.md` has their figures among the levers; it has none yet of
//! `pointwise-convolutions`, `tiny-maps` and `sums-of-squares`.

mod canonical_convolutions;
mod column_sums;
mod kept_operands;
mod kernel_gradients;
mod pointwise_convolutions;
mod sums_of_squares;
mod tiny_maps;

use super::graph::Error;
use super::module::Module;

/// One rewrite.
#[derive(Clone, Copy)]
pub struct Pass {
    /// The name in `runtime.disable_passes`.
    pub name: &'static str,
    /// The platform it is for.
    pub platform: &'static str,
    /// What it does and why, in one line.
    pub about: &'static str,
    /// The rewrite.
    pub run: fn(&Module) -> Result<Module, Error>,
}

/// Every pass of every platform, in the order in which they run.
pub const ALL: &[Pass] = &[
    Pass {
        name: "pointwise-convolutions",
        platform: "cpu",
        about: "1×1 convolutions, forward and backward, become matrix products",
        run: pointwise_convolutions::run,
    },
    Pass {
        name: "kernel-gradients",
        platform: "cpu",
        about: "gradients of narrow kernels become one matrix product of shifted copies: the plugin transposes both operands, and packs the image for every tap",
        run: kernel_gradients::run,
    },
    Pass {
        name: "canonical-convolutions",
        platform: "cpu",
        about: "convolutions get NHWC × HWIO operands by explicit transposes: the plugin does so itself only outside loops, and is twenty times slower without",
        run: canonical_convolutions::run,
    },
    Pass {
        name: "tiny-maps",
        platform: "cpu",
        about: "convolutions over maps smaller than their window become matrix products: the plugin has only scalar code for them",
        run: tiny_maps::run,
    },
    Pass {
        name: "column-sums",
        platform: "cpu",
        about: "sums of gradients over all dimensions but the last are folded first: the plugin sums column by column through the whole array",
        run: column_sums::run,
    },
    Pass {
        name: "kept-operands",
        platform: "cpu",
        about: "what convolutions and products read is computed once and kept: the plugin computes it again in every transposition",
        run: kept_operands::run,
    },
    Pass {
        name: "sums-of-squares",
        platform: "cpu",
        about: "sums of all squares of large arrays become matrix products, which need no kernels compiled for their shape",
        run: sums_of_squares::run,
    },
];

/// The passes for a platform by its PJRT name (`cpu`, `cuda`, `tpu`), in order.
pub fn for_platform(platform: &str) -> Vec<Pass> {
    ALL.iter()
        .filter(|pass| pass.platform == platform)
        .copied()
        .collect()
}
