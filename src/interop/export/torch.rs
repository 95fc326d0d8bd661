//! Weights under the names and in the layouts of torchvision and timm.
//!
//! Their plain ResNets have the same layers in the same order; what they do differently cannot be said in weights and is told in
//! notes: their max-pool pads both sides of every map, ours (TensorFlow's) before the map only where its side is odd, and ours takes
//! images in [0, 1].

use super::{Error, Tensor, about, folder, safetensors_file};
use crate::hlo::Literal;
use crate::nn::{Kind, Variable, same_padding};
use crate::train::trained::Trained;
use safetensors::Dtype;
use serde_json::json;
use std::path::Path;

/// Writes `model.safetensors`, `projection_head.safetensors` if there is one, and timm's `config.json` if asked for.
pub(super) fn write(run: &Trained, folder: &Path, timm: bool) -> Result<Vec<String>, Error> {
    let network = &run.network;
    if network.width_multiplier != 1.0
        || network.sk_ratio > 0.0
        || network.se_ratio > 0.0
        || network.resnet_depth < 18
        || network.resnet_depth > 152
    {
        return Err(Error::Unsupported {
            path: run.checkpoint.clone(),
            found: format!("holds a {}", crate::interop::import::describe(network)),
            expected: "a plain ResNet-18, 34, 50, 101 or 152 of width 1, which torchvision and timm have; use --format safetensors"
                .into(),
        });
    }
    let layers = Layers::of(&network.blocks(), network.bottleneck());
    let (mut model, mut head) = (Vec::new(), Vec::new());
    let classifier = network
        .num_classes
        .filter(|_| network.ft_proj_selector == 0);
    for (variable, value) in run.variables.iter().zip(&run.values) {
        if variable.supervised_head() && classifier.is_none() {
            continue;
        }
        let list = if variable.projection_head() {
            &mut head
        } else {
            &mut model
        };
        list.extend(tensors(&layers, variable, value));
    }
    for list in [&mut model, &mut head] {
        add_missing(list);
    }
    let mut metadata = about(run);
    metadata.insert("format".into(), "pt".into());
    safetensors_file(&folder.join("model.safetensors"), &model, metadata.clone())?;
    if !head.is_empty() {
        safetensors_file(&folder.join("projection_head.safetensors"), &head, metadata)?;
    }
    if timm {
        let config = serde_json::to_vec_pretty(&timm_config(run, classifier)).expect("valid JSON");
        super::folder::write(&folder.join("config.json"), &config)?;
    }
    folder::write(
        &folder.join("load.py"),
        load_script(run, timm, classifier).as_bytes(),
    )?;
    let mut notes = vec![
        "load.py builds the network around the weights: its max-pool pads as the original's, and images are in [0, 1] without further normalisation".to_owned(),
    ];
    if network.num_classes.is_some() && classifier.is_none() {
        notes.push("the classifier is left out: it looks at a layer of the projection head".into());
    }
    Ok(notes)
}

/// Their names of convolutions and normalisations, by our numbers.
struct Layers {
    convolutions: Vec<String>,
    normalisations: Vec<String>,
}

impl Layers {
    fn of(blocks: &[usize; 4], bottleneck: bool) -> Self {
        let mut layers = Layers {
            convolutions: vec!["conv1".into()],
            normalisations: vec!["bn1".into()],
        };
        for (group, &count) in blocks.iter().enumerate() {
            for block in 0..count {
                let base = format!("layer{}.{block}", group + 1);
                if block == 0 {
                    layers.convolutions.push(format!("{base}.downsample.0"));
                    layers.normalisations.push(format!("{base}.downsample.1"));
                }
                for layer in 1..=if bottleneck { 3 } else { 2 } {
                    layers.convolutions.push(format!("{base}.conv{layer}"));
                    layers.normalisations.push(format!("{base}.bn{layer}"));
                }
            }
        }
        layers
    }

    /// Their name of the layer of one of our variables.
    fn name(&self, layer: &str) -> Option<String> {
        let number = |stem: &str| {
            let rest = layer.strip_prefix("base_model/")?.strip_prefix(stem)?;
            match rest.strip_prefix('_') {
                Some(number) => number.parse::<usize>().ok(),
                None => rest.is_empty().then_some(0),
            }
        };
        if let Some(at) = number("conv2d") {
            return self.convolutions.get(at).cloned();
        }
        if let Some(at) = number("batch_normalization") {
            return self.normalisations.get(at).cloned();
        }
        if let Some(head) = layer.strip_prefix("head_contrastive/") {
            let (at, kind) = head.split_once('/')?;
            let at: usize = at.rsplit('_').next()?.parse().ok()?;
            // Linear, normalisation, ReLU of each layer are numbered through; the last has no ReLU.
            return Some(format!("layers.{}", 3 * at + usize::from(kind != "dense")));
        }
        (layer == "head_supervised/linear_layer/dense").then(|| "fc".into())
    }
}

/// A variable as their tensor.
fn tensors(layers: &Layers, variable: &Variable, value: &Literal) -> Option<Tensor> {
    let (layer, _) = variable.name.rsplit_once('/')?;
    let part = match variable.kind {
        Kind::ConvKernel | Kind::DenseKernel | Kind::Gamma => "weight",
        Kind::Bias | Kind::Beta => "bias",
        Kind::MovingMean => "running_mean",
        Kind::MovingVariance => "running_var",
    };
    let order: &[usize] = match variable.kind {
        Kind::ConvKernel => &[3, 2, 0, 1],
        Kind::DenseKernel => &[1, 0],
        _ => &[0],
    };
    let dims: Vec<usize> = variable.dims.iter().map(|&dim| dim as usize).collect();
    Some(Tensor {
        name: format!("{}.{part}", layers.name(layer)?),
        dtype: Dtype::F32,
        dims: order.iter().map(|&axis| dims[axis]).collect(),
        bytes: transposed(value.bytes(), &dims, order),
    })
}

/// Elements of four bytes with their axes in another order: axis `i` of the result is axis `order[i]`.
fn transposed(bytes: &[u8], dims: &[usize], order: &[usize]) -> Vec<u8> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    let (elements, _) = bytes.as_chunks::<4>();
    let mut at = vec![0; order.len()];
    let mut out = Vec::with_capacity(bytes.len());
    for _ in 0..elements.len() {
        let from: usize = at
            .iter()
            .zip(order)
            .map(|(i, &axis)| i * strides[axis])
            .sum();
        out.extend_from_slice(&elements[from]);
        for (place, &axis) in order.iter().enumerate().rev() {
            at[place] += 1;
            if at[place] < dims[axis] {
                break;
            }
            at[place] = 0;
        }
    }
    out
}

/// What their normalisations have besides: an offset where ours has none, and a count of batches.
fn add_missing(list: &mut Vec<Tensor>) {
    let means: Vec<(String, usize)> = list
        .iter()
        .filter_map(|t| Some((t.name.strip_suffix(".running_mean")?.to_owned(), t.dims[0])))
        .collect();
    for (layer, channels) in means {
        let offset = format!("{layer}.bias");
        if !list.iter().any(|tensor| tensor.name == offset) {
            list.push(Tensor {
                name: offset,
                dtype: Dtype::F32,
                dims: vec![channels],
                bytes: vec![0; 4 * channels],
            });
        }
        list.push(Tensor {
            name: format!("{layer}.num_batches_tracked"),
            dtype: Dtype::I64,
            dims: Vec::new(),
            bytes: vec![0; 8],
        });
    }
}

/// timm's description of a model.
fn timm_config(run: &Trained, classes: Option<usize>) -> serde_json::Value {
    let network = &run.network;
    let size = network.image_size;
    json!({
        "architecture": format!("resnet{}", network.resnet_depth),
        "num_classes": classes.unwrap_or(0),
        "num_features": network.features(),
        "pretrained_cfg": {
            "tag": "simclr",
            "input_size": [3, size, size],
            "fixed_input_size": false,
            "interpolation": "bicubic",
            "crop_pct": if size > 32 { 0.875 } else { 1.0 },
            "crop_mode": "center",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "pool_size": [7, 7],
            "first_conv": "conv1",
            "classifier": "fc",
            "num_classes": classes.unwrap_or(0),
        },
    })
}

/// A Python file that builds the network around the weights.
fn load_script(run: &Trained, timm: bool, classes: Option<usize>) -> String {
    let network = &run.network;
    let (library, build) = if timm {
        (
            "timm",
            format!(
                "timm.create_model(\"resnet{}\", num_classes={})",
                network.resnet_depth,
                classes.unwrap_or(0)
            ),
        )
    } else {
        (
            "torchvision",
            format!(
                "torchvision.models.resnet{}(num_classes={})",
                network.resnet_depth,
                classes.unwrap_or(1)
            ),
        )
    };
    let mut changes = String::new();
    if network.image_size > 32 {
        // The stem's stride of 2 comes before.
        let side = network.image_size.div_ceil(2);
        let (low, high) = same_padding(side as i64, 3, 2);
        changes.push_str(&format!(
            "    # TensorFlow pads a map of {side} x {side} by {low} before and {high} after; zeros are as good as nothing behind a ReLU.\n    \
             model.maxpool = nn.Sequential(nn.ZeroPad2d(({low}, {high}, {low}, {high})), nn.MaxPool2d(3, 2))\n",
        ));
    } else {
        changes.push_str(&format!(
            "    model.conv1 = nn.Conv2d(3, 64, 3, {}, 1, bias=False)\n    model.maxpool = nn.Identity()\n",
            network.stem_stride
        ));
    }
    if !network.bottleneck() {
        changes.push_str(
            "    # SimCLR projects the first shortcut too.\n    \
             model.layer1[0].downsample = nn.Sequential(nn.Conv2d(64, 64, 1, bias=False), nn.BatchNorm2d(64))\n",
        );
    }
    if !timm && classes.is_none() {
        changes.push_str("    model.fc = nn.Identity()\n");
    }
    format!(
        "\"\"\"Builds the network around the weights beside this file. Input: images in [0, 1], {size} x {size}, channels first.\n\n\
         Output: {output}.\n\"\"\"\n\n\
         import pathlib\n\nimport {library}\nfrom safetensors.torch import load_file\nfrom torch import nn\n\n\n\
         def load(folder=pathlib.Path(__file__).parent):\n    \
         model = {build}\n{changes}    \
         model.load_state_dict(load_file(pathlib.Path(folder) / \"model.safetensors\"))\n    \
         return model.eval()\n",
        size = network.image_size,
        output = match classes {
            Some(classes) => format!("logits of {classes} classes"),
            None => format!("{} features", network.features()),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposition_is_by_index() {
        let dims = [2, 3, 4, 5];
        let number = |i: usize| (i as u32).to_le_bytes();
        let bytes: Vec<u8> = (0..120).flat_map(number).collect();
        let out = transposed(&bytes, &dims, &[3, 2, 0, 1]);
        let mut expected = Vec::new();
        for o in 0..5 {
            for i in 0..4 {
                for h in 0..2 {
                    for w in 0..3 {
                        expected.extend(number(((h * 3 + w) * 4 + i) * 5 + o));
                    }
                }
            }
        }
        assert_eq!(out, expected);
    }
}
