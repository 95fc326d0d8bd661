//! The second engine against the first: both run the same modules and give the same numbers. Needs the feature and a
//! `libxla_extension` at `XLA_EXTENSION_DIR`; CI without one type-checks this file.
#![cfg(feature = "xla-rs")]

mod common;

use simclr::engine::RunModule;
use simclr::engine::xla_rs::XlaRs;
use simclr::hlo::{DType, Graph, Literal, Shape};
use simclr::loss::nt_xent;
use simclr::model::Network;
use simclr::nn::{Builder, Settings, initial_value};

#[test]
fn both_engines_give_the_same() {
    if std::env::var_os("XLA_EXTENSION_DIR").is_none() {
        eprintln!("SKIPPED: XLA_EXTENSION_DIR is not set");
        return;
    }
    let network = Network {
        resnet_depth: 50,
        width_multiplier: 0.125,
        image_size: 32,
        sk_ratio: 0.0625,
        ..Network::default()
    };
    let variables = network.variables().expect("a network");
    let graph = Graph::new();
    let values = variables
        .iter()
        .map(|v| graph.parameter(&v.name, Shape::new(DType::F32, v.dims.clone())))
        .collect();
    let images = graph.parameter("images", Shape::new(DType::F32, [8, 32, 32, 3]));
    let mut builder = Builder::with_values(&graph, Settings::default(), values);
    let outputs = network.forward(&mut builder, images);
    let loss = nt_xent(outputs.z(), 0.1, true, 1).loss;
    let module = graph
        .finish("both", &[outputs.h, outputs.z(), loss])
        .expect("a module");
    let mut arguments: Vec<Literal> = variables
        .iter()
        .enumerate()
        .map(|(number, v)| Literal::new(&v.dims, &initial_value(v, number, 1)))
        .collect();
    let pixels: Vec<f32> = (0..8 * 32 * 32 * 3)
        .map(|i| (i * 31 % 97) as f32 / 96.0)
        .collect();
    arguments.push(Literal::new(&[8, 32, 32, 3], &pixels));
    let ours = common::engine(1)
        .run_module(&module, &arguments)
        .expect("our engine");
    let theirs = XlaRs::cpu()
        .and_then(|engine| engine.run_module(&module, &arguments))
        .expect("xla-rs");
    assert_eq!(ours.len(), theirs.len());
    for (a, b) in ours.iter().zip(&theirs) {
        assert_eq!(a.shape(), b.shape());
        let (a, b) = (a.to_f64s(), b.to_f64s());
        let largest = a.iter().fold(0f64, |most, x| most.max(x.abs()));
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 1e-5 * largest, "{a} {b}");
        }
    }
}
