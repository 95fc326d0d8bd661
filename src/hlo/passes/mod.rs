//! Rewrites for a target, applied after differentiation, so that a model is written once.
//!
//! A pass is a function from module to module with a name by which `runtime.passes` switches it on or off. No pass changes a
//! result of finite numbers beyond rounding. `docs/benchmarks.md` has their figures among the levers.

mod canonical_convolutions;
mod column_sums;
mod kept_operands;
mod kernel_gradients;
mod own_elementwise;
mod own_loops;
mod pointwise_convolutions;
mod pool_gradients;
mod shared_values;
mod space_to_depth;
mod sums_of_squares;
mod tiny_maps;
mod winograd;

pub use own_elementwise::{Code, ELEMENTWISE_LOOP, TAKES, WORDS};
pub use own_loops::{COLUMN_SUMS_LOOP, CONVOLUTION_LOOP, KERNEL_GRADIENT_LOOP};
pub use winograd::{WINOGRAD_GRADIENT_LOOP, WINOGRAD_LOOP};

use super::graph::{Error, Node, Value};
use super::module::Module;
use super::op::Op;

/// Whether a reduction over `dims` sums an array of this rank by columns: over all dimensions but the last.
fn by_columns(rank: usize, dims: &[i64]) -> bool {
    (0..rank as i64 - 1).eq(dims.iter().copied())
}

/// How long such columns are.
fn column_length(x: Value) -> i64 {
    x.dims().iter().rev().skip(1).product()
}

/// Whether a value is the constant 0.
fn is_zero(value: Value) -> bool {
    matches!(&value.node().op, Op::Constant(literal) if literal.to_f64s() == [0.0])
}

/// Whether differentiation made the node.
fn is_gradient(node: &Node) -> bool {
    node.scope.split('/').next() == Some("gradient")
}

/// One rewrite.
#[derive(Clone, Copy)]
pub struct Pass {
    /// The name in `runtime.passes`.
    pub name: &'static str,
    /// The platform it is for.
    pub platform: &'static str,
    /// What it does and why, in one line.
    pub about: &'static str,
    /// Whether its programs call loops of ours ([`crate::loops`]), which an engine must have made known to its plugin.
    pub loops: bool,
    /// The rewrite.
    pub run: fn(&Module) -> Result<Module, Error>,
}

/// Every pass of every platform, in the order in which they run.
///
/// Where loops of ours can be called, they take what convolutions in f32 they know: the passes for convolutions below find what is left.
pub const ALL: &[Pass] = &[
    Pass {
        name: "winograd",
        platform: "cpu",
        about: "3×3 convolutions in f32 of enough channels, and their gradients, become calls of this program's own loops that take 16 instead of 36 products for every 4 outputs",
        loops: true,
        run: winograd::run,
    },
    Pass {
        name: "own-loops",
        platform: "cpu",
        about: "convolutions, their gradients, large products and batch statistics in f32 become calls of this program's own loops: the plugin packs what it multiplies, transposes both operands of a kernel's gradient, and sums column by column",
        loops: true,
        run: own_loops::run,
    },
    Pass {
        name: "own-elementwise",
        platform: "cpu",
        about: "elementwise operations in f32 and sums of gradients by columns become calls of a loop of this program's own: the plugin compiles a kernel for each, which is most of the time to the first step",
        loops: true,
        run: own_elementwise::run,
    },
    Pass {
        name: "pointwise-convolutions",
        platform: "cpu",
        about: "1×1 convolutions, forward and backward, become matrix products",
        loops: false,
        run: pointwise_convolutions::run,
    },
    Pass {
        name: "kernel-gradients",
        platform: "cpu",
        about: "gradients of narrow kernels become one matrix product of shifted copies: the plugin transposes both operands, and packs the image for every tap",
        loops: false,
        run: kernel_gradients::run,
    },
    Pass {
        name: "canonical-convolutions",
        platform: "cpu",
        about: "convolutions get NHWC × HWIO operands by explicit transposes: the plugin does so itself only outside loops, and is twenty times slower without",
        loops: false,
        run: canonical_convolutions::run,
    },
    Pass {
        name: "tiny-maps",
        platform: "cpu",
        about: "convolutions over maps smaller than their window become matrix products: the plugin has only scalar code for them",
        loops: false,
        run: tiny_maps::run,
    },
    Pass {
        name: "column-sums",
        platform: "cpu",
        about: "sums of gradients, and long ones of activations, over all dimensions but the last are folded first: the plugin sums column by column through the whole array",
        loops: false,
        run: column_sums::run,
    },
    Pass {
        name: "kept-operands",
        platform: "cpu",
        about: "what convolutions and products read is computed once and kept: the plugin computes it again in every transposition",
        loops: false,
        run: kept_operands::run,
    },
    Pass {
        name: "sums-of-squares",
        platform: "cpu",
        about: "sums of all squares of large arrays become matrix products, which need no kernels compiled for their shape",
        loops: false,
        run: sums_of_squares::run,
    },
    Pass {
        name: "shared-values",
        platform: "cpu",
        about: "equal values of cheap operations are computed once",
        loops: false,
        run: shared_values::run,
    },
    Pass {
        name: "space-to-depth",
        platform: "cuda",
        about: "strided convolutions over up to four channels, and the gradients of their kernels, become ones at stride 1 over cells of pixels: matrix units take channels by eight or sixteen",
        loops: false,
        run: space_to_depth::run,
    },
    Pass {
        name: "pool-gradients",
        platform: "cuda",
        about: "gradients of max-pooling look up which cell each window chose: the plugin scatters by atomic additions",
        loops: false,
        run: pool_gradients::run,
    },
];

/// What `runtime.passes` says to go without calls of loops of ours.
pub const WITHOUT_LOOPS: &str = "[-winograd,-own-loops,-own-elementwise]";

/// Which passes run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// Every one of the platform.
    #[default]
    All,
    /// These; none of an empty list.
    Only(Vec<String>),
    /// Every one but these.
    Without(Vec<String>),
}

impl Selection {
    /// Reads `runtime.passes`: `all`, `none`, names of those that run, or names of those that do not, each behind a minus. Nothing if it is
    /// none of these, or there is no pass of a name.
    pub fn parse(words: &[String]) -> Option<Self> {
        let known = |name: &str| ALL.iter().any(|pass| pass.name == name);
        match words {
            [] => None,
            [word] if word == "all" => Some(Selection::All),
            [word] if word == "none" => Some(Selection::Only(Vec::new())),
            _ if words.iter().all(|word| known(word)) => Some(Selection::Only(words.to_vec())),
            _ => words
                .iter()
                .map(|word| {
                    word.strip_prefix('-')
                        .filter(|name| known(name))
                        .map(String::from)
                })
                .collect::<Option<_>>()
                .map(Selection::Without),
        }
    }

    /// Every pass but those whose programs call loops of ours: [`WITHOUT_LOOPS`].
    pub fn without_loops() -> Self {
        let calling = ALL.iter().filter(|pass| pass.loops);
        Selection::Without(calling.map(|pass| pass.name.into()).collect())
    }

    /// What [`Selection::parse`] reads, in words.
    pub fn expected() -> String {
        let of = |platform: &str| {
            let names = ALL.iter().filter(|pass| pass.platform == platform);
            names.map(|pass| pass.name).collect::<Vec<_>>().join(", ")
        };
        format!(
            "all, none, those to run among {} (cpu) and {} (cuda), or those to leave out, each behind a minus",
            of("cpu"),
            of("cuda")
        )
    }

    /// Those of the passes to run that are another platform's, which do nothing on this one.
    fn elsewhere(&self, platform: &str) -> Vec<&str> {
        let Selection::Only(names) = self else {
            return Vec::new();
        };
        let here = |name: &&str| {
            ALL.iter()
                .any(|pass| pass.platform == platform && pass.name == *name)
        };
        let names = names.iter().map(String::as_str);
        names.filter(|name| !here(name)).collect()
    }

    fn takes(&self, pass: &Pass) -> bool {
        let named = |names: &[String]| names.iter().any(|one| one == pass.name);
        match self {
            Selection::All => true,
            Selection::Only(names) => named(names),
            Selection::Without(names) => !named(names),
        }
    }
}

/// The selected passes for a platform by its PJRT name (`cpu`, `cuda`, `tpu`), in order. Those that are named and another platform's are told
/// in the log.
pub fn for_platform(platform: &str, selection: &Selection) -> Vec<Pass> {
    let elsewhere = selection.elsewhere(platform).join(", ");
    if !elsewhere.is_empty() {
        tracing::warn!(
            "runtime.passes names what is no pass for {platform} and does nothing there: {elsewhere}; leave it out"
        );
    }
    ALL.iter()
        .filter(|pass| pass.platform == platform && selection.takes(pass))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_selected_by_name() {
        let count = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            Selection::parse(&words).map(|chosen| {
                let names: Vec<&str> = for_platform("cpu", &chosen)
                    .iter()
                    .map(|p| p.name)
                    .collect();
                names
            })
        };
        let all = count(&["all"]).unwrap();
        assert_eq!(
            all.len(),
            ALL.iter().filter(|p| p.platform == "cpu").count()
        );
        assert_eq!(count(&["none"]), Some(Vec::new()));
        // In the order in which they run, whatever the order of the words.
        let two = ["tiny-maps", "kernel-gradients"];
        assert_eq!(count(&two), Some(vec!["kernel-gradients", "tiny-maps"]));
        let rest: Vec<&str> = all
            .iter()
            .copied()
            .filter(|name| !two.contains(name))
            .collect();
        assert_eq!(count(&["-tiny-maps", "-kernel-gradients"]), Some(rest));
        for wrong in [
            &[][..],
            &["typo"],
            &["-typo"],
            &["none", "tiny-maps"],
            &["all", "tiny-maps"],
            &["-tiny-maps", "kernel-gradients"],
        ] {
            assert_eq!(count(wrong), None, "{wrong:?}");
        }
        assert!(for_platform("tpu", &Selection::All).is_empty());
        // Those of another platform do nothing here, and are told of where they were asked for.
        let some = Selection::Only(vec!["tiny-maps".into(), "space-to-depth".into()]);
        assert_eq!(some.elsewhere("cpu"), ["space-to-depth"]);
        let (here, there) = (for_platform("cpu", &some), for_platform("cuda", &some));
        assert_eq!([here.len(), there.len()], [1, 1]);
        assert_eq!(for_platform("cuda", &Selection::All).len(), 2);
        assert!(Selection::All.elsewhere("cuda").is_empty());
        let rest = for_platform("cuda", &Selection::Without(vec!["space-to-depth".into()]));
        let names: Vec<&str> = rest.iter().map(|pass| pass.name).collect();
        assert_eq!(names, ["pool-gradients"]);
        let words = WITHOUT_LOOPS.trim_matches(['[', ']']).split(',');
        let words: Vec<String> = words.map(String::from).collect();
        assert_eq!(Selection::parse(&words), Some(Selection::without_loops()));
    }
}
