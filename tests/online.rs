//! What is measured and learned beside pretraining: k-NN every few epochs, and the online classifier with a rate of its own.

mod binary;

use binary::{refused, run, simclr, state, stderr, tiny};
use simclr::report::metrics;
use std::path::Path;

fn succeeded(arguments: &[String]) {
    let output = run(arguments);
    assert!(output.status.success(), "{}", stderr(&output));
}

fn tags(model_dir: &Path) -> Vec<String> {
    let lines = metrics::read(&model_dir.join("metrics.jsonl")).unwrap();
    lines[0].values.keys().cloned().collect()
}

#[test]
fn figures_of_a_classifier_are_there_with_one_only() {
    let home = tempfile::tempdir().unwrap();
    for (name, classifier) in [("with", true), ("without", false)] {
        let dir = home.path().join(name);
        let choice = format!("lineareval_while_pretraining={classifier}");
        succeeded(&tiny(
            &dir,
            &["train_steps=1", "train_summary_steps=1", &choice],
        ));
        let tags = tags(&dir);
        for tag in ["train/supervised_loss", "train/supervised_acc"] {
            assert_eq!(tags.iter().any(|found| found == tag), classifier, "{tag}");
        }
        for tag in ["train/contrast_loss", "train/total_loss", "learning_rate"] {
            assert!(tags.iter().any(|found| found == tag), "{tag} in {tags:?}");
        }
    }
}

/// Two epochs with k-NN after each: what `simclr evaluate` says of the same checkpoints, and the state as without it.
#[test]
fn neighbours_every_epoch_are_those_of_the_checkpoints_and_change_nothing() {
    let home = tempfile::tempdir().unwrap();
    let more = [
        "train_batch_size=512",
        "train_steps=40",
        "checkpoint_epochs=1",
        "lineareval_while_pretraining=false",
        "eval_steps=4",
    ];
    let (with, without) = (home.path().join("with"), home.path().join("without"));
    let mut arguments = tiny(&with, &more);
    arguments.push("knn_epochs=1".into());
    succeeded(&arguments);
    succeeded(&tiny(&without, &more));
    assert!(state(&with, 40) == state(&without, 40));

    let lines = metrics::read(&with.join("metrics.jsonl")).unwrap();
    let measured: Vec<_> = lines
        .iter()
        .filter(|line| line.get("eval/knn_20").is_some())
        .collect();
    let steps: Vec<u64> = measured.iter().map(|line| line.step).collect();
    assert_eq!(steps, [20, 40]);
    for line in measured {
        let output = simclr()
            .args(["evaluate", "--json"])
            .arg(binary::checkpoint(&with, line.step))
            .output()
            .unwrap();
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for k in ["knn_20", "knn_200"] {
            let own = line.get(&format!("eval/{k}")).map(|value| value as f32);
            let evaluated = found["figures"][k].as_f64().map(|value| value as f32);
            assert_eq!(own, evaluated, "{k} at {}", line.step);
        }
    }
    let mut wrong = tiny(&home.path().join("wrong"), &["knn_epochs=1"]);
    wrong[0] = "finetune".into();
    refused(
        &run(&wrong),
        2,
        &["`knn_epochs` is 1", "0 outside pretraining"],
    );
}

/// Under LARS the classifier's step goes with its own rate and nothing else does; 0 gives it the original's.
#[test]
fn the_online_classifier_has_its_own_rate_under_lars() {
    let home = tempfile::tempdir().unwrap();
    let of = |name: &str, rate: &str| {
        let dir = home.path().join(name);
        let rate = format!("lineareval_learning_rate={rate}");
        let more = [
            "train_steps=2",
            "learning_rate=0.5",
            "weight_decay=0",
            &rate,
        ];
        succeeded(&tiny(&dir, &more));
        state(&dir, 2)
    };
    let bias = |state: &[(String, Vec<usize>, Vec<u8>)]| -> Vec<f64> {
        let name = "head_supervised/linear_layer/dense/bias";
        let (_, _, bytes) = state.iter().find(|array| array.0 == name).unwrap();
        let values = bytes.chunks_exact(4);
        values
            .map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())))
            .collect()
    };
    let (one, ten) = (of("one", "0.00001"), of("ten", "0.0001"));
    // At such rates the gradients hardly change between two steps, and the bias begins at zero.
    for (small, large) in bias(&one).iter().zip(bias(&ten)) {
        assert!((large / small / 10.0 - 1.0).abs() < 1e-2, "{small} {large}");
    }
    for (a, b) in one.iter().zip(&ten) {
        let same = a.2 == b.2;
        assert_eq!(same, !a.0.starts_with("head_supervised"), "{}", a.0);
    }
    assert!(of("original", "0") == of("equal", "0.5"));
}

/// Of 48 images no 200 are the nearest.
#[test]
fn neighbours_are_as_many_as_there_are_images_or_not_measured() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("list.txt");
    let list = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("train_{i:05}\n")).collect();
        std::fs::write(&file, names.concat()).unwrap();
        format!("subset_list={}", file.display())
    };
    for (count, neighbours) in [
        (19, &[][..]),
        (48, &["knn_20"]),
        (200, &["knn_20", "knn_200"]),
    ] {
        let dir = home.path().join(count.to_string());
        let more = [
            &list(count),
            "train_batch_size=16",
            "train_steps=4",
            "eval_steps=1",
            "knn_epochs=1",
            "runtime.eval_pixels=true",
        ];
        let mut arguments = tiny(&dir, &more);
        arguments.retain(|argument| argument != "runtime.eval=false");
        // Told again by a start that only reads its beginning.
        for _ in 0..2 {
            let output = run(&arguments);
            assert!(output.status.success(), "{}", stderr(&output));
            let summary = String::from_utf8(output.stdout).unwrap();
            for k in ["20", "200"] {
                let measured = neighbours.contains(&format!("knn_{k}").as_str());
                let told = summary.contains(&format!("k-NN, k = {k} "));
                assert_eq!(told, measured, "k = {k} of {count}: {summary}");
            }
            assert!(summary.contains("linear probe"), "{summary}");
        }
        let output = simclr()
            .args(["evaluate", "--json"])
            .arg(&dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |name: &str| found["figures"].get(name).is_some();
        for name in ["knn_20", "knn_200"] {
            assert_eq!(of(name), neighbours.contains(&name), "{name} of {count}");
        }
        assert!(of("linear_probe"));
    }
}
