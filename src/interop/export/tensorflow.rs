//! A TensorFlow checkpoint that the original restores: by the names of its first generation, or by the objects of its second.

use super::Error;
use crate::interop::names::tf2_paths;
use crate::interop::object_graph::{GRAPH_KEY, Grow};
use crate::interop::tensor_bundle::{self, Tensor};
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

/// Writes variables, slots and step.
pub(super) fn write(
    run: &Trained,
    folder: &Path,
    generation: Generation,
) -> Result<Vec<String>, Error> {
    let (_, arrays) = checkpoint::arrays(&run.checkpoint)?;
    let step = (run.manifest.step as i64).to_le_bytes();
    let one = 1i64.to_le_bytes();
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
    Ok(Vec::new())
}
