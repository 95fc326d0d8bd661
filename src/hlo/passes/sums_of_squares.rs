//! Sums of all squares of a large array, such as weight decay's and LARS's norms, as a matrix product.
//!
//! The CPU plugin turns each such reduction into three or four kernels of its own, which have to be compiled for every shape. As
//! a matrix product it is one call into a library, and a small sum that is the same for all shapes.

use super::is_zero;
use crate::hlo::{Binary, DType, DotDims, Error, Module, Monoid, Op, Reducer, Value};

/// Below this many elements a reduction is one small kernel.
const LARGE: i64 = 1024;
const ROWS: i64 = 4;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    module.rewrite(&|_, node, operands| match &node.op {
        Op::Reduce {
            dims,
            reducer: Reducer::Monoid(Monoid::Add),
        } => {
            let x = squared(operands[0])?;
            let elements: i64 = x.dims().iter().product();
            let whole = dims.len() == x.rank() && is_zero(operands[1]);
            (whole && elements >= LARGE && elements % ROWS == 0).then(|| rows(x, elements / ROWS))
        }
        _ => None,
    })
}

/// `x` where the value is `x · x` of a floating-point type.
fn squared(value: Value) -> Option<Value> {
    let node = value.node();
    let [left, right] = node.operands[..] else {
        return None;
    };
    let square = matches!(node.op, Op::Binary(Binary::Multiply)) && left == right;
    (square && value.dtype().is_float()).then(|| value.graph().value(left))
}

/// The diagonal of the product of the array, cut into four rows, with itself. (Of fewer rows the plugin makes a plain loop instead
/// of a call.)
fn rows(x: Value, length: i64) -> Value {
    let rows = x.reshape(&[ROWS, length]);
    let products = rows.dot_general(
        rows,
        DotDims {
            lhs_contracting: vec![1],
            rhs_contracting: vec![1],
            ..DotDims::default()
        },
    );
    let square = [ROWS, ROWS];
    let graph = x.graph();
    let diagonal = graph
        .iota(DType::S32, &square, 0)
        .eq(graph.iota(DType::S32, &square, 1));
    diagonal.select(products, 0.0).sum_all()
}
