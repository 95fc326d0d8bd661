//! Sums over dimensions and windows, convolutions, matrix products.

use super::super::graph::Value;
use super::super::op::{Conv, DotDims, Monoid, Op, PadDim, Precision, Reducer, WindowDim};
use super::super::shape::DType;

impl<'g> Value<'g> {
    /// Combined over `dims`, which disappear.
    pub fn reduce(self, monoid: Monoid, dims: &[i64]) -> Value<'g> {
        if dims.is_empty() {
            return self;
        }
        let init = self.graph.constant(monoid.identity(self.dtype()));
        let op = Op::Reduce {
            dims: dims.to_vec(),
            reducer: Reducer::Monoid(monoid),
        };
        self.graph.push(op, &[self, init])
    }

    /// The identity, kept in memory: XLA fuses nothing across it (on the CPU, where it takes optimization barriers away first).
    pub fn fence(self) -> Value<'g> {
        self.graph().push(Op::Fence, &[self])
    }

    /// Sum over `dims`.
    pub fn sum(self, dims: &[i64]) -> Value<'g> {
        self.reduce(Monoid::Add, dims)
    }

    /// Sum over everything: a scalar.
    pub fn sum_all(self) -> Value<'g> {
        self.sum(&(0..self.rank() as i64).collect::<Vec<_>>())
    }

    /// Mean over `dims`.
    pub fn mean(self, dims: &[i64]) -> Value<'g> {
        let count: i64 = dims.iter().map(|&d| self.dim(d as usize)).product();
        self.sum(dims) * (1.0 / count as f64)
    }

    /// Largest over `dims`.
    pub fn reduce_max(self, dims: &[i64]) -> Value<'g> {
        self.reduce(Monoid::Maximum, dims)
    }

    /// Smallest over `dims`.
    pub fn reduce_min(self, dims: &[i64]) -> Value<'g> {
        self.reduce(Monoid::Minimum, dims)
    }

    /// Index (s32) of the largest element along a dimension; the first of equals.
    pub fn argmax(self, dim: i64) -> Value<'g> {
        let graph = self.graph;
        let positions = graph.iota(DType::S32, &self.dims(), dim);
        let lowest = graph.constant(Monoid::Maximum.identity(self.dtype()));
        let none = graph.scalar(i32::MAX);
        graph.reduce_general(
            &[self, positions],
            &[lowest, none],
            &[dim],
            |_, best, next| {
                let larger = next[0].gt(best[0]);
                let tied_earlier = next[0].eq(best[0]).and(next[1].lt(best[1]));
                let take = larger.or(tied_earlier);
                vec![take.select(next[0], best[0]), take.select(next[1], best[1])]
            },
        )[1]
    }

    /// Combined over each window (one entry per dimension; padding counts as the identity).
    pub fn reduce_window(self, monoid: Monoid, window: &[WindowDim]) -> Value<'g> {
        let init = self.graph.constant(monoid.identity(self.dtype()));
        self.graph.push(
            Op::ReduceWindow {
                window: window.to_vec(),
                monoid,
            },
            &[self, init],
        )
    }

    /// The elements of all windows, an array for each place in a window, the last dimension's places fastest; `fill` in the padding. Windows
    /// without dilation.
    pub fn cells(self, fill: f64, window: &[WindowDim]) -> Vec<Value<'g>> {
        let around: Vec<PadDim> = window
            .iter()
            .map(|w| PadDim {
                low: w.low,
                high: w.high,
                interior: 0,
            })
            .collect();
        let padded = self.pad(fill, &around);
        let dims = self.dims();
        let strides: Vec<i64> = window.iter().map(|w| w.stride).collect();
        let places: i64 = window.iter().map(|w| w.size).product();
        (0..places)
            .map(|place| {
                let (mut start, mut rest) = (vec![0; window.len()], place);
                for (start, w) in start.iter_mut().zip(window).rev() {
                    (*start, rest) = (rest % w.size, rest / w.size);
                }
                let limit: Vec<i64> = (0..start.len())
                    .map(|d| start[d] + (window[d].output(dims[d]) - 1) * strides[d] + 1)
                    .collect();
                padded.slice(&start, &limit, &strides)
            })
            .collect()
    }

    /// Adds each element of `source` at the maximum of its window in `self`, to zeros; of equal ones the plugin takes one.
    pub fn select_and_scatter(self, source: Value<'g>, window: &[WindowDim]) -> Value<'g> {
        let init = self.graph.scalar_of(self.dtype(), 0.0);
        self.graph.push(
            Op::SelectAndScatter {
                window: window.to_vec(),
            },
            &[self, source, init],
        )
    }

    /// Convolution with a kernel.
    pub fn convolve(self, kernel: Value<'g>, conv: Conv) -> Value<'g> {
        self.graph.push(Op::Convolution(conv), &[self, kernel])
    }

    /// General dot product: batch dimensions, then free ones of the left, then of the right.
    pub fn dot_general(self, rhs: Value<'g>, dims: DotDims) -> Value<'g> {
        self.graph.push(Op::Dot(dims), &[self, rhs])
    }

    /// Last dimension times first dimension of `rhs`.
    pub fn matmul(self, rhs: Value<'g>) -> Value<'g> {
        self.matmul_with(rhs, Precision::Default)
    }

    /// As [`Value::matmul`], with f32 products also where the device would shorten them.
    pub fn precise_matmul(self, rhs: Value<'g>) -> Value<'g> {
        self.matmul_with(rhs, Precision::Highest)
    }

    fn matmul_with(self, rhs: Value<'g>, precision: Precision) -> Value<'g> {
        let last = self.rank() as i64 - 1;
        self.dot_general(
            rhs,
            DotDims {
                lhs_contracting: vec![last],
                rhs_contracting: vec![0],
                precision,
                ..DotDims::default()
            },
        )
    }
}
