//! Gradients of narrow kernels as one matrix product of shifted copies.
//!
//! The CPU plugin runs the gradient of a kernel as a convolution whose window is the whole map: it transposes both operands and packs
//! the image again for every tap. Here the image is copied once for each column of taps, the output's gradient once for each row of
//! taps, and a single product [columns of taps · inputs, pixels] × [pixels, rows of taps · outputs] holds every tap. With a stride the
//! image's rows go to as many classes, so that nothing is multiplied by zeros. With many channels the product takes most of the time
//! whichever way; `docs/benchmarks.md` has the shapes that were measured.

use super::own_loops::of_kernel_gradient;
use crate::hlo::{Conv, DotDims, Error, Module, Op, PadDim, Value};

/// Inputs up to which it pays. (With a stride it is somewhat faster up to 128, but the copies take memory.)
const INPUTS: i64 = 32;

/// Taps in a direction up to which it was measured; the copies of larger windows take memory.
const TAPS: i64 = 3;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    module.rewrite(&|_, node, operands| match &node.op {
        Op::Convolution(conv) if applies(conv, operands[0]) => {
            Some(product(conv, operands[0], operands[1]))
        }
        _ => None,
    })
}

fn applies(conv: &Conv, x: Value) -> bool {
    let [rows, columns] = &conv.window[..] else {
        return false;
    };
    conv.dims == of_kernel_gradient()
        && conv.feature_groups == 1
        && conv.batch_groups == 1
        && rows.window_dilation == columns.window_dilation
        && x.dim(3) <= INPUTS
        && [(rows, x.dim(1)), (columns, x.dim(2))]
            .iter()
            .all(|(w, size)| {
                let taps = w.output(*size);
                w.stride == 1
                    && w.base_dilation == 1
                    && (0..taps).contains(&w.low)
                    && (2..=TAPS.min(w.size)).contains(&taps)
            })
}

fn product<'g>(conv: &Conv, x: Value<'g>, dy: Value<'g>) -> Value<'g> {
    let graph = x.graph();
    let (inputs, outputs) = (x.dim(3), dy.dim(3));
    let [rows, columns] = [0, 1].map(|i| &conv.window[i]);
    let (height, width) = (x.dim(1), x.dim(2));
    let taps = [rows.output(height), columns.output(width)];
    let stride = rows.window_dilation;
    // Padded row `stride · block + class` meets output row `block − shift` at tap `stride · shift + class`.
    let shifts = (taps[0] + stride - 1) / stride;
    // Blocks that have a row of the image.
    let first = rows.low / stride;
    let last = (rows.size + shifts - 1).min((height + rows.low - 1) / stride + 1);
    let blocks = last - first;
    let (x, dy) = (x.fence(), dy.fence());
    let mut images = Vec::new();
    for class in 0..stride {
        for tap in 0..taps[1] {
            let down = cut(height, rows.low - first * stride - class, blocks, stride);
            let across = cut(width, columns.low - tap, columns.size, stride);
            images.push(piece(x, [down, across], stride));
        }
    }
    let gradients: Vec<Value> = (0..shifts)
        .map(|shift| {
            let down = cut(rows.size, shift - first, blocks, 1);
            let across = cut(columns.size, 0, columns.size, 1);
            piece(dy, [down, across], 1)
        })
        .collect();
    let pixels = x.dim(0) * blocks * columns.size;
    let flat = |pieces: &[Value<'g>], channels: i64| {
        graph
            .concatenate(pieces, 3)
            .reshape(&[pixels, pieces.len() as i64 * channels])
            .fence()
    };
    let dims = DotDims {
        lhs_contracting: vec![0],
        rhs_contracting: vec![0],
        ..DotDims::default()
    };
    flat(&images, inputs)
        .dot_general(flat(&gradients, outputs), dims)
        .reshape(&[stride, taps[1], inputs, shifts, outputs])
        .transpose(&[3, 0, 1, 2, 4])
        .reshape(&[shifts * stride, taps[1], inputs, outputs])
        .slice_dim(0, 0, taps[0])
}

/// Padding, negative where cells are left out, such that every `stride`-th of what remains of `size` cells makes `count`.
fn cut(size: i64, low: i64, count: i64, stride: i64) -> PadDim {
    PadDim {
        low,
        high: (count - 1) * stride + 1 - low - size,
        interior: 0,
    }
}

/// Some rows and columns of images, with a dimension of one before the channels.
fn piece<'g>(x: Value<'g>, [down, across]: [PadDim; 2], stride: i64) -> Value<'g> {
    let padded = x.pad(0.0, &[PadDim::default(), down, across, PadDim::default()]);
    let taken = padded.slice(&[0; 4], &padded.dims(), &[1, stride, stride, 1]);
    let dims = taken.dims();
    taken.reshape(&[dims[0], dims[1], dims[2], 1, dims[3]])
}
