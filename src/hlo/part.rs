//! A part of a computation as a module of its own, repeated in a loop: what a profile times.

use super::graph::{Computation, Error, Graph, Node, NodeId, Value};
use super::module::Module;
use super::op::Op;
use super::shape::{DType, Shape, Type};
use std::collections::HashMap;

/// Nodes that cost nothing by themselves are copied into a part rather than passed to it.
fn is_free(op: &Op) -> bool {
    matches!(
        op,
        Op::Constant(_) | Op::Iota { .. } | Op::ReplicaId | Op::Tuple | Op::StopGradient
    )
}

/// The chosen nodes as a module: what they need from outside are its parameters after the first, s32 `count`; what is needed of them
/// outside are its results. It computes them `count` times, each time from slightly other inputs, so that a compiler can neither leave
/// a repetition out nor compute anything before the loop.
///
/// # Errors
/// If the part cannot be built, which a part of a finished computation always can.
pub fn repeated(
    computation: &Computation,
    chosen: &[NodeId],
    replicas: usize,
) -> Result<Module, Error> {
    let nodes = &computation.nodes;
    let mut inside = vec![false; nodes.len()];
    for id in chosen {
        inside[id.index()] = true;
    }
    // Elements of a chosen tuple belong to it.
    for index in 0..nodes.len() {
        let node = &nodes[index];
        if matches!(node.op, Op::GetTupleElement { .. }) {
            inside[index] |= inside[node.operands[0].index()];
        }
    }
    let mut used_outside = vec![false; nodes.len()];
    used_outside[computation.root.index()] = true;
    for (index, node) in nodes.iter().enumerate() {
        for operand in &node.operands {
            used_outside[operand.index()] |= !inside[index];
        }
    }
    let is_array = |node: &Node| matches!(node.ty, Type::Array(_));
    let results: Vec<usize> = (0..nodes.len())
        .filter(|&i| inside[i] && used_outside[i] && is_array(&nodes[i]))
        .collect();
    let mut part = Part {
        nodes,
        inside: &inside,
        inputs: Vec::new(),
    };
    let mut seen = vec![false; nodes.len()];
    for &result in &results {
        part.find_inputs(NodeId::from_index(result), &mut seen);
    }
    let inputs = part.inputs.clone();
    let graph = Graph::new();
    let count = graph.parameter("count", Shape::scalar(DType::S32));
    let shape = |i: usize| match &nodes[i].ty {
        Type::Array(shape) => shape.clone(),
        _ => Shape::scalar(DType::F32), // inputs and results are arrays
    };
    let mut init = vec![graph.scalar(0i32), count];
    init.extend(
        (inputs.iter().enumerate()).map(|(k, &i)| graph.parameter(format!("p{k}"), shape(i))),
    );
    init.extend(results.iter().map(|&i| graph.zeros(&shape(i))));
    let first = 2;
    let state = graph.while_loop(
        &init,
        |_, s| s[0].lt(s[1]),
        |graph, s| {
            let mut copies: HashMap<usize, Value> = HashMap::new();
            for (k, &i) in inputs.iter().enumerate() {
                copies.insert(i, s[first + k]);
            }
            let made: Vec<Value> = results
                .iter()
                .map(|&i| part.copy(graph, NodeId::from_index(i), &mut copies))
                .collect();
            let change = made
                .iter()
                .filter(|value| value.dtype().is_float())
                .map(|value| corner(*value).convert(DType::F32))
                .fold(graph.scalar(1e-3f32), |sum, value| sum + value * 1e-9);
            let mut next = vec![s[0] + 1.0, s[1]];
            for &input in &s[first..first + inputs.len()] {
                next.push(changed(input, change));
            }
            next.extend(made);
            next
        },
    );
    graph
        .finish("part", &state[first + inputs.len()..])?
        .with_replicas(replicas)
}

/// The first element, a scalar.
fn corner(value: Value) -> Value {
    let rank = value.rank();
    value
        .slice(&vec![0; rank], &vec![1; rank], &vec![1; rank])
        .reshape(&[])
}

/// The array with another first element.
fn changed<'g>(input: Value<'g>, change: Value<'g>) -> Value<'g> {
    if !input.dtype().is_float() {
        return input;
    }
    let value = change.convert(input.dtype());
    let rank = input.rank();
    if rank == 0 {
        return value;
    }
    let start = vec![input.graph().scalar(0i32); rank];
    input.dynamic_update_slice(value.reshape(&vec![1; rank]), &start)
}

struct Part<'a> {
    nodes: &'a [Node],
    inside: &'a [bool],
    inputs: Vec<usize>,
}

impl Part<'_> {
    /// Whether a node is copied: chosen, or free, or the tuple that a chosen loop starts from.
    fn copied(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        if matches!(node.op, Op::GetTupleElement { .. }) {
            let tuple = node.operands[0].index();
            return self.inside[tuple] || matches!(self.nodes[tuple].op, Op::Tuple);
        }
        let spread = matches!(node.op, Op::Broadcast { .. } | Op::Reshape { .. })
            && matches!(self.nodes[node.operands[0].index()].op, Op::Constant(_));
        self.inside[index] || is_free(&node.op) || spread
    }

    fn find_inputs(&mut self, id: NodeId, seen: &mut Vec<bool>) {
        let index = id.index();
        if std::mem::replace(&mut seen[index], true) {
            return;
        }
        if self.copied(index) {
            for &operand in &self.nodes[index].operands {
                self.find_inputs(operand, seen);
            }
        } else {
            self.inputs.push(index);
        }
    }

    fn copy<'g>(
        &self,
        graph: &'g Graph,
        id: NodeId,
        copies: &mut HashMap<usize, Value<'g>>,
    ) -> Value<'g> {
        if let Some(copy) = copies.get(&id.index()) {
            return *copy;
        }
        let node = &self.nodes[id.index()];
        let operands: Vec<Value> = node
            .operands
            .iter()
            .map(|&operand| self.copy(graph, operand, copies))
            .collect();
        // Without their paths, so that equal parts of several layers are equal modules.
        let copy = graph.push(node.op.clone(), &operands);
        copies.insert(id.index(), copy);
        copy
    }
}
