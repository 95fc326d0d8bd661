//! Images side by side in the channels, for devices that store few channels as many: a TPU pads 64 to 128.
//!
//! Between [`Builder::pair`] and [`Builder::unpair`], activations are `[B/2, H, W, 2·C]`: the channels of an image of the first half of
//! the batch, then those of one of the second half. Layers know of it and compute the same from the same variables: a convolution's
//! kernel becomes block-diagonal, statistics are those of both halves, and whatever goes channel by channel is repeated.

use super::Builder;
use crate::hlo::{PadDim, Value};

impl<'g> Builder<'g> {
    /// `[B, H, W, C]` → `[B/2, H, W, 2·C]`, B even, for the layers that follow.
    pub fn pair(&mut self, x: Value<'g>) -> Value<'g> {
        self.beside = 2;
        let images = x.dim(0);
        let halves = [
            x.slice_dim(0, 0, images / 2),
            x.slice_dim(0, images / 2, images),
        ];
        x.graph().concatenate(&halves, 3)
    }

    /// `[B/2, H, W, 2·C]` → `[B, H, W, C]`, for the layers that follow; nothing if they are not paired.
    pub fn unpair(&mut self, x: Value<'g>) -> Value<'g> {
        let x = self.apart(x);
        self.beside = 1;
        x
    }

    /// The images of `x` one by one: `[B, H, W, C]`.
    pub fn apart(&self, x: Value<'g>) -> Value<'g> {
        if self.beside == 1 {
            return x;
        }
        let channels = x.dim(3) / self.beside;
        let images: Vec<Value> = (0..self.beside)
            .map(|i| x.slice_dim(3, i * channels, (i + 1) * channels))
            .collect();
        x.graph().concatenate(&images, 0)
    }
}

/// The kernel that does to each of `beside` images by itself what `kernel` `[k, k, in, out]` does: `[k, k, beside·in, beside·out]`.
pub(super) fn block_diagonal(kernel: Value, beside: i64) -> Value {
    let place = |size: i64, i: i64| PadDim {
        low: i * size,
        high: (beside - 1 - i) * size,
        interior: 0,
    };
    if beside == 1 {
        return kernel;
    }
    let blocks = (0..beside).map(|i| {
        let (inputs, outputs) = (place(kernel.dim(2), i), place(kernel.dim(3), i));
        kernel.pad(
            0.0,
            &[PadDim::default(), PadDim::default(), inputs, outputs],
        )
    });
    blocks.reduce(|sum, block| sum + block).unwrap_or(kernel)
}
