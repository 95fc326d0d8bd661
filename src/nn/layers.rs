//! Convolutions, dense layers, pools, squeeze-excite, selective kernels (reference §3).

use super::pairs::block_diagonal;
use super::{Builder, Init, Kind};
use crate::hlo::{Conv, DType, Monoid, PadDim, Shape, Value, WindowDim};

impl<'g> Builder<'g> {
    /// Convolution k×k with the original's fixed padding (reference §3), without bias: `[B, H, W, C]` → `[B, ⌈H/s⌉, ⌈W/s⌉, filters]`.
    pub fn conv(&mut self, x: Value<'g>, filters: i64, size: i64, stride: i64) -> Value<'g> {
        self.convolution(x, filters, size, stride, false)
    }

    fn convolution(
        &mut self,
        x: Value<'g>,
        filters: i64,
        size: i64,
        stride: i64,
        with_bias: bool,
    ) -> Value<'g> {
        let name = Self::numbered(&mut self.convolutions, "conv2d");
        let graph = self.graph();
        let _scope = graph.scope(name.as_str());
        let inputs = x.dim(3) / self.beside;
        let (_, kernel) = self.variable(
            &format!("{name}/kernel"),
            &[size, size, inputs, filters],
            Kind::ConvKernel,
            Init::TruncatedNormal {
                fan_in: size * size * inputs,
            },
        );
        let activations = self.settings().activations;
        // Stride 1 pads evenly; larger strides pad (k − 1) div 2 before and the rest after, whatever the input's size.
        let low = (size - 1) / 2;
        let window = WindowDim::new(size, stride, low, size - 1 - low);
        let kernel = block_diagonal(kernel.convert(activations), self.beside);
        let y = x
            .convert(activations)
            .convolve(kernel, Conv::nhwc(vec![window; 2]));
        if !with_bias {
            return y;
        }
        let (_, bias) = self.variable(
            &format!("{name}/bias"),
            &[filters],
            Kind::Bias,
            Init::Constant(0.0),
        );
        y + bias.convert(activations).broadcast_trailing(&y.dims())
    }

    /// Dense layer `[B, in]` → `[B, out]`, computed in `dtype`.
    pub fn dense(
        &mut self,
        name: &str,
        x: Value<'g>,
        outputs: i64,
        with_bias: bool,
        dtype: DType,
    ) -> Value<'g> {
        let graph = self.graph();
        let _scope = graph.scope(name);
        let (_, kernel) = self.variable(
            &format!("{name}/kernel"),
            &[x.dim(1), outputs],
            Kind::DenseKernel,
            Init::Normal(0.01),
        );
        let y = x.convert(dtype).matmul(kernel.convert(dtype));
        if !with_bias {
            return y;
        }
        let (_, bias) = self.variable(
            &format!("{name}/bias"),
            &[outputs],
            Kind::Bias,
            Init::Constant(0.0),
        );
        y + bias.convert(dtype).broadcast_trailing(&y.dims())
    }

    /// Batch normalisation and ReLU.
    pub fn batch_norm_relu(&mut self, x: Value<'g>) -> Value<'g> {
        relu(self.batch_norm(x, 1.0, true))
    }

    /// Squeeze-excite on a block's output (reference §3.9); `filters` is the block's base width.
    pub fn squeeze_excite(&mut self, x: Value<'g>, filters: i64, ratio: f64) -> Value<'g> {
        let _scope = self.graph().scope("squeeze_excite");
        let squeezed = ((filters as f64 * ratio) as i64).max(1);
        let pooled = spatial_mean(x);
        let hidden = relu(self.convolution(pooled, squeezed, 1, 1, true));
        let gate = self.convolution(hidden, x.dim(3), 1, 1, true).logistic();
        x * spread_pixels(gate, x)
    }

    /// Selective kernel unit in place of a block's 3×3 convolution (reference §3.8).
    pub fn selective_kernel(
        &mut self,
        x: Value<'g>,
        filters: i64,
        stride: i64,
        ratio: f64,
    ) -> Value<'g> {
        let graph = self.graph();
        let _scope = graph.scope("selective_kernel");
        let both = self.conv(x, 2 * filters, 3, stride);
        let both = self.batch_norm_relu(both);
        let halves = |v: Value<'g>| {
            (
                v.slice_dim(3, 0, filters),
                v.slice_dim(3, filters, 2 * filters),
            )
        };
        let (first, second) = halves(both);
        let pooled = spatial_mean(first + second);
        let middle = ((filters as f64 * ratio) as i64).max(32);
        let hidden = self.conv(pooled, middle, 1, 1);
        let hidden = self.batch_norm_relu(hidden);
        let logits = self.conv(hidden, 2 * filters, 1, 1);
        let (logit_first, logit_second) = halves(logits);
        // A softmax over two streams is a logistic of their difference.
        let share_first = (logit_first - logit_second).logistic();
        let share_second = (logit_second - logit_first).logistic();
        first * spread_pixels(share_first, first) + second * spread_pixels(share_second, second)
    }
}

/// max(x, 0).
pub fn relu(x: Value) -> Value {
    x.max(0.0)
}

/// Mean over height and width, kept as 1×1.
fn spatial_mean(x: Value) -> Value {
    let (batch, channels) = (x.dim(0), x.dim(3));
    global_mean(x).reshape(&[batch, 1, 1, channels])
}

/// `[B, 1, 1, C]` over all pixels of `like`.
fn spread_pixels<'g>(gate: Value<'g>, like: Value<'g>) -> Value<'g> {
    let (batch, channels) = (gate.dim(0), gate.dim(3));
    gate.reshape(&[batch, channels])
        .broadcast_in_dim(&like.dims(), &[0, 3])
}

/// Mean over height and width: `[B, H, W, C]` → `[B, C]`.
pub fn global_mean(x: Value) -> Value {
    x.mean(&[1, 2])
}

/// Padding of a window that gives ⌈n / stride⌉ outputs, before and after; the odd cell is after.
pub fn same_padding(n: i64, size: i64, stride: i64) -> (i64, i64) {
    let outputs = (n + stride - 1) / stride;
    let total = ((outputs - 1) * stride + size - n).max(0);
    (total / 2, total - total / 2)
}

fn same(n: i64, size: i64, stride: i64) -> WindowDim {
    let (low, high) = same_padding(n, size, stride);
    WindowDim::new(size, stride, low, high)
}

fn pixels(x: Value, dim: impl Fn(i64) -> WindowDim) -> Vec<WindowDim> {
    vec![
        WindowDim::identity(),
        dim(x.dim(1)),
        dim(x.dim(2)),
        WindowDim::identity(),
    ]
}

/// Largest of each k×k window, padded at the end first.
pub fn max_pool_same(x: Value, size: i64, stride: i64) -> Value {
    x.reduce_window(Monoid::Maximum, &pixels(x, |n| same(n, size, stride)))
}

/// The 2×2 average of a ResNet-D shortcut (reference §3.8). Stride 2 pads a row and column of zeros at the end, which count;
/// stride 1 pads at the end and leaves the padding out of the divisor.
pub fn shortcut_pool(x: Value, stride: i64) -> Value {
    if stride > 1 {
        let end = PadDim {
            low: 0,
            high: 1,
            interior: 0,
        };
        let padded = x.pad(0.0, &[PadDim::default(), end, end, PadDim::default()]);
        let window = pixels(padded, |_| WindowDim::new(2, stride, 0, 0));
        return padded.reduce_window(Monoid::Add, &window) * 0.25;
    }
    let sums = x.reduce_window(Monoid::Add, &pixels(x, |n| same(n, 2, 1)));
    // The divisor depends on the pixel alone; as a whole array it would take the compiler seconds to fold.
    let one_image = x
        .graph()
        .full(&Shape::new(x.dtype(), [1, x.dim(1), x.dim(2), 1]), 1.0);
    let cells = one_image
        .reduce_window(Monoid::Add, &pixels(one_image, |n| same(n, 2, 1)))
        .reshape(&[x.dim(1), x.dim(2)]);
    sums / cells.broadcast_in_dim(&x.dims(), &[1, 2])
}
