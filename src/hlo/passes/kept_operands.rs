//! What a convolution or matrix product reads is computed once and kept.
//!
//! The CPU plugin fuses cheap operations into everyone who uses them. So a normalised, rectified activation was computed again, from all
//! it depends on, inside the transposition that the kernel's gradient wants, where every read jumps through memory: a seventh of a step.
//! It has to exist in memory for the convolution anyway; a fence makes all others read it there.

use crate::hlo::module::called;
use crate::hlo::{Computation, Error, Module, Node, Op, Type};
use std::collections::HashSet;

/// Smaller arrays stay in the cache however they are read.
const LARGE: usize = 1 << 14;

pub(super) fn run(module: &Module) -> Result<Module, Error> {
    let mut kept = HashSet::new();
    find(&module.entry, &mut kept);
    module.rewrite(&|graph, node, operands| {
        kept.contains(&std::ptr::from_ref(node))
            .then(|| graph.push(node.op.clone(), operands).fence())
    })
}

/// Elementwise results that convolutions and products read, if need be through a change of order.
fn find(computation: &Computation, kept: &mut HashSet<*const Node>) {
    let nodes = &computation.nodes;
    let mut read = vec![false; nodes.len()];
    for (i, node) in nodes.iter().enumerate().rev() {
        let reads = match node.op {
            Op::Convolution(_) | Op::Dot(_) | Op::CustomCall { .. } => true,
            Op::Transpose { .. } | Op::Reshape { .. } | Op::Slice { .. } => read[i],
            _ => false,
        };
        if reads {
            for operand in &node.operands {
                read[operand.index()] = true;
            }
        }
        for callee in called(&node.op) {
            find(callee, kept);
        }
    }
    for (node, read) in nodes.iter().zip(read) {
        let large = matches!(&node.ty, Type::Array(shape) if shape.elements() >= LARGE);
        let computed = matches!(
            node.op,
            Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Clamp | Op::Convert(_)
        );
        if read && large && computed {
            kept.insert(std::ptr::from_ref(node));
        }
    }
}
