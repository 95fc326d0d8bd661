//! Calls of what a plugin has inside for itself, such as the CPU plugin's oneDNN. No interface promises them, and a wrong one ends the
//! process. So they are made with the one plugin for which they were written, after a test in a process of its own whose outcome is
//! kept; without them a step is slower and nothing else.

use super::cache::surroundings;
use super::saved::{file_hash, hex};
use super::{Engine, Error, prepare, sealed};
use crate::hlo::passes::{ALL, Pass, Selection};
use crate::hlo::{self, Conv, DType, DotDims, Graph, Literal, Module, Shape, Value, WindowDim};
use crate::pjrt::{Client, Plugin};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// SHA-256 of the plugin's file: that of `xla-cpu-pjrt` 0.0.1 for x86-64.
const PLUGIN: &str = "88c3f28c5900f48ad4a82cab9e79bba9537809743395e341485f8794268820dc";
/// Head of a kept outcome, before the SHA-256 of the rest.
const MAGIC: &[u8] = b"simclr self-test 1\n";
/// How the reason of a test that was not passed begins.
const FAILED: &str = "the test of such calls failed";
/// The kept outcome of a test that was passed; others are their reason.
const WORKS: &[u8] = b"works";

/// Tests a plugin with [`self_test`], in another process.
pub type Test = fn(&Path) -> Result<(), NotPassed>;

/// Why a test was not passed.
#[derive(Debug, Clone)]
pub struct NotPassed {
    /// In words.
    pub reason: String,
    /// Whether it is the plugin's doing, and would be so again: not where somebody ended the test, or it could not be started.
    pub lasting: bool,
}

/// Whether the calls work with an engine's plugin, found out when a program first wants one.
pub(super) struct Internal {
    test: Test,
    /// Where outcomes are kept.
    folder: Option<PathBuf>,
    works: OnceLock<bool>,
}

impl Internal {
    pub(super) fn new(test: Test, folder: Option<PathBuf>) -> Self {
        Internal {
            test,
            folder,
            works: OnceLock::new(),
        }
    }

    pub(super) fn works(&self, plugin: &Path) -> bool {
        *self.works.get_or_init(|| match self.outcome(plugin) {
            Ok(()) => true,
            Err(reason) => {
                tracing::warn!(
                    "convolutions and products do not call the plugin's oneDNN, and steps take longer: {reason}"
                );
                false
            }
        })
    }

    /// The file in which the outcome for a plugin is kept; none where nothing is kept.
    fn file(&self, plugin: &Path) -> Option<PathBuf> {
        let (calls, _) = prepare(&test_module().ok()?, &internal_passes()).ok()?;
        let mut hash = Sha256::new();
        hash.update(surroundings(plugin)?);
        hash.update(PLUGIN);
        hash.update(calls.to_proto_bytes());
        let name = format!("{:.32}.self-test", hex(&hash.finalize()));
        Some(self.folder.as_ref()?.join(name))
    }

    fn outcome(&self, plugin: &Path) -> Result<(), String> {
        let kept = self.file(plugin);
        if let Some(path) = &kept
            && let Ok(bytes) = sealed::read(path, MAGIC)
        {
            return match &bytes[..] {
                WORKS => Ok(()),
                reason => {
                    let reason = String::from_utf8_lossy(reason);
                    Err(match reason.starts_with(FAILED) {
                        true => format!("{reason}; delete {} to test again", path.display()),
                        false => reason.into_owned(),
                    })
                }
            };
        }
        let mut lasting = true;
        let outcome = match file_hash(plugin) {
            Ok(found) if found == PLUGIN => (self.test)(plugin).map_err(|not_passed| {
                lasting = not_passed.lasting;
                format!("{FAILED}: {}", not_passed.reason)
            }),
            Ok(_) => Err(format!(
                "`{}` is not the plugin for which such calls were written; runtime.passes=[-onednn-calls] leaves this line out",
                plugin.display()
            )),
            Err(error) => {
                lasting = false;
                Err(format!("cannot read `{}`: {error}", plugin.display()))
            }
        };
        if let Some(path) = kept.filter(|_| lasting) {
            let bytes = outcome
                .as_ref()
                .map_or_else(|reason| reason.as_bytes(), |()| WORKS);
            let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
            if let Err(error) = folder.and_then(|()| sealed::write(&path, MAGIC, bytes)) {
                tracing::debug!("cannot keep `{}`: {error}", path.display());
            }
        }
        outcome
    }
}

/// Runs convolutions and products in a loop, as a training step has them, as calls and as the plugin's own. The process may not survive it.
///
/// # Errors
/// If the calls are refused, or compute something else.
pub fn self_test(plugin: &Path) -> Result<(), Error> {
    let client = Client::cpu(&Plugin::load(plugin)?, 1)?;
    let engine = Engine::new(client, &Selection::Only(Vec::new()));
    let module = test_module()?;
    let (calls, _) = prepare(&module, &internal_passes())?;
    let arguments: Vec<Literal> = module
        .parameters()
        .iter()
        .map(|(_, shape)| {
            let value = |i: usize| ((i * 7919) % 1009) as f64 / 504.5 - 1.0;
            let values: Vec<f64> = (0..shape.elements()).map(value).collect();
            Literal::from_f64s(shape.dtype, &shape.dims, &values)
        })
        .collect();
    let run = |module: &Module| {
        engine
            .compile(module)?
            .run(&engine, std::slice::from_ref(&arguments))
    };
    let (own, called) = (run(&module)?, run(&calls)?);
    let norm = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    for (index, (own, called)) in own[0].iter().zip(&called[0]).enumerate() {
        let (own, called) = (own.to_f64s(), called.to_f64s());
        let difference: Vec<f64> = own.iter().zip(&called).map(|(a, b)| a - b).collect();
        let apart = norm(&difference) / norm(&own);
        if apart.is_nan() || apart > 1e-5 {
            return Err(Error::CallsDiffer { index, apart });
        }
    }
    Ok(())
}

fn internal_passes() -> Vec<Pass> {
    ALL.iter().filter(|pass| pass.internal).copied().collect()
}

/// Convolutions of the kinds that networks have, with stride, an uneven border, odd numbers of channels; and products of either operand
/// transposed or not.
fn test_module() -> Result<Module, hlo::Error> {
    // As many as make the program large enough for the pass.
    const IMAGES: i64 = 48;
    let graph = Graph::new();
    let window = |size, stride, low, high| vec![WindowDim::new(size, stride, low, high); 2];
    let conv = |inputs, outputs, window: Vec<WindowDim>| {
        let size = window[0].size;
        Kind {
            operands: [
                vec![IMAGES, 16, 16, inputs],
                vec![size, size, inputs, outputs],
            ],
            apply: Apply::Convolution(Conv::nhwc(window)),
        }
    };
    let product = |over: [i64; 2]| {
        let of = |summed: i64, other: i64, over: i64| match over {
            0 => vec![summed, other],
            _ => vec![other, summed],
        };
        Kind {
            operands: [of(1000, 70, over[0]), of(1000, 90, over[1])],
            apply: Apply::Product(DotDims {
                lhs_contracting: vec![over[0]],
                rhs_contracting: vec![over[1]],
                ..DotDims::default()
            }),
        }
    };
    let kinds = [
        conv(3, 16, window(3, 1, 1, 1)),
        conv(3, 64, window(7, 2, 3, 3)),
        conv(64, 64, window(3, 1, 1, 1)),
        conv(64, 96, window(3, 2, 0, 1)),
        conv(64, 40, window(1, 1, 0, 0)),
        product([0, 0]),
        product([0, 1]),
        product([1, 0]),
        product([1, 1]),
    ];
    let mut init = vec![graph.scalar(0i32)];
    for (i, kind) in kinds.iter().enumerate() {
        for (name, dims) in ["left", "right"].iter().zip(&kind.operands) {
            let shape = Shape::new(DType::F32, dims.clone());
            init.push(graph.parameter(format!("{name}{i}"), shape));
        }
    }
    let count = kinds.len();
    for (i, kind) in kinds.iter().enumerate() {
        let result = kind.of(init[1 + 2 * i], init[2 + 2 * i]).shape();
        init.push(graph.zeros(&result));
    }
    let result = graph.while_loop(
        &init,
        |_, state| state[0].lt(2.0),
        |_, state| {
            let mut next = state[..=2 * count].to_vec();
            next[0] = state[0] + 1.0;
            for (i, kind) in kinds.iter().enumerate() {
                let (left, right) = (state[1 + 2 * i], state[2 + 2 * i]);
                // What never changes would be computed before the loop.
                next[1 + 2 * i] = left * 0.5;
                next.push(kind.of(left, right) + state[1 + 2 * count + i]);
            }
            next
        },
    );
    graph.finish("self_test", &result[1 + 2 * count..])
}

/// One call of the test.
struct Kind {
    operands: [Vec<i64>; 2],
    apply: Apply,
}

enum Apply {
    Convolution(Conv),
    Product(DotDims),
}

impl Kind {
    fn of<'g>(&self, left: Value<'g>, right: Value<'g>) -> Value<'g> {
        match &self.apply {
            Apply::Convolution(conv) => left.convolve(right, conv.clone()),
            Apply::Product(dims) => left.dot_general(right, dims.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlo::Op;

    /// A pass that found nothing would agree with everything.
    #[test]
    fn the_test_makes_calls_of_all_that_it_has() {
        let module = test_module().unwrap();
        let passes: Vec<_> = ALL.iter().filter(|pass| pass.internal).collect();
        let (calls, _) = prepare(&module, passes.iter().copied()).unwrap();
        let count = |module: &Module, of: fn(&Op) -> bool| {
            let body = module.entry.nodes.iter().find_map(|node| match &node.op {
                Op::While { body, .. } => Some(body),
                _ => None,
            });
            let nodes = body.unwrap().nodes.iter();
            nodes.filter(|node| of(&node.op)).count()
        };
        let own = |op: &Op| matches!(op, Op::Convolution(_) | Op::Dot(_));
        assert_eq!((count(&module, own), count(&calls, own)), (9, 0));
        assert_eq!(count(&calls, |op| matches!(op, Op::CustomCall { .. })), 9);
    }
}
