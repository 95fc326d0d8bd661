//! Other programs' checkpoints: names against the original's, files written by TensorFlow itself, import through the binary, and
//! one sentence for each bad input.

mod binary;
mod pictures;

use binary::{refused, simclr};
use serde_json::Value as Json;
use simclr::interop::tensor_bundle::{Bundle, DataType, Tensor, write};
use simclr::model::Network;
use simclr::nn::{Kind, Variable};
use simclr::train::checkpoint::Dtype;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// A small network with everything that has names: bottlenecks, selective kernels, squeeze-excite, heads.
fn network() -> Network {
    Network {
        resnet_depth: 50,
        width_multiplier: 0.125,
        image_size: 32,
        sk_ratio: 0.0625,
        se_ratio: 0.25,
        proj_out_dim: 16,
        num_proj_layers: 2,
        num_classes: Some(7),
        ..Network::default()
    }
}

/// Any numbers, different for each variable.
fn values(variables: &[Variable]) -> Vec<Vec<u8>> {
    let number = |at: usize, i: usize| {
        let mixed = (at * 7919 + i).wrapping_mul(0x9e37_79b9) as u32;
        (mixed >> 8) as f32 / (1 << 24) as f32 + 0.25
    };
    variables
        .iter()
        .enumerate()
        .map(|(at, variable)| {
            (0..variable.elements())
                .flat_map(|i| number(at, i).to_le_bytes())
                .collect()
        })
        .collect()
}

fn dims(variable: &Variable) -> Vec<usize> {
    variable.dims.iter().map(|&dim| dim as usize).collect()
}

/// Name, dimensions and bytes of a tensor of f32.
type Floats = (String, Vec<usize>, Vec<u8>);

/// A checkpoint of the original's first generation in `folder`, slots and step included; returns its prefix.
fn original(folder: &Path, network: &Network) -> PathBuf {
    edited(folder, network, |_| {})
}

/// The same with other tensors.
fn edited(folder: &Path, network: &Network, edit: impl Fn(&mut Vec<Floats>)) -> PathBuf {
    let variables = network.variables().expect("a network");
    let mut floats: Vec<Floats> = Vec::new();
    for (variable, bytes) in variables.iter().zip(values(&variables)) {
        let dims = dims(variable);
        floats.push((variable.name.clone(), dims.clone(), bytes.clone()));
        if variable.kind == Kind::ConvKernel {
            floats.push((format!("{}/Momentum", variable.name), dims, bytes));
        }
    }
    edit(&mut floats);
    let step = 77i64.to_le_bytes();
    let mut tensors = vec![Tensor::numbers("global_step", Dtype::I64, &[], &step)];
    for (name, dims, bytes) in &floats {
        tensors.push(Tensor::numbers(name, Dtype::F32, dims, bytes));
    }
    let prefix = folder.join("model.ckpt-77");
    write(&prefix, &tensors).expect("a bundle");
    prefix
}

fn import(checkpoint: &Path, out: &Path, more: &[&str]) -> Output {
    simclr()
        .arg("import")
        .args([checkpoint, out])
        .args(more)
        .output()
        .expect("the program starts")
}

fn inspect(path: &Path) -> Json {
    let output = simclr().arg("inspect").arg(path).arg("--json").output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{}", binary::stderr(&output));
    serde_json::from_slice(&output.stdout).expect("valid JSON")
}

/// Name → SHA-256 of what `inspect` shows.
fn hashes(path: &Path) -> std::collections::BTreeMap<String, String> {
    let contents = inspect(path);
    let arrays = contents["arrays"].as_array().expect("arrays");
    let text = |value: &Json| value.as_str().expect("text").to_owned();
    arrays
        .iter()
        .map(|a| (text(&a["name"]), text(&a["sha256"])))
        .collect()
}

#[test]
fn bundles_written_by_tensorflow_are_read() {
    let folder = golden("tensor_bundle");
    let bundle = Bundle::open(&folder.join("tf1")).expect("a bundle");
    assert_eq!(bundle.files().len(), 3, "an index and two data files");
    let shapes: Vec<(&str, DataType, &[usize])> = bundle
        .entries()
        .iter()
        .map(|(name, entry)| (name.as_str(), entry.dtype, entry.dims.as_slice()))
        .collect();
    let numbers = DataType::Numbers;
    assert_eq!(
        shapes,
        [
            ("a/floats", numbers(Dtype::F32), &[2, 3][..]),
            ("a/floats/Momentum", numbers(Dtype::F32), &[2, 3]),
            ("b/doubles", numbers(Dtype::F64), &[2]),
            ("b/flags", numbers(Dtype::BOOL), &[3]),
            ("c/texts", DataType::Text, &[3]),
            ("global_step", numbers(Dtype::I64), &[]),
        ]
    );
    let floats: Vec<u8> = (0..6)
        .flat_map(|i| (i as f32 - 2.5).to_le_bytes())
        .collect();
    assert_eq!(bundle.numbers("a/floats").unwrap(), floats);
    let doubles = [1e300f64.to_le_bytes(), (-0.0f64).to_le_bytes()].concat();
    assert_eq!(bundle.numbers("b/doubles").unwrap(), doubles);
    assert_eq!(bundle.numbers("b/flags").unwrap(), [1, 0, 1]);
    assert_eq!(
        bundle.numbers("global_step").unwrap(),
        31_250i64.to_le_bytes()
    );
    let texts = [b"one".to_vec(), Vec::new(), vec![b'x'; 200]];
    assert_eq!(bundle.strings("c/texts").unwrap(), texts);

    let objects = Bundle::open(&folder.join("tf2")).expect("a bundle");
    let key = "model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE";
    assert_eq!(objects.entries()[key].dims, [4]);
    assert!(!objects.strings("_CHECKPOINTABLE_OBJECT_GRAPH").unwrap()[0].is_empty());
}

#[test]
fn an_imported_checkpoint_has_every_bit_and_its_network() {
    let folder = tempfile::tempdir().unwrap();
    let source = original(folder.path(), &network());
    let out = folder.path().join("imported");
    let output = import(&source, &out, &["--json", "ft_proj_selector=1"]);
    assert!(output.status.success(), "{}", binary::stderr(&output));
    let said: Json = serde_json::from_slice(&output.stdout).expect("valid JSON");
    assert_eq!(said["generation"], 1);
    assert_eq!(said["step"], 77);
    assert_eq!(said["network"]["resnet_depth"], 50);
    assert_eq!(said["network"]["width_multiplier"], 0.125);
    assert_eq!(said["network"]["sk_ratio"], 0.0625);
    assert_eq!(said["network"]["se_ratio"], 0.25);
    assert_eq!(said["network"]["num_classes"], 7);
    assert_eq!(said["network"]["ft_proj_selector"], 1);
    assert_eq!(said["ignored"][0]["what"], "optimizer slots");
    let (before, mut after) = (hashes(&source), hashes(&out));
    after.remove("global_step");
    assert_eq!(after.len(), network().variables().unwrap().len());
    for (name, hash) in &after {
        assert_eq!(before.get(name), Some(hash), "{name}");
    }
    assert_eq!(inspect(&out)["facts"]["step"], "77");
    // With the slots nothing but the type of the step differs.
    let out = folder.path().join("with_slots");
    assert!(import(&source, &out, &["--slots"]).status.success());
    let (mut before, mut after) = (before, hashes(&out));
    before.remove("global_step");
    after.remove("global_step");
    assert_eq!(after, before);
}

/// The published checkpoints of the second paper hold every weight twice, and a queue of negatives.
#[test]
fn the_average_is_taken_on_request_and_what_is_left_out_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let source = edited(folder.path(), &network(), |floats| {
        let twice: Vec<Floats> = floats
            .iter()
            .filter(|(name, ..)| !name.ends_with("/Momentum"))
            .map(|(name, dims, bytes)| {
                let number = |at: &[u8]| f32::from_le_bytes(at.try_into().unwrap());
                let halves = bytes
                    .chunks(4)
                    .flat_map(|at| (number(at) / 2.0).to_le_bytes());
                (format!("ema_model/{name}"), dims.clone(), halves.collect())
            })
            .collect();
        floats.extend(twice);
        floats.push(("memory/queue".into(), vec![8, 16], vec![0; 8 * 16 * 4]));
    });
    let before = hashes(&source);
    let variables = network().variables().unwrap();
    let kernels = variables
        .iter()
        .filter(|variable| variable.kind == Kind::ConvKernel)
        .count();
    for (flag, prefix, other, first) in [
        (None, "", "moving average of the weights", "ema_model/"),
        (
            Some("--average"),
            "ema_model/",
            "weights (their moving average was taken)",
            "",
        ),
    ] {
        let out = folder.path().join(format!("out{}", prefix.len()));
        let more: Vec<&str> = flag.into_iter().chain(["--json"]).collect();
        let output = import(&source, &out, &more);
        assert!(output.status.success(), "{}", binary::stderr(&output));
        let said: Json = serde_json::from_slice(&output.stdout).expect("valid JSON");
        let after = hashes(&out);
        for variable in &variables {
            let taken = before.get(&format!("{prefix}{}", variable.name));
            assert!(taken.is_some(), "{}", variable.name);
            assert_eq!(after.get(&variable.name), taken, "{}", variable.name);
        }
        let ignored = said["ignored"].as_array().expect("groups");
        let mut groups: Vec<(&str, u64)> = ignored
            .iter()
            .map(|group| {
                let what = group["what"].as_str().expect("text");
                (what, group["count"].as_u64().expect("a number"))
            })
            .collect();
        groups.sort();
        let mut expected = [
            (MEMORY, 1),
            (other, variables.len() as u64),
            ("optimizer slots", kernels as u64),
        ];
        expected.sort();
        assert_eq!(groups, expected, "{flag:?}");
        // What a flag takes is offered, where it may be given.
        let offers = |what: &str| {
            let group = ignored.iter().find(|group| group["what"] == what);
            group.expect("a group")["flag"].clone()
        };
        assert_eq!(offers(MEMORY), "--memory");
        let (average, slots) = match flag {
            None => (Json::from("--average"), Json::from("--slots")),
            Some(_) => (Json::Null, Json::Null),
        };
        assert_eq!((offers(other), offers("optimizer slots")), (average, slots));
        let left = ignored.iter().find(|group| group["what"] == other).unwrap();
        let name = left["first"].as_str().expect("text");
        assert!(name.starts_with(&format!("{first}base_model/")), "{name}");
    }
    let out = folder.path().join("both");
    refused(
        &import(&source, &out, &["--average", "--slots"]),
        2,
        &["--average", "cannot be used with", "--slots"],
    );
    assert!(!out.exists());

    // The memory is kept beside the network, bit for bit, and the network is the same.
    let output = import(&source, &out, &["--memory", "--slots"]);
    assert!(output.status.success(), "{}", binary::stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in [
        "1 tensors of the memory of negatives, which no training here reads, in memory.safetensors",
        "moving average of the weights (`ema_model/base_model/",
    ] {
        assert!(said.contains(words), "`{words}` is missing in: {said}");
    }
    assert!(
        !said.contains("optimizer slots (") && !said.contains("--average"),
        "{said}"
    );
    let memory = hashes(&out.join("memory.safetensors"));
    assert_eq!(memory.get("memory/queue"), before.get("memory/queue"));
    assert_eq!(memory.len(), 1);
    assert_eq!(hashes(&out).len(), variables.len() + kernels + 1);
}

/// What the second paper's queue of negatives is called.
const MEMORY: &str = "memory of negatives, which no training here reads";

/// A flag for what is not there is no flag that is passed over.
#[test]
fn what_is_asked_for_and_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let with = |name: &'static str| {
        edited(folder.path(), &network(), move |floats| {
            floats.retain(|(name, ..)| !name.ends_with("/Momentum"));
            if !name.is_empty() {
                floats.push((name.into(), vec![1], vec![0; 4]));
            }
        })
    };
    let bare = with("");
    refused(
        &import(&bare, &out, &["--slots"]),
        4,
        &["has no optimizer slots, expected some; leave --slots out"],
    );
    refused(
        &import(&bare, &out, &["--memory"]),
        4,
        &["has no memory of negatives", "leave --memory out"],
    );
    refused(
        &import(&bare, Path::new("gs://bucket/run"), &[]),
        2,
        &["`gs://bucket/run`", "a folder of this machine"],
    );
    // A newer Keras keeps all slots in one list.
    let keras = with("optimizer/_variables/1/.ATTRIBUTES/VARIABLE_VALUE");
    refused(
        &import(&keras, &out, &["--slots"]),
        4,
        &[
            "those of one of Keras (`optimizer/_variables/1/",
            "leave --slots out",
        ],
    );
    assert!(!out.exists());
}

#[test]
fn what_the_shapes_leave_open_can_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let source = original(folder.path(), &network());
    let out = folder.path().join("imported");
    let more = ["image_size=28", "stem_stride=2", "width_multiplier=0.124"];
    let output = import(&source, &out, &more);
    assert!(output.status.success(), "{}", binary::stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !said.contains("image_size=") && !said.contains("stem_stride="),
        "{said}"
    );
    assert!(said.contains("ft_proj_selector=0"), "{said}");
    let run = simclr::train::trained::open(&out).expect("a run");
    let expected = Network {
        image_size: 28,
        stem_stride: 2,
        width_multiplier: 0.124,
        ..network()
    };
    assert_eq!(run.network, expected);
}

#[test]
fn a_thousand_classes_are_taken_for_imagenets() {
    let folder = tempfile::tempdir().unwrap();
    let set_of = |classes, name: &str, more: &[&str]| {
        let network = Network {
            num_classes: Some(classes),
            ..network()
        };
        let source = folder.path().join(format!("{name}_source"));
        fs::create_dir(&source).unwrap();
        let out = folder.path().join(name);
        let output = import(&original(&source, &network), &out, more);
        assert!(output.status.success(), "{}", binary::stderr(&output));
        let run = simclr::train::trained::open(&out).expect("a run");
        let config = &run.loaded.config;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (config.dataset.clone(), config.eval_split.clone(), said)
    };
    let (dataset, split, said) = set_of(1000, "imagenet", &[]);
    assert_eq!([&dataset, &split], ["imagenet2012", "validation"]);
    assert!(said.contains("assumed  dataset=imagenet2012"), "{said}");
    let (dataset, split, said) = set_of(1000, "told", &["dataset=mine", "eval_split=test"]);
    assert_eq!([&dataset, &split], ["mine", "test"]);
    assert!(!said.contains("dataset="), "{said}");
    let (dataset, _, said) = set_of(999, "other", &[]);
    assert_eq!(dataset, "cifar10");
    let words = "assumed  dataset=cifar10 (the default; it has 10 classes, so that the 999 of";
    assert!(said.contains(words), "{said}");
    let source = folder.path().join("headless_source");
    fs::create_dir(&source).unwrap();
    let headless = Network {
        num_classes: None,
        ..network()
    };
    let source = original(&source, &headless);
    let output = import(&source, &folder.path().join("headless"), &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !said.contains("dataset=") && said.contains("simclr embed"),
        "{said}"
    );
}

#[test]
fn bad_imports_are_one_sentence_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let source = original(folder.path(), &network());
    let index = at("model.ckpt-77.index");
    let data = at("model.ckpt-77.data-00000-of-00001");
    let (good_index, good_data) = (fs::read(&index).unwrap(), fs::read(&data).unwrap());
    let out = at("out");
    refused(
        &import(&at("nowhere"), &out, &[]),
        2,
        &["nowhere", "nothing is there"],
    );
    refused(
        &import(&source, &out, &["--average"]),
        4,
        &["no moving average"],
    );
    refused(
        &import(&source, &out, &["resnet_dept=50"]),
        2,
        &["`resnet_dept`", "did you mean"],
    );
    refused(
        &import(&source, &out, &["ft_proj_selector=9"]),
        2,
        &["ft_proj_selector", "9"],
    );
    for (given, key, holds) in [
        (
            "width_multiplier=0.25",
            "`width_multiplier` is 0.25",
            "0.125",
        ),
        ("resnet_depth=18", "`resnet_depth` is 18", "50"),
        ("image_size=64", "`image_size` is 64", "a size up to 32"),
        ("sk_ratio=0", "`sk_ratio` is 0", "0.0625"),
        ("se_ratio=0.5", "`se_ratio` is 0.5", "0.25"),
        (
            "proj_head_mode=linear",
            "`proj_head_mode` is linear",
            "nonlinear",
        ),
        ("num_proj_layers=3", "`num_proj_layers` is 3", "2"),
        ("proj_out_dim=128", "`proj_out_dim` is 128", "16"),
        ("ft_proj_selector=2", "`ft_proj_selector` is 2", "0"),
    ] {
        let expected = format!("expected {holds}, as the checkpoint's shapes say");
        refused(&import(&source, &out, &[given]), 2, &[key, &expected]);
    }
    refused(
        &import(&source, folder.path(), &[]),
        2,
        &["is there already"],
    );
    refused(
        &import(&source, &at("model.ckpt-77.index"), &[]),
        2,
        &["is there already"],
    );
    refused(
        &import(&source, Path::new("/proc/no/imported"), &[]),
        3,
        &["cannot create", "/proc/no"],
    );

    fs::write(&data, &good_data[..good_data.len() / 2]).unwrap();
    refused(
        &import(&source, &out, &[]),
        4,
        &["data-00000-of-00001", "should end at byte"],
    );
    let mut flipped = good_data.clone();
    flipped[good_data.len() / 3] ^= 1;
    fs::write(&data, &flipped).unwrap();
    refused(
        &import(&source, &out, &[]),
        4,
        &["data-00000-of-00001", "CRC"],
    );
    fs::remove_file(&data).unwrap();
    refused(
        &import(&source, &out, &[]),
        4,
        &["model.ckpt-77.index", "missing"],
    );
    fs::write(&data, &good_data).unwrap();
    fs::write(&index, &good_index[..good_index.len() - 1]).unwrap();
    refused(
        &import(&source, &out, &[]),
        2,
        &["model.ckpt-77.index", "no TensorFlow checkpoint"],
    );

    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

/// Marks an index as big-endian, under a right CRC.
fn make_big_endian(index: &Path) {
    let mut bytes = fs::read(index).unwrap();
    let varint = |at: &mut usize| {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[*at];
            *at += 1;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    // The footer has the places of two blocks, the second that of the index of blocks, whose first entry is shared and own length
    // of its key, length of its value, key, place of the first block.
    let mut at = bytes.len() - 48;
    let [_, _, mut entry] = [0; 3].map(|_| varint(&mut at));
    let [_, key, _] = [0; 3].map(|_| varint(&mut entry));
    entry += key;
    let [start, size] = [0; 2].map(|_| varint(&mut entry));
    // The header is the first entry's value, as long with this order of bytes and without a version.
    assert_eq!(bytes[start..start + 9], [0, 0, 6, 8, 1, 26, 2, 8, 1]);
    bytes[start + 3..start + 9].copy_from_slice(&[8, 1, 16, 1, 26, 0]);
    let end = start + size + 1;
    let crc = crc32c::crc32c(&bytes[start..end]);
    // As TensorFlow masks them.
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    bytes[end..end + 4].copy_from_slice(&masked.to_le_bytes());
    fs::write(index, bytes).unwrap();
}

#[test]
fn foreign_checkpoints_are_one_sentence_and_leave_nothing() {
    type Edit = fn(&mut Vec<Floats>);
    let cases: [(Edit, &[&str]); 4] = [
        (
            |floats| floats.retain(|(name, ..)| name != "base_model/conv2d_7/kernel"),
            &[
                "1 variables are missing, `base_model/conv2d_7/kernel` the first",
                "a ResNet-50 with selective kernels and squeeze-excite;",
                "ResNet-10, 18,",
            ],
        ),
        (
            |floats| {
                let name = "base_model/conv2d_999/kernel".to_owned();
                floats.push((name, vec![1, 1, 8, 8], vec![0; 256]));
            },
            &["1 more variables are there, `base_model/conv2d_999/kernel` the first"],
        ),
        (
            |floats| {
                let wide = floats
                    .iter_mut()
                    .find(|(name, ..)| name == "base_model/conv2d_3/kernel");
                let (_, dims, bytes) = wide.expect("a kernel");
                dims[3] *= 2;
                bytes.extend_from_within(..);
            },
            &["`base_model/conv2d_3/kernel` has shape", "expected ["],
        ),
        (
            |floats| *floats = vec![("encoder/layer_0/w".into(), vec![1], vec![0; 4])],
            &["no encoder of SimCLR", "`encoder/layer_0/w`"],
        ),
    ];
    let check = |folder: &Path, source: &Path, words: &[&str]| {
        let output = import(source, &folder.join("out"), &[]);
        refused(&output, 4, words);
        assert!(output.stdout.is_empty());
        // The bundle's two files and the one that names it.
        let left = fs::read_dir(folder).unwrap().count();
        assert_eq!(left, 3, "{words:?}");
    };
    for (edit, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        let source = edited(folder.path(), &network(), edit);
        check(folder.path(), &source, words);
    }
    let folder = tempfile::tempdir().unwrap();
    let source = original(folder.path(), &network());
    make_big_endian(&folder.path().join("model.ckpt-77.index"));
    check(folder.path(), &source, &["big-endian"]);
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let below = |path: PathBuf| {
        if path.is_dir() {
            walk(&path)
        } else {
            vec![path]
        }
    };
    paths.into_iter().flat_map(below).collect()
}

#[test]
fn inspect_knows_what_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let made = binary::run(&binary::tiny(
        &run,
        &["train_steps=2", "checkpoint_steps=1"],
    ));
    assert!(made.status.success(), "{}", binary::stderr(&made));
    let contents = inspect(&run);
    assert_eq!(contents["kind"], "checkpoint of simclr");
    assert_eq!(contents["facts"]["all steps"], "1, 2");
    assert_eq!(inspect(&binary::checkpoint(&run, 1))["facts"]["step"], "1");
    let text = simclr().arg("inspect").arg(&run).output().unwrap().stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    let keys = simclr::config::schema::KEYS.len();
    let words = format!("configuration    {keys} keys, shown with --json");
    assert!(
        text.contains(&words) && !text.contains("model_dir"),
        "{text}"
    );
    let state = binary::checkpoint(&run, 2).join("state.safetensors");
    let file = inspect(&state);
    assert_eq!(file["kind"], "safetensors file");
    assert_eq!(file["arrays"], contents["arrays"]);
    let kernel = &file["arrays"][0];
    assert!(kernel["norm"].as_f64().unwrap() >= 0.0 && kernel["shape"].is_array());

    // The events of the run are records like any others.
    let mut events = fs::read_dir(&run).unwrap().map(|e| e.unwrap().path());
    let events = events
        .find(|p| p.to_string_lossy().contains("tfevents"))
        .expect("events");
    assert_eq!(inspect(&events)["kind"], "TFRecord file");
    let shown = |path: &Path| simclr().arg("inspect").arg(path).output().unwrap();
    let mut bytes = fs::read(&events).unwrap();
    let last = bytes.len() - 6;
    bytes[last] ^= 1;
    fs::write(&events, &bytes).unwrap();
    refused(&shown(&events), 4, &["tfevents", "CRC"]);

    // So are examples, whose features are shown.
    let pictures = folder.path().join("pictures");
    for class in ["ant", "bee"] {
        fs::create_dir_all(pictures.join("train").join(class)).unwrap();
        let file = pictures.join("train").join(class).join("0.png");
        fs::write(file, pictures::png(class.len())).unwrap();
    }
    let packed = folder.path().join("packed");
    let pack = simclr()
        .args(["data", "pack"])
        .args([&pictures, &packed])
        .output()
        .unwrap();
    assert!(pack.status.success(), "{}", binary::stderr(&pack));
    let records = walk(&packed)
        .into_iter()
        .find(|path| path.to_string_lossy().contains("tfrecord"))
        .expect("a record file");
    let facts = &inspect(&records)["facts"];
    assert_eq!(facts["records"], "2, all check sums right");
    for (feature, holds) in [("`image`", "1 byte strings"), ("`label`", "1 integers")] {
        let found = facts[feature].as_str().unwrap_or_default();
        assert!(found.contains(holds), "{feature}: {facts}");
    }

    let other = folder.path().join("notes.txt");
    fs::write(&other, "nothing that this program knows of").unwrap();
    refused(&shown(&other), 2, &["notes.txt", "of another kind"]);
    refused(
        &shown(&folder.path().join("gone")),
        2,
        &["gone", "nothing is there"],
    );
    refused(&shown(folder.path()), 2, &["a folder without an index"]);
    let manifest = binary::checkpoint(&run, 1).join("manifest.json");
    fs::write(&manifest, "{}").unwrap();
    refused(&shown(&binary::checkpoint(&run, 1)), 4, &["damaged"]);
}
