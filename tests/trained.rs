//! Opening a trained run: what comes back is what was saved, and every way in which it can fail is named.

mod binary;

use binary::{run, stderr, tiny};
use simclr::config;
use simclr::hlo::{DType, Literal, Shape};
use simclr::nn::Variable;
use simclr::train::checkpoint;
use simclr::train::setup::network;
use simclr::train::step::StateArray;
use simclr::train::trained::{Error, open};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A run of two steps, made once.
fn folder() -> &'static Path {
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

/// Variables as arrays of a state.
fn arrays(variables: &[Variable]) -> Vec<StateArray> {
    let array = |v: &Variable| StateArray {
        name: v.name.clone(),
        shape: Shape::new(DType::F32, v.dims.clone()),
    };
    variables.iter().map(array).collect()
}

#[test]
fn a_run_opens_with_the_values_that_were_saved() {
    let trained = open(folder()).expect("a run");
    assert_eq!(trained.manifest.step, 2);
    assert_eq!(trained.loaded.config.resnet_depth, 10);
    assert_eq!(
        trained.network.num_classes,
        Some(10),
        "shapes32 has ten classes"
    );
    assert_eq!(trained.variables.len(), trained.values.len());
    let (_, arrays) = checkpoint::arrays(&trained.checkpoint).expect("a checkpoint");
    for (variable, value) in trained.variables.iter().zip(&trained.values) {
        assert_eq!(
            value.bytes(),
            arrays[&variable.name].bytes,
            "{}",
            variable.name
        );
    }
    // The checkpoint's own folder and the folder of checkpoints mean the same.
    for path in [trained.checkpoint.clone(), folder().join("checkpoints")] {
        assert_eq!(open(&path).expect("a checkpoint").values, trained.values);
    }
}

#[test]
fn values_for_another_network_are_taken_or_refused_by_name() {
    let trained = open(folder()).expect("a run");
    let same = trained
        .values_for(
            &arrays(&trained.variables),
            |name| !name.starts_with("head"),
            &trained.loaded,
        )
        .expect("the same network");
    for ((variable, value), taken) in trained.variables.iter().zip(&trained.values).zip(same) {
        let expected: Option<&Literal> = (!variable.name.starts_with("head")).then_some(value);
        assert_eq!(taken.as_ref(), expected, "{}", variable.name);
    }
    let other = |overrides: &[&str]| {
        let mut all = vec![
            "dataset=shapes32",
            "resnet_depth=10",
            "width_multiplier=0.125",
            "stem_stride=2",
            "image_size=32",
            "num_proj_layers=2",
            "proj_out_dim=16",
        ];
        all.extend(overrides);
        let all: Vec<String> = all.into_iter().map(String::from).collect();
        let loaded = config::load(None, &all).expect("a configuration");
        let variables = network(&loaded.config, Some(10))
            .variables()
            .expect("a network");
        let error = trained
            .values_for(&arrays(&variables), |_| true, &loaded)
            .expect_err("another network");
        assert!(matches!(error, Error::Misfit { .. }));
        error.to_string()
    };
    let wider = other(&["width_multiplier=0.25"]);
    assert!(
        wider.contains("`base_model/conv2d/kernel` found f32[3,3,3,8], expected f32[3,3,3,16]"),
        "{wider}"
    );
    assert!(
        wider.contains("set `width_multiplier=0.125` (now 0.25)"),
        "{wider}"
    );
    let deeper = other(&["resnet_depth=18"]);
    assert!(
        deeper.contains("found nothing, expected f32[") || deeper.contains("found f32["),
        "{deeper}"
    );
    assert!(
        deeper.contains("set `resnet_depth=10` (now 18)"),
        "{deeper}"
    );
    let head = other(&["num_proj_layers=3"]);
    assert!(
        head.contains("`num_proj_layers=2` (now 3)") && head.contains("variable_schema"),
        "{head}"
    );
}

#[test]
fn what_is_no_run_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let error = open(&home.path().join("none")).expect_err("nothing there");
    assert!(matches!(error, Error::NotARun { .. }), "{error}");
    std::fs::write(home.path().join("config.yaml"), "").expect("a file");
    let error = open(home.path()).expect_err("no checkpoint");
    assert!(matches!(error, Error::NoCheckpoint { .. }), "{error}");
    assert!(
        error.to_string().contains("has no checkpoint yet"),
        "{error}"
    );
}

/// A checkpoint whose arrays are not those of its own configuration: missing, extra, and of another shape.
#[test]
fn a_checkpoint_of_another_network_than_it_says_is_refused() {
    let trained = open(folder()).expect("a run");
    let home = tempfile::tempdir().expect("a folder");
    let (manifest, arrays) = checkpoint::arrays(&trained.checkpoint).expect("a checkpoint");
    let name = "base_model/conv2d_1/kernel";
    for (number, change) in ["missing", "extra", "shape"].into_iter().enumerate() {
        let mut list: Vec<_> = arrays.values().cloned().collect();
        let at = list
            .iter()
            .position(|array| array.name == name)
            .expect("a variable");
        match change {
            "missing" => drop(list.remove(at)),
            "extra" => {
                let mut more = list[at].clone();
                more.name = "base_model/conv2d_99/kernel".into();
                list.push(more);
            }
            _ => list[at].dims.reverse(),
        }
        let dir = home.path().join(number.to_string());
        checkpoint::save(&dir, &manifest, &list, 0).expect("saved");
        let text = open(&dir).expect_err(change).to_string();
        let expected = match change {
            "missing" => "conv2d_1/kernel` found nothing, expected f32[",
            "extra" => "conv2d_99/kernel` found f32[1,1,8,8], expected nothing",
            _ => "conv2d_1/kernel` found f32[8,8,1,1], expected f32[1,1,8,8]",
        };
        assert!(text.contains(expected), "{change}: {text}");
    }
}
