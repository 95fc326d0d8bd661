//! Whether programs of a plugin compute with loops of our own what they compute without them.
//!
//! The pinned plugin is what the tests of this program run. Of any other nobody knows whether it gives the loops what they expect, so that a
//! small program is run both ways before a step is.

use super::{Engine, Error, RunModule};
use crate::grad::gradients;
use crate::hlo::passes::{self, Pass, Selection};
use crate::hlo::{Conv, DType, Graph, Literal, Module, Shape, WindowDim};
use crate::pjrt::{Client, Package};
use crate::random::threefry2x32;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// What was found of a plugin, by its file.
static FOUND: Mutex<Vec<(PathBuf, Result<(), String>)>> = Mutex::new(Vec::new());

/// What both ways may differ by, relative to the norm of a result: rounding is a thousandth of it, a wrong result all.
const APART: f64 = 1e-2;

/// Runs the test, once for each plugin.
///
/// # Errors
/// In words, what it found.
pub(super) fn passed(client: &Client) -> Result<(), String> {
    let plugin = client.plugin();
    if Package::Cpu.is(plugin.path()) {
        return Ok(());
    }
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, outcome)) = found.iter().find(|(path, _)| path == plugin.path()) {
        return outcome.clone();
    }
    let outcome = agree(client).map_err(|reason| {
        let plugin = plugin.path().display();
        format!("a test of calls of this program's loops by {plugin} failed: {reason}")
    });
    found.push((plugin.path().into(), outcome.clone()));
    outcome
}

fn agree(client: &Client) -> Result<(), String> {
    let module = module().map_err(|error| error.to_string())?;
    let run = |keep: &dyn Fn(&Pass) -> bool| -> Result<Vec<Literal>, Error> {
        let mut passes = passes::for_platform(client.platform_name(), &Selection::All);
        passes.retain(keep);
        let engine = Engine::with(client.clone(), passes);
        engine.run_module(&module, &arguments(&module))
    };
    let results = run(&|_| true).and_then(|found| Ok((found, run(&|pass| !pass.loops)?)));
    let (found, expected) = results.map_err(|error| error.to_string())?;
    for (found, expected) in found.iter().zip(&expected) {
        let (found, expected) = (found.to_f64s(), expected.to_f64s());
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let apart = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        let close = apart <= APART * size; // false of what is no number
        if !close {
            return Err(format!(
                "what they compute is {:.1e} of itself apart from what the plugin computes, expected at most {APART:.0e}",
                apart / size
            ));
        }
    }
    Ok(())
}

/// Convolutions, batch statistics, elementwise operations and their gradients, large enough for every loop.
fn module() -> Result<Module, crate::hlo::Error> {
    let graph = Graph::new();
    let array = |dims: &[i64]| graph.parameter("array", Shape::new(DType::F32, dims.to_vec()));
    let (images, narrow, wide) = (
        array(&[32, 16, 16, 32]),
        array(&[3, 3, 32, 64]),
        array(&[3, 3, 64, 64]),
    );
    let same = |stride| Conv::nhwc(vec![WindowDim::new(3, stride, 1, 1); 2]);
    let mut x = images;
    for (kernel, stride) in [(narrow, 1), (wide, 2)] {
        let y = x.convolve(kernel, same(stride));
        let mean = y.mean(&[0, 1, 2]).broadcast_trailing(&y.dims());
        let centred = y - mean;
        let variance = (centred * centred).mean(&[0, 1, 2]);
        let scale = (variance + 1e-5).rsqrt().broadcast_trailing(&y.dims());
        x = (centred * scale).max(0.0);
    }
    let loss = (x * x * x).sum_all();
    let mut outputs = vec![loss];
    let kernels = [narrow, wide, images];
    outputs.extend(gradients(loss, &kernels).into_iter().flatten());
    graph.finish("self_test", &outputs)
}

/// Numbers between −1 and 1.
fn arguments(module: &Module) -> Vec<Literal> {
    let parameters = module.parameters();
    let literals = parameters.iter().enumerate().map(|(i, (_, shape))| {
        let number = |j: u32| threefry2x32([i as u32, 7], [j, 0])[0] as f32 / 2_147_483_648.0 - 1.0;
        let values: Vec<f32> = (0..shape.elements() as u32).map(number).collect();
        Literal::new(&shape.dims, &values)
    });
    literals.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlo::Op;
    use crate::hlo::passes::{
        COLUMN_SUMS_LOOP, CONVOLUTION_LOOP, ELEMENTWISE_LOOP, KERNEL_GRADIENT_LOOP,
        WINOGRAD_GRADIENT_LOOP, WINOGRAD_LOOP,
    };

    #[test]
    fn every_loop_is_tested() {
        let passes = passes::for_platform("cpu", &Selection::All);
        let (rewritten, _) = super::super::prepare(&module().unwrap(), &passes).unwrap();
        let called = |name: &str| {
            let mut ops = rewritten.entry.nodes.iter().map(|node| &node.op);
            ops.any(|op| matches!(op, Op::CustomCall { target, .. } if target == name))
        };
        for name in [
            CONVOLUTION_LOOP,
            KERNEL_GRADIENT_LOOP,
            WINOGRAD_LOOP,
            WINOGRAD_GRADIENT_LOOP,
            COLUMN_SUMS_LOOP,
            ELEMENTWISE_LOOP,
        ] {
            assert!(called(name), "{name}");
        }
    }
}
