//! The graph under construction: an arena of nodes, and [`Value`], a small handle to one of them.
//!
//! Errors are sticky. The first operation that does not fit is remembered with the path of the layer that asked for it and comes
//! out of [`Graph::finish`]; every later operation on its result is silent. So model code reads like mathematics.

use super::infer::infer;
use super::module::{Module, called, with_called};
use super::op::Op;
use super::shape::{Shape, Type};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Index of a node in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// The node at a place of the node list.
    pub fn from_index(index: usize) -> Self {
        NodeId(index as u32)
    }

    /// As an index into the node list.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operation with its operands, which always come before it.
#[derive(Debug, Clone)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// What it works on.
    pub operands: Vec<NodeId>,
    /// What it produces.
    pub ty: Type,
    /// Path of the layer that built it, such as `encoder/block_group2/unit_1`.
    pub scope: Rc<str>,
}

/// A finished function: the body of a loop, the comparison of a sort, the entry of a module.
#[derive(Debug, Clone)]
pub struct Computation {
    /// Nodes in dependency order; parameters first, in order.
    pub nodes: Vec<Node>,
    /// The result.
    pub root: NodeId,
    /// Number of parameters.
    pub parameters: usize,
}

impl Computation {
    /// The result's type.
    pub fn result(&self) -> &Type {
        &self.nodes[self.root.index()].ty
    }

    /// Types of the parameters.
    pub fn parameter_types(&self) -> Vec<&Type> {
        self.nodes[..self.parameters]
            .iter()
            .map(|node| &node.ty)
            .collect()
    }
}

/// Why a graph could not be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Path of the layer.
    pub scope: String,
    /// The HLO opcode.
    pub op: &'static str,
    /// What was found and expected.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scope.is_empty() {
            write!(f, "{}: {}", self.op, self.message)
        } else {
            write!(f, "{} in `{}`: {}", self.op, self.scope, self.message)
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// A graph that cannot be built is a failure of the run, not of its input.
    pub fn class(&self) -> crate::error::Class {
        crate::error::Class::Failed
    }
}

/// The gradient rule of a composite: from inputs, outputs, saved values and output cotangents to one cotangent per input.
pub type VjpRule = dyn for<'g> Fn(&Vjp<'g>) -> Vec<Value<'g>>;

/// What a [`VjpRule`] sees.
pub struct Vjp<'g> {
    /// The graph that both directions live in.
    pub graph: &'g Graph,
    /// The composite's inputs.
    pub inputs: Vec<Value<'g>>,
    /// Its outputs.
    pub outputs: Vec<Value<'g>>,
    /// Values of the forward pass that the rule asked to keep.
    pub saved: Vec<Value<'g>>,
    /// One cotangent per output (zeros where nothing flows).
    pub cotangents: Vec<Value<'g>>,
}

#[derive(Clone)]
pub(crate) struct VjpEntry {
    pub inputs: Vec<NodeId>,
    pub outputs: Vec<NodeId>,
    pub saved: Vec<NodeId>,
    pub rule: Rc<VjpRule>,
}

#[derive(Default)]
struct Inner {
    nodes: Vec<Node>,
    scope: Vec<String>,
    scope_path: Option<Rc<str>>,
    error: Option<Error>,
    vjps: Vec<VjpEntry>,
    parameters: usize,
}

/// A computation under construction.
#[derive(Default)]
pub struct Graph {
    inner: RefCell<Inner>,
}

/// A node of a graph.
#[derive(Clone, Copy)]
pub struct Value<'g> {
    pub(crate) graph: &'g Graph,
    pub(crate) id: NodeId,
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node();
        write!(f, "%{} {} {}", self.id.0, node.op.opcode(), node.ty)
    }
}

/// Leaves the scope again when dropped.
pub struct Scope<'g> {
    graph: &'g Graph,
    /// What it stands in place of.
    replaced: Option<String>,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        let mut inner = self.graph.inner.borrow_mut();
        inner.scope.pop();
        inner.scope.extend(self.replaced.take());
        inner.scope_path = None;
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Graph::default()
    }

    /// Opens a scope: nodes built until the result is dropped carry its name in their path.
    #[must_use = "the scope ends when this is dropped"]
    pub fn scope(&self, name: impl Into<String>) -> Scope<'_> {
        let mut inner = self.inner.borrow_mut();
        inner.scope.push(name.into());
        inner.scope_path = None;
        Scope {
            graph: self,
            replaced: None,
        }
    }

    /// As [`Graph::scope`], but beside the innermost open scope instead of within it.
    #[must_use = "the scope ends when this is dropped"]
    pub fn scope_beside(&self, name: &str) -> Scope<'_> {
        let mut inner = self.inner.borrow_mut();
        let replaced = inner.scope.pop();
        let outer = replaced.as_deref().and_then(|path| path.rsplit_once('/'));
        let path = outer.map_or_else(|| name.into(), |(outer, _)| format!("{outer}/{name}"));
        inner.scope.push(path);
        inner.scope_path = None;
        Scope {
            graph: self,
            replaced,
        }
    }

    /// The path of the open scopes.
    pub fn scope_path(&self) -> Rc<str> {
        let mut inner = self.inner.borrow_mut();
        if inner.scope_path.is_none() {
            inner.scope_path = Some(inner.scope.join("/").into());
        }
        inner.scope_path.clone().unwrap_or_else(|| "".into())
    }

    /// Adds an operation. On a type error the graph remembers the first one and the result is [`Type::Invalid`].
    pub fn push<'g>(&'g self, op: Op, operands: &[Value<'g>]) -> Value<'g> {
        let scope = self.scope_path();
        self.push_scoped(op, operands, scope)
    }

    /// Adds an operation with an explicit path (gradients and passes keep the path of what they came from).
    pub fn push_scoped<'g>(&'g self, op: Op, operands: &[Value<'g>], scope: Rc<str>) -> Value<'g> {
        let foreign = operands
            .iter()
            .any(|value| !std::ptr::eq(value.graph, self));
        let mut inner = self.inner.borrow_mut();
        let ty = if foreign {
            Err("an operand belongs to another graph; pass it in as loop state or argument".into())
        } else {
            let types: Vec<&Type> = operands
                .iter()
                .map(|value| &inner.nodes[value.id.index()].ty)
                .collect();
            if types.iter().any(|ty| **ty == Type::Invalid) {
                Ok(Type::Invalid)
            } else {
                infer(&op, &types)
            }
        };
        let ty = ty.unwrap_or_else(|message| {
            inner.error.get_or_insert(Error {
                scope: scope.to_string(),
                op: op.opcode(),
                message,
            });
            Type::Invalid
        });
        let operands = if foreign {
            Vec::new()
        } else {
            operands.iter().map(|value| value.id).collect()
        };
        let id = NodeId(inner.nodes.len() as u32);
        inner.nodes.push(Node {
            op,
            operands,
            ty,
            scope,
        });
        Value { graph: self, id }
    }

    /// Remembers an error of the caller's own (sticky like every other) and gives an invalid value.
    pub fn fail(&self, op: &'static str, message: impl Into<String>) -> Value<'_> {
        let scope = self.scope_path();
        let mut inner = self.inner.borrow_mut();
        inner.error.get_or_insert(Error {
            scope: scope.to_string(),
            op,
            message: message.into(),
        });
        let id = NodeId(inner.nodes.len() as u32);
        inner.nodes.push(Node {
            op: Op::Tuple,
            operands: Vec::new(),
            ty: Type::Invalid,
            scope,
        });
        Value { graph: self, id }
    }

    /// Remembers an error from elsewhere unless there is one already.
    pub(super) fn adopt(&self, error: Error) {
        self.inner.borrow_mut().error.get_or_insert(error);
    }

    /// The next argument of the computation.
    pub fn parameter(&self, name: impl Into<String>, shape: Shape) -> Value<'_> {
        self.typed_parameter(name, Type::Array(shape))
    }

    pub(crate) fn typed_parameter(&self, name: impl Into<String>, ty: Type) -> Value<'_> {
        let index = {
            let mut inner = self.inner.borrow_mut();
            inner.parameters += 1;
            inner.parameters - 1
        };
        self.push(
            Op::Parameter {
                index,
                name: name.into(),
                ty,
            },
            &[],
        )
    }

    /// Copies the operations of a finished computation into this graph, on these arguments.
    pub fn inline<'g>(&'g self, computation: &Computation, arguments: &[Value<'g>]) -> Value<'g> {
        let mut copies: Vec<Value> = Vec::with_capacity(computation.nodes.len());
        for node in &computation.nodes {
            let copy = match &node.op {
                Op::Parameter { index, .. } => match arguments.get(*index) {
                    Some(argument) => *argument,
                    None => self.fail("call", format!("argument {index} is missing")),
                },
                op => {
                    let operands: Vec<Value> =
                        node.operands.iter().map(|id| copies[id.index()]).collect();
                    self.push(op.clone(), &operands)
                }
            };
            copies.push(copy);
        }
        copies[computation.root.index()]
    }

    /// Gives a composite its own gradient: `outputs`, computed from `inputs` by ordinary operations, come back as values whose
    /// cotangents go through `rule` instead of through those operations. `saved` are handed to the rule.
    pub fn custom_vjp<'g>(
        &'g self,
        inputs: &[Value<'g>],
        outputs: &[Value<'g>],
        saved: &[Value<'g>],
        rule: impl for<'a> Fn(&Vjp<'a>) -> Vec<Value<'a>> + 'static,
    ) -> Vec<Value<'g>> {
        let ids = |values: &[Value<'g>]| values.iter().map(|v| v.id).collect::<Vec<_>>();
        let number = {
            let mut inner = self.inner.borrow_mut();
            inner.vjps.push(VjpEntry {
                inputs: ids(inputs),
                outputs: ids(outputs),
                saved: ids(saved),
                rule: Rc::new(rule),
            });
            inner.vjps.len() - 1
        };
        let operands: Vec<Value> = outputs.iter().chain(inputs).chain(saved).copied().collect();
        (0..outputs.len())
            .map(|index| {
                self.push(
                    Op::CustomVjp {
                        rule: number,
                        index,
                    },
                    &operands,
                )
            })
            .collect()
    }

    pub(crate) fn vjp_entry(&self, rule: usize) -> VjpEntry {
        self.inner.borrow().vjps[rule].clone()
    }

    /// A copy of a node.
    pub fn node(&self, id: NodeId) -> Node {
        self.inner.borrow().nodes[id.index()].clone()
    }

    /// A copy of the node at a place of the node list.
    pub fn node_at(&self, index: usize) -> Node {
        self.node(NodeId::from_index(index))
    }

    /// Number of nodes so far.
    pub fn len(&self) -> usize {
        self.inner.borrow().nodes.len()
    }

    /// Whether nothing was built yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The handle of a node of this graph.
    pub fn value(&self, id: NodeId) -> Value<'_> {
        assert!(id.index() < self.len(), "node {} of {}", id.0, self.len());
        Value { graph: self, id }
    }

    /// The first error, if any.
    pub fn error(&self) -> Option<Error> {
        self.inner.borrow().error.clone()
    }

    /// Ends construction: the function from all parameters to `root`, without what it does not need. Stopped gradients stay
    /// marked, since whoever calls the function may differentiate it; [`Graph::finish`] takes the marks out.
    ///
    /// # Errors
    /// The first error of construction.
    pub fn computation(&self, root: Value<'_>) -> Result<Computation, Error> {
        if let Some(error) = self.error() {
            return Err(error);
        }
        let inner = self.inner.borrow();
        Ok(prune(&inner.nodes, root.id, true))
    }

    /// Ends construction: a module whose results are `outputs`, in order.
    ///
    /// # Errors
    /// The first error of construction.
    pub fn finish<'g>(
        &'g self,
        name: impl Into<String>,
        outputs: &[Value<'g>],
    ) -> Result<Module, Error> {
        let root = self.tuple(outputs);
        let entry = self.computation(root)?;
        Ok(Module::new(name.into(), without_stops(&entry)?))
    }
}

/// The computation and all it calls with nothing left that exists only for differentiation.
fn without_stops(computation: &Computation) -> Result<Computation, Error> {
    let mut copy = computation.clone();
    for node in &mut copy.nodes {
        node.op = with_called(&node.op, |callee| {
            Ok(match has_stops(callee) {
                true => Rc::new(without_stops(callee)?),
                false => callee.clone(),
            })
        })?;
    }
    Ok(prune(&copy.nodes, copy.root, false))
}

fn has_stops(computation: &Computation) -> bool {
    computation.nodes.iter().any(|node| {
        matches!(node.op, Op::StopGradient)
            || called(&node.op).iter().any(|callee| has_stops(callee))
    })
}

/// Resolves the ops that exist only for differentiation to what they forward.
fn resolve(nodes: &[Node], mut id: NodeId, keep_stops: bool) -> NodeId {
    loop {
        let node = &nodes[id.index()];
        id = match node.op {
            Op::StopGradient if !keep_stops => node.operands[0],
            Op::CustomVjp { index, .. } => node.operands[index],
            _ => return id,
        };
    }
}

/// Keeps all parameters (first, in order) and what `root` needs.
fn prune(nodes: &[Node], root: NodeId, keep_stops: bool) -> Computation {
    let resolve = |id| resolve(nodes, id, keep_stops);
    let root = resolve(root);
    let mut needed = vec![false; nodes.len()];
    needed[root.index()] = true;
    for index in (0..=root.index()).rev() {
        if needed[index] {
            for &operand in &nodes[index].operands {
                needed[resolve(operand).index()] = true;
            }
        }
    }
    let is_parameter = |node: &Node| matches!(node.op, Op::Parameter { .. });
    let parameters = nodes.iter().filter(|node| is_parameter(node)).count();
    let mut renamed = vec![NodeId(0); nodes.len()];
    let mut kept: Vec<Node> = Vec::new();
    let order = (0..nodes.len())
        .filter(|&i| is_parameter(&nodes[i]))
        .chain((0..=root.index()).filter(|&i| needed[i] && !is_parameter(&nodes[i])));
    for index in order {
        let mut node = nodes[index].clone();
        for operand in &mut node.operands {
            *operand = renamed[resolve(*operand).index()];
        }
        renamed[index] = NodeId(kept.len() as u32);
        kept.push(node);
    }
    Computation {
        nodes: kept,
        root: renamed[root.index()],
        parameters,
    }
}

impl<'g> Value<'g> {
    /// The graph this belongs to.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    /// The node's number.
    pub fn id(self) -> NodeId {
        self.id
    }

    /// A copy of the node.
    pub fn node(self) -> Node {
        self.graph.node(self.id)
    }

    /// What the node produces.
    pub fn ty(self) -> Type {
        self.graph.inner.borrow().nodes[self.id.index()].ty.clone()
    }

    /// The array's shape; a scalar f32 stands in for an invalid value, whose error is already kept.
    pub fn shape(self) -> Shape {
        match self.ty() {
            Type::Array(shape) => shape,
            Type::Tuple(_) | Type::Invalid => Shape::scalar(super::shape::DType::F32),
        }
    }

    /// Whether construction failed before or at this value.
    pub fn is_invalid(self) -> bool {
        self.ty() == Type::Invalid
    }
}
