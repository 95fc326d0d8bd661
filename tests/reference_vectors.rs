//! The f64 vectors of the reference (§13.4, §13.5), and NT-Xent against a plain double loop.

mod common;

use common::{engine, run_replicas};
use simclr::augment::{Augmentation, Brightness, ResizeKernel};
use simclr::grad::gradients;
use simclr::hlo::{DType, Graph, Literal, Module, Shape, Value};
use simclr::loss::nt_xent;
use simclr::model::{HeadMode, Network};
use simclr::nn::{Builder, Kind, Settings};
use simclr::optim::{Lars, Optimizer, Schedule};
use simclr::train::objective::Objective;
use simclr::train::step::{Input, StepSpec};

const F64: DType = DType::F64;

/// The hash of the vectors (reference §13.3), in [0, 1).
fn u(i: usize, j: u32) -> f64 {
    let mut x = (i as u32).wrapping_add(1_000_003u32.wrapping_mul(j));
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    f64::from(x) / 4_294_967_296.0
}

/// Compares with a value printed to 9 or 10 digits.
fn close(what: &str, found: f64, printed: f64, tolerance: f64) {
    let error = (found - printed).abs() / printed.abs().max(1e-300);
    assert!(
        error <= tolerance,
        "{what}: {found:.12}, expected {printed}: relative error {error:.2e}"
    );
}

/// Losses, accuracies, entropies, and the gradient of the mean loss, of each replica.
fn nt_xent_module(dims: &[i64], temperature: f64, hidden_norm: bool, replicas: usize) -> Module {
    let graph = Graph::new();
    let z = graph.parameter("z", Shape::new(F64, dims));
    let found = nt_xent(z, temperature, hidden_norm, replicas);
    let gradient = gradients(found.loss * (1.0 / replicas as f64), &[z])[0].expect("a gradient");
    graph
        .finish(
            "nt_xent",
            &[found.loss, found.accuracy, found.entropy, gradient],
        )
        .and_then(|module| module.with_replicas(replicas))
        .expect("a correct graph")
}

#[test]
fn nt_xent_vectors() {
    let third = 1.0 / 3.0;
    for (temperature, norm, expected) in [
        (0.1, true, vec![[7.621330632, 1.0, 0.284085716]]),
        (0.5, true, vec![[3.193235592, 1.0, 1.017372885]]),
        (1.0, false, vec![[3.455749909, 1.0, 1.059938774]]),
        (
            0.1,
            true,
            vec![
                [11.438608319, third, 0.359989164],
                [16.537180177, third, 0.536100632],
            ],
        ),
        (
            0.5,
            true,
            vec![
                [4.865707289, third, 1.365240742],
                [5.654002844, third, 1.512381629],
            ],
        ),
        (
            1.0,
            false,
            vec![
                [5.076067337, third, 1.549099380],
                [5.178695853, third, 1.581496292],
            ],
        ),
    ] {
        let replicas = expected.len();
        let module = nt_xent_module(&[6, 5], temperature, norm, replicas);
        let arguments: Vec<Vec<Literal>> = (0..replicas)
            .map(|r| {
                let z: Vec<f64> = (0..30).map(|i| 2.0 * u(i, 700 + r as u32) - 1.0).collect();
                vec![Literal::from_f64s(F64, &[6, 5], &z)]
            })
            .collect();
        let found = run_replicas(&module, &arguments);
        for (r, expected) in expected.iter().enumerate() {
            for (k, name) in ["loss", "accuracy", "entropy"].iter().enumerate() {
                let what =
                    format!("{name}, τ {temperature}, norm {norm}, replica {r} of {replicas}");
                close(&what, found[r][k].to_f64s()[0], expected[k], 4e-9);
            }
        }
    }
}

/// NT-Xent in plain loops: `(loss, accuracy, entropy)` of each replica; `z[replica]` holds first views, then second views.
fn double_loop(z: &[Vec<f64>], width: usize, temperature: f64, norm: bool) -> Vec<[f64; 3]> {
    let n = z[0].len() / width / 2;
    let row = |replica: usize, view: usize, i: usize| -> Vec<f64> {
        let start = (view * n + i) * width;
        let row = &z[replica][start..start + width];
        let size: f64 = row.iter().map(|x| x * x).sum();
        let scale = if norm {
            1.0 / size.max(1e-12).sqrt()
        } else {
            1.0
        };
        row.iter().map(|x| x * scale).collect()
    };
    let everyone: Vec<(usize, usize)> = (0..z.len())
        .flat_map(|r| (0..n).map(move |i| (r, i)))
        .collect();
    let dot = |x: &[f64], y: &[f64]| -> f64 {
        x.iter().zip(y).map(|(a, b)| a * b).sum::<f64>() / temperature
    };
    (0..z.len())
        .map(|replica| {
            let (mut loss, mut hits, mut entropy) = (0.0, 0.0, 0.0);
            for i in 0..n {
                for view in 0..2 {
                    let anchor = row(replica, view, i);
                    let positive = dot(&anchor, &row(replica, 1 - view, i));
                    let cross: Vec<f64> = everyone
                        .iter()
                        .map(|&(r, k)| dot(&anchor, &row(r, 1 - view, k)))
                        .collect();
                    let same: Vec<f64> = everyone
                        .iter()
                        .filter(|&&other| other != (replica, i))
                        .map(|&(r, k)| dot(&anchor, &row(r, view, k)))
                        .collect();
                    let sum: f64 = cross
                        .iter()
                        .chain(&same)
                        .map(|logit| (logit - positive).exp())
                        .sum();
                    loss += sum.ln() / n as f64;
                    if view == 0 {
                        let best = cross.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        let total: f64 = cross.iter().map(|logit| (logit - best).exp()).sum();
                        hits += f64::from(u8::from(positive == best)) / n as f64;
                        for logit in &cross {
                            let p = (logit - best).exp() / total;
                            entropy -= p * (p + 1e-8).ln() / n as f64;
                        }
                    }
                }
            }
            [loss, hits, entropy]
        })
        .collect()
}

#[test]
fn nt_xent_is_the_double_loop() {
    let mut stream = 0;
    for replicas in [1usize, 2, 4] {
        let engine = engine(replicas);
        for n in [1usize, 3, 8] {
            for (temperature, norm) in [(0.1, true), (0.5, true), (1.0, false), (10.0, false)] {
                let width = 5;
                stream += 1;
                let z: Vec<Vec<f64>> = (0..replicas)
                    .map(|r| {
                        (0..2 * n * width)
                            .map(|i| 2.0 * u(i, 100 * stream + r as u32) - 1.0)
                            .collect()
                    })
                    .collect();
                let dims = [2 * n as i64, width as i64];
                let module = nt_xent_module(&dims, temperature, norm, replicas);
                let program = engine.compile(&module).expect("the module compiles");
                let arguments: Vec<Vec<Literal>> = z
                    .iter()
                    .map(|z| vec![Literal::from_f64s(F64, &dims, z)])
                    .collect();
                let found = program.run(&engine, &arguments).expect("the program runs");
                let what = format!("R {replicas}, n {n}, τ {temperature}, norm {norm}");
                let expected = double_loop(&z, width, temperature, norm);
                for (r, expected) in expected.iter().enumerate() {
                    for (k, expected) in expected.iter().enumerate() {
                        let error = (found[r][k].to_f64s()[0] - expected).abs();
                        let tolerance = 1e-11 * expected.abs().max(1.0);
                        assert!(
                            error <= tolerance,
                            "{what}: figure {k} of replica {r}: {error:.2e}"
                        );
                    }
                }
                // The gradient along a direction, against differences of the loops.
                let direction =
                    |r: usize, i: usize| 2.0 * u(i, 90_000 + 10 * stream + r as u32) - 1.0;
                let mean = |h: f64| {
                    let moved: Vec<Vec<f64>> = z
                        .iter()
                        .enumerate()
                        .map(|(r, z)| {
                            let each = z.iter().enumerate();
                            each.map(|(i, x)| x + h * direction(r, i)).collect()
                        })
                        .collect();
                    let all = double_loop(&moved, width, temperature, norm);
                    all.iter().map(|figures| figures[0]).sum::<f64>() / replicas as f64
                };
                let h = 1e-5;
                let expected = (mean(h) - mean(-h)) / (2.0 * h);
                let mut slope = 0.0;
                for (r, found) in found.iter().enumerate() {
                    let gradient = found[3].to_f64s();
                    slope += gradient
                        .iter()
                        .enumerate()
                        .map(|(i, g)| g * direction(r, i))
                        .sum::<f64>();
                }
                let error = (slope - expected).abs();
                assert!(
                    error <= 1e-6 * expected.abs().max(1.0),
                    "{what}: slope {slope}, expected {expected}"
                );
            }
        }
    }
}

/// A case of §13.5.
struct Case {
    name: &'static str,
    depth: usize,
    side: usize,
    sk_ratio: f64,
    se_ratio: f64,
    layers: usize,
    variables: usize,
    h: [f64; 4],
    h_norm: f64,
    z: [f64; 4],
    loss: f64,
    accuracy: f64,
    entropy: f64,
    first_gradient: [f64; 3],
    gamma_gradient: f64,
    head_gradient: f64,
    last_gradient: f64,
    global_gradient: f64,
    moving_mean: [f64; 2],
    moving_variance: [f64; 2],
    infer_h: [f64; 4],
    infer_norm: f64,
    new_kernel: [f64; 2],
    new_gamma: [f64; 2],
}

const CASES: [Case; 4] = [
    Case {
        name: "A",
        depth: 18,
        side: 32,
        sk_ratio: 0.0,
        se_ratio: 0.0,
        layers: 3,
        variables: 119,
        h: [0.22785876, 0.471061983, 0.661819506, 0.895385635],
        h_norm: 57.3053262,
        z: [0.256242998, 0.0930748429, -0.250333904, -0.244978968],
        loss: 3.843273008,
        accuracy: 0.25,
        entropy: 1.377843899,
        first_gradient: [14.9294841, -0.189234878, -0.685384031],
        gamma_gradient: 3.17187424,
        head_gradient: 9.01756493,
        last_gradient: 5.07136243,
        global_gradient: 110.680942,
        moving_mean: [0.0539191653, -0.065153589],
        moving_variance: [0.836609974, 0.566003032],
        infer_h: [16.079803, 39.3253697, 31.0588021, 16.6509605],
        infer_norm: 1222.62422,
        new_kernel: [-0.471390045, -0.086356897],
        new_gamma: [1.23482154, 0.685974766],
    },
    Case {
        name: "B",
        depth: 50,
        side: 64,
        sk_ratio: 0.0,
        se_ratio: 0.0,
        layers: 3,
        variables: 279,
        h: [1.00501785, 1.71763233, 1.25604215, 1.71321197],
        h_norm: 154.724312,
        z: [-0.506405462, -0.230215432, 0.6791327, -0.587633342],
        loss: 3.854951612,
        accuracy: 0.5,
        entropy: 1.368190269,
        first_gradient: [918.097466, -29.5210745, -8.47100977],
        gamma_gradient: 78.7385636,
        head_gradient: 17.1427106,
        last_gradient: 9.86961948,
        global_gradient: 1804.48576,
        moving_mean: [0.0917442422, -0.124536773],
        moving_variance: [0.836114566, 0.563904665],
        infer_h: [1132.26143, 387.560046, 1245.3405, 468.055498],
        infer_norm: 153777.248,
        new_kernel: [-0.201993812, -0.0370220333],
        new_gamma: [1.63681879, 0.927046245],
    },
    Case {
        name: "C",
        depth: 50,
        side: 64,
        sk_ratio: 0.0625,
        se_ratio: 0.0,
        layers: 3,
        variables: 385,
        h: [1.28679324, 0.79520318, 0.471534112, 0.270107438],
        h_norm: 163.104022,
        z: [0.840551082, -0.178324357, 0.152925699, -0.620272689],
        loss: 3.757484801,
        accuracy: 0.5,
        entropy: 1.360465703,
        first_gradient: [544.017449, 17.855626, -31.150246],
        gamma_gradient: 125.014525,
        head_gradient: 22.9078073,
        last_gradient: 9.41023671,
        global_gradient: 2548.17659,
        moving_mean: [-0.00339198712, -0.156857592],
        moving_variance: [0.839380104, 0.561943584],
        infer_h: [946.894898, 0.0, 2982.89225, 333.946948],
        infer_norm: 269643.712,
        new_kernel: [-0.471431009, -0.0863631031],
        new_gamma: [-3.33816148, -1.44669627],
    },
    Case {
        name: "D",
        depth: 50,
        side: 32,
        sk_ratio: 0.0,
        se_ratio: 0.25,
        layers: 2,
        variables: 338,
        h: [0.939862822, 0.844555361, 0.664954182, 0.398493225],
        h_norm: 92.489909,
        z: [1.0916893, 0.482533532, -0.251916672, 1.00673384],
        loss: 3.966926723,
        accuracy: 0.25,
        entropy: 1.375616763,
        first_gradient: [53.5352384, -0.836027285, 0.125196174],
        gamma_gradient: 10.1043587,
        head_gradient: 14.7792411,
        last_gradient: 10.7735558,
        global_gradient: 263.661082,
        moving_mean: [0.0539191653, -0.065153589],
        moving_variance: [0.836609974, 0.566003032],
        infer_h: [107.745442, 97.7451489, 2.73733185, 17.8825828],
        infer_norm: 8879.56665,
        new_kernel: [-0.471386689, -0.0864119842],
        new_gamma: [1.2495762, 0.494888472],
    },
];

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn whole_network_vectors() {
    for case in &CASES {
        check(case);
    }
}

fn check(case: &Case) {
    let spec = StepSpec {
        network: Network {
            resnet_depth: case.depth,
            image_size: case.side,
            sk_ratio: case.sk_ratio,
            se_ratio: case.se_ratio,
            proj_head_mode: HeadMode::Nonlinear,
            num_proj_layers: case.layers,
            ..Network::default()
        },
        objective: Objective::Pretrain {
            temperature: 0.5,
            hidden_norm: true,
        },
        augmentation: Augmentation {
            image_size: case.side,
            color_jitter_strength: 0.0,
            use_blur: false,
            brightness: Brightness::Multiplicative,
            resize: ResizeKernel::V1Legacy,
            drop_colour_at_zero_strength: false,
        },
        optimizer: Optimizer::Lars(Lars::new(0.9, 1e-4)),
        schedule: Schedule {
            scaled_rate: 0.1,
            warmup_steps: 0,
            total_steps: 1,
        },
        weight_decay: 1e-4,
        settings: Settings {
            dtype: F64,
            activations: F64,
            ..Settings::default()
        },
        batch: 4,
        steps_per_launch: 1,
        input: Input::Streamed { views: 2 },
    };
    let variables = spec.network.variables().expect("a network");
    assert_eq!(variables.len(), case.variables, "case {}", case.name);
    let graph = Graph::new();
    let values: Vec<Value> = variables
        .iter()
        .map(|v| graph.parameter(&v.name, Shape::new(F64, v.dims.clone())))
        .collect();
    let slots: Vec<Value> = spec
        .optimizer
        .slots(&variables)
        .iter()
        .map(|slot| graph.zeros(&Shape::new(F64, slot.dims.clone())))
        .collect();
    let side = case.side as i64;
    let pairs = graph.parameter("images", Shape::new(F64, [4, side, side, 6]));
    let view = |k: i64| pairs.slice_dim(3, 3 * k, 3 * k + 3);
    let views = graph.concatenate(&[view(0), view(1)], 0);
    let labels = graph.zeros(&Shape::new(DType::S32, [4]));
    let (rate, step) = (graph.scalar(0.1f64), graph.scalar(0u32));
    let trained = spec.trained().expect("a network");
    let update = spec.update(
        &graph, &variables, &trained, &values, &slots, views, labels, rate, step,
    );
    let contrast = nt_xent(update.outputs.z(), 0.5, true, 1);
    let still = Settings {
        training: false,
        ..spec.settings.clone()
    };
    let mut builder = Builder::with_values(&graph, still, values.clone());
    let inferred = spec.network.forward(&mut builder, view(0)).h;
    let mut outputs = vec![
        update.outputs.h,
        update.outputs.z(),
        contrast.loss,
        contrast.accuracy,
        contrast.entropy,
        inferred,
    ];
    let fixed = outputs.len();
    let trained: Vec<usize> = (0..variables.len())
        .filter(|&i| variables[i].kind.trainable())
        .collect();
    outputs.extend(
        trained
            .iter()
            .map(|&i| update.gradients[i].expect("a gradient")),
    );
    outputs.extend(update.values);
    let module = graph.finish("vectors", &outputs).expect("a correct graph");

    let mut arguments: Vec<Literal> = variables
        .iter()
        .enumerate()
        .map(|(j, v)| {
            let fan_in: i64 = v.dims[..v.dims.len() - 1].iter().product();
            let value = |i: usize| {
                let r = u(i, j as u32);
                match v.kind {
                    Kind::ConvKernel | Kind::DenseKernel => {
                        (2.0 * r - 1.0) * (6.0 / fan_in as f64).sqrt()
                    }
                    Kind::Gamma | Kind::MovingVariance => 0.5 + r,
                    Kind::Bias | Kind::Beta | Kind::MovingMean => 0.2 * (r - 0.5),
                }
            };
            let elements: Vec<f64> = (0..v.elements()).map(value).collect();
            Literal::from_f64s(F64, &v.dims, &elements)
        })
        .collect();
    let per_image = (side * side * 6) as usize;
    let images: Vec<f64> = (0..4 * per_image)
        .map(|i| 0.5 * u(i, 900) + 0.5 * u(i / per_image * 6 + i % 6, 901))
        .collect();
    close("first image value", images[0], 0.436878009, 2e-9);
    arguments.push(Literal::from_f64s(F64, &[4, side, side, 6], &images));
    let engine = engine(1);
    let program = engine.compile(&module).expect("the module compiles");
    let found = program
        .run(&engine, &[arguments])
        .expect("the program runs")
        .remove(0);
    let read = |i: usize| found[i].to_f64s();
    let all = |what: &str, found: &[f64], expected: &[f64]| {
        for (k, &expected) in expected.iter().enumerate() {
            close(
                &format!("case {}: {what}[{k}]", case.name),
                found[k],
                expected,
                1e-8,
            );
        }
    };
    let one = |what: &str, found: f64, expected: f64| all(what, &[found], &[expected]);
    all("h", &read(0), &case.h);
    one("‖h‖", norm(&read(0)), case.h_norm);
    all("z", &read(1), &case.z);
    one("loss", read(2)[0], case.loss);
    one("accuracy", read(3)[0], case.accuracy);
    one("entropy", read(4)[0], case.entropy);
    all("inferred h", &read(5), &case.infer_h);
    one("‖inferred h‖", norm(&read(5)), case.infer_norm);
    let number = |name: &str| {
        let place = variables.iter().position(|v| v.name == name);
        place.unwrap_or_else(|| panic!("no variable {name}"))
    };
    let gradient = |name: &str| {
        let i = number(name);
        read(fixed + trained.iter().position(|&k| k == i).expect("trained"))
    };
    let kernel = gradient("base_model/conv2d/kernel");
    one("‖∂ first kernel‖", norm(&kernel), case.first_gradient[0]);
    all("∂ first kernel", &kernel, &case.first_gradient[1..]);
    let gamma = gradient("base_model/batch_normalization/gamma");
    one("‖∂ first γ‖", norm(&gamma), case.gamma_gradient);
    let head = gradient("head_contrastive/nl_0/dense/kernel");
    one("‖∂ nl_0‖", norm(&head), case.head_gradient);
    let last = gradient(&format!(
        "head_contrastive/nl_{}/dense/kernel",
        case.layers - 1
    ));
    one("‖∂ last head kernel‖", norm(&last), case.last_gradient);
    let squares: f64 = (0..trained.len())
        .map(|k| norm(&read(fixed + k)).powi(2))
        .sum();
    one("‖∂‖", squares.sqrt(), case.global_gradient);
    let new = |name: &str| read(fixed + trained.len() + number(name));
    let statistics = "base_model/batch_normalization";
    all(
        "moving mean",
        &new(&format!("{statistics}/moving_mean")),
        &case.moving_mean,
    );
    all(
        "moving variance",
        &new(&format!("{statistics}/moving_variance")),
        &case.moving_variance,
    );
    all(
        "new first kernel",
        &new("base_model/conv2d/kernel"),
        &case.new_kernel,
    );
    all(
        "new first γ",
        &new(&format!("{statistics}/gamma")),
        &case.new_gamma,
    );
}
