//! Convolutions, their gradients, and products.

use super::{apart, callable, calls, count, run};
use crate::common::{engine, engine_without_loops};
use simclr::grad::gradients;
use simclr::hlo::passes::{
    CONVOLUTION_LOOP, KERNEL_GRADIENT_LOOP, WINOGRAD_GRADIENT_LOOP, WINOGRAD_LOOP,
};
use simclr::hlo::{Conv, DType, DotDims, Graph, Module, Op, Shape, Value, WindowDim};
use simclr::random::threefry2x32;

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
        let calls = |names: [&str; 2]| names.map(|name| calls(&rewritten, name)).iter().sum();
        let found: [usize; 2] = [
            calls([CONVOLUTION_LOOP, WINOGRAD_LOOP]),
            calls([KERNEL_GRADIENT_LOOP, WINOGRAD_GRADIENT_LOOP]),
        ];
        assert_eq!(found, [8 + 6, 4 + 3], "{seed}");
        let theirs = |op: &Op| matches!(op, Op::Convolution(_) | Op::Dot(_));
        assert_eq!(count(&rewritten, theirs), 0);
        let exact = run(&own, &random_graph(seed, DType::F64));
        for (i, (found, exact)) in run(&calling, &module).iter().zip(&exact).enumerate() {
            let error = apart(found, exact);
            assert!(error < 1e-5, "graph {seed}, result {i}: {error:.1e}");
        }
    }
}

/// What the loops do not know stays with the plugin; a call would compute something else.
#[test]
fn other_convolutions_are_left_to_the_plugin() {
    if !callable() {
        return;
    }
    let plain = || Conv::nhwc(vec![WindowDim::new(3, 1, 1, 1); 2]);
    let rewritten = |dtype: DType, conv: Conv, groups: i64, images: i64, channels: i64| {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(dtype, [images, 8, 8, channels]));
        let w = graph.parameter("w", Shape::new(dtype, [3, 3, channels / groups, 64]));
        let module = graph
            .finish("one", &[x.convolve(w, conv)])
            .expect("a graph");
        engine(1).rewritten(&module).expect("the passes")
    };
    // Alike with few channels and with as many as Winograd's form is for.
    for (channels, expected) in [(4, 0), (64, 1)] {
        let module = rewritten(DType::F32, plain(), 1, 2, channels);
        assert_eq!(calls(&module, WINOGRAD_LOOP), expected);
    }
    let called = |dtype: DType, conv: Conv, groups: i64, images: i64| {
        let found = [4, 64].map(|channels| {
            let module = rewritten(dtype, conv.clone(), groups, images, channels);
            count(&module, |op| matches!(op, Op::CustomCall { .. })) == 1
        });
        assert_eq!(found[0], found[1], "{conv:?}");
        found[0]
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

/// Of an image without rows, padded, outputs are zeros; a loop takes no array of nothing.
#[test]
fn an_image_of_nothing_is_left_to_the_plugin() {
    if !callable() {
        return;
    }
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [64, 0, 8, 64]));
    let w = graph.parameter("w", Shape::new(DType::F32, [3, 3, 64, 64]));
    let window = vec![WindowDim::new(3, 1, 2, 2), WindowDim::new(3, 1, 1, 1)];
    let y = x.convolve(w, Conv::nhwc(window));
    let module = graph.finish("nothing", &[y]).unwrap();
    let values = run(&engine(1), &module).remove(0);
    assert_eq!(values.len(), 64 * 2 * 8 * 64);
    assert!(values.iter().all(|&value| value == 0.0));
}
