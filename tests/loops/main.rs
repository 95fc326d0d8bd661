//! Loops of our own that compiled programs call: what they compute in a program, that it can be kept and shared out, and what happens where
//! they cannot be called.

#[path = "../binary/mod.rs"]
mod binary;
#[path = "../common/mod.rs"]
mod common;
mod convolutions;
mod elementwise;
mod sums;
mod winograd;

use binary::{simclr, stderr};
use common::{engine, engine_with};
use simclr::engine::{Cache, Engine};
use simclr::grad::gradients;
use simclr::hlo::passes::{
    COLUMN_SUMS_LOOP, CONVOLUTION_LOOP, KERNEL_GRADIENT_LOOP, Selection, WINOGRAD_GRADIENT_LOOP,
    WINOGRAD_LOOP, WITHOUT_LOOPS,
};
use simclr::hlo::{Conv, DType, Graph, Literal, Module, Op, Shape, WindowDim};
use simclr::pjrt::Client;
use simclr::random::threefry2x32;
use simclr::train::{Row, profile};
use std::path::{Path, PathBuf};

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

/// Calls of a loop.
fn calls(module: &Module, of: &str) -> usize {
    count(
        module,
        |op| matches!(op, Op::CustomCall { target, .. } if target == of),
    )
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
    let image = graph.parameter("image", Shape::new(DType::F32, [32, 32, 32, 24]));
    let kernels = [[3, 3, 24, 32], [3, 3, 32, 48], [1, 1, 48, 16]]
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
    let rewritten = engine(1).rewritten(&step()).unwrap();
    for name in [WINOGRAD_LOOP, WINOGRAD_GRADIENT_LOOP] {
        assert!(rewritten.to_string().contains(name));
    }
    for module in [step(), sums::normalised(DType::F32)] {
        the_same_bits(&module, &Selection::All);
    }
    the_same_bits(&step(), &without("winograd"));
}

fn without(pass: &str) -> Selection {
    Selection::Without(vec![pass.into()])
}

fn the_same_bits(module: &Module, passes: &Selection) {
    let folder = tempfile::tempdir().unwrap();
    let first = run(&engine_with(1, passes), module);
    assert!(first.iter().flatten().all(|value| value.is_finite()));
    let client = Client::cpu(common::plugin(), 2).unwrap();
    let cache = Cache::new(folder.path().into(), &client, common::plugin().path()).unwrap();
    let two = Engine::new(client, passes).with_cache(Some(cache.keeping_everything()));
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
    for passes in [Selection::All, without("winograd")] {
        counts(&engine_with(1, &passes));
    }
}

fn counts(engine: &Engine) {
    let found = profile(engine, &step()).expect("a profile");
    let of = |row: &Row| (row.name.clone(), row.count, row.flops);
    let mut rows: Vec<_> = found.families.iter().map(of).collect();
    rows.retain(|(name, ..)| name.starts_with("convolutions"));
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    // 2 · images · pixels · taps · inputs · outputs; the last layer is 1×1, of every fourth pixel.
    let work = |pixels: f64, inputs: f64, outputs: f64| 2.0 * 32.0 * pixels * inputs * outputs;
    let (first, second) = (
        work(1024.0 * 9.0, 24.0, 32.0),
        work(1024.0 * 9.0, 32.0, 48.0),
    );
    let third = work(256.0, 48.0, 16.0);
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
    // Called with images of [2, 4, 4, 3].
    let refused = |target: &str, config: &str, right: &[i64], result: &[i64]| {
        let graph = Graph::new();
        let left = graph.parameter("left", Shape::new(DType::F32, [2, 4, 4, 3]));
        let right = graph.parameter("right", Shape::new(DType::F32, right.to_vec()));
        let call = Op::CustomCall {
            target: target.into(),
            config: config.into(),
            results: vec![Shape::new(DType::F32, result.to_vec())],
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
    let direct =
        "{stride = 1 : i64, dilation = 1 : i64, low_rows = 0 : i64, low_columns = 0 : i64}";
    let winograd = "{turned = 0 : i64, low_rows = 1 : i64, low_columns = 1 : i64}";
    let turned = &winograd.replace("turned = 0", "turned = 1");
    let outputs = &[2, 4, 4, 5][..];
    // Each of a kind is wrong in one thing: inputs, images, the side of a kernel, its inputs.
    for (target, config, right, result, expected) in [
        (
            CONVOLUTION_LOOP,
            direct,
            &[1, 1, 7, 5][..],
            outputs,
            "simclr.convolution.1: images [2, 4, 4, 3] and kernel [1, 1, 7, 5] do not make",
        ),
        (
            CONVOLUTION_LOOP,
            "{stride = 1 : i64}",
            &[1, 1, 3, 5],
            outputs,
            "there is no attribute `dilation`",
        ),
        (
            KERNEL_GRADIENT_LOOP,
            direct,
            &[3, 4, 4, 5],
            &[1, 1, 3, 5],
            "simclr.kernel_gradient.1: images",
        ),
        (
            KERNEL_GRADIENT_LOOP,
            direct,
            &[80],
            outputs,
            "outputs have dimensions [80], expected four",
        ),
        (
            WINOGRAD_LOOP,
            winograd,
            &[3, 3, 7, 5],
            outputs,
            "simclr.winograd.1: images [2, 4, 4, 3] and kernel [3, 3, 7, 5] do not make",
        ),
        (
            WINOGRAD_LOOP,
            winograd,
            &[1, 3, 3, 5],
            outputs,
            "and kernel [1, 3, 3, 5] do not make",
        ),
        (
            WINOGRAD_LOOP,
            winograd,
            &[3, 3, 3, 5],
            &[3, 4, 4, 5],
            "do not make [3, 4, 4, 5]",
        ),
        (
            WINOGRAD_LOOP,
            turned,
            &[3, 3, 3, 5],
            outputs,
            "and turned kernel [3, 3, 3, 5] do not make",
        ),
        (
            WINOGRAD_LOOP,
            &winograd.replace("turned = 0", "turned = 2"),
            &[3, 3, 3, 5],
            outputs,
            "`turned` is 2, expected 0 or 1",
        ),
        (
            WINOGRAD_GRADIENT_LOOP,
            winograd,
            &[3, 4, 4, 5],
            &[3, 3, 3, 5],
            "simclr.winograd_gradient.1: images [2, 4, 4, 3] and outputs [3, 4, 4, 5] do not make",
        ),
        (
            WINOGRAD_GRADIENT_LOOP,
            winograd,
            outputs,
            &[3, 1, 3, 5],
            "do not make a kernel [3, 1, 3, 5]",
        ),
        // The result has 160 numbers, or the array's last dimension.
        (
            COLUMN_SUMS_LOOP,
            "{square = 0 : i64, in_order = 0 : i64, rounded = 0 : i64}",
            &[5],
            outputs,
            "simclr.column_sums.1: an array of [2, 4, 4, 3] and [5]",
        ),
        (
            COLUMN_SUMS_LOOP,
            "{square = 0 : i64, in_order = 5 : i64, rounded = 0 : i64}",
            &[3],
            &[3],
            "32 rows are not 5 equal parts",
        ),
    ] {
        let words = refused(target, config, right, result);
        assert!(words.contains(expected), "{words}");
    }
}

/// The pinned plugin as one that is otherwise, made here; none without a C compiler.
fn pretended(folder: &Path, defines: &[&str]) -> Option<PathBuf> {
    let file = folder.join("calls.so");
    let real = common::plugin().path().canonicalize().unwrap();
    let mut defines: Vec<String> = defines.iter().map(|&define| define.into()).collect();
    defines.push(format!("-DREAL={:?}", real.display().to_string()));
    common::shared_library("calls.c", &defines, &file).then_some(file)
}

/// The losses of two small steps, how many lines say that loops are the plugin's own, and all that was said.
fn bench(more: &[&str]) -> (Vec<f64>, usize, String) {
    let output = simclr()
        .args(["bench", "--step-only", "--json", "--steps", "1"])
        .args(["--config", "bench/steps/narrow.yaml", "train_batch_size=64"])
        .args(more)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let losses = found["losses"].as_array().unwrap().iter();
    let losses = losses.map(|loss| loss.as_f64().unwrap()).collect();
    let words = stderr(&output);
    let told = words
        .lines()
        .filter(|line| line.contains("are the plugin's own"))
        .count();
    (losses, told, words)
}

/// A plugin that has no interface for calls, refuses them, or fails the test of them, is told in one line, and the step is the one without
/// loops; one that is only elsewhere passes the test.
#[test]
fn what_cannot_call_loops_is_told_in_one_line_and_the_step_does_without() {
    let (off, told, words) = bench(&[&format!("runtime.passes={WITHOUT_LOOPS}")]);
    assert_eq!(told, 0, "{words}");
    let (with, ..) = bench(&[]);
    let apart = |(a, b): (&f64, &f64)| (a - b).abs() / b;
    assert!(
        with.iter().zip(&off).map(apart).all(|apart| apart < 1e-4),
        "{with:?} {off:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere.so");
    std::os::unix::fs::symlink(common::plugin().path().canonicalize().unwrap(), &elsewhere)
        .unwrap();
    let (losses, told, words) = bench(&[&format!("runtime.plugin={}", elsewhere.display())]);
    assert_eq!(losses, with, "{words}");
    assert_eq!(told, usize::from(!callable()), "{words}");
    if callable() {
        assert_ne!(with, off, "sums in the same order");
    }
    for (defines, reason) in [
        (&["-DABSENT"][..], "has no interface for calls"),
        (&["-DREFUSES"], "PJRT_FFI_Register_Handler"),
        (&[], "a test of calls of this program's loops by"),
    ] {
        let Some(plugin) = pretended(folder.path(), defines) else {
            return;
        };
        let (losses, told, words) = bench(&[&format!("runtime.plugin={}", plugin.display())]);
        assert_eq!((told, &losses), (1, &off), "{words}");
        if callable() {
            assert!(words.contains(reason), "{reason}: {words}");
        }
    }
}
