//! Modules as StableHLO text, which JAX, IREE, OpenXLA's tools and PJRT plugins read.
//!
//! Every operation is written in MLIR's generic form, and floating-point constants as their bits, so that nothing is rounded. Written
//! is what forward passes are made of; loops, branches, collectives and the like are refused by name.

use super::graph::{Computation, Error, Node};
use super::literal::Literal;
use super::module::Module;
use super::op::{
    Comparison, Conv, ConvDims, DotDims, Monoid, Op, PadDim, Precision, Reducer, Unary, WindowDim,
};
use super::shape::{DType, Shape, Type};
use std::fmt::Write;

impl Module {
    /// The module as text: one public function `main` whose results carry the names of `results`.
    ///
    /// # Errors
    /// If it has an operation that this writer leaves out.
    pub fn to_stablehlo(&self, results: &[String]) -> Result<String, Error> {
        let body = &self.entry;
        let mut out = format!("module @{} {{\n  func.func public @main(", self.name);
        for (i, (name, shape)) in self.parameters().iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            push(
                &mut out,
                format_args!("{comma}%{i}: {} loc({name:?})", tensor(shape)),
            );
        }
        out.push_str(") -> (");
        for (i, shape) in self.results().iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            push(&mut out, format_args!("{comma}{}", tensor(shape)));
            if let Some(name) = results.get(i) {
                push(&mut out, format_args!(" {{jax.result_info = {name:?}}}"));
            }
        }
        out.push_str(") {\n");
        for (id, node) in body.nodes.iter().enumerate() {
            if matches!(node.op, Op::Parameter { .. } | Op::Tuple) {
                continue;
            }
            instruction(&mut out, body, id, node)?;
        }
        let root = &body.nodes[body.root.index()];
        let returned: Vec<usize> = match root.op {
            Op::Tuple => root.operands.iter().map(|id| id.index()).collect(),
            _ => vec![body.root.index()],
        };
        let names: Vec<String> = returned.iter().map(|id| format!("%{id}")).collect();
        let types: Vec<String> = self.results().iter().map(tensor).collect();
        push(
            &mut out,
            format_args!(
                "    return {} : {}\n  }}\n}}\n",
                names.join(", "),
                types.join(", ")
            ),
        );
        Ok(out)
    }
}

/// Appends; a `String` takes everything.
fn push(out: &mut String, arguments: std::fmt::Arguments) {
    let _ = out.write_fmt(arguments);
}

fn instruction(out: &mut String, body: &Computation, id: usize, node: &Node) -> Result<(), Error> {
    let refused = || Error {
        scope: node.scope.to_string(),
        op: node.op.opcode(),
        message: "is not written as StableHLO".into(),
    };
    let Type::Array(shape) = &node.ty else {
        return Err(refused());
    };
    let operand_types: Vec<String> = node
        .operands
        .iter()
        .map(|operand| match &body.nodes[operand.index()].ty {
            Type::Array(shape) => Ok(tensor(shape)),
            Type::Tuple(_) | Type::Invalid => Err(refused()),
        })
        .collect::<Result<_, _>>()?;
    let (name, region, attributes) = parts(node, shape).ok_or_else(refused)?;
    let operands: Vec<String> = node
        .operands
        .iter()
        .map(|operand| format!("%{}", operand.index()))
        .collect();
    push(
        out,
        format_args!("    %{id} = \"stablehlo.{name}\"({})", operands.join(", ")),
    );
    if let Some(monoid) = region {
        push(out, format_args!(" ({})", reducer(monoid, shape.dtype)));
    }
    if !attributes.is_empty() {
        push(out, format_args!(" {{{}}}", attributes.join(", ")));
    }
    push(
        out,
        format_args!(" : ({}) -> {}", operand_types.join(", "), tensor(shape)),
    );
    if !node.scope.is_empty() {
        push(out, format_args!(" loc({:?})", &*node.scope));
    }
    out.push('\n');
    Ok(())
}

/// Name, reducing operation and attributes; `None` for what is not written.
fn parts(node: &Node, shape: &Shape) -> Option<(&'static str, Option<Monoid>, Vec<String>)> {
    let plain = |name| Some((name, None, Vec::new()));
    let with = |name, attributes| Some((name, None, attributes));
    match &node.op {
        Op::Constant(literal) => with("constant", vec![format!("value = {}", constant(literal)?)]),
        Op::Iota { dim, .. } => with("iota", vec![format!("iota_dimension = {dim} : i64")]),
        Op::Unary(unary) => plain(match unary {
            Unary::Abs => "abs",
            Unary::Cbrt => "cbrt",
            Unary::Ceil => "ceil",
            Unary::Cos => "cosine",
            Unary::Exp => "exponential",
            Unary::Expm1 => "exponential_minus_one",
            Unary::Floor => "floor",
            Unary::IsFinite => "is_finite",
            Unary::Log => "log",
            Unary::Log1p => "log_plus_one",
            Unary::Logistic => "logistic",
            Unary::Negate => "negate",
            Unary::Not => "not",
            Unary::RoundAfz => "round_nearest_afz",
            Unary::RoundEven => "round_nearest_even",
            Unary::Rsqrt => "rsqrt",
            Unary::Sign => "sign",
            Unary::Sin => "sine",
            Unary::Sqrt => "sqrt",
            Unary::Tan => "tan",
            Unary::Tanh => "tanh",
            // Of another dialect.
            Unary::Erf => return None,
        }),
        Op::Binary(binary) => plain(binary_name(*binary)),
        Op::Compare(direction) => {
            let direction = match direction {
                Comparison::Eq => "EQ",
                Comparison::Ne => "NE",
                Comparison::Lt => "LT",
                Comparison::Le => "LE",
                Comparison::Gt => "GT",
                Comparison::Ge => "GE",
            };
            with(
                "compare",
                vec![format!(
                    "comparison_direction = #stablehlo<comparison_direction {direction}>"
                )],
            )
        }
        Op::Select => plain("select"),
        Op::Clamp => plain("clamp"),
        Op::Convert(_) => plain("convert"),
        Op::BitcastConvert(_) => plain("bitcast_convert"),
        Op::Broadcast { mapping, .. } => with(
            "broadcast_in_dim",
            vec![list("broadcast_dimensions", mapping)],
        ),
        Op::Reshape { .. } => plain("reshape"),
        Op::Transpose { permutation } => with("transpose", vec![list("permutation", permutation)]),
        Op::Slice {
            start,
            limit,
            stride,
        } => with(
            "slice",
            vec![
                list("start_indices", start),
                list("limit_indices", limit),
                list("strides", stride),
            ],
        ),
        Op::DynamicSlice { sizes } => with("dynamic_slice", vec![list("slice_sizes", sizes)]),
        Op::DynamicUpdateSlice => plain("dynamic_update_slice"),
        Op::Concatenate { dim } => with("concatenate", vec![format!("dimension = {dim} : i64")]),
        Op::Pad(padding) => {
            let all = |of: fn(&PadDim) -> i64| padding.iter().map(of).collect::<Vec<_>>();
            with(
                "pad",
                vec![
                    list("edge_padding_low", &all(|p| p.low)),
                    list("edge_padding_high", &all(|p| p.high)),
                    list("interior_padding", &all(|p| p.interior)),
                ],
            )
        }
        Op::Reverse { dims } => with("reverse", vec![list("dimensions", dims)]),
        Op::Reduce {
            dims,
            reducer: Reducer::Monoid(monoid),
        } => Some(("reduce", Some(*monoid), vec![list("dimensions", dims)])),
        Op::ReduceWindow { window, monoid } => {
            let all = |of: fn(&WindowDim) -> i64| window.iter().map(of).collect::<Vec<_>>();
            let attributes = vec![
                list("window_dimensions", &all(|w| w.size)),
                list("window_strides", &all(|w| w.stride)),
                list("base_dilations", &all(|w| w.base_dilation)),
                list("window_dilations", &all(|w| w.window_dilation)),
                padding(window),
            ];
            Some(("reduce_window", Some(*monoid), attributes))
        }
        Op::Convolution(conv) => with("convolution", convolution(conv)),
        Op::Dot(dims) => with("dot_general", dot(dims)),
        Op::ReplicaId if shape.dtype == DType::U32 => plain("replica_id"),
        Op::Parameter { .. }
        | Op::Gather(_)
        | Op::Scatter { .. }
        | Op::Reduce { .. }
        | Op::SelectAndScatter { .. }
        | Op::RngBitGenerator { .. }
        | Op::Sort { .. }
        | Op::While { .. }
        | Op::Conditional { .. }
        | Op::Call(_)
        | Op::Tuple
        | Op::GetTupleElement { .. }
        | Op::AllReduce { .. }
        | Op::AllGather { .. }
        | Op::ReduceScatter { .. }
        | Op::CollectivePermute { .. }
        | Op::ReplicaId
        | Op::OptimizationBarrier
        | Op::Fence
        | Op::CustomCall { .. }
        | Op::StopGradient
        | Op::CustomVjp { .. } => None,
    }
}

fn binary_name(binary: super::op::Binary) -> &'static str {
    use super::op::Binary;
    match binary {
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
        Binary::ShiftLeft => "shift_left",
        Binary::ShiftRightArithmetic => "shift_right_arithmetic",
        Binary::ShiftRightLogical => "shift_right_logical",
        Binary::Subtract => "subtract",
        Binary::Xor => "xor",
    }
}

/// The region of a reduction.
fn reducer(monoid: Monoid, dtype: DType) -> String {
    let scalar = tensor(&Shape::scalar(dtype));
    let name = binary_name(monoid.binary());
    format!(
        "{{ ^bb0(%a: {scalar}, %b: {scalar}): \
         %c = \"stablehlo.{name}\"(%a, %b) : ({scalar}, {scalar}) -> {scalar} \
         \"stablehlo.return\"(%c) : ({scalar}) -> () }}"
    )
}

fn convolution(conv: &Conv) -> Vec<String> {
    let window = &conv.window;
    let all = |of: fn(&WindowDim) -> i64| window.iter().map(of).collect::<Vec<_>>();
    let forward: Vec<&str> = window.iter().map(|_| "false").collect();
    vec![
        list("window_strides", &all(|w| w.stride)),
        padding(window),
        list("lhs_dilation", &all(|w| w.base_dilation)),
        list("rhs_dilation", &all(|w| w.window_dilation)),
        format!("window_reversal = array<i1: {}>", forward.join(", ")),
        format!("dimension_numbers = {}", convolution_dims(&conv.dims)),
        format!("feature_group_count = {} : i64", conv.feature_groups),
        format!("batch_group_count = {} : i64", conv.batch_groups),
    ]
}

fn convolution_dims(dims: &ConvDims) -> String {
    let layout = |named: [(i64, &str); 2], spatial: &[i64]| {
        let mut places = vec![String::new(); spatial.len() + 2];
        for (at, name) in named {
            places[at as usize] = name.into();
        }
        for (i, &at) in spatial.iter().enumerate() {
            places[at as usize] = i.to_string();
        }
        format!("[{}]", places.join(", "))
    };
    format!(
        "#stablehlo.conv<{}x{}->{}>",
        layout(
            [(dims.input_batch, "b"), (dims.input_feature, "f")],
            &dims.input_spatial
        ),
        layout(
            [(dims.kernel_input, "i"), (dims.kernel_output, "o")],
            &dims.kernel_spatial
        ),
        layout(
            [(dims.output_batch, "b"), (dims.output_feature, "f")],
            &dims.output_spatial
        ),
    )
}

fn dot(dims: &DotDims) -> Vec<String> {
    let precision = match dims.precision {
        Precision::Default => "DEFAULT",
        Precision::Highest => "HIGHEST",
    };
    let mut named = Vec::new();
    for (name, dims) in [
        ("lhs_batching_dimensions", &dims.lhs_batch),
        ("rhs_batching_dimensions", &dims.rhs_batch),
        ("lhs_contracting_dimensions", &dims.lhs_contracting),
        ("rhs_contracting_dimensions", &dims.rhs_contracting),
    ] {
        if !dims.is_empty() {
            named.push(format!("{name} = {dims:?}"));
        }
    }
    vec![
        format!(
            "dot_dimension_numbers = #stablehlo.dot<{}>",
            named.join(", ")
        ),
        format!(
            "precision_config = [#stablehlo<precision {precision}>, #stablehlo<precision {precision}>]"
        ),
    ]
}

fn padding(window: &[WindowDim]) -> String {
    let pairs: Vec<String> = window
        .iter()
        .map(|w| format!("[{}, {}]", w.low, w.high))
        .collect();
    format!(
        "padding = dense<[{}]> : tensor<{}x2xi64>",
        pairs.join(", "),
        window.len()
    )
}

fn list(name: &str, values: &[i64]) -> String {
    if values.is_empty() {
        return format!("{name} = array<i64>");
    }
    let values: Vec<String> = values.iter().map(i64::to_string).collect();
    format!("{name} = array<i64: {}>", values.join(", "))
}

/// A dense attribute; truth values only where all are the same, for they have no bits of their own.
fn constant(literal: &Literal) -> Option<String> {
    let shape = literal.shape();
    let ty = tensor(shape);
    if shape.elements() == 0 {
        return Some(format!("dense<> : {ty}"));
    }
    if shape.dtype == DType::Pred {
        let first = literal.bytes()[0];
        let same = literal.bytes().iter().all(|&byte| byte == first);
        return same.then(|| format!("dense<{}> : {ty}", first != 0));
    }
    let mut bits = String::with_capacity(2 * literal.bytes().len() + 4);
    for byte in literal.bytes() {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        bits.push(char::from(DIGITS[usize::from(byte >> 4)]));
        bits.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    Some(format!("dense<\"0x{bits}\"> : {ty}"))
}

fn tensor(shape: &Shape) -> String {
    let element = match shape.dtype {
        DType::Pred => "i1",
        DType::S32 => "i32",
        DType::S64 => "i64",
        DType::U8 => "ui8",
        DType::U32 => "ui32",
        DType::U64 => "ui64",
        DType::Bf16 => "bf16",
        DType::F32 => "f32",
        DType::F64 => "f64",
    };
    let dims: String = shape.dims.iter().map(|dim| format!("{dim}x")).collect();
    format!("tensor<{dims}{element}>")
}
