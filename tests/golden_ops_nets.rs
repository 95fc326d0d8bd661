//! Operations of networks, losses and optimizers against numbers of the original (`ops*.json`).

mod common;
mod golden_support;

use common::{run, run_replicas};
use golden_support::*;
use serde_json::Value as Json;
use simclr::grad::gradients;
use simclr::hlo::{DType, Graph, Literal, Shape, Value};
use simclr::loss;
use simclr::model::Network;
use simclr::nn::{
    Builder, Init, Kind, Settings, Variable, initial_value, max_pool_same, shortcut_pool,
};
use simclr::optim::{Lars, Optimizer, Schedule};

const F32: DType = DType::F32;

#[test]
fn golden_generators_and_fingerprints() {
    for case in ops("gen") {
        let found = tensor(&case["inputs"]["x"]);
        assert_eq!(found, tensor(&case["expect"]["x"]), "{}", id(&case));
    }
    for case in ops("fingerprint") {
        let found = tensor(&case["inputs"]["x"]).wide();
        let expected = &case["expect"]["x"];
        for (key, found) in [
            ("l2", norm(&found)),
            ("proj", projection(&found)),
            ("mean", found.iter().sum::<f64>() / found.len() as f64),
        ] {
            assert!(
                (found - number(&expected[key])).abs() < 1e-8 * number(&expected["l2"]),
                "{}: {key} {found}",
                id(&case)
            );
        }
        let samples = numbers(&expected["samples"]);
        let found: Vec<f32> = sampled(&found, samples.len())
            .iter()
            .map(|&x| x as f32)
            .collect();
        let samples: Vec<f32> = samples.iter().map(|&x| x as f32).collect();
        assert_eq!(found, samples, "{}", id(&case));
    }
}

fn parameter<'g>(graph: &'g Graph, name: &str, dims: &[i64]) -> Value<'g> {
    graph.parameter(name, Shape::new(F32, dims))
}

#[test]
fn golden_lr_schedule() {
    let mut report = Report::default();
    for case in ops("lr_schedule") {
        let get = |key: &str| case["params"][key].as_f64().unwrap_or(0.0);
        let batch = get("train_batch_size");
        let base = get("learning_rate");
        let scaled_rate = match word(&case["params"]["learning_rate_scaling"]) {
            "linear" => base * batch / 256.0,
            "sqrt" => base * batch.sqrt(),
            other => panic!("scaling {other}"),
        };
        let examples = get("num_examples");
        let total = match get("train_steps") {
            0.0 => (examples * get("train_epochs") / batch).floor() + 1.0,
            steps => steps,
        };
        let warmup = (get("warmup_epochs") * examples / batch)
            .floor()
            .round_ties_even();
        assert_eq!(warmup, number(&case["expect"]["warmup_steps"]));
        assert_eq!(total, number(&case["expect"]["total_steps"]));
        let schedule = Schedule {
            scaled_rate,
            warmup_steps: warmup as u64,
            total_steps: total as u64,
        };
        let steps: Vec<u32> = numbers(&case["inputs"]["steps"])
            .iter()
            .map(|&x| x as u32)
            .collect();
        let graph = Graph::new();
        let count = steps.len() as i64;
        let list = graph.parameter("steps", Shape::new(DType::U32, [count]));
        let rates: Vec<Value> = (0..count)
            .map(|i| {
                let step = list.slice_dim(0, i, i + 1).reshape(&[]);
                schedule.rate_hlo(step, F32).reshape(&[1])
            })
            .collect();
        let module = graph
            .finish("rates", &[graph.concatenate(&rates, 0)])
            .unwrap();
        let hlo = run(&module, &[Literal::new(&[count], &steps)])[0].to_f64s();
        for version in ["v1", "v2"] {
            let expected = numbers(&case["expect"][version]);
            for (i, &step) in steps.iter().enumerate() {
                let what = || format!("{} {version} step {step}", id(&case));
                let tolerance = 3e-6 * scaled_rate;
                report.check(what, (hlo[i] - expected[i]).abs(), tolerance);
                let host = schedule.rate(u64::from(step));
                report.check(what, (host - expected[i]).abs(), tolerance);
            }
        }
    }
    report.finish("lr_schedule");
}

/// The variable a name stands for; without exclusions, every variable is treated like a kernel.
fn variable(name: &str, dims: Vec<i64>, excluded: bool) -> Variable {
    let kind = if !excluded {
        Kind::DenseKernel
    } else if name.contains("batch_normalization") {
        Kind::Gamma
    } else if name.contains("bias") {
        Kind::Bias
    } else {
        Kind::ConvKernel
    };
    Variable {
        name: if excluded {
            name.to_string()
        } else {
            format!("plain/{name}")
        },
        dims,
        kind,
        init: Init::Constant(0.0),
    }
}

/// Three steps of an optimizer against `expected[variable].steps[step]`, whose slots are called `slot_names`.
fn optimizer_steps(
    report: &mut Report,
    case: &Json,
    version: &str,
    optimizer: &Optimizer,
    excluded: bool,
    expected: &Json,
    slot_names: &[&str],
) {
    let inputs = list(&case["inputs"]["variables"]);
    let variables: Vec<Variable> = inputs
        .iter()
        .map(|input| variable(word(&input["name"]), tensor(&input["w"]).dims, excluded))
        .collect();
    let graph = Graph::new();
    let many = |prefix: &str| -> Vec<Value> {
        variables
            .iter()
            .map(|v| parameter(&graph, &format!("{prefix} {}", v.name), &v.dims))
            .collect()
    };
    let (values, grads) = (many("value"), many("gradient"));
    let slots: Vec<Value> = optimizer
        .slots(&variables)
        .iter()
        .map(|slot| parameter(&graph, &slot.name, &slot.dims))
        .collect();
    let rate = parameter(&graph, "rate", &[]);
    let step = graph.parameter("step", Shape::scalar(DType::U32));
    let some: Vec<Option<Value>> = grads.iter().copied().map(Some).collect();
    let (new_values, new_slots) = optimizer.update(&variables, &values, &some, &slots, rate, step);
    let outputs: Vec<Value> = new_values.iter().chain(&new_slots).copied().collect();
    let module = graph.finish("update", &outputs).unwrap();
    let mut state: Vec<Literal> = inputs
        .iter()
        .map(|input| tensor(&input["w"]).literal(F32))
        .collect();
    state.extend(slots.iter().map(|slot| Literal::zeros(slot.shape())));
    for (t, rate) in numbers(&case["params"]["learning_rates"])
        .iter()
        .enumerate()
    {
        let mut arguments = state[..variables.len()].to_vec();
        for input in inputs {
            arguments.push(tensor(&input["grads"][t]).literal(F32));
        }
        arguments.extend_from_slice(&state[variables.len()..]);
        arguments.push(Literal::scalar(*rate as f32));
        arguments.push(Literal::scalar(t as u32));
        state = run(&module, &arguments);
        for (k, expected) in list(expected).iter().enumerate() {
            assert_eq!(expected["name"], inputs[k]["name"]);
            let step = &expected["steps"][t];
            let mut compare = |key: &str, found: &Literal| {
                let wanted = Expected(&step[key]);
                let largest = largest(&wanted.given()).max(1.0);
                let error = wanted.largest_error(&found.to_f64s());
                let name = word(&expected["name"]);
                report.check(
                    || format!("{} {version} {name} {key} after step {t}", id(case)),
                    error,
                    3e-6 * largest,
                );
            };
            compare("w", &state[k]);
            for (i, key) in slot_names.iter().enumerate() {
                compare(key, &state[variables.len() + k * slot_names.len() + i]);
            }
        }
    }
}

#[test]
fn golden_lars() {
    let mut report = Report::default();
    for case in ops("lars") {
        let p = &case["params"];
        let lists = ["exclude_from_weight_decay", "exclude_from_layer_adaptation"];
        let usual = serde_json::json!(["batch_normalization", "bias", "head_supervised"]);
        let all = |wanted: &Json| lists.iter().all(|key| p[*key] == *wanted);
        if !all(&usual) && !all(&Json::Null) {
            eprintln!(
                "SKIPPED: {}: exclusions other than the programs' own",
                id(&case)
            );
            continue;
        }
        let lars = Lars {
            momentum: number(&p["momentum"]),
            weight_decay: number(&p["weight_decay"]),
            eeta: number(&p["eeta"]),
            nesterov: flag(&p["use_nesterov"]),
            classic_momentum: flag(&p["classic_momentum"]),
            head_rate: 1.0,
        };
        let expected = &case["expect"]["variables"];
        let optimizer = Optimizer::Lars(lars);
        let excluded = all(&usual);
        optimizer_steps(
            &mut report,
            &case,
            "both",
            &optimizer,
            excluded,
            expected,
            &["momentum"],
        );
    }
    report.finish("lars");
}

#[test]
fn golden_momentum_and_adam() {
    let mut report = Report::default();
    for case in ops("momentum") {
        assert!(flag(&case["params"]["nesterov"]));
        for version in ["v2_keras", "v2_keras_legacy", "v1"] {
            let optimizer = Optimizer::Momentum {
                momentum: number(&case["params"]["momentum"]),
                keras: version != "v1",
            };
            let expected = &case["expect"][version];
            optimizer_steps(
                &mut report,
                &case,
                version,
                &optimizer,
                true,
                expected,
                &["momentum"],
            );
        }
    }
    for case in ops("adam") {
        for version in ["v2_keras", "v2_keras_legacy", "v1"] {
            let optimizer = Optimizer::Adam {
                epsilon: number(&case["params"]["epsilon"][version]),
            };
            let expected = &case["expect"][version];
            optimizer_steps(
                &mut report,
                &case,
                version,
                &optimizer,
                true,
                expected,
                &["m", "v"],
            );
        }
    }
    report.finish("momentum and adam");
}

/// NT-Xent with its gradient; the loss is divided by `replicas` for the gradient, as the original does.
fn nt_xent_module(dims: &[i64], case: &Json, replicas: usize) -> simclr::hlo::Module {
    let graph = Graph::new();
    let hidden = parameter(&graph, "hidden", dims);
    let p = &case["params"];
    let found = loss::nt_xent(
        hidden,
        number(&p["temperature"]),
        flag(&p["hidden_norm"]),
        replicas,
    );
    let grad = gradients(found.loss * (1.0 / replicas as f64), &[hidden])[0].unwrap();
    let outputs = [
        found.loss,
        found.accuracy,
        found.entropy,
        found.logits_ab,
        grad,
    ];
    let module = graph.finish("nt_xent", &outputs).unwrap();
    module.with_replicas(replicas).unwrap()
}

#[test]
fn golden_ntxent() {
    let mut report = Report::default();
    for case in ops("ntxent") {
        let hidden = tensor(&case["inputs"]["hidden"]);
        let module = nt_xent_module(&hidden.dims, &case, 1);
        let found = run(&module, &[hidden.literal(F32)]);
        let expect = &case["expect"];
        let scalar = |i: usize| found[i].to_f64s()[0];
        for key in ["loss", "loss_v1"] {
            let expected = number(&expect[key]);
            let error = (scalar(0) - expected).abs();
            report.check(
                || format!("{} {key}", id(&case)),
                error,
                3e-6 * expected.max(1.0),
            );
        }
        // Where all rows are equal, the accuracy rests on exact ties.
        if case["inputs"]["hidden"]["variant"] != "all_equal" {
            report.expect(
                || format!("{} accuracy {}", id(&case), scalar(1)),
                (scalar(1) - number(&expect["contrast_acc"])).abs() < 1e-6,
            );
        }
        let logits = Expected(&expect["logits_ab"]);
        // Logits of thousands carry rounding that the entropy shows in full.
        let size = largest(&found[3].to_f64s());
        let entropy = (scalar(2) - number(&expect["contrast_entropy"])).abs();
        report.check(
            || format!("{} entropy", id(&case)),
            entropy,
            1e-5 + 4.0 * f64::from(f32::EPSILON) * size,
        );
        report.check(
            || format!("{} logits", id(&case)),
            logits.error(&found[3].to_f64s()),
            3e-6,
        );
        let grad = Expected(&expect["grad"]);
        let error = grad.largest_error(&found[4].to_f64s());
        report.check(
            || format!("{} gradient", id(&case)),
            error,
            3e-5 * largest(&grad.given()) + 3e-6,
        );
    }
    report.finish("ntxent");
}

/// `[R, …]` split into R arrays.
fn per_replica(all: &Tensor) -> Vec<Tensor> {
    let size = all.data.len() / all.dims[0] as usize;
    all.data
        .chunks(size)
        .map(|chunk| Tensor {
            dims: all.dims[1..].to_vec(),
            data: chunk.to_vec(),
        })
        .collect()
}

/// Results of all replicas, one after another.
fn joined(found: &[Vec<Literal>], result: usize) -> Vec<f64> {
    found.iter().flat_map(|r| r[result].to_f64s()).collect()
}

#[test]
fn golden_ntxent_replicas() {
    let mut report = Report::default();
    for case in ops("ntxent_replicas") {
        let hidden = per_replica(&tensor(&case["inputs"]["hidden"]));
        let module = nt_xent_module(&hidden[0].dims, &case, hidden.len());
        let arguments: Vec<Vec<Literal>> =
            hidden.iter().map(|part| vec![part.literal(F32)]).collect();
        let found = run_replicas(&module, &arguments);
        let expect = &case["expect"];
        for (result, key, tolerance) in [
            (0, "loss", 2e-5),
            (1, "contrast_acc", 1e-6),
            (2, "contrast_entropy", 1e-5),
        ] {
            let expected = numbers(&expect[key]);
            let error = largest_difference(&joined(&found, result), &expected);
            let tolerance = tolerance * largest(&expected).max(1.0);
            report.check(|| format!("{} {key}", id(&case)), error, tolerance);
        }
        let error = Expected(&expect["logits_ab"]).error(&joined(&found, 3));
        report.check(|| format!("{} logits", id(&case)), error, 3e-6);
        let grad = Expected(&expect["grad"]);
        let error = grad.largest_error(&joined(&found, 4));
        let tolerance = 2e-6 * largest(&grad.given()).max(1.0);
        report.check(|| format!("{} gradient", id(&case)), error, tolerance);
    }
    report.finish("ntxent_replicas");
}

#[test]
fn golden_supervised() {
    let mut report = Report::default();
    for case in ops("supervised") {
        let logits = tensor(&case["inputs"]["logits"]);
        let labels: Vec<i32> = numbers(&case["inputs"]["labels"])
            .iter()
            .map(|&x| x as i32)
            .collect();
        let rows = labels.len() as i64;
        let graph = Graph::new();
        let x = parameter(&graph, "logits", &logits.dims);
        let y = graph.parameter("labels", Shape::new(DType::S32, [rows]));
        let weights = parameter(&graph, "weights", &[rows]);
        let mut outputs = Vec::new();
        for weights in [None, Some(weights)] {
            let found = loss::supervised(x, y, weights);
            let grad = gradients(found.loss, &[x])[0].unwrap();
            outputs.extend([found.loss, found.top1, found.top5, grad]);
        }
        let module = graph.finish("supervised", &outputs).unwrap();
        let mask: Vec<f32> = numbers(&case["params"]["v1_mask"])
            .iter()
            .map(|&x| x as f32)
            .collect();
        let found = run(
            &module,
            &[
                logits.literal(F32),
                Literal::new(&[rows], &labels),
                Literal::new(&[rows], &mask),
            ],
        );
        let expect = &case["expect"];
        assert_eq!(expect["train_acc"], expect["eval_top1"]);
        let plain = [
            &expect["loss"],
            &expect["eval_top1"],
            &expect["eval_top5"],
            &expect["grad"],
        ];
        let masked = &expect["v1_masked"];
        let masked = [
            &masked["loss"],
            &masked["top1"],
            &masked["top5"],
            &masked["grad"],
        ];
        for (i, expected) in plain.iter().chain(&masked).enumerate() {
            let found = found[i].to_f64s();
            let error = if expected.is_object() {
                Expected(expected).largest_error(&found)
            } else {
                let expected = number(expected);
                (found[0] - expected).abs() / expected.max(1.0)
            };
            report.check(|| format!("{} result {i}", id(&case)), error, 2e-6);
        }
    }
    report.finish("supervised");
}

/// What a batch normalisation computes, on some replicas: `[y_train, y_inference, moving mean, moving variance]`, then, where there
/// is a cotangent, `[dx, dγ, dβ]`.
fn batch_norm(case: &Json, unbiased: bool) -> Vec<Vec<Literal>> {
    let p = &case["params"];
    let replicas = integer(&p["replicas"]) as usize;
    let inputs = &case["inputs"];
    let x = tensor(&inputs["x"]);
    let mut dims = x.dims.clone();
    dims[0] /= replicas as i64;
    let graph = Graph::new();
    let input = parameter(&graph, "x", &dims);
    let names = ["gamma", "beta", "moving_mean", "moving_variance"];
    let values: Vec<Value> = names
        .iter()
        .map(|name| parameter(&graph, name, &dims[dims.len() - 1..]))
        .collect();
    assert_eq!(number(&p["epsilon"]), 1e-5);
    let settings = |training| Settings {
        training,
        replicas,
        global_bn: flag(&p["global_bn"]),
        batch_norm_decay: number(&p["momentum"]),
        unbiased_moving_variance: unbiased,
        ..Settings::default()
    };
    let apply = |training| {
        let mut builder = Builder::with_values(&graph, settings(training), values.clone());
        let y = builder.batch_norm(input, 1.0, true);
        (y, builder.moving().iter().map(|m| m.1).collect::<Vec<_>>())
    };
    let (y, moving) = apply(true);
    let mut outputs = vec![y, apply(false).0, moving[0], moving[1]];
    let cotangent = (!inputs["cotangent"].is_null()).then(|| tensor(&inputs["cotangent"]));
    if cotangent.is_some() {
        let weights = parameter(&graph, "cotangent", &dims);
        let wrt = [input, values[0], values[1]];
        let grads = gradients((y * weights).sum_all(), &wrt);
        outputs.extend(grads.into_iter().flatten());
    }
    let module = graph.finish("batch_norm", &outputs).unwrap();
    let module = module.with_replicas(replicas).unwrap();
    let split = |t: Tensor| {
        let mut all = t;
        all.dims[0] /= replicas as i64;
        all.dims.insert(0, replicas as i64);
        per_replica(&all)
    };
    let (x, cotangent) = (split(x), cotangent.map(split));
    let arguments: Vec<Vec<Literal>> = (0..replicas)
        .map(|r| {
            let mut list = vec![x[r].literal(F32)];
            list.extend(names.map(|name| tensor(&inputs[name]).literal(F32)));
            list.extend(cotangent.iter().map(|c| c[r].literal(F32)));
            list
        })
        .collect();
    run_replicas(&module, &arguments)
}

#[test]
fn golden_batch_norm() {
    let mut report = Report::default();
    let checks = [
        ("y_train", 0),
        ("y_inference", 1),
        ("moving_mean_after", 2),
        ("moving_variance_after", 3),
        ("x_grad", 4),
        ("gamma_grad", 5),
        ("beta_grad", 6),
    ];
    for (kind, unbiased) in [("batch_norm", false), ("batch_norm_v1_local", true)] {
        for case in ops(kind) {
            let found = batch_norm(&case, unbiased);
            for (key, result) in checks {
                let expected = &case["expect"][key];
                let what = || format!("{} {key}", id(&case));
                if let Some(parts) = expected.as_array() {
                    for (part, found) in parts.iter().zip(&found) {
                        let error = Expected(part).largest_error(&found[result].to_f64s());
                        report.check(what, error, 2e-5);
                    }
                } else if key.starts_with("moving") {
                    for found in &found {
                        let error = Expected(expected).largest_error(&found[result].to_f64s());
                        report.check(what, error, 2e-5);
                    }
                } else if !expected.is_null() {
                    let error = Expected(expected).largest_error(&joined(&found, result));
                    report.check(what, error, 2e-5);
                }
            }
        }
    }
    report.finish("batch_norm");
}

/// One layer of the golden file.
fn layer<'g>(builder: &mut Builder<'g>, p: &Json, filters: i64, x: Value<'g>) -> Value<'g> {
    let whole = |key: &str| integer(&p[key]);
    let ratio = |value: &Json| value.as_f64().unwrap_or(0.0);
    match word(&p["layer"]) {
        "conv_fixed_padding" => builder.conv(x, filters, whole("kernel"), whole("strides")),
        "batch_norm_relu" => builder.batch_norm_relu(x),
        "se" => builder.squeeze_excite(x, whole("filters"), ratio(&p["se_ratio"])),
        "sk_conv2d" => {
            assert_eq!(whole("min_dim"), 32);
            builder.selective_kernel(x, whole("filters"), whole("strides"), ratio(&p["sk_ratio"]))
        }
        "block" => {
            let network = Network {
                resnet_depth: match word(&p["block"]) {
                    "residual" => 18,
                    _ => 50,
                },
                sk_ratio: ratio(&p["flags"]["sk_ratio"]),
                se_ratio: ratio(&p["flags"]["se_ratio"]),
                ..Network::default()
            };
            network.block(
                builder,
                x,
                whole("filters"),
                whole("strides"),
                flag(&p["use_projection"]),
            )
        }
        "max_pool" => max_pool_same(x, whole("size"), whole("strides")),
        "avg_pool" => shortcut_pool(x, 1),
        other => panic!("unknown layer {other}"),
    }
}

#[test]
fn golden_layers() {
    let mut report = Report::default();
    for case in ops("layer") {
        let p = &case["params"];
        let pool = (&p["size"], &p["strides"], &p["padding"]);
        if p["layer"] == "avg_pool" && pool != (&2.into(), &1.into(), &"SAME".into()) {
            eprintln!("SKIPPED: {}: no network has this pool", id(&case));
            continue;
        }
        let x = tensor(&case["inputs"]["x"]);
        let cotangent = tensor(&case["inputs"]["cotangent"]);
        let given = list(&case["inputs"]["variables"]);
        let names: Vec<&str> = given.iter().map(|v| word(&v["name"])).collect();
        let names = creation_names(&names);
        let graph = Graph::new();
        let input = parameter(&graph, "x", &x.dims);
        let weights = parameter(&graph, "cotangent", &cotangent.dims);
        let filters = *cotangent.dims.last().unwrap();
        let mut builder = Builder::collecting(&graph, Settings::default());
        let y = layer(&mut builder, p, filters, input);
        let (variables, values) = (builder.variables().to_vec(), builder.values().to_vec());
        assert_eq!(variables.len(), given.len(), "{}", id(&case));
        let settings = Settings {
            training: false,
            ..Settings::default()
        };
        let mut still = Builder::with_values(&graph, settings, values.clone());
        let y_inference = layer(&mut still, p, filters, input);
        // Which of the case's variables each of ours is.
        let order: Vec<usize> = variables
            .iter()
            .map(|v| {
                let found = names.iter().position(|name| *name == v.name);
                found.unwrap_or_else(|| panic!("{}: {} not in {names:?}", id(&case), v.name))
            })
            .collect();
        let trained: Vec<usize> = (0..variables.len())
            .filter(|&i| variables[i].kind.trainable())
            .collect();
        let mut wrt = vec![input];
        wrt.extend(trained.iter().map(|&i| values[i]));
        let grads = gradients((y * weights).sum_all(), &wrt);
        let mut outputs = vec![y, y_inference];
        outputs.extend(grads.into_iter().map(|g| g.expect("a gradient")));
        let moving: Vec<usize> = builder.moving().iter().map(|m| m.0).collect();
        outputs.extend(builder.moving().iter().map(|m| m.1));
        let module = graph.finish("layer", &outputs).unwrap();
        let mut arguments = vec![x.literal(F32), cotangent.literal(F32)];
        arguments.extend(order.iter().map(|&k| tensor(&given[k]).literal(F32)));
        let found = run(&module, &arguments);
        let expect = &case["expect"];
        let mut compare = |what: &str, expected: &Json, found: &Literal| {
            let expected = Expected(expected);
            report.expect(
                || format!("{} {what}: shape {:?}", id(&case), found.shape()),
                expected.shape_fits(&found.shape().dims),
            );
            report.check(
                || format!("{} {what}", id(&case)),
                expected.error(&found.to_f64s()),
                (20.0 * expected.noise()).max(1e-5),
            );
        };
        compare("y_train", &expect["y_train"], &found[0]);
        compare("y_inference", &expect["y_inference"], &found[1]);
        compare("x_grad", &expect["x_grad"], &found[2]);
        for (&i, found) in trained.iter().zip(&found[3..]) {
            let name = word(&given[order[i]]["name"]);
            compare(name, &expect["grads"][name], found);
        }
        for (&i, found) in moving.iter().zip(&found[3 + trained.len()..]) {
            let name = word(&given[order[i]]["name"]);
            compare(name, &expect["after"][name], found);
        }
    }
    report.finish("layer");
}

#[test]
fn golden_init() {
    let mut report = Report::default();
    for case in ops("init") {
        let dims: Vec<i64> = numbers(&case["params"]["shape"])
            .iter()
            .map(|&x| x as i64)
            .collect();
        let conv = dims.len() == 4;
        let variable = Variable {
            name: "kernel".into(),
            init: if conv {
                Init::TruncatedNormal {
                    fan_in: integer(&case["params"]["fan_in"]),
                }
            } else {
                Init::Normal(0.01)
            },
            kind: if conv {
                Kind::ConvKernel
            } else {
                Kind::DenseKernel
            },
            dims,
        };
        let mut x: Vec<f64> = initial_value(&variable, 0, 1)
            .iter()
            .map(|&x| f64::from(x))
            .collect();
        x.sort_by(f64::total_cmp);
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let moment = |k: i32| x.iter().map(|x| (x - mean).powi(k)).sum::<f64>() / n;
        let std = moment(2).sqrt();
        let expect = &case["expect"];
        let wanted = number(&expect["std"]);
        let what = |key: &str| format!("{} {key}", id(&case));
        // Both sides are samples: five standard errors of a difference of two.
        let wide = 5.0 * (2.0 / n).sqrt();
        let error = (mean - number(&expect["mean"])).abs();
        report.check(|| what("mean"), error, wide * wanted);
        report.check(|| what("std"), (std / wanted - 1.0).abs(), wide);
        let kurtosis = moment(4) / moment(2).powi(2);
        let error = (kurtosis - number(&expect["kurtosis"])).abs();
        report.check(|| what("kurtosis"), error, wide * 24f64.sqrt());
        for (level, quantile) in numbers(&expect["quantile_levels"])
            .iter()
            .zip(numbers(&expect["quantiles"]))
        {
            let found = x[(level * (n - 1.0)).round() as usize];
            // The density of a normal at its 1 % and 99 % quantiles is 0.027/σ.
            let error = (found - quantile).abs();
            let spread = (level * (1.0 - level)).sqrt() / (0.027 + 0.37 * level.min(1.0 - level));
            report.check(
                || what(&format!("quantile {level}")),
                error,
                wide * spread * wanted,
            );
        }
        let largest = x[0].abs().max(x[x.len() - 1]);
        let bound = number(&expect["max_abs"]);
        let slack = if conv { 1e-3 + 40.0 / n } else { 0.25 };
        report.check(|| what("max_abs"), (largest / bound - 1.0).abs(), slack);
    }
    report.finish("init");
}
