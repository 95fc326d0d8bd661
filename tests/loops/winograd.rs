//! Convolutions of 3×3 kernels by minimal filtering.

use super::{apart, callable, calls, count, run, without};
use crate::common::{engine, engine_with, engine_without_loops};
use simclr::grad::gradients;
use simclr::hlo::passes::{
    CONVOLUTION_LOOP, KERNEL_GRADIENT_LOOP, WINOGRAD_GRADIENT_LOOP, WINOGRAD_LOOP,
};
use simclr::hlo::{Conv, DType, Graph, Module, Op, Shape, WindowDim};

/// A convolution and the gradients of both operands.
fn convolution(
    dtype: DType,
    [images, rows, columns]: [i64; 3],
    [inputs, outputs]: [i64; 2],
    window: [WindowDim; 2],
) -> Module {
    let graph = Graph::new();
    let array = |dims: &[i64]| graph.parameter("array", Shape::new(dtype, dims.to_vec()));
    let taps = [window[0].size, window[1].size];
    let x = array(&[images, rows, columns, inputs]);
    let w = array(&[taps[0], taps[1], inputs, outputs]);
    let y = x.convolve(w, Conv::nhwc(window.to_vec()));
    let loss = (y * 0.1).tanh().sum_all();
    let mut found = vec![y];
    found.extend(gradients(loss, &[x, w]).into_iter().flatten());
    graph.finish("convolution", &found).expect("the graph")
}

fn same() -> [WindowDim; 2] {
    [0, 1].map(|_| WindowDim::new(3, 1, 1, 1))
}

#[test]
fn programs_agree_with_double_precision() {
    if !callable() {
        return;
    }
    let (calling, own) = (engine(1), engine_without_loops(1));
    let side = |low, high| WindowDim::new(3, 1, low, high);
    for (maps, channels, window) in [
        ([4, 16, 16], [64, 64], same()),
        ([64, 4, 4], [256, 130], same()),
        ([6, 13, 9], [70, 48], same()),
        ([3, 12, 15], [64, 80], [side(0, 0), side(2, 1)]),
    ] {
        let module = |dtype| convolution(dtype, maps, channels, window);
        let rewritten = calling.rewritten(&module(DType::F32)).unwrap();
        let found = [WINOGRAD_LOOP, WINOGRAD_GRADIENT_LOOP].map(|name| calls(&rewritten, name));
        assert_eq!(found, [2, 1], "{maps:?}");
        // The kernel is turned round by the loop.
        let turned = |op: &Op| matches!(op, Op::Reverse { .. } | Op::Transpose { .. });
        assert_eq!(count(&rewritten, turned), 0, "{maps:?}");
        let exact = run(&own, &module(DType::F64));
        let found = run(&calling, &module(DType::F32));
        assert_eq!(found.len(), 3);
        for (i, (found, exact)) in found.iter().zip(&exact).enumerate() {
            let error = apart(found, exact);
            assert!(error < 1e-6, "{maps:?}, result {i}: {error:.1e}");
        }
    }
}

/// Where minimal filtering spares too little, or does not apply, convolutions are the sums as they are written down.
#[test]
fn it_is_taken_where_it_pays() {
    if !callable() {
        return;
    }
    let found = |dtype, maps, channels, window, replicas| {
        let module = convolution(dtype, maps, channels, window);
        let module = module.with_replicas(replicas).unwrap();
        let rewritten = engine(replicas).rewritten(&module).unwrap();
        [WINOGRAD_LOOP, WINOGRAD_GRADIENT_LOOP].map(|name| calls(&rewritten, name))
    };
    let plain = |maps, channels| found(DType::F32, maps, channels, same(), 1);
    assert_eq!(plain([64, 8, 8], [64, 64]), [2, 1]);
    assert_eq!(plain([64, 8, 8], [16, 16]), [0, 0], "few channels");
    assert_eq!(plain([64, 8, 8], [3, 256]), [0, 0], "few inputs");
    assert_eq!(
        plain([256, 8, 8], [20, 32]),
        [2, 0],
        "the border is left out"
    );
    assert_eq!(plain([256, 2, 2], [128, 128]), [2, 0], "so it is here");
    assert_eq!(
        plain([256, 1, 1], [512, 512]),
        [0, 0],
        "of a tile one output"
    );
    assert_eq!(plain([8, 4, 4], [512, 512]), [2, 0], "sums take their time");
    assert_eq!(
        plain([2, 4, 4], [512, 512]),
        [0, 0],
        "few tiles for a kernel"
    );
    // As many tiles by two replicas as by one, so that sharing a batch changes nothing.
    assert_eq!(plain([4, 4, 4], [512, 512]), [2, 0]);
    let shared = found(DType::F32, [2, 4, 4], [512, 512], same(), 2);
    assert_eq!(shared, [2, 0]);
    // Without padding there is no border to leave out.
    let valid = [0, 1].map(|_| WindowDim::new(3, 1, 0, 0));
    let unpadded = found(DType::F32, [256, 10, 10], [20, 32], valid, 1);
    assert_eq!(unpadded[1], 1);
    let other = |window: [WindowDim; 2]| found(DType::F32, [64, 8, 8], [64, 64], window, 1);
    assert_eq!(other([0, 1].map(|_| WindowDim::new(3, 2, 1, 1))), [0, 0]);
    assert_eq!(other([0, 1].map(|_| WindowDim::new(1, 1, 0, 0))), [0, 0]);
    let [three, one] = [WindowDim::new(3, 1, 1, 1), WindowDim::new(1, 1, 0, 0)];
    assert_eq!(other([three, one]), [0, 0]);
    assert_eq!(other([one, three]), [0, 0]);
    for dtype in [DType::Bf16, DType::F64] {
        let found = found(dtype, [64, 8, 8], [64, 64], same(), 1);
        assert_eq!(found, [0, 0], "{dtype:?}");
    }
}

/// Kernels that are turned round in other ways than the gradient of an input has them.
#[test]
fn kernels_are_turned_round_as_the_program_says() {
    if !callable() {
        return;
    }
    for reversed in [&[][..], &[0], &[1, 0], &[2, 3], &[0, 1, 2, 3]] {
        let module = |dtype: DType| {
            let graph = Graph::new();
            let array = |dims: &[i64]| graph.parameter("array", Shape::new(dtype, dims.to_vec()));
            let (x, w) = (array(&[8, 10, 10, 64]), array(&[3, 3, 80, 64]));
            let w = match reversed {
                [] => w,
                dims => w.reverse(dims),
            };
            let mut conv = Conv::nhwc(same().to_vec());
            (conv.dims.kernel_input, conv.dims.kernel_output) =
                (conv.dims.kernel_output, conv.dims.kernel_input);
            graph.finish("other", &[x.convolve(w, conv)]).unwrap()
        };
        let (calling, own) = (engine(1), engine_without_loops(1));
        let rewritten = calling.rewritten(&module(DType::F32)).unwrap();
        assert_eq!(calls(&rewritten, WINOGRAD_LOOP), 1);
        let found = run(&calling, &module(DType::F32));
        let exact = run(&own, &module(DType::F64));
        assert!(apart(&found[0], &exact[0]) < 1e-6, "{reversed:?}");
    }
}

/// It is switched off by itself, and so are the other loops.
#[test]
fn each_kind_of_loop_is_switched_off_by_itself() {
    if !callable() {
        return;
    }
    let module = convolution(DType::F32, [8, 8, 8], [64, 64], same());
    for (pass, expected) in [("winograd", [0, 0, 2, 1]), ("own-loops", [2, 1, 0, 0])] {
        let rewritten = engine_with(1, &without(pass)).rewritten(&module).unwrap();
        let names = [
            WINOGRAD_LOOP,
            WINOGRAD_GRADIENT_LOOP,
            CONVOLUTION_LOOP,
            KERNEL_GRADIENT_LOOP,
        ];
        let found = names.map(|name| calls(&rewritten, name));
        assert_eq!(found, expected, "without {pass}");
    }
}
