//! Pretraining on images without classes, through the program: what would speak of classes is absent, and what needs them says so.

mod binary;
mod pictures;

use binary::{refused, simclr, stderr};
use std::path::Path;
use std::process::Output;

const TINY: [&str; 8] = [
    "dataset=pictures",
    "image_size=32",
    "resnet_depth=10",
    "width_multiplier=0.125",
    "train_batch_size=32",
    "warmup_epochs=0",
    "train_steps=2",
    "runtime.platform=cpu",
];

fn run(command: &str, data: &Path, model: &Path, more: &[&str]) -> Output {
    simclr()
        .arg(command)
        .args(TINY)
        .arg(format!("data_dir={}", data.display()))
        .arg(format!("model_dir={}", model.display()))
        .args(["runtime.devices=1", "stem_stride=2"])
        .args(more)
        .output()
        .expect("the program starts")
}

#[test]
fn pictures_without_classes_are_learned_from_and_not_judged_by() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("flat").join("train")).unwrap();
    for number in 0..40 {
        let file = at("flat").join(format!("train/{number:02}.png"));
        std::fs::write(file, pictures::png(number)).unwrap();
    }
    let packed = simclr()
        .args(["data", "pack"])
        .args([at("flat"), at("pictures")])
        .args(["--name", "pictures"])
        .output()
        .expect("the program starts");
    assert!(packed.status.success(), "{}", stderr(&packed));
    let data = at("pictures");

    let output = run("pretrain", &data, &at("run"), &[]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("no evaluation: pictures has no classes"),
        "{said}"
    );
    let metrics = std::fs::read_to_string(at("run").join("metrics.jsonl")).unwrap();
    assert!(said.contains("no online classifier: pictures"), "{said}");
    assert!(metrics.contains("train/contrast_loss"), "{metrics}");
    for absent in ["supervised", "knn", "linear_probe", "top_1"] {
        assert!(!metrics.contains(absent), "{absent}: {metrics}");
    }

    // Another set may judge it; this one may not.
    let evaluate = |more: &[&str]| {
        simclr()
            .arg("evaluate")
            .arg(at("run"))
            .args(["--json", "runtime.platform=cpu", "runtime.devices=1"])
            .args(more)
            .output()
            .expect("the program starts")
    };
    refused(
        &evaluate(&["eval_split=train"]),
        2,
        &["`pictures` have no classes to evaluate by", "dataset"],
    );
    let output = evaluate(&["dataset=shapes32", "eval_split=test", "eval_steps=1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(found.contains("knn_20"), "{found}");

    for (command, more, name) in [
        (
            "finetune",
            vec![format!("checkpoint={}", at("run").display())],
            "to be learned",
        ),
        ("run", vec!["mode=train_then_eval".into()], "to evaluate by"),
    ] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let expected = format!("`pictures` have no classes {name}");
        refused(&run(command, &data, &at("no"), &more), 2, &[&expected]);
        assert!(!at("no").exists(), "{command} wrote");
    }
    // Followed on another set it is measured by its features; where they are not wanted there is nothing to measure.
    let other = [
        "mode=eval",
        "dataset=shapes32",
        "eval_split=test",
        "eval_steps=1",
    ];
    let measured = run("run", &data, &at("run"), &other);
    assert!(measured.status.success(), "{}", stderr(&measured));
    let result = std::fs::read_to_string(at("run").join("result.json")).unwrap();
    assert!(
        result.contains("knn_20") && !result.contains("top_1"),
        "{result}"
    );
    std::fs::remove_dir_all(at("run").join("eval")).unwrap();
    for (more, words) in [
        (
            &["mode=eval", "eval_split=train"][..],
            "no classes to evaluate by",
        ),
        (
            &["mode=eval", "runtime.eval=false"],
            "has no supervised head",
        ),
    ] {
        refused(&run("run", &data, &at("run"), more), 2, &[words]);
        assert!(!at("run").join("eval").exists(), "{more:?}");
    }

    // A page about it has views; neighbours without a word about classes where the split is named.
    let report = |more: &[&str]| {
        let output = simclr()
            .args(["report", "-o"])
            .arg(at("page.html"))
            .arg(at("run"))
            .args(more)
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{}", stderr(&output));
        (
            std::fs::read_to_string(at("page.html")).unwrap(),
            stderr(&output),
        )
    };
    let (page, said) = report(&[]);
    assert!(said.contains("neighbours and map are left out"), "{said}");
    assert!(page.contains("<img class=\"views\"") && !page.contains("<img class=\"query\""));
    let (page, _) = report(&["--set", "eval_split=train"]);
    assert_eq!(page.matches("<img class=\"near\"").count(), 64);
    assert!(!page.contains("the same class"));

    let missing = run("pretrain", &data, &at("no"), &["train_split=validation"]);
    refused(&missing, 2, &["`validation`", "train_split"]);
}
