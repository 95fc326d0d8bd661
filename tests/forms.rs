//! Other forms of a network are the same function: features, every gradient and the new moving statistics, in double precision, on one
//! and on two devices.

mod common;

use simclr::grad::gradients;
use simclr::hlo::{DType, Graph, Literal, Module, Op, Shape, Value};
use simclr::model::{HeadMode, Network};
use simclr::nn::{Builder, Kind, Remat, Settings, Statistics, initial_value, max_pool_same};
use std::collections::BTreeSet;

const SIDE: i64 = 16;
const BATCH: i64 = 4;

fn network() -> Network {
    Network {
        resnet_depth: 10,
        width_multiplier: 0.125,
        image_size: 64, // the stem with a pool, also on images of SIDE
        stem_stride: 1,
        sk_ratio: 0.0,
        se_ratio: 0.0,
        proj_head_mode: HeadMode::None,
        proj_out_dim: 16,
        num_proj_layers: 2,
        ft_proj_selector: 0,
        num_classes: None,
    }
}

/// A smooth function of the features, its gradients by all variables, and the new moving statistics; over all replicas.
fn results(network: &Network, settings: &Settings) -> Vec<Vec<f64>> {
    let variables = network.variables().unwrap();
    let replicas = settings.replicas;
    let n = BATCH / replicas as i64;
    let graph = Graph::new();
    let values: Vec<Value> = variables
        .iter()
        .map(|v| graph.parameter(&v.name, Shape::new(DType::F64, v.dims.clone())))
        .collect();
    let images = graph.parameter("images", Shape::new(DType::F64, [n, SIDE, SIDE, 3]));
    let mut builder = Builder::with_values(&graph, settings.clone(), values.clone());
    let h = network.forward(&mut builder, images).h;
    // Each feature of each image counts in another way.
    let count = h.dim(0) * h.dim(1);
    let weights = graph.iota(DType::F64, &[count], 0).sin();
    let weights = weights.reshape(&h.dims());
    let loss = (h * weights).tanh().sum_all();
    let mut outputs = vec![loss];
    for gradient in gradients(loss, &values).into_iter().flatten() {
        outputs.push(gradient);
    }
    if replicas > 1 {
        outputs = outputs.into_iter().map(Value::all_reduce_sum).collect();
    }
    outputs.extend(builder.moving().iter().map(|&(_, value)| value));
    let module = graph
        .finish("network", &outputs)
        .unwrap()
        .with_replicas(replicas)
        .unwrap();
    let pixels: Vec<f64> = (0..BATCH * SIDE * SIDE * 3)
        .map(|i| ((i * 7919 % 1009) as f64 / 1009.0 + (i as f64 * 0.01).sin()).abs())
        .collect();
    let per = pixels.len() / replicas;
    let arguments: Vec<Vec<Literal>> = (0..replicas)
        .map(|replica| {
            let mut list: Vec<Literal> = variables
                .iter()
                .enumerate()
                .map(|(i, v)| {
                    // Moving means off zero: the shift of one pass must not matter.
                    let values: Vec<f64> = match v.kind {
                        Kind::MovingMean => vec![0.3; v.elements()],
                        // Scales of both signs, and no block that is its shortcut alone.
                        Kind::Gamma => signed(v.elements()),
                        _ => initial_value(v, 7, i as u64)
                            .iter()
                            .map(|&x| f64::from(x))
                            .collect(),
                    };
                    Literal::from_f64s(DType::F64, &v.dims, &values)
                })
                .collect();
            let own = &pixels[replica * per..(replica + 1) * per];
            list.push(Literal::from_f64s(DType::F64, &[n, SIDE, SIDE, 3], own));
            list
        })
        .collect();
    let found = common::run_replicas(&module, &arguments);
    found[0].iter().map(Literal::to_f64s).collect()
}

/// ±(1 to 1.5).
fn signed(count: usize) -> Vec<f64> {
    (0..count)
        .map(|i| (1.0 + (i * 7 % 5) as f64 / 8.0) * if i % 3 == 1 { -1.0 } else { 1.0 })
        .collect()
}

fn settings(replicas: usize) -> Settings {
    Settings {
        replicas,
        dtype: DType::F64,
        activations: DType::F64,
        ..Settings::default()
    }
}

/// The same up to `tolerance` of the largest element of each result.
fn same(found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let mut worst = 0.0f64;
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        let scale = expected.iter().fold(1e-3f64, |most, x| most.max(x.abs()));
        for (a, b) in found.iter().zip(expected) {
            let error = (a - b).abs() / scale;
            assert!(error < tolerance, "{what}, result {i}: {a} and {b}");
            worst = worst.max(error);
        }
    }
    eprintln!("{what}: {worst:.1e}");
}

#[test]
fn one_pass_computes_the_same() {
    for replicas in [1, 2] {
        let plain = results(&network(), &settings(replicas));
        // Loss, 13 layers of kernels, gammas and betas, moving statistics.
        assert!(plain.len() > 40 && plain[0][0].is_finite());
        let other = Settings {
            statistics: Statistics::OnePass,
            ..settings(replicas)
        };
        let other = results(&network(), &other);
        same(
            &other,
            &plain,
            1e-8,
            &format!("one pass, {replicas} replicas"),
        );
    }
}

/// Both stems; recomputed, too. (Blocks with bottlenecks are paired below.)
#[test]
fn paired_images_give_the_same() {
    let small = Network {
        image_size: SIDE as usize,
        ..network()
    };
    for (network, replicas, remat) in [
        (&network(), 1, Remat::None),
        (&network(), 2, Remat::None),
        (&small, 2, Remat::Block),
        (&network(), 1, Remat::Full),
    ] {
        let plain = results(network, &settings(replicas));
        let paired = Settings {
            paired: true,
            remat,
            ..settings(replicas)
        };
        let what = format!("pairs, {replicas} replicas, {remat:?}");
        same(&results(network, &paired), &plain, 1e-11, &what);
    }
}

/// Only networks with enough channels to lay side by side, and only in training, are another module.
#[test]
fn pairs_are_where_they_should_be() {
    let module = |network: &Network, settings: &Settings| {
        let graph = Graph::new();
        let dims = [BATCH, SIDE, SIDE, 3];
        let images = graph.parameter("images", Shape::new(DType::F64, dims));
        let mut builder = Builder::collecting(&graph, settings.clone());
        let h = network.forward(&mut builder, images).h;
        graph.finish("network", &[h]).unwrap().to_string()
    };
    let paired = Settings {
        paired: true,
        ..settings(1)
    };
    assert_ne!(
        module(&network(), &paired),
        module(&network(), &settings(1))
    );
    let evaluated = |settings: Settings| Settings {
        training: false,
        ..settings
    };
    let (paired_evaluation, evaluation) = (evaluated(paired.clone()), evaluated(settings(1)));
    assert_eq!(
        module(&network(), &paired_evaluation),
        module(&network(), &evaluation)
    );
    let wide = Network {
        width_multiplier: 2.0,
        ..network()
    };
    assert_eq!(module(&wide, &paired), module(&wide, &settings(1)));
}

/// A layer of a builder, on x `[B, H, W, C]`.
type LayerOf = for<'g> fn(&mut Builder<'g>, Value<'g>) -> Value<'g>;

/// Holds what one layer with some settings gives (results, gradients, moving statistics) against another, on two replicas, with
/// variables of these dimensions, trained ones first.
fn layers_agree(
    what: &str,
    [variables, trained]: [&[&[i64]]; 2],
    found: (LayerOf, Settings),
    expected: (LayerOf, Settings),
) {
    let (replicas, n) = (found.1.replicas, 4 / found.1.replicas as i64);
    let dims = [n, 7, 7, 4];
    let graph = Graph::new();
    let parameter =
        |name: String, dims: &[i64]| graph.parameter(name, Shape::new(DType::F64, dims));
    let x = parameter("x".into(), &dims);
    let values: Vec<Value> = (0..)
        .zip(variables)
        .map(|(i, dims)| parameter(format!("v{i}"), dims))
        .collect();
    let run = |(layer, settings): (LayerOf, Settings)| {
        let mut builder = Builder::with_values(&graph, settings, values.clone());
        let y = layer(&mut builder, x);
        let count = y.dims().iter().product();
        let weights = graph.iota(DType::F64, &[count], 0).sin();
        let loss = (y * weights.reshape(&y.dims())).tanh().sum_all();
        let mut wanted = vec![x];
        wanted.extend(&values[..trained.len()]);
        let mut found = vec![y];
        found.extend(gradients(loss, &wanted).into_iter().flatten());
        found.extend(builder.moving().iter().map(|&(_, value)| value));
        found
    };
    let (found, expected) = (run(found), run(expected));
    let count = found.len();
    assert_eq!(count, 4 + trained.len());
    let module = graph.finish("layers", &[found, expected].concat()).unwrap();
    let module = module.with_replicas(replicas).unwrap();
    let values = |dims: &[i64], begin: i64, scale: f64| {
        let count = dims.iter().product::<i64>();
        let values: Vec<f64> = (begin..begin + count)
            .map(|i| scale * ((i * 7919 % 1009) as f64 / 500.0 - 0.7))
            .collect();
        Literal::from_f64s(DType::F64, dims, &values)
    };
    let arguments: Vec<Vec<Literal>> = (0..replicas as i64)
        .map(|replica| {
            let own = values(&dims, replica * dims.iter().product::<i64>(), 1.0);
            let others = (1..)
                .zip(variables)
                .map(|(i, dims)| values(dims, 102 * i, 0.8));
            std::iter::once(own).chain(others).collect()
        })
        .collect();
    for results in common::run_replicas(&module, &arguments) {
        let all: Vec<Vec<f64>> = results.iter().map(Literal::to_f64s).collect();
        same(&all[..count], &all[count..], 1e-12, what);
    }
}

/// Statistics of everything, normalising what the pool leaves: the same as a pool of everything normalised.
#[test]
fn pooling_before_normalising_is_the_same() {
    let c: &[i64] = &[4];
    for (replicas, statistics) in [(1, Statistics::TwoPass), (2, Statistics::OnePass)] {
        let settings = Settings {
            statistics,
            ..settings(replicas)
        };
        layers_agree(
            "pool first",
            [&[c; 4], &[c; 2]],
            (
                |builder, x| builder.batch_norm_relu_pool(x, 3, 2),
                settings.clone(),
            ),
            (
                |builder, x| max_pool_same(builder.batch_norm_relu(x), 3, 2),
                settings,
            ),
        );
    }
}

/// Statistics from products of a convolution's inputs.
#[test]
fn products_give_the_same_layer() {
    let (kernel, c): (&[i64], &[i64]) = (&[1, 1, 4, 16], &[16]);
    for replicas in [1, 2] {
        for paired in [false, true] {
            let plain: LayerOf = |builder, x| {
                let y = builder.conv(x, 16, 1, 1);
                builder.batch_norm(y, 1.0, true)
            };
            let products: LayerOf = if paired {
                |builder, x| {
                    let x = builder.pair(x);
                    let y = builder.conv_batch_norm(x, 16, 1.0);
                    builder.unpair(y)
                }
            } else {
                |builder, x| builder.conv_batch_norm(x, 16, 1.0)
            };
            let settings = settings(replicas);
            let other = Settings {
                statistics: Statistics::Products,
                ..settings.clone()
            };
            layers_agree(
                &format!("products, {replicas} replicas, paired: {paired}"),
                [&[kernel, c, c, c, c], &[kernel, c, c]],
                (products, other),
                (plain, settings),
            );
        }
    }
}

/// In a whole network, recomputed, and with selective kernels, too. (Fifty layers on few pixels enlarge what rounding there is.)
#[test]
fn products_give_the_same_network() {
    for (replicas, paired, remat, sk_ratio) in [
        (1, true, Remat::None, 0.0),
        (2, false, Remat::Block, 0.0),
        (1, false, Remat::None, 0.0625),
    ] {
        let network = Network {
            resnet_depth: 50,
            sk_ratio,
            ..network()
        };
        let plain = results(&network, &settings(replicas));
        let products = Settings {
            statistics: Statistics::Products,
            paired,
            remat,
            ..settings(replicas)
        };
        let what = format!("products, {replicas} replicas, {remat:?}, sk {sk_ratio}");
        same(&results(&network, &products), &plain, 1e-7, &what);
    }
}

/// Every operation stands under the name of its layer, whichever form it has: of the convolution, what multiplies activations by its
/// kernel, and of its kernel's gradient; of the normalisation, the products that statistics come from.
#[test]
fn products_stand_under_the_names_of_their_layers() {
    let network = Network {
        resnet_depth: 50,
        ..network()
    };
    let step = |statistics: Statistics| {
        let graph = Graph::new();
        let images = graph.parameter("images", Shape::new(DType::F32, [BATCH, SIDE, SIDE, 3]));
        let settings = Settings {
            statistics,
            ..Settings::default()
        };
        let mut builder = Builder::collecting(&graph, settings);
        let loss = network.forward(&mut builder, images).h.tanh().sum_all();
        let found = gradients(loss, builder.values());
        let found: Vec<Value> = found.into_iter().flatten().collect();
        graph.finish("step", &found).unwrap()
    };
    let scopes = |module: &Module, of: fn(&Op) -> bool| -> BTreeSet<String> {
        let nodes = module.entry.nodes.iter().filter(|node| of(&node.op));
        nodes.map(|node| node.scope.to_string()).collect()
    };
    let (usual, products) = (step(Statistics::OnePass), step(Statistics::Products));
    let every = (scopes(&products, |_| true), scopes(&usual, |_| true));
    let apart: Vec<&String> = every.0.symmetric_difference(&every.1).collect();
    assert!(apart.is_empty(), "in one form only: {apart:?}");
    let convolution = |op: &Op| matches!(op, Op::Convolution(_));
    let layers = scopes(&usual, convolution);
    // Forward and backward, of the stem and 52 convolutions in blocks.
    assert_eq!(layers.len(), 2 * 53);
    assert_eq!(scopes(&products, convolution), layers);
    let sums = |op: &Op| matches!(op, Op::Dot(dot) if dot.lhs_contracting == [0, 1, 2]);
    let last = |path: &String| path.rsplit('/').next().unwrap().to_string();
    let (backward, forward): (Vec<String>, Vec<String>) = scopes(&products, sums)
        .into_iter()
        .partition(|path| path.starts_with("gradient/"));
    // The last convolution of each of 16 blocks, and the first block's shortcut.
    assert_eq!((backward.len(), forward.len()), (17, 17));
    let all =
        |paths: &[String], layer: &str| paths.iter().all(|path| last(path).starts_with(layer));
    assert!(all(&backward, "conv2d"), "{backward:?}");
    assert!(all(&forward, "batch_normalization"), "{forward:?}");
}

/// In bf16, for which they are made: pairs and products round no more than the usual form does.
#[test]
fn in_bf16_the_forms_round_like_the_usual_one() {
    let network = Network {
        resnet_depth: 50,
        ..network()
    };
    let exact = results(&network, &settings(1));
    // How far each is from that: the norm of the differences, by the largest element of each result.
    let apart = |statistics: Statistics, paired: bool| -> f64 {
        let found = results(
            &network,
            &Settings {
                activations: DType::Bf16,
                statistics,
                paired,
                ..settings(1)
            },
        );
        let mut sum = 0.0;
        for (found, exact) in found.iter().zip(&exact) {
            let scale = exact.iter().fold(1e-3f64, |most, x| most.max(x.abs()));
            let squares = found
                .iter()
                .zip(exact)
                .map(|(a, b)| ((a - b) / scale).powi(2));
            sum += squares.sum::<f64>() / exact.len() as f64;
        }
        (sum / exact.len() as f64).sqrt()
    };
    let usual = apart(Statistics::OnePass, false);
    for (statistics, paired) in [(Statistics::OnePass, true), (Statistics::Products, true)] {
        let found = apart(statistics, paired);
        eprintln!("bf16, {statistics:?}: {found:.2e}, usually {usual:.2e}");
        assert!(
            usual > 0.0 && found < 1.5 * usual,
            "{statistics:?}: {found} and {usual}"
        );
    }
}
