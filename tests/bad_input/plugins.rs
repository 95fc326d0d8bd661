//! Plugins: missing, broken, of another kind.

use super::*;

#[test]
fn a_missing_plugin_is_named() {
    refused_tiny(
        &["runtime.plugin=/no/such/plugin.so"],
        3,
        &["/no/such/plugin.so", "does not exist"],
    );
}

#[test]
fn a_text_file_is_no_plugin() {
    let folder = folder();
    let file = folder.path().join("plugin.so");
    fs::write(&file, "not a library").unwrap();
    let plugin = format!("runtime.plugin={}", file.display());
    refused_tiny(
        &[&plugin],
        3,
        &["plugin.so", "cannot be loaded", "simclr plugins install"],
    );
}

/// Of a copy that broke off nothing is loaded: the system would end the process.
#[test]
fn half_a_plugin_is_refused() {
    let folder = folder();
    let file = folder.path().join("half.so");
    let whole = fs::read(cpu_plugin()).unwrap();
    let plugin = format!("runtime.plugin={}", file.display());
    for bytes in [&whole[..1_000_000], &whole[..whole.len() - 1], &whole[..64]] {
        fs::write(&file, bytes).unwrap();
        let found = format!("has {} bytes, expected", bytes.len());
        refused_tiny(&[&plugin], 3, &["half.so", &found, "copy it again"]);
    }
}

#[test]
fn an_option_that_the_compiler_does_not_know_is_named_with_its_key() {
    refused_tiny(
        &["runtime.compiler_options=[foo=1]"],
        2,
        &["`runtime.compiler_options`", "'foo'", "leave it out"],
    );
}

/// The file of the CPU plugin.
fn cpu_plugin() -> String {
    let found = simclr().args(["plugins", "--json"]).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let cpu = found
        .as_array()
        .and_then(|list| list.iter().find(|plugin| plugin["platform"] == "cpu"))
        .and_then(|plugin| plugin["path"].as_str());
    cpu.expect("the CPU plugin").to_owned()
}

/// Compiles a shared library; the linker that Rust needs is the C compiler.
fn library(code: &str) -> (tempfile::TempDir, String) {
    let folder = folder();
    let (source, file) = (folder.path().join("a.c"), folder.path().join("liba.so"));
    fs::write(&source, code).unwrap();
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&file)
        .arg(&source)
        .status();
    assert!(status.expect("cc").success());
    let argument = format!("runtime.plugin={}", file.display());
    (folder, argument)
}

#[test]
fn a_plugin_of_another_platform_is_refused() {
    let cpu = &cpu_plugin();
    let words = [cpu, "drives cpu", "expected cuda", "runtime.platform"];
    let plugin = format!("runtime.plugin={cpu}");
    refused_tiny(&["runtime.platform=cuda", &plugin], 2, &words);
}

#[test]
fn a_library_that_is_no_plugin_is_told_apart() {
    let (_folder, plugin) = library("int answer(void) { return 42; }");
    refused_tiny(&[&plugin], 3, &["liba.so", "no PJRT plugin"]);
}

#[test]
fn an_old_plugin_is_refused_by_its_version() {
    let (_folder, plugin) = library(
        "#include <stddef.h>\n\
         static struct { size_t size; void *x; size_t vsize; void *vx; int major, minor; void *slots[118]; } api = {984, 0, 24, 0, 0, 40};\n\
         void *GetPjrtApi(void) { return &api; }",
    );
    refused_tiny(&[&plugin], 3, &["liba.so", "0.40", "0.81"]);
}

#[test]
fn a_plugin_that_lacks_a_call_is_told_which() {
    let (_folder, plugin) = library(
        "#include <stddef.h>\n\
         static struct { size_t size; void *x; size_t vsize; void *vx; int major, minor; void *slots[118]; } api = {984, 0, 24, 0, 0, 81};\n\
         void *GetPjrtApi(void) { return &api; }",
    );
    refused_tiny(&[&plugin], 3, &["liba.so", "PJRT_Plugin_Initialize"]);
}

#[test]
fn without_network_the_first_run_says_what_to_do() {
    let folder = folder();
    let output = simclr()
        .args(tiny(&folder.path().join("run"), &[]))
        .env("XDG_CACHE_HOME", folder.path())
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", folder.path())
        .env_remove("SIMCLR_PLUGIN_CPU")
        // A Python of its own, without the packages that may hold a plugin.
        .env("PYTHONNOUSERSITE", "1")
        .output()
        .unwrap();
    refused(
        &output,
        3,
        &[
            "cpu plugin could not be fetched",
            "SIMCLR_PLUGIN_CPU",
            "pip said",
        ],
    );
}
