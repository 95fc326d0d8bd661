//! Convolutions, their gradients, large products of two matrices, and sums of batch statistics as calls of loops of our own
//! ([`crate::loops`]).
//!
//! The plugin packs operands for products anew at every call, and runs a kernel's gradient as a convolution whose window is the whole map,
//! with both operands transposed. Our loops read large arrays as they lie; only kernels are turned round where the gradient of an input wants
//! them so. They know f32 alone, no groups, as much stride one way as the other, and no negative padding; any size will do, 1×1 too.

use super::{by_columns, column_length, is_zero};
use crate::hlo::{
    Binary, Conv, ConvDims, DType, DotDims, Error, Module, Monoid, Op, Reducer, Shape, Type, Value,
    WindowDim,
};
use std::sync::LazyLock;

/// The loop of convolutions, forward and of the input's gradient. The number is that of the order of its sums, so that a program which sums in
/// another order is another program: a run that goes on with one says so.
pub const CONVOLUTION_LOOP: &str = "simclr.convolution.1";
/// The loop of kernels' gradients; the number as above.
pub const KERNEL_GRADIENT_LOOP: &str = "simclr.kernel_gradient.1";

/// The loop of sums over all dimensions but the last; the number as above.
pub const COLUMN_SUMS_LOOP: &str = "simclr.column_sums.1";

/// Rows, of all replicas together, from which such a sum is made by blocks in double precision, so that sharing a batch changes nothing of it.
/// Shorter columns are added up in the plugin's order, where that is known: with another one, 3 of 10,445 golden checks of networks fail, since
/// another rounding takes a ResNet-152 further from the original's numbers than their own noise.
const MANY: i64 = 1 << 13;

/// The plugin splits dimensions that are longer than this into parts that it sums by themselves.
const PART: i64 = 32;

/// Multiplications of a product from which it is a call; others take no time.
const LARGE: i64 = 1 << 20;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    let replicas = module.replicas as i64;
    module.rewrite(&|_, node, operands| match (&node.op, &node.ty) {
        (Op::Convolution(conv), Type::Array(shape)) if is_plain(conv, operands, shape) => {
            convolution(conv, operands[0], operands[1], shape)
        }
        (
            Op::Reduce {
                dims,
                reducer: Reducer::Monoid(Monoid::Add),
            },
            Type::Array(shape),
        ) => sums(dims, operands[0], operands[1], shape, replicas),
        (Op::Dot(dims), Type::Array(shape)) => product(dims, operands[0], operands[1], shape),
        _ => None,
    })
}

/// The dimensions of the gradient of an HWIO kernel, from NHWC images and the gradient of NHWC outputs.
pub(super) fn of_kernel_gradient() -> ConvDims {
    ConvDims {
        input_batch: 3,
        input_feature: 0,
        input_spatial: vec![1, 2],
        kernel_input: 0,
        kernel_output: 3,
        kernel_spatial: vec![1, 2],
        output_batch: 2,
        output_feature: 3,
        output_spatial: vec![0, 1],
    }
}

/// The dimensions of the gradient of NHWC images, from that of NHWC outputs and the HWIO kernel, its taps turned round.
pub(super) fn of_input_gradient() -> ConvDims {
    let forward = ConvDims::nhwc();
    ConvDims {
        kernel_input: forward.kernel_output,
        kernel_output: forward.kernel_input,
        ..forward
    }
}

/// Two directions alike but for size and padding, no groups, f32, something in all arrays.
pub(super) fn is_plain(conv: &Conv, operands: &[Value], result: &Shape) -> bool {
    let alike = |value: fn(&WindowDim) -> i64| value(&conv.window[0]) == value(&conv.window[1]);
    conv.window.len() == 2
        && result.dtype == DType::F32
        && result.elements() > 0
        && operands.iter().all(|x| x.shape().elements() > 0)
        && conv.feature_groups == 1
        && conv.batch_groups == 1
        && alike(|w| w.stride)
        && alike(|w| w.base_dilation)
        && alike(|w| w.window_dilation)
        && conv.window.iter().all(|w| w.low >= 0)
}

fn convolution<'g>(
    conv: &Conv,
    x: Value<'g>,
    other: Value<'g>,
    result: &Shape,
) -> Option<Value<'g>> {
    let [rows, columns] = &conv.window[..] else {
        return None;
    };
    let low = [rows.low, columns.low];
    if conv.dims == of_kernel_gradient() && rows.stride == 1 && rows.base_dilation == 1 {
        return Some(gradient(x, other, rows.window_dilation, low, result));
    }
    let kernel = if conv.dims == ConvDims::nhwc() {
        other
    } else if conv.dims == of_input_gradient() {
        other.transpose(&[0, 1, 3, 2])
    } else {
        return None;
    };
    (rows.window_dilation == 1 && (rows.stride == 1 || rows.base_dilation == 1))
        .then(|| forwards(x, kernel, [rows.stride, rows.base_dilation], low, result))
}

fn product<'g>(dims: &DotDims, a: Value<'g>, b: Value<'g>, result: &Shape) -> Option<Value<'g>> {
    let (&[over_a], &[over_b]) = (&dims.lhs_contracting[..], &dims.rhs_contracting[..]) else {
        return None;
    };
    let plain = result.dtype == DType::F32
        && (a.rank(), b.rank()) == (2, 2)
        && dims.lhs_batch.is_empty()
        && result.elements() as i64 * a.dim(over_a as usize) >= LARGE;
    if !plain {
        return None;
    }
    // A matrix is a row of pixels for a kernel's gradient, and as many images of a pixel for a convolution, which shares images out.
    let (rows, inputs, outputs) = (a.dim(0), a.dim(1), result.dims[1]);
    let called = match (over_a, over_b) {
        (0, 0) => {
            let shape = Shape::new(DType::F32, [1, 1, inputs, outputs]);
            let (a, b) = (
                a.reshape(&[1, 1, rows, inputs]),
                b.reshape(&[1, 1, rows, outputs]),
            );
            gradient(a, b, 1, [0, 0], &shape)
        }
        (1, _) => {
            let b = if over_b == 0 { b } else { b.transpose(&[1, 0]) };
            let shape = Shape::new(DType::F32, [rows, 1, 1, outputs]);
            let (a, b) = (
                a.reshape(&[rows, 1, 1, inputs]),
                b.reshape(&[1, 1, inputs, outputs]),
            );
            forwards(a, b, [1, 1], [0, 0], &shape)
        }
        _ => return None,
    };
    Some(called.reshape(&result.dims))
}

/// Sums of what a loop of ours has computed, of its distance from something for each of the last dimension, or of that distance squared: batch
/// statistics. The plugin reads such an array column by column, and what else is summed it computes meanwhile.
fn sums<'g>(
    dims: &[i64],
    x: Value<'g>,
    init: Value<'g>,
    result: &Shape,
    replicas: i64,
) -> Option<Value<'g>> {
    if !(by_columns(x.rank(), dims) && result.dtype == DType::F32 && is_zero(init)) {
        return None;
    }
    let graph = x.graph();
    let operands = |value: Value<'g>, op: Binary| {
        let node = value.node();
        let binary = matches!(node.op, Op::Binary(found) if found == op);
        binary.then(|| [node.operands[0], node.operands[1]])
    };
    let (apart, square) = match operands(x, Binary::Multiply) {
        Some([left, right]) if left == right => (graph.value(left), 1),
        _ => (x, 0),
    };
    let (x, middle) = match operands(apart, Binary::Subtract) {
        Some([x, spread]) => (graph.value(x), spread_over_last(graph.value(spread))?),
        None if square == 0 => (x, graph.zeros(result)),
        None => return None,
    };
    let (in_order, rounded) = match column_length(x) * replicas >= MANY {
        true => (0, 0),
        false => order(&x.dims(), square == 1)?,
    };
    let numbers = [
        ("square", square),
        ("in_order", in_order),
        ("rounded", rounded),
    ];
    is_call(x).then(|| call(COLUMN_SUMS_LOOP, &numbers, [x, middle], result))
}

/// How the plugin adds up the columns of images: in so many parts of the images, row by row; and 1 where it squares before, in a kernel of its
/// own, as it does where it makes parts. None where it is not known. It parts maps of more than 32 pixels a side, and parts that are more than 32;
/// and on the way along a row its compiler adds up several pixels at once: of two pixels, always; of squares in the same kernel, of a power of
/// two, of 16 and more, and of some maps that are not square.
fn order(dims: &[i64], square: bool) -> Option<(i64, i64)> {
    let &[images, height, width, _] = dims else {
        return None;
    };
    let alone = height == width && width < 16 && width.count_ones() > 1;
    let several = width <= 2 || square && images <= PART && !alone;
    let equal = images <= PART || images % PART == 0 && images / PART <= PART;
    let whole = height <= PART && width <= PART && equal;
    let known = whole && !several && as_seen();
    known.then(|| ((images / PART).max(1), i64::from(images > PART)))
}

/// Whether the processor is of the family with which the plugin's order was found, AMD's 25 with AVX-512 (Zen 4), as Linux tells: what its
/// compiler adds up at once depends on that. With AVX2 it was another order.
fn as_seen() -> bool {
    static SEEN: LazyLock<bool> = LazyLock::new(|| {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let told = |key: &str, word: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.trim() == key)
                .is_some_and(|(_, words)| words.split_whitespace().any(|one| one == word))
        };
        told("vendor_id", "AuthenticAMD") && told("cpu family", "25") && told("flags", "avx512f")
    });
    *SEEN
}

/// The vector that is repeated along all dimensions but the last.
fn spread_over_last(value: Value) -> Option<Value> {
    let node = value.node();
    let Op::Broadcast { mapping, .. } = &node.op else {
        return None;
    };
    let last = value.rank() as i64 - 1;
    let &[vector] = &node.operands[..] else {
        return None;
    };
    (mapping[..] == [last]).then(|| value.graph().value(vector))
}

/// Whether a value is the result of a call, if need be in another shape: in memory as it is, since nothing is fused into a call.
fn is_call(value: Value) -> bool {
    let node = value.node();
    match &node.op {
        Op::CustomCall { .. } => true,
        Op::Reshape { .. } => is_call(value.graph().value(node.operands[0])),
        _ => false,
    }
}

fn forwards<'g>(
    x: Value<'g>,
    kernel: Value<'g>,
    [stride, dilation]: [i64; 2],
    low: [i64; 2],
    result: &Shape,
) -> Value<'g> {
    let numbers = [
        ("stride", stride),
        ("dilation", dilation),
        ("low_rows", low[0]),
        ("low_columns", low[1]),
    ];
    call(CONVOLUTION_LOOP, &numbers, [x, kernel], result)
}

fn gradient<'g>(
    x: Value<'g>,
    dy: Value<'g>,
    stride: i64,
    low: [i64; 2],
    result: &Shape,
) -> Value<'g> {
    let numbers = [
        ("stride", stride),
        ("low_rows", low[0]),
        ("low_columns", low[1]),
    ];
    call(KERNEL_GRADIENT_LOOP, &numbers, [x, dy], result)
}

pub(super) fn call<'g>(
    target: &str,
    numbers: &[(&str, i64)],
    operands: [Value<'g>; 2],
    result: &Shape,
) -> Value<'g> {
    let numbers = numbers
        .iter()
        .map(|(name, value)| format!("{name} = {value} : i64"));
    let call = Op::CustomCall {
        target: target.into(),
        config: format!("{{{}}}", numbers.collect::<Vec<_>>().join(", ")),
        results: vec![result.clone()],
        aliases: Vec::new(),
    };
    operands[0].graph().push(call, &operands)
}
