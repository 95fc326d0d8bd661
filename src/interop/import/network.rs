//! The network that a checkpoint holds, by names and shapes; and networks in words.

use super::source::Source;
use super::{Error, names};
use crate::model::{DEPTHS, HeadMode, Network};
use crate::nn::{Kind, Variable};
use std::collections::BTreeSet;

impl Source<'_> {
    /// The network whose variables are those of the file, with every shape checked.
    pub(super) fn network(&self, assumed: &mut Vec<String>) -> Result<Network, Error> {
        let (candidate, keys) = self.nearest()?;
        let sized = self.sized(candidate, &keys, assumed)?;
        let network = self.heads(sized, assumed)?;
        network.check()?;
        let variables = network.variables()?;
        let keys = self.keys(&network, &names(&variables));
        for (variable, key) in variables.iter().zip(&keys) {
            let Some(key) = key else {
                return Err(self.unknown(
                    describe(&network),
                    format!("`{}` is missing", variable.name),
                ));
            };
            let found = self.dims(key);
            let expected: Vec<usize> = variable.dims.iter().map(|&d| d as usize).collect();
            if found != expected {
                return Err(self.unknown(
                    describe(&network),
                    format!("`{key}` has shape {found:?}, expected {expected:?}"),
                ));
            }
        }
        Ok(network)
    }

    /// The encoder whose names fit, with the keys of its variables.
    fn nearest(&self) -> Result<(Network, Vec<(Variable, String)>), Error> {
        let there = self.encoder_keys();
        if there.is_empty() {
            let first = self.bundle.entries().keys().next();
            return Err(Error::Unsupported {
                path: self.bundle.prefix().to_owned(),
                found: format!(
                    "holds no encoder of SimCLR (its first name is `{}`)",
                    first.map_or("", String::as_str)
                ),
                expected: "names as `base_model/conv2d/kernel`, or `model/resnet_model/…`".into(),
            });
        }
        let mut best: Option<(usize, Network, String)> = None;
        for (depth, sk, se, size) in kinds() {
            let network = Network {
                resnet_depth: depth,
                sk_ratio: if sk { 0.0625 } else { 0.0 },
                se_ratio: if se { 0.25 } else { 0.0 },
                image_size: size,
                proj_head_mode: HeadMode::None,
                ..Network::default()
            };
            let variables = network.variables()?;
            let keys = self.keys(&network, &names(&variables));
            let missing: Vec<&Variable> = variables
                .iter()
                .zip(&keys)
                .filter(|(_, key)| key.is_none())
                .map(|(variable, _)| variable)
                .collect();
            let found: BTreeSet<&str> = keys.iter().flatten().map(String::as_str).collect();
            let extra: Vec<&&str> = there.iter().filter(|key| !found.contains(*key)).collect();
            let distance = missing.len() + extra.len();
            if distance == 0 {
                let keys = keys.into_iter().flatten();
                return Ok((network, variables.into_iter().zip(keys).collect()));
            }
            if best.as_ref().is_none_or(|(least, ..)| distance < *least) {
                let what = match (missing.first(), extra.first()) {
                    (Some(first), _) => {
                        format!(
                            "{} variables are missing, `{}` the first",
                            missing.len(),
                            first.name
                        )
                    }
                    (None, first) => format!(
                        "{} more variables are there, `{}` the first",
                        extra.len(),
                        first.map_or("", |key| key)
                    ),
                };
                best = Some((distance, network, what));
            }
        }
        let (_, network, what) = best.expect("there are candidates");
        Err(self.unknown(by_names(&network), what))
    }

    /// The candidate with the width, ratios and stem that the shapes show.
    fn sized(
        &self,
        candidate: Network,
        keys: &[(Variable, String)],
        assumed: &mut Vec<String>,
    ) -> Result<Network, Error> {
        let of_kind = |kind: Kind| {
            keys.iter()
                .filter(move |(variable, _)| variable.kind == kind)
                .map(|(_, key)| self.dims(key))
                .collect::<Vec<_>>()
        };
        let convolutions = of_kind(Kind::ConvKernel);
        let output = |at: Option<usize>| {
            at.and_then(|at| convolutions.get(at))
                .and_then(|dims| dims.get(3))
                .map_or(0.0, |&dim| dim as f64)
        };
        let (sk, squeezed) = (candidate.sk_ratio > 0.0, candidate.se_ratio > 0.0);
        let squeezed = 2 * usize::from(squeezed);
        // In each group: shortcut, then the main path, whose first convolution is as wide as the group.
        let per_block = match (candidate.bottleneck(), sk) {
            (true, true) => 5,
            (true, false) => 3,
            (false, _) => 2,
        } + squeezed;
        let mut first = if sk && candidate.image_size > 32 {
            3
        } else {
            1
        };
        let widths = candidate.blocks().map(|count| {
            let width = output(Some(first + 1));
            first += 1 + count * per_block;
            width
        });
        let width = multiplier(widths);
        let image_size = if convolutions.first().and_then(|dims| dims.first()) == Some(&7) {
            224
        } else if candidate.sk_ratio == 0.0 {
            32
        } else {
            candidate.image_size
        };
        assumed.push(format!(
            "image_size={image_size} (the stem fits any size {})",
            if image_size > 32 {
                "above 32"
            } else {
                "up to 32"
            }
        ));
        if image_size <= 32 {
            assumed
                .push("stem_stride=1 (as the original's; the shapes are those of 2, too)".into());
        }
        let filters = widths[3];
        let (mut sk_ratio, mut se_ratio) = (candidate.sk_ratio, candidate.se_ratio);
        // The last convolutions: (selective kernel: reduce, expand,) last of the block, (squeeze-excite: reduce, expand).
        if sk_ratio > 0.0 && candidate.bottleneck() {
            let middle = output(convolutions.len().checked_sub(3 + squeezed));
            if (filters * sk_ratio).trunc().max(32.0) != middle {
                sk_ratio = middle / filters;
            }
        }
        if se_ratio > 0.0 {
            let middle = output(convolutions.len().checked_sub(2));
            if (filters * se_ratio).trunc().max(1.0) != middle {
                se_ratio = middle / filters;
                // Widths are cut to integers: rounding may not bring the quotient below the one it came from.
                if (filters * se_ratio).trunc() < middle {
                    se_ratio = (middle + 0.5) / filters;
                }
            }
        }
        Ok(Network {
            width_multiplier: width,
            image_size,
            sk_ratio,
            se_ratio,
            ..candidate
        })
    }

    /// The network with the heads that the file has.
    fn heads(&self, encoder: Network, assumed: &mut Vec<String>) -> Result<Network, Error> {
        let kernel = |name: String| {
            let key = self.keys(&encoder, &[name]).remove(0)?;
            match self.dims(&key) {
                &[inputs, outputs] => Some([inputs, outputs]),
                _ => None,
            }
        };
        let nonlinear: Vec<[usize; 2]> = (0..)
            .map_while(|layer| kernel(format!("head_contrastive/nl_{layer}/dense/kernel")))
            .collect();
        let linear = kernel("head_contrastive/l_0/dense/kernel".into());
        let supervised = kernel("head_supervised/linear_layer/dense/kernel".into());
        let (mode, layers, last) = match (nonlinear.last(), linear) {
            (Some(last), _) => (HeadMode::Nonlinear, nonlinear.len(), Some(*last)),
            (None, Some(only)) => (HeadMode::Linear, 1, Some(only)),
            (None, None) => (HeadMode::None, 0, None),
        };
        let mut network = Network {
            proj_head_mode: mode,
            num_proj_layers: layers.max(1),
            proj_out_dim: last.map_or(encoder.proj_out_dim, |[_, outputs]| outputs),
            num_classes: supervised.map(|[_, classes]| classes),
            ..encoder
        };
        if let Some([inputs, _]) = supervised {
            let features = network.features() as usize;
            if inputs != features && inputs == network.proj_out_dim {
                network.ft_proj_selector = -1;
            } else if layers > 1 {
                assumed.push(
                    "ft_proj_selector=0 (every hidden layer is as wide as the features; the published fine-tuned 1 % and 10 % networks have 1)"
                        .into(),
                );
            }
        }
        Ok(network)
    }
}

/// The multiplier that gives the four groups these widths. Fractions are rounded to widths, so that many do: powers of two go before
/// decimals, short ones before long ones.
pub(super) fn multiplier(widths: [f64; 4]) -> f64 {
    let plain = widths[3] / 512.0;
    let fits = |&multiplier: &f64| {
        let network = Network {
            width_multiplier: multiplier,
            ..Network::default()
        };
        network.widths().map(|width| width as f64) == widths
    };
    // What rounds to the last width lies within half a step of 8 around it.
    let (low, high) = ((widths[3] - 4.0) / 512.0, (widths[3] + 4.0) / 512.0);
    [1.0, 16.0, 10.0, 100.0, 1000.0]
        .into_iter()
        .flat_map(|parts| {
            let (from, to) = ((low * parts).ceil() as i64, (high * parts).floor() as i64);
            (from..=to).map(move |at| at as f64 / parts)
        })
        .chain([plain])
        .filter(|&multiplier| multiplier > 0.0)
        .find(fits)
        .unwrap_or(plain)
}

/// Depth, selective kernels, squeeze-excite, and an image size for each stem whose names differ.
fn kinds() -> impl Iterator<Item = (usize, bool, bool, usize)> {
    DEPTHS.iter().flat_map(|&depth| {
        [(false, false), (true, false), (false, true), (true, true)]
            .into_iter()
            .flat_map(move |(sk, se)| {
                let sizes: &[usize] = if sk { &[224, 32] } else { &[224] };
                sizes.iter().map(move |&size| (depth, sk, se, size))
            })
    })
}

/// What names alone tell of a network.
fn by_names(network: &Network) -> String {
    let parts = match (network.sk_ratio > 0.0, network.se_ratio > 0.0) {
        (true, true) => " with selective kernels and squeeze-excite",
        (true, false) => " with selective kernels",
        (false, true) => " with squeeze-excite",
        (false, false) => "",
    };
    format!("a ResNet-{}{parts}", network.resnet_depth)
}

/// A network in words.
pub fn describe(network: &Network) -> String {
    let mut text = format!("ResNet-{}", network.resnet_depth);
    if network.width_multiplier != 1.0 {
        text.push_str(&format!(" {}×", network.width_multiplier));
    }
    if network.sk_ratio > 0.0 {
        text.push_str(&format!(", selective kernels {}", network.sk_ratio));
    }
    if network.se_ratio > 0.0 {
        text.push_str(&format!(", squeeze-excite {}", network.se_ratio));
    }
    let stem = if network.image_size > 32 {
        "large"
    } else {
        "small"
    };
    text.push_str(&format!(", stem for {stem} images"));
    text.push_str(&match network.proj_head_mode {
        HeadMode::None => ", no projection head".to_owned(),
        HeadMode::Linear => format!(", linear projection to {}", network.proj_out_dim),
        HeadMode::Nonlinear => format!(
            ", projection head of {} layers to {}",
            network.num_proj_layers, network.proj_out_dim
        ),
    });
    if let Some(classes) = network.num_classes {
        text.push_str(&format!(", classifier of {classes} classes"));
    }
    text
}
