//! Networks: the ResNet encoder, the projection head, the supervised head (reference §3).

mod encoder;
mod heads;

pub use encoder::DEPTHS;

use crate::error::Class;
use crate::hlo::{Graph, Shape, Value};
use crate::nn::{Builder, Settings, Variable};

/// What comes after the encoder in pretraining (reference §3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HeadMode {
    None,
    Linear,
    Nonlinear,
}

/// The choices that decide a network's variables.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// 18, 34, 50, 101, 152 or 200 as in the original; 10 (ours) has one residual block per group.
    pub resnet_depth: usize,
    /// Factor on all widths; a fraction rounds each width to a multiple of 8 (ours; the original takes integers).
    pub width_multiplier: f64,
    /// Side length that selects the stem: at most 32 means a 3×3 convolution without pooling.
    pub image_size: usize,
    /// Stride of that small stem: 1 as in the original, or 2 (ours).
    pub stem_stride: usize,
    /// Above 0: selective kernels and ResNet-D stem and shortcuts.
    pub sk_ratio: f64,
    /// Above 0: squeeze-excite.
    pub se_ratio: f64,
    /// The projection head.
    pub proj_head_mode: HeadMode,
    /// Width of its output.
    pub proj_out_dim: usize,
    /// Layers of the nonlinear head.
    pub num_proj_layers: usize,
    /// Which of `[h, out_0, …]` feeds the supervised head; −1 is the last.
    pub ft_proj_selector: i64,
    /// Classes of the supervised head; none without one.
    pub num_classes: Option<usize>,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            resnet_depth: 50,
            width_multiplier: 1.0,
            image_size: 224,
            stem_stride: 1,
            sk_ratio: 0.0,
            se_ratio: 0.0,
            proj_head_mode: HeadMode::Nonlinear,
            proj_out_dim: 128,
            num_proj_layers: 3,
            ft_proj_selector: 0,
            num_classes: None,
        }
    }
}

/// What of the encoder stays as it is in fine-tuning (reference §3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freeze {
    /// −1: nothing; 0: the stem; 1 to 3: block groups up to this one too; 4: the whole encoder.
    pub after_block: i64,
    /// Whether the encoder normalises with its moving statistics and leaves them alone, rather than with those of the batch.
    pub moving_statistics: bool,
}

/// A network that cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{key}` is {found}; expected {expected}")]
pub struct Error {
    /// The configuration key.
    pub key: &'static str,
    /// Its value.
    pub found: String,
    /// What would do.
    pub expected: String,
}

impl Error {
    /// A wrong choice is the configuration's.
    pub fn class(&self) -> Class {
        Class::Usage
    }
}

/// What a network computes.
pub struct Outputs<'g> {
    /// Features `[B, D]`: the encoder's output, averaged over pixels.
    pub h: Value<'g>,
    /// `[h, output of head layer 0, …]`; the last is what the contrastive loss sees.
    pub projections: Vec<Value<'g>>,
    /// Logits of the supervised head `[B, classes]`.
    pub logits: Option<Value<'g>>,
    /// Named intermediate values.
    pub endpoints: Vec<(String, Value<'g>)>,
}

impl<'g> Outputs<'g> {
    /// The projection `[B, P]` for the contrastive loss.
    pub fn z(&self) -> Value<'g> {
        self.projections.last().copied().unwrap_or(self.h)
    }
}

impl Network {
    /// Checks the choices.
    ///
    /// # Errors
    /// The first key whose value no network has.
    pub fn check(&self) -> Result<(), Error> {
        let error = |key, found: String, expected: &str| {
            Err(Error {
                key,
                found,
                expected: expected.into(),
            })
        };
        if !DEPTHS.contains(&self.resnet_depth) {
            return error(
                "resnet_depth",
                self.resnet_depth.to_string(),
                "10, 18, 34, 50, 101, 152 or 200",
            );
        }
        if !(self.width_multiplier > 0.0 && self.width_multiplier <= 16.0) {
            return error(
                "width_multiplier",
                self.width_multiplier.to_string(),
                "a number above 0, at most 16",
            );
        }
        if !matches!(self.stem_stride, 1 | 2) {
            return error("stem_stride", self.stem_stride.to_string(), "1 or 2");
        }
        if self.proj_head_mode == HeadMode::Nonlinear && self.num_proj_layers == 0 {
            return error(
                "num_proj_layers",
                "0".into(),
                "at least 1, or proj_head_mode: none",
            );
        }
        let layers = match self.proj_head_mode {
            HeadMode::None => 0,
            HeadMode::Linear => 1,
            HeadMode::Nonlinear => self.num_proj_layers,
        } as i64;
        if self.ft_proj_selector < -1 || self.ft_proj_selector > layers {
            return error(
                "ft_proj_selector",
                self.ft_proj_selector.to_string(),
                &format!("-1 (the last) or 0 to {layers}, the layers of the head"),
            );
        }
        Ok(())
    }

    /// The variables, in the original's creation order.
    ///
    /// # Errors
    /// If the choices do not make a network.
    pub fn variables(&self) -> Result<Vec<Variable>, Error> {
        self.check()?;
        let graph = Graph::new();
        let settings = Settings {
            training: false,
            ..Settings::default()
        };
        let size = self.image_size as i64;
        let images = graph.zeros(&Shape::new(settings.dtype, [2, size, size, 3]));
        let mut builder = Builder::collecting(&graph, settings);
        self.forward(&mut builder, images);
        Ok(builder.variables().to_vec())
    }

    /// Blocks in each of the four groups.
    pub fn blocks(&self) -> [usize; 4] {
        encoder::blocks(self.resnet_depth).unwrap_or([0; 4])
    }

    /// Whether blocks are bottlenecks rather than pairs of 3×3 convolutions.
    pub fn bottleneck(&self) -> bool {
        encoder::bottleneck(self.resnet_depth)
    }

    /// Width of the features.
    pub fn features(&self) -> i64 {
        let expansion = if self.bottleneck() { 4 } else { 1 };
        self.width(512) * expansion
    }

    /// Base widths of the blocks of the four groups.
    pub fn widths(&self) -> [i64; 4] {
        [64, 128, 256, 512].map(|base| self.width(base))
    }

    /// Runs the network on images `[B, H, W, 3]` in [0, 1]. The classifier, if there is one, only watches: no gradient reaches what
    /// it looks at (reference §5.6).
    pub fn forward<'g>(&self, builder: &mut Builder<'g>, images: Value<'g>) -> Outputs<'g> {
        let mut endpoints = Vec::new();
        let h = self.encode(builder, images, -1, &mut endpoints);
        self.heads(builder, h, |seen| seen.stop_gradient(), endpoints)
    }

    /// The same for fine-tuning: the classifier's gradient reaches what it looks at, down to where `freeze` stops it.
    pub fn finetune<'g>(
        &self,
        builder: &mut Builder<'g>,
        images: Value<'g>,
        freeze: Freeze,
    ) -> Outputs<'g> {
        let mut endpoints = Vec::new();
        let training = builder.settings().training;
        builder.set_training(training && !freeze.moving_statistics);
        let h = self.encode(builder, images, freeze.after_block, &mut endpoints);
        builder.set_training(training);
        self.heads(builder, h, |seen| seen, endpoints)
    }

    fn heads<'g>(
        &self,
        builder: &mut Builder<'g>,
        h: Value<'g>,
        seen: impl Fn(Value<'g>) -> Value<'g>,
        mut endpoints: Vec<(String, Value<'g>)>,
    ) -> Outputs<'g> {
        let projections = self.project(builder, h, &mut endpoints);
        let logits = self.num_classes.map(|classes| {
            let last = projections.len() - 1;
            let chosen = usize::try_from(self.ft_proj_selector)
                .unwrap_or(last)
                .min(last);
            let logits = heads::supervised(builder, seen(projections[chosen]), classes as i64);
            endpoints.push(("logits_sup".to_string(), logits));
            logits
        });
        Outputs {
            h,
            projections,
            logits,
            endpoints,
        }
    }

    /// `base` times the width multiplier.
    fn width(&self, base: i64) -> i64 {
        let exact = base as f64 * self.width_multiplier;
        if self.width_multiplier.fract() == 0.0 {
            return exact as i64;
        }
        ((exact / 8.0).round() as i64 * 8).max(8)
    }
}
