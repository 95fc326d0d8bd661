//! Elementwise operations in f32, and sums of gradients by columns, as calls of a loop of our own that carries out small programs
//! ([`crate::loops`]).
//!
//! The plugin makes a kernel of each place where such values are kept: most of what it compiles, and most of the time to the first step.
//! A program for our loop is a few numbers. Which values are kept follows from who reads them: calls, convolutions, results. What lies
//! between is computed where it is used, and again where it is used again.

mod code;
mod plan;
mod writer;

pub use code::{Code, ELEMENTWISE_LOOP, TAKES, WORDS};

use crate::hlo::graph::Graph;
use crate::hlo::module::with_called;
use crate::hlo::{Computation, Error, Module, NodeId, Op, Value};
use plan::Plan;
use std::rc::Rc;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    Ok(Module {
        entry: rewrite(&module.entry)?,
        ..module.clone()
    })
}

fn rewrite(computation: &Computation) -> Result<Computation, Error> {
    let plan = Plan::new(computation);
    let calls = plan.calls();
    let graph = Graph::new();
    let mut renamed: Vec<Option<NodeId>> = vec![None; computation.nodes.len()];
    for (i, node) in computation.nodes.iter().enumerate() {
        if let Some(call) = calls.get(&i) {
            let value = |id: usize| renamed[id].map(|id| graph.value(id));
            let made = call.build(&graph, &plan, &value);
            for (&result, value) in call.results.iter().zip(made) {
                let wanted = &computation.nodes[result].ty;
                if value.ty() != *wanted && graph.error().is_none() {
                    graph.fail("custom-call", format!("{} instead of {wanted}", value.ty()));
                }
                renamed[result] = Some(value.id());
            }
        }
        renamed[i] = renamed[i].or_else(|| renamed[plan.same(i)?]);
        if renamed[i].is_some() {
            continue;
        }
        let value = if let Op::Parameter { name, ty, .. } = &node.op {
            graph.typed_parameter(name.clone(), ty.clone())
        } else {
            let op = with_called(&node.op, |callee| rewrite(callee).map(Rc::new))?;
            let operands = node.operands.iter();
            let operands: Vec<Value> = operands
                .filter_map(|id| renamed[id.index()])
                .map(|id| graph.value(id))
                .collect();
            graph.push_scoped(op, &operands, node.scope.clone())
        };
        renamed[i] = Some(value.id());
    }
    let root = renamed[computation.root.index()];
    match root {
        Some(root) => graph.computation(graph.value(root)),
        None => graph.computation(graph.fail("custom-call", "a result was lost")),
    }
}
