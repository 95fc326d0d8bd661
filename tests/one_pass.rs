//! Batch statistics in one pass are those in two: a function of the features, every gradient and the new moving statistics, in double
//! precision, on one and on two devices.

mod common;

use simclr::grad::gradients;
use simclr::hlo::{DType, Graph, Literal, Shape, Value};
use simclr::model::{HeadMode, Network};
use simclr::nn::{Builder, Kind, Settings, initial_value};

const SIDE: i64 = 16;
const BATCH: i64 = 4;

fn network() -> Network {
    Network {
        resnet_depth: 10,
        width_multiplier: 0.125,
        image_size: SIDE as usize,
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
fn results(settings: &Settings) -> Vec<Vec<f64>> {
    let network = network();
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
    let weights = graph.iota(DType::F64, &h.dims(), 1).sin();
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
        .finish("stem", &outputs)
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

fn settings(replicas: usize) -> Settings {
    Settings {
        replicas,
        dtype: DType::F64,
        activations: DType::F64,
        ..Settings::default()
    }
}

fn same(found: &[Vec<f64>], expected: &[Vec<f64>], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        let scale = expected.iter().fold(1e-3f64, |most, x| most.max(x.abs()));
        for (a, b) in found.iter().zip(expected) {
            assert!(
                (a - b).abs() < 1e-8 * scale,
                "{what}, result {i}: {a} and {b}"
            );
        }
    }
}

#[test]
fn one_pass_computes_the_same() {
    for replicas in [1, 2] {
        let plain = results(&settings(replicas));
        // Loss, 13 layers of kernels, gammas and betas, moving statistics.
        assert!(plain.len() > 40 && plain[0][0].is_finite());
        let other = results(&Settings {
            one_pass_statistics: true,
            ..settings(replicas)
        });
        same(&other, &plain, &format!("{replicas} replicas"));
    }
}
