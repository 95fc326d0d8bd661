//! The command line as a user meets it.

mod binary;

use binary::{run, simclr, stderr, tiny};
use serde_json::Value as Json;
use simclr::config::schema::{KEYS, Kind};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

const COMMANDS: [&str; 6] = [
    "pretrain",
    "config",
    "plugins",
    "devices",
    "bench",
    "completions",
];

fn output(arguments: &[&str]) -> Output {
    simclr()
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn stdout(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    String::from_utf8(output.stdout).expect("text")
}

fn json(arguments: &[&str]) -> Json {
    serde_json::from_str(&stdout(arguments)).expect("JSON")
}

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut list: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the recipes")
        .map(|entry| entry.expect("a recipe").path())
        .collect();
    list.sort();
    assert!(list.len() >= 3);
    list
}

/// `key: value` lines without the comments behind them.
fn values(text: &str) -> Vec<String> {
    let mut section = String::new();
    let mut list = Vec::new();
    for line in text.lines() {
        let bare = line
            .rsplit_once(" # ")
            .map_or(line, |(bare, _)| bare)
            .trim_end();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        match bare.strip_suffix(':') {
            Some(name) => section = format!("{name}."),
            None if bare.starts_with(' ') => list.push(format!("{section}{}", bare.trim())),
            None => list.push(bare.to_string()),
        }
    }
    list
}

#[test]
fn help_is_there_for_every_command() {
    let help = stdout(&["--help"]);
    for word in COMMANDS {
        assert!(help.contains(word), "{word}");
        let own = stdout(&[word, "--help"]);
        assert!(own.contains("Usage: simclr"), "{own}");
        assert!(!own.contains('\u{1b}'), "no colours into a pipe");
    }
    for word in [
        "Examples:",
        "Exit codes:",
        "NO_COLOR",
        "SIMCLR_PLUGIN_CPU",
        "130",
        "75",
    ] {
        assert!(help.contains(word), "{word}");
    }
    assert!(stdout(&["--version"]).starts_with("simclr 0."));
}

#[test]
fn wrong_usage_has_its_code() {
    for arguments in [
        &["pretrian"][..],
        &["pretrain", "--nothing"],
        &["bench", "--steps", "many"],
    ] {
        let output = output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            output.stdout.is_empty(),
            "errors do not go to standard output"
        );
    }
    assert!(
        stderr(&output(&["pretrian"])).contains("pretrain"),
        "the nearest command"
    );
}

#[test]
fn a_full_disk_behind_standard_output_is_told() {
    for arguments in [&["config", "--keys"][..], &["config"], &["--help"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = simclr().args(arguments).stdout(full).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
        assert!(said.contains("standard output: No space left"), "{said}");
        assert!(said.contains("free some space"), "{said}");
    }
}

#[test]
fn colours_only_where_they_are_wanted() {
    let wrong = |color: &str| stderr(&output(&["config", "--color", color, "/nowhere.yaml"]));
    assert!(wrong("always").contains('\u{1b}'));
    assert!(!wrong("never").contains('\u{1b}'));
    // NO_COLOR is set by the test's own start of the program.
    assert!(!wrong("auto").contains('\u{1b}'));
}

#[test]
fn every_recipe_resolves_and_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for recipe in recipes() {
        let path = recipe.to_str().expect("a path");
        let text = stdout(&["config", path]);
        assert!(text.contains("# default"), "where values come from");
        assert!(text.contains(recipe.file_name().unwrap().to_str().unwrap()));
        let copy = folder.path().join("copy.yaml");
        fs::write(&copy, &text).unwrap();
        let again = stdout(&["config", copy.to_str().unwrap()]);
        assert_eq!(values(&text), values(&again), "{path}");
        assert!(values(&text).len() > 60, "every key is printed");
    }
}

#[test]
fn the_cifar_recipe_is_the_original_command() {
    let recipe = recipes()
        .into_iter()
        .find(|path| path.ends_with("cifar10_resnet18.yaml"))
        .expect("the recipe");
    let found = values(&stdout(&["config", recipe.to_str().unwrap()]));
    for expected in [
        "train_batch_size: 512",
        "train_epochs: 1000",
        "learning_rate: 1.0",
        "learning_rate_scaling: linear",
        "temperature: 0.5",
        "image_size: 32",
        "eval_split: test",
        "resnet_depth: 18",
        "use_blur: false",
        "color_jitter_strength: 0.5",
        "num_proj_layers: 2",
        "proj_out_dim: 128",
        "optimizer: lars",
    ] {
        assert!(
            found.iter().any(|line| line == expected),
            "{expected} in {found:#?}"
        );
    }
    let decay = found
        .iter()
        .find(|line| line.starts_with("weight_decay:"))
        .expect("the key");
    let value: f64 = decay.split(": ").nth(1).unwrap().parse().expect("a number");
    assert_eq!(value, 1e-6);
    let comment = fs::read_to_string(recipe).unwrap();
    assert!(
        comment.contains("1e-4") && comment.contains("three"),
        "what the original moved to"
    );
}

#[test]
fn values_of_the_command_line_go_first() {
    let recipe = &recipes()[0];
    let text = stdout(&[
        "config",
        recipe.to_str().unwrap(),
        "temperature=0.25",
        "runtime.devices=2",
        "temperature=0.75",
    ]);
    let line = text
        .lines()
        .find(|line| line.starts_with("temperature:"))
        .expect("the key");
    assert!(
        line.starts_with("temperature: 0.75 "),
        "the last wins: {line}"
    );
    assert!(line.contains("command line"), "{line}");
    assert!(values(&text).contains(&"runtime.devices: 2".to_string()));
}

#[test]
fn every_key_is_listed_with_the_words_it_takes() {
    let list = stdout(&["config", "--keys"]);
    for key in KEYS {
        let mut lines = list.lines();
        let line = lines.find(|line| line.split_whitespace().next() == Some(key.name));
        let line = line.unwrap_or_else(|| panic!("no {}", key.name));
        if let Kind::Choice(words) = key.kind {
            let all = words.join(", ");
            assert!(line.ends_with(&format!("[{all}]")), "{all} in {line}");
        }
    }
}

#[test]
fn machines_can_read_plugins_and_devices() {
    let plugins = json(&["plugins", "--json"]);
    let first = &plugins.as_array().expect("a list")[0];
    for key in ["path", "platform", "source", "api"] {
        assert!(first[key].is_string(), "{key}: {first}");
    }
    let devices = json(&["devices", "--json", "runtime.devices=3"]);
    let list = devices["devices"].as_array().expect("a list");
    assert_eq!(list.len(), 3);
    for (number, device) in list.iter().enumerate() {
        assert_eq!(device["id"], number);
        assert!(device["kind"].is_string() && device["description"].is_string());
    }
    assert_eq!(devices["platform"], "cpu");
}

#[test]
fn bench_measures_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = tiny(folder.path(), &["train_steps=100"]);
    arguments[0] = "bench".into();
    arguments.extend(["--json".into(), "--steps".into(), "3".into()]);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let found: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    for key in [
        "compile_seconds",
        "first_step_seconds",
        "images_per_second",
        "peak_memory_bytes",
        "cpu_seconds_per_image",
    ] {
        assert!(
            found[key].as_f64().is_some_and(|value| value > 0.0),
            "{key}: {found}"
        );
    }
    let share = found["host_wait"].as_f64().expect("a share");
    assert!((0.0..1.0).contains(&share), "{share}");
    assert_eq!(found["batch"], 64);
    assert_eq!(found["from_cache"], false);
    assert_eq!(found["losses"].as_array().expect("a list").len(), 4);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "bench writes nothing"
    );
}

#[test]
fn a_run_leaves_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let model_dir = folder.path().join("run");
    let output = run(&tiny(&model_dir, &["train_steps=2", "--json"]));
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(summary.is_object());
    let names: Vec<String> = fs::read_dir(&model_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for expected in ["config.yaml", "metrics.jsonl", "checkpoints", "log.txt"] {
        assert!(
            names.iter().any(|name| name == expected),
            "{expected} in {names:?}"
        );
    }
    assert!(
        names.iter().any(|name| name.contains("tfevents")),
        "{names:?}"
    );
    // The resolved configuration of the run is itself a configuration.
    let resolved = model_dir.join("config.yaml");
    let text = stdout(&["config", resolved.to_str().unwrap()]);
    assert!(values(&text).contains(&"train_steps: 2".to_string()));
    // Plain lines where there is no terminal, none of a live bar.
    let words = stderr(&output);
    assert!(
        words.contains("step 2/2") && !words.contains('\r'),
        "{words}"
    );
}

#[test]
fn quiet_and_verbose() {
    let folder = tempfile::tempdir().unwrap();
    let words = |name: &str, flag: &str| {
        let output = run(&tiny(&folder.path().join(name), &["train_steps=1", flag]));
        assert!(output.status.success(), "{}", stderr(&output));
        let summary = String::from_utf8_lossy(&output.stdout);
        assert!(summary.starts_with("pretrained 1 step ("), "{summary}");
        stderr(&output)
    };
    assert_eq!(words("quiet", "--quiet"), "");
    let verbose = words("verbose", "-v");
    assert!(verbose.contains("PJRT API"), "{verbose}");
    let plain = words("plain", "--color=never");
    assert!(!plain.contains("PJRT API"));
    assert!(plain.contains("1 step of 64 images ("), "{plain}");
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("simclr.bash");
    fs::write(&path, stdout(&["completions", "bash"])).unwrap();
    match std::process::Command::new("bash")
        .arg("-n")
        .arg(&path)
        .status()
    {
        Ok(status) => assert!(status.success(), "bash reads its script"),
        Err(error) => eprintln!("SKIPPED: no bash here ({error})"),
    }
}
