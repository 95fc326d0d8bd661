//! Names, order, shapes and numbers of variables, as in the original's checkpoints (reference §3.10, §8.1).

use serde_json::Value as Json;
use simclr::model::{HeadMode, Network};
use simclr::nn::Variable;
use simclr::optim::{Lars, Optimizer};

fn golden() -> Json {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/variables.json");
    let text = std::fs::read_to_string(path).expect("the list of variables");
    serde_json::from_str(&text).expect("valid JSON")
}

fn network(flags: &Json) -> Network {
    let get = |key: &str, default: f64| flags[key].as_f64().unwrap_or(default);
    Network {
        resnet_depth: get("resnet_depth", 50.0) as usize,
        width_multiplier: get("width_multiplier", 1.0),
        image_size: get("image_size", 224.0) as usize,
        sk_ratio: get("sk_ratio", 0.0),
        ..Network::default()
    }
}

fn compare(what: &str, found: &[Variable], expected: &Json) {
    let expected = expected.as_array().expect("a list");
    for (i, (found, row)) in found.iter().zip(expected).enumerate() {
        let dims: Vec<i64> = row[1]
            .as_array()
            .expect("a shape")
            .iter()
            .map(|d| d.as_i64().expect("a dimension"))
            .collect();
        assert_eq!(found.name, row[0], "{what}: name of variable {i}");
        assert_eq!(found.dims, dims, "{what}: shape of {}", found.name);
        assert_eq!(
            found.kind.trainable(),
            row[2],
            "{what}: is {} trained",
            found.name
        );
    }
    assert_eq!(found.len(), expected.len(), "{what}: number of variables");
}

fn elements(variables: &[Variable], trainable_only: bool) -> usize {
    variables
        .iter()
        .filter(|v| !trainable_only || v.kind.trainable())
        .map(Variable::elements)
        .sum()
}

#[test]
fn variables_are_those_of_the_original_checkpoints() {
    let golden = golden();
    let architectures = golden.as_object().expect("an object");
    assert!(architectures.len() >= 7);
    for (name, entry) in architectures {
        let network = network(&entry["flags"]);
        let variables = network.variables().expect("a network");
        compare(name, &variables, &entry["variables"]);
        let count = |key: &str| entry["counts"][key].as_u64().expect("a count") as usize;
        assert_eq!(elements(&variables, false), count("pretrain_parameters"));
        assert_eq!(
            elements(&variables, true),
            count("pretrain_trainable_parameters")
        );
        if !entry["se_0.25"].is_null() {
            let squeezed = Network {
                se_ratio: 0.25,
                ..network
            };
            let variables = squeezed.variables().expect("a network");
            compare(&format!("{name}, SE"), &variables, &entry["se_0.25"]);
        }
    }
}

#[test]
fn slots_are_those_of_the_original_checkpoints() {
    let golden = golden();
    let entry = &golden["resnet18_cifar"];
    let variables = network(&entry["flags"]).variables().expect("a network");
    let optimizer = Optimizer::Lars(Lars::new(0.9, 1e-4));
    let mut found: Vec<String> = optimizer
        .slots(&variables)
        .into_iter()
        .map(|slot| slot.name)
        .collect();
    found.push("global_step".into());
    found.sort();
    let mut expected: Vec<&str> = entry["others"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|name| name.as_str().expect("a name"))
        .collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let adam = Optimizer::Adam { epsilon: 1e-8 }.slots(&variables);
    assert_eq!(adam[0].name, "base_model/conv2d/kernel/Adam");
    assert_eq!(adam[1].name, "base_model/conv2d/kernel/Adam_1");
}

/// `(depth, width, sk_ratio, image size, trainable, total, features)` of encoders without heads, from the table of §3.10.
const ENCODERS: [(usize, f64, f64, usize, usize, usize, i64); 24] = [
    (50, 1.0, 0.0, 224, 23_508_032, 23_561_152, 2048),
    (50, 2.0, 0.0, 224, 93_907_072, 94_013_312, 4096),
    (50, 4.0, 0.0, 224, 375_378_176, 375_590_656, 8192),
    (50, 1.0, 0.0625, 224, 35_215_584, 35_277_408, 2048),
    (50, 2.0, 0.0625, 224, 140_306_048, 140_428_864, 4096),
    (101, 1.0, 0.0, 224, 42_500_160, 42_605_504, 2048),
    (101, 2.0, 0.0, 224, 169_771_136, 169_981_824, 4096),
    (101, 1.0, 0.0625, 224, 64_662_304, 64_786_144, 2048),
    (101, 2.0, 0.0625, 224, 257_132_224, 257_377_984, 4096),
    (152, 1.0, 0.0, 224, 58_143_808, 58_295_232, 2048),
    (152, 2.0, 0.0, 224, 232_253_568, 232_556_416, 4096),
    (152, 1.0, 0.0625, 224, 88_940_896, 89_119_584, 2048),
    (152, 2.0, 0.0625, 224, 353_398_528, 353_752_896, 4096),
    (152, 3.0, 0.0625, 224, 794_704_160, 795_235_360, 6144),
    (18, 1.0, 0.0, 224, 11_180_736, 11_190_464, 512),
    (34, 1.0, 0.0, 224, 21_288_896, 21_306_048, 512),
    (200, 1.0, 0.0, 224, 62_624_832, 62_800_832, 2048),
    (18, 1.0, 0.0, 32, 11_173_056, 11_182_784, 512),
    (34, 1.0, 0.0, 32, 21_281_216, 21_298_368, 512),
    (50, 1.0, 0.0, 32, 23_500_352, 23_553_472, 2048),
    // Ours: depth 10, and fractions of a width, whose channels are multiples of 8.
    (10, 1.0, 0.0, 32, 4_902_336, 4_908_224, 512),
    (10, 0.25, 0.0, 32, 307_824, 309_296, 128),
    (10, 0.125, 0.0, 32, 77_432, 78_168, 64),
    (10, 0.01, 0.0, 32, 5_288, 5_496, 8),
];

#[test]
fn parameter_counts() {
    for (resnet_depth, width_multiplier, sk_ratio, image_size, trainable, total, features) in
        ENCODERS
    {
        let network = Network {
            resnet_depth,
            width_multiplier,
            sk_ratio,
            image_size,
            proj_head_mode: HeadMode::None,
            ..Network::default()
        };
        let variables = network.variables().expect("a network");
        let what = format!("depth {resnet_depth}, width {width_multiplier}, sk {sk_ratio}");
        assert_eq!(elements(&variables, true), trainable, "{what}: trainable");
        assert_eq!(elements(&variables, false), total, "{what}: total");
        assert_eq!(network.features(), features, "{what}: features");
    }
}

/// `(features, 3-layer head trainable, total, 2-layer head trainable, total, supervised head)`.
const HEADS: [(f64, usize, [usize; 5]); 3] = [
    (1.0, 18, [592_000, 594_304, 328_832, 330_112, 513_000]),
    (
        1.0,
        50,
        [8_659_072, 8_667_520, 4_460_672, 4_465_024, 2_049_000],
    ),
    (
        2.0,
        50,
        [34_095_232, 34_111_872, 17_309_824, 17_318_272, 4_097_000],
    ),
];

#[test]
fn head_parameter_counts() {
    for (width_multiplier, resnet_depth, expected) in HEADS {
        let head = |num_proj_layers: usize, prefix: &str, trainable: bool| {
            let network = Network {
                resnet_depth,
                width_multiplier,
                num_proj_layers,
                num_classes: Some(1000),
                ..Network::default()
            };
            let mut variables = network.variables().expect("a network");
            variables.retain(|v| v.name.starts_with(prefix));
            elements(&variables, trainable)
        };
        let found = [
            head(3, "head_contrastive", true),
            head(3, "head_contrastive", false),
            head(2, "head_contrastive", true),
            head(2, "head_contrastive", false),
            head(3, "head_supervised", false),
        ];
        assert_eq!(
            found, expected,
            "depth {resnet_depth}, width {width_multiplier}"
        );
    }
}

#[test]
fn impossible_networks_are_named() {
    let base = Network::default;
    for (network, key) in [
        (
            Network {
                resnet_depth: 51,
                ..base()
            },
            "resnet_depth",
        ),
        (
            Network {
                width_multiplier: 0.0,
                ..base()
            },
            "width_multiplier",
        ),
        (
            Network {
                width_multiplier: f64::NAN,
                ..base()
            },
            "width_multiplier",
        ),
        (
            Network {
                stem_stride: 3,
                ..base()
            },
            "stem_stride",
        ),
        (
            Network {
                num_proj_layers: 0,
                ..base()
            },
            "num_proj_layers",
        ),
        (
            Network {
                ft_proj_selector: 4,
                ..base()
            },
            "ft_proj_selector",
        ),
    ] {
        let error = network.variables().expect_err(key);
        assert_eq!(error.key, key, "{error}");
    }
}
