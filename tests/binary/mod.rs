//! Starting the program in tests.
#![allow(dead_code)] // each test binary uses its part

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, with a plugin there already (the first user of a machine fetches it), far from this repository's runs.
pub fn simclr() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simclr"));
    command.env("NO_COLOR", "1").env_remove("SIMCLR_LOG");
    command
}

/// The smallest run that is a run: shapes32, a network of a few channels, no evaluation.
pub fn tiny(model_dir: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "pretrain",
        "dataset=shapes32",
        "resnet_depth=10",
        "width_multiplier=0.125",
        "stem_stride=2",
        "image_size=32",
        "train_batch_size=64",
        "warmup_epochs=0",
        "num_proj_layers=2",
        "proj_out_dim=16",
        "use_blur=false",
        "color_jitter_strength=0.5",
        "runtime.platform=cpu",
        "runtime.devices=1",
        "runtime.eval=false",
    ]
    .map(String::from)
    .to_vec();
    arguments.push(format!("model_dir={}", model_dir.display()));
    arguments.extend(more.iter().map(|text| text.to_string()));
    arguments
}

/// Runs to the end.
pub fn run(arguments: &[String]) -> Output {
    simclr()
        .args(arguments)
        .output()
        .expect("the program starts")
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that a run ended with a code and one sentence that holds all these words.
pub fn refused(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    let error = text
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap_or("");
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// The folder of a checkpoint.
pub fn checkpoint(model_dir: &Path, step: u64) -> PathBuf {
    model_dir.join(format!("checkpoints/step-{step:08}"))
}

/// Names, shapes and bytes of a checkpoint's arrays.
pub fn state(model_dir: &Path, step: u64) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(checkpoint(model_dir, step).join("state.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut arrays: Vec<_> = tensors
        .iter()
        .map(|(name, view)| {
            (
                name.to_string(),
                view.shape().to_vec(),
                view.data().to_vec(),
            )
        })
        .collect();
    arrays.sort();
    arrays
}
