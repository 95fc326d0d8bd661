//! Bad input through the binary: one sentence naming file or key, what was found and expected, the right exit code, and no
//! checkpoint harmed.

mod binary;

use binary::{checkpoint, refused, run, simclr, tiny};
use simclr::report::{Scalars, metrics};
use simclr::train::checkpoint::{Array, arrays, save};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn refused_tiny(more: &[&str], code: i32, words: &[&str]) {
    let folder = folder();
    refused(&run(&tiny(&folder.path().join("run"), more)), code, words);
}

/// A finished run of four steps, made once; tests copy it.
fn finished() -> &'static Path {
    static RUN: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = RUN.get_or_init(|| {
        let folder = folder();
        let path = folder.path().join("run");
        let output = run(&tiny(&path, &["train_steps=4", "checkpoint_steps=2"]));
        assert!(output.status.success(), "{}", binary::stderr(&output));
        (folder, path)
    });
    path
}

fn copy_of_finished() -> (tempfile::TempDir, PathBuf) {
    let folder = folder();
    let path = folder.path().join("run");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(finished())
        .arg(&path)
        .status();
    assert!(copied.expect("cp").success());
    (folder, path)
}

const LONGER: [&str; 2] = ["train_steps=4", "checkpoint_steps=2"];

// Plugins.

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

// Configuration.

fn with_yaml(text: &str) -> Output {
    let folder = folder();
    let file = folder.path().join("recipe.yaml");
    fs::write(&file, text).unwrap();
    simclr()
        .args(["config".as_ref(), file.as_os_str()])
        .output()
        .unwrap()
}

#[test]
fn yaml_that_is_none_is_located() {
    refused(
        &with_yaml("dataset: [cifar10\nseed: 1\n"),
        2,
        &["recipe.yaml", "not valid YAML", "correct it there"],
    );
    refused(
        &with_yaml("just words\n"),
        2,
        &["recipe.yaml", "not valid YAML", "correct it there"],
    );
    refused(
        &with_yaml("temperature: 0.1\ntemperature: 0.2\n"),
        2,
        &["recipe.yaml", "line 2", "temperature", "keep one"],
    );
    refused(
        &with_yaml("runtime: 5\n"),
        2,
        &["recipe.yaml:1", "`runtime`", "5", "a section"],
    );
    refused(
        &with_yaml("dataset: &a [*a]\n"),
        2,
        &["recipe.yaml", "alias"],
    );
}

/// The words of the library are for programs that use it.
#[test]
fn yaml_errors_are_for_who_writes_yaml() {
    let deep = format!("dataset: {}{}\n", "[".repeat(100), "]".repeat(100));
    let deeper = format!("dataset: {}{}\n", "[".repeat(300), "]".repeat(300));
    let nested: String = (0..70)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    let many = format!("runtime: [{}1]\n", "1,".repeat(260_000));
    let huge = "# a comment\n".repeat(100_000);
    for (text, words) in [
        ("null: 3\n", ["line 1", "a key that is null"]),
        ("temperature: 0.1\n~: 3\n", ["line 2", "a key that is null"]),
        ("[a]: 1\n", ["line 1", "a list or a section"]),
        ("a: 1\n---\nb: 2\n", ["line 3", "a second document"]),
        (&deep, ["not valid YAML", "within each other"]),
        (&deeper, ["not valid YAML", "within each other"]),
        (&nested, ["not valid YAML", "within each other"]),
        (&many, ["not valid YAML", "too many values"]),
        (
            &huge,
            ["more than a mebibyte", "the path of a configuration"],
        ),
    ] {
        let output = with_yaml(text);
        refused(&output, 2, &["recipe.yaml", words[0], words[1]]);
        let said = binary::stderr(&output);
        for jargon in [
            "Option<",
            "from_str",
            "budget",
            "policy",
            "Nodes",
            "breach",
            "recursion",
        ] {
            assert!(!said.contains(jargon), "{jargon} in {said}");
        }
    }
}

#[test]
fn text_in_another_encoding_is_told() {
    let folder = folder();
    let file = folder.path().join("recipe.yaml");
    let config = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        simclr().arg("config").arg(&file).output().unwrap()
    };
    let latin = b"temperature: 0.1\neval_name: M\xfcller\n";
    let words = ["recipe.yaml", "another encoding (line 2)", "UTF-8"];
    refused(&config(latin), 2, &words);
    let utf16: Vec<u8> = "temperature: 0.1\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for bytes in [utf16.clone(), [b"\xff\xfe".to_vec(), utf16].concat()] {
        refused(&config(&bytes), 2, &["recipe.yaml", "UTF-16", "UTF-8"]);
    }
    let marked = config("\u{feff}temperature: 0.25\n".as_bytes());
    assert!(marked.status.success(), "{}", binary::stderr(&marked));
    assert!(String::from_utf8_lossy(&marked.stdout).contains("temperature: 0.25"));
    // One without an end is not read to it.
    let output = simclr().args(["config", "/dev/zero"]).output().unwrap();
    refused(&output, 2, &["/dev/zero", "more than a mebibyte"]);
}

#[test]
fn a_key_in_two_spellings_is_given_twice() {
    for text in [
        "runtime.seed: 3\nruntime:\n  seed: 4\n",
        "runtime:\n\n  seed: 4\nruntime.seed: 3\n",
    ] {
        let lines = text
            .lines()
            .zip(1..)
            .filter(|(line, _)| line.contains("seed"));
        let lines: Vec<i32> = lines.map(|(_, number)| number).collect();
        let place = format!("recipe.yaml:{}", lines[1]);
        let other = format!("line {}", lines[0]);
        let words = [&place, "`runtime.seed`", &other, "keep one"];
        refused(&with_yaml(text), 2, &words);
    }
    let text = "runtime.disable_passes: [tiny-maps]\nruntime:\n  passes: all\n";
    refused(&with_yaml(text), 2, &["`runtime.passes`", "line 1"]);
}

#[test]
fn an_address_is_not_taken_for_a_local_folder() {
    let folder = folder();
    for place in [
        "s3://bucket/run",
        "gs:/bucket/run",
        "GS://bucket/run",
        "https://host/run",
        "file:///tmp/run",
    ] {
        for key in [
            "model_dir",
            "data_dir",
            "subset_list",
            "checkpoint",
            "teacher",
            "runtime.plugin",
            "runtime.executable",
        ] {
            let output = simclr()
                .args(["pretrain", &format!("{key}={place}")])
                .current_dir(folder.path())
                .output()
                .unwrap();
            let key = format!("`{key}`");
            refused(&output, 2, &["command line", &key, place, "gs://BUCKET/"]);
        }
        let words = ["recipe.yaml:1", "`model_dir`", place];
        refused(&with_yaml(&format!("model_dir: {place}\n")), 2, &words);
    }
    assert_eq!(names(folder.path()), Vec::<String>::new());
    for place in ["a:b/run", "./gs:/run", "./s3://run", "gs://bucket/run"] {
        let resolved = resolved(&[&format!("model_dir={place}")], Some("/home/me"));
        assert!(resolved.contains(place), "{resolved}");
    }
}

/// What `simclr config` prints, with this home folder.
fn resolved(arguments: &[&str], home: Option<&str>) -> String {
    let mut program = simclr();
    program.arg("config").args(arguments).env_remove("HOME");
    if let Some(home) = home {
        program.env("HOME", home);
    }
    let output = program.output().unwrap();
    assert!(output.status.success(), "{}", binary::stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_tilde_is_the_home_folder_as_in_a_shell() {
    for (given, meant) in [("~/runs/a", "/home/me/runs/a"), ("./~/a", "./~/a")] {
        let line = |key: &str| format!("{key}: {meant} ");
        let line = |key: &str| line(key).replace("./~/a", "\"./~/a\"");
        let found = resolved(&[&format!("data_dir={given}")], Some("/home/me"));
        assert!(found.contains(&line("data_dir")), "{given}: {found}");
        let folder = folder();
        let file = folder.path().join("recipe.yaml");
        fs::write(&file, format!("model_dir: \"{given}\"\n")).unwrap();
        let found = resolved(&[file.to_str().unwrap()], Some("/home/me/"));
        assert!(found.contains(&line("model_dir")), "{given}: {found}");
    }
    // Text that is no path stays as it is.
    let found = resolved(&["eval_name=~/a"], Some("/home/me"));
    assert!(found.contains("eval_name: \"~/a\""), "{found}");
    let mut program = simclr();
    program.args(["config", "model_dir=~/a"]).env_remove("HOME");
    let words = ["`model_dir`", "~/a", "HOME", "is not set"];
    refused(&program.output().unwrap(), 2, &words);
    refused_tiny(&["data_dir=~somebody/a"], 2, &["`data_dir`", "~NAME"]);
}

#[test]
fn a_missing_configuration_is_named() {
    let output = simclr()
        .args(["config", "no/such/file.yaml"])
        .output()
        .unwrap();
    refused(&output, 2, &["no/such/file.yaml", "cannot be read"]);
}

#[test]
fn an_unknown_key_gets_its_nearest_and_its_line() {
    let words = [
        "recipe.yaml:2",
        "`temperatur`",
        "did you mean `temperature`",
    ];
    refused(
        &with_yaml("dataset: shapes32\ntemperatur: 0.1\n"),
        2,
        &words,
    );
    let words = ["recipe.yaml:3", "`runtime.sede`", "`runtime.seed`"];
    refused(
        &with_yaml("dataset: shapes32\nruntime:\n  sede: 1\n"),
        2,
        &words,
    );
    refused_tiny(
        &["lerning_rate=1"],
        2,
        &["command line", "`lerning_rate`", "`learning_rate`"],
    );
    // Nothing is like it: no guess.
    refused(&with_yaml("5: 1\n"), 2, &["`5`", "simclr config --keys"]);
}

#[test]
fn a_part_of_a_name_finds_the_whole() {
    for (given, key) in [
        ("batch_size", "train_batch_size"),
        ("batchsize", "train_batch_size"),
        ("epochs", "train_epochs"),
        ("epoch", "train_epochs"),
        ("lr", "learning_rate"),
        ("devices", "runtime.devices"),
        ("precison", "runtime.precision"),
        ("projection_dim", "proj_out_dim"),
    ] {
        let nearest = format!("did you mean `{key}`");
        refused_tiny(&[&format!("{given}=1")], 2, &[given, &nearest]);
    }
    let words = [
        "recipe.yaml:",
        "unknown section `runetime`",
        "did you mean `runtime`",
    ];
    refused(
        &with_yaml("dataset: shapes32\nrunetime:\n  devices: 1\n"),
        2,
        &words,
    );
    refused(
        &with_yaml("training:\n  epochs: 1\n"),
        2,
        &["unknown section `training`", "simclr config --keys"],
    );
    refused_tiny(
        &["dataset=shapes"],
        2,
        &["`shapes`", "did you mean `shapes32`"],
    );
    let error = stderr_of(&["compile", "--topology", "v9-3"]);
    assert!(
        error.contains("`v9-3`") && error.contains("simclr topologies"),
        "{error}"
    );
    assert!(!error.contains("did you mean"), "{error}");
}

fn stderr_of(arguments: &[&str]) -> String {
    let output = simclr().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    binary::stderr(&output)
}

/// What is no Unicode is refused like other words.
#[test]
fn arguments_of_any_bytes_are_refused_in_a_sentence() {
    use std::os::unix::ffi::OsStrExt;
    let word = std::ffi::OsStr::from_bytes(b"data_dir=/d/\xff");
    let output = simclr().args(["pretrain".as_ref(), word]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", binary::stderr(&output));
}

#[test]
fn a_flag_that_is_a_key_is_told_how_to_write_it() {
    for (arguments, words) in [
        (
            &["pretrain", "--temperature", "0.2"][..],
            "write temperature=0.2",
        ),
        (
            &["pretrain", "--train_batch_size=64"],
            "write train_batch_size=64",
        ),
        (
            &["pretrain", "--train-batch-size"],
            "write train_batch_size=VALUE",
        ),
        (&["run", "--mode=train"], "write mode=train"),
        (&["pretrain", "--use_blur"], "write use_blur=true"),
        (&["pretrain", "--nouse_blur"], "write use_blur=false"),
        (&["pretrain", "--use_blur=False"], "write use_blur=false"),
        (&["pretrain", "--use_blur", "0"], "write use_blur=false"),
        (&["pretrain", "--use_blur", "a.yaml"], "write use_blur=true"),
        (
            &["pretrain", "--train_steps", "-q"],
            "write train_steps=VALUE",
        ),
        (
            &[
                "embed",
                "runs/one",
                "x.png",
                "-o",
                "x.npy",
                "--eval_batch_size=4",
            ],
            "write --set eval_batch_size=4",
        ),
        (
            &["report", "runs/one", "-o", "x.html", "--config", "my.yaml"],
            "write --set KEY=VALUE",
        ),
        (
            &["finetune", "--devices", "2", "--json"],
            "write runtime.devices=2",
        ),
        (
            &["evaluate", "runs/one", "--eval_batch_size", "64"],
            "write eval_batch_size=64",
        ),
        (
            &["evaluate", "runs/one", "--config", "my.yaml"],
            "the configuration is that of the run",
        ),
    ] {
        let error = stderr_of(arguments);
        assert!(error.starts_with("error: "), "{error}");
        assert!(error.contains(words), "`{words}` is missing in {error}");
        assert!(!error.contains("-- --"), "{error}");
    }
    // A flag that is no key, and a command without keys, are told what they were told before.
    let error = stderr_of(&["pretrain", "--jsn"]);
    assert!(error.contains("'--json'"), "{error}");
    let error = stderr_of(&["topologies", "--temperature", "1"]);
    assert!(!error.contains("temperature=1"), "{error}");
}

#[test]
fn a_configuration_without_its_flag_is_told_the_flag() {
    refused_tiny(
        &["configs/quickstart.yaml"],
        2,
        &["--config configs/quickstart.yaml"],
    );
    refused_tiny(
        &["nowhere.yml"],
        2,
        &["`nowhere.yml`", "--config nowhere.yml"],
    );
    refused_tiny(&["Cargo.toml"], 2, &["--config Cargo.toml"]);
}

#[test]
fn fine_tuning_without_a_checkpoint_asks_for_it_first() {
    let folder = folder();
    let output = simclr()
        .args(["finetune", "--config", "configs/quickstart_linear.yaml"])
        .arg(format!("model_dir={}", folder.path().join("run").display()))
        .output()
        .unwrap();
    refused(
        &output,
        2,
        &["`checkpoint` is null", "checkpoint=RUN", "dataset"],
    );
}

#[test]
fn what_is_compiled_for_has_two_ways_to_be_said() {
    let error = stderr_of(&["compile", "--config", "configs/quickstart.yaml"]);
    assert!(
        error.contains("--topology") && error.contains("--target"),
        "{error}"
    );
}

#[test]
fn text_on_the_command_line_is_what_was_typed() {
    let text = ["model_dir=0.5", "data_dir=a #b", "eval_name=007"];
    let output = simclr().arg("config").args(text).output().unwrap();
    let resolved = String::from_utf8_lossy(&output.stdout);
    for line in [
        "model_dir: \"0.5\"",
        "data_dir: \"a #b\"",
        "eval_name: \"007\"",
    ] {
        assert!(resolved.contains(line), "`{line}` is missing in {resolved}");
    }
    refused(
        &with_yaml("model_dir: 0.5\n"),
        2,
        &["`model_dir`", "0.5", "quotes"],
    );
}

#[test]
fn a_wrong_type_says_found_and_expected() {
    let words = [
        "recipe.yaml:1",
        "`train_batch_size`",
        "\"many\"",
        "a whole number",
    ];
    refused(&with_yaml("train_batch_size: many\n"), 2, &words);
    refused(
        &with_yaml("use_blur: 3\n"),
        2,
        &["`use_blur`", "3", "true or false"],
    );
    refused(
        &with_yaml("temperature: [1]\n"),
        2,
        &["`temperature`", "a list", "a number"],
    );
}

#[test]
fn numbers_are_told_in_few_digits_and_lists_by_what_is_wrong_in_them() {
    let most = "from 0 to 9223372036854775807";
    let words = ["`runtime.seed` is 1.8446744073709552e19", most];
    refused_tiny(&["runtime.seed=18446744073709551615"], 2, &words);
    let words = ["`resnet_depth` is 1e-320 ", "a whole number"];
    refused_tiny(&["resnet_depth=1e-320"], 2, &words);
    let words = ["`runtime.passes`", "a list with 1 (a whole number) in it"];
    refused_tiny(&["runtime.passes=[a,1]"], 2, &words);
    for (text, shown) in [(".nan", ".nan"), ("-.inf", "-.inf"), ("1e999", ".inf")] {
        let words = ["recipe.yaml:1", "`temperature`", shown, "a number from"];
        refused(&with_yaml(&format!("temperature: {text}\n")), 2, &words);
        let words = ["command line", "`temperature`", shown, "a number from"];
        refused_tiny(&[&format!("temperature={text}")], 2, &words);
    }
    refused_tiny(&["TEMPERATURE=3"], 2, &["did you mean `temperature`"]);
}

#[test]
fn impossible_values_are_refused() {
    refused_tiny(&["temperature=0"], 2, &["`temperature`", "0"]);
    let words = ["`use_tpu`", "runtime.platform cpu"];
    refused_tiny(&["use_tpu=true", "runtime.platform=cpu"], 2, &words);
    refused_tiny(&["train_batch_size=-4"], 2, &["`train_batch_size`", "-4"]);
    let words = [
        "`input_pipelines`",
        "5",
        "a divisor of train_batch_size, 64",
    ];
    refused_tiny(&["input_pipelines=5", "runtime.input=streamed"], 2, &words);
    refused_tiny(&["resnet_depth=19"], 2, &["`resnet_depth`", "19", "18, 34"]);
    refused_tiny(
        &["color_jitter_strength=2"],
        2,
        &["`color_jitter_strength`", "1.25"],
    );
    refused_tiny(
        &["optimizer=sgd"],
        2,
        &["`optimizer`", "lars, momentum, adam"],
    );
    refused_tiny(
        &["warmup_epochs=100", "train_steps=5"],
        2,
        &["`warmup_epochs`", "shorter"],
    );
    refused_tiny(
        &["train_batch_size=20000"],
        2,
        &["`train_batch_size`", "10000"],
    );
    refused_tiny(&["mode=eval"], 2, &["`mode` is eval", "simclr run"]);
    refused_tiny(&["noequals"], 2, &["`noequals`", "key=value"]);
}

#[test]
fn a_batch_that_devices_do_not_divide_is_refused() {
    let words = [
        "`train_batch_size`",
        "64",
        "multiple",
        "3",
        "runtime.devices",
    ];
    refused_tiny(&["runtime.devices=3"], 2, &words);
}

#[test]
fn an_image_size_that_the_data_lack_is_refused() {
    refused_tiny(&["image_size=24"], 2, &["`image_size`", "24", "32"]);
    refused_tiny(
        &["image_size=64", "stem_stride=1"],
        2,
        &["`image_size`", "64", "32"],
    );
}

#[test]
fn an_unknown_pass_is_refused() {
    let words = ["`runtime.passes`", "canonical-convolutions"];
    refused_tiny(&["runtime.passes=[typo]"], 2, &words);
    refused_tiny(&["runtime.passes=[]"], 2, &words);
}

// Data.

fn cifar(data_dir: &Path) -> Output {
    let folder = folder();
    let data = format!("data_dir={}", data_dir.display());
    run(&tiny(
        &folder.path().join("run"),
        &["dataset=cifar10", &data],
    ))
}

#[test]
fn missing_data_are_named() {
    refused_tiny(&["dataset=cifar10"], 2, &["data_dir"]);
    refused(&cifar(Path::new("/no/such/data")), 2, &["/no/such/data"]);
    let empty = folder();
    refused(
        &cifar(empty.path()),
        2,
        &[&empty.path().display().to_string()],
    );
}

#[test]
fn a_cifar_file_of_the_wrong_size_is_refused() {
    let data = folder();
    let batches = data.path().join("cifar-10-batches-bin");
    fs::create_dir(&batches).unwrap();
    for i in 1..=5 {
        fs::write(
            batches.join(format!("data_batch_{i}.bin")),
            vec![0; 3073 * 40],
        )
        .unwrap();
    }
    fs::write(batches.join("data_batch_3.bin"), vec![0; 3073 * 40 - 1]).unwrap();
    refused(&cifar(data.path()), 4, &["data_batch_3.bin", "3073"]);
    fs::remove_file(batches.join("data_batch_3.bin")).unwrap();
    refused(
        &cifar(data.path()),
        4,
        &["data_batch_3.bin", "is missing", "4 of 5"],
    );
}

#[test]
fn a_missing_shard_is_named() {
    let data = folder();
    let set = data.path().join("cifar10/3.0.2");
    fs::create_dir_all(&set).unwrap();
    fs::write(set.join("cifar10-train.tfrecord-00000-of-00002"), []).unwrap();
    let words = ["00001-of-00002", "is missing", "1 of 2"];
    refused(&cifar(data.path()), 4, &words);
}

#[test]
fn corrupt_and_truncated_records_are_refused() {
    let data = folder();
    let version = data.path().join("cifar10/3.0.2");
    fs::create_dir_all(&version).unwrap();
    let shard = version.join("cifar10-train.tfrecord-00000-of-00001");
    fs::write(&shard, [7u8; 64]).unwrap();
    refused(
        &cifar(data.path()),
        4,
        &["cifar10-train.tfrecord-00000-of-00001"],
    );
    // A whole header that promises more than there is.
    let length = 1000u64.to_le_bytes();
    let crc = crc32c::crc32c(&length);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    let mut bytes = length.to_vec();
    bytes.extend(masked.to_le_bytes());
    bytes.extend([0u8; 20]);
    fs::write(&shard, bytes).unwrap();
    refused(
        &cifar(data.path()),
        4,
        &["cifar10-train.tfrecord-00000-of-00001", "truncated"],
    );
}

/// A record as TFRecord files have it: length and data, each with its masked CRC.
fn record(data: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| {
        let crc = crc32c::crc32c(bytes).rotate_right(15);
        crc.wrapping_add(0xa282_ead8).to_le_bytes()
    };
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked(&length)[..], data, &masked(data)].concat()
}

#[test]
fn a_flipped_byte_in_a_records_data_is_found() {
    let data = folder();
    let version = data.path().join("cifar10/3.0.2");
    fs::create_dir_all(&version).unwrap();
    let name = "cifar10-train.tfrecord-00000-of-00001";
    // Two whole records (an empty example each): their CRCs are right, so it is what they hold that is refused.
    let mut bytes = [record(&[10, 0]), record(&[10, 0])].concat();
    fs::write(version.join(name), &bytes).unwrap();
    let output = cifar(data.path());
    refused(&output, 4, &[name, "record 0"]);
    assert!(!binary::stderr(&output).contains("CRC"));
    bytes[18 + 12] ^= 1;
    fs::write(version.join(name), bytes).unwrap();
    let words = [
        name,
        "record 1, at byte 18",
        "data CRC 0x",
        "expected 0x",
        "fetch the file again",
    ];
    refused(&cifar(data.path()), 4, &words);
}

// Checkpoints and the run folder.

/// What does not go on with a run is told the path to give, not a flag that it does not have.
#[test]
fn whoever_opens_a_damaged_checkpoint_is_told_the_path_of_the_one_before_it() {
    let (folder, path) = copy_of_finished();
    fs::write(checkpoint(&path, 4).join("state.safetensors"), "").unwrap();
    let run_folder = path.display().to_string();
    let out = folder.path().join("out").display().to_string();
    let page = format!("{out}.html");
    let mut finetune = tiny(&folder.path().join("tuned"), &["train_steps=1"]);
    finetune[0] = "finetune".into();
    finetune.push(format!("checkpoint={run_folder}"));
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    let commands: [Vec<String>; 7] = [
        finetune,
        words(&["evaluate", &run_folder]),
        words(&["embed", &run_folder, "Cargo.toml", "-o", "x.npy"]),
        words(&["predict", &run_folder, "Cargo.toml"]),
        words(&["report", &run_folder, "-o", &page]),
        words(&["export", &run_folder, &out, "--format", "safetensors"]),
        words(&["inspect", &run_folder]),
    ];
    let before = checkpoint(&path, 2).display().to_string();
    let remedy = format!("give the one before it instead, `{before}`");
    for command in commands {
        let output = run(&command);
        refused(&output, 4, &["step-00000004` is damaged", &remedy]);
        let text = binary::stderr(&output);
        assert!(!text.contains("--resume-from"), "{command:?}: {text}");
    }
    let export = words(&["export", &before, &out, "--format", "safetensors"]);
    assert!(run(&export).status.success());
    fs::write(checkpoint(&path, 2).join("state.safetensors"), "").unwrap();
    let output = run(&words(&["evaluate", &run_folder]));
    refused(&output, 4, &["no whole one before it", "give another run"]);
}

#[test]
fn a_damaged_checkpoint_is_named_with_the_one_before_it() {
    let (_folder, path) = copy_of_finished();
    let state = checkpoint(&path, 4).join("state.safetensors");
    let mut bytes = fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).unwrap();
    let before = fs::read(checkpoint(&path, 2).join("state.safetensors")).unwrap();
    let output = run(&tiny(&path, &LONGER));
    refused(
        &output,
        4,
        &["step-00000004", "step-00000002", "--resume-from"],
    );
    assert_eq!(
        fs::read(checkpoint(&path, 2).join("state.safetensors")).unwrap(),
        before
    );
    // And the way it names works.
    let mut arguments = tiny(&path, &LONGER);
    arguments.extend([
        "--resume-from".into(),
        checkpoint(&path, 2).display().to_string(),
    ]);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", binary::stderr(&output));
}

#[test]
fn a_foreign_checkpoint_is_refused() {
    let folder = folder();
    let other = folder.path().join("other");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("state.safetensors"), "nothing").unwrap();
    let mut arguments = tiny(&folder.path().join("run"), &LONGER);
    arguments.extend(["--resume-from".into(), other.display().to_string()]);
    refused(
        &run(&arguments),
        2,
        &[&other.display().to_string(), "not a checkpoint"],
    );
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let folder = folder();
    let mut arguments = tiny(
        &folder.path().join("run"),
        &["train_steps=4", "width_multiplier=0.25"],
    );
    arguments.extend([
        "--resume-from".into(),
        checkpoint(finished(), 4).display().to_string(),
    ]);
    refused(
        &run(&arguments),
        4,
        &["base_model/conv2d/kernel", "expected"],
    );
}

#[test]
fn a_checkpoint_of_another_depth_is_refused() {
    let folder = folder();
    let mut arguments = tiny(
        &folder.path().join("run"),
        &["train_steps=4", "resnet_depth=18"],
    );
    let from = checkpoint(finished(), 4);
    arguments.extend(["--resume-from".into(), from.display().to_string()]);
    let words = [
        "does not fit this network",
        "`base_model/conv2d_4/kernel` found f32[1,1,8,16], expected f32[3,3,8,8]",
        "other tensors differ",
    ];
    refused(&run(&arguments), 4, &words);
}

/// The hashes are right; it is a name that does not fit.
#[test]
fn a_checkpoint_with_a_renamed_tensor_is_refused() {
    let (_folder, path) = copy_of_finished();
    let (manifest, arrays) = arrays(&checkpoint(&path, 4)).expect("the checkpoint");
    let mut arrays: Vec<Array> = arrays.into_values().collect();
    let kernel = arrays
        .iter_mut()
        .find(|array| array.name == "base_model/conv2d/kernel")
        .expect("the first kernel");
    kernel.name = "base_model/conv2d/weight".into();
    fs::remove_dir_all(checkpoint(&path, 4)).unwrap();
    let renamed = save(&path.join("checkpoints"), &manifest, &arrays, 9).expect("a checkpoint");
    let state = renamed.join("state.safetensors");
    let before = fs::read(&state).unwrap();
    let words = [
        "step-00000004",
        "`base_model/conv2d/kernel` found nothing, expected f32[",
        "1 other tensor differs",
    ];
    refused(&run(&tiny(&path, &LONGER)), 4, &words);
    assert_eq!(fs::read(&state).unwrap(), before);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let (_folder, path) = copy_of_finished();
    let before = fs::read(checkpoint(&path, 4).join("state.safetensors")).unwrap();
    let folder = folder();
    let other = folder.path().join("run");
    let mut arguments = tiny(&other, &["train_steps=8", "runtime.seed=9"]);
    arguments.extend([
        "--resume-from".into(),
        checkpoint(&path, 2).display().to_string(),
    ]);
    let words = ["step-00000002", "another configuration", "`runtime.seed`"];
    refused(&run(&arguments), 4, &words);
    // Under the number of another step, too.
    fs::rename(checkpoint(&path, 4), checkpoint(&path, 6)).unwrap();
    let words = ["step-00000006", "damaged", "step-00000004"];
    refused(&run(&tiny(&path, &LONGER)), 4, &words);
    let after = fs::read(checkpoint(&path, 6).join("state.safetensors")).unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_file_among_the_checkpoints_is_none() {
    let (_folder, path) = copy_of_finished();
    fs::write(checkpoint(&path, 7), "a stray file").unwrap();
    let output = run(&tiny(&path, &LONGER));
    assert!(output.status.success(), "{}", binary::stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("all 4 steps are done"), "{said}");
}

#[test]
fn a_run_folder_of_another_configuration_is_refused() {
    let (_folder, path) = copy_of_finished();
    let output = run(&tiny(
        &path,
        &["train_steps=4", "checkpoint_steps=2", "temperature=0.7"],
    ));
    refused(&output, 2, &["`temperature`", "0.1", "0.7", "model_dir"]);
}

/// As after pictures were changed: the hash is no key that anybody could set back.
#[test]
fn changed_files_of_a_set_are_told_as_such() {
    let (_folder, path) = copy_of_finished();
    let file = path.join("run.json");
    let mut marker: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let pairs = marker["config"].as_array_mut().unwrap();
    let hash = pairs.iter_mut().find(|pair| pair[0] == "data").unwrap();
    hash[1] = "87f58bed".into();
    fs::write(&file, marker.to_string()).unwrap();
    let output = run(&tiny(&path, &LONGER));
    let words = [
        "a run on other data: the files of `data_dir`",
        "have changed since it began",
        "`87f58bed`",
        "bring back the files",
    ];
    refused(&output, 2, &words);
    let said = binary::stderr(&output);
    assert!(!said.contains("configuration"), "{said}");
}

#[test]
fn a_folder_with_other_things_is_refused() {
    let folder = folder();
    fs::write(folder.path().join("thesis.tex"), "words").unwrap();
    refused(
        &run(&tiny(folder.path(), &[])),
        2,
        &["model_dir", "thesis.tex"],
    );
}

#[test]
fn a_run_folder_in_use_is_refused() {
    let (_folder, path) = copy_of_finished();
    let lock = fs::File::options()
        .read(true)
        .write(true)
        .open(path.join("lock"))
        .unwrap();
    lock.lock().unwrap();
    refused(&run(&tiny(&path, &LONGER)), 3, &["model_dir", "in use"]);
}

#[test]
fn a_full_disk_harms_no_checkpoint() {
    let folder = folder();
    let path = folder.path().join("run");
    let first = run(&tiny(
        &path,
        &[
            "train_steps=6",
            "checkpoint_steps=2",
            "keep_checkpoint_max=0",
        ],
    ));
    assert!(first.status.success(), "{}", binary::stderr(&first));
    fs::remove_dir_all(checkpoint(&path, 6)).unwrap();
    let state = checkpoint(&path, 4).join("state.safetensors");
    let before = fs::read(&state).unwrap();
    // Files may not grow past 256 KiB: the disk is full for the next checkpoint, but not for a line of metrics.
    let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\"";
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_simclr")])
        .args(tiny(
            &path,
            &[
                "train_steps=6",
                "checkpoint_steps=2",
                "keep_checkpoint_max=0",
            ],
        ))
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    refused(&output, 3, &["step-00000006"]);
    assert_eq!(fs::read(&state).unwrap(), before);
    assert!(!checkpoint(&path, 6).exists());
    let left: Vec<_> = fs::read_dir(path.join("checkpoints")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

const EXPLODING: [&str; 3] = ["optimizer=momentum", "learning_rate=1e9", "runtime.seed=5"];

#[test]
fn a_loss_that_is_no_number_names_step_and_seed() {
    let words = ["not a number", "step ", "seed 5", "learning_rate"];
    let more = [&EXPLODING[..], &["train_steps=40"]].concat();
    refused_tiny(&more, 1, &words);
}

/// The arguments of a run that, with a high rate, learns too fast after some good steps.
fn too_fast(model_dir: &Path, more: &[&str]) -> Vec<String> {
    let keys = ["train_steps=12", "train_summary_steps=4", "runtime.seed=5"];
    tiny(model_dir, &[&keys[..], more].concat())
}

/// The run folder that such a run leaves, and the step at which it ended.
fn failed(folder: &Path) -> (PathBuf, u64) {
    let path = folder.join("run");
    let output = run(&too_fast(&path, &["learning_rate=1e6"]));
    refused(
        &output,
        1,
        &["the loss is not a number", "from the beginning"],
    );
    let said = binary::stderr(&output);
    let (_, step) = said.rsplit_once(" at step ").unwrap();
    let step = step.split(' ').next().unwrap().parse().unwrap();
    (path, step)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn after_a_loss_that_is_no_number_a_corrected_command_begins_anew() {
    let folder = folder();
    let (path, step) = failed(folder.path());
    // The good steps are told, those after the last whole window too.
    let rows = metrics::read(&path.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = rows.iter().map(|row| row.step).collect();
    assert_eq!(steps, [4, step - 1]);
    let good = |row: &Scalars| row.get("train/contrast_loss").is_some_and(f64::is_finite);
    assert!(rows.iter().all(good), "{rows:?}");

    // A command that is refused itself takes nothing over.
    let left = |name: &str| fs::read(path.join(name)).unwrap();
    let (curves, marker) = (left("metrics.jsonl"), left("run.json"));
    let wrong = ["learning_rate=0.1", "checkpoint=/no/such/run"];
    refused(&run(&too_fast(&path, &wrong)), 2, &["/no/such/run"]);
    assert!(left("metrics.jsonl") == curves && left("run.json") == marker);

    let output = run(&too_fast(&path, &["learning_rate=0.1"]));
    let said = binary::stderr(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(left("metrics-before.jsonl"), curves);
    let line = said.lines().find(|line| line.contains("begins anew"));
    let line = line.unwrap_or_else(|| panic!("no word of it in {said}"));
    assert!(
        line.contains("`learning_rate` found `1000000.0`, expected `0.1`"),
        "{line}"
    );
    let rows = metrics::read(&path.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = rows.iter().map(|row| row.step).collect();
    assert_eq!(steps, [4, 8, 12]);
    let events = names(&path);
    let events = events.iter().filter(|name| name.contains("tfevents"));
    assert_eq!(events.count(), 1);
    let config = fs::read_to_string(path.join("config.yaml")).unwrap();
    assert!(config.contains("learning_rate: 0.1 "), "{config}");
    // The log tells of both.
    let log = fs::read_to_string(path.join("log.txt")).unwrap();
    assert!(log.contains("is not a number") && log.contains("begins anew"));

    // Now something was learned.
    let other = run(&too_fast(&path, &["learning_rate=0.2"]));
    refused(&other, 2, &["another configuration", "`learning_rate`"]);
}

#[test]
fn a_run_folder_in_which_anything_was_learned_is_not_taken_over() {
    let folder = folder();
    let (path, _) = failed(folder.path());
    let before = names(&path);
    let metrics = fs::read(path.join("metrics.jsonl")).unwrap();
    let other = || run(&too_fast(&path, &["learning_rate=0.1"]));
    for (what, put) in [
        ("checkpoints/step-00000002", "manifest.json"),
        ("checkpoints/step-00000002.aside-1", "manifest.json"),
        ("checkpoints/.tmp-step-00000002", "state.safetensors"),
        ("eval", "metrics.jsonl"),
        (".", "resumed-from"),
        (".", "notes.txt"),
    ] {
        fs::create_dir_all(path.join(what)).unwrap();
        fs::write(path.join(what).join(put), "x").unwrap();
        refused(&other(), 2, &["another configuration", "`learning_rate`"]);
        assert!(path.join(what).join(put).exists(), "{what}");
        assert_eq!(fs::read(path.join("metrics.jsonl")).unwrap(), metrics);
        fs::remove_dir_all(path.join("checkpoints")).ok();
        fs::remove_dir_all(path.join("eval")).ok();
        fs::remove_file(path.join(what).join(put)).ok();
    }
    assert_eq!(names(&path), before);
    // Nor one that has curves but no log, which may be all that was kept of a run.
    let log = fs::read(path.join("log.txt")).unwrap();
    fs::remove_file(path.join("log.txt")).unwrap();
    refused(&other(), 2, &["another configuration", "`learning_rate`"]);
    assert_eq!(fs::read(path.join("metrics.jsonl")).unwrap(), metrics);
    fs::write(path.join("log.txt"), log).unwrap();

    // Nor one whose checkpoints were deleted: its curves are what is left of it.
    let path = folder.path().join("learned");
    let output = run(&too_fast(&path, &[]));
    assert!(output.status.success(), "{}", binary::stderr(&output));
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    let other = run(&too_fast(&path, &["learning_rate=0.1"]));
    refused(&other, 2, &["another configuration"]);
    assert_eq!(metrics::read(&path.join("metrics.jsonl")).unwrap().len(), 3);
}

/// They may lie on a disk that is not mounted; what is left of the run, its curves, is kept too.
#[test]
fn a_run_whose_checkpoints_are_gone_does_not_begin_anew() {
    let (folder, path) = copy_of_finished();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(path.join("checkpoints"), &elsewhere).unwrap();
    let words = ["no checkpoint of", "come to step 4", "mounted", "anew"];
    let gone = || {
        let left = names(&path);
        refused(&run(&tiny(&path, &LONGER)), 4, &words);
        assert_eq!(names(&path), left);
        let rows = metrics::read(&path.join("metrics.jsonl")).unwrap();
        assert_eq!(rows.last().map(|row| row.step), Some(4));
    };
    gone();
    fs::create_dir(path.join("checkpoints")).unwrap();
    gone();
    fs::remove_dir(path.join("checkpoints")).unwrap();
    std::os::unix::fs::symlink("/not/mounted", path.join("checkpoints")).unwrap();
    gone();
    // Mounted again, or from a copy, it goes on.
    fs::remove_file(path.join("checkpoints")).unwrap();
    let mut from_copy = tiny(&path, &LONGER);
    let copy = elsewhere.join("step-00000002").display().to_string();
    from_copy.extend(["--resume-from".into(), copy]);
    let output = run(&from_copy);
    assert!(output.status.success(), "{}", binary::stderr(&output));
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, path.join("checkpoints")).unwrap();
    let output = run(&tiny(&path, &LONGER));
    assert!(output.status.success(), "{}", binary::stderr(&output));
}

#[test]
fn metrics_that_end_before_the_checkpoint_are_told() {
    let folder = folder();
    let path = folder.path().join("run");
    let every = ["train_summary_steps=2", "checkpoint_steps=5"];
    let begun = |steps: &str| {
        let output = run(&tiny(&path, &[&every[..], &[steps]].concat()));
        assert!(output.status.success(), "{}", binary::stderr(&output));
        binary::stderr(&output)
    };
    begun("train_steps=10");
    // All is there.
    assert!(!begun("train_steps=10").contains("lost"));
    let file = path.join("metrics.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    let four: String = whole.split_inclusive('\n').take(2).collect();
    fs::write(&file, four).unwrap();
    let said = begun("train_steps=10");
    let line = said.lines().find(|line| line.contains("lost"));
    let line = line.unwrap_or_else(|| panic!("no word of it in {said}"));
    assert!(line.contains("no line after step 4"), "{line}");
    assert!(line.contains("metrics.jsonl"), "{line}");
    fs::remove_file(&file).unwrap();
    assert!(begun("train_steps=10").contains("no line after step 0"));
    // Of the step after which a run stopped there need be no line.
    let last = checkpoint(&path, 10);
    fs::remove_dir_all(&last).unwrap();
    let four: String = whole.split_inclusive('\n').take(2).collect();
    fs::write(&file, four).unwrap();
    assert!(!begun("train_steps=10").contains("lost"));
}

/// From its last checkpoint a run goes on only in the configuration that failed; another run takes its weights.
#[test]
fn after_a_checkpoint_the_remedy_is_a_new_run_from_its_weights() {
    let folder = folder();
    let path = folder.path().join("run");
    let failing = ["learning_rate=1e6", "checkpoint_steps=2"];
    let output = run(&too_fast(&path, &failing));
    refused(&output, 1, &["another model_dir", "checkpoint="]);
    let said = binary::stderr(&output);
    let from = said
        .split_whitespace()
        .find(|word| word.starts_with("checkpoint="));
    let more = [from.unwrap(), "learning_rate=0.1"];
    let output = run(&too_fast(&folder.path().join("next"), &more));
    assert!(output.status.success(), "{}", binary::stderr(&output));
}

#[test]
fn a_state_with_no_numbers_is_not_saved() {
    let folder = folder();
    let path = folder.path().join("run");
    let more = [&EXPLODING[..], &["train_steps=40", "checkpoint_steps=1"]].concat();
    let output = run(&tiny(&path, &more));
    refused(&output, 1, &["not a number", "seed 5"]);
    // What is offered to go on from is there, and good.
    let named = checkpoint(&path, 1);
    assert!(
        binary::stderr(&output).contains(&named.display().to_string()),
        "{}",
        binary::stderr(&output)
    );
    let log = fs::read_to_string(path.join("log.txt")).unwrap();
    assert!(log.contains("not a number"), "{log}");
    for entry in fs::read_dir(path.join("checkpoints")).unwrap() {
        let bytes = fs::read(entry.unwrap().path().join("state.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in tensors.iter() {
            let mut numbers = tensor.data().chunks_exact(4);
            let finite = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite();
            assert!(
                tensor.dtype() != safetensors::Dtype::F32 || numbers.all(finite),
                "{name}"
            );
        }
    }
}
