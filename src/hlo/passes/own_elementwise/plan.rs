//! What becomes a call: which values are kept, what lies between them, and what is computed together.

use super::super::{by_columns, is_gradient};
use super::code::code;
use crate::hlo::{
    Binary, Computation, DType, Monoid, Node, NodeId, Op, Reducer, Shape, Type, Unary,
};
use std::collections::{BTreeSet, HashMap};

/// Elements from which an array that is made only to be read here would be worth sparing.
const LARGE: usize = 1 << 14;

/// Arrays from which a value that is used twice is kept instead of being computed again.
const MANY_ARRAYS: usize = 3;

/// What is known of a computation's nodes.
pub(super) struct Plan<'a> {
    computation: &'a Computation,
    /// Of each node.
    pub(super) users: Vec<Vec<usize>>,
    /// Whether a program can compute it.
    known: Vec<bool>,
    /// Whether it is computed by a call, as a result of its own.
    root: Vec<bool>,
}

/// What is computed together: nodes in between, and what they are computed from.
#[derive(Default)]
pub(super) struct Region {
    pub(super) inside: BTreeSet<usize>,
    pub(super) leaves: BTreeSet<usize>,
}

/// A call to be made.
pub(super) struct Planned {
    pub(super) results: Vec<usize>,
    pub(super) region: Region,
    /// `(result, leaf)`: the state of a loop, and what it becomes.
    pub(super) aliases: Vec<(usize, usize)>,
}

pub(super) fn shape(node: &Node) -> Option<&Shape> {
    match &node.ty {
        Type::Array(shape) => Some(shape),
        _ => None,
    }
}

fn large(node: &Node) -> bool {
    shape(node).is_some_and(|shape| shape.elements() >= LARGE)
}

impl<'a> Plan<'a> {
    pub(super) fn new(computation: &'a Computation) -> Self {
        let nodes = &computation.nodes;
        let mut users = vec![Vec::new(); nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            for operand in &node.operands {
                users[operand.index()].push(i);
            }
        }
        let known = nodes.iter().map(|node| is_known(nodes, node)).collect();
        let mut plan = Plan {
            computation,
            users,
            known,
            root: vec![false; nodes.len()],
        };
        for (i, node) in nodes.iter().enumerate() {
            if !plan.known[i] {
                continue;
            }
            let region = plan.region(&[i]);
            let arrays = region
                .leaves
                .iter()
                .filter(|&&l| plan.is_array(l, i))
                .count();
            let again = large(node) && arrays >= MANY_ARRAYS && plan.uses(i) > 1;
            plan.root[i] = (again || plan.is_kept(i)) && plan.is_fit(&region);
        }
        plan
    }

    pub(super) fn node(&self, i: usize) -> &'a Node {
        &self.computation.nodes[i]
    }

    /// Whether a leaf is as large as what is computed.
    fn is_array(&self, leaf: usize, of: usize) -> bool {
        shape(self.node(leaf)).map(Shape::elements) == shape(self.node(of)).map(Shape::elements)
    }

    /// Uses by calls of their own, as far as can be told.
    fn uses(&self, i: usize) -> usize {
        let own = |&user: &usize| {
            self.known[user]
                || self.sum(user).is_some()
                || matches!(self.node(user).op, Op::Compare(_))
        };
        let users: BTreeSet<usize> = self.users[i].iter().copied().filter(own).collect();
        users.len()
    }

    /// Whether someone reads the value from memory.
    fn is_kept(&self, i: usize) -> bool {
        i == self.computation.root.index()
            || self.users[i].iter().any(|&user| match self.node(user).op {
                Op::CustomCall { .. }
                | Op::Fence
                | Op::Convolution(_)
                | Op::Dot(_)
                | Op::Tuple
                | Op::AllReduce { .. }
                | Op::AllGather { .. }
                | Op::ReduceScatter { .. }
                | Op::CollectivePermute { .. }
                | Op::ReduceWindow { .. }
                | Op::SelectAndScatter { .. } => true,
                Op::Broadcast { .. } => self.users[user].iter().any(|&user| self.known[user]),
                Op::Reshape { .. } => self.is_kept(user),
                _ => false,
            })
    }

    /// What the operand of a sum by columns is: one of gradients, which are not compared with the original's bit by bit.
    pub(super) fn sum(&self, i: usize) -> Option<usize> {
        let node = self.node(i);
        let Op::Reduce {
            dims,
            reducer: Reducer::Monoid(Monoid::Add),
        } = &node.op
        else {
            return None;
        };
        let (x, init) = (node.operands[0].index(), node.operands[1].index());
        let operand = shape(self.node(x))?;
        let zero =
            matches!(&self.node(init).op, Op::Constant(literal) if literal.to_f64s() == [0.0]);
        let plain = operand.dtype == DType::F32 && operand.dims.len() > 1 && zero;
        let columns = by_columns(operand.dims.len(), dims) && is_gradient(node);
        (plain && columns && large(self.node(x))).then_some(x)
    }

    /// An earlier sum of the same.
    pub(super) fn same(&self, i: usize) -> Option<usize> {
        let x = self.sum(i)?;
        let mut users = self.users[x].iter().copied();
        users.find(|&user| user < i && self.sum(user) == Some(x))
    }

    fn region(&self, results: &[usize]) -> Region {
        let mut region = Region::default();
        for &result in results {
            match self.sum(result) {
                Some(x) => self.visit(x, &mut region),
                None => self.take(result, &mut region),
            }
        }
        region
    }

    /// A node that others need, which is a leaf if it is kept.
    fn visit(&self, i: usize, region: &mut Region) {
        if region.inside.contains(&i) {
        } else if self.known[i] && !self.root[i] {
            self.take(i, region);
        } else {
            region.leaves.extend(self.leaf(i));
        }
    }

    fn take(&self, i: usize, region: &mut Region) {
        region.inside.insert(i);
        for &operand in self.taken(i).iter() {
            self.visit(operand, region);
        }
    }

    /// What a node is computed from; of a choice the comparison's operands, too.
    fn taken(&self, i: usize) -> Vec<usize> {
        let node = self.node(i);
        let operands = || node.operands.iter().map(|id| id.index());
        match node.op {
            Op::Select => {
                let compared = self.node(node.operands[0].index()).operands.iter();
                compared
                    .map(|id| id.index())
                    .chain(operands().skip(1))
                    .collect()
            }
            _ => operands().collect(),
        }
    }

    /// The node whose value is read: a vector or a number that is spread, or the array itself; none for a constant.
    fn leaf(&self, i: usize) -> Option<usize> {
        match self.spread(i) {
            Leaf::Constant(_) => None,
            Leaf::Value(i) => Some(i),
        }
    }

    pub(super) fn spread(&self, i: usize) -> Leaf {
        let node = self.node(i);
        if let Op::Broadcast { dims, mapping } = &node.op {
            let operand = node.operands[0].index();
            if mapping.is_empty() {
                return match &self.node(operand).op {
                    Op::Constant(literal) => Leaf::Constant(literal.to_f64s()[0] as f32),
                    _ => Leaf::Value(operand),
                };
            }
            let last = dims.len() as i64 - 1;
            if mapping[..] == [last] && dims.len() > 1 {
                return self.spread(operand);
            }
        }
        Leaf::Value(i)
    }

    /// Whether what a region needs is in memory anyway: of what the plugin would fuse it had to make an array first. That is left to it but
    /// for what is spread otherwise than along the last dimension: the gradient of a mean over pixels, a small map that is made once.
    fn is_fit(&self, region: &Region) -> bool {
        region.leaves.iter().all(|&leaf| {
            let mut source = leaf;
            while matches!(self.node(source).op, Op::Reshape { .. }) {
                source = self.node(source).operands[0].index();
            }
            let node = self.node(source);
            let fused = matches!(
                node.op,
                Op::Unary(_)
                    | Op::Binary(_)
                    | Op::Select
                    | Op::Clamp
                    | Op::Compare(_)
                    | Op::Convert(_)
                    | Op::BitcastConvert(_)
                    | Op::Iota { .. }
                    | Op::Slice { .. }
                    | Op::DynamicSlice { .. }
                    | Op::Gather(_)
                    | Op::Transpose { .. }
                    | Op::Pad(_)
                    | Op::Reverse { .. }
                    | Op::Concatenate { .. }
            );
            !(fused && large(node)) || self.root[source]
        })
    }

    /// The calls, by the node in whose place each comes.
    pub(super) fn calls(&self) -> HashMap<usize, Planned> {
        let mut calls = HashMap::new();
        let mut done = vec![false; self.computation.nodes.len()];
        for i in 0..done.len() {
            if done[i] || !(self.root[i] || self.sum(i).is_some()) || self.same(i).is_some() {
                continue;
            }
            let mut results = vec![i];
            let mut region = self.region(&results);
            if !self.is_fit(&region) {
                continue;
            }
            for more in self.beside(i) {
                results.push(more);
                let both = self.region(&results);
                // All that it is computed from must be there already, or come from the call itself.
                let there = |leaf: &usize| *leaf < i || results.contains(leaf);
                if !done[more] && both.leaves.iter().all(there) && self.is_fit(&both) {
                    region = both;
                } else {
                    results.pop();
                }
            }
            for &result in &results {
                done[result] = true;
            }
            region.leaves.retain(|leaf| !results.contains(leaf));
            let aliases = self.aliases(&results, &region);
            let call = Planned {
                results,
                region,
                aliases,
            };
            calls.insert(i, call);
        }
        calls
    }

    /// Results that could be computed in the same call: sums of products with what is summed, and the next of a loop's variables that
    /// follows from this one.
    fn beside(&self, i: usize) -> Vec<usize> {
        let mut found = BTreeSet::new();
        if let Some(x) = self.sum(i) {
            for &user in &self.users[x] {
                if matches!(self.node(user).op, Op::Binary(Binary::Multiply)) {
                    let sums = self.users[user].iter().copied();
                    let first =
                        |&sum: &usize| self.sum(sum) == Some(user) && self.same(sum).is_none();
                    found.extend(sums.filter(first));
                }
            }
        } else if self.is_result(i) {
            let mut next = self.users[i].clone();
            let mut seen = BTreeSet::new();
            while let Some(user) = next.pop() {
                if !seen.insert(user) {
                } else if self.root[user] && self.is_result(user) {
                    found.insert(user);
                } else if self.known[user] && !self.root[user] {
                    next.extend(&self.users[user]);
                }
            }
        }
        found.retain(|&more| more > i && shape(self.node(more)) == shape(self.node(i)));
        found.into_iter().collect()
    }

    fn is_result(&self, i: usize) -> bool {
        self.users[i].contains(&self.computation.root.index())
    }

    /// Results of a loop's body that can be written over the state from which they are computed: nobody else reads it, or the plugin would
    /// copy it first.
    fn aliases(&self, results: &[usize], region: &Region) -> Vec<(usize, usize)> {
        let root = self.node(self.computation.root.index());
        if !matches!(root.op, Op::Tuple) || self.computation.parameters != 1 {
            return Vec::new();
        }
        let place = |leaf: usize| match self.node(leaf).op {
            Op::GetTupleElement { index } if self.node(leaf).operands[0].index() == 0 => {
                Some(index)
            }
            _ => None,
        };
        let mut found = Vec::new();
        for (k, &result) in results.iter().enumerate() {
            let becomes = |leaf: &usize| {
                let here = |user: &usize| region.inside.contains(user);
                // What is computed here may be computed elsewhere, too.
                let own = |user: &usize| {
                    results.contains(user) || here(user) && self.users[*user].iter().all(here)
                };
                place(*leaf).is_some_and(|index| {
                    root.operands.get(index).map(|id| id.index()) == Some(result)
                }) && self.users[*leaf].iter().all(own)
            };
            let leaf = region.leaves.iter().copied().find(becomes);
            found.extend(leaf.map(|leaf| (k, leaf)));
        }
        found
    }
}

pub(super) enum Leaf {
    Constant(f32),
    Value(usize),
}

fn is_known(nodes: &[Node], node: &Node) -> bool {
    let Some(found) = shape(node) else {
        return false;
    };
    if found.dtype != DType::F32 || found.dims.is_empty() || found.elements() < 2 {
        return false;
    }
    match node.op {
        Op::Binary(op) => code(op).is_some(),
        Op::Unary(op) => matches!(op, Unary::Negate | Unary::Sqrt | Unary::Rsqrt),
        Op::Select => {
            let chosen = &nodes[node.operands[0].index()];
            let compared = |id: &NodeId| {
                shape(&nodes[id.index()]).is_some_and(|shape| shape.dtype == DType::F32)
            };
            matches!(chosen.op, Op::Compare(_)) && chosen.operands.iter().all(compared)
        }
        _ => false,
    }
}
