//! A TensorFlow checkpoint that the original restores: by the names of its first generation, or by the objects of its second.

use super::Error;
use crate::interop::names::tf2_paths;
use crate::interop::object_graph::{GRAPH_KEY, Grow};
use crate::interop::tensor_bundle::{self, Tensor};
use crate::model::Network;
use crate::optim::{BETA_1, BETA_2};
use crate::train::checkpoint;
use crate::train::trained::Trained;
use safetensors::Dtype;
use std::path::Path;

/// Which generation of the original's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// TF1: names.
    First,
    /// TF2: an object graph.
    Second,
}

/// What a network has that the original's flags cannot say.
fn unknown_there(network: &Network) -> Vec<String> {
    let mut notes = Vec::new();
    if network.resnet_depth == 10 {
        notes.push(
            "resnet_depth=10 is none of the original's: its code restores none of this".into(),
        );
    }
    if network.width_multiplier.fract() != 0.0 {
        notes.push(format!(
            "width_multiplier={} is none of the original's, which takes integers: its code restores none of this",
            network.width_multiplier
        ));
    }
    if network.image_size <= 32 && network.stem_stride != 1 {
        notes.push(format!(
            "stem_stride={} is none of the original's: its code restores the weights and computes other features, with a stem of stride 1",
            network.stem_stride
        ));
    }
    notes
}

/// Writes variables, slots and step.
pub(super) fn write(
    run: &Trained,
    folder: &Path,
    generation: Generation,
) -> Result<Vec<String>, Error> {
    let (_, arrays) = checkpoint::arrays(&run.checkpoint)?;
    let mut notes = unknown_there(&run.network);
    let step = (run.manifest.step as i64).to_le_bytes();
    // Keras keeps the slots of its own optimizers in another way in each release; those of LARS are the original's.
    let slots: &[&str] = match (generation, run.loaded.config.optimizer.as_str()) {
        (Generation::Second, optimizer) if optimizer != "lars" => &[],
        (Generation::Second, _) => &["Momentum"],
        (Generation::First, _) => &["Momentum", "Adam", "Adam_1"],
    };
    let (mut left_out, mut adam) = (0, false);
    let one = 1i64.to_le_bytes();
    // Powers for the step to come: they start at the first power and are multiplied after each step.
    let powers = [("beta1_power", BETA_1), ("beta2_power", BETA_2)].map(|(name, base)| {
        let power = base.powf(run.manifest.step as f64 + 1.0) as f32;
        (name, power.to_le_bytes())
    });
    let mut tensors = Vec::new();
    let mut graph = Grow::default();
    let names: Vec<String> = run.variables.iter().map(|v| v.name.clone()).collect();
    let paths = tf2_paths(&run.network, &names);
    for ((variable, value), path) in run.variables.iter().zip(&run.values).zip(paths) {
        let path = path.map(|path| format!("model/{path}")).unwrap_or_default();
        let dims: Vec<usize> = variable.dims.iter().map(|&dim| dim as usize).collect();
        let name = match generation {
            Generation::First => variable.name.clone(),
            Generation::Second => graph.variable(&path, &variable.name),
        };
        tensors.push(Tensor::numbers(name, Dtype::F32, &dims, value.bytes()));
        for slot in ["Momentum", "Adam", "Adam_1"] {
            let own = format!("{}/{slot}", variable.name);
            if let Some(array) = arrays.get(&own) {
                if !slots.contains(&slot) {
                    left_out += 1;
                    continue;
                }
                adam |= slot != "Momentum";
                let name = match generation {
                    Generation::First => own,
                    Generation::Second => graph.slot(&path, slot, &own),
                };
                tensors.push(Tensor::numbers(
                    name,
                    array.dtype,
                    &array.dims,
                    &array.bytes,
                ));
            }
        }
    }
    let stem = match generation {
        Generation::First => {
            tensors.push(Tensor::numbers("global_step", Dtype::I64, &[], &step));
            if adam {
                for (name, bytes) in &powers {
                    tensors.push(Tensor::numbers(*name, Dtype::F32, &[], bytes));
                }
            }
            "model.ckpt"
        }
        Generation::Second => {
            for (name, value) in [("global_step", &step), ("save_counter", &one)] {
                let key = graph.variable(name, name);
                tensors.push(Tensor::numbers(key, Dtype::I64, &[], value));
            }
            tensors.push(Tensor::text(GRAPH_KEY, graph.finish()));
            "ckpt"
        }
    };
    let prefix = folder.join(format!("{stem}-{}", run.manifest.step));
    tensor_bundle::write(&prefix, &tensors)?;
    if left_out > 0 {
        notes.push(format!(
            "{left_out} slots of optimizer `{}` are left out: the original's second generation restores those of LARS alone",
            run.loaded.config.optimizer
        ));
    }
    Ok(notes)
}
