//! The operations. [`Op`] is exhaustive: inference, gradient, printing and lowering each match on it, so a new op that is
//! forgotten somewhere does not compile.

use super::graph::Computation;
use super::literal::Literal;
use super::shape::{DType, Shape, Type};
use std::rc::Rc;

/// Elementwise operations on one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Unary {
    Abs,
    Cbrt,
    Ceil,
    Cos,
    Erf,
    Exp,
    Expm1,
    Floor,
    IsFinite,
    Log,
    Log1p,
    Logistic,
    Negate,
    /// Bitwise for integers, logical for `pred`.
    Not,
    /// Round to nearest, halves away from zero.
    RoundAfz,
    /// Round to nearest, halves to even.
    RoundEven,
    Rsqrt,
    Sign,
    Sin,
    Sqrt,
    Tan,
    Tanh,
}

/// Elementwise operations on two operands of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    And,
    Atan2,
    Divide,
    Maximum,
    Minimum,
    Multiply,
    Or,
    Power,
    Remainder,
    ShiftLeft,
    ShiftRightArithmetic,
    ShiftRightLogical,
    Subtract,
    Xor,
}

/// Comparison directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// An associative, commutative operation with an identity: what reductions and collectives combine with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Monoid {
    Add,
    Multiply,
    Maximum,
    Minimum,
    And,
    Or,
}

impl Monoid {
    /// The elementwise operation.
    pub fn binary(self) -> Binary {
        match self {
            Monoid::Add => Binary::Add,
            Monoid::Multiply => Binary::Multiply,
            Monoid::Maximum => Binary::Maximum,
            Monoid::Minimum => Binary::Minimum,
            Monoid::And => Binary::And,
            Monoid::Or => Binary::Or,
        }
    }

    /// The identity element for a type.
    pub fn identity(self, dtype: DType) -> Literal {
        let value = match (self, dtype) {
            (Monoid::Add | Monoid::Or, _) => 0.0,
            (Monoid::Multiply, _) => 1.0,
            (Monoid::And, DType::Pred) => 1.0,
            (Monoid::And, DType::S32 | DType::S64) => -1.0,
            (Monoid::And, _) => f64::MAX,
            (Monoid::Maximum, d) if d.is_float() => f64::NEG_INFINITY,
            (Monoid::Minimum, d) if d.is_float() => f64::INFINITY,
            // Casts from f64 saturate, so the infinities become the extreme integers.
            (Monoid::Maximum, _) => f64::NEG_INFINITY,
            (Monoid::Minimum, DType::Pred) => 1.0,
            (Monoid::Minimum, _) => f64::INFINITY,
        };
        Literal::from_f64s(dtype, &[], &[value])
    }
}

/// How a variadic reduction combines values.
#[derive(Debug, Clone)]
pub enum Reducer {
    /// One operand, a monoid.
    Monoid(Monoid),
    /// N operands: a computation of 2N scalars (accumulators, then elements) to N scalars.
    General(Rc<Computation>),
}

/// One spatial dimension of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowDim {
    /// Elements of the window.
    pub size: i64,
    /// Step between windows.
    pub stride: i64,
    /// Padding before (may be negative).
    pub low: i64,
    /// Padding after (may be negative).
    pub high: i64,
    /// Distance between the window's elements.
    pub window_dilation: i64,
    /// Distance between the input's elements after spreading them with zeros.
    pub base_dilation: i64,
}

impl WindowDim {
    /// A window without dilation.
    pub fn new(size: i64, stride: i64, low: i64, high: i64) -> Self {
        WindowDim {
            size,
            stride,
            low,
            high,
            window_dilation: 1,
            base_dilation: 1,
        }
    }

    /// A window that leaves the dimension alone.
    pub fn identity() -> Self {
        WindowDim::new(1, 1, 0, 0)
    }

    /// Number of window positions over an input of `input` elements.
    pub fn output(&self, input: i64) -> i64 {
        let base = if input == 0 {
            0
        } else {
            (input - 1) * self.base_dilation + 1
        };
        let window = (self.size - 1) * self.window_dilation + 1;
        let room = base + self.low + self.high - window;
        if room < 0 { 0 } else { room / self.stride + 1 }
    }
}

/// Which dimension of a convolution's operands and result means what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct ConvDims {
    pub input_batch: i64,
    pub input_feature: i64,
    pub input_spatial: Vec<i64>,
    pub kernel_input: i64,
    pub kernel_output: i64,
    pub kernel_spatial: Vec<i64>,
    pub output_batch: i64,
    pub output_feature: i64,
    pub output_spatial: Vec<i64>,
}

impl ConvDims {
    /// Activations NHWC, kernels HWIO.
    pub fn nhwc() -> Self {
        ConvDims {
            input_batch: 0,
            input_feature: 3,
            input_spatial: vec![1, 2],
            kernel_input: 2,
            kernel_output: 3,
            kernel_spatial: vec![0, 1],
            output_batch: 0,
            output_feature: 3,
            output_spatial: vec![1, 2],
        }
    }
}

/// Everything a convolution needs besides its operands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Conv {
    /// One entry per spatial dimension, sizes equal to the kernel's.
    pub window: Vec<WindowDim>,
    /// Dimension numbers.
    pub dims: ConvDims,
    /// Input features are split into this many independent groups.
    pub feature_groups: i64,
    /// The batch is split into this many groups, each giving a slice of the output features.
    pub batch_groups: i64,
}

impl Conv {
    /// An ungrouped NHWC × HWIO convolution with one window per spatial dimension.
    pub fn nhwc(window: Vec<WindowDim>) -> Self {
        Conv {
            window,
            dims: ConvDims::nhwc(),
            feature_groups: 1,
            batch_groups: 1,
        }
    }
}

/// Dimension numbers of a general dot product.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)]
pub struct DotDims {
    pub lhs_contracting: Vec<i64>,
    pub rhs_contracting: Vec<i64>,
    pub lhs_batch: Vec<i64>,
    pub rhs_batch: Vec<i64>,
    pub precision: Precision,
}

/// How a product of f32 is computed where units multiply shorter numbers (TF32 on GPUs, bf16 on TPUs); a CPU always multiplies f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As fast as the device can.
    #[default]
    Default,
    /// Like f32 products, in several passes.
    Highest,
}

/// Dimension numbers of a gather (XLA's meaning).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct GatherDims {
    pub offset_dims: Vec<i64>,
    pub collapsed_slice_dims: Vec<i64>,
    pub start_index_map: Vec<i64>,
    pub index_vector_dim: i64,
    pub slice_sizes: Vec<i64>,
}

/// Dimension numbers of a scatter (XLA's meaning).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct ScatterDims {
    pub update_window_dims: Vec<i64>,
    pub inserted_window_dims: Vec<i64>,
    pub scatter_dims_to_operand_dims: Vec<i64>,
    pub index_vector_dim: i64,
}

/// Padding of one dimension; `low` and `high` may be negative (cropping).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)]
pub struct PadDim {
    pub low: i64,
    pub high: i64,
    pub interior: i64,
}

/// Random bit generators with numbers that do not depend on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum RngAlgorithm {
    ThreeFry,
    Philox,
}

/// An operation; its operands are kept by the node.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Op {
    /// Argument number `index` of the computation.
    Parameter {
        index: usize,
        name: String,
        ty: Type,
    },
    Constant(Rc<Literal>),
    /// Numbers 0, 1, … along `dim`.
    Iota {
        shape: Shape,
        dim: i64,
    },
    Unary(Unary),
    Binary(Binary),
    Compare(Comparison),
    /// `(pred, on_true, on_false)`, all of one shape.
    Select,
    /// `(low, x, high)`, all of one shape.
    Clamp,
    Convert(DType),
    BitcastConvert(DType),
    /// Operand dimension `i` becomes result dimension `mapping[i]`.
    Broadcast {
        dims: Vec<i64>,
        mapping: Vec<i64>,
    },
    Reshape {
        dims: Vec<i64>,
    },
    /// Result dimension `i` is operand dimension `permutation[i]`.
    Transpose {
        permutation: Vec<i64>,
    },
    Slice {
        start: Vec<i64>,
        limit: Vec<i64>,
        stride: Vec<i64>,
    },
    /// `(x, start_0, …)`: start indices are scalars, clamped so that the slice fits.
    DynamicSlice {
        sizes: Vec<i64>,
    },
    /// `(x, update, start_0, …)`.
    DynamicUpdateSlice,
    /// `(x, indices)`.
    Gather(GatherDims),
    /// `(x, indices, updates)`; colliding updates combine with the monoid.
    Scatter {
        dims: ScatterDims,
        monoid: Monoid,
    },
    Concatenate {
        dim: i64,
    },
    /// `(x, value)`.
    Pad(Vec<PadDim>),
    Reverse {
        dims: Vec<i64>,
    },
    /// `(x_0, …, init_0, …)`.
    Reduce {
        dims: Vec<i64>,
        reducer: Reducer,
    },
    /// `(x, init)`; one window entry per dimension.
    ReduceWindow {
        window: Vec<WindowDim>,
        monoid: Monoid,
    },
    /// `(x, source, init)`: each source element is added at the maximum of its window; of equal ones mostly, but not always, at the
    /// first: the CPU plugin's order is its own.
    SelectAndScatter {
        window: Vec<WindowDim>,
    },
    /// `(x, kernel)`.
    Convolution(Conv),
    Dot(DotDims),
    /// `(state u64[2 or 3])` → `(new state, bits)`.
    RngBitGenerator {
        algorithm: RngAlgorithm,
        shape: Shape,
    },
    /// N operands sorted together; `less` takes 2N scalars `(a_0, b_0, a_1, b_1, …)`.
    Sort {
        dim: i64,
        less: Rc<Computation>,
    },
    /// One tuple in, the same tuple out.
    While {
        condition: Rc<Computation>,
        body: Rc<Computation>,
    },
    /// `(index s32, tuple_0, tuple_1, …)`, one tuple per branch.
    Conditional {
        branches: Vec<Rc<Computation>>,
    },
    /// A call that XLA may inline.
    Call(Rc<Computation>),
    Tuple,
    GetTupleElement {
        index: usize,
    },
    /// Sum (or other monoid) over the replicas of each group.
    AllReduce {
        monoid: Monoid,
        groups: Vec<Vec<i64>>,
    },
    /// Concatenation over the replicas of each group along `dim`; `size` replicas in a group.
    AllGather {
        dim: i64,
        size: i64,
        groups: Vec<Vec<i64>>,
    },
    /// Sum over the replicas of each group, each keeping its slice of `dim`.
    ReduceScatter {
        dim: i64,
        size: i64,
        groups: Vec<Vec<i64>>,
    },
    /// Values move from the first to the second replica of each pair; others get zeros.
    CollectivePermute {
        pairs: Vec<(i64, i64)>,
    },
    /// The number of this replica, u32.
    ReplicaId,
    /// The identity on its operands, through which XLA moves nothing.
    OptimizationBarrier,
    /// The identity on one array, which exists in memory here: XLA fuses nothing across it.
    Fence,
    /// A call of a function of this program, through XLA's foreign function interface, with attributes in MLIR's notation. One result is
    /// an array, several are a tuple. `(result, operand)` of `aliases` share their memory.
    CustomCall {
        target: String,
        config: String,
        results: Vec<Shape>,
        aliases: Vec<(usize, usize)>,
    },
    /// The identity; gradients end here. Gone after `finish`.
    StopGradient,
    /// The identity on operand `index`; carries a gradient rule. Gone after `finish`.
    CustomVjp {
        rule: usize,
        index: usize,
    },
}

impl Op {
    /// The HLO opcode, or our name: `custom-vjp` and `stop-gradient` never reach HLO, a `fence` becomes a call.
    pub fn opcode(&self) -> &'static str {
        match self {
            Op::Parameter { .. } => "parameter",
            Op::Constant(_) => "constant",
            Op::Iota { .. } => "iota",
            Op::Unary(unary) => match unary {
                Unary::Abs => "abs",
                Unary::Cbrt => "cbrt",
                Unary::Ceil => "ceil",
                Unary::Cos => "cosine",
                Unary::Erf => "erf",
                Unary::Exp => "exponential",
                Unary::Expm1 => "exponential-minus-one",
                Unary::Floor => "floor",
                Unary::IsFinite => "is-finite",
                Unary::Log => "log",
                Unary::Log1p => "log-plus-one",
                Unary::Logistic => "logistic",
                Unary::Negate => "negate",
                Unary::Not => "not",
                Unary::RoundAfz => "round-nearest-afz",
                Unary::RoundEven => "round-nearest-even",
                Unary::Rsqrt => "rsqrt",
                Unary::Sign => "sign",
                Unary::Sin => "sine",
                Unary::Sqrt => "sqrt",
                Unary::Tan => "tan",
                Unary::Tanh => "tanh",
            },
            Op::Binary(binary) => match binary {
                Binary::Add => "add",
                Binary::And => "and",
                Binary::Atan2 => "atan2",
                Binary::Divide => "divide",
                Binary::Maximum => "maximum",
                Binary::Minimum => "minimum",
                Binary::Multiply => "multiply",
                Binary::Or => "or",
                Binary::Power => "power",
                Binary::Remainder => "remainder",
                Binary::ShiftLeft => "shift-left",
                Binary::ShiftRightArithmetic => "shift-right-arithmetic",
                Binary::ShiftRightLogical => "shift-right-logical",
                Binary::Subtract => "subtract",
                Binary::Xor => "xor",
            },
            Op::Compare(_) => "compare",
            Op::Select => "select",
            Op::Clamp => "clamp",
            Op::Convert(_) => "convert",
            Op::BitcastConvert(_) => "bitcast-convert",
            Op::Broadcast { .. } => "broadcast",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Slice { .. } => "slice",
            Op::DynamicSlice { .. } => "dynamic-slice",
            Op::DynamicUpdateSlice => "dynamic-update-slice",
            Op::Gather(_) => "gather",
            Op::Scatter { .. } => "scatter",
            Op::Concatenate { .. } => "concatenate",
            Op::Pad(_) => "pad",
            Op::Reverse { .. } => "reverse",
            Op::Reduce { .. } => "reduce",
            Op::ReduceWindow { .. } => "reduce-window",
            Op::SelectAndScatter { .. } => "select-and-scatter",
            Op::Convolution(_) => "convolution",
            Op::Dot(_) => "dot",
            Op::RngBitGenerator { .. } => "rng-bit-generator",
            Op::Sort { .. } => "sort",
            Op::While { .. } => "while",
            Op::Conditional { .. } => "conditional",
            Op::Call(_) => "call",
            Op::Tuple => "tuple",
            Op::GetTupleElement { .. } => "get-tuple-element",
            Op::AllReduce { .. } => "all-reduce",
            Op::AllGather { .. } => "all-gather",
            Op::ReduceScatter { .. } => "reduce-scatter",
            Op::CollectivePermute { .. } => "collective-permute",
            Op::ReplicaId => "replica-id",
            Op::OptimizationBarrier => "opt-barrier",
            Op::Fence => "fence",
            Op::CustomCall { .. } => "custom-call",
            Op::StopGradient => "stop-gradient",
            Op::CustomVjp { .. } => "custom-vjp",
        }
    }
}
