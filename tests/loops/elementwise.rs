//! Programs of elementwise operations.

use super::{apart, arguments, callable, count, run, the_same_bits};
use crate::common::{engine, engine_without_loops};
use simclr::engine::Engine;
use simclr::grad::gradients;
use simclr::hlo::passes::{Code, ELEMENTWISE_LOOP, Selection, WORDS};
use simclr::hlo::{Binary, Conv, DType, Graph, Literal, Module, Op, Shape, Value, WindowDim};

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
    the_same_bits(&module, &Selection::All);
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
