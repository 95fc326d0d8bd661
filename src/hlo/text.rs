//! A stable text form of modules, close to XLA's own, for snapshots and for reading.

use super::graph::{Computation, Node};
use super::module::{Module, called};
use super::op::{Op, Reducer};
use super::shape::DType;
use std::fmt;
use std::rc::Rc;

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HloModule {}, replicas={}", self.name, self.replicas)?;
        if !self.aliases.is_empty() {
            f.write_str(", aliases={")?;
            for (i, (result, parameter)) in self.aliases.iter().enumerate() {
                let comma = if i > 0 { ", " } else { "" };
                write!(f, "{comma}{result}: p{parameter}")?;
            }
            f.write_str("}")?;
        }
        f.write_str("\n")?;
        let mut names: Vec<(*const Computation, String)> = Vec::new();
        computation(f, &self.entry, "ENTRY main", &mut names)
    }
}

fn computation(
    f: &mut fmt::Formatter<'_>,
    body: &Computation,
    name: &str,
    names: &mut Vec<(*const Computation, String)>,
) -> fmt::Result {
    for node in &body.nodes {
        for callee in called(&node.op) {
            let key = Rc::as_ptr(callee);
            if !names.iter().any(|(known, _)| *known == key) {
                let callee_name = format!("{}_{}", node.op.opcode(), names.len());
                names.push((key, callee_name.clone()));
                computation(f, callee, &callee_name, names)?;
            }
        }
    }
    writeln!(f, "\n{name} {{")?;
    for (i, node) in body.nodes.iter().enumerate() {
        let root = if i == body.root.index() { "ROOT " } else { "" };
        write!(f, "  {root}%{i} = {} {}(", node.ty, node.op.opcode())?;
        for (k, operand) in node.operands.iter().enumerate() {
            let comma = if k > 0 { ", " } else { "" };
            write!(f, "{comma}%{}", operand.index())?;
        }
        f.write_str(")")?;
        let attributes = attributes(node);
        if !attributes.is_empty() {
            write!(f, ", {attributes}")?;
        }
        for callee in called(&node.op) {
            if let Some((_, callee)) = names.iter().find(|(k, _)| *k == Rc::as_ptr(callee)) {
                write!(f, ", calls={callee}")?;
            }
        }
        if !node.scope.is_empty() {
            write!(f, "  // {}", node.scope)?;
        }
        f.write_str("\n")?;
    }
    writeln!(f, "}}")
}

fn attributes(node: &Node) -> String {
    match &node.op {
        Op::Parameter { index, name, .. } => format!("{index} {name:?}"),
        Op::Constant(literal) if literal.shape().elements() <= 8 => match literal.shape().dtype {
            DType::S64 => format!("{:?}", literal.to_vec::<i64>()),
            DType::U64 => format!("{:?}", literal.to_vec::<u64>()),
            _ => format!("{:?}", literal.to_f64s()),
        },
        Op::Constant(literal) => format!("{} elements", literal.shape().elements()),
        Op::Iota { dim, .. } => format!("dim={dim}"),
        Op::Compare(direction) => format!("{direction:?}"),
        Op::Broadcast { mapping, .. } => format!("dimensions={mapping:?}"),
        Op::Transpose { permutation } => format!("dimensions={permutation:?}"),
        Op::Slice {
            start,
            limit,
            stride,
        } => format!("[{start:?}..{limit:?} by {stride:?}]"),
        Op::DynamicSlice { sizes } => format!("sizes={sizes:?}"),
        Op::Gather(dims) => format!("{dims:?}"),
        Op::Scatter { dims, monoid } => format!("{monoid:?} {dims:?}"),
        Op::Concatenate { dim } => format!("dim={dim}"),
        Op::Pad(padding) => padding
            .iter()
            .map(|p| format!("{}_{}_{}", p.low, p.high, p.interior))
            .collect::<Vec<_>>()
            .join("x"),
        Op::Reverse { dims } => format!("dimensions={dims:?}"),
        Op::Reduce {
            dims,
            reducer: Reducer::Monoid(monoid),
        } => {
            format!("{monoid:?} dimensions={dims:?}")
        }
        Op::Reduce { dims, .. } => format!("dimensions={dims:?}"),
        Op::ReduceWindow { window, monoid } => format!("{monoid:?} {window:?}"),
        Op::SelectAndScatter { window } => format!("{window:?}"),
        Op::Convolution(conv) => format!("{conv:?}"),
        Op::Dot(dims) => format!("{dims:?}"),
        Op::RngBitGenerator { algorithm, .. } => format!("{algorithm:?}"),
        Op::Sort { dim, .. } => format!("dim={dim}"),
        Op::GetTupleElement { index } => format!("index={index}"),
        Op::AllReduce { monoid, groups } => format!("{monoid:?} groups={groups:?}"),
        Op::AllGather { dim, groups, .. } | Op::ReduceScatter { dim, groups, .. } => {
            format!("dim={dim} groups={groups:?}")
        }
        Op::CollectivePermute { pairs } => format!("{pairs:?}"),
        Op::CustomCall {
            target,
            config,
            aliases,
            ..
        } => format!("{target:?} {config} over {aliases:?}"),
        Op::CustomVjp { index, .. } => format!("index={index}"),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::Clamp
        | Op::Convert(_)
        | Op::BitcastConvert(_)
        | Op::Reshape { .. }
        | Op::DynamicUpdateSlice
        | Op::While { .. }
        | Op::Conditional { .. }
        | Op::Call(_)
        | Op::Tuple
        | Op::ReplicaId
        | Op::OptimizationBarrier
        | Op::Fence
        | Op::StopGradient => String::new(),
    }
}
