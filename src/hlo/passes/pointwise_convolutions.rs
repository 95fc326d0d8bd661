//! 1×1 convolutions as matrix products.
//!
//! Forward and input gradient: pixels × channels. Kernel gradient: the convolution whose window is the whole map and whose result
//! is one pixel. With a stride the pixels that no window sees are sliced away first.

use crate::hlo::{Conv, DotDims, Error, Module, Op, PadDim, Value};

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    module.rewrite(&|_, node, operands| match &node.op {
        Op::Convolution(conv) if conv.feature_groups == 1 && conv.batch_groups == 1 => {
            let (x, kernel) = (operands[0], operands[1]);
            if is_pointwise(conv) {
                Some(pointwise(conv, x, kernel))
            } else if is_kernel_gradient(conv, x, kernel) {
                Some(kernel_gradient(conv, x, kernel))
            } else {
                None
            }
        }
        _ => None,
    })
}

/// A 1×1 window without padding before; padding after, base dilation and stride may come from strided layers.
fn is_pointwise(conv: &Conv) -> bool {
    conv.window.iter().all(|w| w.size == 1 && w.low == 0)
}

fn pointwise<'g>(conv: &Conv, x: Value<'g>, kernel: Value<'g>) -> Value<'g> {
    let n = &conv.dims;
    let rank = x.rank();
    // Spread by the base dilation and cut or fill at the end, then take every stride-th pixel. When both are there (never in our
    // networks) the order still is that of the convolution.
    let mut stride = vec![1; rank];
    let mut padding = vec![PadDim::default(); rank];
    for (w, &d) in conv.window.iter().zip(&n.input_spatial) {
        stride[d as usize] = w.stride;
        padding[d as usize] = PadDim {
            low: 0,
            high: w.high,
            interior: w.base_dilation - 1,
        };
    }
    let spread = padding.iter().any(|p| *p != PadDim::default());
    // The product commutes with spreading zeros, and is cheaper before it.
    let narrow = if spread && stride.iter().all(|&s| s == 1) {
        x
    } else {
        let padded = if spread { x.pad(0.0, &padding) } else { x };
        padded.slice(&vec![0; rank], &padded.dims(), &stride)
    };
    let flat_kernel = {
        let (inputs, outputs) = (
            kernel.dim(n.kernel_input as usize),
            kernel.dim(n.kernel_output as usize),
        );
        if n.kernel_input < n.kernel_output {
            (kernel.reshape(&[inputs, outputs]), 0)
        } else {
            (kernel.reshape(&[outputs, inputs]), 1)
        }
    };
    let product = product(narrow, flat_kernel.0, &[n.input_feature], &[flat_kernel.1]);
    // The product holds the input's other dimensions in order, then the features.
    let mut places = vec![0; rank];
    let mut next = 0;
    for d in 0..rank as i64 {
        if d == n.input_batch {
            places[n.output_batch as usize] = next;
            next += 1;
        } else if let Some(i) = n.input_spatial.iter().position(|&s| s == d) {
            places[n.output_spatial[i] as usize] = next;
            next += 1;
        }
    }
    places[n.output_feature as usize] = next;
    let identity = places.iter().enumerate().all(|(i, &p)| i as i64 == p);
    let ordered = if identity {
        product
    } else {
        product.transpose(&places)
    };
    if !(spread && stride.iter().all(|&s| s == 1)) {
        return ordered;
    }
    let mut after = vec![PadDim::default(); rank];
    for (i, &d) in n.input_spatial.iter().enumerate() {
        after[n.output_spatial[i] as usize] = padding[d as usize];
    }
    ordered.pad(0.0, &after)
}

/// The product over these dimensions, of two matrices where each operand's are its first or its last ones in the same order: of others
/// the plugin makes transposed copies.
fn product<'g>(x: Value<'g>, y: Value<'g>, over_x: &[i64], over_y: &[i64]) -> Value<'g> {
    let mut pairs: Vec<(i64, i64)> = over_x.iter().copied().zip(over_y.iter().copied()).collect();
    pairs.sort_unstable();
    let (over_x, over_y): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
    let dims = |lhs: Vec<i64>, rhs: Vec<i64>| DotDims {
        lhs_contracting: lhs,
        rhs_contracting: rhs,
        ..DotDims::default()
    };
    let (Some((left, a)), Some((right, b))) = (matrix(x, &over_x), matrix(y, &over_y)) else {
        return x.dot_general(y, dims(over_x, over_y));
    };
    let rest = |value: Value, over: &[i64]| {
        let all = value.dims().into_iter().enumerate();
        all.filter(|(d, _)| !over.contains(&(*d as i64)))
            .map(|(_, size)| size)
            .collect::<Vec<_>>()
    };
    let result = [rest(x, &over_x), rest(y, &over_y)].concat();
    left.dot_general(right, dims(vec![a], vec![b]))
        .reshape(&result)
}

/// As two dimensions, and which of them is that over which to sum, if it is the first or last ones of the array.
fn matrix<'g>(x: Value<'g>, over: &[i64]) -> Option<(Value<'g>, i64)> {
    let (dims, rank, count) = (x.dims(), x.rank() as i64, over.len() as i64);
    let (at, which) = if (0..count).eq(over.iter().copied()) {
        (over.len(), 0)
    } else if (rank - count..rank).eq(over.iter().copied()) {
        (dims.len() - over.len(), 1)
    } else {
        return None;
    };
    let (first, last) = dims.split_at(at);
    let flat = [first.iter().product(), last.iter().product()];
    Some((x.reshape(&flat), which))
}

/// One pixel comes out, the window covers what it sees without padding before: a kernel gradient of a 1×1 layer.
fn is_kernel_gradient(conv: &Conv, x: Value, kernel: Value) -> bool {
    let n = &conv.dims;
    (0..conv.window.len()).all(|i| {
        let w = &conv.window[i];
        let size = x.dim(n.input_spatial[i] as usize);
        let reach = (w.size - 1) * w.window_dilation + 1;
        w.base_dilation == 1
            && w.low == 0
            && w.high <= 0
            && w.output(size) == 1
            && reach == size + w.high
            && kernel.dim(n.kernel_spatial[i] as usize) == w.size
    })
}

fn kernel_gradient<'g>(conv: &Conv, x: Value<'g>, kernel: Value<'g>) -> Value<'g> {
    let n = &conv.dims;
    let rank = x.rank();
    let mut limit = x.dims();
    let mut stride = vec![1; rank];
    for (w, &d) in conv.window.iter().zip(&n.input_spatial) {
        limit[d as usize] += w.high;
        stride[d as usize] = w.window_dilation;
    }
    let seen = x.slice(&vec![0; rank], &limit, &stride);
    let mut lhs_contracting = n.input_spatial.clone();
    lhs_contracting.push(n.input_feature);
    let mut rhs_contracting = n.kernel_spatial.clone();
    rhs_contracting.push(n.kernel_input);
    // [batch of x, outputs of the kernel]
    let product = product(seen, kernel, &lhs_contracting, &rhs_contracting);
    let (rows, columns) = (product.dim(0), product.dim(1));
    let ordered = if n.output_batch < n.output_feature {
        product
    } else {
        product.transpose(&[1, 0])
    };
    let mut dims = vec![1; rank];
    dims[n.output_batch as usize] = rows;
    dims[n.output_feature as usize] = columns;
    ordered.reshape(&dims)
}
