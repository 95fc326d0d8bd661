//! The HLO graph: shapes, operations, inference, construction, rewriting, and lowering to the message that plugins compile.
//!
//! ```
//! use simclr::hlo::{DType, Graph, Shape};
//! let graph = Graph::new();
//! let x = graph.parameter("x", Shape::new(DType::F32, [4, 8]));
//! let w = graph.parameter("w", Shape::new(DType::F32, [8, 2]));
//! let y = (x.matmul(w) * 2.0).tanh();
//! let module = graph.finish("layer", &[y]).unwrap();
//! assert_eq!(module.results(), [Shape::new(DType::F32, [4, 2])]);
//! ```
//!
//! Invariant: this module knows no plugin and does no input or output.

mod build;
mod graph;
mod infer;
mod literal;
mod lower;
mod module;
mod op;
mod part;
pub mod passes;
mod shape;
mod stablehlo;
mod text;

pub use build::{Branch, Operand};
pub use graph::{Computation, Error, Graph, Node, NodeId, Scope, Value, Vjp, VjpRule};
pub use literal::{Element, Literal};
pub use module::{Module, Rewrite};
pub use op::{
    Binary, Comparison, Conv, ConvDims, DotDims, GatherDims, Monoid, Op, PadDim, Precision,
    Reducer, RngAlgorithm, ScatterDims, Unary, WindowDim,
};
pub use part::repeated;
pub use shape::{DType, Shape, Type};
