use super::network::multiplier;
use super::source::{AVERAGE, is_variable};
use super::*;
use crate::interop::names::tf2_paths;
use crate::interop::object_graph::{GRAPH_KEY, Grow, VALUE};
use crate::interop::tensor_bundle::odd::hollow;
use crate::optim::{Lars, Optimizer};

mod fuzz;

type List = Vec<(String, Vec<i64>)>;

/// Names and shapes of a network's checkpoint of the first generation, slots and step included.
fn first_generation(network: &Network) -> List {
    let variables = network.variables().expect("a network");
    let mut list: List = variables
        .iter()
        .map(|v| (v.name.clone(), v.dims.clone()))
        .collect();
    let slots = Optimizer::Lars(Lars::new(0.9, 1e-4)).slots(&variables);
    list.extend(slots.into_iter().map(|slot| (slot.name, slot.dims)));
    list
}

/// The same of the second generation, with its graph; a SavedModel stores variables by their position.
fn second_generation(network: &Network, saved_model: bool) -> (List, Vec<u8>) {
    let variables = network.variables().expect("a network");
    let paths = tf2_paths(network, &names(&variables));
    let mut graph = Grow::default();
    let mut list = List::new();
    for (at, (variable, path)) in variables.iter().zip(paths).enumerate() {
        let path = format!("model/{}", path.expect("a path"));
        let mut key = graph.variable(&path, &variable.name);
        if saved_model {
            let part = path.split('/').nth(1).expect("a part");
            key = graph.rename(&path, format!("model/{part}/variables/{at}{VALUE}"));
        } else {
            let slot = graph.slot(&path, "Momentum", "");
            list.push((slot, variable.dims.clone()));
        }
        list.push((key, variable.dims.clone()));
    }
    (list, graph.finish())
}

fn recognised(
    list: &[(String, Vec<i64>)],
    graph: Option<Vec<u8>>,
    choice: Choice,
) -> Result<(Network, Vec<String>), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let prefix = folder.path().join("model.ckpt-5");
    hollow(&prefix, list, graph);
    recognise(&Bundle::open(&prefix).expect("a bundle"), choice)
}

fn network(resnet_depth: usize, width_multiplier: f64, sk_ratio: f64) -> Network {
    Network {
        resnet_depth,
        width_multiplier,
        sk_ratio,
        ..Network::default()
    }
}

/// The published networks and what the original's flags can make besides.
fn networks() -> Vec<Network> {
    let small = |network: Network| Network {
        image_size: 32,
        ..network
    };
    let r50 = || network(50, 1.0, 0.0);
    vec![
        r50(),
        network(50, 2.0, 0.0),
        network(50, 4.0, 0.0),
        network(50, 1.0, 0.0625),
        network(50, 2.0, 0.0625),
        network(101, 2.0, 0.0625),
        network(152, 3.0, 0.0625),
        small(network(18, 1.0, 0.0)),
        small(network(34, 0.25, 0.0)),
        small(network(50, 1.0, 0.0625)),
        small(network(10, 0.125, 0.0)),
        small(network(10, 0.2, 0.0)),
        network(18, 0.3, 0.0),
        network(50, 0.3, 0.0625),
        Network {
            se_ratio: 0.25,
            ..small(network(50, 0.2, 0.0))
        },
        network(34, 0.75, 0.0),
        network(10, 1.5, 0.0),
        network(50, 1.0, 0.25),
        Network {
            se_ratio: 0.25,
            ..r50()
        },
        Network {
            se_ratio: 0.25,
            ..network(50, 1.0, 0.0625)
        },
        Network {
            se_ratio: 0.0625,
            ..small(network(18, 1.0, 0.0))
        },
        Network {
            num_proj_layers: 2,
            proj_out_dim: 64,
            ..r50()
        },
        Network {
            proj_head_mode: HeadMode::Linear,
            num_proj_layers: 1,
            ..r50()
        },
        Network {
            proj_head_mode: HeadMode::None,
            num_proj_layers: 1,
            ..r50()
        },
        Network {
            num_classes: Some(1000),
            ..r50()
        },
        Network {
            num_classes: Some(10),
            ft_proj_selector: -1,
            ..r50()
        },
    ]
}

#[test]
fn networks_are_recognised_by_names_and_shapes() {
    for network in networks() {
        let what = describe(&network);
        let found = recognised(&first_generation(&network), None, Choice::default());
        assert_eq!(found.expect(&what).0, network, "first generation: {what}");
        // The second generation's other heads cannot run (reference §12-8).
        if network.proj_head_mode == HeadMode::Nonlinear {
            for saved_model in [false, true] {
                let (list, graph) = second_generation(&network, saved_model);
                let found = recognised(&list, Some(graph), Choice::default());
                assert_eq!(found.expect(&what).0, network, "second generation: {what}");
            }
        }
    }
}

#[test]
fn the_moving_average_is_found_beside_the_weights() {
    let weights = network(50, 1.0, 0.0625);
    let mut list = first_generation(&weights);
    let average: List = list
        .iter()
        .filter(|(name, _)| is_variable(name))
        .map(|(name, dims)| (format!("{AVERAGE}{name}"), dims.clone()))
        .collect();
    let choice = Choice {
        average: true,
        ..Choice::default()
    };
    let error = recognised(&list, None, choice).unwrap_err().to_string();
    assert!(error.contains("no moving average"), "{error}");
    list.extend(average);
    list.push(("memory/queue".into(), vec![64, 128]));
    for choice in [Choice::default(), choice] {
        assert_eq!(recognised(&list, None, choice).unwrap().0, weights);
    }
}

#[test]
fn what_is_assumed_is_said() {
    let network = Network {
        num_classes: Some(1000),
        ..network(50, 1.0, 0.0)
    };
    let (_, assumed) = recognised(&first_generation(&network), None, Choice::default()).unwrap();
    assert!(assumed[0].contains("image_size=224"), "{assumed:?}");
    assert!(assumed[1].contains("ft_proj_selector=0"), "{assumed:?}");
    let small = Network {
        image_size: 32,
        ..network
    };
    let (_, assumed) = recognised(&first_generation(&small), None, Choice::default()).unwrap();
    assert!(assumed[1].contains("stem_stride=1"), "{assumed:?}");
}

#[test]
fn every_rounded_width_comes_back() {
    for hundredths in 1..=400 {
        let network = network(10, f64::from(hundredths) / 100.0, 0.0);
        let widths = network.widths();
        let found = Network {
            width_multiplier: multiplier(widths.map(|width| width as f64)),
            ..network
        };
        assert_eq!(found.widths(), widths, "{hundredths} hundredths");
    }
}

fn refused(edit: impl Fn(&mut List), words: &[&str]) {
    let mut list = first_generation(&network(50, 1.0, 0.0));
    edit(&mut list);
    let error = recognised(&list, None, Choice::default()).expect_err("something is wrong");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
    assert_eq!(error.class(), crate::error::Class::Check);
}

#[test]
fn other_networks_are_told_apart_from_the_nearest() {
    let drop = |part: &'static str| move |list: &mut List| list.retain(|(name, _)| name != part);
    refused(
        drop("base_model/conv2d_7/kernel"),
        &[
            "1 variables are missing, `base_model/conv2d_7/kernel` the first",
            "in the nearest, a ResNet-50; expected",
        ],
    );
    refused(
        drop("head_contrastive/nl_1/batch_normalization/beta"),
        &[
            "`head_contrastive/nl_1/batch_normalization/beta` is missing",
            "3 layers to 128",
        ],
    );
    refused(
        |list| list.push(("base_model/conv2d_99/kernel".into(), vec![1, 1, 64, 64])),
        &["1 more variables are there, `base_model/conv2d_99/kernel` the first"],
    );
    // One layer twice as wide as its neighbours.
    refused(
        |list| {
            let entry = list
                .iter_mut()
                .find(|(name, _)| name == "base_model/conv2d_3/kernel");
            entry.expect("a kernel").1 = vec![3, 3, 64, 128];
        },
        &["`base_model/conv2d_3/kernel` has shape [3, 3, 64, 128], expected [3, 3, 64, 64]"],
    );
    refused(
        |list| *list = vec![("encoder/layer_0/w".into(), vec![3, 3])],
        &["no encoder of SimCLR", "`encoder/layer_0/w`"],
    );
    refused(|list| list.clear(), &["no encoder of SimCLR"]);
}

#[test]
fn damaged_graphs_are_survived() {
    let (list, graph) = second_generation(&network(10, 0.125, 0.0), false);
    assert!(recognised(&list, Some(graph.clone()), Choice::default()).is_ok());
    for cut in [0, 1, graph.len() / 2, graph.len() - 1] {
        assert!(
            recognised(&list, Some(graph[..cut].to_vec()), Choice::default()).is_err(),
            "cut at {cut}"
        );
    }
}
