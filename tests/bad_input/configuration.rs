//! Configurations and command lines.

use super::*;

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
