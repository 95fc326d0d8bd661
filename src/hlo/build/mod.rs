//! The methods that build operations: those of the graph itself here, those of values in the files beside. Binary operations take
//! operands of one shape, or a scalar on either side, which is broadcast; `f64` constants on the right take the type of the left.

mod collectives;
mod contractions;
mod elementwise;
mod shapes;

pub use elementwise::Operand;

use super::graph::{Computation, Graph, Value};
use super::literal::{Element, Literal};
use super::op::{Op, Reducer, RngAlgorithm};
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
