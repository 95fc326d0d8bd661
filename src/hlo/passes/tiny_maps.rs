//! Convolutions over maps smaller than their window, as matrix products.
//!
//! XLA exchanges image and window of such a convolution, and inside a loop the CPU plugin has only scalar code for the result: three
//! layers on 2×2 maps took a third of a narrow network's step. On a tiny map nearly every pixel meets every other, so one product
//! [images, pixels · channels] × [pixels · channels, pixels · channels] does the same work.

use crate::hlo::{Conv, ConvDims, Error, Literal, Module, Op, Shape, Value};

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    module.rewrite(&|_, node, operands| match &node.op {
        Op::Convolution(conv) if applies(conv, operands[0], operands[1]) => {
            Some(product(conv, operands[0], operands[1]))
        }
        _ => None,
    })
}

fn applies(conv: &Conv, x: Value, kernel: Value) -> bool {
    let area = |value: Value, first: usize| value.dim(first) * value.dim(first + 1);
    conv.window.len() == 2
        && conv.dims == ConvDims::nhwc()
        && conv.feature_groups == 1
        && conv.batch_groups == 1
        && conv.window.iter().all(|w| w.stride == 1)
        && area(x, 1) < area(kernel, 0)
}

fn product<'g>(conv: &Conv, x: Value<'g>, kernel: Value<'g>) -> Value<'g> {
    let graph = x.graph();
    let (n, inputs, outputs) = (x.dim(0), kernel.dim(2), kernel.dim(3));
    let (size, taps) = ([x.dim(1), x.dim(2)], [kernel.dim(0), kernel.dim(1)]);
    let out = [0, 1].map(|i| conv.window[i].output(size[i]));
    // The tap by which each input pixel reaches each output pixel; the one behind the last is zero.
    let none = taps[0] * taps[1];
    let mut chosen = Vec::new();
    for (iy, ix) in pairs(size) {
        for (oy, ox) in pairs(out) {
            let along = [(iy, oy), (ix, ox)];
            let tap = [0, 1].map(|i| tap(conv, i, along[i].0, along[i].1));
            chosen.push(match tap {
                [Some(ky), Some(kx)] => (ky * taps[1] + kx) as i32,
                _ => none as i32,
            });
        }
    }
    let (seen, made) = (size[0] * size[1], out[0] * out[1]);
    let flat = kernel.reshape(&[none, inputs * outputs]);
    let nothing = graph.zeros(&Shape::new(kernel.dtype(), [1, inputs * outputs]));
    let with_zero = graph.concatenate(&[flat, nothing], 0);
    let chosen = graph.constant(Literal::new(&[seen * made], &chosen));
    let matrix = with_zero
        .take_rows(chosen)
        .reshape(&[seen, made, inputs, outputs])
        .transpose(&[0, 2, 1, 3])
        .reshape(&[seen * inputs, made * outputs]);
    x.reshape(&[n, seen * inputs])
        .matmul(matrix)
        .reshape(&[n, out[0], out[1], outputs])
}

/// The tap of dimension `i` that takes input cell `input` to output cell `output`.
fn tap(conv: &Conv, i: usize, input: i64, output: i64) -> Option<i64> {
    let w = &conv.window[i];
    let distance = w.low + input * w.base_dilation - output;
    let tap = distance.div_euclid(w.window_dilation);
    let fits = distance % w.window_dilation == 0 && (0..w.size).contains(&tap);
    fits.then_some(tap)
}

fn pairs(size: [i64; 2]) -> impl Iterator<Item = (i64, i64)> {
    (0..size[0]).flat_map(move |y| (0..size[1]).map(move |x| (y, x)))
}
