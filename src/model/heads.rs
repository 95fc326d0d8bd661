//! Projection head and supervised head (reference §3.5, §3.6).

use super::{HeadMode, Network};
use crate::hlo::Value;
use crate::nn::{Builder, relu};

impl Network {
    /// `[h, out_0, …]`.
    pub(super) fn project<'g>(
        &self,
        builder: &mut Builder<'g>,
        h: Value<'g>,
        endpoints: &mut Vec<(String, Value<'g>)>,
    ) -> Vec<Value<'g>> {
        let graph = builder.graph();
        let _scope = graph.scope("projection_head");
        let (dtype, activations) = (builder.settings().dtype, builder.settings().activations);
        let mut layers = vec![h];
        let (count, prefix) = match self.proj_head_mode {
            HeadMode::None => (0, ""),
            HeadMode::Linear => (1, "l"),
            HeadMode::Nonlinear => (self.num_proj_layers, "nl"),
        };
        let mut x = h;
        for layer in 0..count {
            let name = format!("{prefix}_{layer}");
            let _scope = graph.scope(name.as_str());
            builder.part(&format!("head_contrastive/{name}"));
            let last = layer + 1 == count;
            let width = if last {
                self.proj_out_dim as i64
            } else {
                x.dim(1)
            };
            let linear = builder
                .dense("dense", x, width, false, activations)
                .convert(dtype);
            // Every layer is normalised; only the last has no offset and no ReLU.
            let normal = builder.batch_norm(linear, 1.0, !last);
            endpoints.push((format!("proj_layer{layer}"), normal));
            x = if last { normal } else { relu(normal) };
            layers.push(x);
        }
        endpoints.push(("proj_head_output".into(), x));
        layers
    }
}

/// A dense layer with bias on features. Never in a narrower type: what tells classes apart may be a small part of logits whose larger
/// part all images share, and is rounded away in bf16.
pub(super) fn supervised<'g>(
    builder: &mut Builder<'g>,
    features: Value<'g>,
    classes: i64,
) -> Value<'g> {
    let _scope = builder.graph().scope("supervised_head");
    let dtype = builder.settings().dtype;
    builder.part("head_supervised/linear_layer");
    builder.dense("dense", features, classes, true, dtype)
}
