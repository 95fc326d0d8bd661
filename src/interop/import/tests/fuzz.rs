//! Checkpoints with anything in them: an import ends with the original's values or with an error, and an error leaves nothing.
//!
//! A few cases in every run of the tests; `PROPTEST_CASES` makes more of them (CONTRIBUTING.md).

use super::*;
use crate::interop::tensor_bundle::odd::{Parts, shape};
use crate::proto::tensor_bundle::{ObjectGraph, VersionDef};
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Few unless more are asked for.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(48),
    }
}

/// A small network with everything that a checkpoint of it has, in two data files.
struct Sample {
    parts: Parts,
    /// Our name of each variable, and its key.
    variables: Vec<(String, String)>,
}

fn small() -> Network {
    Network {
        image_size: 32,
        proj_out_dim: 8,
        num_proj_layers: 2,
        num_classes: Some(3),
        ..network(10, 0.125, 0.0)
    }
}

fn first() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| sample(1))
}

fn second() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| sample(2))
}

fn sample(generation: u8) -> Sample {
    let network = small();
    let variables = network.variables().expect("a network");
    let names = names(&variables);
    let (list, graph, keys) = if generation == 1 {
        (first_generation(&network), None, names.clone())
    } else {
        let (list, graph) = second_generation(&network, false);
        let paths = tf2_paths(&network, &names).into_iter();
        let key = |path: Option<String>| format!("model/{}{VALUE}", path.expect("a path"));
        (list, Some(graph), paths.map(key).collect())
    };
    let mut parts = Parts::new(2);
    for (at, (name, dims)) in list.iter().enumerate() {
        let numbers = 0..dims.iter().product::<i64>();
        let bytes: Vec<u8> = numbers
            .flat_map(|i| (at as f32 + i as f32 / 1024.0).to_le_bytes())
            .collect();
        parts.numbers(name, 1, dims, &bytes);
    }
    let step = match graph {
        None => "global_step".to_owned(),
        Some(_) => format!("global_step{VALUE}"),
    };
    parts.numbers(&step, 9, &[], &77i64.to_le_bytes());
    if let Some(graph) = graph {
        parts.text(GRAPH_KEY, &graph);
    }
    Sample {
        parts,
        variables: names.into_iter().zip(keys).collect(),
    }
}

/// Imports it: the arrays of the checkpoint that was made, or the error, after which nothing of it is there.
fn imported(parts: &Parts, choice: Choice) -> Result<BTreeMap<String, Array>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let prefix = folder.path().join("model.ckpt-77");
    parts.write(&prefix);
    let files = || std::fs::read_dir(folder.path()).expect("a folder").count();
    let before = files();
    let out = folder.path().join("out");
    match import(&prefix, &out, choice, &[]) {
        Ok(imported) => {
            let (_, arrays) = checkpoint::arrays(&imported.checkpoint).expect("a checkpoint");
            assert_eq!(files(), before + 1);
            Ok(arrays)
        }
        Err(error) => {
            assert_eq!(files(), before, "{error}");
            Err(error.to_string())
        }
    }
}

fn choice() -> impl Strategy<Value = Choice> {
    any::<[bool; 3]>().prop_map(|[average, slots, memory]| Choice {
        average,
        slots,
        memory,
    })
}

/// Sizes that shapes of networks have, and those that they never have.
fn dimension() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => proptest::sample::select(vec![1, 3, 4, 7, 8, 16, 32, 64, 128, 512]),
        1 => 0..1000i64,
        1 => proptest::sample::select(vec![-1, 0, 1 << 31, 1 << 62, i64::MAX, i64::MIN]),
    ]
}

fn dimensions() -> impl Strategy<Value = Vec<i64>> {
    proptest::collection::vec(dimension(), 0..6)
}

#[test]
fn the_samples_are_imported_whole() {
    for sample in [first(), second()] {
        let choice = Choice {
            slots: true,
            ..Choice::default()
        };
        let arrays = imported(&sample.parts, choice).unwrap();
        assert_eq!(arrays["global_step"].bytes, 77u32.to_le_bytes());
        for (name, key) in &sample.variables {
            let bytes = sample.parts.bytes(key);
            assert_eq!(Some(arrays[name].bytes.as_slice()), bytes, "{name}");
        }
        assert!(arrays.contains_key("base_model/conv2d/kernel/Momentum"));
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Data files with other bytes, cut, longer, or changed for one another: whole where no byte that was used is another.
    #[test]
    fn any_data_shards_are_survived(
        generation in 1..=2,
        slots in any::<bool>(),
        edits in proptest::collection::vec((any::<bool>(), any::<Index>(), any::<u8>()), 0..3),
        length in proptest::option::of((any::<bool>(), 0usize..200_000)),
        exchanged in proptest::bool::weighted(0.1),
    ) {
        let sample = if generation == 1 { first() } else { second() };
        let mut parts = sample.parts.clone();
        for (shard, at, flip) in edits {
            let shard = &mut parts.shards[usize::from(shard)];
            let at = at.index(shard.len());
            shard[at] ^= flip;
        }
        if let Some((shard, length)) = length {
            parts.shards[usize::from(shard)].resize(length, 0);
        }
        if exchanged {
            parts.shards.swap(0, 1);
        }
        let used = |key: &str| {
            let slot = key.ends_with("/Momentum") || key.contains("OPTIMIZER_SLOT");
            slots || !slot
        };
        let within = parts.entries.keys().all(|key| parts.bytes(key).is_some());
        let whole = parts.entries.keys().all(|key| !used(key) || parts.bytes(key) == sample.parts.bytes(key));
        let choice = Choice { slots, ..Choice::default() };
        match imported(&parts, choice) {
            Ok(arrays) => {
                prop_assert!(within && whole);
                for (name, key) in &sample.variables {
                    prop_assert_eq!(Some(arrays[name].bytes.as_slice()), sample.parts.bytes(key));
                }
            }
            Err(error) => prop_assert!(!(within && whole), "{}", error),
        }
    }

    /// Object graphs with other children, names, keys and bytes, under right CRCs.
    #[test]
    fn any_object_graph_is_survived(
        edits in proptest::collection::vec((any::<Index>(), any::<Index>(), 0..8, any::<i32>(), any::<Index>()), 0..5),
        bytes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..3),
        cut in proptest::option::weighted(0.1, any::<Index>()),
        random in proptest::option::weighted(0.1, proptest::collection::vec(any::<u8>(), 0..200)),
        choice in choice(),
    ) {
        let sample = second();
        let (_, graph) = second_generation(&small(), false);
        let mut graph = ObjectGraph::decode(graph.as_slice()).expect("a graph");
        let keys: Vec<&String> = sample.parts.entries.keys().collect();
        let words = ["model", "resnet_model", "kernel", "gamma", "conv2d", "bn", "0", "1", "99", "", "optimizer"];
        for (node, part, kind, number, word) in edits {
            let count = graph.nodes.len();
            let Some(node) = count.checked_sub(1).map(|_| node.index(count)) else { continue };
            let near = number.rem_euclid(count as i32);
            let node = &mut graph.nodes[node];
            if let Some(last) = node.children.len().checked_sub(1) {
                let child = &mut node.children[part.index(last + 1)];
                match kind {
                    0 => child.node_id = number,
                    1 => child.node_id = near,
                    2 => child.local_name = words[word.index(words.len())].into(),
                    3 => { node.children.pop(); }
                    _ => {}
                }
            }
            if let Some(attribute) = node.attributes.first_mut() {
                match kind {
                    4 => attribute.checkpoint_key = keys[word.index(keys.len())].clone(),
                    5 => attribute.name = words[word.index(words.len())].into(),
                    6 => { node.attributes.pop(); }
                    _ => {}
                }
            }
            if kind == 7 && number % 4 == 0 {
                graph.nodes.truncate(near as usize);
            }
        }
        let mut graph = random.unwrap_or_else(|| graph.encode_to_vec());
        for (at, byte) in bytes {
            if !graph.is_empty() {
                let at = at.index(graph.len());
                graph[at] = byte;
            }
        }
        if let Some(cut) = cut {
            graph.truncate(cut.index(graph.len() + 1));
        }
        let mut parts = sample.parts.clone();
        parts.entries.remove(GRAPH_KEY);
        parts.text(GRAPH_KEY, &graph);
        // Heads that no path leads to are none.
        if let Ok(arrays) = imported(&parts, choice) {
            for (name, _) in sample.variables.iter().filter(|(name, _)| name.starts_with("base_model/")) {
                prop_assert!(arrays.contains_key(name), "{}", name);
            }
        }
    }

    /// Entries with other names, types, shapes and places, under right CRCs.
    #[test]
    fn any_index_of_a_network_is_survived(
        generation in 1..=2,
        edits in proptest::collection::vec((any::<Index>(), 0..9, dimensions(), any::<i64>(), any::<Index>()), 1..5),
        header in proptest::option::weighted(0.1, (-1..4i32, 0..3i32, 0..3i32)),
        choice in choice(),
    ) {
        let sample = if generation == 1 { first() } else { second() };
        let mut parts = sample.parts.clone();
        for (at, kind, dims, number, other) in edits {
            let names: Vec<String> = parts.entries.keys().cloned().collect();
            let name = &names[at.index(names.len())];
            let other = &names[other.index(names.len())];
            let entry = parts.entries.get_mut(name).expect("an entry");
            match kind {
                0 => entry.dtype = (number % 30) as i32,
                1 => entry.shape = Some(shape(&dims)),
                2 => entry.shard_id = number.rem_euclid(4) as i32 - 1,
                3 => entry.offset = number >> (number & 63),
                4 => entry.size = number >> (number & 63),
                5 => entry.slices = vec![Default::default()],
                6 => entry.shape = None,
                7 => {
                    // Another tensor's place and shape.
                    let taken = parts.entries[other].clone();
                    parts.entries.insert(name.clone(), taken);
                }
                _ => {
                    let taken = parts.entries.remove(name).expect("an entry");
                    let name = format!("{}{}", ["ema_model/", "memory", "model/"][(number & 1) as usize], name);
                    parts.entries.insert(name, taken);
                }
            }
        }
        if let Some((shards, endianness, layout)) = header {
            parts.header.num_shards = shards;
            parts.header.endianness = endianness;
            parts.header.version = Some(VersionDef { producer: 1, min_consumer: layout });
        }
        if let Ok(arrays) = imported(&parts, choice) {
            prop_assert!(arrays.contains_key("base_model/conv2d/kernel"));
        }
    }

    /// Shapes of any size with nothing behind them: what they are taken for has those shapes.
    #[test]
    fn any_shapes_are_survived(
        generation in 1..=2,
        edits in proptest::collection::vec((any::<Index>(), dimensions()), 1..4),
        scale in proptest::option::of(dimension()),
        choice in choice(),
    ) {
        let (mut list, graph) = match generation {
            1 => (first_generation(&small()), None),
            _ => {
                let (list, graph) = second_generation(&small(), false);
                (list, Some(graph))
            }
        };
        // Of kernels alone, by which the network is known.
        let of_kernels = (0..list.len()).filter(|&at| list[at].0.contains("kernel"));
        let kernels: Vec<usize> = of_kernels.collect();
        let places: Vec<usize> = edits.iter().map(|(at, _)| kernels[at.index(kernels.len())]).collect();
        for (at, (_, dims)) in places.into_iter().zip(edits) {
            list[at].1 = dims;
        }
        // The whole network wider, as often as not beyond all bounds.
        if let Some(scale) = scale {
            for (_, dims) in &mut list {
                for dim in dims.iter_mut().rev().take(2) {
                    *dim = dim.saturating_mul(scale);
                }
            }
        }
        // A bundle of sizes that no file has is not opened: that is for the test above.
        for (_, dims) in &mut list {
            dims.iter_mut().for_each(|dim| *dim = (*dim).max(0));
            let size = dims.iter().try_fold(4i64, |size, &dim| size.checked_mul(dim));
            if size.is_none_or(|size| size > 1 << 40) {
                dims.insert(0, 0);
            }
        }
        if let Ok((network, _)) = recognised(&list, graph, choice) {
            prop_assert!(network.variables().is_ok());
        }
    }
}
