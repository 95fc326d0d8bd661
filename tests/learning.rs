//! The program learns: through the binary, on shapes32.

mod binary;

use binary::{simclr, stderr};

fn figure(line: &serde_json::Value, tag: &str) -> f64 {
    line[tag]
        .as_f64()
        .unwrap_or_else(|| panic!("no {tag} in {line}"))
}

#[test]
fn a_short_run_raises_the_probe() {
    let folder = tempfile::tempdir().unwrap();
    let model_dir = folder.path().join("run");
    let output = simclr()
        .args([
            "pretrain",
            "--config",
            "configs/quickstart.yaml",
            "--quiet",
            "--json",
        ])
        .args([
            "train_epochs=3",
            "train_summary_steps=1",
            "runtime.eval_pixels=false",
        ])
        .arg(format!("model_dir={}", model_dir.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = std::fs::read_to_string(model_dir.join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (before, after) = (&lines[0], &lines[lines.len() - 1]);
    let first = figure(&lines[1], "train/contrast_loss");
    let last = figure(after, "train/contrast_loss");
    assert!(last < first - 0.4, "loss from {first} to {last}");
    let gained = figure(after, "eval/linear_probe") - figure(before, "eval/linear_probe");
    assert!(gained > 0.04, "the probe gained {gained}");
    let knn = figure(after, "eval/knn_20") - figure(before, "eval/knn_20");
    assert!(knn > 0.02, "k-NN gained {knn}");
}

/// Before training each of the 2N − 1 candidates is about as likely as the others, and both directions are summed. The similarities
/// of random projections spread, which raises the loss by the square of 1/temperature: at 0.5 by about one part in a hundred.
#[test]
fn the_loss_starts_at_its_expected_value() {
    let folder = tempfile::tempdir().unwrap();
    let model_dir = folder.path().join("run");
    let output = simclr()
        .args([
            "pretrain",
            "--config",
            "configs/quickstart.yaml",
            "--quiet",
            "temperature=0.5",
        ])
        .args([
            "train_steps=1",
            "warmup_epochs=0",
            "train_summary_steps=1",
            "runtime.eval=false",
        ])
        .arg(format!("model_dir={}", model_dir.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = std::fs::read_to_string(model_dir.join("metrics.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let expected = 2.0 * (2.0 * 256.0f64 - 1.0).ln();
    let first = figure(&line, "train/contrast_loss");
    let apart = (first / expected - 1.0).abs();
    assert!(apart < 0.02, "first loss {first}, expected {expected}");
}
