//! What goes out: TensorFlow checkpoints and back bit for bit, weights under others' names, and the encoder as a program that gives
//! what the network gives.

mod binary;
mod common;

use binary::{refused, simclr};
use simclr::hlo::{DType, Graph, Literal, Shape, Value};
use simclr::interop::tensor_bundle::{Bundle, Tensor, write};
use simclr::model::Network;
use simclr::nn::{Builder, Settings};
use simclr::pjrt::{Argument, BufferSpec, CompileOptions, ElementType};
use simclr::train::checkpoint::Dtype;
use simclr::train::trained::{self, Trained};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Imports a TF1 checkpoint of a network with any numbers, slots and step included.
fn run_of(folder: &Path, network: &Network) -> PathBuf {
    run_with(folder, network, &["Momentum"], &[])
}

/// The same with these slots and keys.
fn run_with(folder: &Path, network: &Network, slots: &[&str], keys: &[&str]) -> PathBuf {
    let variables = network.variables().expect("a network");
    let mut state = 1u32;
    let mut number = |low: f32, high: f32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        low + (high - low) * (state >> 8) as f32 / (1 << 24) as f32
    };
    let values: Vec<Vec<u8>> = variables
        .iter()
        .map(|variable| {
            let fan_in: i64 = variable.dims.iter().rev().skip(1).product();
            let (low, high) = match variable.name.rsplit('/').next() {
                Some("gamma" | "moving_variance") => (0.5, 1.5),
                Some("kernel") => (-(3.0 / fan_in as f32).sqrt(), (3.0 / fan_in as f32).sqrt()),
                _ => (-0.1, 0.1),
            };
            (0..variable.elements())
                .flat_map(|_| number(low, high).to_le_bytes())
                .collect()
        })
        .collect();
    let step = 12i64.to_le_bytes();
    let mut tensors = vec![Tensor::numbers("global_step", Dtype::I64, &[], &step)];
    for (variable, bytes) in variables.iter().zip(&values) {
        let dims: Vec<usize> = variable.dims.iter().map(|&dim| dim as usize).collect();
        tensors.push(Tensor::numbers(&variable.name, Dtype::F32, &dims, bytes));
        if variable.kind.trainable() {
            for slot in slots {
                let slot = format!("{}/{slot}", variable.name);
                tensors.push(Tensor::numbers(slot, Dtype::F32, &dims, bytes));
            }
        }
    }
    let source = folder.join("source");
    fs::create_dir(&source).expect("a folder");
    write(&source.join("model.ckpt-12"), &tensors).expect("a bundle");
    let run = folder.join("run");
    succeeded(&command(
        "import",
        &source,
        &run,
        &[&["--slots"], keys].concat(),
    ));
    run
}

fn command(name: &str, from: &Path, to: &Path, more: &[&str]) -> Output {
    simclr()
        .arg(name)
        .args([from, to])
        .args(more)
        .output()
        .expect("the program starts")
}

fn export(run: &Path, out: &Path, more: &[&str]) -> Output {
    command("export", run, out, more)
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", binary::stderr(output));
}

/// Name → (shape, SHA-256).
fn arrays(path: &Path) -> BTreeMap<String, (Vec<u64>, String)> {
    let output = simclr()
        .arg("inspect")
        .arg(path)
        .arg("--json")
        .output()
        .expect("the program starts");
    succeeded(&output);
    let contents: serde_json::Value = serde_json::from_slice(&output.stdout).expect("valid JSON");
    contents["arrays"]
        .as_array()
        .expect("arrays")
        .iter()
        .map(|array| {
            let dims = array["shape"].as_array().expect("a shape");
            let dims = dims.iter().filter_map(|dim| dim.as_u64()).collect();
            let hash = array["sha256"].as_str().expect("a hash").to_owned();
            (
                array["name"].as_str().expect("a name").to_owned(),
                (dims, hash),
            )
        })
        .collect()
}

fn everything() -> Network {
    Network {
        resnet_depth: 50,
        width_multiplier: 0.125,
        image_size: 32,
        sk_ratio: 0.0625,
        se_ratio: 0.25,
        proj_out_dim: 16,
        num_classes: Some(7),
        ..Network::default()
    }
}

fn plain(resnet_depth: usize, image_size: usize) -> Network {
    Network {
        resnet_depth,
        image_size,
        num_classes: Some(5),
        num_proj_layers: 2,
        ..Network::default()
    }
}

#[test]
fn tensorflow_checkpoints_come_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = run_of(folder.path(), &everything());
    succeeded(&export(&run, &at("tf1"), &["--format", "tf-checkpoint"]));
    assert_eq!(arrays(&at("tf1")), arrays(&at("source")));
    let tf2 = ["--format", "tf-checkpoint", "--generation", "tf2"];
    succeeded(&export(&run, &at("tf2"), &tf2));
    succeeded(&command("import", &at("tf2"), &at("again"), &["--slots"]));
    assert_eq!(arrays(&at("again")), arrays(&run));
    succeeded(&export(&run, &at("ours"), &["--format", "safetensors"]));
    let ours = arrays(&at("ours/model.safetensors"));
    assert_eq!(ours.len(), everything().variables().unwrap().len());
    let state = arrays(&run);
    assert!(
        ours.iter()
            .all(|(name, array)| state.get(name) == Some(array))
    );
}

#[test]
fn adam_goes_out_as_the_original_restores_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let network = Network {
        num_classes: None,
        resnet_depth: 10,
        sk_ratio: 0.0,
        se_ratio: 0.0,
        ..everything()
    };
    let keys = ["optimizer=adam", "stem_stride=2"];
    let run = run_with(folder.path(), &network, &["Adam", "Adam_1"], &keys);
    let output = export(&run, &at("tf1"), &["--format", "tf-checkpoint"]);
    succeeded(&output);
    let said = binary::stderr(&output);
    for word in ["resnet_depth=10", "width_multiplier=0.125", "stem_stride=2"] {
        assert!(said.contains(word), "`{word}` is missing in: {said}");
    }
    let bundle = Bundle::open(&at("tf1")).unwrap();
    // After 12 steps, the powers of the thirteenth.
    for (name, base) in [("beta1_power", 0.9f64), ("beta2_power", 0.999)] {
        let power = (base.powi(13) as f32).to_le_bytes();
        assert_eq!(bundle.numbers(name).unwrap(), power, "{name}");
    }
    let mut found = arrays(&at("tf1"));
    found.retain(|name, _| !name.ends_with("_power"));
    assert_eq!(found, arrays(&at("source")));

    let tf2 = ["--format", "tf-checkpoint", "--generation", "tf2"];
    let output = export(&run, &at("tf2"), &tf2);
    succeeded(&output);
    let said = binary::stderr(&output);
    assert!(
        said.contains("slots of optimizer `adam` are left out"),
        "{said}"
    );
    let names = arrays(&at("tf2"));
    assert!(names.keys().all(|name| !name.contains("OPTIMIZER_SLOT")));
}

#[test]
fn the_script_pads_as_the_network_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run_of(folder.path(), &plain(18, 224));
    // Maps of 112, 113 and 75 pixels behind the stem.
    for (size, padding) in [
        ("224", "(0, 1, 0, 1)"),
        ("226", "(1, 1, 1, 1)"),
        ("150", "(1, 1, 1, 1)"),
    ] {
        let key = format!("image_size={size}");
        succeeded(&command("import", &at("source"), &at(size), &[&key]));
        let out = at(&format!("tv{size}"));
        succeeded(&export(&at(size), &out, &["--format", "torchvision"]));
        let script = fs::read_to_string(out.join("load.py")).unwrap();
        assert!(
            script.contains(&format!("ZeroPad2d({padding})")),
            "{script}"
        );
    }
}

#[test]
fn torchvision_and_timm_know_the_names_and_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = run_of(folder.path(), &plain(18, 32));
    succeeded(&export(&run, &at("tv"), &["--format", "torchvision"]));
    let found = arrays(&at("tv/model.safetensors"));
    // What torchvision's resnet18 has: 20 convolutions and as many normalisations of five arrays, fc; and the projection of group 1,
    // which only SimCLR's has.
    assert_eq!(found.len(), 20 * 6 + 2 + 6);
    for (name, dims) in [
        ("conv1.weight", &[64, 3, 3, 3][..]),
        ("bn1.running_var", &[64]),
        ("bn1.num_batches_tracked", &[]),
        ("layer1.0.conv1.weight", &[64, 64, 3, 3]),
        ("layer2.0.downsample.0.weight", &[128, 64, 1, 1]),
        ("layer2.0.downsample.1.bias", &[128]),
        ("layer4.1.bn2.weight", &[512]),
        ("fc.weight", &[5, 512]),
        ("fc.bias", &[5]),
    ] {
        let shape = found.get(name).map(|(dims, _)| dims.as_slice());
        assert_eq!(shape, Some(dims), "{name}");
    }
    let head = arrays(&at("tv/projection_head.safetensors"));
    let names: Vec<&str> = head.keys().map(String::as_str).collect();
    let layer = |at: usize| {
        [
            "bias",
            "num_batches_tracked",
            "running_mean",
            "running_var",
            "weight",
        ]
        .map(|part| format!("layers.{at}.{part}"))
    };
    let mut expected = vec!["layers.0.weight".to_owned(), "layers.3.weight".to_owned()];
    expected.extend(layer(1));
    expected.extend(layer(4));
    expected.sort();
    assert_eq!(names, expected);
    succeeded(&export(&run, &at("timm"), &["--format", "timm"]));
    assert_eq!(arrays(&at("timm/model.safetensors")), found);
    let config = fs::read_to_string(at("timm/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["architecture"], "resnet18");
    assert_eq!(config["num_classes"], 5);
    assert_eq!(
        config["pretrained_cfg"]["input_size"],
        serde_json::json!([3, 32, 32])
    );

    // A kernel's elements are at their places.
    let opened = trained::open(&run).unwrap();
    let number = opened
        .variables
        .iter()
        .position(|v| v.name == "base_model/conv2d_7/kernel")
        .unwrap();
    let own = opened.values[number].to_vec::<f32>();
    let file = fs::read(at("tv/model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    let theirs = file.tensor("layer2.0.conv1.weight").unwrap();
    let [h, w, i, o] = [3, 3, 64, 128];
    for (place, bytes) in theirs.data().chunks(4).enumerate() {
        let (x, rest) = (place % w, place / w);
        let (y, rest) = (rest % h, rest / h);
        let (input, output) = (rest % i, rest / i);
        assert_eq!(
            bytes,
            own[((y * w + x) * i + input) * o + output].to_le_bytes()
        );
    }
}

/// What the network itself gives for these images, by the names of exported programs.
fn expected(run: &Trained, images: &Literal) -> BTreeMap<String, Vec<f64>> {
    let graph = Graph::new();
    let values = run
        .values
        .iter()
        .map(|value| graph.constant(value.clone()))
        .collect();
    let settings = Settings {
        training: false,
        ..Settings::default()
    };
    let mut builder = Builder::with_values(&graph, settings, values);
    let outputs = run
        .network
        .forward(&mut builder, graph.constant(images.clone()));
    // The network names more, and those with a place of their own are taken from there.
    let mut named: BTreeMap<String, Value> = outputs.endpoints.iter().cloned().collect();
    named.retain(|name, _| NAMES.contains(&name.as_str()));
    for (name, value) in [
        ("final_avg_pool", outputs.h),
        ("proj_head_input", outputs.h),
        ("proj_head_output", outputs.z()),
        ("logits_sup", outputs.logits.expect("a classifier")),
    ] {
        named.insert(name.into(), value);
    }
    let results: Vec<Value> = named.values().copied().collect();
    let module = graph.finish("expected", &results).expect("a module");
    let found = common::run(&module, &[]);
    named
        .into_keys()
        .zip(found.iter().map(Literal::to_f64s))
        .collect()
}

/// The results of a program, in order, as docs/formats.md has them.
const NAMES: [&str; 10] = [
    "initial_conv",
    "initial_max_pool",
    "block_group1",
    "block_group2",
    "block_group3",
    "block_group4",
    "final_avg_pool",
    "proj_head_input",
    "proj_head_output",
    "logits_sup",
];

/// Runs an exported program through the plugin.
fn run_program(folder: &Path, images: &Literal) -> BTreeMap<String, Vec<f64>> {
    let about = fs::read_to_string(folder.join("encoder.json")).expect("a description");
    let about: serde_json::Value = serde_json::from_str(&about).expect("valid JSON");
    let list = |key: &str| -> Vec<(String, Vec<i64>)> {
        let rows = about[key].as_array().expect("a list");
        rows.iter()
            .map(|row| {
                let dims = row["shape"].as_array().expect("a shape");
                let dims = dims.iter().filter_map(|dim| dim.as_i64()).collect();
                (row["name"].as_str().expect("a name").to_owned(), dims)
            })
            .collect()
    };
    let mut arguments = Vec::new();
    if folder.join("weights.safetensors").exists() {
        let bytes = fs::read(folder.join("weights.safetensors")).expect("weights");
        let weights = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let inputs = list("inputs");
        for (name, dims) in &inputs[..inputs.len() - 1] {
            let bytes = weights.tensor(name).expect("a weight").data().to_vec();
            let shape = Shape::new(DType::F32, dims.clone());
            arguments.push(Literal::from_bytes(shape, bytes).expect("its size"));
        }
    }
    arguments.push(images.clone());
    let engine = common::engine(1);
    let device = engine.client().devices()[0].clone();
    let options = CompileOptions {
        num_replicas: 1,
        device_ids: vec![device.id()],
        overrides: Vec::new(),
        parameters: list("inputs")
            .into_iter()
            .map(|(_, dims)| BufferSpec {
                element_type: ElementType::F32,
                dims,
            })
            .collect(),
        donated: Vec::new(),
    };
    let program = match fs::read(folder.join("encoder.hlo.pb")) {
        Ok(module) => engine.client().compile(&module, &options),
        Err(_) => {
            let text = fs::read_to_string(folder.join("encoder.mlir")).expect("a program");
            engine.client().compile_stablehlo(&text, &options)
        }
    };
    let buffers = arguments
        .iter()
        .map(|argument| Argument::Donate(engine.put(argument, &device).expect("a buffer")))
        .collect();
    let results = program
        .expect("it compiles")
        .execute(vec![buffers])
        .expect("it runs");
    list("outputs")
        .into_iter()
        .zip(&results[0])
        .map(|((name, dims), buffer)| {
            let bytes = buffer.to_host().expect("bytes");
            let literal = Literal::from_bytes(Shape::new(DType::F32, dims), bytes);
            (name, literal.expect("its size").to_f64s())
        })
        .collect()
}

#[test]
fn exported_programs_give_what_the_network_gives() {
    let folder = tempfile::tempdir().unwrap();
    let network = Network {
        proj_out_dim: 8,
        ..everything()
    };
    let run = run_of(folder.path(), &network);
    let numbers: Vec<f32> = (0..2 * 32 * 32 * 3)
        .map(|i| (i * 31 % 97) as f32 / 96.0)
        .collect();
    let images = Literal::new(&[2, 32, 32, 3], &numbers);
    let expected = expected(&trained::open(&run).unwrap(), &images);
    assert!(
        expected["final_avg_pool"].iter().any(|x| x.abs() > 0.01),
        "features that are not nothing"
    );
    for (number, options) in [
        &["--format", "hlo"][..],
        &["--format", "stablehlo"],
        &["--format", "hlo", "--weights", "parameters"],
        &["--format", "stablehlo", "--weights", "parameters"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = folder.path().join(format!("program{number}"));
        succeeded(&export(&run, &out, &[options, &["--batch", "2"]].concat()));
        if let Ok(text) = fs::read_to_string(out.join("encoder.mlir")) {
            let marked = text.split("jax.result_info = \"").skip(1);
            let names: Vec<&str> = marked.filter_map(|rest| rest.split('"').next()).collect();
            assert_eq!(names, NAMES);
        }
        let found = run_program(&out, &images);
        let mut names = NAMES;
        names.sort();
        assert!(found.keys().eq(names), "{:?}", found.keys());
        assert!(expected.keys().eq(names), "{:?}", expected.keys());
        for (name, expected) in &expected {
            let largest = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
            for (a, b) in found[name].iter().zip(expected) {
                assert!(
                    (a - b).abs() <= 1e-5 * largest,
                    "{options:?}: {name} {a} {b}"
                );
            }
            assert_eq!(found[name].len(), expected.len());
        }
    }
    // Some of the values, in the order asked for.
    let out = folder.path().join("some");
    let options = [
        "--format",
        "hlo",
        "--batch",
        "2",
        "--endpoints",
        "logits_sup,block_group2",
    ];
    succeeded(&export(&run, &out, &options));
    assert_eq!(run_program(&out, &images).len(), 2);
}

#[test]
fn bad_exports_are_one_sentence_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = run_of(folder.path(), &everything());
    let tv = ["--format", "torchvision"];
    let st = ["--format", "safetensors"];
    refused(
        &export(&run, &at("out"), &tv),
        4,
        &["selective kernels", "torchvision", "--format safetensors"],
    );
    refused(
        &export(&at("no"), &at("out"), &st),
        2,
        &["no run and no checkpoint"],
    );
    refused(&export(&run, &run, &st), 2, &["is there already"]);
    for (format, flag, value, formats) in [
        ("safetensors", "--batch", "4", "hlo, stablehlo"),
        ("timm", "--weights", "inside", "hlo, stablehlo"),
        (
            "tf-checkpoint",
            "--endpoints",
            "logits_sup",
            "hlo, stablehlo",
        ),
        ("hlo", "--generation", "tf2", "tf-checkpoint"),
    ] {
        let said = format!("`{flag}` changes nothing about `--format {format}`");
        let output = export(&run, &at("out"), &["--format", format, flag, value]);
        refused(&output, 2, &[&said, formats]);
    }
    refused(
        &export(&run, Path::new("/proc/no/out"), &st),
        3,
        &["cannot create", "/proc/no"],
    );
    std::fs::write(at("afile"), "no folder").unwrap();
    refused(
        &export(&run, &at("afile"), &st),
        2,
        &["afile` is there already"],
    );
    refused(
        &export(&run, &at("afile").join("out"), &st),
        3,
        &["cannot read", "afile/out", "correct the path"],
    );
    std::fs::remove_file(at("afile")).unwrap();
    let endpoint = ["--format", "hlo", "--endpoints", "block_group9"];
    refused(
        &export(&run, &at("out"), &endpoint),
        2,
        &["`block_group9`", "final_avg_pool"],
    );
    let state = run.join("checkpoints/step-00000012/state.safetensors");
    let mut bytes = fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).unwrap();
    refused(&export(&run, &at("out"), &st), 4, &["damaged", "SHA-256"]);
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
