//! Convolutions of 3×3 kernels at stride 1, and their gradients, by Winograd's minimal filtering `F(2×2, 3×3)`, where that pays.
//!
//! A ResNet-18 has seven eighths of its products in such convolutions.

use super::own_loops::{call, is_plain, of_input_gradient, of_kernel_gradient};
use crate::hlo::{Conv, ConvDims, Error, Module, Op, Type, Value};

/// The loop of convolutions, forward and of the input's gradient. The number is that of the order of its sums, so that a program which sums in
/// another order is another program: a run that goes on with one says so.
pub const WINOGRAD_LOOP: &str = "simclr.winograd.1";
/// The loop of kernels' gradients; the number as above.
pub const WINOGRAD_GRADIENT_LOOP: &str = "simclr.winograd_gradient.1";

/// Taps of a kernel along a dimension.
const TAPS: i64 = 3;
/// Products of a tile for each input and output.
const POINTS: i64 = 16;

/// What the transforms take, as products that take as long: for each channel of a tile on either side, and for each number of the kernel. By them,
/// and by the sums below, the rule of [`pays`] was fitted to what the shapes of ResNets take on a core with AVX-512 (docs/benchmarks.md): on the safe side
/// from 64 channels on, while with 16 to 32 some of what is taken takes up to a tenth longer. With AVX2 both take longer; a program does not depend on which there is.
const TILE: i64 = 180;
const KERNEL: i64 = 250;
/// Products at a point of a tile for which a kernel's gradient reads and writes their sum, in the time of another one.
const SUMS: i64 = 10;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    let replicas = module.replicas as i64;
    module.rewrite(&|_, node, operands| match (&node.op, &node.ty) {
        (Op::Convolution(conv), Type::Array(shape)) if is_plain(conv, operands, shape) => {
            let of_kernel = conv.dims == of_kernel_gradient();
            let second = operands[1].dims();
            let (kernel, outputs) = match of_kernel {
                true => (&shape.dims, &second),
                false => (&second, &shape.dims),
            };
            let at_stride_1 = conv
                .window
                .iter()
                .all(|w| [w.stride, w.base_dilation, w.window_dilation] == [1, 1, 1]);
            let fits = at_stride_1 && kernel[..2] == [TAPS, TAPS];
            let maps = [operands[0].dims()[1], operands[0].dims()[2]];
            if !(fits && pays(of_kernel, maps, kernel, outputs, replicas)) {
                return None;
            }
            let low = [conv.window[0].low, conv.window[1].low];
            let low = [("low_rows", low[0]), ("low_columns", low[1])];
            if of_kernel {
                let operands = [operands[0], operands[1]];
                return Some(call(WINOGRAD_GRADIENT_LOOP, &low, operands, shape));
            }
            let (kernel, turned) = kernel_of(conv, operands[1])?;
            let numbers = [("turned", turned), low[0], low[1]];
            Some(call(WINOGRAD_LOOP, &numbers, [operands[0], kernel], shape))
        }
        _ => None,
    })
}

/// The HWIO kernel that is convolved with, or that of which it is the turned one.
fn kernel_of<'g>(conv: &Conv, kernel: Value<'g>) -> Option<(Value<'g>, i64)> {
    if conv.dims == ConvDims::nhwc() {
        return Some((kernel, 0));
    }
    if conv.dims != of_input_gradient() {
        return None;
    }
    match &kernel.node().op {
        Op::Reverse { dims } if dims[..] == [0, 1] => {
            let source = kernel.node().operands[0];
            Some((kernel.graph().value(source), 1))
        }
        _ => Some((kernel.transpose(&[0, 1, 3, 2]), 0)),
    }
}

/// Whether products, transforms and sums take less time than the products of the sum as it is written down. The kernel's channels are inputs and
/// outputs, whichever are which.
fn pays(of_kernel: bool, maps: [i64; 2], kernel: &[i64], outputs: &[i64], replicas: i64) -> bool {
    let (images, maps_of_outputs) = (outputs[0] * replicas, [outputs[1], outputs[2]]);
    let tiles: i64 = maps_of_outputs.iter().map(|side| (side + 1) / 2).product();
    // The gradient's loop leaves out the border, the other one multiplies it.
    let met: i64 = (0..2)
        .map(|i| match of_kernel {
            true => TAPS * maps_of_outputs[i] - if maps[i] == maps_of_outputs[i] { 2 } else { 0 },
            false => TAPS * maps_of_outputs[i],
        })
        .product();
    let (channels, products) = (kernel[2] + kernel[3], kernel[2] * kernel[3]);
    let sums = if of_kernel {
        POINTS * products / SUMS
    } else {
        0
    };
    let tile = POINTS * products + sums + TILE * channels;
    images * tiles * tile + KERNEL * products <= images * met * products
}
