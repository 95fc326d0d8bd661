//! `simclr bench`: the step alone and what it writes for other programs; the profile and the parts it times.

mod binary;
mod common;

use binary::{refused, run, stderr};
use safetensors::SafeTensors;
use serde_json::Value as Json;
use simclr::hlo::passes::WITHOUT_LOOPS;
use simclr::hlo::{DType, Graph, Literal, NodeId, Op, Shape, repeated};
use std::process::{Command, Output};

/// A step of a few channels.
fn bench(more: &[&str]) -> Output {
    let mut arguments: Vec<String> = [
        "bench",
        "--quiet",
        "--step-only",
        "resnet_depth=10",
        "width_multiplier=0.125",
        "image_size=16",
        "train_batch_size=4",
        "train_steps=20",
        "warmup_epochs=0",
        "optimizer=momentum",
        "learning_rate=0.2",
        "num_proj_layers=2",
        "proj_out_dim=8",
        "lineareval_while_pretraining=false",
        "runtime.platform=cpu",
    ]
    .map(String::from)
    .to_vec();
    arguments.extend(more.iter().map(|text| text.to_string()));
    run(&arguments)
}

fn json(output: &Output) -> Json {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_step_alone_gives_the_same_losses_on_one_and_two_devices() {
    common::plugin();
    let losses = |devices: &str| -> Vec<f64> {
        // Steps small enough that rounding does not grow: with four images the loss is gone after two.
        let calm = ["train_batch_size=64", "learning_rate=0.05"];
        let found = json(&bench(
            &[&["--json", "--steps=3", devices][..], &calm[..]].concat(),
        ));
        let list = found["losses"].as_array().expect("losses");
        list.iter().filter_map(Json::as_f64).collect()
    };
    let (one, two) = (losses("runtime.devices=1"), losses("runtime.devices=2"));
    assert_eq!(one.len(), 4);
    assert!(one[3] < one[0], "{one:?}");
    for (a, b) in one.iter().zip(&two) {
        assert!((a - b).abs() < 1e-4 * a, "{one:?} {two:?}");
    }
}

#[test]
fn a_dump_holds_the_variables_views_and_numbers_of_the_step() {
    common::plugin();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step.safetensors");
    let output = bench(&["--dump", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (_, head) = SafeTensors::read_metadata(&bytes).unwrap();
    let step: Json = serde_json::from_str(&head.metadata().as_ref().unwrap()["step"]).unwrap();
    assert_eq!(step["batch"], 4);
    assert_eq!(step["rates"][0], 0.2 * 4.0 / 256.0);
    let names = step["variables"].as_array().unwrap();
    assert_eq!(names[0], "base_model/conv2d/kernel");
    assert_eq!(names.len() + 1, tensors.len());
    for name in names {
        tensors.tensor(name.as_str().unwrap()).expect("a variable");
    }
    let views = tensors.tensor("views").unwrap();
    assert_eq!(views.shape(), [8, 16, 16, 3]);
    let values: Vec<f32> = views
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    assert!(values.iter().all(|x| (0.0..1.0).contains(x)));
    // Both views of an image are near one another, those of different images are not.
    let apart = |a: usize, b: usize| -> f32 {
        let image = |i: usize| &values[i * 768..(i + 1) * 768];
        image(a)
            .iter()
            .zip(image(b))
            .map(|(x, y)| (x - y).abs())
            .sum::<f32>()
            / 768.0
    };
    assert!(apart(0, 4) > 0.0 && apart(0, 4) < 0.125 && apart(0, 1) > 0.175);
}

#[test]
fn a_dump_that_cannot_be_written_is_an_error() {
    common::plugin();
    // Below a file that is no folder.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml/step.safetensors");
    let output = bench(&["--dump", path]);
    refused(&output, 3, &[path]);
}

/// The CPU plugin has no profiler, which is told before anything is measured; a file that is there stays.
#[test]
fn a_trace_without_a_profiler_is_refused_at_once() {
    common::plugin();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    std::fs::write(&path, "an earlier one").unwrap();
    let path = path.to_str().unwrap();
    let output = bench(&["--trace", path, "runtime.passes=[own-loops,pool-gradients]"]);
    refused(&output, 1, &["no profiler", path, "leave --trace out"]);
    let told = stderr(&output);
    assert!(
        told.contains("no pass for cpu and does nothing there: pool-gradients; leave it out"),
        "{told}"
    );
    assert_eq!(std::fs::read_to_string(path).unwrap(), "an earlier one");
    refused(
        &bench(&["--trace", path, "--dump", path]),
        2,
        &["cannot be used with"],
    );
}

#[test]
fn a_profile_counts_every_convolution_of_the_step() {
    common::plugin();
    // Where loops of ours are called every convolution is one (`tests/loops`); here they are the plugin's.
    let output = bench(&[
        "--json",
        "--steps=1",
        "--profile",
        "runtime.devices=2",
        &format!("runtime.passes={WITHOUT_LOOPS}"),
    ]);
    let found = json(&output);
    let rows = |table: &str| found["profile"][table].as_array().unwrap().clone();
    let family = |name: &str| -> Json {
        let rows = rows("families");
        let row = rows.iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("no {name} in {rows:?}"))
            .clone()
    };
    // The stem and two convolutions in each of four units. On the last unit's 2×2 maps the passes make matrix products of one forward
    // convolution and of both gradients of inputs; the stem has no gradient of its input. Gradients of kernels with few inputs are matrix
    // products too, but for those of the 2×2 maps, which have fewer rows than a kernel.
    let forward = family("convolutions, forward");
    let kernel = family("convolutions, gradient of the kernel");
    let input = family("convolutions, gradient of the input");
    assert_eq!(forward["count"], 8);
    assert_eq!(kernel["count"], 2);
    assert_eq!(input["count"], 6);
    // 2 · views · pixels · 9 · inputs · outputs of each.
    let work = |map: f64, i: f64, o: f64| 2.0 * 8.0 * map * map * 9.0 * i * o;
    let expected = work(16.0, 3.0, 8.0)
        + 2.0 * work(16.0, 8.0, 8.0)
        + work(8.0, 8.0, 16.0)
        + work(8.0, 16.0, 16.0)
        + work(4.0, 16.0, 32.0)
        + work(4.0, 32.0, 32.0)
        + work(2.0, 32.0, 64.0);
    assert_eq!(forward["flops"], expected);
    assert_eq!(
        kernel["flops"],
        work(2.0, 32.0, 64.0) + work(2.0, 64.0, 64.0)
    );
    for name in [
        "matrix products",
        "normalisation, activations, sums",
        "optimizer",
    ] {
        assert!(family(name)["count"].as_u64().unwrap() > 0, "{name}");
        assert!(family(name)["seconds"].as_f64().is_some(), "{name}");
    }
    let layers: Vec<String> = rows("layers")
        .iter()
        .map(|row| row["name"].as_str().unwrap().to_string())
        .collect();
    for name in [
        "encoder/stem",
        "encoder/block_group4/unit_1",
        "projection_head",
        "nt_xent",
    ] {
        assert!(layers.iter().any(|layer| layer == name), "{layers:?}");
    }
    let total = |table: &str| -> f64 {
        rows(table)
            .iter()
            .filter_map(|row| row["seconds"].as_f64())
            .sum()
    };
    assert!((total("families") - total("layers")).abs() < 1e-9);
}

/// A part computes what its nodes compute, and each repetition from other inputs.
#[test]
fn a_repeated_part_computes_its_nodes() {
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [4, 4]));
    let w = graph.parameter("w", Shape::new(DType::F32, [4, 4]));
    let module = graph
        .finish("whole", &[(x.matmul(w).tanh() * 2.0).exp()])
        .unwrap();
    let chosen: Vec<NodeId> = (0..module.entry.nodes.len())
        .map(NodeId::from_index)
        .filter(|id| {
            matches!(
                module.entry.nodes[id.index()].op,
                Op::Unary(_) | Op::Binary(_)
            )
        })
        .collect();
    assert_eq!(chosen.len(), 3);
    let part = repeated(&module.entry, &chosen, 1).unwrap();
    let product: Vec<f32> = (0..16).map(|i| i as f32 / 16.0 - 0.5).collect();
    let run = |count: i32| -> Vec<f32> {
        let arguments = [Literal::scalar(count), Literal::new(&[4, 4], &product)];
        common::run(&part, &arguments)[0].to_vec()
    };
    for (y, p) in run(1).iter().zip(&product) {
        assert!((y - (2.0 * p.tanh()).exp()).abs() < 1e-5 * y);
    }
    let (one, two) = (run(1), run(2));
    assert_ne!(one[0], two[0]);
    assert_eq!(one[1..], two[1..]);
    // Nothing is computed without a repetition.
    assert!(run(0).iter().all(|&y| y == 0.0));
}

fn python(arguments: &[&str]) -> Output {
    Command::new("python3")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Nothing is left beside the scripts.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3")
}

/// The race ends with an error where two sides did not do the same work.
#[test]
fn losses_of_the_race_that_differ_are_noticed() {
    let output = python(&["-m", "doctest", "bench/losses.py"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", stderr(&output));
}

/// The renter's table: the compiler's time, in brackets an estimate of our own where it tells none, and rows of before that was kept.
#[test]
fn a_renters_table_tells_whose_bound_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.jsonl");
    let cell = |batch: u32, slice: &str, more: &str| {
        format!(
            r#"{{"network": "ResNet-50 1×", "batch": {batch}, "slice": "{slice}", "fits": true, "memory_total": 2147483648, "total_steps": 36000, {more}}}"#
        )
    };
    let cells = [
        cell(
            4096,
            "v3-128",
            r#""optimal_seconds": 0.1, "roofline_seconds": 0.05"#,
        ),
        cell(4096, "v6e-64", r#""roofline_seconds": 0.05"#),
        cell(4096, "v4-32", r#""steps_per_launch": 1"#),
    ];
    std::fs::write(&path, cells.join("\n")).unwrap();
    let output = python(&[
        "bench/pods_table.py",
        "--print",
        path.to_str().expect("a plain name"),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    let row = |batch: u32| -> Vec<&str> {
        let start = format!("| ResNet-50 1× | {batch} |");
        let line = said.lines().find(|line| line.starts_with(&start));
        line.expect("a row")
            .split('|')
            .map(str::trim)
            .skip(3)
            .collect()
    };
    // v3-8, v3-32, v3-128, v4-32, v5litepod-64, v6e-64.
    let paper = row(4096);
    assert_eq!(paper[2], "2.0 GiB, 100 ms, 1.0 h");
    assert_eq!(paper[3], "2.0 GiB");
    assert_eq!(paper[4], "?");
    assert_eq!(paper[5], "2.0 GiB, [50 ms, 0.5 h]");
    // As many images per core on a quarter of the chips: four times as long.
    assert_eq!(row(1024)[1], "≈ 2.0 GiB, 100 ms, 4.0 h");
}
