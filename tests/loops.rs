//! Loops of our own that compiled programs call: what they compute in a program, that it can be kept and shared out, and what happens where
//! they cannot be called.

mod binary;
mod common;

use binary::{simclr, stderr};
use common::{engine, engine_without_loops};
use simclr::engine::{Cache, Engine};
use simclr::grad::gradients;
use simclr::hlo::passes::{
    COLUMN_SUMS_LOOP, CONVOLUTION_LOOP, Code, ELEMENTWISE_LOOP, KERNEL_GRADIENT_LOOP, Selection,
    WORDS,
};
use simclr::hlo::{
    Binary, Conv, DType, DotDims, Graph, Literal, Module, Monoid, Op, Reducer, Shape, Value,
    WindowDim,
};
use simclr::pjrt::Client;
use simclr::random::threefry2x32;
use simclr::train::{Row, profile};
use std::path::Path;

/// Whether this processor can run them. Another plugin may not take them.
fn callable() -> bool {
    #[cfg(target_arch = "x86_64")]
    let able = is_x86_feature_detected!("avx512f")
        || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let able = false;
    let callable = engine(1).compiler()[1].1.contains("own-loops");
    if std::env::var_os("SIMCLR_PLUGIN_CPU").is_none() {
        assert_eq!(callable, able);
    }
    if !callable {
        eprintln!("SKIPPED: this processor or plugin has no calls of this program's loops");
    }
    callable
}

fn draw(seed: u32, i: u32, below: i64) -> i64 {
    i64::from(threefry2x32([seed, i], [0, 9])[0]) * below / (1i64 << 32)
}

/// Convolutions of all sorts, and products either way up, with the gradients of both operands.
fn random_graph(seed: u32, dtype: DType) -> Module {
    let graph = Graph::new();
    let array = |dims: &[i64]| graph.parameter("array", Shape::new(dtype, dims.to_vec()));
    let mut loss = graph.scalar(0f32).convert(dtype);
    let mut values: Vec<[Value; 3]> = Vec::new();
    for i in 0..4 {
        let draw = |j: u32, below: i64| draw(seed, 100 * i + j, below);
        let (stride, taps) = (1 + draw(0, 3), [1 + draw(1, 4), 1 + draw(2, 4)]);
        let size = [taps[0] + draw(3, 9), taps[1] + draw(4, 9)];
        let (channels, outputs) = (1 + draw(5, 40), 1 + draw(6, 80));
        let images = 1 + draw(7, 5);
        let x = array(&[images, size[0], size[1], channels]);
        let w = array(&[taps[0], taps[1], channels, outputs]);
        let side = |d: usize, j: u32| {
            let border = |j: u32| draw(j, taps[d]);
            WindowDim::new(taps[d], stride, border(j), border(j + 1))
        };
        let y = x.convolve(w, Conv::nhwc(vec![side(0, 8), side(1, 10)]));
        values.push([x, w, y * 0.1]);
    }
    for (a, b, over) in [
        ([130, 90], [90, 110], [1, 0]),
        ([130, 90], [110, 90], [1, 1]),
        ([130, 90], [130, 110], [0, 0]),
    ] {
        let (a, b) = (array(&a), array(&b));
        let dims = DotDims {
            lhs_contracting: vec![over[0]],
            rhs_contracting: vec![over[1]],
            ..DotDims::default()
        };
        values.push([a, b, a.dot_general(b, dims) * 0.1]);
    }
    let mut of = Vec::new();
    for [left, right, result] in values {
        of.extend([left, right]);
        loss = loss + result.tanh().sum_all();
    }
    let mut outputs = vec![loss];
    outputs.extend(gradients(loss, &of).into_iter().flatten());
    graph.finish("random", &outputs).expect("the graph")
}

fn arguments(module: &Module) -> Vec<Literal> {
    let value = |i: usize, j: u32| {
        f64::from(threefry2x32([i as u32, 3], [j, 0])[0]) / 2_147_483_648.0 - 1.0
    };
    let parameters = module.parameters();
    let literals = parameters.iter().enumerate().map(|(i, (_, shape))| {
        // Rounded to f32 in f64, too.
        let values: Vec<f64> = (0..shape.elements() as u32)
            .map(|j| f64::from(value(i, j) as f32))
            .collect();
        Literal::from_f64s(shape.dtype, &shape.dims, &values)
    });
    literals.collect()
}

fn run(engine: &Engine, module: &Module) -> Vec<Vec<f64>> {
    let program = engine.compile(module).expect("a program");
    let results = program.run(engine, &[arguments(module)]).expect("results");
    results[0].iter().map(Literal::to_f64s).collect()
}

fn count(module: &Module, of: impl Fn(&Op) -> bool) -> usize {
    module
        .entry
        .nodes
        .iter()
        .filter(|node| of(&node.op))
        .count()
}

#[test]
fn programs_with_calls_agree_with_double_precision() {
    if !callable() {
        return;
    }
    let (calling, own) = (engine(1), engine_without_loops(1));
    for seed in 0..6 {
        let module = random_graph(seed, DType::F32);
        let rewritten = calling.rewritten(&module).unwrap();
        // Forward and both gradients of four convolutions and three products; nothing is left to the plugin.
        let calls = |name: &str| {
            count(
                &rewritten,
                |op| matches!(op, Op::CustomCall { target, .. } if target == name),
            )
        };
        assert_eq!(
            (calls(CONVOLUTION_LOOP), calls(KERNEL_GRADIENT_LOOP)),
            (8 + 6, 4 + 3),
            "{seed}"
        );
        let theirs = |op: &Op| matches!(op, Op::Convolution(_) | Op::Dot(_));
        assert_eq!(count(&rewritten, theirs), 0);
        let exact = run(&own, &random_graph(seed, DType::F64));
        for (i, (found, exact)) in run(&calling, &module).iter().zip(&exact).enumerate() {
            let error = apart(found, exact);
            assert!(error < 1e-5, "graph {seed}, result {i}: {error:.1e}");
        }
    }
}

/// Mean, variance and their gradients of what a convolution and a product compute, as batch normalisation has them.
fn normalised(dtype: DType) -> Module {
    let graph = Graph::new();
    let array = |dims: &[i64]| graph.parameter("array", Shape::new(dtype, dims.to_vec()));
    let (image, kernel) = (array(&[33, 32, 32, 8]), array(&[3, 3, 8, 20]));
    let (a, b) = (array(&[32_800, 9]), array(&[9, 7]));
    let window = vec![WindowDim::new(3, 1, 1, 1); 2];
    let product = a.dot_general(
        b,
        DotDims {
            lhs_contracting: vec![1],
            rhs_contracting: vec![0],
            ..DotDims::default()
        },
    );
    let mut outputs = Vec::new();
    let mut loss = graph.scalar(0f32).convert(dtype);
    for x in [image.convolve(kernel, Conv::nhwc(window)), product] {
        let over: Vec<i64> = (0..x.rank() as i64 - 1).collect();
        let mean = x.mean(&over);
        let centred = x - mean.broadcast_trailing(&x.dims());
        let variance = (centred * centred).mean(&over);
        let y = centred * (variance + 1e-5).rsqrt().broadcast_trailing(&x.dims());
        loss = loss + y.tanh().sum_all() * 0.01;
        outputs.extend([mean, variance]);
    }
    outputs.extend(gradients(loss, &[kernel, b]).into_iter().flatten());
    graph.finish("normalised", &outputs).expect("the graph")
}

#[test]
fn batch_statistics_are_calls_and_agree_with_double_precision() {
    if !callable() {
        return;
    }
    let (calling, own) = (engine(1), engine_without_loops(1));
    let module = normalised(DType::F32);
    let rewritten = calling.rewritten(&module).unwrap();
    let of = |op: &Op| matches!(op, Op::CustomCall { target, .. } if target == COLUMN_SUMS_LOOP);
    // A mean and a variance of each; in the backward pass the sums are of what is computed meanwhile.
    assert_eq!(count(&rewritten, of), 4);
    let exact = run(&own, &normalised(DType::F64));
    assert_eq!(exact.len(), 6);
    for (i, (found, exact)) in run(&calling, &module).iter().zip(&exact).enumerate() {
        let error = apart(found, exact);
        assert!(error < 1e-5, "result {i}: {error:.1e}");
    }
}

/// Sums that are not those of a call's distance from a vector, or not long, are left to the plugin.
#[test]
fn other_sums_are_left_to_the_plugin() {
    if !callable() {
        return;
    }
    type Summed = for<'g> fn([Value<'g>; 4]) -> Value<'g>;
    let calls =
        |rows: i64, dtype: DType, replicas: usize, over: &[i64], init: f64, summed: Summed| {
            let graph = Graph::new();
            let array = |dims: &[i64]| graph.parameter("array", Shape::new(dtype, dims.to_vec()));
            let (a, b) = (array(&[rows, 40]), array(&[40, 12]));
            let x = a.dot_general(
                b,
                DotDims {
                    lhs_contracting: vec![1],
                    rhs_contracting: vec![0],
                    ..DotDims::default()
                },
            );
            let spread = |vector: Value<'_>| vector.broadcast_trailing(&[rows, 12]).id();
            let (m, n) = (spread(array(&[12])), spread(array(&[12])));
            let values = [x, graph.value(m), graph.value(n), array(&[rows, 12])];
            let init = match dtype {
                DType::F32 => graph.scalar(init as f32),
                _ => graph.scalar(init),
            };
            let sum = graph.push(
                Op::Reduce {
                    dims: over.to_vec(),
                    reducer: Reducer::Monoid(Monoid::Add),
                },
                &[summed(values), init],
            );
            let module = graph.finish("sum", &[sum]).expect("a graph");
            let rewritten = engine(replicas).rewritten(&module.with_replicas(replicas).unwrap());
            let of =
                |op: &Op| matches!(op, Op::CustomCall { target, .. } if target == COLUMN_SUMS_LOOP);
            count(&rewritten.expect("the passes"), of)
        };
    let long = |summed: Summed| calls(40_000, DType::F32, 1, &[0], 0.0, summed);
    assert_eq!(long(|[x, ..]| x), 1);
    assert_eq!(long(|[x, m, ..]| x - m), 1);
    assert_eq!(
        long(|[x, m, ..]| (x - m) * (x - m)),
        0,
        "two differences, though equal"
    );
    assert_eq!(long(|[x, m, ..]| square(x - m)), 1);
    assert_eq!(long(|[x, m, ..]| m - x), 0);
    assert_eq!(long(|[x, m, n, _]| (x - m) * (x - n)), 0);
    assert_eq!(long(|[x, m, _, dy]| (x - m) * dy), 0);
    assert_eq!(long(|[x, ..]| x.tanh()), 0);
    assert_eq!(long(|[.., dy]| dy), 0, "no call's result");
    assert_eq!(long(|[x, _, _, dy]| x - dy), 0);
    assert_eq!(calls(40_000, DType::F32, 1, &[0], 1.0, |[x, ..]| x), 0);
    assert_eq!(calls(40_000, DType::F32, 1, &[1], 0.0, |[x, ..]| x), 0);
    assert_eq!(calls(40_000, DType::F64, 1, &[0], 0.0, |[x, ..]| x), 0);
    assert_eq!(calls(4_100, DType::F32, 1, &[0], 0.0, |[x, ..]| x), 0);
    assert_eq!(calls(4_100, DType::F32, 2, &[0], 0.0, |[x, ..]| x), 1);
}

fn square(x: Value) -> Value {
    x * x
}

/// Two convolutions, normalised, with a shortcut around the second, rectified: a residual block, its loss, and gradients of all that is
/// trained.
fn block(dtype: DType) -> Module {
    let graph = Graph::new();
    let array = |dims: &[i64]| graph.parameter("array", Shape::new(dtype, dims.to_vec()));
    let image = array(&[20, 12, 12, 24]);
    let window = || Conv::nhwc(vec![WindowDim::new(3, 1, 1, 1); 2]);
    let mut trained = Vec::new();
    let mut normalised = |x: Value<'_>| {
        let x = graph.value(x.id());
        let kernel = array(&[3, 3, 24, 24]);
        let (gamma, beta) = (array(&[24]), array(&[24]));
        trained.extend([kernel, gamma, beta]);
        let x = x.convolve(kernel, window());
        let mean = x.mean(&[0, 1, 2]);
        let centred = x - mean.broadcast_trailing(&x.dims());
        let variance = (centred * centred).mean(&[0, 1, 2]);
        let inverse = (variance + 1e-5).rsqrt();
        let spread = |vector: Value<'_>| graph.value(vector.id()).broadcast_trailing(&x.dims());
        (centred * spread(inverse) * spread(gamma) + spread(beta)).id()
    };
    let x = graph.value(normalised(image)).max(0.0);
    let y = (graph.value(normalised(x)) + x).max(0.0);
    let z = (y.convolve(array(&[3, 3, 24, 8]), window()) * 0.1).tanh();
    let loss = (z * z).sum_all() * 0.01;
    let mut outputs = vec![loss];
    outputs.extend(gradients(loss, &trained).into_iter().flatten());
    graph.finish("block", &outputs).expect("the graph")
}

/// Whether a program of the module has such an operation.
fn uses(module: &Module, code: Code) -> bool {
    count(module, |op| {
        let Op::CustomCall { config, .. } = op else {
            return false;
        };
        let words = config.split_once("code = array<i64: ");
        let words = words.and_then(|(_, rest)| rest.split_once('>'));
        let words: Vec<&str> = words.map_or(Vec::new(), |(words, _)| words.split(", ").collect());
        let number = (code as usize).to_string();
        elementwise(op) && words.chunks(WORDS).any(|words| words[0] == number)
    }) > 0
}

fn elementwise(op: &Op) -> bool {
    matches!(op, Op::CustomCall { target, .. } if target == ELEMENTWISE_LOOP)
}

#[test]
fn a_normalised_block_is_computed_by_calls_and_agrees_with_double_precision() {
    if !callable() {
        return;
    }
    let (calling, own) = (engine(1), engine_without_loops(1));
    let module = block(DType::F32);
    let rewritten = calling.rewritten(&module).unwrap();
    assert!(count(&rewritten, elementwise) > 10);
    // Of a rectifier nothing is left to the plugin. Sums of a gradient come with those of its products with what is normalised.
    let pairs = |op: &Op| matches!(op, Op::CustomCall { results, .. } if results.len() == 2);
    assert!(count(&rewritten, pairs) >= 2);
    assert!(uses(&rewritten, Code::SumProductNormal));
    let large = |node: &simclr::hlo::Node| match &node.ty {
        simclr::hlo::Type::Array(shape) => shape.elements() >= 20 * 12 * 12 * 24,
        _ => false,
    };
    let theirs = |op: &Op| {
        matches!(
            op,
            Op::Select | Op::Compare(_) | Op::Binary(Binary::Maximum)
        )
    };
    let left = rewritten.entry.nodes.iter();
    assert_eq!(
        left.filter(|node| large(node) && theirs(&node.op)).count(),
        0
    );
    let exact = run(&own, &block(DType::F64));
    assert_eq!(exact.len(), 7);
    for (i, (found, exact)) in run(&calling, &module).iter().zip(&exact).enumerate() {
        let error = apart(found, exact);
        assert!(error < 1e-5, "result {i}: {error:.1e}");
    }
    the_same_bits(&module);
}

/// Momentum and Adam in a loop, of a variable that something else reads, too, and of one that nothing else does.
fn updates(dtype: DType) -> Module {
    let graph = Graph::new();
    let shape = |dims: &[i64]| Shape::new(dtype, dims.to_vec());
    let mut init = vec![graph.scalar(0i32)];
    for i in 0..6 {
        let dims = if i < 3 { [70, 90] } else { [300, 7] };
        init.push(graph.parameter("array", shape(&dims)));
    }
    let state = graph.while_loop(
        &init,
        |_, state| state[0].lt(5.0),
        |_, state| {
            let [w, slot, target] = [state[1], state[2], state[3]];
            let gradient = (w - target) * (w - target).abs().sum_all() * 1e-4;
            let slot = slot * 0.9 + gradient;
            let [v, first, second] = [state[4], state[5], state[6]];
            let own = v * 0.3;
            let (first, second) = (
                first + (own - first) * 0.1,
                second + (own * own - second) * 0.001,
            );
            let moved = v - first * 0.01 / ((second * second).sqrt() + 1e-3);
            vec![
                state[0] + 1.0,
                w - (gradient + slot * 0.9) * 0.1,
                slot,
                target,
                moved,
                first,
                second,
            ]
        },
    );
    graph.finish("updates", &state[1..]).expect("the graph")
}

#[test]
fn updates_are_written_over_what_they_follow() {
    if !callable() {
        return;
    }
    let (calling, own) = (engine(1), engine_without_loops(1));
    let module = updates(DType::F32);
    let rewritten = calling.rewritten(&module).unwrap();
    let aliases = in_loops(&rewritten);
    // Momentum over its slot; of Adam both moments. The variables are read elsewhere, too.
    assert_eq!(
        aliases.iter().map(Vec::len).sum::<usize>(),
        3,
        "{aliases:?}"
    );
    let exact = run(&own, &updates(DType::F64));
    for (i, (found, exact)) in run(&calling, &module).iter().zip(&exact).enumerate() {
        let error = apart(found, exact);
        assert!(error < 1e-5, "result {i}: {error:.1e}");
    }
}

/// State that is read after what follows it was computed, in the same program, must be there still.
#[test]
fn state_that_is_read_later_is_not_written_over() {
    if !callable() {
        return;
    }
    type Next = for<'g> fn(Value<'g>, Value<'g>) -> [Value<'g>; 2];
    let module = |dtype: DType, next: Next| {
        let graph = Graph::new();
        let array = || graph.parameter("array", Shape::new(dtype, [60, 50]));
        let state = graph.while_loop(
            &[graph.scalar(0i32), array(), array()],
            |_, state| state[0].lt(3.0),
            |_, state| {
                let [a, b] = next(state[1], state[2]);
                vec![state[0] + 1.0, a, b]
            },
        );
        graph.finish("state", &state[1..]).expect("the graph")
    };
    let (calling, own) = (engine(1), engine_without_loops(1));
    let plain: Next = |a, b| {
        let next = a * 0.9 + b;
        [next, next * a]
    };
    // The last reading of `a` is part of an operation that is joined with what follows.
    let joined: Next = |a, b| {
        let next = a * 0.9 + b;
        [next, (next - a) * 0.5 * b + next]
    };
    for next in [plain, joined] {
        let rewritten = calling.rewritten(&module(DType::F32, next)).unwrap();
        let [aliases] = &in_loops(&rewritten)[..] else {
            panic!("one call")
        };
        assert!(
            aliases.iter().all(|&(result, _)| result != 0),
            "{aliases:?}"
        );
        let exact = run(&own, &module(DType::F64, next));
        for (found, exact) in run(&calling, &module(DType::F32, next)).iter().zip(&exact) {
            assert!(apart(found, exact) < 1e-5);
        }
    }
}

/// Aliases of each program that the bodies of loops call.
fn in_loops(module: &Module) -> Vec<Vec<(usize, usize)>> {
    let mut found = Vec::new();
    for node in &module.entry.nodes {
        if let Op::While { body, .. } = &node.op {
            found.extend(body.nodes.iter().filter_map(|node| match &node.op {
                Op::CustomCall { aliases, .. } => Some(aliases.clone()),
                _ => None,
            }));
        }
    }
    found
}

/// Each operation that a program knows, of numbers that are equal, zeros, and none: as the plugin computes it.
#[test]
fn every_known_operation_is_the_plugins() {
    if !callable() {
        return;
    }
    type Made = for<'g> fn([Value<'g>; 4]) -> Value<'g>;
    let made: [Made; 23] = [
        |[a, b, ..]| a + b,
        |[a, b, ..]| a - b,
        |[a, b, ..]| a * b,
        |[a, b, ..]| a / b,
        |[a, b, ..]| a.max(b),
        |[a, b, ..]| a.min(b),
        |[a, ..]| -a,
        |[a, ..]| a.sqrt(),
        |[a, ..]| (a * a + 0.1).rsqrt(),
        |[a, b, c, d]| a.gt(b).select(c, d),
        |[a, b, c, d]| a.ge(b).select(c, d),
        |[a, b, c, d]| a.lt(b).select(c, d),
        |[a, b, c, d]| a.le(b).select(c, d),
        |[a, b, c, d]| a.eq(b).select(c, d),
        |[a, b, c, d]| a.ne(b).select(c, d),
        |[a, b, c, _]| c - a * b,
        |[a, b, c, d]| (a - b) * c * d + a,
        |[a, b, c, d]| ((a - b) * c * d + a).max(0.0),
        |[a, b, c, d]| ((a - b) * c * d + a).gt(0.0).select(b, 0.0),
        |[a, b, c, d]| ((a - b) - (c - d) * a * b) * c,
        |[a, b, c, _]| ((a - b) - c) * 0.3,
        |[a, ..]| (a * a).max(a) * a,
        // A value that is needed again after another one was made.
        |[a, b, c, d]| {
            let both = a * b;
            (both + c) * d + (both - d)
        },
    ];
    let graph = Graph::new();
    let arrays = [(); 4].map(|()| graph.parameter("array", Shape::new(DType::F32, [33, 20])));
    let results: Vec<Value> = made.iter().map(|made| made(arrays)).collect();
    let module = graph.finish("operations", &results).unwrap();
    let (calling, own) = (engine(1), engine_without_loops(1));
    let rewritten = calling.rewritten(&module).unwrap();
    let calls = rewritten
        .entry
        .nodes
        .iter()
        .filter(|node| elementwise(&node.op));
    let results: usize = calls
        .map(|node| match &node.op {
            Op::CustomCall { results, .. } => results.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(results, made.len(), "the plugin has nothing to do");
    for code in [
        Code::SubtractProduct,
        Code::WhereNormalisedGreater,
        Code::NormalGradient,
    ] {
        assert!(uses(&rewritten, code), "{code:?}");
    }
    let mut given = arguments(&module);
    for (i, values) in [(1, 0), (3, 2)] {
        let equal = given[values].to_f64s();
        let mut own = given[i].to_f64s();
        for at in (0..own.len()).step_by(3) {
            own[at] = equal[at];
        }
        own[7] = f64::NAN;
        own[8] = -0.0;
        given[i] = Literal::from_f64s(DType::F32, &[33, 20], &own);
    }
    let run = |engine: &Engine| {
        let program = engine.compile(&module).expect("a program");
        let results = program.run(engine, std::slice::from_ref(&given)).unwrap();
        results[0].iter().map(Literal::to_f64s).collect::<Vec<_>>()
    };
    for (i, (found, expected)) in run(&calling).iter().zip(run(&own)).enumerate() {
        for (at, (&found, expected)) in found.iter().zip(expected).enumerate() {
            let near = (found - expected).abs() <= 1e-6 * (1.0 + expected.abs());
            // Of a number and none the plugin takes the number for the larger and the smaller one, ours is none.
            let larger = found.is_nan() && matches!(i, 4 | 5 | 17 | 21);
            assert!(
                near || larger || found == expected || found.is_nan() && expected.is_nan(),
                "operation {i}, {at}: {found} instead of {expected}"
            );
        }
    }
}

/// Gradients of what is added everywhere: sums of a number, and of a vector, over all rows.
#[test]
fn sums_of_what_is_spread_count_all_rows() {
    if !callable() {
        return;
    }
    let module = |dtype: DType| {
        let graph = Graph::new();
        let array = |dims: &[i64]| graph.parameter("array", Shape::new(dtype, dims.to_vec()));
        let (x, b, c, w) = (array(&[1200, 20]), array(&[20]), array(&[20]), array(&[20]));
        let spread = |vector: Value<'_>| graph.value(vector.id()).broadcast_trailing(&[1200, 20]);
        let loss = (x + spread(b)).sum_all() + ((x + spread(c)) * spread(w)).sum_all();
        let found = gradients(loss, &[b, c, w]);
        let found: Vec<Value> = found.into_iter().flatten().collect();
        graph.finish("spread", &found).expect("the graph")
    };
    let (calling, own) = (engine(1), engine_without_loops(1));
    let rewritten = calling.rewritten(&module(DType::F32)).unwrap();
    assert!(count(&rewritten, elementwise) > 0);
    let exact = run(&own, &module(DType::F64));
    assert_eq!(exact.len(), 3);
    for (found, exact) in run(&calling, &module(DType::F32)).iter().zip(&exact) {
        assert!(apart(found, exact) < 1e-5, "{found:?} {exact:?}");
    }
}

/// What a program cannot compute, or would have to have made into an array first, is left to the plugin.
#[test]
fn other_elementwise_operations_are_left_to_the_plugin() {
    if !callable() {
        return;
    }
    type Made = for<'g> fn(Value<'g>, Value<'g>) -> Value<'g>;
    let calls = |dtype: DType, dims: &[i64], made: Made| {
        let graph = Graph::new();
        let array = || graph.parameter("array", Shape::new(dtype, dims.to_vec()));
        let module = graph.finish("made", &[made(array(), array())]).unwrap();
        count(
            &engine(1).rewritten(&module).expect("the passes"),
            elementwise,
        )
    };
    let large = |made: Made| calls(DType::F32, &[200, 100], made);
    assert_eq!(large(|x, y| x * 2.0 + y), 1);
    assert_eq!(large(|x, y| x.gt(y).select(y, x)), 1);
    assert_eq!(large(|x, _| x.exp()), 0);
    assert_eq!(large(|x, y| x.exp() + y), 0, "exp is fused with the sum");
    assert_eq!(large(|x, y| (x + y).exp()), 0, "nobody keeps the sum");
    assert_eq!(large(|x, y| x.gt(y).and(y.gt(0.0)).select(x, y)), 0);
    assert_eq!(large(|x, y| (x + y).sum(&[0])), 0, "not a gradient");
    assert_eq!(calls(DType::F32, &[20, 10], |x, y| x.exp() + y), 1, "small");
    assert_eq!(calls(DType::F64, &[200, 100], |x, y| x + y), 0);
    assert_eq!(calls(DType::F32, &[], |x, y| x + y), 0);
}

/// The distance of two lists of numbers, by the length of the second.
fn apart(found: &[f64], exact: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied())
}

/// Three layers of large maps, with stride and 1×1, in a loop; loss, and gradients of all kernels. The loss is second in the loop's state,
/// where a profile looks for what the forward pass gives.
fn step() -> Module {
    let graph = Graph::new();
    let image = graph.parameter("image", Shape::new(DType::F32, [32, 32, 32, 16]));
    let kernels = [[3, 3, 16, 32], [3, 3, 32, 32], [1, 1, 32, 16]]
        .map(|dims| graph.parameter("kernel", Shape::new(DType::F32, dims)));
    let mut init = vec![graph.scalar(0i32), graph.scalar(0f32), image];
    init.extend(kernels);
    let result = graph.while_loop(
        &init,
        |_, state| state[0].lt(1.0),
        |_, state| {
            let kernels = &state[3..];
            let window = |size, stride| vec![WindowDim::new(size, stride, size / 2, size / 2); 2];
            let x = state[2]
                .convolve(kernels[0], Conv::nhwc(window(3, 1)))
                .tanh();
            let y = (x.convolve(kernels[1], Conv::nhwc(window(3, 1))) * 0.1).tanh();
            let z = y.convolve(kernels[2], Conv::nhwc(window(1, 2)));
            let loss = (z * z).sum_all();
            let mut next = vec![state[0] + 1.0, loss, state[2]];
            next.extend(gradients(loss, kernels).into_iter().flatten());
            next
        },
    );
    let mut wanted = vec![result[1]];
    wanted.extend(&result[3..]);
    graph.finish("step", &wanted).expect("the graph")
}

/// As resuming needs: the same bits every time, on every replica, by whatever threads a device has, by a program that was kept.
#[test]
fn calls_give_the_same_bits_every_time() {
    if !callable() {
        return;
    }
    for module in [step(), normalised(DType::F32)] {
        the_same_bits(&module);
    }
}

fn the_same_bits(module: &Module) {
    let folder = tempfile::tempdir().unwrap();
    let first = run(&engine(1), module);
    assert!(first.iter().flatten().all(|value| value.is_finite()));
    let client = Client::cpu(common::plugin(), 2).unwrap();
    let cache = Cache::new(folder.path().into(), &client, common::plugin().path()).unwrap();
    let two = Engine::new(client, &Selection::All).with_cache(Some(cache.keeping_everything()));
    let module = module.clone().with_replicas(2).unwrap();
    for kept in [false, true, true] {
        let program = two.compile(&module).unwrap();
        assert_eq!(program.from_cache(), kept);
        let own = arguments(&module);
        for replica in program.run(&two, &[own.clone(), own]).unwrap() {
            let found: Vec<Vec<f64>> = replica.iter().map(Literal::to_f64s).collect();
            assert!(found == first);
        }
    }
}

/// A profile counts calls as what they are calls of.
#[test]
fn a_profile_counts_calls_as_what_they_compute() {
    if !callable() {
        return;
    }
    let found = profile(&engine(1), &step()).expect("a profile");
    let of = |row: &Row| (row.name.clone(), row.count, row.flops);
    let mut rows: Vec<_> = found.families.iter().map(of).collect();
    rows.retain(|(name, ..)| name.starts_with("convolutions"));
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    // 2 · images · pixels · taps · inputs · outputs; the last layer is 1×1, of every fourth pixel.
    let work = |pixels: f64, inputs: f64, outputs: f64| 2.0 * 32.0 * pixels * inputs * outputs;
    let (first, second) = (
        work(1024.0 * 9.0, 16.0, 32.0),
        work(1024.0 * 9.0, 32.0, 32.0),
    );
    let third = work(256.0, 32.0, 16.0);
    let expected = [
        ("convolutions, forward", 3, first + second + third),
        // Not of the image.
        ("convolutions, gradient of the input", 2, second + third),
        (
            "convolutions, gradient of the kernel",
            3,
            first + second + third,
        ),
    ];
    assert_eq!(
        rows,
        expected.map(|(name, count, flops)| (name.to_string(), count, flops))
    );
}

/// A call whose arrays do not fit is refused when it is made, in words, and the process lives.
#[test]
fn arrays_that_do_not_fit_are_refused() {
    if !callable() {
        return;
    }
    let refused = |target: &str, config: &str, right: &[i64]| {
        let graph = Graph::new();
        let left = graph.parameter("left", Shape::new(DType::F32, [2, 4, 4, 3]));
        let right = graph.parameter("right", Shape::new(DType::F32, right.to_vec()));
        let call = Op::CustomCall {
            target: target.into(),
            config: config.into(),
            results: vec![Shape::new(DType::F32, [2, 4, 4, 5])],
            aliases: Vec::new(),
        };
        let module = graph
            .finish("call", &[graph.push(call, &[left, right])])
            .unwrap();
        let engine = engine(1);
        let program = engine.compile(&module).expect("a program");
        let error = program.run(&engine, &[arguments(&module)]).err();
        error.expect("an error").to_string()
    };
    let numbers =
        "{stride = 1 : i64, dilation = 1 : i64, low_rows = 0 : i64, low_columns = 0 : i64}";
    let words = refused(CONVOLUTION_LOOP, numbers, &[1, 1, 7, 5]);
    assert!(
        words.contains(
            "simclr.convolution.1: images [2, 4, 4, 3] and kernel [1, 1, 7, 5] do not make"
        ),
        "{words}"
    );
    let words = refused(CONVOLUTION_LOOP, "{stride = 1 : i64}", &[1, 1, 3, 5]);
    assert!(
        words.contains("there is no attribute `dilation`"),
        "{words}"
    );
    let words = refused(KERNEL_GRADIENT_LOOP, numbers, &[3, 4, 4, 5]);
    assert!(
        words.contains("simclr.kernel_gradient.1: images"),
        "{words}"
    );
    // The result has 160 numbers, or the array's last dimension.
    let words = refused(COLUMN_SUMS_LOOP, "{square = 0 : i64}", &[5]);
    assert!(
        words.contains("simclr.column_sums.1: an array of [2, 4, 4, 3] and [5]"),
        "{words}"
    );
    let words = refused(KERNEL_GRADIENT_LOOP, numbers, &[80]);
    assert!(
        words.contains("outputs have dimensions [80], expected four"),
        "{words}"
    );
}

/// What the loops do not know stays with the plugin; a call would compute something else.
#[test]
fn other_convolutions_are_left_to_the_plugin() {
    if !callable() {
        return;
    }
    let plain = || Conv::nhwc(vec![WindowDim::new(3, 1, 1, 1); 2]);
    let called = |dtype: DType, conv: Conv, groups: i64, images: i64| {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(dtype, [images, 8, 8, 4]));
        let w = graph.parameter("w", Shape::new(dtype, [3, 3, 4 / groups, 8]));
        let module = graph
            .finish("one", &[x.convolve(w, conv)])
            .expect("a graph");
        let rewritten = engine(1).rewritten(&module).expect("the passes");
        count(&rewritten, |op| matches!(op, Op::CustomCall { .. })) == 1
    };
    assert!(called(DType::F32, plain(), 1, 2));
    assert!(!called(DType::Bf16, plain(), 1, 2));
    assert!(!called(DType::F64, plain(), 1, 2));
    assert!(!called(DType::F32, plain(), 1, 0), "nothing in it");
    let changed = |change: fn(&mut Conv)| {
        let mut conv = plain();
        change(&mut conv);
        conv
    };
    assert!(!called(DType::F32, changed(|c| c.feature_groups = 2), 2, 2));
    assert!(!called(DType::F32, changed(|c| c.batch_groups = 2), 1, 2));
    for change in [
        |c: &mut Conv| c.window[0].low = -1,
        |c: &mut Conv| c.window[1].stride = 2,
        |c: &mut Conv| c.window.iter_mut().for_each(|w| w.window_dilation = 2),
        |c: &mut Conv| c.window[0].base_dilation = 2,
        |c: &mut Conv| {
            c.window
                .iter_mut()
                .for_each(|w| (w.base_dilation, w.stride) = (2, 2));
        },
    ] {
        let conv = changed(change);
        assert!(!called(DType::F32, conv.clone(), 1, 2), "{conv:?}");
    }
    for change in [
        |c: &mut Conv| c.window.iter_mut().for_each(|w| w.stride = 2),
        |c: &mut Conv| c.window.iter_mut().for_each(|w| w.base_dilation = 2),
        |c: &mut Conv| c.window[0].high = -1,
        |c: &mut Conv| c.window[1].low = 4,
    ] {
        let conv = changed(change);
        assert!(called(DType::F32, conv.clone(), 1, 2), "{conv:?}");
    }
}

/// The pinned plugin as one without extensions, made here; none without a C compiler.
fn without_extensions(folder: &Path) -> Option<std::path::PathBuf> {
    let file = folder.join("without_extensions.so");
    let real = common::plugin().path().canonicalize().unwrap();
    let define = format!("-DREAL={:?}", real.display().to_string());
    common::shared_library("without_extensions.c", &[define], &file).then_some(file)
}

#[test]
fn a_plugin_without_the_interface_is_told_in_one_line_and_the_step_does_without() {
    let folder = tempfile::tempdir().unwrap();
    let Some(plugin) = without_extensions(folder.path()) else {
        return;
    };
    let bench = |more: &[&str]| {
        let output = simclr()
            .args(["bench", "--step-only", "--json", "--steps", "1"])
            .args(["--config", "bench/steps/narrow.yaml", "train_batch_size=64"])
            .args(more)
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{}", stderr(&output));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let losses = found["losses"].as_array().unwrap().iter();
        let losses: Vec<f64> = losses.map(|loss| loss.as_f64().unwrap()).collect();
        let words = stderr(&output);
        let told = words
            .lines()
            .filter(|line| line.contains("are the plugin's own"))
            .count();
        (losses, told, words)
    };
    let (without, told, words) = bench(&[&format!("runtime.plugin={}", plugin.display())]);
    assert_eq!(told, 1, "{words}");
    assert!(words.contains(plugin.to_str().unwrap()), "{words}");
    let (off, told, words) = bench(&["runtime.passes=[-own-loops,-own-elementwise]"]);
    assert_eq!((told, &off), (0, &without), "{words}");
    let (with, ..) = bench(&[]);
    let apart = |(a, b): (&f64, &f64)| (a - b).abs() / b;
    assert!(
        with.iter().zip(&off).map(apart).all(|apart| apart < 1e-4),
        "{with:?} {off:?}"
    );
    if callable() {
        assert_ne!(with, off, "sums in the same order");
    }
}
