//! `simclr run`: training and evaluation by `mode`, and the files of results (reference §5.3, §5.4).

mod binary;

use binary::{checkpoint, refused, run, simclr, state, stderr, tiny};
use serde_json::{Map, Value};
use simclr::report::metrics;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Arguments of `simclr run` on [`tiny`].
fn of(model_dir: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = tiny(model_dir, more);
    arguments[0] = "run".into();
    arguments.extend(["eval_steps=2".into(), "eval_batch_size=96".into()]);
    arguments
}

fn object(path: &Path) -> Map<String, Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|_| panic!("no {}", path.display()));
    serde_json::from_str(&text).expect("a JSON object")
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

fn wait_for(path: &Path, child: &mut Child) {
    let watchdog = Instant::now();
    while !path.exists() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "ended before {}", path.display());
        if watchdog.elapsed() > Duration::from_secs(300) {
            child.kill().ok();
            panic!("no {} after five minutes", path.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn train_then_eval_writes_the_results_that_evaluate_finds() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let more = ["mode=train_then_eval", "train_steps=4", "eval_name=small"];
    succeeded(&run(&of(&dir, &more)));

    let found = object(&dir.join("result.json"));
    assert_eq!(found, object(&dir.join("result_4.json")));
    let names: Vec<&String> = found.keys().collect();
    let expected = [
        "eval/label_top_1_accuracy",
        "eval/label_top_5_accuracy",
        "eval/regularization_loss",
        "global_step",
    ];
    assert_eq!(names, expected);
    // Every value a float, the step too.
    assert!(found.values().all(Value::is_f64), "{found:?}");
    assert_eq!(found["global_step"], 4.0);

    let evaluate = simclr()
        .args(["evaluate", "--json", "--head-only"])
        .arg(&dir)
        .output()
        .unwrap();
    succeeded(&evaluate);
    let own: Value = serde_json::from_slice(&evaluate.stdout).unwrap();
    assert_eq!(found["eval/label_top_1_accuracy"], own["figures"]["top_1"]);
    assert_eq!(found["eval/label_top_5_accuracy"], own["figures"]["top_5"]);

    let flags = object(&dir.join("flags.json"));
    assert_eq!(flags["train_steps"], 4);
    assert_eq!(flags["mode"], "train_then_eval");
    assert_eq!(flags["checkpoint"], Value::Null);
    assert_eq!(flags["runtime.devices"], 1);
    let logged = metrics::read(&dir.join("eval_small/metrics.jsonl")).unwrap();
    assert_eq!(logged.len(), 1);
    let top1 = logged[0].get("eval/label_top_1_accuracy");
    assert_eq!(top1, found["eval/label_top_1_accuracy"].as_f64());

    // Once more: nothing to train, the same result.
    fs::remove_file(dir.join("result.json")).unwrap();
    succeeded(&run(&of(&dir, &more)));
    assert_eq!(object(&dir.join("result.json")), found);
}

/// Features are measured where pretraining has no classifier.
#[test]
fn pretraining_without_a_classifier_is_evaluated_by_its_features() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let more = ["mode=train_then_eval", "train_steps=1", "runtime.eval=true"];
    let mut arguments = of(&dir, &more);
    arguments.push("lineareval_while_pretraining=false".into());
    succeeded(&run(&arguments));
    let found = object(&dir.join("result.json"));
    let names: Vec<&String> = found.keys().collect();
    let expected = [
        "eval/knn_20",
        "eval/knn_200",
        "eval/linear_probe",
        "eval/regularization_loss",
        "global_step",
    ];
    assert_eq!(names, expected);
    assert_eq!(found["eval/regularization_loss"].to_string(), "0.0");
    let untrained = metrics::read(&dir.join("metrics.jsonl")).unwrap();
    assert!(
        untrained
            .iter()
            .all(|line| line.get("eval/knn_20").is_none()),
        "training measured too"
    );
}

/// Checkpoints are put into a run folder one by one; evaluation follows to the last step and ends. Names and total loss are the first
/// generation's; the decay is that of what is trained.
#[test]
fn eval_follows_a_run_to_its_end() {
    let home = tempfile::tempdir().unwrap();
    let (pretrained, dir) = (home.path().join("pretrained"), home.path().join("run"));
    succeeded(&run(&tiny(&pretrained, &["train_steps=1", "behaviour=v1"])));
    let from = format!("checkpoint={}", pretrained.display());
    let more = [
        "train_mode=finetune",
        &from,
        "fine_tune_after_block=4",
        "variable_schema=(?!global_step|(?:.*/|^)Momentum|head)",
        "optimizer=momentum",
        "weight_decay=0.5",
        "behaviour=v1",
        "train_steps=6",
        "checkpoint_steps=2",
        "keep_checkpoint_max=0",
    ];
    succeeded(&run(&of(&dir, &more)));
    assert!(!dir.join("result.json").exists(), "mode: train evaluates");
    let aside = home.path().join("aside");
    for step in [2, 4, 6] {
        let to = checkpoint(&aside, step);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(checkpoint(&dir, step), to).unwrap();
    }

    let mut arguments = of(&dir, &more);
    arguments.extend(["mode=eval".into(), "--json".into()]);
    let mut child = simclr()
        .args(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for step in [2, 4, 6] {
        fs::rename(checkpoint(&aside, step), checkpoint(&dir, step)).unwrap();
        if step < 6 {
            wait_for(&dir.join(format!("result_{step}.json")), &mut child);
        }
    }
    let output = child.wait_with_output().unwrap();
    succeeded(&output);
    let lines = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Map<String, Value>> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let steps: Vec<f64> = found
        .iter()
        .map(|f| f["global_step"].as_f64().unwrap())
        .collect();
    assert_eq!(steps, [2.0, 4.0, 6.0]);
    let last = &found[2];
    assert_eq!(*last, object(&dir.join("result.json")));
    let names: Vec<&String> = last.keys().collect();
    let expected = [
        "global_step",
        "label_top_1_accuracy",
        "label_top_5_accuracy",
        "loss",
        "regularization_loss",
    ];
    assert_eq!(names, expected);

    let squares: f64 = state(&dir, 6)
        .iter()
        .filter(|(name, _, _)| name.starts_with("head_supervised") && !name.ends_with("Momentum"))
        .flat_map(|(_, _, bytes)| bytes.chunks_exact(4))
        .map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())).powi(2))
        .sum();
    let decay = last["regularization_loss"].as_f64().unwrap();
    assert!(
        squares > 0.0 && (decay / (0.25 * squares) - 1.0).abs() < 1e-9,
        "{decay}, {squares}"
    );
    let evaluate = simclr()
        .args(["evaluate", "--json", "--head-only"])
        .arg(&dir)
        .output()
        .unwrap();
    succeeded(&evaluate);
    let own: Value = serde_json::from_slice(&evaluate.stdout).unwrap();
    let loss = own["figures"]["loss"].as_f64().unwrap() + decay;
    assert!((last["loss"].as_f64().unwrap() / loss - 1.0).abs() < 1e-12);
}

#[test]
fn a_waiting_evaluation_ends_on_a_signal() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let errors = fs::File::create(home.path().join("errors")).unwrap();
    let mut arguments = of(&dir, &["mode=eval"]);
    arguments.push("-v".into());
    let mut child = simclr()
        .args(&arguments)
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .unwrap();
    let watchdog = Instant::now();
    while !fs::read_to_string(home.path().join("errors"))
        .unwrap()
        .contains("waiting for a new checkpoint")
    {
        assert!(
            watchdog.elapsed() < Duration::from_secs(300),
            "it never waited"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill")
        .args(["-s", "TERM", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let said = fs::read_to_string(home.path().join("errors")).unwrap();
    let absent = format!("; {} is not there yet", dir.display());
    let waiting = said.lines().find(|line| line.starts_with("waiting for"));
    assert!(
        waiting.is_some_and(|line| line.ends_with(&absent)),
        "{said}"
    );
    assert!(!dir.exists(), "evaluation made the run folder");
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let output = run(&tiny(&dir, &["mode=train_then_eval"]));
    refused(&output, 2, &["`mode` is train_then_eval", "simclr run"]);
    let more = ["mode=train_then_eval", "lineareval_while_pretraining=false"];
    refused(
        &run(&of(&dir, &more)),
        2,
        &["`mode`", "nothing to evaluate"],
    );
    assert!(!dir.exists());

    // A head is asked for that is not there.
    let headless = home.path().join("headless");
    let more = ["train_steps=1", "lineareval_while_pretraining=false"];
    succeeded(&run(&tiny(&headless, &more)));
    let more = ["mode=eval", "train_mode=finetune"];
    refused(&run(&of(&headless, &more)), 2, &["has no supervised head"]);
    assert!(!headless.join("result.json").exists());

    // An unwritable result: everything that was trained stays.
    fs::create_dir_all(&dir).unwrap();
    succeeded(&run(&of(&dir, &["train_steps=2"])));
    fs::create_dir(dir.join("result_2.json")).unwrap();
    let output = run(&of(&dir, &["train_steps=2", "mode=train_then_eval"]));
    refused(&output, 3, &["cannot write", "result_2.json"]);
    assert_eq!(
        state(&dir, 2).last().map(|array| array.0.as_str()),
        Some("head_supervised/linear_layer/dense/kernel/Momentum")
    );
}
