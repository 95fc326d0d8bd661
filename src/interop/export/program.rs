//! The encoder with its heads as a program: `HloModuleProto` or StableHLO text, with named inputs and outputs.

use super::{Error, Program, Tensor, about, folder, safetensors_file};
use crate::hlo::{DType, Graph, Module, Shape, Value};
use crate::nn::{Builder, Settings};
use crate::train::trained::Trained;
use safetensors::Dtype;
use serde_json::json;
use std::path::Path;

/// Where the weights of an exported program are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// In the program.
    Inside,
    /// Its parameters before the images, with their values in `weights.safetensors`.
    Parameters,
}

/// The values that a program can give, in the order of the network; the original's names.
pub const ENDPOINTS: [&str; 10] = [
    "initial_conv",
    "initial_max_pool",
    "block_group1",
    "block_group2",
    "block_group3",
    "block_group4",
    "final_avg_pool",
    "proj_head_input",
    "proj_head_output",
    "logits_sup",
];

/// The largest message that the readers of protocol buffers take.
const LARGEST: usize = (1 << 31) - 1;

pub(super) fn write(
    run: &Trained,
    folder: &Path,
    choices: &Program,
    stable: bool,
) -> Result<Vec<String>, Error> {
    let bytes: usize = run.values.iter().map(|value| value.bytes().len()).sum();
    if choices.weights == Weights::Inside && bytes > LARGEST - (1 << 20) {
        return Err(Error::Unsupported {
            path: run.checkpoint.clone(),
            found: format!("has {bytes} bytes of weights"),
            expected: "less than 2 GiB to put them inside a program; use --weights parameters"
                .into(),
        });
    }
    let (module, outputs) = module(run, choices)?;
    let file = if stable {
        "encoder.mlir"
    } else {
        "encoder.hlo.pb"
    };
    if stable {
        let text = module.to_stablehlo(&outputs)?;
        super::folder::write(&folder.join(file), text.as_bytes())?;
    } else {
        super::folder::write(&folder.join(file), &module.to_proto_bytes())?;
    }
    if choices.weights == Weights::Parameters {
        let tensors: Vec<Tensor> = run
            .variables
            .iter()
            .zip(&run.values)
            .map(|(variable, value)| Tensor {
                name: variable.name.clone(),
                dtype: Dtype::F32,
                dims: variable.dims.iter().map(|&dim| dim as usize).collect(),
                bytes: value.bytes().to_vec(),
            })
            .collect();
        safetensors_file(&folder.join("weights.safetensors"), &tensors, about(run))?;
    }
    let array = |name: &str, shape: &Shape| json!({"name": name, "dtype": shape.dtype.to_string(), "shape": shape.dims});
    let about = json!({
        "program": file,
        "images": "RGB in [0, 1], height and width before channels",
        "inputs": module.parameters().iter().map(|(name, shape)| array(name, shape)).collect::<Vec<_>>(),
        "outputs": outputs.iter().zip(module.results()).map(|(name, shape)| array(name, &shape)).collect::<Vec<_>>(),
    });
    let text = serde_json::to_vec_pretty(&about).expect("valid JSON");
    folder::write(&folder.join("encoder.json"), &text)?;
    Ok(vec![
        "encoder.json lists inputs and outputs in order".into(),
    ])
}

/// The program with the names of its results: images f32 `[B, S, S, 3]` in [0, 1], after the weights if those are parameters.
fn module(run: &Trained, choices: &Program) -> Result<(Module, Vec<String>), Error> {
    let settings = Settings {
        training: false,
        ..Settings::default()
    };
    let graph = Graph::new();
    let values: Vec<Value> = run
        .variables
        .iter()
        .zip(&run.values)
        .map(|(variable, value)| match choices.weights {
            Weights::Inside => graph.constant(value.clone()),
            Weights::Parameters => graph.parameter(&variable.name, value.shape().clone()),
        })
        .collect();
    let side = run.network.image_size as i64;
    let images = graph.parameter(
        "images",
        Shape::new(DType::F32, [choices.batch as i64, side, side, 3]),
    );
    let mut builder = Builder::with_values(&graph, settings, values);
    let outputs = run.network.forward(&mut builder, images);
    let mut named = outputs.endpoints.clone();
    named.push(("proj_head_input".into(), outputs.h));
    let find = |name: &str| {
        named
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, v)| *v)
    };
    let there: Vec<&str> = ENDPOINTS
        .into_iter()
        .filter(|name| find(name).is_some())
        .collect();
    let chosen: Vec<String> = if choices.endpoints.is_empty() {
        there.iter().map(|name| name.to_string()).collect()
    } else {
        choices.endpoints.clone()
    };
    let mut results = Vec::new();
    for name in &chosen {
        let value = find(name).filter(|_| there.contains(&name.as_str()));
        results.push(value.ok_or_else(|| Error::NoEndpoint {
            name: name.clone(),
            known: there.join(", "),
        })?);
    }
    Ok((graph.finish("simclr_encoder", &results)?, chosen))
}
