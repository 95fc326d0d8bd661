//! Names of variables elsewhere. Ours are those of the original's first generation; this is the second's object graph
//! (reference §8.1).

use crate::model::Network;

/// Paths below the model's object, by the numbers that ours carry: `conv2d_3` is the fourth convolution.
struct Paths {
    convolutions: Vec<String>,
    normalisations: Vec<String>,
}

/// The path of a variable below the model's object in a TF2 checkpoint, such as `resnet_model/…/kernel`; `None` for a name that is
/// none of the network's.
pub fn tf2_paths(network: &Network, names: &[String]) -> Vec<Option<String>> {
    let paths = Paths::of(network);
    names.iter().map(|name| paths.find(name)).collect()
}

impl Paths {
    fn of(network: &Network) -> Self {
        let mut paths = Paths {
            convolutions: Vec::new(),
            normalisations: Vec::new(),
        };
        paths.stem(network);
        for (group, &count) in network.blocks().iter().enumerate() {
            for block in 0..count {
                let base = format!("block_groups/{group}/layers/{block}");
                let stride = if block == 0 && group > 0 { 2 } else { 1 };
                if block == 0 {
                    paths.shortcut(network, &base, stride);
                }
                if network.bottleneck() {
                    paths.bottleneck(network, &base);
                } else {
                    paths.residual(network, &base);
                }
            }
        }
        paths
    }

    fn convolution(&mut self, path: String) {
        self.convolutions.push(path);
    }

    /// A convolution at a place of a list of layers, and its normalisation at another.
    fn pair(&mut self, list: &str, convolution: usize, normalisation: usize) {
        self.convolution(format!("{list}/{convolution}/conv2d"));
        self.normalisations
            .push(format!("{list}/{normalisation}/bn"));
    }

    fn stem(&mut self, network: &Network) {
        let list = "initial_conv_relu_max_pool";
        if network.sk_ratio > 0.0 && network.image_size > 32 {
            self.pair(list, 0, 1);
            self.pair(list, 2, 3);
            self.pair(list, 4, 6);
        } else {
            self.pair(list, 0, 2);
        }
    }

    fn shortcut(&mut self, network: &Network, base: &str, stride: usize) {
        let list = if network.bottleneck() {
            "projection_layers"
        } else {
            "shortcut_layers"
        };
        // ResNet-D pools first, and pads before it where it strides.
        let at = if network.sk_ratio > 0.0 { stride } else { 0 };
        self.pair(&format!("{base}/{list}"), at, at + 1);
    }

    fn bottleneck(&mut self, network: &Network, base: &str) {
        let list = format!("{base}/conv_relu_dropblock_layers");
        self.pair(&list, 0, 1);
        let squeeze = if network.sk_ratio > 0.0 {
            let unit = format!("{list}/3");
            self.convolution(format!("{unit}/conv2d_fixed_padding/conv2d"));
            self.normalisations
                .push(format!("{unit}/batch_norm_relu/bn"));
            self.convolution(format!("{unit}/conv2d_0"));
            self.normalisations
                .push(format!("{unit}/batch_norm_relu_1/bn"));
            self.convolution(format!("{unit}/conv2d_1"));
            self.pair(&list, 5, 6);
            8
        } else {
            self.pair(&list, 3, 4);
            self.pair(&list, 6, 7);
            9
        };
        self.squeeze_excite(network, &format!("{list}/{squeeze}"));
    }

    fn residual(&mut self, network: &Network, base: &str) {
        let list = format!("{base}/conv2d_bn_layers");
        self.pair(&list, 0, 1);
        self.pair(&list, 2, 3);
        self.squeeze_excite(network, &format!("{base}/se_layer"));
    }

    fn squeeze_excite(&mut self, network: &Network, unit: &str) {
        if network.se_ratio > 0.0 {
            self.convolution(format!("{unit}/se_reduce"));
            self.convolution(format!("{unit}/se_expand"));
        }
    }

    fn find(&self, name: &str) -> Option<String> {
        let (layer, part) = name.rsplit_once('/')?;
        if let Some(layer) = layer.strip_prefix("base_model/") {
            let path = match number(layer, "conv2d") {
                Some(at) => self.convolutions.get(at)?,
                None => self
                    .normalisations
                    .get(number(layer, "batch_normalization")?)?,
            };
            return Some(format!("resnet_model/{path}/{part}"));
        }
        if let Some(layer) = layer.strip_prefix("head_contrastive/") {
            let (at, kind) = layer.split_once('/')?;
            let at = at.strip_prefix("nl_").or(at.strip_prefix("l_"))?;
            let kind = match kind {
                "dense" => "dense",
                "batch_normalization" => "bn_relu/bn",
                _ => return None,
            };
            return Some(format!("_projection_head/linear_layers/{at}/{kind}/{part}"));
        }
        (layer == "head_supervised/linear_layer/dense")
            .then(|| format!("supervised_head/linear_layer/dense/{part}"))
    }
}

/// The number of a layer called `stem`, `stem_1`, …
fn number(layer: &str, stem: &str) -> Option<usize> {
    match layer.strip_prefix(stem)? {
        "" => Some(0),
        rest => rest.strip_prefix('_')?.parse().ok(),
    }
}
