//! The same elements in another shape or order, or some of them.

use super::super::graph::Value;
use super::super::op::{GatherDims, Monoid, Op, PadDim, ScatterDims};
use super::super::shape::Type;

impl<'g> Value<'g> {
    /// A scalar repeated over `dims`.
    pub fn broadcast_scalar(self, dims: &[i64]) -> Value<'g> {
        if dims.is_empty() && self.rank() == 0 {
            return self;
        }
        self.broadcast_in_dim(dims, &[])
    }

    /// Repeated so that dimension `i` becomes dimension `mapping[i]` of `dims`.
    pub fn broadcast_in_dim(self, dims: &[i64], mapping: &[i64]) -> Value<'g> {
        let op = Op::Broadcast {
            dims: dims.to_vec(),
            mapping: mapping.to_vec(),
        };
        self.graph.push(op, &[self])
    }

    /// A vector (or smaller array) spread over the last dimensions of `dims`.
    pub fn broadcast_trailing(self, dims: &[i64]) -> Value<'g> {
        let lead = dims.len() as i64 - self.rank() as i64;
        let mapping: Vec<i64> = (0..self.rank() as i64).map(|i| i + lead).collect();
        self.broadcast_in_dim(dims, &mapping)
    }

    /// An array spread so that its dimensions are the first ones of `dims`.
    pub fn broadcast_leading(self, dims: &[i64]) -> Value<'g> {
        let mapping: Vec<i64> = (0..self.rank() as i64).collect();
        self.broadcast_in_dim(dims, &mapping)
    }

    /// The same elements in row-major order in other dimensions.
    pub fn reshape(self, dims: &[i64]) -> Value<'g> {
        self.graph.push(
            Op::Reshape {
                dims: dims.to_vec(),
            },
            &[self],
        )
    }

    /// Dimensions in another order: result dimension `i` is dimension `permutation[i]`.
    pub fn transpose(self, permutation: &[i64]) -> Value<'g> {
        self.graph.push(
            Op::Transpose {
                permutation: permutation.to_vec(),
            },
            &[self],
        )
    }

    /// `start..limit` of every dimension, each with a stride.
    pub fn slice(self, start: &[i64], limit: &[i64], stride: &[i64]) -> Value<'g> {
        let op = Op::Slice {
            start: start.to_vec(),
            limit: limit.to_vec(),
            stride: stride.to_vec(),
        };
        self.graph.push(op, &[self])
    }

    /// `start..limit` of one dimension.
    pub fn slice_dim(self, dim: usize, start: i64, limit: i64) -> Value<'g> {
        let dims = self.dims();
        let mut starts = vec![0; dims.len()];
        let mut limits = dims.clone();
        if dim < dims.len() {
            starts[dim] = start;
            limits[dim] = limit;
        }
        self.slice(&starts, &limits, &vec![1; dims.len()])
    }

    /// A slice of fixed sizes at computed places (clamped so that it fits).
    pub fn dynamic_slice(self, starts: &[Value<'g>], sizes: &[i64]) -> Value<'g> {
        let operands: Vec<Value> = std::iter::once(self)
            .chain(starts.iter().copied())
            .collect();
        self.graph.push(
            Op::DynamicSlice {
                sizes: sizes.to_vec(),
            },
            &operands,
        )
    }

    /// With `update` written at computed places.
    pub fn dynamic_update_slice(self, update: Value<'g>, starts: &[Value<'g>]) -> Value<'g> {
        let operands: Vec<Value> = [self, update]
            .into_iter()
            .chain(starts.iter().copied())
            .collect();
        self.graph.push(Op::DynamicUpdateSlice, &operands)
    }

    /// XLA's general gather.
    pub fn gather(self, indices: Value<'g>, dims: GatherDims) -> Value<'g> {
        self.graph.push(Op::Gather(dims), &[self, indices])
    }

    /// Rows `indices` (an integer vector) of the first dimension.
    pub fn take_rows(self, indices: Value<'g>) -> Value<'g> {
        let mut slice_sizes = self.dims();
        if let Some(first) = slice_sizes.first_mut() {
            *first = 1;
        }
        self.gather(
            indices,
            GatherDims {
                offset_dims: (1..self.rank() as i64).collect(),
                collapsed_slice_dims: vec![0],
                start_index_map: vec![0],
                index_vector_dim: 1,
                slice_sizes,
            },
        )
    }

    /// XLA's general scatter; colliding updates combine with the monoid.
    pub fn scatter(
        self,
        indices: Value<'g>,
        updates: Value<'g>,
        dims: ScatterDims,
        monoid: Monoid,
    ) -> Value<'g> {
        self.graph
            .push(Op::Scatter { dims, monoid }, &[self, indices, updates])
    }

    /// Padded with a value; negative padding crops.
    pub fn pad(self, value: f64, padding: &[PadDim]) -> Value<'g> {
        let value = self.graph.scalar_of(self.dtype(), value);
        self.graph.push(Op::Pad(padding.to_vec()), &[self, value])
    }

    /// With these dimensions reversed.
    pub fn reverse(self, dims: &[i64]) -> Value<'g> {
        self.graph.push(
            Op::Reverse {
                dims: dims.to_vec(),
            },
            &[self],
        )
    }

    /// Element `index` of a tuple.
    pub fn element(self, index: usize) -> Value<'g> {
        self.graph.push(Op::GetTupleElement { index }, &[self])
    }

    /// The first `count` elements of a tuple.
    pub fn elements(self, count: usize) -> Vec<Value<'g>> {
        (0..count).map(|i| self.element(i)).collect()
    }

    /// All elements of a tuple; of anything else, none.
    pub fn unpack(self) -> Vec<Value<'g>> {
        match self.ty() {
            Type::Tuple(shapes) => self.elements(shapes.len()),
            Type::Array(_) | Type::Invalid => Vec::new(),
        }
    }
}
