//! Names and shapes of everything in a checkpoint, against the original's lists of both generations: a run of ours saves them, and
//! export writes them, no more and no less.

mod binary;

use binary::simclr;
use prost::Message;
use serde_json::{Value as Json, json};
use simclr::augment::{Augmentation, Brightness, ResizeKernel};
use simclr::interop::names::tf2_paths;
use simclr::interop::tensor_bundle::{Bundle, Tensor, write};
use simclr::model::{Freeze, HeadMode, Network};
use simclr::nn::Settings;
use simclr::optim::{Lars, Optimizer, Schedule};
use simclr::proto::tensor_bundle::ObjectGraph;
use simclr::proto::tensor_bundle::object_graph::Node;
use simclr::train::checkpoint::Dtype;
use simclr::train::objective::Objective;
use simclr::train::step::{Input, StepSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The end of a key of the second generation.
const END: &str = "/.ATTRIBUTES/VARIABLE_VALUE";

/// Name → shape.
type Shapes = BTreeMap<String, Vec<i64>>;

fn parsed(path: &Path) -> Json {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).expect("valid JSON")
}

fn golden(name: &str) -> Json {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    parsed(&folder.join(name))
}

/// The complete lists of a generation, where they are: their names and content.
fn lists(generation: &str) -> Vec<(String, Json)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference/variables");
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no lists at {}", folder.display());
        return Vec::new();
    };
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let paths = entries.map(|entry| entry.unwrap().path());
    let found: Vec<_> = paths
        .map(|path| (name(&path), path))
        .filter(|(name, _)| name.starts_with(generation))
        .map(|(name, path)| (name, parsed(&path)))
        .collect();
    assert!(found.len() >= 7, "{} lists", found.len());
    found
}

fn network(entry: &Json) -> Network {
    let flag = |key: &str, default: f64| entry["flags"][key].as_f64().unwrap_or(default);
    Network {
        resnet_depth: flag("resnet_depth", 50.0) as usize,
        width_multiplier: flag("width_multiplier", 1.0),
        image_size: flag("image_size", 224.0) as usize,
        sk_ratio: flag("sk_ratio", 0.0),
        ..Network::default()
    }
}

fn shape(row: &Json) -> Vec<i64> {
    let dims = row.as_array().expect("a shape").iter();
    dims.map(|dim| dim.as_i64().expect("a number")).collect()
}

/// Rows of name, shape, … as names and shapes.
fn shapes(rows: &Json) -> Shapes {
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| (row[0].as_str().expect("a name").to_owned(), shape(&row[1])))
        .collect()
}

const PRETRAIN: Objective = Objective::Pretrain {
    temperature: 0.1,
    hidden_norm: true,
};

fn finetune(after_block: i64, projection_head: bool) -> Objective {
    Objective::Finetune {
        freeze: Freeze {
            after_block,
            moving_statistics: !projection_head && after_block == 4,
        },
        projection_head,
    }
}

fn lars() -> Optimizer {
    Optimizer::Lars(Lars::new(0.9, 1e-4))
}

/// What a run of this network saves.
fn saved(network: &Network, objective: Objective, optimizer: Optimizer) -> Shapes {
    let spec = StepSpec {
        network: network.clone(),
        objective,
        augmentation: Augmentation {
            image_size: network.image_size,
            color_jitter_strength: 1.0,
            use_blur: true,
            brightness: Brightness::Multiplicative,
            resize: ResizeKernel::V2HalfPixel,
            drop_colour_at_zero_strength: false,
        },
        optimizer,
        schedule: Schedule {
            scaled_rate: 0.1,
            warmup_steps: 0,
            total_steps: 1,
        },
        weight_decay: 0.0,
        settings: Settings::default(),
        batch: 2,
        steps_per_launch: 1,
        input: Input::Given,
    };
    let (_, state) = spec.state().expect("a network");
    let count = state.len();
    let shapes: Shapes = state
        .into_iter()
        .map(|array| (array.name, array.shape.dims))
        .collect();
    assert_eq!(shapes.len(), count, "every name once");
    shapes
}

/// The first names that only one of two lists has, or whose shapes differ.
fn same(what: &str, found: &Shapes, expected: &Shapes) {
    let of = |a: &Shapes, b: &Shapes| -> Vec<String> {
        let differ = a.iter().filter(|(name, dims)| b.get(*name) != Some(*dims));
        let lines = differ.map(|(name, dims)| format!("{name} {dims:?}"));
        lines.take(3).collect()
    };
    let (more, less) = (of(found, expected), of(expected, found));
    assert!(
        more.is_empty() && less.is_empty(),
        "{what}: only ours {more:?}, only the original's {less:?}"
    );
}

/// Every architecture, optimizer, head and way of fine-tuning that there is a list of.
#[test]
fn all_lists_of_the_first_generation_are_what_runs_save() {
    for (name, list) in lists("tf1_") {
        let network = network(&list);
        let base = shapes(&list["pretrain"]["variables"]);
        same(&name, &saved(&network, PRETRAIN, lars()), &base);
        for (variant, change) in list["variants"].as_object().expect("variants") {
            let what = format!("{name}, {variant}");
            let expected = match change.get("variables") {
                Some(whole) => shapes(whole),
                None => {
                    let mut expected = base.clone();
                    for gone in change["removed"].as_array().expect("names") {
                        let gone = gone.as_str().expect("a name");
                        let dims = expected.remove(gone).expect(gone);
                        // Changes are names alone: the last layer's shapes are now those of the one before.
                        if let (true, Some((_, part))) = (
                            variant == "pretrain_2_layer_head",
                            gone.split_once("head_contrastive/nl_2/"),
                        ) {
                            expected.insert(format!("head_contrastive/nl_1/{part}"), dims);
                        }
                    }
                    expected.extend(shapes(&change["added"]));
                    expected
                }
            };
            let network = network.clone();
            let classified = Network {
                num_classes: list["classes"].as_u64().map(|classes| classes as usize),
                ..network.clone()
            };
            let momentum = Optimizer::Momentum {
                momentum: 0.9,
                keras: false,
            };
            let adam = Optimizer::Adam { epsilon: 1e-8 };
            let found = match variant.as_str() {
                "pretrain_momentum_optimizer" => saved(&network, PRETRAIN, momentum),
                "pretrain_adam" => {
                    let mut found = saved(&network, PRETRAIN, adam);
                    // They follow from the step, and are written by export alone.
                    for power in ["beta1_power", "beta2_power"] {
                        assert!(found.insert(power.into(), Vec::new()).is_none());
                    }
                    found
                }
                "finetune_lars_block-1" => saved(&classified, finetune(-1, false), lars()),
                "finetune_lars_block4" => saved(&classified, finetune(4, false), lars()),
                "pretrain_head_linear" => {
                    let network = Network {
                        proj_head_mode: HeadMode::Linear,
                        ..network
                    };
                    saved(&network, PRETRAIN, lars())
                }
                "pretrain_head_none" => {
                    let network = Network {
                        proj_head_mode: HeadMode::None,
                        ..network
                    };
                    saved(&network, PRETRAIN, lars())
                }
                "pretrain_2_layer_head" => {
                    let network = Network {
                        num_proj_layers: 2,
                        ..network
                    };
                    saved(&network, PRETRAIN, lars())
                }
                "pretrain_se_0.25" => {
                    let network = Network {
                        se_ratio: 0.25,
                        ..network
                    };
                    saved(&network, PRETRAIN, lars())
                }
                other => panic!("{name} has a variant {other} that no one compares"),
            };
            same(&what, &found, &expected);
        }
    }
}

#[test]
fn paths_of_the_second_generation_are_those_of_the_original() {
    let lists = golden("tf2_paths.json");
    for (name, entry) in lists.as_object().expect("an object") {
        let paths = entry["paths"].as_object().expect("an object");
        let network = Network {
            num_classes: Some(10),
            ..network(entry)
        };
        let variables = network.variables().unwrap().into_iter();
        let names: Vec<String> = variables.map(|v| v.name).collect();
        assert_eq!(names.len(), paths.len(), "{name}");
        for (own, path) in names.iter().zip(tf2_paths(&network, &names)) {
            assert_eq!(path.as_deref(), paths[own].as_str(), "{name}: {own}");
        }
    }
}

/// Variables and slots, and which of them there are in fine-tuning.
#[test]
fn all_lists_of_the_second_generation_are_what_runs_save() {
    for (name, list) in lists("tf2_") {
        let network = Network {
            num_classes: list["classes"].as_u64().map(|classes| classes as usize),
            ..network(&list)
        };
        let model = list["pretrain_lars"]["model"].as_array().expect("rows");
        // Our state under the keys of the second generation, by our own map.
        let keys = |state: Shapes| -> Shapes {
            let own: Vec<String> = state.keys().cloned().collect();
            let plain = |name: &str| name.trim_end_matches("/Momentum").to_owned();
            let paths = tf2_paths(&network, &own.iter().map(|n| plain(n)).collect::<Vec<_>>());
            let rows = own.iter().zip(paths).zip(state.values());
            rows.map(|((own, path), dims)| {
                let key = match path {
                    None => format!("{own}{END}"),
                    Some(path) if own.ends_with("/Momentum") => {
                        format!("model/{path}/.OPTIMIZER_SLOT/optimizer/Momentum{END}")
                    }
                    Some(path) => format!("model/{path}{END}"),
                };
                (key, dims.clone())
            })
            .collect()
        };
        let row = |row: &Json, at: usize| (row[0].as_str().unwrap().to_owned(), shape(&row[at]));
        let variables: Shapes = model.iter().map(|r| row(r, 2)).collect();
        let slots = list["pretrain_lars"]["slots"].as_array().expect("rows");
        let step = (format!("global_step{END}"), Vec::new());
        let mut expected = variables.clone();
        expected.extend(slots.iter().map(|r| row(r, 2)));
        expected.extend([step]);
        same(&name, &keys(saved(&network, PRETRAIN, lars())), &expected);

        // Of the trainable variables those have slots which a gradient reaches: none of a head that the classifier does not look at.
        let blocks = list["finetune"]["by_fine_tune_after_block"].as_object();
        for (block, entry) in blocks.into_iter().flatten() {
            let names = entry["trainable_names"].as_array().expect("names").iter();
            let names: BTreeSet<&str> = names.filter_map(Json::as_str).collect();
            let trained = model
                .iter()
                .filter(|row| names.contains(row[1].as_str().expect("a name")))
                .map(|row| row[4].as_str().expect("a name"))
                .filter(|own| !own.starts_with("head_contrastive"));
            let expected: BTreeSet<String> = trained.map(|own| format!("{own}/Momentum")).collect();
            let objective = finetune(block.parse().expect("a number"), true);
            let found = saved(&network, objective, lars()).into_keys();
            let found: BTreeSet<String> = found.filter(|own| own.ends_with("/Momentum")).collect();
            assert_eq!(found, expected, "{name}, after block {block}");
        }
        let Some(slots) = list["finetune"].get("slots_in_a_checkpoint_written_with_block_4") else {
            continue;
        };
        let found = keys(saved(&network, finetune(4, true), lars())).into_keys();
        let found: BTreeSet<String> = found.filter(|key| key.contains("OPTIMIZER_SLOT")).collect();
        let slots = slots.as_array().expect("keys").iter();
        let slots: BTreeSet<String> = slots.map(|key| key.as_str().unwrap().to_owned()).collect();
        assert_eq!(found, slots, "{name}");
    }
}

/// A run imported from a first-generation checkpoint with these names, each with a number of its own as its first element.
fn run_of(folder: &Path, shapes: &Shapes) -> PathBuf {
    let source = folder.join("source");
    fs::create_dir(&source).unwrap();
    let step = 12i64.to_le_bytes();
    let largest = shapes.values().map(|dims| elements(dims)).max();
    let mut zeros = vec![0u8; 4 * largest.unwrap_or(0) + 4 * shapes.len()];
    for (number, at) in zeros.chunks_mut(4).take(shapes.len()).enumerate() {
        at.copy_from_slice(&(number as f32 + 1.0).to_le_bytes());
    }
    let mut tensors = vec![Tensor::numbers("global_step", Dtype::I64, &[], &step)];
    for (number, (name, dims)) in shapes.iter().enumerate() {
        let bytes = &zeros[4 * number..4 * (number + elements(dims))];
        let dims: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
        tensors.push(Tensor::numbers(name, Dtype::F32, &dims, bytes));
    }
    write(&source.join("model.ckpt-12"), &tensors).expect("a bundle");
    let run = folder.join("run");
    simclr_ok(&["import", text(&source), text(&run), "--slots"]);
    run
}

fn elements(dims: &[i64]) -> usize {
    dims.iter().product::<i64>() as usize
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn simclr_ok(arguments: &[&str]) {
    let output = simclr().args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{}", binary::stderr(&output));
}

/// What a bundle holds, without the step and TensorFlow's own.
fn holds(bundle: &Bundle, without: &[&str]) -> Shapes {
    let entries = bundle.entries().iter();
    entries
        .filter(|(name, _)| !without.contains(&name.as_str()))
        .map(|(name, entry)| {
            let dims = entry.dims.iter().map(|&dim| dim as i64);
            (name.clone(), dims.collect())
        })
        .collect()
}

/// Export writes names that the original restores. All expected names are the original's: those of its first generation by
/// `variables.json`, with the slots of its own list, and those of its second by `tf2_paths.json`.
#[test]
fn export_writes_names_that_the_original_restores() {
    let folder = tempfile::tempdir().unwrap();
    let (lists, paths) = (golden("variables.json"), golden("tf2_paths.json"));
    let list = &lists["resnet18_cifar"];
    let paths = paths["resnet18_cifar"]["paths"].as_object().unwrap();
    let mut expected = shapes(&list["variables"]);
    let others = list["others"].as_array().expect("names").iter();
    for slot in others
        .filter_map(Json::as_str)
        .filter(|n| *n != "global_step")
    {
        let variable = slot.strip_suffix("/Momentum").expect("a slot");
        let dims = expected.get(variable).expect("a variable").clone();
        expected.insert(slot.into(), dims);
    }
    // The classifier of the second generation, which has its online evaluation.
    for (part, dims) in [("kernel", json!([512, 10])), ("bias", json!([10]))] {
        let name = format!("head_supervised/linear_layer/dense/{part}");
        expected.insert(format!("{name}/Momentum"), shape(&dims));
        expected.insert(name, shape(&dims));
    }
    let run = run_of(folder.path(), &expected);
    let source = Bundle::open(&folder.path().join("source")).unwrap();

    let out = folder.path().join("first");
    simclr_ok(&[
        "export",
        text(&run),
        text(&out),
        "--format",
        "tf-checkpoint",
    ]);
    let first = Bundle::open(&out).unwrap();
    assert_eq!(first.prefix(), out.join("model.ckpt-12"));
    same(
        "first generation",
        &holds(&first, &["global_step"]),
        &expected,
    );
    assert_eq!(first.numbers("global_step").unwrap(), 12i64.to_le_bytes());
    for name in expected.keys() {
        assert_eq!(
            first.numbers(name).unwrap(),
            source.numbers(name).unwrap(),
            "{name}"
        );
    }

    let out = folder.path().join("second");
    let more = ["--format", "tf-checkpoint", "--generation", "tf2"];
    simclr_ok(&[&["export", text(&run), text(&out)], &more[..]].concat());
    let second = Bundle::open(&out).unwrap();
    assert_eq!(second.prefix(), out.join("ckpt-12"));
    let bytes = second.strings("_CHECKPOINTABLE_OBJECT_GRAPH").unwrap();
    let graph = ObjectGraph::decode(bytes[0].as_slice()).unwrap();
    let mut keys = Shapes::new();
    for (own, path) in paths {
        let path = format!("model/{}", path.as_str().unwrap());
        let (key, slot) = (
            format!("{path}{END}"),
            format!("{path}/.OPTIMIZER_SLOT/optimizer/Momentum{END}"),
        );
        assert_eq!(
            second.numbers(&key).unwrap(),
            source.numbers(own).unwrap(),
            "{own}"
        );
        keys.insert(key.clone(), expected[own].clone());
        // Restored through the objects: the path leads to the key.
        let (number, node) = object(&graph, &path);
        assert_eq!(node.attributes[0].name, "VARIABLE_VALUE", "{path}");
        assert_eq!(node.attributes[0].checkpoint_key, key);
        let own = format!("{own}/Momentum");
        let (_, optimizer) = object(&graph, "optimizer");
        let kept = optimizer
            .slot_variables
            .iter()
            .find(|slot| slot.original_variable_node_id == number);
        assert_eq!(kept.is_some(), expected.contains_key(&own), "{own}");
        if let Some(kept) = kept {
            assert_eq!(kept.slot_name, "Momentum");
            let kept = &graph.nodes[kept.slot_variable_node_id as usize];
            assert_eq!(kept.attributes[0].checkpoint_key, slot);
            assert_eq!(
                second.numbers(&slot).unwrap(),
                source.numbers(&own).unwrap()
            );
            keys.insert(slot, expected[&own].clone());
        }
    }
    let step = format!("global_step{END}");
    assert_eq!(second.numbers(&step).unwrap(), 12i64.to_le_bytes());
    let own = [
        "_CHECKPOINTABLE_OBJECT_GRAPH",
        &step,
        &format!("save_counter{END}"),
    ];
    same("second generation", &holds(&second, &own), &keys);
    for name in own {
        assert!(second.entries().contains_key(name), "{name}");
    }
}

/// The object at a path from the root, with its number.
fn object<'g>(graph: &'g ObjectGraph, path: &str) -> (i32, &'g Node) {
    path.split('/')
        .fold((0, &graph.nodes[0]), |(_, node), name| {
            let children = node.children.iter();
            let child = children.clone().find(|child| child.local_name == name);
            let child = child.unwrap_or_else(|| panic!("{path}: no {name}"));
            (child.node_id, &graph.nodes[child.node_id as usize])
        })
}
