//! Fine-tuning through the program: what is frozen stays, what is taken over is what the pattern says, and evaluation is exact on any
//! number of devices.

mod binary;
mod common;

use binary::{run, simclr, stderr, tiny};
use simclr::data::Examples;
use simclr::report::metrics;
use simclr::train::checkpoint;
use simclr::train::classify::classify;
use simclr::train::inference::Inference;
use simclr::train::trained::{Trained, open};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A pretrained run of two steps with an online classifier, made once.
fn pretrained() -> &'static Path {
    static RUN: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = RUN.get_or_init(|| {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("run");
        let output = run(&tiny(&path, &["train_steps=2"]));
        assert!(output.status.success(), "{}", stderr(&output));
        (home, path)
    });
    path
}

const LINEAR: &str = "variable_schema=(?!global_step|(?:.*/|^)Momentum|head)";

/// Arguments of a linear evaluation of [`pretrained`].
fn linear(model_dir: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "finetune",
        "fine_tune_after_block=4",
        "zero_init_logits_layer=true",
        LINEAR,
        "optimizer=momentum",
        "learning_rate=0.1",
        "warmup_epochs=0",
        "weight_decay=0",
        "global_bn=false",
        "train_batch_size=64",
        "train_summary_steps=1",
        "eval_batch_size=96",
        "runtime.platform=cpu",
        "runtime.devices=1",
    ]
    .map(String::from)
    .to_vec();
    arguments.push(format!("checkpoint={}", pretrained().display()));
    arguments.push(format!("model_dir={}", model_dir.display()));
    arguments.extend(more.iter().map(|text| text.to_string()));
    arguments
}

fn value<'t>(run: &'t Trained, name: &str) -> &'t [u8] {
    let at = run.variables.iter().position(|v| v.name == name);
    run.values[at.expect("a variable of this name")].bytes()
}

#[test]
fn a_linear_head_learns_on_a_frozen_encoder_and_resumes_bit_for_bit() {
    let home = tempfile::tempdir().expect("a folder");
    let (whole, parts) = (home.path().join("whole"), home.path().join("parts"));
    let output = run(&linear(&whole, &["train_steps=6"]));
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("fine-tuned 6 steps") && text.contains("top-1"),
        "{text}"
    );

    // The head starts at zero: the first loss is the logarithm of the number of classes.
    let lines = metrics::read(&whole.join("metrics.jsonl")).expect("metrics");
    let first = lines[0].get("train/supervised_loss").expect("a loss");
    assert!((first - 10f64.ln()).abs() < 1e-5, "{first}");
    assert!(
        lines[0].get("train/contrast_loss").is_none(),
        "nothing is contrasted"
    );
    let last = lines.last().expect("a line");
    let top1 = last.get("eval/label_top_1_accuracy").expect("an accuracy");
    assert!(last.get("eval/label_top_5_accuracy").expect("an accuracy") >= top1);

    // The encoder is that of the checkpoint, moving statistics included; the head is not; unused layers of the projection head keep
    // their initial values, since the pattern leaves them out.
    let (before, after) = (
        open(pretrained()).expect("a run"),
        open(&whole).expect("a run"),
    );
    for variable in &before.variables {
        let name = variable.name.as_str();
        let same = value(&before, name) == value(&after, name);
        if name.starts_with("base_model") {
            assert!(same, "{name} has changed");
        } else if name.starts_with("head_supervised") {
            assert!(!same, "{name} has not changed");
        }
    }
    let (_, arrays) = checkpoint::arrays(&after.checkpoint).expect("a checkpoint");
    let slots: Vec<&String> = arrays
        .keys()
        .filter(|name| name.ends_with("Momentum"))
        .collect();
    assert_eq!(slots.len(), 2, "slots of what is trained only: {slots:?}");

    // The same in two parts.
    let stop = run(&linear(
        &parts,
        &["train_steps=6", "checkpoint_steps=3", "runtime.eval=false"],
    ));
    assert!(stop.status.success(), "{}", stderr(&stop));
    std::fs::remove_dir_all(parts.join("checkpoints/step-00000006")).expect("removed");
    let again = run(&linear(
        &parts,
        &["train_steps=6", "checkpoint_steps=3", "runtime.eval=false"],
    ));
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(
        stderr(&again).contains("resuming at step 3"),
        "{}",
        stderr(&again)
    );
    assert_eq!(open(&parts).expect("a run").values, after.values);
}

/// What normalises the frozen encoder: its moving statistics, which stay, as in evaluation; or each batch's, and the moving ones drift
/// (the original's second generation).
#[test]
fn frozen_bn_says_what_normalises_a_frozen_encoder() {
    let home = tempfile::tempdir().expect("a folder");
    let tune = |name: &str, more: &[&str]| -> (Trained, f64) {
        let dir = home.path().join(name);
        // The head comes along, so that the first loss depends on the features.
        let own = [
            "train_steps=1",
            "runtime.eval=false",
            "zero_init_logits_layer=false",
            "variable_schema=(?!global_step|(?:.*/|^)Momentum)",
        ];
        let output = run(&linear(&dir, &[&own[..], more].concat()));
        assert!(output.status.success(), "{}", stderr(&output));
        let lines = metrics::read(&dir.join("metrics.jsonl")).expect("metrics");
        let loss = lines[0].get("train/supervised_loss").expect("a loss");
        (open(&dir).expect("a run"), loss)
    };
    let before = open(pretrained()).expect("a run");
    let (moving, moving_loss) = tune("moving", &["frozen_bn=moving"]);
    let (batch, batch_loss) = tune("batch", &["frozen_bn=batch"]);
    assert_ne!(moving_loss, batch_loss, "the same views, other features");
    for variable in &before.variables {
        let name = variable.name.as_str();
        if !name.starts_with("base_model") {
            continue;
        }
        let of = |run| value(run, name);
        assert_eq!(of(&before), of(&moving), "{name}");
        let drifts = name.contains("/moving_");
        assert_eq!(of(&before) != of(&batch), drifts, "{name}");
    }

    // With the moving statistics an image's features depend on no other image: halves of the batch on two devices, each with
    // statistics of its own if it had any (global_bn is off), give the same loss; with batch statistics another one.
    let close = |a: f64, b: f64| (a - b).abs() < 1e-5;
    let (_, two) = tune("moving2", &["frozen_bn=moving", "runtime.devices=2"]);
    assert!(close(two, moving_loss), "{two} {moving_loss}");
    let (_, two) = tune("batch2", &["frozen_bn=batch", "runtime.devices=2"]);
    assert!(!close(two, batch_loss), "{two} {batch_loss}");
}

/// 1, 4 and 8 devices, with last batches that are not full: the same figures, and rows as they are one by one.
#[test]
fn evaluation_is_exact_on_any_number_of_devices() {
    let trained = open(pretrained()).expect("a run");
    let mut config = trained.loaded.config.clone();
    config.eval_batch_size = 96;
    config.eval_steps = 5;
    let examples = Arc::new(Examples::open("shapes32", "test", None).expect("shapes32"));
    let engine = common::engine(8);
    let of = |devices: usize| {
        let (network, values) = (&trained.network, &trained.values);
        classify(&engine, &config, network, values, devices, &examples).expect("figures")
    };
    let one = of(1);
    assert_eq!(one.examples, 480);
    assert_eq!(one.confusion.iter().flatten().sum::<u32>(), 480);
    for devices in [4, 8] {
        let found = of(devices);
        assert_eq!(found.confusion, one.confusion, "{devices} devices");
        assert_eq!((found.top1, found.top5), (one.top1, one.top5));
        assert!((found.loss - one.loss).abs() < 1e-6, "{}", found.loss);
    }

    // 5 and 101 images in launches of 96 and 7 over 1, 4 and 8 devices.
    let pixels = &examples.memory().expect("in memory").images;
    let bytes = 32 * 32 * 3;
    let (network, values) = (&trained.network, &trained.values);
    let whole = Inference::new(&engine, &config, network, values, 1, 101).expect("compiled");
    let whole = whole.run(&pixels[..101 * bytes]).expect("run");
    for (devices, batch) in [(1, 96), (4, 96), (8, 96), (8, 7)] {
        let inference = Inference::new(&engine, &config, network, values, devices, batch);
        let inference = inference.expect("compiled");
        for count in [5, 101] {
            let seen = inference.run(&pixels[..count * bytes]).expect("run");
            assert_eq!(seen.features.len(), count * inference.width);
            assert_eq!(seen.logits.len(), count * inference.classes);
            let same = |a: &[f32], b: &[f32]| {
                a.iter()
                    .zip(b)
                    .all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + b.abs()))
            };
            assert!(
                same(&seen.features, &whole.features),
                "{devices}, {batch}, {count}"
            );
            assert!(
                same(&seen.logits, &whole.logits),
                "{devices}, {batch}, {count}"
            );
        }
    }
}

/// With bf16 activations the logits are still features times kernel plus bias in f32: bf16 would round away what tells classes apart.
#[test]
fn logits_are_f32_also_with_bf16_activations() {
    let trained = open(pretrained()).expect("a run");
    let mut config = trained.loaded.config.clone();
    config.runtime.bf16 = true;
    let examples = Examples::open("shapes32", "test", None).expect("shapes32");
    let pixels = &examples.memory().expect("in memory").images[..50 * 32 * 32 * 3];
    let engine = common::engine(1);
    let see = |config| {
        let (network, values) = (&trained.network, &trained.values);
        let inference = Inference::new(&engine, config, network, values, 1, 50).expect("compiled");
        inference.run(pixels).expect("run")
    };
    let seen = see(&config);
    assert_ne!(
        seen.features,
        see(&trained.loaded.config).features,
        "bf16 is on"
    );
    let array = |part: &str| -> Vec<f64> {
        let bytes = value(
            &trained,
            &format!("head_supervised/linear_layer/dense/{part}"),
        );
        let words = bytes.chunks_exact(4);
        words
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes"))))
            .collect()
    };
    let (kernel, bias) = (array("kernel"), array("bias"));
    let width = kernel.len() / 10;
    for (features, logits) in seen.features.chunks(width).zip(seen.logits.chunks(10)) {
        for (class, &logit) in logits.iter().enumerate() {
            let terms = features.iter().enumerate();
            let products = terms.map(|(i, &x)| f64::from(x) * kernel[i * 10 + class]);
            let (sum, size) = products.fold((bias[class], 0.0), |(sum, size), product| {
                (sum + product, size + product.abs())
            });
            assert!(
                (f64::from(logit) - sum).abs() < 1e-6 * (1.0 + size),
                "{logit} {sum}"
            );
        }
    }
}

#[test]
fn bad_input_is_refused_in_a_sentence() {
    let home = tempfile::tempdir().expect("a folder");
    let none = home.path().join("none");
    let headless = home.path().join("headless");
    let made = run(&tiny(
        &headless,
        &["train_steps=1", "lineareval_while_pretraining=false"],
    ));
    assert!(made.status.success(), "{}", stderr(&made));
    let checkpoint = format!("checkpoint={}", none.display());
    let without_head = format!("checkpoint={}", headless.display());
    let cases: [(&[&str], i32, &str); 10] = [
        (&["eval_split=validation"], 2, "validation"),
        (
            &["variable_schema=?!global_step"],
            2,
            "`variable_schema` is",
        ),
        (
            &["fine_tune_after_block=5"],
            2,
            "a whole number from -1 to 4",
        ),
        (&[&checkpoint], 2, "is no run and no checkpoint"),
        (
            &["width_multiplier=0.25"],
            4,
            "`width_multiplier=0.125` (now 0.25)",
        ),
        (&["resnet_depth=18"], 4, "`resnet_depth=10` (now 18)"),
        (
            &["num_proj_layers=3", "variable_schema=null"],
            4,
            "`num_proj_layers=2` (now 3)",
        ),
        (
            &[&without_head, "variable_schema=null"],
            4,
            "`head_supervised/linear_layer/dense/kernel` found nothing",
        ),
        (
            &["checkpoint=null", "dataset=shapes32", "image_size=32"],
            2,
            "`zero_init_logits_layer` is true",
        ),
        (&["ft_proj_selector=7"], 2, "`ft_proj_selector` is 7"),
    ];
    for (number, (more, code, words)) in cases.into_iter().enumerate() {
        let model_dir = home.path().join(number.to_string());
        let output = run(&linear(&model_dir, more));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {text}");
        assert!(text.contains(words), "{more:?}: {text}");
        assert!(!model_dir.exists(), "{more:?} has written something");
        if more == ["num_proj_layers=3", "variable_schema=null"] {
            // What the sentence asks for, in the same folder.
            let corrected = ["num_proj_layers=2", "variable_schema=null", "train_steps=1"];
            let output = run(&linear(&model_dir, &corrected));
            assert!(output.status.success(), "{}", stderr(&output));
        }
    }
    let output = simclr()
        .args(["pretrain", "fine_tune_after_block=2"])
        .output()
        .expect("a start");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("-1 in pretraining"),
        "{}",
        stderr(&output)
    );
    let output = simclr()
        .args(["pretrain", "train_mode=finetune"])
        .output()
        .expect("a start");
    assert!(
        stderr(&output).contains("simclr finetune"),
        "{}",
        stderr(&output)
    );
}
