//! Calls of the CPU plugin's oneDNN: what they compute, and that a plugin without them, or one that fails the test, does without.

mod binary;
mod common;

use binary::{simclr, stderr};
use common::pinned;
use sha2::{Digest, Sha256};
use simclr::engine::{Cache, Engine, NotPassed, Test, self_test};
use simclr::grad::gradients;
use simclr::hlo::passes::{CONVOLUTION, PRODUCT, Selection};
use simclr::hlo::{Conv, DType, Graph, Literal, Module, Shape, WindowDim};
use simclr::pjrt::Client;
use simclr::train::{Row, profile};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// The line by which a run says that it does without.
const LINE: &str = "convolutions and products do not call the plugin's oneDNN";

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

fn arguments(module: &Module) -> Vec<Literal> {
    module
        .parameters()
        .iter()
        .map(|(_, shape)| {
            let value = |i: usize| ((i * 7919) % 1009) as f64 / 2018.0 - 0.25;
            let values: Vec<f64> = (0..shape.elements()).map(value).collect();
            Literal::from_f64s(shape.dtype, &shape.dims, &values)
        })
        .collect()
}

fn run(engine: &Engine, module: &Module) -> Vec<Vec<f64>> {
    let program = engine.compile_step(module).expect("a program");
    let results = program.run(engine, &[arguments(module)]).expect("results");
    results[0].iter().map(Literal::to_f64s).collect()
}

fn not_passed(lasting: bool) -> NotPassed {
    let reason = "broken".into();
    NotPassed { reason, lasting }
}

/// A test that somebody ended is made again at the next start; one that found the calls broken is not.
#[test]
fn only_a_verdict_is_kept() {
    if !pinned() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = || Some(folder.path().to_path_buf());
    let client = Client::cpu(common::plugin(), 1).unwrap();
    let plain = Engine::new(client, &Selection::All);
    let module = step();
    let calls = |test: Test| {
        let engine = plain.clone().with_internal_calls(test, place());
        engine.rewritten(&module).unwrap().has_custom_calls()
    };
    assert!(!calls(|_| Err(not_passed(false))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(!calls(|_| Err(not_passed(true))));
    assert!(!calls(|_| Ok(())));
    for file in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    assert!(calls(|_| Ok(())));
    assert!(calls(|_| Err(not_passed(true))));
}

/// A step gives the same bits however often it is run, and on every replica, as resuming needs.
#[test]
fn calls_give_the_same_bits_every_time() {
    if !pinned() {
        return;
    }
    let client = Client::cpu(common::plugin(), 2).unwrap();
    let engine = Engine::new(client, &Selection::All).with_internal_calls(|_| Ok(()), None);
    let module = step().with_replicas(2).unwrap();
    assert!(engine.rewritten(&module).unwrap().has_custom_calls());
    let program = engine.compile_step(&module).unwrap();
    let own = arguments(&module);
    let run = || {
        let results = program.run(&engine, &[own.clone(), own.clone()]);
        let results = results.expect("results");
        let bits = |list: &Vec<Literal>| -> Vec<Vec<u32>> {
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
            list.iter().map(|x| bits(x.to_vec())).collect()
        };
        results.iter().map(bits).collect::<Vec<_>>()
    };
    let first = run();
    assert_eq!(first[0], first[1]);
    for _ in 0..3 {
        assert!(run() == first);
    }
}

#[test]
fn calls_compute_what_the_plugins_own_convolutions_do() {
    if !pinned() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    self_test(common::plugin().path()).expect("the self-test");
    let client = Client::cpu(common::plugin(), 1).unwrap();
    let cache = Cache::new(folder.path().into(), &client, common::plugin().path());
    let plain =
        Engine::new(client, &Selection::All).with_cache(cache.map(Cache::keeping_everything));
    let module = step();
    let calling = plain.clone().with_internal_calls(|_| Ok(()), None);
    assert!(!plain.rewritten(&module).unwrap().has_custom_calls());
    assert!(calling.rewritten(&module).unwrap().has_custom_calls());
    let called = run(&calling, &module);
    // The plugin would end the process if it were to serialise such a program.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let own = run(&plain, &module);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    for (i, (a, b)) in called.iter().zip(&own).enumerate() {
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let apart = norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied());
        assert!(apart < 1e-5, "result {i}: {apart:.1e}");
    }
    // Neither where the test fails, nor for programs that are no training steps.
    let failing = plain
        .clone()
        .with_internal_calls(|_| Err(not_passed(true)), None);
    assert!(!failing.rewritten(&module).unwrap().has_custom_calls());
    assert_eq!(run(&failing, &module), own);
    assert!(plain.compile(&module).unwrap().from_cache());
    assert!(calling.compile(&module).unwrap().from_cache());
    let without = Selection::parse(&["-onednn-calls".into()]).unwrap();
    let without =
        Engine::new(plain.client().clone(), &without).with_internal_calls(|_| Ok(()), None);
    assert!(!without.rewritten(&module).unwrap().has_custom_calls());
}

/// A profile counts calls as what they are calls of: as many operations of each kind, as much work.
#[test]
fn a_profile_counts_calls_as_what_they_compute() {
    if !pinned() {
        return;
    }
    let client = Client::cpu(common::plugin(), 1).unwrap();
    let plain = Engine::new(client, &Selection::All);
    let calling = plain.clone().with_internal_calls(|_| Ok(()), None);
    let module = step();
    let text = calling.rewritten(&module).unwrap().to_string();
    for target in [CONVOLUTION, PRODUCT] {
        assert!(text.contains(target), "no call of {target}");
    }
    let counted = |engine: &Engine| -> Vec<(String, usize, f64)> {
        let found = profile(engine, &module).expect("a profile");
        let of = |row: &Row| (row.name.clone(), row.count, row.flops);
        let mut rows: Vec<_> = found.families.iter().map(of).collect();
        rows.retain(|(name, ..)| name.starts_with("convolutions") || name.starts_with("matrix"));
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    };
    let called = counted(&calling);
    assert_eq!(called, counted(&plain));
    // 2 · images · pixels · taps · inputs · outputs of two convolutions; what is 1×1 is a product.
    let work = |inputs: f64| 2.0 * 32.0 * 32.0 * 32.0 * 9.0 * inputs * 32.0;
    let forward = ("convolutions, forward".into(), 2, work(16.0) + work(32.0));
    assert!(called.contains(&forward), "{called:?}");
    // Not of the image.
    let input = ("convolutions, gradient of the input".into(), 1, work(32.0));
    assert!(called.contains(&input), "{called:?}");
}

/// Two steps of the narrow network, with compiled programs and outcomes of tests in a folder of their own.
fn bench(cache: &Path, more: &[&str]) -> Output {
    let output = simclr()
        .env("XDG_CACHE_HOME", cache)
        .args([
            "bench",
            "--step-only",
            "--json",
            "--steps",
            "1",
            "--config",
            "bench/steps/narrow.yaml",
        ])
        .args(more)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

fn losses(output: &Output) -> Vec<f64> {
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let losses = found["losses"].as_array().unwrap().iter();
    losses.map(|loss| loss.as_f64().unwrap()).collect()
}

fn lines(output: &Output) -> Vec<String> {
    let text = stderr(output);
    text.lines()
        .filter(|line| line.contains(LINE))
        .map(String::from)
        .collect()
}

/// The kept outcome of the test, if there is one.
fn outcome(cache: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(cache.join("simclr")).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    files.find(|path| path.extension().is_some_and(|ending| ending == "self-test"))
}

#[test]
fn a_test_that_fails_is_told_in_one_line_and_the_step_does_without() {
    if !pinned() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let plugin = format!("runtime.plugin={}", common::plugin().path().display());
    let called = bench(folder.path(), &[&plugin]);
    assert_eq!(lines(&called), Vec::<String>::new());
    let kept = outcome(folder.path()).expect("an outcome is kept");
    // As if it had failed when it was made: nothing but the outcome tells a later start.
    let magic = b"simclr self-test 1\n";
    let reason = b"the test of such calls failed: for this test";
    let mut bytes = magic.to_vec();
    assert_eq!(
        fs::read(&kept).unwrap(),
        [&magic[..], &Sha256::digest(b"works"), b"works"].concat()
    );
    bytes.extend_from_slice(&Sha256::digest(reason));
    bytes.extend_from_slice(reason);
    fs::write(&kept, bytes).unwrap();
    let failed = bench(folder.path(), &[&plugin]);
    let found = lines(&failed);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("for this test"), "{found:?}");
    let off = bench(folder.path(), &[&plugin, "runtime.passes=[-onednn-calls]"]);
    assert_eq!(lines(&off), Vec::<String>::new());
    assert_eq!(losses(&failed), losses(&off));
    let apart = |(a, b): (f64, f64)| (a - b).abs() / b;
    let pairs = losses(&called).into_iter().zip(losses(&off));
    assert!(pairs.map(apart).all(|apart| apart < 1e-4));
    // A damaged outcome is one that is not there.
    fs::write(&kept, "nonsense").unwrap();
    let again = bench(folder.path(), &[&plugin]);
    assert_eq!(losses(&again), losses(&called));
    assert_eq!(lines(&again), Vec::<String>::new());
}

#[test]
fn a_plugin_without_them_is_told_in_one_line_and_the_step_does_without() {
    if !pinned() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The pinned plugin, which does not know the call by its name any more.
    let mut bytes = fs::read(common::plugin().path()).unwrap();
    let name = b"__onednn$convolution\0";
    let at = bytes.windows(name.len()).position(|window| window == name);
    bytes[at.expect("the name is in the plugin") + name.len() - 2] = b'X';
    let path = folder.path().join("other.so");
    fs::write(&path, bytes).unwrap();
    let tested = simclr()
        .args(["self-test", "--plugin"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(!tested.status.success(), "{}", stderr(&tested));
    let plugin = format!("runtime.plugin={}", path.display());
    let first = bench(folder.path(), &[&plugin]);
    let later = bench(folder.path(), &[&plugin]);
    for output in [&first, &later] {
        let found = lines(output);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("is not the plugin"), "{found:?}");
    }
    assert_eq!(losses(&first), losses(&later));
}
