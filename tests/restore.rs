//! What a new run takes over from a checkpoint, rule by rule (reference §8.2), and what it refuses. With a rate of zero a step leaves
//! what it was given, so that the checkpoint after it shows what that was.

mod binary;

use binary::{checkpoint, refused, run, simclr, state, stderr, tiny};
use simclr::train::checkpoint as checkpoints;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

type State = BTreeMap<String, Vec<u8>>;

fn of(model_dir: &Path, step: u64) -> State {
    let arrays = state(model_dir, step).into_iter();
    arrays.map(|(name, _, bytes)| (name, bytes)).collect()
}

fn succeeded(arguments: &[String]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

/// A run of three steps with momentum in its slots, made once.
fn source() -> &'static Path {
    static RUN: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = RUN.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run");
        succeeded(&tiny(
            &path,
            &["train_steps=3", "learning_rate=1", "runtime.seed=5"],
        ));
        (home, path)
    });
    path
}

/// Arguments of one step from [`source`].
fn from_source(command: &str, model_dir: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = tiny(model_dir, &["train_steps=1"]);
    arguments[0] = command.into();
    arguments.push(format!("checkpoint={}", source().display()));
    arguments.extend(more.iter().map(|text| text.to_string()));
    arguments
}

/// Whether a step at rate zero leaves an array alone.
fn kept(name: &str) -> bool {
    !name.contains("moving_") && name != "global_step"
}

fn slot(name: &str) -> bool {
    name.ends_with("/Momentum")
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

/// Rule 1: a run that has a checkpoint of its own goes on from it; `checkpoint` is irrelevant then, and may be gone.
#[test]
fn an_own_checkpoint_goes_before_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    let (gone, dir) = (home.path().join("gone"), home.path().join("run"));
    succeeded(&tiny(&gone, &["train_steps=1"]));
    let mut arguments = tiny(&dir, &["train_steps=2", "checkpoint_steps=1"]);
    arguments[0] = "finetune".into();
    arguments.push(format!("checkpoint={}", gone.display()));
    succeeded(&arguments);
    let straight = of(&dir, 2);
    fs::remove_dir_all(&gone).unwrap();
    fs::remove_dir_all(checkpoint(&dir, 2)).unwrap();
    let text = succeeded(&arguments);
    assert!(text.contains("resuming at step 1"), "{text}");
    assert!(of(&dir, 2) == straight);
}

/// Rule 2, in either train mode: what the pattern takes has the checkpoint's value, the rest its initial one, and the step begins at 0.
#[test]
fn the_pattern_decides_what_is_taken_in_either_train_mode() {
    let home = tempfile::tempdir().unwrap();
    let still = [
        "learning_rate=0",
        "lineareval_learning_rate=0",
        "weight_decay=0",
    ];
    let fresh = home.path().join("fresh");
    let mut arguments = tiny(&fresh, &["train_steps=1"]);
    arguments.extend(still.map(String::from));
    succeeded(&arguments);
    let (taken, initial) = (of(source(), 3), of(&fresh, 1));
    type Takes = fn(&str) -> bool;
    let cases: [(&str, &str, Takes); 5] = [
        ("pretrain", "null", |_| true),
        ("pretrain", "base_model(?!.*Momentum)", |name| {
            name.starts_with("base_model")
        }),
        ("pretrain", ".*kernel:0$", |name| name.ends_with("kernel")),
        (
            "finetune",
            "(?!global_step|(?:.*/|^)Momentum|head)",
            |name| name.starts_with("base_model"),
        ),
        (
            "finetune",
            "(?!global_step|(?:.*/|^)Momentum|head_supervised)",
            |name| !name.starts_with("head_supervised"),
        ),
    ];
    for (number, (command, pattern, takes)) in cases.into_iter().enumerate() {
        let dir = home.path().join(number.to_string());
        let pattern = format!("variable_schema={pattern}");
        let mut arguments = from_source(command, &dir, &[&pattern]);
        arguments.extend(still.map(String::from));
        succeeded(&arguments);
        let found = of(&dir, 1);
        assert_eq!(found["global_step"], 1u32.to_le_bytes(), "{pattern}");
        for (name, value) in found.iter().filter(|(name, _)| kept(name)) {
            if slot(name) {
                assert!(value.iter().all(|&byte| byte == 0), "{pattern} took {name}");
                continue;
            }
            let expected = if takes(name) { &taken } else { &initial };
            assert!(*value == expected[name], "{pattern}: {name}");
        }
    }
    assert!(taken["base_model/conv2d/kernel"] != initial["base_model/conv2d/kernel"]);
}

/// Rule 2 again: slots are variables like others, and come along where the pattern takes them.
#[test]
fn slots_are_taken_where_the_pattern_takes_them() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let more = [
        "variable_schema=(?!global_step)",
        "learning_rate=0",
        "lineareval_learning_rate=0",
        "weight_decay=0",
    ];
    succeeded(&from_source("pretrain", &dir, &more));
    let (before, after) = (of(source(), 3), of(&dir, 1));
    let name = "base_model/conv2d/kernel/Momentum";
    let (old, new) = (numbers(&before[name]), numbers(&after[name]));
    assert!(old.iter().any(|&x| x != 0.0));
    for (old, new) in old.iter().zip(new) {
        assert!((new - 0.9 * old).abs() <= 1e-6 * old.abs(), "{old} {new}");
    }
}

/// Rule 3: the supervised head is zero after everything else, whatever the pattern takes.
#[test]
fn the_head_is_set_to_zero_after_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let more = ["zero_init_logits_layer=true", "learning_rate=0"];
    succeeded(&from_source("finetune", &dir, &more));
    let (before, after) = (of(source(), 3), of(&dir, 1));
    for part in ["kernel", "bias"] {
        let name = format!("head_supervised/linear_layer/dense/{part}");
        assert!(before[&name].iter().any(|&byte| byte != 0), "{name}");
        assert!(after[&name].iter().all(|&byte| byte == 0), "{name}");
    }
    let name = "head_contrastive/nl_0/dense/kernel";
    assert!(
        before.keys().any(|found| found == name),
        "{:?}",
        before.keys()
    );
    assert!(after[name] == before[name]);
}

/// Rule 4: the original's default is no pattern. (Rule 5, how many checkpoints are kept: tests/checkpoint.rs.)
#[test]
fn the_original_s_default_pattern_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let output = run(&from_source(
        "finetune",
        &dir,
        &["variable_schema=?!global_step"],
    ));
    refused(&output, 2, &["`variable_schema` is", "re.match"]);
}

/// A pattern that takes nothing would train on a network that nobody has trained; one that takes a part of the encoder is told of.
#[test]
fn a_pattern_that_leaves_the_encoder_is_refused_or_told() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let with = |pattern: &str| run(&from_source("finetune", &dir, &[pattern]));
    refused(
        &with("variable_schema=nomatch"),
        2,
        &[
            "`variable_schema` is nomatch",
            "some variable of this network",
        ],
    );
    assert!(!dir.exists());
    let output = with("variable_schema=base_model/conv2d/");
    let words = binary::stderr(&output);
    assert!(output.status.success(), "{words}");
    assert_eq!(words.matches("of the encoder's").count(), 1, "{words}");
    let whole = run(&from_source(
        "finetune",
        &home.path().join("whole"),
        &["variable_schema=base_model"],
    ));
    let words = binary::stderr(&whole);
    assert!(
        whole.status.success() && !words.contains("of the encoder's"),
        "{words}"
    );
}

/// Fine-tuning the whole network leaves those layers of the projection head exactly as they were that the classifier does not look
/// through, decay or not; the first generation never trains any.
#[test]
fn unused_layers_of_the_projection_head_do_not_change_at_all() {
    let home = tempfile::tempdir().unwrap();
    let cases: [(&str, &str, &str, &[&str]); 3] = [
        ("0", "tf2", "momentum", &[]),
        ("1", "tf2", "adam", &["head_contrastive/nl_0/dense/kernel"]),
        ("1", "v1", "momentum", &[]),
    ];
    for (number, (selector, behaviour, optimizer, changed)) in cases.into_iter().enumerate() {
        let dir = home.path().join(number.to_string());
        let (selector, behaviour) = (
            format!("ft_proj_selector={selector}"),
            format!("behaviour={behaviour}"),
        );
        let optimizer = format!("optimizer={optimizer}");
        let more = [&selector, &behaviour, &optimizer].map(String::as_str);
        let mut arguments = from_source("finetune", &dir, &more);
        arguments.extend(["learning_rate=0.1".into(), "weight_decay=0.1".into()]);
        succeeded(&arguments);
        let (before, after) = (of(source(), 3), of(&dir, 1));
        let head = before
            .keys()
            .filter(|name| name.starts_with("head_contrastive") && kept(name) && !slot(name));
        let moved: Vec<&String> = head.filter(|name| before[*name] != after[*name]).collect();
        if changed.is_empty() {
            assert!(moved.is_empty(), "{more:?}: {moved:?}");
        }
        for name in changed {
            assert!(moved.iter().any(|moved| moved == name), "{more:?}: {name}");
        }
        assert!(
            moved.iter().all(|name| name.contains("/nl_0/")),
            "{more:?}: {moved:?}"
        );
        let name = "base_model/conv2d/kernel";
        assert!(before[name] != after[name], "{more:?}: nothing was trained");
    }
}

/// A checkpoint that lacks a variable of its network, or has one more: one sentence, for every command that reads it.
#[test]
fn missing_and_extra_variables_are_refused_by_every_command() {
    let home = tempfile::tempdir().unwrap();
    let (manifest, arrays) = checkpoints::arrays(&checkpoint(source(), 3)).unwrap();
    let name = "base_model/conv2d_1/kernel";
    for what in ["missing", "extra"] {
        let mut list: Vec<_> = arrays.values().cloned().collect();
        let at = list.iter().position(|array| array.name == name).unwrap();
        if what == "missing" {
            list.remove(at);
        } else {
            list[at].name = "base_model/conv2d_99/kernel".into();
            list.push(arrays[name].clone());
        }
        let dir = home.path().join(what);
        checkpoints::save(&dir, &manifest, &list, 0).unwrap();
        let dir = dir.display().to_string();
        let out = home.path().join("out");
        let mut finetune = tiny(&out, &["train_steps=1"]);
        finetune[0] = "finetune".into();
        finetune.push(format!("checkpoint={dir}"));
        let out = out.display().to_string();
        let commands: [Vec<String>; 4] = [
            finetune,
            vec!["evaluate".into(), dir.clone()],
            ["embed", &dir, "Cargo.toml", "-o", "x.npy"]
                .map(String::from)
                .to_vec(),
            ["export", &dir, &out, "--format", "safetensors"]
                .map(String::from)
                .to_vec(),
        ];
        let word = if what == "missing" {
            "conv2d_1/kernel` found nothing"
        } else {
            "conv2d_99"
        };
        for command in commands {
            refused(&run(&command), 4, &[word, "does not fit"]);
            assert!(!Path::new(&out).exists(), "{command:?}");
        }
    }
}

/// The original's `--checkpoint` takes a prefix; here it is imported first.
#[test]
fn what_is_no_checkpoint_of_ours_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    for part in ["index", "data-00000-of-00001"] {
        std::fs::write(home.path().join(format!("model.ckpt-7.{part}")), "").unwrap();
    }
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let prefix = home.path().join("model.ckpt-7");
    for (checkpoint, words) in [
        (prefix.as_path(), "simclr import"),
        (home.path(), "simclr import"),
        (empty.as_path(), "is no run and no checkpoint"),
    ] {
        let out = home.path().join("out");
        let mut finetune = tiny(&out, &["train_steps=1"]);
        finetune[0] = "finetune".into();
        finetune.push(format!("checkpoint={}", checkpoint.display()));
        refused(&run(&finetune), 2, &[words]);
        assert!(!out.exists());
    }

    // A folder of something else is refused before anything in it is read.
    let foreign = home.path().join("foreign");
    std::fs::create_dir_all(foreign.join("checkpoints/step-00000001")).unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (model_dir, words) in [
        (&foreign, "holds `checkpoints`"),
        (&file, "is not a folder"),
    ] {
        let output = run(&tiny(model_dir, &["train_steps=1"]));
        refused(&output, 2, &["`model_dir`", words]);
    }

    // Slots of an optimizer that the source did not have.
    let out = home.path().join("out");
    let more = ["optimizer=adam", "variable_schema=(?!global_step)"];
    let words = ["/Adam` found nothing", "variable_schema=null"];
    refused(&run(&from_source("pretrain", &out, &more)), 4, &words);
    assert!(!out.exists());
}

/// CIFAR-10 whose fourth picture has a label that there is not.
fn mislabelled(folder: &Path) {
    let dir = folder.join("cifar-10-batches-bin");
    fs::create_dir_all(&dir).unwrap();
    let names = (1..=5).map(|number| format!("data_batch_{number}.bin"));
    for name in names.chain(["test_batch.bin".into()]) {
        let records = (0..20u8).flat_map(|i| {
            let label = if i == 3 { 12 } else { i % 10 };
            std::iter::once(label).chain([i; 3072])
        });
        fs::write(dir.join(name), records.collect::<Vec<u8>>()).unwrap();
    }
}

#[test]
fn labels_out_of_range_are_refused() {
    let home = tempfile::tempdir().unwrap();
    mislabelled(home.path());
    let data = format!("data_dir={}", home.path().display());
    let evaluate = simclr()
        .arg("evaluate")
        .arg(source())
        .args(["dataset=cifar10", &data])
        .output()
        .unwrap();
    refused(&evaluate, 4, &["label", "record 3", "12", "0 to 9"]);
    let dir = home.path().join("run");
    let output = run(&from_source("finetune", &dir, &["dataset=cifar10", &data]));
    refused(&output, 4, &["label", "record 3", "12", "0 to 9"]);
    assert!(!dir.exists());
}
