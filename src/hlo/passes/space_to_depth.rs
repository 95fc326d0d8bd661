//! Strided convolutions over few channels as convolutions at stride 1 over cells of pixels: a stem's 7×7 window at stride 2 over three
//! channels is one of 4×4 over sixteen channels, those of 2×2 pixels with three channels and a zero each.
//!
//! A GPU's matrix units take channels eight or sixteen at a time. cuDNN pads three channels in a copy of the images of its own, and
//! gathers their pixels slowly all the same.

use super::own_loops::of_kernel_gradient;
use crate::hlo::{Conv, ConvDims, Error, Module, Op, PadDim, Value, WindowDim};

/// Channels up to which it applies: those of pictures, and one more.
const CHANNELS: i64 = 4;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    module.rewrite(&|_, node, operands| match &node.op {
        Op::Convolution(conv) if is_plain(conv) && operands[0].dim(3) <= CHANNELS => {
            forward(conv, operands[0], operands[1])
                .or_else(|| gradient(conv, operands[0], operands[1]))
        }
        _ => None,
    })
}

/// Two directions, no groups.
fn is_plain(conv: &Conv) -> bool {
    conv.window.len() == 2 && conv.feature_groups == 1 && conv.batch_groups == 1
}

fn forward<'g>(conv: &Conv, x: Value<'g>, kernel: Value<'g>) -> Option<Value<'g>> {
    let dilated = |w: &WindowDim| w.base_dilation != 1 || w.window_dilation != 1;
    if conv.dims != ConvDims::nhwc() || conv.window.iter().any(dilated) {
        return None;
    }
    let [down, across] = [0, 1].map(|i| {
        let w = &conv.window[i];
        Cells::new(w.size, w.stride, w.low, w.output(x.dim(i + 1)))
    });
    let (down, across) = (down?, across?);
    let image = of_image(x, &down, &across);
    let taps = kernel.pad(
        0.0,
        &[
            down.kernel(),
            across.kernel(),
            channels(x),
            PadDim::default(),
        ],
    );
    let taps = gathered(taps, 0, &down, &across);
    let window = [&down, &across].map(|cells| WindowDim::new(cells.taps, 1, 0, 0));
    Some(image.convolve(taps, Conv::nhwc(window.to_vec())))
}

/// The gradient of the kernel of such a convolution: a convolution whose window is all outputs, `stride` pixels apart.
fn gradient<'g>(conv: &Conv, x: Value<'g>, dy: Value<'g>) -> Option<Value<'g>> {
    let strided = |w: &WindowDim| w.base_dilation != 1 || w.stride != 1;
    if conv.dims != of_kernel_gradient() || conv.window.iter().any(strided) {
        return None;
    }
    let [down, across] = [0, 1].map(|i| {
        let w = &conv.window[i];
        Cells::new(w.output(x.dim(i + 1)), w.window_dilation, w.low, w.size)
    });
    let (down, across) = (down?, across?);
    let image = of_image(x, &down, &across);
    let window = [&down, &across].map(|cells| WindowDim::new(cells.outputs, 1, 0, 0));
    let window = Conv {
        window: window.to_vec(),
        ..conv.clone()
    };
    let found = image.convolve(dy, window);
    let (front, inputs, outputs) = ([down.front, across.front], x.dim(3), dy.dim(3));
    let wide = inputs + channels(x).high;
    let split = [
        down.taps,
        across.taps,
        down.stride,
        across.stride,
        wide,
        outputs,
    ];
    let together = [
        down.taps * down.stride,
        across.taps * across.stride,
        wide,
        outputs,
    ];
    let kernel = found.reshape(&split).transpose(&[0, 2, 1, 3, 4, 5]);
    let limit = [
        front[0] + down.size,
        front[1] + across.size,
        inputs,
        outputs,
    ];
    Some(
        kernel
            .reshape(&together)
            .slice(&[front[0], front[1], 0, 0], &limit, &[1; 4]),
    )
}

/// One direction of a convolution: output `o` meets pixel `stride·o + i − low` at tap `i`, which is pixel `(i − low) mod stride` of cell
/// `o + ⌊(i − low) / stride⌋`.
struct Cells {
    /// The window in pixels.
    size: i64,
    /// Pixels in a cell.
    stride: i64,
    outputs: i64,
    /// The cell in which the window of output 0 begins; negative where that is padding.
    first: i64,
    /// The window in cells.
    taps: i64,
    /// Pixels of the window's first cell before the window.
    front: i64,
}

impl Cells {
    /// None where the window is no longer than a cell, the stride 1, or there is no output.
    fn new(size: i64, stride: i64, low: i64, outputs: i64) -> Option<Self> {
        let first = (-low).div_euclid(stride.max(1));
        let taps = (size - 1 - low).div_euclid(stride.max(1)) - first + 1;
        (stride > 1 && size > stride && outputs > 0).then_some(Cells {
            size,
            stride,
            outputs,
            first,
            taps,
            front: -low - stride * first,
        })
    }

    /// What makes so many pixels the cells that the outputs meet.
    fn image(&self, pixels: i64) -> PadDim {
        let low = -self.first * self.stride;
        PadDim {
            low,
            high: self.stride * (self.outputs - 1 + self.taps) - low - pixels,
            interior: 0,
        }
    }

    /// What makes the window whole cells.
    fn kernel(&self) -> PadDim {
        PadDim {
            low: self.front,
            high: self.taps * self.stride - self.front - self.size,
            interior: 0,
        }
    }
}

/// What makes channels a power of two.
fn channels(x: Value) -> PadDim {
    let found = x.dim(3).max(1);
    PadDim {
        low: 0,
        high: found.unsigned_abs().next_power_of_two() as i64 - found,
        interior: 0,
    }
}

/// `[n, h, w, c]` → `[n, cells, cells, pixels of a cell · channels]`.
fn of_image<'g>(x: Value<'g>, down: &Cells, across: &Cells) -> Value<'g> {
    let around = [
        PadDim::default(),
        down.image(x.dim(1)),
        across.image(x.dim(2)),
        channels(x),
    ];
    gathered(x.pad(0.0, &around), 1, down, across)
}

/// The pixels of each cell among the dimension behind those two, of which `at` is the first.
fn gathered<'g>(x: Value<'g>, at: usize, down: &Cells, across: &Cells) -> Value<'g> {
    let dims = x.dims();
    let (height, width, behind) = (
        dims[at] / down.stride,
        dims[at + 1] / across.stride,
        dims[at + 2],
    );
    let cells = [height, down.stride, width, across.stride, behind];
    let order = [0, 2, 1, 3, 4].map(|d| d + at as i64);
    let with = |middle: &[i64]| [&dims[..at], middle, &dims[at + 3..]].concat();
    let rank = dims.len() as i64 + 2;
    let order: Vec<i64> = (0..at as i64)
        .chain(order)
        .chain(at as i64 + 5..rank)
        .collect();
    x.reshape(&with(&cells)).transpose(&order).reshape(&with(&[
        height,
        width,
        down.stride * across.stride * behind,
    ]))
}
