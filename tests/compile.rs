//! `simclr compile` through the binary: a small network for a TPU slice that is not there (skipped, loudly, where libtpu is not
//! installed), the same for CPU devices, saved programs, and what can be wrong.
//!
//! The paper's recipe takes two to five minutes of processor time, and is compiled by `cargo test --release --test compile -- --ignored`;
//! all recipes for all slices take hours: `bench/pods_table.py`.

mod binary;
mod common;

use binary::{refused, simclr, stderr, tiny};
use serde_json::Value;
use simclr::engine::{describe, save};
use simclr::pjrt::{Platform, find};
use std::path::Path;
use std::process::Output;

/// A network of a few channels, one step per launch: twelve seconds of libtpu.
const SMALL: [&str; 12] = [
    "dataset=shapes32",
    "resnet_depth=10",
    "width_multiplier=0.125",
    "stem_stride=2",
    "image_size=32",
    "train_batch_size=64",
    "warmup_epochs=0",
    "num_proj_layers=1",
    "proj_out_dim=16",
    "use_blur=false",
    "color_jitter_strength=0.5",
    "runtime.steps_per_launch=1",
];

fn compile(arguments: &[&str]) -> Output {
    simclr()
        .arg("compile")
        .args(SMALL)
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("one JSON value")
}

/// Whether the compiler for TPUs is there.
fn libtpu() -> bool {
    let found = find(Platform::Tpu, None);
    if let Err(error) = &found {
        eprintln!("SKIPPED: {error}");
    }
    found.is_ok()
}

fn count(report: &Value, kind: &str) -> u64 {
    let all = report["collectives"].as_array().expect("a list");
    let found = all.iter().find(|entry| entry["kind"] == kind);
    found.map_or(0, |entry| entry["count"].as_u64().expect("a count"))
}

#[test]
fn a_small_network_compiles_for_a_slice_that_is_not_there() {
    if !libtpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    let saved = folder.path().join("step.program");
    let found = json(&compile(&[
        "--topology",
        "v5litepod-4",
        "--json",
        "--dump",
        dump.to_str().unwrap(),
        "--save",
        saved.to_str().unwrap(),
    ]));
    assert_eq!(found["target"], "v5e:2x2");
    assert_eq!(found["device_kind"], "TPU v5 lite");
    assert_eq!((&found["devices"], &found["hosts"]), (&4.into(), &1.into()));
    assert_eq!(found["per_device"], 16);
    assert_eq!(found["fits"], true);
    let number = |key: &str| found[key].as_f64().expect("a number");
    // The set lies on every device: 10,000 images of 32 × 32 × 3 bytes.
    let set = 10_000.0 * 32.0 * 32.0 * 3.0;
    assert!(
        found["memory"]["arguments"].as_f64().unwrap() >= set,
        "{found}"
    );
    // The state is written over itself.
    let memory = |key: &str| found["memory"][key].as_f64().unwrap();
    assert!(memory("aliased") > 0.9 * memory("outputs"), "{found}");
    assert!(memory("code") > 0.0 && memory("temporaries") > 0.0);
    assert!(number("memory_total") < number("capacity"));
    assert!(number("flops") > 1e8 && number("optimal_seconds") > 0.0);
    assert!((number("images_per_second") * number("optimal_seconds") - 64.0).abs() < 1e-6);
    // A v5e, by Google: 197e12 operations and 819e9 bytes a second.
    let roofline = (number("flops") / 197e12).max(number("bytes_accessed") / 819e9);
    assert_eq!(number("roofline_seconds"), roofline);
    // Statistics and embeddings of all devices, gradients.
    assert!(
        count(&found, "all-gather") > 0 && count(&found, "all-reduce") > 0,
        "{found}"
    );
    for file in [
        "step.txt",
        "step.pb",
        "step_after_passes.txt",
        "step_optimized.pb",
    ] {
        assert!(dump.join(file).metadata().unwrap().len() > 1000, "{file}");
    }
    let own = std::fs::read_dir(dump.join("compiler")).unwrap().count();
    assert!(own > 0, "the compiler's own text");
    assert!(saved.metadata().unwrap().len() > 100_000);
}

/// The whole step: augmentation, LARS, statistics over 128 cores, NT-Xent over 4096.
#[test]
#[ignore = "minutes of processor time"]
fn the_recipe_of_the_paper_compiles_for_the_slice_of_the_paper() {
    assert!(libtpu(), "simclr plugins install tpu");
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/imagenet_resnet50.yaml");
    let output = simclr()
        .args(["compile", "--topology", "v3:8x8", "--json", "--config"])
        .arg(recipe)
        .output()
        .unwrap();
    let found = json(&output);
    assert_eq!(
        (&found["devices"], &found["hosts"], &found["per_device"]),
        (&128.into(), &16.into(), &32.into())
    );
    assert_eq!(
        (&found["fits"], &found["total_steps"]),
        (&true.into(), &31_279.into())
    );
    // A forward pass of ResNet-50 at 224 is 8.2e9 operations, and a step is about three of 64 views; a fifth more where views lie in pairs
    // and batch statistics come from products.
    let step = 3.0 * 64.0 * 8.2e9;
    let flops = found["flops"].as_f64().unwrap();
    assert!((1.1 * step..1.35 * step).contains(&flops), "{flops}");
    assert!(count(&found, "all-reduce") > 0, "{found}");
}

/// Where chips are no row: exchanges among them are other programs.
#[test]
fn a_small_network_compiles_for_a_slice_of_several_hosts() {
    if !libtpu() {
        return;
    }
    let found = json(&compile(&["--topology", "v4-32", "--json"]));
    assert_eq!(found["target"], "v4:2x2x4");
    assert_eq!(
        (&found["devices"], &found["hosts"]),
        (&16.into(), &4.into())
    );
    assert!(count(&found, "all-reduce") > 0, "{found}");
}

#[test]
fn a_small_network_compiles_for_gpus_that_are_not_there() {
    if let Err(error) = find(Platform::Cuda, None) {
        eprintln!("SKIPPED: {error}");
        return;
    }
    let found = json(&compile(&[
        "--target",
        "cuda:h100",
        "--devices",
        "2",
        "--json",
        "runtime.precision=bf16",
    ]));
    assert_eq!(found["target"], "cuda:h100 × 2");
    assert_eq!(found["device_kind"], "NVIDIA H100 80GB HBM3");
    assert_eq!(
        (&found["devices"], &found["per_device"]),
        (&2.into(), &32.into())
    );
    let memory = |key: &str| found["memory"][key].as_f64().unwrap();
    assert!(
        memory("arguments") >= 10_000.0 * 32.0 * 32.0 * 3.0,
        "{found}"
    );
    assert!(memory("aliased") > 0.9 * memory("outputs"), "{found}");
    assert!(memory("temporaries") > 0.0);
    // What the plugin's allocator takes of it.
    assert_eq!(found["capacity"], (79u64 << 30) / 4 * 3);
    assert!(count(&found, "all-reduce") > 0, "{found}");
}

#[test]
fn what_does_not_fit_is_said_with_code_4() {
    if !libtpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (dump, saved) = (folder.path().join("dump"), folder.path().join("program"));
    let output = compile(&[
        "--topology",
        "v5e:1x1",
        "width_multiplier=8",
        "stem_stride=1",
        "train_batch_size=4096",
        "--dump",
        dump.to_str().unwrap(),
        "--save",
        saved.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for words in [
        "of 15.75 GiB: does NOT fit",
        "remedy",
        "runtime.precision=bf16",
        "larger slice",
    ] {
        assert!(text.contains(words), "`{words}` is missing in:\n{text}");
    }
    // What there is: the module, but no program.
    for file in ["step.txt", "step.pb"] {
        assert!(dump.join(file).metadata().unwrap().len() > 1000, "{file}");
    }
    assert!(!saved.exists());
    let words = stderr(&output);
    let said = format!("{} was not written: the step does not fit", saved.display());
    assert!(words.contains(&said), "{words}");
}

#[test]
fn a_compiler_that_ends_itself_is_one_sentence() {
    if !libtpu() {
        return;
    }
    let output = simclr()
        .args(["compile", "--topology", "v5e:2x2"])
        .args(SMALL)
        .env("LIBTPU_INIT_ARGS", "--no_such_flag=1")
        .output()
        .unwrap();
    refused(&output, 1, &["the compiler ended itself", "no_such_flag"]);
    let output = compile(&[
        "--topology",
        "v5e:2x2",
        "runtime.compiler_options=['xla_no_such_option=1']",
    ]);
    refused(
        &output,
        1,
        &["No such compile option", "xla_no_such_option"],
    );
}

#[test]
fn slices_are_listed_as_the_plugin_knows_them() {
    if !libtpu() {
        return;
    }
    let output = simclr().args(["topologies", "--json"]).output().unwrap();
    let rows = json(&output);
    let row = |name: &str| {
        let rows = rows.as_array().unwrap();
        rows.iter().find(|row| row["rented"] == name).cloned()
    };
    let v3 = row("v3-128").unwrap();
    assert_eq!((&v3["devices"], &v3["hosts"]), (&128.into(), &16.into()));
    assert_eq!(
        (&v3["chips"], &v3["cores_per_chip"]),
        (&64.into(), &2.into())
    );
    // What Google's documentation says: 16 GiB a core, of which the runtime keeps some, and 123e12 operations a chip.
    let memory = v3["memory_per_device"].as_f64().unwrap() / f64::from(1 << 30);
    assert!((15.0..=16.0).contains(&memory), "{memory}");
    assert_eq!(v3["peak_flops_per_chip"], 123e12);
    let v4 = row("v4-256").unwrap();
    assert_eq!((&v4["devices"], &v4["hosts"]), (&128.into(), &32.into()));
    let lite = row("v5litepod-8").unwrap();
    assert_eq!((&lite["devices"], &lite["hosts"]), (&8.into(), &1.into()));
    let output = simclr().arg("topologies").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let columns = |line: &str| {
        let words = line.split_whitespace();
        words.map(String::from).collect::<Vec<_>>()
    };
    let lines: Vec<Vec<String>> = text.lines().map(columns).collect();
    let found = |name: &str| {
        lines
            .iter()
            .find(|line| line.get(1).is_some_and(|n| n == name))
    };
    // chips, cores, devices, hosts, kind, GiB of a device, 1e12 operations per second of a chip
    for (name, row) in [
        ("v3-128", "v3:8x8 v3-128 64 128 128 16 TPU v3 15.48 123"),
        ("v4-256", "v4:4x4x8 v4-256 128 256 128 32 TPU v4 30.75 275"),
        (
            "v5litepod-8",
            "v5e:2x4 v5litepod-8 8 8 8 1 TPU v5 lite 15.75 197",
        ),
    ] {
        assert_eq!(found(name).unwrap().join(" "), row);
    }
}

/// Without a network it can only be seen that the compiler would be fetched, and that one who does not ask for it is told how.
#[test]
fn the_compiler_is_fetched_if_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        "#!/bin/sh\necho \"$*\" >> \"$(dirname \"$0\")/calls\"\necho no network >&2\nexit 1\n";
    let python = folder.path().join("python3");
    std::fs::write(&python, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&python, executable).unwrap();
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let compile = |words: &[&str]| {
        let output = simclr()
            .args(["compile", "--topology", "v5e:2x2"])
            .args(words)
            .args(SMALL)
            .env("XDG_CACHE_HOME", folder.path())
            .env("PATH", &path)
            .env_remove("SIMCLR_PLUGIN_TPU")
            .output()
            .unwrap();
        let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap_or_default();
        (output, calls)
    };
    let (output, calls) = compile(&[]);
    refused(&output, 3, &["no tpu plugin found"]);
    assert!(!calls.contains("pip download"), "{calls}");
    let (output, calls) = compile(&["--install"]);
    assert_eq!(output.status.code(), Some(3));
    let words = stderr(&output);
    for expected in ["fetching it with pip", "tpu plugin could not be fetched"] {
        assert!(
            words.contains(expected),
            "`{expected}` is missing in:\n{words}"
        );
    }
    let asked = |line: &str| line.contains("pip download") && line.contains("libtpu==");
    assert!(calls.lines().any(asked), "{calls}");
}

#[test]
fn a_program_compiled_for_cpu_devices_is_saved_and_used_by_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("step.program");
    let step: &[&str] = &["train_steps=2", "runtime.steps_per_launch=1"];
    let arguments = |model_dir: &str, more: &[&str]| {
        let mut list = tiny(&folder.path().join(model_dir), step);
        list.extend(more.iter().map(|text| text.to_string()));
        list
    };
    let mut compile = arguments(
        "a",
        &["--target", "cpu", "--devices", "2", "--json", "--save"],
    );
    compile[0] = "compile".into();
    compile.retain(|argument| argument != "runtime.devices=1");
    compile.push(saved.display().to_string());
    let found = json(&simclr().args(&compile).output().unwrap());
    assert_eq!(
        (&found["devices"], &found["per_device"]),
        (&2.into(), &32.into())
    );
    assert!(found["flops"].as_f64().unwrap() > 1e6);
    // Every array of the state is taken over, so that none is copied: all results but the metrics and a pointer to each.
    let memory = |name: &str| found["memory"][name].as_i64().unwrap();
    let rest = memory("outputs") - memory("aliased");
    assert!(
        memory("aliased") > 50_000 && (0..4_096).contains(&rest),
        "{rest}"
    );

    // Its file says what it is for.
    let inspect = |more: &[&str]| {
        let mut command = simclr();
        command.arg("inspect").arg(&saved).args(more);
        command.output().unwrap()
    };
    let shown = json(&inspect(&["--json"]));
    assert_eq!(shown["kind"], "compiled program of `simclr compile --save`");
    let facts = &shown["facts"];
    assert_eq!(
        (&facts["platform"], &facts["devices"]),
        (&"cpu".into(), &"2".into())
    );
    for hash in ["module SHA-256", "plugin SHA-256", "processor SHA-256"] {
        assert_eq!(facts[hash].as_str().map(str::len), Some(64), "{shown}");
    }
    let bytes = saved.metadata().unwrap().len().to_string();
    assert_eq!(facts["bytes"], bytes);

    let executable = format!("runtime.executable={}", saved.display());
    let run = |model_dir: &str, devices: &str, more: &[&str]| {
        let mut list = arguments(model_dir, more);
        list.extend([executable.clone(), format!("runtime.devices={devices}")]);
        let output = simclr().args(&list).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let log = std::fs::read_to_string(folder.path().join(model_dir).join("log.txt")).unwrap();
        (stderr(&output), log)
    };
    let (words, log) = run("b", "2", &[]);
    assert!(!words.contains("was not used"), "{words}");
    assert!(log.contains("taken as compiled earlier"), "{log}");
    // The same losses as a run that compiles for itself.
    let own = arguments(
        "c",
        &["runtime.devices=2", "runtime.executable_cache=false"],
    );
    assert_eq!(simclr().args(&own).output().unwrap().status.code(), Some(0));
    let losses = |model_dir: &str| {
        let path = folder.path().join(model_dir).join("metrics.jsonl");
        let text = std::fs::read_to_string(path).unwrap();
        let rows = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| row["train/contrast_loss"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(losses("b"), losses("c"));
    assert!(!losses("b").is_empty());

    let (words, _) = run("d", "1", &[]);
    assert!(
        words.contains("was not used") && words.contains("device count (2)"),
        "{words}"
    );
    let (words, _) = run("e", "2", &["temperature=0.7"]);
    assert!(words.contains("compiled for another step"), "{words}");
    // Of another version of the plugin.
    let whole = std::fs::read(&saved).unwrap();
    let mut other = describe(&whole).flatten().unwrap();
    other.plugin = "0".repeat(64);
    let begin = |part: &[u8], of: &[u8]| of.windows(part.len()).position(|at| at == part).unwrap();
    let head = begin(b"{\"module\"", &whole);
    let program = head + begin(b"\n", &whole[head..]) + 1;
    save(&saved, &other, &whole[program..]).unwrap();
    let (words, log) = run("h", "2", &[]);
    assert!(
        words.contains("was not used, and the step compiled anew")
            && words.contains("compiled for another plugin (000000000000)"),
        "{words}"
    );
    assert!(log.contains("pretrained 2 steps"), "{log}");
    std::fs::write(&saved, &whole[..whole.len() / 2]).unwrap();
    refused(
        &inspect(&[]),
        4,
        &["step.program", "does not have the SHA-256 in its head"],
    );
    let (words, _) = run("f", "2", &[]);
    assert!(words.contains("its content is damaged"), "{words}");
    std::fs::remove_file(&saved).unwrap();
    let (words, _) = run("g", "2", &[]);
    assert!(words.contains("No such file"), "{words}");
}

/// The module as built, as the passes leave it, and as the plugin does; and writing it down changes no program.
#[test]
fn a_dump_for_cpu_devices_has_the_module_at_every_stage() {
    common::plugin();
    let folder = tempfile::tempdir().unwrap();
    let (dump, saved) = (folder.path().join("dump"), folder.path().join("program"));
    let found = json(&compile(&[
        "--target",
        "cpu",
        "--json",
        "--dump",
        dump.to_str().unwrap(),
        "--save",
        saved.to_str().unwrap(),
    ]));
    let text = |file: &str| std::fs::read_to_string(dump.join(file)).unwrap();
    let convolutions = |file: &str| text(file).matches(" convolution(").count();
    assert!(convolutions("step.txt") > convolutions("step_after_passes.txt"));
    // The plugin's, or calls of loops of ours.
    let calls = text("step_after_passes.txt")
        .matches("simclr.convolution")
        .count();
    assert!(convolutions("step_after_passes.txt") + calls > 0);
    for file in ["step.pb", "step_after_passes.pb", "step_optimized.pb"] {
        assert!(dump.join(file).metadata().unwrap().len() > 1000, "{file}");
    }
    let own = std::fs::read_dir(dump.join("compiler")).unwrap();
    let mut own = own.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(own.any(|name| name.ends_with("after_optimizations.txt")));
    // No time by the plugin, and no peak of this processor.
    assert!(found["optimal_seconds"].is_null() && found["roofline_seconds"].is_null());
    let program = std::fs::read(&saved).unwrap();
    assert_eq!(describe(&program).flatten().unwrap().options, "");
}

/// A plugin that opens no client, made here; none without a C compiler.
fn pretended_plugin(folder: &Path, minor: u32, says: &str) -> Option<std::path::PathBuf> {
    let file = folder.join(format!("plugin_0_{minor}.so"));
    let defines = [format!("-DMINOR={minor}"), format!("-DSAYS={says:?}")];
    common::shared_library("plugin.c", &defines, &file).then_some(file)
}

#[test]
fn a_plugin_that_is_too_old_or_whose_chips_another_process_has_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let says = "The TPU is already in use by process with pid 4711.";
    let make = |minor| pretended_plugin(folder.path(), minor, says);
    let (Some(old), Some(busy)) = (make(54), make(117)) else {
        return;
    };
    let old_words = [
        old.to_str().unwrap(),
        "has PJRT API 0.54",
        "0.81 or a later",
        "newer",
    ];
    let run = |command: &[&str], plugin: &Path| {
        let model_dir = format!("model_dir={}", folder.path().join("run").display());
        let more: &[&str] = match command[0] {
            "pretrain" => &["runtime.platform=tpu", &model_dir],
            _ => &[],
        };
        simclr()
            .args(command)
            .args(SMALL)
            .args(more)
            .env("SIMCLR_PLUGIN_TPU", plugin)
            .output()
            .unwrap()
    };
    refused(
        &run(&["compile", "--topology", "v5e:2x2"], &old),
        3,
        &old_words,
    );
    refused(&run(&["pretrain"], &old), 3, &old_words);
    refused(
        &run(&["pretrain"], &busy),
        3,
        &[
            busy.to_str().unwrap(),
            "are in use",
            "pid 4711",
            "simclr doctor",
        ],
    );
    assert!(!folder.path().join("run").exists());
}

#[test]
fn what_is_wrong_is_one_sentence() {
    let topology = |name: &str| compile(&["--topology", name]);
    refused(
        &topology("v3-100"),
        2,
        &["v3-100", "did you mean `v3-128`?"],
    );
    refused(
        &topology("v5e:3x3"),
        2,
        &["v5e:3x3", "v5e:4x4", "did you mean `v5e:2x4`?"],
    );
    refused(&topology("h100"), 2, &["h100", "simclr topologies"]);
    refused(
        &compile(&["--target", "gpu"]),
        2,
        &["`gpu` is unknown", "cpu"],
    );
    refused(
        &compile(&["--target", "cuda:h300"]),
        2,
        &["`cuda:h300` is unknown", "cuda:h100, cuda:h200"],
    );
    let output = simclr()
        .args(["compile", "--target", "cuda:h200"])
        .args(SMALL)
        .env("XDG_CACHE_HOME", "/nonexistent")
        .env("PATH", "/nonexistent")
        .env_remove("SIMCLR_PLUGIN_CUDA")
        .output()
        .unwrap();
    refused(
        &output,
        3,
        &["no cuda plugin found", "simclr plugins install cuda13"],
    );
    refused(
        &compile(&["--topology", "v3-8", "dataset=nope"]),
        2,
        &["no data set `nope`", "data_dir"],
    );
    let output = simclr()
        .args(["compile", "--topology", "v5e:2x2"])
        .args(SMALL)
        .env("XDG_CACHE_HOME", "/nonexistent")
        .env("PATH", "/nonexistent")
        .env_remove("SIMCLR_PLUGIN_TPU")
        .output()
        .unwrap();
    refused(
        &output,
        3,
        &["no tpu plugin found", "simclr plugins install tpu"],
    );
    let not_a_plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = simclr()
        .args(["compile", "--topology", "v5e:2x2"])
        .args(SMALL)
        .env("SIMCLR_PLUGIN_TPU", &not_a_plugin)
        .output()
        .unwrap();
    refused(&output, 3, &["Cargo.toml", "cannot be loaded"]);
    if libtpu() {
        let output = compile(&["--topology", "v5e:2x2", "train_batch_size=66"]);
        refused(
            &output,
            2,
            &[
                "train_batch_size",
                "66",
                "a multiple of the number of devices, 4",
            ],
        );
        let output = compile(&["--topology", "v5e:2x2", "runtime.devices=8"]);
        refused(&output, 2, &["8 replicas", "4 v5e:2x2 devices"]);
    }
    let output = compile(&["--target", "cpu", "--save", "/dev/null/step.program"]);
    refused(
        &output,
        3,
        &["cannot write the compiled program /dev/null/step.program"],
    );
}
