//! The ResNet encoder (reference §3.1 to §3.3).

use super::Network;
use crate::hlo::Value;
use crate::nn::{Builder, Remat, Settings, global_mean, relu, shortcut_pool};

/// The depths there are.
pub const DEPTHS: [usize; 7] = [10, 18, 34, 50, 101, 152, 200];

/// Blocks per group of each depth.
pub(super) fn blocks(depth: usize) -> Option<[usize; 4]> {
    Some(match depth {
        10 => [1, 1, 1, 1],
        18 => [2, 2, 2, 2],
        34 | 50 => [3, 4, 6, 3],
        101 => [3, 4, 23, 3],
        152 => [3, 8, 36, 3],
        200 => [3, 24, 36, 3],
        _ => return None,
    })
}

/// Whether a depth uses bottleneck blocks.
pub(super) fn bottleneck(depth: usize) -> bool {
    depth >= 50
}

impl Network {
    /// No gradient reaches what comes before group `after_block` + 1 (reference §3.7); −1 stops none.
    pub(super) fn encode<'g>(
        &self,
        builder: &mut Builder<'g>,
        images: Value<'g>,
        after_block: i64,
        endpoints: &mut Vec<(String, Value<'g>)>,
    ) -> Value<'g> {
        let graph = builder.graph();
        let _scope = graph.scope("encoder");
        builder.part("base_model");
        let frozen = |x: Value<'g>, group: i64| {
            if group == after_block {
                x.stop_gradient()
            } else {
                x
            }
        };
        let all = builder.settings().remat == Remat::Full;
        let mut x = images;
        if self.pairs(builder.settings()) {
            x = builder.pair(x);
        }
        let (begin, input) = (builder.begin(), x);
        x = self.stem(builder, x, endpoints);
        if all {
            let network = self.clone();
            x = builder.again(begin, input, x, move |builder, images| {
                network.stem(builder, images, &mut Vec::new())
            });
        }
        endpoints.push(("initial_max_pool".into(), builder.apart(x)));
        x = frozen(x, 0);
        for group in 0..4 {
            let _scope = graph.scope(format!("block_group{}", group + 1));
            let begin = builder.begin();
            let input = x;
            x = self.group(builder, x, group, endpoints);
            if all {
                let network = self.clone();
                x = builder.again(begin, input, x, move |builder, input| {
                    network.group(builder, input, group, &mut Vec::new())
                });
            }
            // From the second group on, there are channels enough.
            x = builder.unpair(x);
            endpoints.push((format!("block_group{}", group + 1), x));
            x = frozen(x, group as i64 + 1);
        }
        let h = global_mean(x.convert(builder.settings().dtype));
        endpoints.push(("final_avg_pool".into(), h));
        h
    }

    /// Whether stem and first group take images in pairs: where they have so few channels that a TPU would fill up as many. (What
    /// selective kernels and squeeze-excite do with channels is not written for pairs.)
    fn pairs(&self, settings: &Settings) -> bool {
        let plain = self.sk_ratio <= 0.0 && self.se_ratio <= 0.0;
        settings.paired && settings.training && plain && self.width(64) <= 64
    }

    /// All blocks of a group, numbered from 0.
    fn group<'g>(
        &self,
        builder: &mut Builder<'g>,
        mut x: Value<'g>,
        group: usize,
        endpoints: &mut Vec<(String, Value<'g>)>,
    ) -> Value<'g> {
        let graph = builder.graph();
        let filters = self.width(64 << group);
        let counts = blocks(self.resnet_depth).unwrap_or([0; 4]);
        for unit in 0..counts[group] {
            let _scope = graph.scope(format!("unit_{}", unit + 1));
            let stride = if unit == 0 && group > 0 { 2 } else { 1 };
            let project = unit == 0;
            let begin = builder.begin();
            let input = x;
            x = self.block(builder, x, filters, stride, project);
            if builder.settings().remat != Remat::None {
                let network = self.clone();
                x = builder.again(begin, input, x, move |builder, input| {
                    network.block(builder, input, filters, stride, project)
                });
            }
            let name = format!("block_group{}/block{}", group + 1, unit);
            endpoints.push((name, builder.apart(x)));
        }
        x
    }

    fn stem<'g>(
        &self,
        builder: &mut Builder<'g>,
        images: Value<'g>,
        endpoints: &mut Vec<(String, Value<'g>)>,
    ) -> Value<'g> {
        let _scope = builder.graph().scope("stem");
        let width = self.width(64);
        if self.image_size <= 32 {
            let x = builder.conv(images, width, 3, self.stem_stride as i64);
            endpoints.push(("initial_conv".into(), builder.apart(x)));
            return builder.batch_norm_relu(x);
        }
        let x = if self.sk_ratio > 0.0 {
            let x = builder.conv(images, width / 2, 3, 2);
            let x = builder.batch_norm_relu(x);
            let x = builder.conv(x, width / 2, 3, 1);
            let x = builder.batch_norm_relu(x);
            builder.conv(x, width, 3, 1)
        } else {
            builder.conv(images, width, 7, 2)
        };
        endpoints.push(("initial_conv".into(), builder.apart(x)));
        builder.batch_norm_relu_pool(x, 3, 2)
    }

    /// One residual or bottleneck block of base width `filters`: `[B, H, W, C]` → `[B, ⌈H/stride⌉, ⌈W/stride⌉, filters]`, four times
    /// as wide for a bottleneck (reference §3.2). The first of each group projects its shortcut, also where shapes already match.
    pub fn block<'g>(
        &self,
        builder: &mut Builder<'g>,
        x: Value<'g>,
        filters: i64,
        stride: i64,
        project: bool,
    ) -> Value<'g> {
        let deep = bottleneck(self.resnet_depth);
        let width = if deep { 4 * filters } else { filters };
        let shortcut = if project {
            let _scope = builder.graph().scope("shortcut");
            if self.sk_ratio > 0.0 {
                builder.conv_batch_norm(shortcut_pool(x, stride), width, 1.0)
            } else if stride == 1 {
                builder.conv_batch_norm(x, width, 1.0)
            } else {
                let projected = builder.conv(x, width, 1, stride);
                builder.batch_norm(projected, 1.0, true)
            }
        } else {
            x
        };
        let mut y = if deep {
            let y = builder.conv(x, filters, 1, 1);
            let y = builder.batch_norm_relu(y);
            let y = if self.sk_ratio > 0.0 {
                builder.selective_kernel(y, filters, stride, self.sk_ratio)
            } else {
                let y = builder.conv(y, filters, 3, stride);
                builder.batch_norm_relu(y)
            };
            // The last scale of a block starts at 0: every block starts as its shortcut.
            builder.conv_batch_norm(y, width, 0.0)
        } else {
            let y = builder.conv(x, filters, 3, stride);
            let y = builder.batch_norm_relu(y);
            let y = builder.conv(y, filters, 3, 1);
            builder.batch_norm(y, 0.0, true)
        };
        if self.se_ratio > 0.0 {
            y = builder.squeeze_excite(y, filters, self.se_ratio);
        }
        relu(y + shortcut)
    }
}
