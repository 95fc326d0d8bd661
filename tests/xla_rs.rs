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

/// The largest difference of a result of either engine, over the result's largest element. In training the loss comes with the
/// features, and normalisation over eight images magnifies each rounding.
fn difference(dtype: DType, training: bool) -> f64 {
    let network = Network {
        resnet_depth: 50,
        width_multiplier: 0.125,
        image_size: 32,
        sk_ratio: 0.0625,
        ..Network::default()
    };
    let settings = Settings {
        training,
        dtype,
        activations: dtype,
        ..Settings::default()
    };
    let literal = |dims: &[i64], values: &[f32]| match dtype {
        DType::F64 => {
            let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
            Literal::new(dims, &values)
        }
        _ => Literal::new(dims, values),
    };
    let variables = network.variables().expect("a network");
    let graph = Graph::new();
    let values = variables
        .iter()
        .map(|v| graph.parameter(&v.name, Shape::new(dtype, v.dims.clone())))
        .collect();
    let images = graph.parameter("images", Shape::new(dtype, [8, 32, 32, 3]));
    let mut builder = Builder::with_values(&graph, settings, values);
    let outputs = network.forward(&mut builder, images);
    let mut results = vec![outputs.h, outputs.z()];
    if training {
        results.push(nt_xent(outputs.z(), 0.1, true, 1).loss);
    }
    let module = graph.finish("both", &results).expect("a module");
    let mut arguments: Vec<Literal> = variables
        .iter()
        .enumerate()
        .map(|(number, v)| literal(&v.dims, &initial_value(v, number, 1)))
        .collect();
    let pixels: Vec<f32> = (0..8 * 32 * 32 * 3)
        .map(|i| (i * 31 % 97) as f32 / 96.0)
        .collect();
    arguments.push(literal(&[8, 32, 32, 3], &pixels));
    let ours = common::engine(1)
        .run_module(&module, &arguments)
        .expect("our engine");
    let theirs = XlaRs::cpu()
        .and_then(|engine| engine.run_module(&module, &arguments))
        .expect("xla-rs");
    assert_eq!(ours.len(), theirs.len());
    let differences = ours.iter().zip(&theirs).map(|(a, b)| {
        assert_eq!(a.shape(), b.shape());
        let (a, b) = (a.to_f64s(), b.to_f64s());
        let largest = a.iter().fold(0f64, |most, x| most.max(x.abs()));
        assert!(largest > 0.0, "a result of zeros tells nothing");
        let pairs = a.iter().zip(&b).map(|(a, b)| (a - b).abs() / largest);
        pairs.fold(0f64, larger)
    });
    differences.fold(0f64, larger)
}

/// The larger of two; no number is larger than any.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b <= a { a } else { b }
}

#[test]
fn both_engines_give_the_same() {
    if std::env::var_os("XLA_EXTENSION_DIR").is_none() {
        eprintln!("SKIPPED: XLA_EXTENSION_DIR is not set");
        return;
    }
    for (dtype, training) in [(DType::F32, false), (DType::F64, true)] {
        let found = difference(dtype, training);
        eprintln!("{dtype}, training {training}: {found:.1e}");
        assert!(found <= 1e-5, "{dtype}, training {training}: {found}");
    }
}
