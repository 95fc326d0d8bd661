//! The step on given views: no data and no augmentation, so that other programs can run the very same steps (`bench/race.sh`).

use super::step::{Input, StepSpec};
use super::{Error, setup, state};
use crate::config::{Loaded, Plan};
use crate::data::Description;
use crate::report;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// How many rates of the schedule a dump tells.
const RATES: u64 = 100;

/// The choices of the step of a configuration whose views are given.
///
/// # Errors
/// If the configuration makes no step.
pub(super) fn spec(loaded: &Loaded, devices: usize) -> Result<StepSpec, Error> {
    let data = Description {
        name: "given views".into(),
        split: "train".into(),
        // A number to make a schedule of, as many as CIFAR-10 has.
        examples: 50_000,
        classes: 10,
        class_names: Vec::new(),
        image: None,
        fingerprint: String::new(),
    };
    let plan = Plan::new(loaded, data.examples, devices)?;
    let mut loaded = loaded.clone();
    loaded.config.runtime.streamed = None; // where data would come from does not matter
    Ok(StepSpec {
        input: Input::Given,
        ..setup::spec(&loaded, &data, &plan)?
    })
}

/// The views of every step, first ones before second ones, `[2 · batch, S, S, 3]` between 0 and 1: each image has 4 × 4 patches of
/// colours of its own, each view noise of its own. (Of noise alone batch normalisation would make rounding large.)
pub(super) fn views(spec: &StepSpec) -> Vec<f32> {
    let side = spec.augmentation.image_size;
    let uniform = |purpose: u32, at: usize| {
        let [word, _] = crate::random::threefry2x32([0x7669_6577, purpose], [at as u32, 0]);
        (word >> 8) as f32 / (1u32 << 24) as f32
    };
    let colours: Vec<f32> = (0..spec.batch * 16 * 3).map(|at| uniform(0, at)).collect();
    (0..2 * spec.batch * side * side * 3)
        .map(|at| {
            let (pixel, channel) = (at / 3, at % 3);
            let (column, row) = (pixel % side, pixel / side % side);
            let image = pixel / (side * side) % spec.batch;
            let patch = (image * 4 + row * 4 / side) * 4 + column * 4 / side;
            0.75 * colours[patch * 3 + channel] + 0.25 * uniform(1, at)
        })
        .collect()
}

/// Writes what another program needs to run the same steps, as safetensors: the initial variables, `views`, and in the metadata, key
/// `step`, the numbers that go with them as JSON.
///
/// # Errors
/// If the configuration makes no step, or the file cannot be written.
pub fn dump(loaded: &Loaded, devices: usize, path: &Path) -> Result<(), Error> {
    let config = &loaded.config;
    let spec = spec(loaded, devices)?;
    let (variables, arrays) = spec.state()?;
    let values = state::initial(&arrays, &variables, config.runtime.seed);
    let side = config.image_size;
    let views: Vec<u8> = views(&spec).iter().flat_map(|x| x.to_le_bytes()).collect();
    let dims = |dims: &[i64]| dims.iter().map(|&dim| dim as usize).collect();
    let mut tensors = vec![("views", vec![2 * spec.batch, side, side, 3], &views[..])];
    for (variable, value) in variables.iter().zip(&values) {
        tensors.push((&variable.name, dims(&variable.dims), value.bytes()));
    }
    let names: Vec<&str> = variables.iter().map(|v| v.name.as_str()).collect();
    let rates: Vec<f64> = (0..RATES).map(|step| spec.schedule.rate(step)).collect();
    let step = serde_json::json!({
        "batch": spec.batch,
        "platform": config.runtime.platform,
        "precision": if config.runtime.bf16 { "bf16" } else { "f32" },
        "image_size": side,
        "resnet_depth": config.resnet_depth,
        "stem_stride": config.stem_stride,
        "batch_norm_decay": config.batch_norm_decay,
        "temperature": config.temperature,
        "optimizer": config.optimizer,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "rates": rates,
        "variables": names,
    });
    let metadata = HashMap::from([("step".to_string(), step.to_string())]);
    let written = tensors
        .into_iter()
        .map(|(name, dims, bytes)| Ok((name, TensorView::new(Dtype::F32, dims, bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .and_then(|tensors| safetensors::serialize(tensors, Some(metadata)))
        .map_err(std::io::Error::other)
        .and_then(|bytes| std::fs::write(path, bytes));
    Ok(written.map_err(report::Error::io("write", path))?)
}
