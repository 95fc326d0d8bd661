//! Convolutions as calls of the oneDNN that the CPU plugin carries.
//!
//! Those of the forward pass, and of the input's gradient at stride 1. The plugin's own convolution packs image and kernel for a matrix
//! product at every call; oneDNN's reads them as they are. A kernel's gradient has its map as window, for which oneDNN has no fast code.
//!
//! The call is an internal interface of one version of the plugin: an engine makes it only after a test (`engine/internal.rs`).

use crate::hlo::module::called;
use crate::hlo::{Computation, Conv, ConvDims, DType, Error, Module, Node, Op, Shape, Type, Value};

/// The plugin's name of the call.
const TARGET: &str = "__onednn$convolution";

/// Multiplications of a program from which it pays. The plugin cannot serialise a program with such calls, so that it is compiled at
/// every start, two seconds more; a program that is small runs for a short time.
const WORTH: i64 = 1 << 29;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    if multiplications(&module.entry) < WORTH {
        return Ok(module.clone());
    }
    module.rewrite(&|_, node, operands| match (&node.op, &node.ty) {
        (Op::Convolution(conv), Type::Array(shape)) if applies(conv, shape) => {
            Some(call(conv, operands[0], operands[1], shape))
        }
        _ => None,
    })
}

/// Those of all convolutions that would be calls; what a loop does, once.
fn multiplications(computation: &Computation) -> i64 {
    let of = |node: &Node| {
        let inside = called(&node.op).into_iter().map(|c| multiplications(c));
        let own = match (&node.op, &node.ty) {
            (Op::Convolution(conv), Type::Array(result)) if applies(conv, result) => {
                let kernel = &computation.nodes[node.operands[1].index()];
                let Type::Array(kernel) = &kernel.ty else {
                    return 0;
                };
                let taps: i64 = kernel.dims[..3].iter().product();
                result.dims.iter().product::<i64>() * taps
            }
            _ => 0,
        };
        own + inside.sum::<i64>()
    };
    computation.nodes.iter().map(of).sum()
}

fn applies(conv: &Conv, result: &Shape) -> bool {
    let window: i64 = conv.window.iter().map(|w| w.size).product();
    let pixels: i64 = result.dims.get(1..3).map_or(0, |d| d.iter().product());
    result.dtype == DType::F32
        && conv.window.len() == 2
        && conv.dims == ConvDims::nhwc()
        && conv.feature_groups == 1
        && conv.batch_groups == 1
        && conv
            .window
            .iter()
            .all(|w| w.base_dilation == 1 && w.low >= 0 && w.high >= 0)
        // Otherwise it is a kernel's gradient.
        && window <= pixels
}

fn call<'g>(conv: &Conv, x: Value<'g>, kernel: Value<'g>, shape: &Shape) -> Value<'g> {
    x.graph().push(
        Op::CustomCall {
            target: TARGET.into(),
            config: config(conv),
            shape: shape.clone(),
        },
        &[x, kernel],
    )
}

/// The plugin's description of the call; numbers are as they are, not shifted as in some versions of its source.
fn config(conv: &Conv) -> String {
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
