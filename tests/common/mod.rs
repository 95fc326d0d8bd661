//! Running graphs in tests: one CPU plugin per process, fetched once if the machine has none.
#![allow(dead_code)] // each test binary uses its part

use simclr::engine::Engine;
use simclr::hlo::passes::Selection;
use simclr::hlo::{Literal, Module};
use simclr::pjrt::{Client, Platform, Plugin, ensure, prepare_process};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The plugin, loaded once.
pub fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        prepare_process();
        let found = ensure(Platform::Cpu, &mut |line| eprintln!("{line}")).expect("a CPU plugin");
        Plugin::load(&found.path).expect("the CPU plugin loads")
    })
}

/// An engine with this many CPU devices and all passes.
pub fn engine(devices: usize) -> Engine {
    engine_with(devices, &Selection::All)
}

/// The same without calls of this program's loops: what runs where there are none.
pub fn engine_without_loops(devices: usize) -> Engine {
    engine_with(devices, &Selection::without_loops())
}

/// An engine with these passes.
pub fn engine_with(devices: usize, passes: &Selection) -> Engine {
    Engine::new(
        Client::cpu(plugin(), devices).expect("a CPU client"),
        passes,
    )
}

/// Runs a module of one replica.
pub fn run(module: &Module, arguments: &[Literal]) -> Vec<Literal> {
    run_replicas(module, &[arguments.to_vec()]).remove(0)
}

/// Runs a module on as many CPU devices as it has replicas; `arguments[replica][parameter]`.
pub fn run_replicas(module: &Module, arguments: &[Vec<Literal>]) -> Vec<Vec<Literal>> {
    let engine = engine(module.replicas);
    let program = engine.compile(module).expect("the module compiles");
    program.run(&engine, arguments).expect("the program runs")
}

/// Where the shared data sets are; `None` (said loudly) where they are not.
pub fn shared_data() -> Option<PathBuf> {
    let path = std::env::var_os("SIMCLR_TEST_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    if path.is_dir() {
        return Some(path);
    }
    eprintln!(
        "SKIPPED: no shared data at {} (set SIMCLR_TEST_DATA)",
        path.display()
    );
    None
}

/// Makes a shared library of a source in `tests/pretended`; not without a C compiler, which is said loudly.
pub fn shared_library(source: &str, defines: &[String], file: &Path) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pretended");
    let made = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([file, &folder.join(source)])
        .args(defines)
        .status()
        .is_ok_and(|status| status.success());
    if !made {
        eprintln!("SKIPPED: no C compiler");
    }
    made
}
