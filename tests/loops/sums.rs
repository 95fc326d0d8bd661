//! Sums of batch statistics, long and short ones.

use super::{apart, arguments, callable, calls, run};
use crate::common::{engine, engine_without_loops};
use simclr::grad::gradients;
use simclr::hlo::passes::COLUMN_SUMS_LOOP;
use simclr::hlo::{
    Conv, DType, DotDims, Graph, Literal, Module, Monoid, Op, Reducer, Shape, Value, WindowDim,
};

/// Mean, variance and their gradients of what a convolution and a product compute, as batch normalisation has them.
pub fn normalised(dtype: DType) -> Module {
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
    // A mean and a variance of each; in the backward pass the sums are of what is computed meanwhile.
    assert_eq!(calls(&rewritten, COLUMN_SUMS_LOOP), 4);
    let exact = run(&own, &normalised(DType::F64));
    assert_eq!(exact.len(), 6);
    for (i, (found, exact)) in run(&calling, &module).iter().zip(&exact).enumerate() {
        let error = apart(found, exact);
        assert!(error < 1e-5, "result {i}: {error:.1e}");
    }
}

/// Sums that are not those of a call's distance from a vector, or short ones of no images, are left to the plugin.
#[test]
fn other_sums_are_left_to_the_plugin() {
    if !callable() {
        return;
    }
    type Summed = for<'g> fn([Value<'g>; 4]) -> Value<'g>;
    let found =
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
            calls(&rewritten.expect("the passes"), COLUMN_SUMS_LOOP)
        };
    let long = |summed: Summed| found(40_000, DType::F32, 1, &[0], 0.0, summed);
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
    assert_eq!(found(40_000, DType::F32, 1, &[0], 1.0, |[x, ..]| x), 0);
    assert_eq!(found(40_000, DType::F32, 1, &[1], 0.0, |[x, ..]| x), 0);
    assert_eq!(found(40_000, DType::F64, 1, &[0], 0.0, |[x, ..]| x), 0);
    assert_eq!(found(4_100, DType::F32, 1, &[0], 0.0, |[x, ..]| x), 0);
    assert_eq!(found(4_100, DType::F32, 2, &[0], 0.0, |[x, ..]| x), 1);
}

/// Images of these dimensions from a convolution, their sums by columns, and those of their squared distances from given numbers.
fn short(dims: [i64; 4]) -> Module {
    let [images, height, width, channels] = dims;
    let graph = Graph::new();
    let array = |dims: &[i64]| graph.parameter("array", Shape::new(DType::F32, dims.to_vec()));
    let (image, kernel) = (
        array(&[images, height, width, 24]),
        array(&[1, 1, 24, channels]),
    );
    let x = image.convolve(kernel, Conv::nhwc(vec![WindowDim::new(1, 1, 0, 0); 2]));
    let [sums, squares] = statistics(x, array(&[channels]));
    graph
        .finish("short", &[x, sums, squares])
        .expect("the graph")
}

fn statistics<'g>(x: Value<'g>, middle: Value<'g>) -> [Value<'g>; 2] {
    let over = [0, 1, 2];
    let apart = x - middle.broadcast_trailing(&x.dims());
    [x.sum(&over), square(apart).sum(&over)]
}

/// Whether short sums are calls: on processors with which the plugin's order was found.
fn ordered() -> bool {
    let found = || {
        let rewritten = engine(1).rewritten(&short([16, 14, 14, 64])).unwrap();
        calls(&rewritten, COLUMN_SUMS_LOOP) > 0
    };
    let known = callable() && std::env::var_os("SIMCLR_PLUGIN_CPU").is_none() && found();
    if !known {
        eprintln!(
            "SKIPPED: the order of the plugin's sums is not known of this processor or plugin"
        );
    }
    known
}

/// Short sums of batch statistics, which are calls too, are the plugin's to the bit: other programs' numbers are held against them.
#[test]
fn short_sums_are_the_plugins_to_the_bit() {
    if !ordered() {
        return;
    }
    let (calling, own) = (engine(1), engine_without_loops(1));
    let other_widths = (3..16).filter(|width: &i64| width.count_ones() > 1);
    let of_width = |width: i64| {
        let sides = |images, channels| ([images, width, width, channels], 2);
        [
            sides(8, 40),
            sides(5, 33),
            sides(16, 256),
            sides(32, 16),
            sides(3, 600),
        ]
    };
    let by_width = other_widths.flat_map(of_width);
    for (dims, calls_of_ours) in by_width.chain([
        ([16, 14, 14, 256], 2),
        ([16, 14, 14, 8], 2),
        ([16, 7, 7, 65], 2),
        ([16, 7, 7, 1], 2),
        ([32, 6, 6, 40], 2),
        // The squares are the plugin's.
        ([16, 8, 8, 64], 1),
        ([8, 18, 3, 40], 1),
        ([16, 4, 4, 512], 1),
        ([16, 20, 20, 64], 1),
        // In parts.
        ([64, 8, 8, 48], 2),
        ([96, 4, 4, 512], 2),
        ([1024, 1, 3, 20], 2),
    ]) {
        let module = short(dims);
        let rewritten = calling.rewritten(&module).unwrap();
        assert_eq!(
            calls(&rewritten, COLUMN_SUMS_LOOP),
            calls_of_ours,
            "{dims:?}"
        );
        let found = run(&calling, &module);
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(DType::F32, dims));
        let middle = graph.parameter("middle", Shape::new(DType::F32, [dims[3]]));
        let plain = graph.finish("plain", &statistics(x, middle));
        let program = own.compile(&plain.expect("the graph")).expect("a program");
        let values = vec![
            Literal::from_f64s(DType::F32, &dims, &found[0]),
            arguments(&module).remove(2),
        ];
        let plain = program.run(&own, &[values]).expect("results");
        for (i, plain) in plain[0].iter().take(calls_of_ours).enumerate() {
            assert!(plain.to_f64s() == found[1 + i], "{dims:?}, result {i}");
        }
    }
}

/// Those that the plugin adds up in another order stay with it.
#[test]
fn short_sums_of_another_order_are_left_to_the_plugin() {
    if !ordered() {
        return;
    }
    for dims in [
        // Several pixels at once.
        [16, 2, 2, 512],
        [64, 2, 2, 512],
        [16, 1, 1, 2048],
        // Unequal parts, too many, parts of maps.
        [33, 6, 6, 64],
        [1056, 1, 3, 20],
        [2, 36, 36, 64],
    ] {
        let rewritten = engine(1).rewritten(&short(dims)).unwrap();
        assert_eq!(calls(&rewritten, COLUMN_SUMS_LOOP), 0, "{dims:?}");
    }
}

fn square(x: Value) -> Value {
    x * x
}
