//! A finished module: the entry computation, which results take over which arguments, and how many replicas run it.

use super::graph::{Computation, Error, Graph, Node, NodeId, Value};
use super::op::{Op, Reducer};
use super::shape::{Shape, Type};
use std::rc::Rc;

/// A program for a plugin.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its name in dumps and profiles.
    pub name: String,
    /// The function from parameters to the tuple of results.
    pub entry: Computation,
    /// `(result, parameter)`: the result may be written over the parameter, which is donated.
    pub aliases: Vec<(usize, usize)>,
    /// Replicas that run it together.
    pub replicas: usize,
}

impl Module {
    pub(super) fn new(name: String, entry: Computation) -> Self {
        Module {
            name,
            entry,
            aliases: Vec::new(),
            replicas: 1,
        }
    }

    /// Lets results be written over donated parameters.
    ///
    /// # Errors
    /// If a pair names something that is not there, twice, or of different shapes.
    pub fn with_aliases(mut self, aliases: &[(usize, usize)]) -> Result<Self, Error> {
        let (results, parameters) = (self.results(), self.parameters());
        for (i, &(result, parameter)) in aliases.iter().enumerate() {
            let fits = match (results.get(result), parameters.get(parameter)) {
                (Some(r), Some((_, p))) => r == p,
                _ => false,
            };
            if !fits
                || aliases[..i]
                    .iter()
                    .any(|&(r, p)| r == result || p == parameter)
            {
                return Err(self.error(format!(
                    "result {result} cannot take over parameter {parameter}: shapes differ, or one is missing or named twice"
                )));
            }
        }
        self.aliases = aliases.to_vec();
        Ok(self)
    }

    /// Sets the number of replicas, checking that every group of replicas fits (some plugins abort otherwise).
    ///
    /// # Errors
    /// If a collective names a replica that is not there, leaves one out, or expects another count.
    pub fn with_replicas(mut self, replicas: usize) -> Result<Self, Error> {
        check_replicas(&self.entry, replicas as i64).map_err(|message| self.error(message))?;
        self.replicas = replicas;
        Ok(self)
    }

    fn error(&self, message: String) -> Error {
        Error {
            scope: self.name.clone(),
            op: "module",
            message,
        }
    }

    /// Shapes of the results, in order.
    pub fn results(&self) -> Vec<Shape> {
        match self.entry.result() {
            Type::Tuple(shapes) => shapes.clone(),
            Type::Array(shape) => vec![shape.clone()],
            Type::Invalid => Vec::new(),
        }
    }

    /// Names and shapes of the parameters, in order.
    pub fn parameters(&self) -> Vec<(String, Shape)> {
        let mut list = Vec::new();
        for node in &self.entry.nodes[..self.entry.parameters] {
            if let (Op::Parameter { name, .. }, Type::Array(shape)) = (&node.op, &node.ty) {
                list.push((name.clone(), shape.clone()));
            }
        }
        list
    }

    /// The number of nodes, those of loops, branches and calls included.
    pub fn node_count(&self) -> usize {
        fn count(computation: &Computation) -> usize {
            let inner = |node: &Node| called(&node.op).iter().map(|c| count(c)).sum::<usize>();
            computation.nodes.iter().map(|node| 1 + inner(node)).sum()
        }
        count(&self.entry)
    }

    /// A new module in which `rule` replaced some operations: it sees each node with its operands already in the new graph, and
    /// gives the replacement or `None` to keep the operation. Bodies of loops, branches and calls are rewritten too.
    ///
    /// # Errors
    /// If a replacement does not fit, or has another type than what it replaces.
    pub fn rewrite(&self, rule: &Rewrite) -> Result<Self, Error> {
        self.rewrite_each(&|| Box::new(rule))
    }

    /// As [`Module::rewrite`], with a rule of its own for each computation, so that it can remember what it saw there.
    ///
    /// # Errors
    /// As [`Module::rewrite`].
    pub fn rewrite_each<'r>(&self, rule: &dyn Fn() -> Box<Rewrite<'r>>) -> Result<Self, Error> {
        Ok(Module {
            entry: rewrite(&self.entry, rule)?,
            ..self.clone()
        })
    }
}

/// A rule of [`Module::rewrite`].
pub type Rewrite<'r> = dyn for<'a> Fn(&'a Graph, &Node, &[Value<'a>]) -> Option<Value<'a>> + 'r;

fn rewrite<'r>(
    computation: &Computation,
    rule: &dyn Fn() -> Box<Rewrite<'r>>,
) -> Result<Computation, Error> {
    let graph = Graph::new();
    let own = rule();
    let mut renamed: Vec<NodeId> = Vec::with_capacity(computation.nodes.len());
    for node in &computation.nodes {
        let operands: Vec<Value> = node
            .operands
            .iter()
            .map(|id| graph.value(renamed[id.index()]))
            .collect();
        let value = if let Op::Parameter { name, ty, .. } = &node.op {
            graph.typed_parameter(name.clone(), ty.clone())
        } else {
            let op = with_called(&node.op, |callee| rewrite(callee, rule).map(Rc::new))?;
            let replaced = {
                let _scope = (!node.scope.is_empty()).then(|| graph.scope(node.scope.to_string()));
                own(&graph, node, &operands)
            };
            replaced.unwrap_or_else(|| graph.push_scoped(op, &operands, node.scope.clone()))
        };
        if value.ty() != node.ty && graph.error().is_none() {
            return Err(Error {
                scope: node.scope.to_string(),
                op: node.op.opcode(),
                message: format!("a pass replaced {} by {}", node.ty, value.ty()),
            });
        }
        renamed.push(value.id());
    }
    graph.computation(graph.value(renamed[computation.root.index()]))
}

/// The operation with every computation that it calls replaced.
pub(super) fn with_called(
    op: &Op,
    replace: impl Fn(&Rc<Computation>) -> Result<Rc<Computation>, Error>,
) -> Result<Op, Error> {
    Ok(match op {
        Op::While { condition, body } => Op::While {
            condition: replace(condition)?,
            body: replace(body)?,
        },
        Op::Conditional { branches } => Op::Conditional {
            branches: branches.iter().map(&replace).collect::<Result<_, _>>()?,
        },
        Op::Call(callee) => Op::Call(replace(callee)?),
        Op::Sort { dim, less } => Op::Sort {
            dim: *dim,
            less: replace(less)?,
        },
        Op::Reduce {
            dims,
            reducer: Reducer::General(body),
        } => Op::Reduce {
            dims: dims.clone(),
            reducer: Reducer::General(replace(body)?),
        },
        other => other.clone(),
    })
}

/// The computations an operation calls, in the order in which HLO lists them.
pub(super) fn called(op: &Op) -> Vec<&Rc<Computation>> {
    match op {
        Op::While { condition, body } => vec![body, condition],
        Op::Conditional { branches } => branches.iter().collect(),
        Op::Call(callee) => vec![callee],
        Op::Sort { less, .. } => vec![less],
        Op::Reduce {
            reducer: Reducer::General(body),
            ..
        } => vec![body],
        _ => Vec::new(),
    }
}

fn check_replicas(computation: &Computation, replicas: i64) -> Result<(), String> {
    for node in &computation.nodes {
        let (groups, size) = match &node.op {
            Op::AllReduce { groups, .. } => (groups, None),
            Op::AllGather { groups, size, .. } | Op::ReduceScatter { groups, size, .. } => {
                (groups, Some(*size))
            }
            Op::CollectivePermute { pairs } => {
                if let Some(pair) = pairs.iter().find(|(a, b)| a.max(b) >= &replicas) {
                    return Err(format!(
                        "a permutation names {pair:?} of {replicas} replicas"
                    ));
                }
                continue;
            }
            op => {
                for callee in called(op) {
                    check_replicas(callee, replicas)?;
                }
                continue;
            }
        };
        if groups.is_empty() {
            if size.is_some_and(|size| size != replicas) {
                return Err(format!(
                    "{} over {size:?} replicas in a module of {replicas}",
                    node.op.opcode()
                ));
            }
            continue;
        }
        let mut named: Vec<i64> = groups.iter().flatten().copied().collect();
        named.sort_unstable();
        if named != (0..replicas).collect::<Vec<_>>() {
            return Err(format!(
                "groups {groups:?} do not cover {replicas} replicas once each"
            ));
        }
    }
    Ok(())
}
