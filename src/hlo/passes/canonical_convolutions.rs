//! Convolutions with NHWC activations and HWIO kernels, by explicit transposes.
//!
//! The CPU plugin reorders the dimensions of a convolution only in the entry computation; inside a while loop a backward
//! convolution with other dimension numbers falls to scalar code.

use crate::hlo::{Conv, ConvDims, Error, Module, Op, Value};

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    module.rewrite(&|_, node, operands| match &node.op {
        Op::Convolution(conv) if conv.window.len() == 2 && conv.dims != ConvDims::nhwc() => {
            Some(canonical(conv, operands[0], operands[1]))
        }
        _ => None,
    })
}

fn canonical<'g>(conv: &Conv, x: Value<'g>, kernel: Value<'g>) -> Value<'g> {
    let n = &conv.dims;
    let x = reordered(
        x,
        &[
            n.input_batch,
            n.input_spatial[0],
            n.input_spatial[1],
            n.input_feature,
        ],
    );
    let kernel = reordered(
        kernel,
        &[
            n.kernel_spatial[0],
            n.kernel_spatial[1],
            n.kernel_input,
            n.kernel_output,
        ],
    );
    let y = x.convolve(
        kernel,
        Conv {
            dims: ConvDims::nhwc(),
            ..conv.clone()
        },
    );
    // Result dimension `places[i]` is dimension `i` of y.
    let places = [
        n.output_batch,
        n.output_spatial[0],
        n.output_spatial[1],
        n.output_feature,
    ];
    let mut back = [0; 4];
    for (i, &place) in places.iter().enumerate() {
        back[place as usize] = i as i64;
    }
    reordered(y, &back)
}

fn reordered<'g>(x: Value<'g>, permutation: &[i64; 4]) -> Value<'g> {
    if *permutation == [0, 1, 2, 3] {
        x
    } else {
        x.transpose(permutation)
    }
}
