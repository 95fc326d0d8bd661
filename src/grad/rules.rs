//! The rules, one per operation, and which operations have one. Both functions match on [`Op`] without a wildcard.

use super::{convolution, window};
use crate::hlo::{
    Binary, DotDims, GatherDims, Graph, Monoid, Op, PadDim, Reducer, ScatterDims, Type, Unary,
    Value,
};

/// Whether gradients pass an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differentiability {
    /// There is a rule.
    Rule,
    /// The result does not change with its operands, or only in steps: no gradient flows.
    Zero,
    /// A gradient would be meaningful but is not built; asking for it is an error with this reason.
    Refused(&'static str),
}

/// Whether gradients pass this operation.
pub fn differentiability(op: &Op) -> Differentiability {
    use Differentiability::{Refused, Rule, Zero};
    const BODY: &str = "has no gradient from outside; differentiate inside its body instead";
    match op {
        Op::Parameter { .. }
        | Op::Constant(_)
        | Op::Iota { .. }
        | Op::Compare(_)
        | Op::BitcastConvert(_)
        | Op::RngBitGenerator { .. }
        | Op::ReplicaId
        | Op::StopGradient => Zero,
        Op::Unary(unary) => match unary {
            Unary::Ceil
            | Unary::Floor
            | Unary::IsFinite
            | Unary::Not
            | Unary::RoundAfz
            | Unary::RoundEven
            | Unary::Sign => Zero,
            Unary::Abs
            | Unary::Cbrt
            | Unary::Cos
            | Unary::Erf
            | Unary::Exp
            | Unary::Expm1
            | Unary::Log
            | Unary::Log1p
            | Unary::Logistic
            | Unary::Negate
            | Unary::Rsqrt
            | Unary::Sin
            | Unary::Sqrt
            | Unary::Tan
            | Unary::Tanh => Rule,
        },
        Op::Binary(binary) => match binary {
            Binary::And
            | Binary::Or
            | Binary::Xor
            | Binary::ShiftLeft
            | Binary::ShiftRightArithmetic
            | Binary::ShiftRightLogical => Zero,
            Binary::Add
            | Binary::Atan2
            | Binary::Divide
            | Binary::Maximum
            | Binary::Minimum
            | Binary::Multiply
            | Binary::Power
            | Binary::Remainder
            | Binary::Subtract => Rule,
        },
        Op::Convert(dtype) if !dtype.is_float() => Zero,
        Op::Reduce {
            reducer: Reducer::Monoid(Monoid::And | Monoid::Or),
            ..
        }
        | Op::ReduceWindow {
            monoid: Monoid::And | Monoid::Or,
            ..
        }
        | Op::AllReduce {
            monoid: Monoid::And | Monoid::Or,
            ..
        } => Zero,
        Op::Reduce {
            reducer: Reducer::General(_),
            ..
        } => Refused(
            "a reduction by a general body has no gradient; take an index by argmax and gather",
        ),
        Op::ReduceWindow {
            monoid: Monoid::Multiply,
            ..
        } => Refused("a product over windows has no gradient; sum logarithms instead"),
        Op::AllReduce {
            monoid: Monoid::Multiply | Monoid::Maximum | Monoid::Minimum,
            ..
        } => Refused("only a sum over replicas has a gradient; stop the gradient before it"),
        Op::Scatter { monoid, .. } if *monoid != Monoid::Add => {
            Refused("only a scatter that adds has a gradient")
        }
        Op::While { .. } => Refused(BODY),
        Op::CustomCall { .. } => Refused("has no gradient; wrap it in custom_vjp"),
        Op::Select
        | Op::Clamp
        | Op::Convert(_)
        | Op::Broadcast { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::DynamicSlice { .. }
        | Op::DynamicUpdateSlice
        | Op::Gather(_)
        | Op::Scatter { .. }
        | Op::Concatenate { .. }
        | Op::Pad(_)
        | Op::Reverse { .. }
        | Op::Reduce { .. }
        | Op::ReduceWindow { .. }
        | Op::SelectAndScatter { .. }
        | Op::Convolution(_)
        | Op::Dot(_)
        | Op::Sort { .. }
        | Op::Conditional { .. }
        | Op::Call(_)
        | Op::Tuple
        | Op::GetTupleElement { .. }
        | Op::AllReduce { .. }
        | Op::AllGather { .. }
        | Op::ReduceScatter { .. }
        | Op::CollectivePermute { .. }
        | Op::OptimizationBarrier
        | Op::Fence
        | Op::CustomVjp { .. } => Rule,
    }
}

/// What a rule sees of the forward pass.
pub(super) struct Context<'a, 'g> {
    pub graph: &'g Graph,
    pub output: Value<'g>,
    pub operands: &'a [Value<'g>],
    pub wanted: &'a [bool],
}

impl<'g> Context<'_, 'g> {
    fn zeros_like(&self, operand: usize) -> Value<'g> {
        self.graph.zeros(&self.operands[operand].shape())
    }
}

/// `(operand, its cotangent)` for the operands that have one.
pub(super) fn apply<'g>(
    op: &Op,
    c: &Context<'_, 'g>,
    cotangents: &[Option<Value<'g>>],
) -> Vec<(usize, Value<'g>)> {
    if let Op::Sort { dim, .. } = op {
        return sort(op, *dim, c, cotangents);
    }
    let Some(ct) = cotangents[0] else {
        return Vec::new();
    };
    let x = |i: usize| c.operands[i];
    match op {
        Op::Unary(unary) => match unary_rule(*unary, x(0), c.output, ct) {
            Some(value) => vec![(0, value)],
            None => Vec::new(),
        },
        Op::Binary(binary) => binary_rule(*binary, c, ct),
        Op::Select => {
            let zeros = c.graph.zeros(&ct.shape());
            vec![(1, x(0).select(ct, zeros)), (2, x(0).select(zeros, ct))]
        }
        Op::Clamp => {
            let zeros = c.graph.zeros(&ct.shape());
            let (below, above) = (x(1).lt(x(0)), x(1).gt(x(2)));
            let inside = x(1).gt(x(0)).and(x(1).lt(x(2)));
            vec![
                (0, below.select(ct, zeros)),
                (1, inside.select(ct, zeros)),
                (2, above.select(ct, zeros)),
            ]
        }
        Op::Convert(_) if x(0).dtype().is_float() => vec![(0, ct.convert(x(0).dtype()))],
        Op::Convert(_) => Vec::new(),
        Op::Broadcast { dims, mapping } => {
            let added: Vec<i64> = (0..dims.len() as i64)
                .filter(|dim| !mapping.contains(dim))
                .collect();
            vec![(0, ct.sum(&added))]
        }
        Op::Reshape { .. } => vec![(0, ct.reshape(&x(0).dims()))],
        Op::Transpose { permutation } => vec![(0, ct.transpose(&inverse(permutation)))],
        Op::Slice { start, stride, .. } => {
            let (sizes, taken) = (x(0).dims(), ct.dims());
            let padding: Vec<PadDim> = (0..sizes.len())
                .map(|i| {
                    let covered = if taken[i] == 0 {
                        0
                    } else {
                        (taken[i] - 1) * stride[i] + 1
                    };
                    PadDim {
                        low: start[i],
                        high: sizes[i] - start[i] - covered,
                        interior: stride[i] - 1,
                    }
                })
                .collect();
            vec![(0, ct.pad(0.0, &padding))]
        }
        Op::DynamicSlice { .. } => {
            vec![(
                0,
                c.zeros_like(0).dynamic_update_slice(ct, &c.operands[1..]),
            )]
        }
        Op::DynamicUpdateSlice => {
            let starts = &c.operands[2..];
            vec![
                (0, ct.dynamic_update_slice(c.zeros_like(1), starts)),
                (1, ct.dynamic_slice(starts, &x(1).dims())),
            ]
        }
        Op::Gather(dims) => {
            let dims = ScatterDims {
                update_window_dims: dims.offset_dims.clone(),
                inserted_window_dims: dims.collapsed_slice_dims.clone(),
                scatter_dims_to_operand_dims: dims.start_index_map.clone(),
                index_vector_dim: dims.index_vector_dim,
            };
            vec![(0, c.zeros_like(0).scatter(x(1), ct, dims, Monoid::Add))]
        }
        Op::Scatter { dims, .. } => {
            let mut windows = dims
                .update_window_dims
                .iter()
                .map(|&d| x(2).dim(d as usize));
            let slice_sizes = (0..x(0).rank() as i64)
                .map(|d| {
                    if dims.inserted_window_dims.contains(&d) {
                        1
                    } else {
                        windows.next().unwrap_or(1)
                    }
                })
                .collect();
            let gather = GatherDims {
                offset_dims: dims.update_window_dims.clone(),
                collapsed_slice_dims: dims.inserted_window_dims.clone(),
                start_index_map: dims.scatter_dims_to_operand_dims.clone(),
                index_vector_dim: dims.index_vector_dim,
                slice_sizes,
            };
            vec![(0, ct), (2, ct.gather(x(1), gather))]
        }
        Op::Concatenate { dim } => {
            let mut start = 0;
            let mut found = Vec::new();
            for (i, operand) in c.operands.iter().enumerate() {
                let size = operand.dim(*dim as usize);
                found.push((i, ct.slice_dim(*dim as usize, start, start + size)));
                start += size;
            }
            found
        }
        Op::Pad(padding) => {
            let crop: Vec<PadDim> = padding
                .iter()
                .map(|p| PadDim {
                    low: -p.low,
                    high: -p.high,
                    interior: 0,
                })
                .collect();
            let cropped = ct.pad(0.0, &crop);
            let stride: Vec<i64> = padding.iter().map(|p| p.interior + 1).collect();
            let inside = cropped.slice(&vec![0; stride.len()], &cropped.dims(), &stride);
            let mut found = vec![(0, inside)];
            if c.wanted[1] {
                found.push((1, ct.sum_all() - inside.sum_all()));
            }
            found
        }
        Op::Reverse { dims } => vec![(0, ct.reverse(dims))],
        Op::Reduce {
            dims,
            reducer: Reducer::Monoid(monoid),
        } => {
            vec![(0, reduce(*monoid, dims, c, ct))]
        }
        Op::ReduceWindow { window, monoid } => {
            vec![(0, window::reduce_window(*monoid, window, x(0), ct))]
        }
        Op::SelectAndScatter { window } => vec![(1, window::selected(window, x(0), ct))],
        Op::Convolution(conv) => {
            let mut found = Vec::new();
            if conv.batch_groups != 1 {
                return convolution::batch_grouped(conv, x(0), x(1), ct);
            }
            if c.wanted[0] {
                found.push((0, convolution::input(conv, x(0), x(1), ct)));
            }
            if c.wanted[1] {
                found.push((1, convolution::kernel(conv, x(0), x(1), ct)));
            }
            found
        }
        Op::Dot(dims) => dot(dims, c, ct),
        Op::AllReduce { groups, .. } => vec![(0, ct.all_reduce(Monoid::Add, groups))],
        Op::AllGather { dim, size, groups } => vec![(0, ct.reduce_scatter(*dim, *size, groups))],
        Op::ReduceScatter { dim, size, groups } => vec![(0, ct.all_gather(*dim, *size, groups))],
        Op::Fence => vec![(0, ct)],
        Op::CollectivePermute { pairs } => {
            let back: Vec<(i64, i64)> = pairs.iter().map(|&(from, to)| (to, from)).collect();
            vec![(0, ct.collective_permute(&back))]
        }
        // `differentiability` keeps the walk away from these, or the engine handles them itself.
        Op::Parameter { .. }
        | Op::Constant(_)
        | Op::Iota { .. }
        | Op::Compare(_)
        | Op::BitcastConvert(_)
        | Op::RngBitGenerator { .. }
        | Op::ReplicaId
        | Op::StopGradient
        | Op::Reduce { .. }
        | Op::While { .. }
        | Op::Conditional { .. }
        | Op::Call(_)
        | Op::CustomCall { .. }
        | Op::Sort { .. }
        | Op::Tuple
        | Op::GetTupleElement { .. }
        | Op::OptimizationBarrier
        | Op::CustomVjp { .. } => Vec::new(),
    }
}

fn inverse(permutation: &[i64]) -> Vec<i64> {
    let mut back = vec![0; permutation.len()];
    for (i, &p) in permutation.iter().enumerate() {
        back[p as usize] = i as i64;
    }
    back
}

fn unary_rule<'g>(unary: Unary, x: Value<'g>, y: Value<'g>, ct: Value<'g>) -> Option<Value<'g>> {
    Some(match unary {
        Unary::Abs => ct * x.sign(),
        Unary::Cbrt => ct / (y * y * 3.0),
        Unary::Cos => -(ct * x.sin()),
        Unary::Erf => ct * (-(x * x)).exp() * std::f64::consts::FRAC_2_SQRT_PI,
        Unary::Exp => ct * y,
        Unary::Expm1 => ct * (y + 1.0),
        Unary::Log => ct / x,
        Unary::Log1p => ct / (x + 1.0),
        Unary::Logistic => ct * y * (1.0 - y),
        Unary::Negate => -ct,
        Unary::Rsqrt => ct * (y * y * y) * -0.5,
        Unary::Sin => ct * x.cos(),
        Unary::Sqrt => ct * 0.5 / y,
        Unary::Tan => ct * (y * y + 1.0),
        Unary::Tanh => ct * (1.0 - y * y),
        Unary::Ceil
        | Unary::Floor
        | Unary::IsFinite
        | Unary::Not
        | Unary::RoundAfz
        | Unary::RoundEven
        | Unary::Sign => return None,
    })
}

fn binary_rule<'g>(binary: Binary, c: &Context<'_, 'g>, ct: Value<'g>) -> Vec<(usize, Value<'g>)> {
    let (x, y, out) = (c.operands[0], c.operands[1], c.output);
    let zeros = || c.graph.zeros(&ct.shape());
    let (mut left, mut right) = (None, None);
    match binary {
        Binary::Add => (left, right) = (Some(ct), Some(ct)),
        Binary::Subtract => {
            left = Some(ct);
            right = c.wanted[1].then(|| -ct);
        }
        Binary::Multiply => {
            left = c.wanted[0].then(|| ct * y);
            right = c.wanted[1].then(|| ct * x);
        }
        Binary::Divide => {
            left = c.wanted[0].then(|| ct / y);
            right = c.wanted[1].then(|| -(ct * out / y));
        }
        Binary::Maximum | Binary::Minimum => {
            let first = if binary == Binary::Maximum {
                x.gt(y)
            } else {
                x.lt(y)
            };
            left = c.wanted[0].then(|| first.select(ct, zeros()));
            right = c.wanted[1].then(|| first.select(zeros(), ct));
        }
        Binary::Power => {
            left = c.wanted[0].then(|| {
                let slope = ct * y * x.pow(y - 1.0);
                y.eq(0.0).select(zeros(), slope)
            });
            right = c.wanted[1].then(|| {
                // At a base of 0 the limit of the slope is 0; a negative base has no real slope in its exponent.
                let positive = x.gt(0.0);
                let base = positive.select(x, 1.0);
                positive.select(ct * out * base.log(), 0.0)
            });
        }
        Binary::Remainder => {
            left = Some(ct);
            right = c.wanted[1].then(|| {
                let quotient = x / y;
                -(ct * quotient.sign() * quotient.abs().floor())
            });
        }
        Binary::Atan2 => {
            let scaled = ct / (x * x + y * y);
            left = c.wanted[0].then(|| scaled * y);
            right = c.wanted[1].then(|| -(scaled * x));
        }
        Binary::And
        | Binary::Or
        | Binary::Xor
        | Binary::ShiftLeft
        | Binary::ShiftRightArithmetic
        | Binary::ShiftRightLogical => {}
    }
    [left.map(|v| (0, v)), right.map(|v| (1, v))]
        .into_iter()
        .flatten()
        .collect()
}

/// The dimensions that a reduction keeps.
fn kept(rank: usize, dims: &[i64]) -> Vec<i64> {
    (0..rank as i64).filter(|dim| !dims.contains(dim)).collect()
}

fn reduce<'g>(monoid: Monoid, dims: &[i64], c: &Context<'_, 'g>, ct: Value<'g>) -> Value<'g> {
    let x = c.operands[0];
    let shape = x.dims();
    let kept = kept(shape.len(), dims);
    let spread = |value: Value<'g>| value.broadcast_in_dim(&shape, &kept);
    match monoid {
        Monoid::Maximum | Monoid::Minimum => {
            let chosen = x.eq(spread(c.output)).convert(ct.dtype());
            chosen * spread(ct / chosen.sum(dims))
        }
        Monoid::Multiply => {
            // The product of the others, exactly, also where elements are zero.
            let is_zero = x.eq(0.0);
            let others = is_zero.select(c.graph.full(&x.shape(), 1.0), x);
            let zero_count = is_zero.convert(x.dtype()).sum(dims);
            let product = spread(others.reduce(Monoid::Multiply, dims));
            let zero_elsewhere = spread(zero_count) - is_zero.convert(x.dtype());
            let slope = zero_elsewhere
                .gt(0.0)
                .select(c.graph.zeros(&x.shape()), product / others);
            spread(ct) * slope
        }
        Monoid::Add | Monoid::And | Monoid::Or => spread(ct),
    }
}

fn dot<'g>(dims: &DotDims, c: &Context<'_, 'g>, ct: Value<'g>) -> Vec<(usize, Value<'g>)> {
    let (x, y) = (c.operands[0], c.operands[1]);
    let free = |rank: usize, batch: &[i64], contracting: &[i64]| -> Vec<i64> {
        (0..rank as i64)
            .filter(|d| !batch.contains(d) && !contracting.contains(d))
            .collect()
    };
    let free_x = free(x.rank(), &dims.lhs_batch, &dims.lhs_contracting);
    let free_y = free(y.rank(), &dims.rhs_batch, &dims.rhs_contracting);
    let batch = dims.lhs_batch.len() as i64;
    let batch_dims: Vec<i64> = (0..batch).collect();
    let first_y = batch + free_x.len() as i64;
    let places_x: Vec<i64> = (batch..first_y).collect();
    let places_y: Vec<i64> = (first_y..first_y + free_y.len() as i64).collect();
    // The contracted dimensions of one side, in that side's order, as dimensions of the other side.
    let matched = |own: &[i64], other: &[i64]| -> Vec<i64> {
        let mut order: Vec<usize> = (0..own.len()).collect();
        order.sort_by_key(|&i| own[i]);
        order.into_iter().map(|i| other[i]).collect()
    };
    let mut found = Vec::new();
    if c.wanted[0] {
        let product = ct.dot_general(
            y,
            DotDims {
                lhs_contracting: places_y.clone(),
                rhs_contracting: free_y.clone(),
                lhs_batch: batch_dims.clone(),
                rhs_batch: dims.rhs_batch.clone(),
                precision: dims.precision,
            },
        );
        // Result: batch, free of x, contracted dimensions in the order of y.
        let order: Vec<i64> = [
            dims.lhs_batch.clone(),
            free_x.clone(),
            matched(&dims.rhs_contracting, &dims.lhs_contracting),
        ]
        .concat();
        found.push((0, reorder(product, &order)));
    }
    if c.wanted[1] {
        let product = x.dot_general(
            ct,
            DotDims {
                lhs_contracting: free_x,
                rhs_contracting: places_x,
                lhs_batch: dims.lhs_batch.clone(),
                rhs_batch: batch_dims,
                precision: dims.precision,
            },
        );
        // Result: batch, contracted dimensions in the order of x, free of y.
        let order: Vec<i64> = [
            dims.rhs_batch.clone(),
            matched(&dims.lhs_contracting, &dims.rhs_contracting),
            free_y,
        ]
        .concat();
        found.push((1, reorder(product, &order)));
    }
    found
}

/// Puts dimension `i` of `value` at place `order[i]`.
fn reorder<'g>(value: Value<'g>, order: &[i64]) -> Value<'g> {
    let permutation = inverse(order);
    if permutation.iter().enumerate().all(|(i, &p)| i as i64 == p) {
        return value;
    }
    value.transpose(&permutation)
}

/// Sorts again with the positions beside the operands, then sorts the cotangents by position.
fn sort<'g>(
    op: &Op,
    dim: i64,
    c: &Context<'_, 'g>,
    cotangents: &[Option<Value<'g>>],
) -> Vec<(usize, Value<'g>)> {
    let Op::Sort { less, .. } = op else {
        return Vec::new();
    };
    let count = c.operands.len();
    let positions = c
        .graph
        .iota(crate::hlo::DType::S32, &c.operands[0].dims(), dim);
    let mut values = c.operands.to_vec();
    values.push(positions);
    let sorted = c.graph.sort(&values, dim, |graph, a, b| {
        let scalars: Vec<Value> = a
            .iter()
            .zip(b)
            .take(count)
            .flat_map(|(&a, &b)| [a, b])
            .collect();
        graph.inline(less, &scalars)
    });
    let permutation = sorted[count];
    let mut found = Vec::new();
    for (i, cotangent) in cotangents.iter().enumerate() {
        if let (Some(cotangent), true) = (cotangent, c.wanted[i]) {
            let back = c
                .graph
                .sort(&[permutation, *cotangent], dim, |_, a, b| a[0].lt(b[0]));
            found.push((i, back[1]));
        }
    }
    debug_assert!(matches!(c.output.ty(), Type::Array(_) | Type::Tuple(_)));
    found
}
