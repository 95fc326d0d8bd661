//! Every operation runs on the plugin, on two replicas, and gives the numbers of plain Rust or of a sum done by hand. A list that does
//! not compile when an operation is missing in it sees to it that each has a case.

mod common;

use simclr::hlo::{
    Binary, Conv, DType, DotDims, Graph, Literal, Monoid, Op, PadDim, ScatterDims, Shape, Unary,
    Value, WindowDim,
};
use std::collections::BTreeSet;

/// What the cases compute from: arguments of the module, so that nothing is known to the compiler.
struct Inputs<'g> {
    x: Value<'g>,
    y: Value<'g>,
    i: Value<'g>,
    j: Value<'g>,
    /// `[2, 3]`: 1 to 6.
    m: Value<'g>,
}

const X: [f64; 4] = [-1.5, 0.25, 0.5, 2.5];
const Y: [f64; 4] = [2.0, -3.0, 0.75, 2.5];
const I: [i32; 4] = [5, -6, 7, 12];
const J: [i32; 4] = [3, 1, 2, 2];
const M: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

/// A value and what it is on each of the two replicas.
struct Case<'g> {
    value: Value<'g>,
    expected: [Vec<f64>; 2],
}

fn same<'g>(value: Value<'g>, expected: &[f64]) -> Case<'g> {
    Case {
        value,
        expected: [expected.to_vec(), expected.to_vec()],
    }
}

/// Variants of an enumeration, each with what belongs to it. The match without a wildcard does not compile when one is missing here.
macro_rules! each {
    ($type:ident: $($variant:ident => $of:expr),* $(,)?) => {{
        #[allow(dead_code)]
        fn complete(value: $type) {
            match value { $($type::$variant => {})* }
        }
        vec![$(($type::$variant, $of)),*]
    }};
}

/// The error function at `X`.
fn erf(x: f64) -> f64 {
    let known = [
        -0.9661051464753108,
        0.2763263901682369,
        0.5204998778130465,
        0.999593047982555,
    ];
    known[X.iter().position(|&v| v == x).expect("one of X")]
}

fn unary_cases<'g>(on: &Inputs<'g>) -> Vec<Case<'g>> {
    type Plain = fn(f64) -> f64;
    let plain: Vec<(Unary, Option<Plain>)> = each!(Unary:
        Abs => Some(f64::abs), Cbrt => Some(f64::cbrt), Ceil => Some(f64::ceil), Cos => Some(f64::cos), Erf => Some(erf),
        Exp => Some(f64::exp), Expm1 => Some(f64::exp_m1), Floor => Some(f64::floor), IsFinite => Some(|_| 1.0), Log => Some(f64::ln),
        Log1p => Some(f64::ln_1p), Logistic => Some(|x| 1.0 / (1.0 + (-x).exp())), Negate => Some(|x| -x), Not => None,
        RoundAfz => Some(f64::round), RoundEven => Some(f64::round_ties_even), Rsqrt => Some(|x| 1.0 / x.sqrt()),
        Sign => Some(f64::signum), Sin => Some(f64::sin), Sqrt => Some(f64::sqrt), Tan => Some(f64::tan), Tanh => Some(f64::tanh),
    );
    let mut cases = Vec::new();
    for (unary, plain) in plain {
        cases.push(match (unary, plain) {
            (Unary::Log | Unary::Log1p | Unary::Sqrt | Unary::Rsqrt, Some(plain)) => {
                same(on.x.abs().unary(unary), &X.map(|x| plain(x.abs())))
            }
            (_, Some(plain)) => same(on.x.unary(unary), &X.map(plain)),
            (_, None) => same(on.i.unary(unary), &I.map(|i| f64::from(!i))),
        });
    }
    let far = on.x / 0.0;
    cases.push(same(far.is_finite(), &[0.0; 4]));
    cases
}

fn binary_cases<'g>(on: &Inputs<'g>) -> Vec<Case<'g>> {
    enum Plain {
        Floats(fn(f64, f64) -> f64),
        Integers(fn(i32, i32) -> i32),
    }
    use Plain::{Floats, Integers};
    let plain: Vec<(Binary, Plain)> = each!(Binary:
        Add => Floats(|x, y| x + y), And => Integers(|i, j| i & j), Atan2 => Floats(f64::atan2), Divide => Floats(|x, y| x / y),
        Maximum => Floats(f64::max), Minimum => Floats(f64::min), Multiply => Floats(|x, y| x * y), Or => Integers(|i, j| i | j),
        Power => Floats(f64::powf), Remainder => Floats(|x, y| x % y), ShiftLeft => Integers(|i, j| i << j),
        ShiftRightArithmetic => Integers(|i, j| i >> j), ShiftRightLogical => Integers(|i, j| ((i as u32) >> j) as i32),
        Subtract => Floats(|x, y| x - y), Xor => Integers(|i, j| i ^ j),
    );
    let mut cases = Vec::new();
    for (binary, plain) in plain {
        cases.push(match plain {
            Floats(plain) => {
                // A power of a negative number need not be one.
                let power = binary == Binary::Power;
                let x = if power { on.x.abs() } else { on.x };
                let of = |k: usize| plain(if power { X[k].abs() } else { X[k] }, Y[k]);
                same(x.binary(binary, on.y), &[0, 1, 2, 3].map(of))
            }
            Integers(plain) => {
                let of = |k: usize| f64::from(plain(I[k], J[k]));
                same(on.i.binary(binary, on.j), &[0, 1, 2, 3].map(of))
            }
        });
    }
    cases
}

fn shape_cases<'g>(graph: &'g Graph, on: &Inputs<'g>) -> Vec<Case<'g>> {
    let Inputs { x, y, i, j, m } = *on;
    let one = graph.scalar(1i32);
    let rows = ScatterDims {
        update_window_dims: vec![],
        inserted_window_dims: vec![0],
        scatter_dims_to_operand_dims: vec![0],
        index_vector_dim: 1,
    };
    let pad = PadDim {
        low: 1,
        high: -1,
        interior: 1,
    };
    vec![
        same(graph.iota(DType::S32, &[2, 2], 1), &[0.0, 1.0, 0.0, 1.0]),
        same(x.lt(y), &[1.0, 0.0, 1.0, 0.0]),
        same(x.lt(y).select(x, y), &[-1.5, -3.0, 0.5, 2.5]),
        same(x.clamp(0.0, 1.0), &[0.0, 0.25, 0.5, 1.0]),
        same(x.convert(DType::S32), &[-1.0, 0.0, 0.0, 2.0]),
        same(
            i.bitcast_convert(DType::U32),
            &I.map(|i| f64::from(i as u32)),
        ),
        same(
            j.broadcast_in_dim(&[2, 4], &[1]),
            &[3.0, 1.0, 2.0, 2.0, 3.0, 1.0, 2.0, 2.0],
        ),
        same(m.reshape(&[3, 2]), &M),
        same(m.transpose(&[1, 0]), &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
        same(m.slice(&[0, 0], &[2, 3], &[1, 2]), &[1.0, 3.0, 4.0, 6.0]),
        same(m.dynamic_slice(&[one, one], &[1, 2]), &[5.0, 6.0]),
        same(
            m.dynamic_update_slice(m.slice(&[0, 0], &[1, 2], &[1, 1]), &[one, one]),
            &[1.0, 2.0, 3.0, 4.0, 1.0, 2.0],
        ),
        same(x.take_rows(j), &[2.5, 0.25, 0.5, 0.5]),
        same(
            x.scatter(j, y, rows, Monoid::Add),
            &[-1.5, -2.75, 0.5 + 0.75 + 2.5, 4.5],
        ),
        same(
            graph.concatenate(&[i, j], 0),
            &[5.0, -6.0, 7.0, 12.0, 3.0, 1.0, 2.0, 2.0],
        ),
        same(x.pad(9.0, &[pad]), &[9.0, -1.5, 9.0, 0.25, 9.0, 0.5, 9.0]),
        same(m.reverse(&[1]), &[3.0, 2.0, 1.0, 6.0, 5.0, 4.0]),
    ]
}

fn window_cases<'g>(graph: &'g Graph, on: &Inputs<'g>) -> Vec<Case<'g>> {
    let Inputs { x, y, m, .. } = *on;
    let pairs = [WindowDim::new(2, 1, 0, 0)];
    let halves = [WindowDim::new(2, 2, 0, 0)];
    let window = vec![WindowDim::new(1, 1, 0, 0), WindowDim::new(2, 1, 0, 1)];
    let across = DotDims {
        lhs_contracting: vec![1],
        rhs_contracting: vec![1],
        ..DotDims::default()
    };
    vec![
        same(m.sum(&[0]), &[5.0, 7.0, 9.0]),
        same(m.reduce_max(&[1]), &[3.0, 6.0]),
        same(y.argmax(0), &[3.0]),
        same(x.reduce_window(Monoid::Add, &pairs), &[-1.25, 0.75, 3.0]),
        same(
            x.select_and_scatter(graph.scalar(7.0f64).broadcast_scalar(&[2]), &halves),
            &[0.0, 7.0, 0.0, 7.0],
        ),
        // Each number plus twice the one right of it.
        same(
            m.reshape(&[1, 2, 3, 1]).convolve(
                graph.constant(Literal::new(&[1, 2, 1, 1], &[1.0f64, 2.0])),
                Conv::nhwc(window),
            ),
            &[5.0, 8.0, 3.0, 14.0, 17.0, 6.0],
        ),
        same(m.dot_general(m, across), &[14.0, 32.0, 32.0, 77.0]),
    ]
}

fn control_cases<'g>(graph: &'g Graph, on: &Inputs<'g>) -> Vec<Case<'g>> {
    let Inputs { x, y, j, .. } = *on;
    let sorted = graph.sort(&[y, j], 0, |_, a, b| a[0].lt(b[0]));
    let doubled = graph.while_loop(
        &[graph.scalar(0i32), x],
        |_, state| state[0].lt(3.0),
        |_, state| vec![state[0] + 1.0, state[1] * 2.0],
    );
    let which = j.slice(&[1], &[2], &[1]).reshape(&[]);
    let chosen = graph.conditional(
        which,
        &[
            (vec![x], &|_, p| vec![p[0] + 1.0]),
            (vec![y], &|_, p| vec![p[0] - 1.0]),
        ],
    );
    let called = graph.call(&[x, y], |_, p| vec![p[0] - p[1]]);
    let held = graph.optimization_barrier(&[x, y]);
    vec![
        same(sorted[0], &[-3.0, 0.75, 2.0, 2.5]),
        same(sorted[1], &[1.0, 2.0, 3.0, 2.0]),
        same(doubled[1], &X.map(|x| 8.0 * x)),
        same(chosen[0], &Y.map(|y| y - 1.0)),
        same(called[0], &[-3.5, 3.25, -0.25, 0.0]),
        same(held[1], &Y),
        same(x.fence() + y, &[0.5, -2.75, 1.25, 5.0]),
    ]
}

/// On replica r every collective works on r + 1 and ten times that.
fn collective_cases<'g>(graph: &'g Graph) -> Vec<Case<'g>> {
    let number = graph.replica_id().convert(DType::F64) + 1.0;
    let steps = graph.iota(DType::F64, &[2], 0) * 9.0 + 1.0;
    let own = steps * number;
    let of = |value, zero: &[f64], one: &[f64]| Case {
        value,
        expected: [zero.to_vec(), one.to_vec()],
    };
    vec![
        of(graph.replica_id(), &[0.0], &[1.0]),
        same(own.all_reduce_sum(), &[3.0, 30.0]),
        same(own.all_reduce(Monoid::Maximum, &[vec![0, 1]]), &[2.0, 20.0]),
        of(
            own.all_reduce(Monoid::Add, &[vec![0], vec![1]]),
            &[1.0, 10.0],
            &[2.0, 20.0],
        ),
        same(own.all_gather(0, 2, &[]), &[1.0, 10.0, 2.0, 20.0]),
        of(own.reduce_scatter(0, 2, &[]), &[3.0], &[30.0]),
        of(own.collective_permute(&[(0, 1)]), &[0.0, 0.0], &[1.0, 10.0]),
    ]
}

/// All operations but the elementwise ones; whether a case has to run it.
macro_rules! all_operations {
    ($($pattern:pat => $name:literal $runs:literal)*) => {
        fn operations() -> Vec<&'static str> {
            #[allow(dead_code)]
            fn complete(op: &Op) {
                match op { $($pattern => {})* }
            }
            [$(($name, $runs)),*].into_iter().filter(|(_, runs)| *runs).map(|(name, _)| name).collect()
        }
    };
}

all_operations! {
    Op::Parameter { .. } => "parameter" true
    Op::Constant(_) => "constant" true
    Op::Iota { .. } => "iota" true
    Op::Unary(_) | Op::Binary(_) => "" false // a case each, by construction
    Op::Compare(_) => "compare" true
    Op::Select => "select" true
    Op::Clamp => "clamp" true
    Op::Convert(_) => "convert" true
    Op::BitcastConvert(_) => "bitcast-convert" true
    Op::Broadcast { .. } => "broadcast" true
    Op::Reshape { .. } => "reshape" true
    Op::Transpose { .. } => "transpose" true
    Op::Slice { .. } => "slice" true
    Op::DynamicSlice { .. } => "dynamic-slice" true
    Op::DynamicUpdateSlice => "dynamic-update-slice" true
    Op::Gather(_) => "gather" true
    Op::Scatter { .. } => "scatter" true
    Op::Concatenate { .. } => "concatenate" true
    Op::Pad(_) => "pad" true
    Op::Reverse { .. } => "reverse" true
    Op::Reduce { .. } => "reduce" true
    Op::ReduceWindow { .. } => "reduce-window" true
    Op::SelectAndScatter { .. } => "select-and-scatter" true
    Op::Convolution(_) => "convolution" true
    Op::Dot(_) => "dot" true
    Op::RngBitGenerator { .. } => "rng-bit-generator" false // runs in tests/hlo.rs: its bits are the plugin's own
    Op::Sort { .. } => "sort" true
    Op::While { .. } => "while" true
    Op::Conditional { .. } => "conditional" true
    Op::Call(_) => "call" true
    Op::Tuple => "tuple" true
    Op::GetTupleElement { .. } => "get-tuple-element" true
    Op::AllReduce { .. } => "all-reduce" true
    Op::AllGather { .. } => "all-gather" true
    Op::ReduceScatter { .. } => "reduce-scatter" true
    Op::CollectivePermute { .. } => "collective-permute" true
    Op::ReplicaId => "replica-id" true
    Op::OptimizationBarrier => "opt-barrier" true
    Op::Fence => "fence" true
    Op::CustomCall { .. } => "custom-call" false // its targets differ by plugin
    Op::StopGradient => "stop-gradient" false // gone before a module is finished
    Op::CustomVjp { .. } => "custom-vjp" false // likewise
}

#[test]
fn every_operation_runs_and_gives_its_numbers() {
    let graph = Graph::new();
    let float = |name: &str, dims: &[i64]| graph.parameter(name, Shape::new(DType::F64, dims));
    let integer = |name: &str| graph.parameter(name, Shape::new(DType::S32, [4]));
    let on = Inputs {
        x: float("x", &[4]),
        y: float("y", &[4]),
        i: integer("i"),
        j: integer("j"),
        m: float("m", &[2, 3]),
    };
    let mut cases = unary_cases(&on);
    cases.extend(binary_cases(&on));
    cases.extend(shape_cases(&graph, &on));
    cases.extend(window_cases(&graph, &on));
    cases.extend(control_cases(&graph, &on));
    cases.extend(collective_cases(&graph));
    let values: Vec<Value> = cases.iter().map(|case| case.value).collect();
    let module = graph
        .finish("operations", &values)
        .and_then(|module| module.with_replicas(2))
        .expect("the graph");

    let used: BTreeSet<&str> = module.entry.nodes.iter().map(|n| n.op.opcode()).collect();
    let missing: Vec<_> = operations()
        .into_iter()
        .filter(|name| !used.contains(name))
        .collect();
    assert!(missing.is_empty(), "no case runs {missing:?}");

    let arguments = vec![
        Literal::new(&[4], &X),
        Literal::new(&[4], &Y),
        Literal::new(&[4], &I),
        Literal::new(&[4], &J),
        Literal::new(&[2, 3], &M),
    ];
    let found = common::run_replicas(&module, &[arguments.clone(), arguments]);
    let mut failures = Vec::new();
    for (replica, results) in found.iter().enumerate() {
        for (case, found) in cases.iter().zip(results) {
            let (found, expected) = (found.to_f64s(), &case.expected[replica]);
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-13 * b.abs().max(1.0);
            if found.len() != expected.len() || !found.iter().zip(expected).all(close) {
                let value = case.value;
                failures.push(format!(
                    "{value:?} on {replica}: {found:?}, not {expected:?}"
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
