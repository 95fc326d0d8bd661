//! Equal values of cheap operations once.
//!
//! A third of a step's operations are constants and what is broadcast of them, one for each place that names a number. The plugin shares
//! them, too, but only after many passes over all; the deeper the network, the more of compiling are those (`docs/benchmarks.md`).

use crate::hlo::{Error, Module, Node, NodeId, Op, Value};
use std::cell::RefCell;
use std::collections::HashMap;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    module.rewrite_each(&|| {
        let known: RefCell<HashMap<String, NodeId>> = RefCell::default();
        Box::new(move |graph, node, operands| {
            let key = cheap(&node.op).then(|| key(node, operands))?;
            if let Some(&id) = known.borrow().get(&key) {
                return Some(graph.value(id));
            }
            let value = graph.push_scoped(node.op.clone(), operands, node.scope.clone());
            known.borrow_mut().insert(key, value.id());
            Some(value)
        })
    })
}

/// Whether it is an operation whose result depends on nothing but its operands, and which takes no text to tell from others.
fn cheap(op: &Op) -> bool {
    match op {
        Op::Constant(literal) => literal.shape().dims.is_empty(),
        Op::Iota { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Convert(_)
        | Op::Broadcast { .. }
        | Op::Reshape { .. }
        | Op::Slice { .. } => true,
        _ => false,
    }
}

/// What two nodes of a computation have in common if their values are equal.
fn key(node: &Node, operands: &[Value]) -> String {
    let operands: Vec<NodeId> = operands.iter().map(|value| value.id()).collect();
    match &node.op {
        // A number by its bytes: 0 is not −0.
        Op::Constant(literal) => format!("{:?} {:?}", literal.bytes(), node.ty),
        op => format!("{op:?} {operands:?} {:?}", node.ty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlo::{DType, Graph, Shape};

    #[test]
    fn equal_values_are_shared_and_others_are_not() {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(DType::F32, [4]));
        // x + 1 twice; 0 and −0 differ in a bit.
        let sums = [1.0, 1.0, 0.0, -0.0].map(|number| x + number);
        let module = graph.finish("sums", &sums).unwrap();
        let shared = run(&module).unwrap();
        // Constant, broadcast and addition of the second 1.
        assert_eq!(module.node_count() - shared.node_count(), 3);
        assert_eq!(run(&shared).unwrap().node_count(), shared.node_count());
    }

    /// Numbers of other types with the same bytes, other places of the same numbers, and values that a fence keeps apart.
    #[test]
    fn what_differs_in_type_or_place_is_not_shared() {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(DType::F32, [4]));
        let results = [
            graph.scalar(0f32),
            graph.scalar(0i32),
            x.broadcast_in_dim(&[4, 4], &[0]),
            x.broadcast_in_dim(&[4, 4], &[1]),
            x.fence(),
            x.fence(),
        ];
        let module = graph.finish("apart", &results).unwrap();
        assert_eq!(run(&module).unwrap().node_count(), module.node_count());
    }

    /// A value of one computation is none of another's.
    #[test]
    fn loops_keep_their_own() {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(DType::F32, [4]));
        let added = |times: f64| {
            graph.while_loop(
                &[x],
                |_, state| state[0].slice_dim(0, 0, 1).reshape(&[]).lt(9.0),
                |_, state| vec![state[0] + 1.0 + times + 1.0],
            )[0]
        };
        let module = graph
            .finish("loops", &[added(2.0), added(3.0), x + 1.0])
            .unwrap();
        let shared = run(&module).unwrap();
        // In each loop the constant 1 and its broadcast, for the second time.
        assert_eq!(module.node_count() - shared.node_count(), 4);
    }
}
