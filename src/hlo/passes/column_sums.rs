//! Sums over all dimensions but the last, such as those of batch normalisation, in two stages.
//!
//! The CPU plugin sums one column after the other, each time jumping through the whole array: ten times as long as reading it. Here the
//! array is first folded: so many slices are added element by element, which it does with vectors and in order; only what is left is
//! summed by columns, and that fits the cache.
//!
//! Forward sums are folded where columns are long, which makes them more exact too. Short ones keep their order: another rounding of
//! the statistics takes networks of a hundred layers further from the original's numbers than those numbers' own noise.

use super::{by_columns, column_length, is_gradient};
use crate::hlo::{Error, Module, Monoid, Op, Reducer, Value};

/// Smaller arrays stay in the cache however they are read.
const LARGE: i64 = 1 << 14;
/// Rows, of all replicas together, from which forward sums are another order's, so that sharing a batch changes nothing of it.
const LONG: i64 = 1 << 15;
/// Slices that are added at once: the compiler unrolls so many.
const SLICES: i64 = 32;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    let replicas = module.replicas as i64;
    module.rewrite(&|_, node, operands| match &node.op {
        Op::Reduce {
            dims,
            reducer: Reducer::Monoid(Monoid::Add),
        } => {
            let x = operands[0];
            let large = x.dims().iter().product::<i64>() >= LARGE;
            let taken = is_gradient(node) || column_length(x) * replicas >= LONG;
            (by_columns(x.rank(), dims) && large && taken && x.dtype().is_float())
                .then(|| folded(x))
                .flatten()
                .map(|sum| sum + operands[1].broadcast_trailing(&sum.dims()))
        }
        _ => None,
    })
}

fn folded(x: Value) -> Option<Value> {
    let dims = x.dims();
    let columns = dims[dims.len() - 1];
    // By whole images if there are enough of them: the fold then has the shape of what it is fused with.
    let slices = divisor(dims[0], SLICES);
    let folded = if slices >= SLICES / 4 {
        let mut split = vec![slices, dims[0] / slices];
        split.extend(&dims[1..]);
        x.reshape(&split).sum(&[0])
    } else {
        let rows: i64 = dims[..dims.len() - 1].iter().product();
        let slices = divisor(rows, SLICES);
        if slices < 2 {
            return None;
        }
        x.reshape(&[slices, rows / slices, columns]).sum(&[0])
    };
    let over: Vec<i64> = (0..folded.rank() as i64 - 1).collect();
    Some(folded.fence().sum(&over))
}

/// The largest divisor of a number up to a limit.
fn divisor(number: i64, limit: i64) -> i64 {
    (1..=limit).rev().find(|d| number % d == 0).unwrap_or(1)
}
