//! Reverse-mode differentiation on [`crate::hlo::Graph`]: the gradient is more graph.
//!
//! With replicas, a cotangent belongs to the sum of all replicas' losses: the adjoint of an all-reduce is an all-reduce, of an
//! all-gather a reduce-scatter (reference §4.1, §11). Gradients of parameters, of which every replica holds a copy, still have to
//! be summed over replicas by the caller.
//!
//! At kinks: `max(x, y)` and `min(x, y)` give everything to `y` where they tie, so that `max(x, 0)` has gradient 0 at 0
//! (reference §3.11); a maximum over dimensions shares equally between ties; a maximum over a window gives to the first.
//!
//! A call or a conditional goes back as one of its own (`body.rs`). Inside their bodies a stopped gradient stays stopped, and a
//! composite is differentiated operation by operation.
//!
//! Invariant: no input or output, no device. Invariant: every rule gives one cotangent per operand, of that operand's shape; the
//! engine checks it.

mod body;
mod convolution;
mod rules;
mod window;

pub use rules::{Differentiability, differentiability};

use crate::hlo::{Graph, NodeId, Op, Type, Value, Vjp};
use std::collections::HashMap;

/// Cotangents of `wrt` for a scalar `loss`; `None` where no gradient flows.
pub fn gradients<'g>(loss: Value<'g>, wrt: &[Value<'g>]) -> Vec<Option<Value<'g>>> {
    if loss.rank() != 0 {
        loss.graph().fail(
            "gradient",
            format!("of {}, expected a scalar", loss.shape()),
        );
    }
    let one = loss.graph().full(&loss.shape(), 1.0);
    vjp(&[(loss, one)], wrt)
}

/// Cotangents of `wrt` for given cotangents of `outputs`; `None` where no gradient flows.
pub fn vjp<'g>(outputs: &[(Value<'g>, Value<'g>)], wrt: &[Value<'g>]) -> Vec<Option<Value<'g>>> {
    let Some(&(first, _)) = outputs.first() else {
        return vec![None; wrt.len()];
    };
    let graph = first.graph();
    let last = outputs
        .iter()
        .map(|(value, _)| value.id().index())
        .max()
        .unwrap_or(0);
    let mut walk = Walk {
        graph,
        active: active(graph, wrt, last),
        cotangents: HashMap::new(),
    };
    for &(output, cotangent) in outputs {
        walk.add(output.id(), 0, cotangent);
    }
    for index in (0..=last).rev() {
        if walk.active[index] {
            walk.step(index);
        }
    }
    wrt.iter()
        .map(|value| walk.cotangents.get(&value.id())?[0])
        .collect()
}

/// Which nodes a change of `wrt` can reach through operations that pass gradients.
fn active(graph: &Graph, wrt: &[Value], last: usize) -> Vec<bool> {
    let mut active = vec![false; last + 1];
    for value in wrt {
        if let Some(flag) = active.get_mut(value.id().index()) {
            *flag = true;
        }
    }
    for index in 0..=last {
        let node = graph.value(node_id(index)).node();
        let carries = |ids: &[NodeId]| ids.iter().any(|id| active[id.index()]);
        let reached = match &node.op {
            Op::CustomVjp { rule, .. } => carries(&graph.vjp_entry(*rule).inputs),
            op => match differentiability(op) {
                Differentiability::Rule | Differentiability::Refused(_) => carries(&node.operands),
                Differentiability::Zero => false,
            },
        };
        active[index] |= reached;
    }
    active
}

fn node_id(index: usize) -> NodeId {
    NodeId::from_index(index)
}

struct Walk<'g> {
    graph: &'g Graph,
    active: Vec<bool>,
    /// Cotangents by node; one entry for arrays, one per element for tuples.
    cotangents: HashMap<NodeId, Vec<Option<Value<'g>>>>,
}

impl<'g> Walk<'g> {
    /// Adds a cotangent to element `element` of a node, checking its shape.
    fn add(&mut self, id: NodeId, element: usize, cotangent: Value<'g>) {
        let node = self.graph.node(id);
        let (count, expected) = match &node.ty {
            Type::Array(shape) => (1, shape.clone()),
            Type::Tuple(shapes) => (shapes.len(), shapes[element].clone()),
            Type::Invalid => return,
        };
        if !cotangent.is_invalid() && cotangent.shape() != expected {
            self.graph.fail(
                "gradient",
                format!(
                    "the rule of {} gave {} for an operand {expected}",
                    node.op.opcode(),
                    cotangent.shape()
                ),
            );
            return;
        }
        let slots = self
            .cotangents
            .entry(id)
            .or_insert_with(|| vec![None; count]);
        slots[element] = Some(match slots[element] {
            Some(sum) => sum + cotangent,
            None => cotangent,
        });
    }

    fn step(&mut self, index: usize) {
        let id = node_id(index);
        let Some(cotangents) = self.cotangents.get(&id).cloned() else {
            return;
        };
        let node = self.graph.node(id);
        let _scope = self.graph.scope(if node.scope.is_empty() {
            "gradient".to_string()
        } else {
            format!("gradient/{}", node.scope)
        });
        match &node.op {
            Op::Tuple => {
                for (operand, cotangent) in node.operands.iter().zip(cotangents) {
                    if let Some(cotangent) = cotangent
                        && self.active[operand.index()]
                    {
                        self.add(*operand, 0, cotangent);
                    }
                }
            }
            Op::GetTupleElement { index } => {
                if let Some(cotangent) = cotangents[0] {
                    self.add(node.operands[0], *index, cotangent);
                }
            }
            Op::OptimizationBarrier => {
                for (element, cotangent) in cotangents.into_iter().enumerate() {
                    if let Some(cotangent) = cotangent {
                        self.add(node.operands[0], element, cotangent);
                    }
                }
            }
            Op::Call(callee) => {
                let operands = self.values(&node.operands);
                let wanted = self.wanted(&node.operands);
                for (i, cotangent) in body::call(callee, &operands, &wanted, &cotangents) {
                    self.add(node.operands[i], 0, cotangent);
                }
            }
            Op::Conditional { branches } => {
                let operands = self.values(&node.operands);
                let found = body::conditional(branches, operands[0], &operands[1..], &cotangents);
                for (branch, element, cotangent) in found {
                    if self.active[node.operands[branch + 1].index()] {
                        self.add(node.operands[branch + 1], element, cotangent);
                    }
                }
            }
            Op::CustomVjp { rule, index } => self.custom(*rule, *index, id),
            op => {
                if let Differentiability::Refused(reason) = differentiability(op) {
                    self.graph
                        .fail("gradient", format!("{}: {reason}", op.opcode()));
                    return;
                }
                let operands = self.values(&node.operands);
                let wanted = self.wanted(&node.operands);
                let context = rules::Context {
                    graph: self.graph,
                    output: self.graph.value(id),
                    operands: &operands,
                    wanted: &wanted,
                };
                for (operand, cotangent) in rules::apply(op, &context, &cotangents) {
                    if wanted[operand] {
                        self.add(operands[operand].id(), 0, cotangent);
                    }
                }
            }
        }
    }

    fn values(&self, ids: &[NodeId]) -> Vec<Value<'g>> {
        ids.iter().map(|&id| self.graph.value(id)).collect()
    }

    fn wanted(&self, ids: &[NodeId]) -> Vec<bool> {
        ids.iter().map(|id| self.active[id.index()]).collect()
    }

    /// A rule runs once, at its first output: the walk meets that one last, when all cotangents are complete.
    fn custom(&mut self, rule: usize, index: usize, id: NodeId) {
        if index > 0 {
            // Make sure that the walk stops at output 0 even if nothing flows into it.
            let first = node_id(id.index() - index);
            self.cotangents.entry(first).or_insert_with(|| vec![None]);
            return;
        }
        let entry = self.graph.vjp_entry(rule);
        let outputs: Vec<Value> = (0..entry.outputs.len())
            .map(|i| self.graph.value(node_id(id.index() + i)))
            .collect();
        let cotangents = outputs
            .iter()
            .map(|output| {
                let given = self.cotangents.get(&output.id()).and_then(|slots| slots[0]);
                given.unwrap_or_else(|| self.graph.zeros(&output.shape()))
            })
            .collect();
        let found = (entry.rule)(&Vjp {
            graph: self.graph,
            inputs: self.values(&entry.inputs),
            outputs,
            saved: self.values(&entry.saved),
            cotangents,
        });
        if found.len() != entry.inputs.len() {
            self.graph.fail(
                "gradient",
                format!(
                    "a custom rule gave {} cotangents for {} inputs",
                    found.len(),
                    entry.inputs.len()
                ),
            );
            return;
        }
        for (input, cotangent) in entry.inputs.iter().zip(found) {
            if self.active[input.index()] {
                self.add(*input, 0, cotangent);
            }
        }
    }
}
