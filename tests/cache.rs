//! Compiled programs kept between runs: the same results, and no damaged or foreign entry stops anything.

mod common;

use simclr::engine::{Cache, Engine};
use simclr::hlo::passes::Selection;
use simclr::hlo::{DType, Graph, Literal, Module, Shape};
use simclr::interop::inspect::inspect;
use simclr::pjrt::Client;
use std::fs;
use std::path::{Path, PathBuf};

/// `(x · w + x, x)` summed over two replicas; the second result takes over the argument.
fn module(shift: f64) -> Module {
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [8, 8]));
    let w = graph.parameter("w", Shape::new(DType::F32, [8, 8]));
    let y = (x.matmul(w) + x + shift).all_reduce_sum();
    graph
        .finish("cached", &[y, x * 2.0])
        .and_then(|module| module.with_aliases(&[(1, 0)]))
        .and_then(|module| module.with_replicas(2))
        .expect("the module")
}

fn arguments() -> Vec<Vec<Literal>> {
    let values = |k: usize| {
        (0..64)
            .map(|i| ((i * 7 + k * 13) % 11) as f32 / 3.0)
            .collect::<Vec<_>>()
    };
    [0, 1]
        .map(|replica| {
            vec![0, 2]
                .into_iter()
                .map(|k| Literal::new(&[8, 8], &values(k + replica)))
                .collect()
        })
        .to_vec()
}

/// A fresh client, as a new process would have it.
fn engine(folder: &Path) -> Engine {
    let plugin = common::plugin();
    let client = Client::cpu(plugin, 2).expect("a client");
    let cache = Cache::new(folder.into(), &client, plugin.path())
        .expect("a cache")
        .keeping_everything();
    Engine::new(client, &Selection::All).with_cache(Some(cache))
}

/// Runs the module; results, and whether it came from the cache.
fn run(engine: &Engine, module: &Module) -> (Vec<Vec<Vec<f32>>>, bool) {
    let program = engine.compile(module).expect("a program");
    let results = program.run(engine, &arguments()).expect("results");
    let values = results
        .iter()
        .map(|list| list.iter().map(Literal::to_vec).collect())
        .collect();
    (values, program.from_cache())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn a_second_start_compiles_nothing_and_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (first, cached) = run(&engine(folder.path()), &module(0.5));
    assert!(!cached);
    let engine = engine(folder.path());
    let (second, cached) = run(&engine, &module(0.5));
    assert!(cached);
    assert_eq!(first, second);
    // Another module, another entry.
    let (other, cached) = run(&engine, &module(0.25));
    assert!(!cached && other != first);
    assert_eq!(entries(folder.path()).len(), 2);
    let (_, cached) = run(&engine.without_cache(), &module(0.5));
    assert!(!cached);
}

#[test]
fn a_damaged_or_foreign_entry_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let (expected, _) = run(&engine(folder.path()), &module(0.5));
    let [path] = &entries(folder.path())[..] else {
        panic!("one entry")
    };
    let good = fs::read(path).unwrap();
    let shown = inspect(path).unwrap();
    assert_eq!(shown.kind, "compiled program of simclr's cache");
    assert_eq!(shown.facts[0], ("bytes".into(), good.len().to_string()));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let truncated = good[..good.len() / 2].to_vec();
    // With a right hash, but nothing the plugin could load.
    let mut foreign = b"simclr executable 1\n".to_vec();
    let junk = b"not a program";
    foreign.extend_from_slice(&<sha2::Sha256 as sha2::Digest>::digest(junk));
    foreign.extend_from_slice(junk);
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("truncated", truncated),
        ("flipped", flipped),
        ("foreign", foreign),
    ] {
        fs::write(path, &bytes).unwrap();
        // Of another one only the head is checked.
        assert_eq!(inspect(path).is_ok(), what == "foreign", "{what}");
        let (found, cached) = run(&engine(folder.path()), &module(0.5));
        assert!(!cached, "{what}");
        assert_eq!(found, expected, "{what}");
        // Replaced: the next start has it.
        let (found, cached) = run(&engine(folder.path()), &module(0.5));
        assert!(cached, "{what}");
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("file");
    fs::write(&taken, "no folder").unwrap();
    let (_, cached) = run(&engine(&taken), &module(0.5));
    assert!(!cached);
    assert_eq!(fs::read(&taken).unwrap(), b"no folder");
}

#[test]
fn entries_belong_to_their_devices() {
    let folder = tempfile::tempdir().unwrap();
    run(&engine(folder.path()), &module(0.5));
    let plugin = common::plugin();
    let client = Client::cpu(plugin, 4).expect("a client");
    let cache = Cache::new(folder.path().into(), &client, plugin.path()).expect("a cache");
    let wider = Engine::new(client, &Selection::All).with_cache(Some(cache));
    let (_, cached) = run(&wider, &module(0.5));
    assert!(!cached);
}
