//! Compiled programs kept between runs: the same results, and no damaged or foreign entry stops anything.

mod common;

use simclr::engine::{Cache, Engine};
use simclr::hlo::passes::Selection;
use simclr::hlo::{DType, Graph, Literal, Module, Shape};
use simclr::interop::inspect::inspect;
use simclr::pjrt::Client;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

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

/// What is done, and what is logged of it.
fn logged<R>(work: impl FnOnce() -> R) -> (R, String) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Mutex::new(Lines(log.clone())))
        .finish();
    let result = tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(log.lock().unwrap().clone()).expect("text");
    (result, text)
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
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
    // Whole, but of another module, under this one's name.
    let others = tempfile::tempdir().unwrap();
    run(&engine(others.path()), &module(0.25));
    let swapped = fs::read(&entries(others.path())[0]).unwrap();
    // With the right key and hash, but nothing the plugin could load.
    let mut foreign = b"simclr executable 2\n".to_vec();
    let key = &good[foreign.len() + 32..][..32];
    let junk = [key, b"not a program"].concat();
    foreign.extend_from_slice(&<sha2::Sha256 as sha2::Digest>::digest(&junk));
    foreign.extend_from_slice(&junk);
    let damaged = "cannot be used (its content is damaged); it is compiled again";
    for (what, bytes, words) in [
        ("empty", Vec::new(), damaged),
        ("truncated", truncated, damaged),
        ("flipped", flipped, damaged),
        (
            "swapped",
            swapped,
            "cannot be used (it holds another program); it is compiled again",
        ),
        ("foreign", foreign, "was not taken by the plugin"),
    ] {
        fs::write(path, &bytes).unwrap();
        // Of a whole one only the head is checked.
        let whole = ["swapped", "foreign"].contains(&what);
        assert_eq!(inspect(path).is_ok(), whole, "{what}");
        let ((found, cached), log) = logged(|| run(&engine(folder.path()), &module(0.5)));
        assert!(!cached, "{what}");
        assert_eq!(found, expected, "{what}");
        let told: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(told.len(), 1, "{what}: {log}");
        assert!(told[0].contains(words), "{what}: {log}");
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
