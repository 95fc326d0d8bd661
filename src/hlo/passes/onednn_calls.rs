//! Convolutions and matrix products as calls of the oneDNN that the CPU plugin carries.
//!
//! Convolutions of the forward pass, and of the input's gradient at stride 1. The plugin's own convolution packs image and kernel for a
//! matrix product at every call; oneDNN's reads them as they are. A kernel's gradient has its map as window, for which oneDNN has no fast
//! code; nor is it a call where the map is smaller than the kernel, or where the stride lies between the numbers of its window.
//!
//! Products of two matrices, large ones: the plugin's own packs a transposed operand number by number, and takes up to twice the time.
//!
//! The call is an internal interface of one version of the plugin: an engine makes it only after a test (`engine/internal.rs`).

use crate::hlo::module::called;
use crate::hlo::{
    Computation, Conv, ConvDims, DType, DotDims, Error, Module, Node, Op, Shape, Type, Value,
};

/// What the plugin calls its convolutions.
pub const CONVOLUTION: &str = "__onednn$convolution";
/// And its products of two matrices.
pub const PRODUCT: &str = "__onednn$matmul";

/// Multiplications of a product from which it is a call; others take no time.
const LARGE: i64 = 1 << 22;

/// Multiplications of a program from which it pays. The plugin cannot serialise a program with such calls, so that it is compiled at
/// every start, two seconds more; a program that is small runs for a short time.
const WORTH: i64 = 1 << 29;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    if multiplications(&module.entry) < WORTH {
        return Ok(module.clone());
    }
    every(module)
}

/// The pass of a program of any size.
///
/// # Errors
/// As any rewrite.
pub fn every(module: &Module) -> Result<Module, Error> {
    module.rewrite(&|_, node, operands| match (&node.op, &node.ty) {
        (Op::Convolution(conv), Type::Array(shape))
            if applies(conv, &operands[0].dims(), shape) =>
        {
            let config = convolution(conv);
            Some(call(CONVOLUTION, config, [operands[0], operands[1]], shape))
        }
        (Op::Dot(dims), Type::Array(shape)) if is_large(dims, &operands[0].shape(), shape) => {
            let config = product(dims);
            Some(call(PRODUCT, config, [operands[0], operands[1]], shape))
        }
        _ => None,
    })
}

/// Those of all convolutions and products that would be calls; what a loop does, once.
fn multiplications(computation: &Computation) -> i64 {
    let of = |node: &Node| {
        let inside = called(&node.op).into_iter().map(|c| multiplications(c));
        let operand = |i: usize| match &computation.nodes[node.operands[i].index()].ty {
            Type::Array(shape) => Some(shape),
            Type::Tuple(_) | Type::Invalid => None,
        };
        let own = match (&node.op, &node.ty) {
            (Op::Convolution(conv), Type::Array(result)) => match (operand(0), operand(1)) {
                (Some(image), Some(kernel)) if applies(conv, &image.dims, result) => {
                    let taps: i64 = kernel.dims[..3].iter().product();
                    result.dims.iter().product::<i64>() * taps
                }
                _ => 0,
            },
            (Op::Dot(dims), Type::Array(result)) => operand(0)
                .filter(|left| is_large(dims, left, result))
                .map_or(0, |left| products(dims, left, result)),
            _ => 0,
        };
        own + inside.sum::<i64>()
    };
    computation.nodes.iter().map(of).sum()
}

fn applies(conv: &Conv, image: &[i64], result: &Shape) -> bool {
    let window: i64 = conv.window.iter().map(|w| w.size).product();
    let pixels = |dims: &[i64]| dims.get(1..3).map_or(0, |d| d.iter().product::<i64>());
    let (before, after) = (pixels(image), pixels(&result.dims));
    result.dtype == DType::F32
        && conv.window.len() == 2
        && conv.dims == ConvDims::nhwc()
        && conv.feature_groups == 1
        && conv.batch_groups == 1
        && conv
            .window
            .iter()
            .all(|w| w.base_dilation == 1 && w.window_dilation == 1 && w.low >= 0 && w.high >= 0)
        // Otherwise it is a kernel's gradient.
        && window <= after
        && after <= before
}

/// Whether it is a large product of two matrices.
fn is_large(dims: &DotDims, left: &Shape, result: &Shape) -> bool {
    result.dtype == DType::F32
        && left.dims.len() == 2
        && result.dims.len() == 2
        && dims.lhs_batch.is_empty()
        && dims.lhs_contracting.len() == 1
        && products(dims, left, result) >= LARGE
}

/// Multiplications.
fn products(dims: &DotDims, left: &Shape, result: &Shape) -> i64 {
    let summed = dims.lhs_contracting.iter().map(|&d| left.dims[d as usize]);
    result.dims.iter().product::<i64>() * summed.product::<i64>()
}

fn call<'g>(target: &str, config: String, operands: [Value<'g>; 2], shape: &Shape) -> Value<'g> {
    operands[0].graph().push(
        Op::CustomCall {
            target: target.into(),
            config,
            shape: shape.clone(),
        },
        &operands,
    )
}

/// The plugin's description of a product.
fn product(dims: &DotDims) -> String {
    format!(
        r#"{{"onednn_matmul_config":{{"transpose_a":{},"transpose_b":{}}}}}"#,
        dims.lhs_contracting == [0],
        dims.rhs_contracting == [1],
    )
}

/// The plugin's description of a convolution; numbers are as they are, not shifted as in some versions of its source.
fn convolution(conv: &Conv) -> String {
    let both = |value: fn(&crate::hlo::WindowDim) -> i64| {
        let list: Vec<String> = conv.window.iter().map(|w| value(w).to_string()).collect();
        list.join(",")
    };
    let image = r#"{"data":{"batch_dim":0,"feature_dim":3,"spatial_dims":[1,2]}}"#;
    format!(
        concat!(
            r#"{{"onednn_conv_config":{{"dims":4,"input":{image},"output":{image},"#,
            r#""kernel":{{"filter":{{"input_feature_dim":2,"output_feature_dim":3,"spatial_dims":[0,1]}}}},"#,
            r#""window":{{"strides":[{strides}],"pad_left":[{low}],"pad_right":[{high}],"window_dilations":[{dilations}]}},"#,
            r#""feature_groups":1}}}}"#
        ),
        image = image,
        strides = both(|w| w.stride),
        low = both(|w| w.low),
        high = both(|w| w.high),
        dilations = both(|w| w.window_dilation),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlo::WindowDim;

    #[test]
    fn only_what_the_test_tries_becomes_a_call() {
        let images = |side: i64| [8, side, side, 64];
        let f32s = |side| Shape::new(DType::F32, images(side));
        let conv = |size, stride, pad| Conv::nhwc(vec![WindowDim::new(size, stride, pad, pad); 2]);
        assert!(applies(&conv(3, 1, 1), &images(16), &f32s(16)));
        assert!(applies(&conv(7, 2, 3), &images(16), &f32s(8)));
        assert!(applies(&conv(1, 1, 0), &images(1), &f32s(1)));
        // A kernel's gradient: its window is the map; on a map smaller than the kernel the result is larger than what it is of.
        assert!(!applies(&conv(16, 1, 1), &images(16), &f32s(3)));
        assert!(!applies(&conv(2, 1, 1), &images(2), &f32s(3)));
        // That of a stride.
        let mut dilated = conv(2, 1, 1);
        dilated
            .window
            .iter_mut()
            .for_each(|w| w.window_dilation = 2);
        assert!(!applies(&dilated, &images(4), &f32s(4)));
        // The input's gradient of a stride.
        let mut spread = conv(3, 1, 1);
        spread.window.iter_mut().for_each(|w| w.base_dilation = 2);
        assert!(!applies(&spread, &images(16), &f32s(16)));
        let bf16 = Shape::new(DType::Bf16, images(16));
        assert!(!applies(&conv(3, 1, 1), &images(16), &bf16));
        assert!(!applies(&conv(3, 1, -1), &images(16), &f32s(12)));
    }
}
