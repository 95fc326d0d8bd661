//! The methods that build operations. Binary operations take operands of one shape, or a scalar on either side, which is
//! broadcast; `f64` constants on the right take the type of the left.

use super::graph::{Computation, Graph, Value};
use super::literal::{Element, Literal};
use super::op::{
    Binary, Comparison, Conv, DotDims, GatherDims, Monoid, Op, PadDim, Precision, Reducer,
    RngAlgorithm, ScatterDims, Unary, WindowDim,
};
use super::shape::{DType, Shape, Type};
use std::rc::Rc;

/// Builds a branch of a conditional from its arguments.
pub type Branch<'b> = dyn for<'a> Fn(&'a Graph, &[Value<'a>]) -> Vec<Value<'a>> + 'b;

impl Graph {
    /// A constant array.
    pub fn constant(&self, literal: Literal) -> Value<'_> {
        self.push(Op::Constant(Rc::new(literal)), &[])
    }

    /// A scalar constant.
    pub fn scalar<T: Element>(&self, value: T) -> Value<'_> {
        self.constant(Literal::scalar(value))
    }

    /// A scalar constant of a type chosen at run time.
    pub fn scalar_of(&self, dtype: DType, value: f64) -> Value<'_> {
        self.constant(Literal::from_f64s(dtype, &[], &[value]))
    }

    /// One value everywhere.
    pub fn full(&self, shape: &Shape, value: f64) -> Value<'_> {
        self.scalar_of(shape.dtype, value)
            .broadcast_scalar(&shape.dims)
    }

    /// Zeros.
    pub fn zeros(&self, shape: &Shape) -> Value<'_> {
        self.full(shape, 0.0)
    }

    /// Numbers 0, 1, … along a dimension.
    pub fn iota(&self, dtype: DType, dims: &[i64], dim: i64) -> Value<'_> {
        self.push(
            Op::Iota {
                shape: Shape::new(dtype, dims),
                dim,
            },
            &[],
        )
    }

    /// Arrays joined along a dimension.
    pub fn concatenate<'g>(&'g self, values: &[Value<'g>], dim: i64) -> Value<'g> {
        match values {
            [only] => *only,
            _ => self.push(Op::Concatenate { dim }, values),
        }
    }

    /// A tuple (the result of a module or of a loop body).
    pub fn tuple<'g>(&'g self, values: &[Value<'g>]) -> Value<'g> {
        self.push(Op::Tuple, values)
    }

    /// A sub-computation with one parameter per type.
    ///
    /// An error inside is remembered by this graph, and the result is `None`.
    pub fn subcomputation(
        &self,
        parameters: &[Type],
        build: impl for<'a> FnOnce(&'a Graph, &[Value<'a>]) -> Value<'a>,
    ) -> Option<Rc<Computation>> {
        let inner = Graph::new();
        let path = self.scope_path();
        let scope = (!path.is_empty()).then(|| inner.scope(path.to_string()));
        let arguments: Vec<Value> = parameters
            .iter()
            .enumerate()
            .map(|(i, ty)| inner.typed_parameter(format!("p{i}"), ty.clone()))
            .collect();
        let root = build(&inner, &arguments);
        drop(scope);
        match inner.computation(root) {
            Ok(computation) => Some(Rc::new(computation)),
            Err(error) => {
                self.adopt(error);
                None
            }
        }
    }

    /// A loop over a state of several arrays: `body` gives the next state while `condition` holds.
    pub fn while_loop<'g>(
        &'g self,
        init: &[Value<'g>],
        condition: impl for<'a> FnOnce(&'a Graph, &[Value<'a>]) -> Value<'a>,
        body: impl for<'a> FnOnce(&'a Graph, &[Value<'a>]) -> Vec<Value<'a>>,
    ) -> Vec<Value<'g>> {
        let state = self.tuple(init);
        let count = init.len();
        let ty = [state.ty()];
        let condition = self.subcomputation(&ty, |g, p| condition(g, &p[0].elements(count)));
        let body = self.subcomputation(&ty, |g, p| g.tuple(&body(g, &p[0].elements(count))));
        match (condition, body) {
            (Some(condition), Some(body)) => self
                .push(Op::While { condition, body }, &[state])
                .elements(count),
            _ => vec![self.fail("while", "its body or condition could not be built"); count],
        }
    }

    /// Runs branch `index` (s32; out of range means the last) on its own arguments; all branches give the same types.
    pub fn conditional<'g>(
        &'g self,
        index: Value<'g>,
        branches: &[(Vec<Value<'g>>, &Branch<'_>)],
    ) -> Vec<Value<'g>> {
        let mut operands = vec![index];
        let mut computations = Vec::new();
        let mut results = 0;
        for (arguments, build) in branches {
            let tuple = self.tuple(arguments);
            operands.push(tuple);
            let branch = self.subcomputation(&[tuple.ty()], |g, p| {
                let outputs = build(g, &p[0].elements(arguments.len()));
                results = outputs.len();
                g.tuple(&outputs)
            });
            match branch {
                Some(branch) => computations.push(branch),
                None => return vec![self.fail("conditional", "a branch could not be built")],
            }
        }
        self.push(
            Op::Conditional {
                branches: computations,
            },
            &operands,
        )
        .elements(results)
    }

    /// Calls a function of arrays that gives several arrays.
    pub fn call<'g>(
        &'g self,
        arguments: &[Value<'g>],
        function: impl for<'a> FnOnce(&'a Graph, &[Value<'a>]) -> Vec<Value<'a>>,
    ) -> Vec<Value<'g>> {
        let types: Vec<Type> = arguments.iter().map(|a| a.ty()).collect();
        let mut count = 0;
        let callee = self.subcomputation(&types, |g, p| {
            let results = function(g, p);
            count = results.len();
            g.tuple(&results)
        });
        match callee {
            Some(callee) => self.push(Op::Call(callee), arguments).elements(count),
            None => vec![self.fail("call", "its function could not be built"); count],
        }
    }

    /// Reduces several arrays together; `body` combines accumulators and elements, both in the order of `values`.
    pub fn reduce_general<'g>(
        &'g self,
        values: &[Value<'g>],
        inits: &[Value<'g>],
        dims: &[i64],
        body: impl for<'a> FnOnce(&'a Graph, &[Value<'a>], &[Value<'a>]) -> Vec<Value<'a>>,
    ) -> Vec<Value<'g>> {
        let scalars = |v: &[Value<'g>]| -> Vec<Type> {
            v.iter()
                .map(|v| Type::Array(Shape::scalar(v.dtype())))
                .collect()
        };
        let count = values.len();
        let types: Vec<Type> = scalars(values).into_iter().chain(scalars(values)).collect();
        let reducer =
            self.subcomputation(&types, |g, p| g.tuple(&body(g, &p[..count], &p[count..])));
        let Some(reducer) = reducer else {
            return vec![self.fail("reduce", "its body could not be built"); count];
        };
        let operands: Vec<Value> = values.iter().chain(inits).copied().collect();
        let op = Op::Reduce {
            dims: dims.to_vec(),
            reducer: Reducer::General(reducer),
        };
        self.push(op, &operands).elements(count)
    }

    /// Sorts arrays together along a dimension; `less(a, b)` compares one element of each.
    pub fn sort<'g>(
        &'g self,
        values: &[Value<'g>],
        dim: i64,
        less: impl for<'a> FnOnce(&'a Graph, &[Value<'a>], &[Value<'a>]) -> Value<'a>,
    ) -> Vec<Value<'g>> {
        let mut types = Vec::new();
        for value in values {
            let scalar = Type::Array(Shape::scalar(value.dtype()));
            types.extend([scalar.clone(), scalar]);
        }
        let less = self.subcomputation(&types, |g, p| {
            let a: Vec<Value> = p.iter().step_by(2).copied().collect();
            let b: Vec<Value> = p.iter().skip(1).step_by(2).copied().collect();
            less(g, &a, &b)
        });
        let Some(less) = less else {
            return vec![self.fail("sort", "its comparison could not be built"); values.len()];
        };
        let sorted = self.push(Op::Sort { dim, less }, values);
        if values.len() == 1 {
            vec![sorted]
        } else {
            sorted.elements(values.len())
        }
    }

    /// Bits of a generator: `(new state, bits)`.
    pub fn rng_bits<'g>(
        &'g self,
        algorithm: RngAlgorithm,
        state: Value<'g>,
        shape: Shape,
    ) -> (Value<'g>, Value<'g>) {
        let result = self.push(Op::RngBitGenerator { algorithm, shape }, &[state]);
        (result.element(0), result.element(1))
    }

    /// The identity on all values together: nothing is computed before all of them are.
    pub fn optimization_barrier<'g>(&'g self, values: &[Value<'g>]) -> Vec<Value<'g>> {
        self.push(Op::OptimizationBarrier, &[self.tuple(values)])
            .elements(values.len())
    }

    /// The number of this replica, a u32 scalar.
    pub fn replica_id(&self) -> Value<'_> {
        self.push(Op::ReplicaId, &[])
    }
}

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $name:ident => $unary:ident),* $(,)?) => {
        impl<'g> Value<'g> {$(
            $(#[$doc])*
            pub fn $name(self) -> Value<'g> {
                self.unary(Unary::$unary)
            }
        )*}
    };
}
unary_methods! {
    /// Absolute value.
    abs => Abs,
    /// Cube root.
    cbrt => Cbrt,
    /// Rounded up.
    ceil => Ceil,
    /// Cosine.
    cos => Cos,
    /// Error function.
    erf => Erf,
    /// e to the power.
    exp => Exp,
    /// e to the power, less one.
    expm1 => Expm1,
    /// Rounded down.
    floor => Floor,
    /// Neither infinite nor not-a-number.
    is_finite => IsFinite,
    /// Natural logarithm.
    log => Log,
    /// Logarithm of one more.
    log1p => Log1p,
    /// 1 / (1 + e⁻ˣ).
    logistic => Logistic,
    /// Logical (or bitwise) negation.
    logical_not => Not,
    /// Nearest integer, halves away from zero.
    round_afz => RoundAfz,
    /// Nearest integer, halves to even.
    round_even => RoundEven,
    /// 1 / √x.
    rsqrt => Rsqrt,
    /// −1, 0 or 1.
    sign => Sign,
    /// Sine.
    sin => Sin,
    /// Square root.
    sqrt => Sqrt,
    /// Tangent.
    tan => Tan,
    /// Hyperbolic tangent.
    tanh => Tanh,
}

macro_rules! binary_methods {
    ($($(#[$doc:meta])* $name:ident => $binary:ident),* $(,)?) => {
        impl<'g> Value<'g> {$(
            $(#[$doc])*
            pub fn $name(self, rhs: impl Operand<'g>) -> Value<'g> {
                self.binary(Binary::$binary, rhs)
            }
        )*}
    };
}
binary_methods! {
    /// Logical (or bitwise) and.
    and => And,
    /// Angle of the point (rhs, self).
    atan2 => Atan2,
    /// The larger.
    max => Maximum,
    /// The smaller.
    min => Minimum,
    /// Logical (or bitwise) or.
    or => Or,
    /// Power.
    pow => Power,
    /// Remainder with the sign of the dividend.
    remainder => Remainder,
    /// Bits moved up.
    shift_left => ShiftLeft,
    /// Bits moved down, the sign filled in.
    shift_right_arithmetic => ShiftRightArithmetic,
    /// Bits moved down, zeros filled in.
    shift_right => ShiftRightLogical,
    /// Exclusive or.
    xor => Xor,
}

macro_rules! comparison_methods {
    ($($(#[$doc:meta])* $name:ident => $direction:ident),* $(,)?) => {
        impl<'g> Value<'g> {$(
            $(#[$doc])*
            pub fn $name(self, rhs: impl Operand<'g>) -> Value<'g> {
                let (a, b) = self.with_operand(rhs);
                self.graph.push(Op::Compare(Comparison::$direction), &[a, b])
            }
        )*}
    };
}
comparison_methods! {
    /// Elementwise equality (`pred`).
    eq => Eq,
    /// Elementwise difference (`pred`).
    ne => Ne,
    /// Elementwise less-than (`pred`).
    lt => Lt,
    /// Elementwise less-or-equal (`pred`).
    le => Le,
    /// Elementwise greater-than (`pred`).
    gt => Gt,
    /// Elementwise greater-or-equal (`pred`).
    ge => Ge,
}

/// The right side of a binary operation: a value, or a number of the left side's type.
pub trait Operand<'g> {
    /// As a value of the left side's graph.
    fn value(self, lhs: Value<'g>) -> Value<'g>;
}

impl<'g> Operand<'g> for Value<'g> {
    fn value(self, _: Value<'g>) -> Value<'g> {
        self
    }
}

impl<'g> Operand<'g> for f64 {
    fn value(self, lhs: Value<'g>) -> Value<'g> {
        lhs.graph.scalar_of(lhs.dtype(), self)
    }
}

macro_rules! operators {
    ($($trait:ident :: $method:ident => $binary:ident),*) => {$(
        impl<'g, R: Operand<'g>> std::ops::$trait<R> for Value<'g> {
            type Output = Value<'g>;
            fn $method(self, rhs: R) -> Value<'g> {
                self.binary(Binary::$binary, rhs)
            }
        }
        impl<'g> std::ops::$trait<Value<'g>> for f64 {
            type Output = Value<'g>;
            fn $method(self, rhs: Value<'g>) -> Value<'g> {
                rhs.graph.scalar_of(rhs.dtype(), self).binary(Binary::$binary, rhs)
            }
        }
    )*};
}
operators!(Add::add => Add, Sub::sub => Subtract, Mul::mul => Multiply, Div::div => Divide);

impl<'g> std::ops::Neg for Value<'g> {
    type Output = Value<'g>;
    fn neg(self) -> Value<'g> {
        self.unary(Unary::Negate)
    }
}

impl<'g> Value<'g> {
    /// Element type.
    pub fn dtype(self) -> DType {
        self.shape().dtype
    }

    /// Dimensions.
    pub fn dims(self) -> Vec<i64> {
        self.shape().dims
    }

    /// Size of one dimension (0 if there is no such dimension; the operation that needs it will say so).
    pub fn dim(self, dim: usize) -> i64 {
        self.shape().dims.get(dim).copied().unwrap_or(0)
    }

    /// Number of dimensions.
    pub fn rank(self) -> usize {
        self.shape().rank()
    }

    /// An elementwise operation on one operand.
    pub fn unary(self, unary: Unary) -> Value<'g> {
        self.graph.push(Op::Unary(unary), &[self])
    }

    /// An elementwise operation on two operands (a scalar on either side is broadcast).
    pub fn binary(self, binary: Binary, rhs: impl Operand<'g>) -> Value<'g> {
        let (a, b) = self.with_operand(rhs);
        self.graph.push(Op::Binary(binary), &[a, b])
    }

    fn with_operand(self, rhs: impl Operand<'g>) -> (Value<'g>, Value<'g>) {
        let rhs = rhs.value(self);
        match (self.rank(), rhs.rank()) {
            (0, 1..) => (self.broadcast_scalar(&rhs.dims()), rhs),
            (1.., 0) => (self, rhs.broadcast_scalar(&self.dims())),
            _ => (self, rhs),
        }
    }

    /// `self` (pred, or a scalar pred) ? `on_true` : `on_false`, either of which may be a number of the other's type.
    pub fn select(self, on_true: Value<'g>, on_false: impl Operand<'g>) -> Value<'g> {
        let on_false = on_false.value(on_true);
        let dims = [self.dims(), on_true.dims(), on_false.dims()]
            .into_iter()
            .max_by_key(Vec::len)
            .unwrap_or_default();
        let spread = |v: Value<'g>| {
            if v.rank() == 0 {
                v.broadcast_scalar(&dims)
            } else {
                v
            }
        };
        self.graph.push(
            Op::Select,
            &[spread(self), spread(on_true), spread(on_false)],
        )
    }

    /// Limited to `low..=high`.
    pub fn clamp(self, low: f64, high: f64) -> Value<'g> {
        let shape = self.shape();
        let (low, high) = (self.graph.full(&shape, low), self.graph.full(&shape, high));
        self.graph.push(Op::Clamp, &[low, self, high])
    }

    /// Converted to another element type.
    pub fn convert(self, dtype: DType) -> Value<'g> {
        if self.dtype() == dtype && !self.is_invalid() {
            return self;
        }
        self.graph.push(Op::Convert(dtype), &[self])
    }

    /// The same bits read as another element type of the same size.
    pub fn bitcast_convert(self, dtype: DType) -> Value<'g> {
        self.graph.push(Op::BitcastConvert(dtype), &[self])
    }

    /// The identity, through which no gradient flows.
    pub fn stop_gradient(self) -> Value<'g> {
        self.graph.push(Op::StopGradient, &[self])
    }

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

    /// Adds each element of `source` at the first maximum of its window in `self`, to zeros.
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

    /// Sum over all replicas.
    pub fn all_reduce_sum(self) -> Value<'g> {
        self.all_reduce(Monoid::Add, &[])
    }

    /// Combination over the replicas of each group (no groups: all replicas).
    pub fn all_reduce(self, monoid: Monoid, groups: &[Vec<i64>]) -> Value<'g> {
        self.graph.push(
            Op::AllReduce {
                monoid,
                groups: groups.to_vec(),
            },
            &[self],
        )
    }

    /// The values of `size` replicas joined along a dimension, in replica order.
    pub fn all_gather(self, dim: i64, size: i64, groups: &[Vec<i64>]) -> Value<'g> {
        self.graph.push(
            Op::AllGather {
                dim,
                size,
                groups: groups.to_vec(),
            },
            &[self],
        )
    }

    /// The sum over `size` replicas, of which each keeps its slice of a dimension.
    pub fn reduce_scatter(self, dim: i64, size: i64, groups: &[Vec<i64>]) -> Value<'g> {
        self.graph.push(
            Op::ReduceScatter {
                dim,
                size,
                groups: groups.to_vec(),
            },
            &[self],
        )
    }

    /// Values moved from replica to replica along `(from, to)` pairs; replicas that are no target get zeros.
    pub fn collective_permute(self, pairs: &[(i64, i64)]) -> Value<'g> {
        self.graph.push(
            Op::CollectivePermute {
                pairs: pairs.to_vec(),
            },
            &[self],
        )
    }
}
