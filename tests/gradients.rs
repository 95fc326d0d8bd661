//! Every differentiable operation: its gradient against central differences along a random direction, in f64; exact values at kinks;
//! and a registry that fails when an operation has no case here.

mod common;

use simclr::grad::{Differentiability, differentiability, gradients};
use simclr::hlo::{
    Binary, Branch, Conv, ConvDims, DType, DotDims, GatherDims, Graph, Literal, Monoid, Op, PadDim,
    ScatterDims, Shape, Unary, Value, WindowDim,
};
use simclr::random::threefry2x32;
use std::collections::BTreeSet;

/// Inputs of a case: dimensions and range.
type Input = (Vec<i64>, f64, f64);
/// What a case computes.
type Function = Box<dyn for<'g> Fn(&'g Graph, &[Value<'g>]) -> Value<'g>>;

struct Case {
    name: String,
    inputs: Vec<Input>,
    function: Function,
    replicas: usize,
}

fn case(
    name: impl Into<String>,
    inputs: &[(&[i64], f64, f64)],
    function: impl for<'g> Fn(&'g Graph, &[Value<'g>]) -> Value<'g> + 'static,
) -> Case {
    Case {
        name: name.into(),
        inputs: inputs
            .iter()
            .map(|(dims, low, high)| (dims.to_vec(), *low, *high))
            .collect(),
        function: Box::new(function),
        replicas: 1,
    }
}

fn random(seed: u32, count: usize, low: f64, high: f64) -> Vec<f64> {
    (0..count)
        .map(|i| {
            let [bits, _] = threefry2x32([seed, 17], [i as u32, 0]);
            low + (high - low) * f64::from(bits) / 4_294_967_296.0
        })
        .collect()
}

/// Loss of a case: the sum of its result times fixed random weights, so that no symmetry hides a wrong element.
fn loss<'g>(graph: &'g Graph, case: &Case, inputs: &[Value<'g>]) -> Value<'g> {
    let y = (case.function)(graph, inputs);
    let shape = y.shape();
    let weights = random(99, shape.elements(), -1.0, 1.0);
    let mut weights = graph.constant(Literal::new(&shape.dims, &weights));
    if case.replicas > 1 {
        // Each replica has a loss of its own.
        weights = weights * (graph.replica_id().convert(DType::F64) + 1.0);
    }
    (y * weights).sum_all()
}

/// Checks a case: `Σ gradient · direction` against `(L(x + h·d) − L(x − h·d)) / 2h`, both summed over replicas.
fn check(case: &Case) -> Result<(), String> {
    let graph = Graph::new();
    let inputs: Vec<Value> = case
        .inputs
        .iter()
        .map(|(dims, ..)| graph.parameter("x", Shape::new(DType::F64, dims.clone())))
        .collect();
    let value = loss(&graph, case, &inputs);
    let mut outputs = vec![value];
    for (gradient, input) in gradients(value, &inputs).into_iter().zip(&inputs) {
        outputs.push(gradient.unwrap_or_else(|| graph.zeros(&input.shape())));
    }
    let module = graph
        .finish("case", &outputs)
        .and_then(|module| module.with_replicas(case.replicas))
        .map_err(|error| format!("{}: {error}", case.name))?;
    let engine = common::engine(case.replicas);
    let program = engine
        .compile(&module)
        .map_err(|error| format!("{}: {error}", case.name))?;
    let run = |shift: f64| -> Vec<Vec<Literal>> {
        let arguments: Vec<Vec<Literal>> = (0..case.replicas)
            .map(|replica| {
                case.inputs
                    .iter()
                    .enumerate()
                    .map(|(i, (dims, low, high))| {
                        let count = dims.iter().product::<i64>() as usize;
                        let seed = (i + 10 * replica) as u32;
                        let x = random(seed, count, *low, *high);
                        let d = direction(seed, count);
                        let moved: Vec<f64> =
                            x.iter().zip(&d).map(|(x, d)| x + shift * d).collect();
                        Literal::new(dims, &moved)
                    })
                    .collect()
            })
            .collect();
        program.run(&engine, &arguments).expect("the case runs")
    };
    let h = 1e-5;
    let total = |results: &[Vec<Literal>]| results.iter().map(|r| r[0].to_f64s()[0]).sum::<f64>();
    let numeric = (total(&run(h)) - total(&run(-h))) / (2.0 * h);
    let mut exact = 0.0;
    let mut size = 0.0f64;
    for (replica, results) in run(0.0).iter().enumerate() {
        for (i, gradient) in results[1..].iter().enumerate() {
            let gradient = gradient.to_f64s();
            let d = direction((i + 10 * replica) as u32, gradient.len());
            for (g, d) in gradient.iter().zip(&d) {
                exact += g * d;
                size += (g * d).powi(2);
            }
        }
    }
    let scale = numeric.abs().max(size.sqrt()).max(1e-3);
    let error = (exact - numeric).abs() / scale;
    if error <= 1e-5 {
        Ok(())
    } else {
        Err(format!(
            "{}: gradient {exact}, central difference {numeric}, relative {error:.1e}",
            case.name
        ))
    }
}

fn direction(seed: u32, count: usize) -> Vec<f64> {
    random(1000 + seed, count, -1.0, 1.0)
}

fn unary_cases() -> Vec<Case> {
    let ranges: [(Unary, f64, f64); 15] = [
        (Unary::Abs, 0.5, 2.0),
        (Unary::Cbrt, 0.5, 2.0),
        (Unary::Cos, -3.0, 3.0),
        (Unary::Erf, -2.0, 2.0),
        (Unary::Exp, -2.0, 2.0),
        (Unary::Expm1, -2.0, 2.0),
        (Unary::Log, 0.5, 3.0),
        (Unary::Log1p, -0.5, 3.0),
        (Unary::Logistic, -3.0, 3.0),
        (Unary::Negate, -3.0, 3.0),
        (Unary::Rsqrt, 0.5, 3.0),
        (Unary::Sin, -3.0, 3.0),
        (Unary::Sqrt, 0.5, 3.0),
        (Unary::Tan, -1.0, 1.0),
        (Unary::Tanh, -2.0, 2.0),
    ];
    ranges
        .into_iter()
        .map(|(op, low, high)| {
            case(format!("{op:?}"), &[(&[3, 4], low, high)], move |_, x| {
                x[0].unary(op)
            })
        })
        .collect()
}

fn binary_cases() -> Vec<Case> {
    // Ranges that keep away from kinks: maximum and minimum of values that cannot meet are checked both ways round.
    let ranges: [(Binary, [f64; 4]); 11] = [
        (Binary::Add, [-2.0, 2.0, -2.0, 2.0]),
        (Binary::Subtract, [-2.0, 2.0, -2.0, 2.0]),
        (Binary::Multiply, [-2.0, 2.0, -2.0, 2.0]),
        (Binary::Divide, [-2.0, 2.0, 0.5, 2.0]),
        (Binary::Maximum, [0.0, 1.0, 1.1, 2.0]),
        (Binary::Maximum, [1.1, 2.0, 0.0, 1.0]),
        (Binary::Minimum, [0.0, 1.0, 1.1, 2.0]),
        (Binary::Minimum, [1.1, 2.0, 0.0, 1.0]),
        (Binary::Power, [0.5, 2.0, -2.0, 2.0]),
        (Binary::Remainder, [5.1, 5.4, 1.6, 1.69]),
        (Binary::Atan2, [0.5, 2.0, 0.5, 2.0]),
    ];
    ranges
        .into_iter()
        .map(|(op, [a, b, c, d])| {
            case(
                format!("{op:?}"),
                &[(&[3, 4], a, b), (&[3, 4], c, d)],
                move |_, x| x[0].binary(op, x[1]),
            )
        })
        .collect()
}

fn structural_cases() -> Vec<Case> {
    let pad = |low, high, interior| PadDim {
        low,
        high,
        interior,
    };
    vec![
        case("select", &[(&[6], -1.0, 1.0), (&[6], -1.0, 1.0)], |g, x| {
            g.iota(DType::S32, &[6], 0).lt(3.0).select(x[0], x[1])
        }),
        case("clamp", &[(&[6], -0.4, 0.4)], |_, x| x[0].clamp(-0.5, 0.5)),
        case("clamp, outside", &[(&[6], 0.6, 0.9)], |_, x| {
            x[0].clamp(-0.5, 0.5)
        }),
        case(
            "clamp by values",
            &[(&[6], 0.6, 0.9), (&[6], -0.9, -0.6)],
            |g, x| {
                let low = x[0];
                g.push(Op::Clamp, &[low, x[1], low + 1.0])
            },
        ),
        case("broadcast", &[(&[3], -1.0, 1.0)], |_, x| {
            x[0].broadcast_in_dim(&[2, 3, 4], &[1])
        }),
        case("broadcast of a scalar", &[(&[], -1.0, 1.0)], |_, x| {
            x[0].broadcast_scalar(&[5])
        }),
        case("reshape", &[(&[3, 4], -1.0, 1.0)], |_, x| {
            x[0].reshape(&[2, 6])
        }),
        case("transpose", &[(&[2, 3, 4], -1.0, 1.0)], |_, x| {
            x[0].transpose(&[2, 0, 1])
        }),
        case("slice", &[(&[7, 5], -1.0, 1.0)], |_, x| {
            x[0].slice(&[1, 0], &[7, 4], &[2, 3])
        }),
        case("dynamic-slice", &[(&[7, 5], -1.0, 1.0)], |g, x| {
            x[0].dynamic_slice(&[g.scalar(2i32), g.scalar(1i32)], &[3, 2])
        }),
        case(
            "dynamic-update-slice",
            &[(&[7, 5], -1.0, 1.0), (&[3, 2], -1.0, 1.0)],
            |g, x| x[0].dynamic_update_slice(x[1], &[g.scalar(2i32), g.scalar(1i32)]),
        ),
        case(
            "gather of rows, one twice",
            &[(&[5, 3], -1.0, 1.0)],
            |g, x| x[0].take_rows(g.constant(Literal::new(&[4], &[1i32, 4, 1, 0]))),
        ),
        case("gather of windows", &[(&[5, 4], -1.0, 1.0)], |g, x| {
            let at = g.constant(Literal::new(&[3, 2], &[0i32, 1, 2, 0, 3, 2]));
            let dims = GatherDims {
                offset_dims: vec![1, 2],
                collapsed_slice_dims: vec![],
                start_index_map: vec![0, 1],
                index_vector_dim: 1,
                slice_sizes: vec![2, 2],
            };
            x[0].gather(at, dims)
        }),
        case(
            "scatter of rows, one twice",
            &[(&[5, 3], -1.0, 1.0), (&[3, 3], -1.0, 1.0)],
            |g, x| {
                let at = g.constant(Literal::new(&[3, 1], &[1i32, 4, 1]));
                let dims = ScatterDims {
                    update_window_dims: vec![1],
                    inserted_window_dims: vec![0],
                    scatter_dims_to_operand_dims: vec![0],
                    index_vector_dim: 1,
                };
                x[0].scatter(at, x[1], dims, Monoid::Add)
            },
        ),
        case(
            "concatenate",
            &[(&[2, 3], -1.0, 1.0), (&[4, 3], -1.0, 1.0)],
            |g, x| g.concatenate(&[x[0], x[1], x[0]], 0),
        ),
        case("pad", &[(&[3, 4], -1.0, 1.0)], move |_, x| {
            x[0].pad(0.0, &[pad(1, 2, 0), pad(0, 1, 2)])
        }),
        case("pad, cropping", &[(&[5, 6], -1.0, 1.0)], move |_, x| {
            x[0].pad(0.0, &[pad(-1, 2, 1), pad(1, -2, 0)])
        }),
        case(
            "pad by a value",
            &[(&[3], -1.0, 1.0), (&[], -1.0, 1.0)],
            move |g, x| g.push(Op::Pad(vec![pad(1, 2, 1)]), &[x[0], x[1]]),
        ),
        case("reverse", &[(&[3, 4], -1.0, 1.0)], |_, x| {
            x[0].reverse(&[1])
        }),
        case("reduce, sum", &[(&[3, 4, 2], -1.0, 1.0)], |_, x| {
            x[0].sum(&[0, 2])
        }),
        case("reduce, product", &[(&[3, 4], 0.5, 1.5)], |_, x| {
            x[0].reduce(Monoid::Multiply, &[1])
        }),
        case("reduce, maximum", &[(&[3, 4], -1.0, 1.0)], |_, x| {
            x[0].reduce_max(&[1])
        }),
        case("reduce, minimum", &[(&[3, 4], -1.0, 1.0)], |_, x| {
            x[0].reduce_min(&[0])
        }),
        case(
            "select-and-scatter, source",
            &[(&[2, 2], -1.0, 1.0)],
            |g, x| {
                let operand = g.constant(Literal::new(&[5, 5], &random(5, 25, -1.0, 1.0)));
                operand.select_and_scatter(x[0], &[WindowDim::new(3, 2, 0, 0); 2])
            },
        ),
        case("sort", &[(&[6], -1.0, 1.0)], |g, x| {
            g.sort(&[x[0]], 0, |_, a, b| a[0].lt(b[0]))[0]
        }),
        case(
            "sort with a companion",
            &[(&[2, 5], -1.0, 1.0), (&[2, 5], -1.0, 1.0)],
            |g, x| {
                let sorted = g.sort(&[x[0], x[1]], 1, |_, a, b| a[0].gt(b[0]));
                sorted[0] * 0.5 + sorted[1]
            },
        ),
        case(
            "opt-barrier, tuple, get-tuple-element",
            &[(&[3], -1.0, 1.0)],
            |g, x| {
                let both = g.optimization_barrier(&[x[0] * 2.0, x[0] * x[0]]);
                g.tuple(&both).element(1) + both[0]
            },
        ),
        case("fence", &[(&[3], -1.0, 1.0)], |_, x| {
            (x[0] * x[0]).fence() * x[0]
        }),
        case("custom-vjp", &[(&[3], -1.0, 1.0)], |g, x| {
            let y = x[0] * x[0];
            g.custom_vjp(&[x[0]], &[y], &[], |vjp| {
                vec![vjp.cotangents[0] * vjp.inputs[0] * 2.0]
            })[0]
        }),
        case("gradient of a gradient", &[(&[4], 0.5, 1.5)], |_, x| {
            let first = (x[0].tanh() * x[0].log()).sum_all();
            gradients(first, &[x[0]])[0].unwrap_or(x[0])
        }),
    ]
}

fn dot_cases() -> Vec<Case> {
    let dims = |lc: &[i64], rc: &[i64], lb: &[i64], rb: &[i64]| DotDims {
        lhs_contracting: lc.to_vec(),
        rhs_contracting: rc.to_vec(),
        lhs_batch: lb.to_vec(),
        rhs_batch: rb.to_vec(),
        ..DotDims::default()
    };
    let list: Vec<(&[i64], &[i64], DotDims)> = vec![
        (&[3, 4], &[4, 5], dims(&[1], &[0], &[], &[])),
        (&[4, 3], &[5, 4], dims(&[0], &[1], &[], &[])),
        (&[2, 3, 4], &[2, 4, 5], dims(&[2], &[1], &[0], &[0])),
        (&[3, 2, 4], &[4, 5, 2], dims(&[2], &[0], &[1], &[2])),
        (&[3, 4, 5], &[5, 2, 4], dims(&[1, 2], &[2, 0], &[], &[])),
        (&[4], &[4], dims(&[0], &[0], &[], &[])),
        (
            &[2, 3, 4, 5],
            &[3, 5, 2, 6],
            dims(&[3], &[1], &[0, 1], &[2, 0]),
        ),
    ];
    list.into_iter()
        .map(|(a, b, dims)| {
            case(
                format!("dot {a:?} {b:?}"),
                &[(a, -1.0, 1.0), (b, -1.0, 1.0)],
                move |_, x| x[0].dot_general(x[1], dims.clone()),
            )
        })
        .collect()
}

/// One dimension; input [feature, batch, space], kernel [output, space, input], output [space, feature, batch].
fn unusual_layout() -> ConvDims {
    ConvDims {
        input_batch: 1,
        input_feature: 0,
        input_spatial: vec![2],
        kernel_input: 2,
        kernel_output: 0,
        kernel_spatial: vec![1],
        output_batch: 2,
        output_feature: 1,
        output_spatial: vec![0],
    }
}

fn convolution_cases() -> Vec<Case> {
    let w = |size, stride, low, high, window_dilation, base_dilation| WindowDim {
        size,
        stride,
        low,
        high,
        window_dilation,
        base_dilation,
    };
    let mut cases = Vec::new();
    // Windows of one dimension, used in both: sizes, strides with and without remainder, paddings (negative too), dilations.
    let windows = [
        w(3, 1, 1, 1, 1, 1),
        w(3, 1, 0, 0, 1, 1),
        w(3, 2, 1, 1, 1, 1),
        w(3, 2, 0, 1, 1, 1),
        w(3, 2, 0, 0, 1, 1),
        w(1, 1, 0, 0, 1, 1),
        w(1, 2, 0, 0, 1, 1),
        w(2, 3, 2, 1, 1, 1),
        w(4, 2, 1, 2, 1, 1),
        w(3, 1, 2, 2, 2, 1),
        w(3, 2, 2, 1, 2, 1),
        w(3, 1, 1, 1, 1, 2),
        w(2, 2, 1, 0, 2, 3),
        w(3, 1, -1, 2, 1, 1),
        w(2, 2, 1, -1, 1, 1),
        w(5, 3, 4, 4, 1, 1),
    ];
    for window in windows {
        let k = window.size;
        let input: [i64; 4] = [2, 7, 6, 3];
        cases.push(case(
            format!("convolution {window:?}"),
            &[(&input, -1.0, 1.0), (&[k, k, 3, 2], -1.0, 1.0)],
            move |_, x| x[0].convolve(x[1], Conv::nhwc(vec![window; 2])),
        ));
    }
    for window in [windows[0], windows[3], windows[9]] {
        cases.push(case(
            format!("grouped convolution {window:?}"),
            &[(&[2, 7, 6, 4], -1.0, 1.0), (&[3, 3, 2, 6], -1.0, 1.0)],
            move |_, x| {
                let conv = Conv {
                    feature_groups: 2,
                    ..Conv::nhwc(vec![window; 2])
                };
                x[0].convolve(x[1], conv)
            },
        ));
    }
    for window in [windows[0], windows[3], windows[9]] {
        cases.push(case(
            format!("convolution with batch groups {window:?}"),
            &[(&[4, 7, 6, 3], -1.0, 1.0), (&[3, 3, 3, 6], -1.0, 1.0)],
            move |_, x| {
                let conv = Conv {
                    batch_groups: 2,
                    ..Conv::nhwc(vec![window; 2])
                };
                x[0].convolve(x[1], conv)
            },
        ));
    }
    cases.push(case(
        "convolution with batch groups, features before the batch",
        &[(&[3, 6, 8], -1.0, 1.0), (&[6, 3, 3], -1.0, 1.0)],
        move |_, x| {
            let dims = unusual_layout();
            let conv = Conv {
                window: vec![windows[2]],
                dims,
                feature_groups: 1,
                batch_groups: 3,
            };
            x[0].convolve(x[1], conv)
        },
    ));
    cases.push(case(
        "depthwise convolution",
        &[(&[2, 6, 6, 3], -1.0, 1.0), (&[3, 3, 1, 3], -1.0, 1.0)],
        move |_, x| {
            let conv = Conv {
                feature_groups: 3,
                ..Conv::nhwc(vec![windows[0]; 2])
            };
            x[0].convolve(x[1], conv)
        },
    ));
    cases.push(case(
        "convolution of one dimension, other layout",
        &[(&[3, 2, 8], -1.0, 1.0), (&[4, 3, 3], -1.0, 1.0)],
        move |_, x| {
            let dims = unusual_layout();
            let window = vec![windows[2]];
            x[0].convolve(
                x[1],
                Conv {
                    window,
                    dims,
                    feature_groups: 1,
                    batch_groups: 1,
                },
            )
        },
    ));
    cases
}

fn window_cases() -> Vec<Case> {
    let one = WindowDim::identity();
    let windows = [
        WindowDim::new(3, 2, 0, 1),
        WindowDim::new(2, 1, 0, 1),
        WindowDim::new(3, 1, 1, 1),
        WindowDim::new(2, 2, 0, 0),
    ];
    let mut cases = Vec::new();
    for window in windows {
        for monoid in [Monoid::Add, Monoid::Maximum, Monoid::Minimum] {
            cases.push(case(
                format!("reduce-window {monoid:?} {window:?}"),
                &[(&[2, 6, 6, 2], -1.0, 1.0)],
                move |_, x| x[0].reduce_window(monoid, &[one, window, window, one]),
            ));
        }
    }
    cases.push(case(
        "reduce-window, dilated",
        &[(&[9], -1.0, 1.0)],
        |_, x| {
            let window = WindowDim {
                window_dilation: 2,
                base_dilation: 2,
                ..WindowDim::new(3, 2, 1, 2)
            };
            x[0].reduce_window(Monoid::Add, &[window])
        },
    ));
    cases
}

fn collective_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for replicas in [2, 4] {
        let pairs = vec![vec![0, 1], vec![2, 3]];
        let groups = if replicas == 4 { pairs } else { vec![] };
        let size = 2;
        let grouped = groups.clone();
        let scattered = groups.clone();
        cases.extend([
            case("all-reduce", &[(&[3], -1.0, 1.0)], |_, x| {
                (x[0] * x[0]).all_reduce_sum() * x[0]
            }),
            case("all-reduce in groups", &[(&[3], -1.0, 1.0)], move |_, x| {
                (x[0] * x[0]).all_reduce(Monoid::Add, &groups)
            }),
            case("all-gather", &[(&[3, 2], -1.0, 1.0)], move |_, x| {
                let all = (x[0] * x[0]).all_gather(0, size, &grouped);
                all * all
            }),
            case("reduce-scatter", &[(&[4, 2], -1.0, 1.0)], move |_, x| {
                let part = (x[0] * x[0]).reduce_scatter(0, size, &scattered);
                part * part
            }),
            case("collective-permute", &[(&[3], -1.0, 1.0)], move |_, x| {
                let ring: Vec<(i64, i64)> = (0..replicas as i64 - 1).map(|i| (i, i + 1)).collect();
                (x[0] * x[0]).collective_permute(&ring) * x[0]
            }),
        ]);
        for case in cases.iter_mut().rev().take(5) {
            case.replicas = replicas;
            case.name = format!("{} on {replicas} replicas", case.name);
        }
    }
    cases
}

/// Two branches with other arguments each.
fn first_branch<'g>(_: &'g Graph, p: &[Value<'g>]) -> Vec<Value<'g>> {
    vec![p[0].sin() * p[1].sum(&[0]), p[0]]
}

fn second_branch<'g>(_: &'g Graph, p: &[Value<'g>]) -> Vec<Value<'g>> {
    let sum = (p[0] * p[0]).sum(&[0]);
    vec![sum, sum.sqrt()]
}

/// Calls and conditionals; a result that is not used and an integer among the arguments.
fn body_cases() -> Vec<Case> {
    let mut cases = vec![case(
        "call",
        &[(&[3], 0.5, 2.0), (&[3], 0.5, 2.0)],
        |g, x| {
            let found = g.call(&[x[0], g.scalar(2i32), x[1]], |_, p| {
                let factor = p[1].convert(DType::F64).broadcast_in_dim(&[3], &[]);
                vec![p[0] * p[2].log() * factor, p[1], p[2].exp()]
            });
            found[0] + found[2] * x[0]
        },
    )];
    for chosen in 0..2i32 {
        cases.push(case(
            format!("conditional, branch {chosen}"),
            &[(&[3], 0.5, 2.0), (&[2, 3], 0.5, 2.0)],
            move |g, x| {
                let branches: [(Vec<Value>, &Branch); 2] = [
                    (vec![x[0], x[1]], &first_branch),
                    (vec![x[1]], &second_branch),
                ];
                let found = g.conditional(g.scalar(chosen), &branches);
                found[0] + found[1] * 3.0
            },
        ));
    }
    cases
}

fn all_cases() -> Vec<Case> {
    [
        unary_cases(),
        binary_cases(),
        structural_cases(),
        dot_cases(),
        convolution_cases(),
        window_cases(),
        collective_cases(),
        body_cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn gradients_agree_with_central_differences() {
    let cases = all_cases();
    let failures: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases failed:\n  {}",
        failures.len(),
        cases.len(),
        failures.join("\n  ")
    );
}

/// A checker that cannot fail proves nothing: a wrong rule must be caught.
#[test]
fn a_wrong_rule_is_caught() {
    let wrong = case("wrong", &[(&[3], -1.0, 1.0)], |g, x| {
        let y = x[0] * x[0];
        g.custom_vjp(&[x[0]], &[y], &[], |vjp| {
            vec![vjp.cotangents[0] * vjp.inputs[0] * 2.001]
        })[0]
    });
    assert!(check(&wrong).is_err());
}

/// All variants of an enumeration. The match without a wildcard does not compile when a new variant is missing here.
macro_rules! all_of {
    ($type:ident: $($variant:ident)*) => {{
        #[allow(dead_code)]
        fn complete(value: $type) {
            match value { $($type::$variant => {})* }
        }
        [$($type::$variant),*]
    }};
}

/// All operations with their opcodes, and whether each has a gradient. The match without a wildcard does not compile when a new
/// operation is missing here; one with a gradient then needs a case.
macro_rules! all_operations {
    ($($pattern:pat => $name:literal $gradient:literal)*) => {
        fn operations() -> Vec<(&'static str, bool)> {
            #[allow(dead_code)]
            fn complete(op: &Op) {
                match op { $($pattern => {})* }
            }
            vec![$(($name, $gradient)),*]
        }
    };
}

all_operations! {
    Op::Parameter { .. } => "parameter" false
    Op::Constant(_) => "constant" false
    Op::Iota { .. } => "iota" false
    Op::Unary(_) | Op::Binary(_) => "" false // by themselves
    Op::Compare(_) => "compare" false
    Op::Select => "select" true
    Op::Clamp => "clamp" true
    Op::Convert(_) => "convert" true
    Op::BitcastConvert(_) => "bitcast-convert" false
    Op::Broadcast { .. } => "broadcast" true
    Op::Reshape { .. } => "reshape" true
    Op::Transpose { .. } => "transpose" true
    Op::Slice { .. } => "slice" true
    Op::DynamicSlice { .. } => "dynamic-slice" true
    Op::DynamicUpdateSlice => "dynamic-update-slice" true
    Op::Gather(_) => "gather" true
    Op::Scatter { .. } => "scatter" true
    Op::Concatenate { .. } => "concatenate" true
    Op::Pad(_) => "pad" true
    Op::Reverse { .. } => "reverse" true
    Op::Reduce { .. } => "reduce" true
    Op::ReduceWindow { .. } => "reduce-window" true
    Op::SelectAndScatter { .. } => "select-and-scatter" true
    Op::Convolution(_) => "convolution" true
    Op::Dot(_) => "dot" true
    Op::RngBitGenerator { .. } => "rng-bit-generator" false
    Op::Sort { .. } => "sort" true
    Op::While { .. } => "while" false
    Op::Conditional { .. } => "conditional" true
    Op::Call(_) => "call" true
    Op::Tuple => "tuple" true
    Op::GetTupleElement { .. } => "get-tuple-element" true
    Op::AllReduce { .. } => "all-reduce" true
    Op::AllGather { .. } => "all-gather" true
    Op::ReduceScatter { .. } => "reduce-scatter" true
    Op::CollectivePermute { .. } => "collective-permute" true
    Op::ReplicaId => "replica-id" false
    Op::OptimizationBarrier => "opt-barrier" true
    Op::Fence => "fence" true
    Op::CustomCall { .. } => "custom-call" false
    Op::StopGradient => "stop-gradient" false
    Op::CustomVjp { .. } => "custom-vjp" true
}

/// Opcodes of all operations that have a rule.
fn differentiable() -> BTreeSet<&'static str> {
    let unary = all_of!(Unary: Abs Cbrt Ceil Cos Erf Exp Expm1 Floor IsFinite Log Log1p Logistic Negate Not RoundAfz RoundEven
        Rsqrt Sign Sin Sqrt Tan Tanh);
    let binary = all_of!(Binary: Add And Atan2 Divide Maximum Minimum Multiply Or Power Remainder ShiftLeft ShiftRightArithmetic
        ShiftRightLogical Subtract Xor);
    let elementwise = unary
        .map(Op::Unary)
        .into_iter()
        .chain(binary.map(Op::Binary));
    let with_gradient = operations().into_iter().filter(|(_, gradient)| *gradient);
    elementwise
        .filter(|op| differentiability(op) == Differentiability::Rule)
        .map(|op| op.opcode())
        .chain(with_gradient.map(|(name, _)| name))
        .collect()
}

#[test]
fn every_differentiable_operation_has_a_case() {
    let mut used = BTreeSet::new();
    let exact = case(
        "conversions_pass_the_cotangent",
        &[(&[2], 0.0, 1.0)],
        |g, x| converted(g, x[0]),
    );
    for case in all_cases().into_iter().chain([exact]) {
        let graph = Graph::new();
        let inputs: Vec<Value> = case
            .inputs
            .iter()
            .map(|(dims, ..)| graph.parameter("x", Shape::new(DType::F64, dims.clone())))
            .collect();
        (case.function)(&graph, &inputs);
        assert_eq!(graph.error(), None, "{}", case.name);
        for i in 0..graph.len() {
            let node = graph.node_at(i);
            if differentiability(&node.op) == Differentiability::Rule {
                used.insert(node.op.opcode());
            }
        }
    }
    let missing: Vec<_> = differentiable().difference(&used).copied().collect();
    assert!(missing.is_empty(), "no gradient case for {missing:?}");
    let unlisted: Vec<_> = used.difference(&differentiable()).copied().collect();
    assert!(
        unlisted.is_empty(),
        "not in the list of differentiable operations: {unlisted:?}"
    );
}

/// Gradients of a scalar function at given points.
fn at(points: &[f64], function: impl for<'g> Fn(&'g Graph, Value<'g>) -> Value<'g>) -> Vec<f64> {
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F64, [points.len() as i64]));
    let found = gradients(function(&graph, x).sum_all(), &[x]);
    let module = graph
        .finish("kink", &[found[0].expect("a gradient")])
        .expect("the graph");
    common::run(&module, &[Literal::new(&[points.len() as i64], points)])[0].to_f64s()
}

#[test]
fn kinks_have_the_documented_gradients() {
    // ReLU at zero (reference §3.11).
    assert_eq!(at(&[-1.0, 0.0, 2.0], |_, x| x.max(0.0)), [0.0, 0.0, 1.0]);
    assert_eq!(at(&[-1.0, 0.0, 2.0], |_, x| x.abs()), [-1.0, 0.0, 1.0]);
    // Ties over dimensions share; ties over windows go to the first.
    assert_eq!(
        at(&[3.0, 1.0, 3.0], |_, x| x.reduce_max(&[0])),
        [0.5, 0.0, 0.5]
    );
    let first = at(&[3.0, 3.0, 1.0, 1.0], |_, x| {
        x.reduce_window(Monoid::Maximum, &[WindowDim::new(2, 2, 0, 0)])
    });
    assert_eq!(first, [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(at(&[2.0, 0.0], |_, x| x.pow(2.0)), [4.0, 0.0]);
    // The product of the others, exactly, also beside zeros.
    assert_eq!(at(&[0.0, 2.0, 3.0], multiplied), [6.0, 0.0, 0.0]);
    assert_eq!(at(&[0.0, 2.0, 0.0], multiplied), [0.0, 0.0, 0.0]);
}

fn multiplied<'g>(_: &'g Graph, x: Value<'g>) -> Value<'g> {
    x.reduce(Monoid::Multiply, &[0])
}

/// A conversion is too coarse for differences: its gradient is the cotangent, converted back.
fn converted<'g>(_: &'g Graph, x: Value<'g>) -> Value<'g> {
    x.convert(DType::F32) * 3.0
}

#[test]
fn conversions_pass_the_cotangent() {
    assert_eq!(at(&[0.1, 2.0], converted), [3.0, 3.0]);
    let stepped = at(&[0.1, 2.0], |_, x| {
        x.convert(DType::S32).convert(DType::F64) * x
    });
    assert_eq!(stepped, [0.0, 2.0]);
}

#[test]
fn stopped_and_unused_values_have_no_gradient() {
    let graph = Graph::new();
    let shape = Shape::new(DType::F32, [3]);
    let (x, y) = (
        graph.parameter("x", shape.clone()),
        graph.parameter("y", shape),
    );
    let loss = (x * x.stop_gradient() + y.stop_gradient()).sum_all();
    let found = gradients(loss, &[x, y]);
    assert!(found[0].is_some() && found[1].is_none());
    assert_eq!(graph.error(), None);
}

/// `x · stop(x)`, inside a call.
fn half_stopped<'g>(g: &'g Graph, p: &[Value<'g>]) -> Vec<Value<'g>> {
    g.call(p, |_, q| vec![q[0] * q[0].stop_gradient()])
}

#[test]
fn a_gradient_stopped_inside_a_body_stays_stopped() {
    assert_eq!(at(&[3.0], |g, x| half_stopped(g, &[x])[0]), [3.0]);
    let found = at(&[3.0], |g, x| {
        let branch = || (vec![x], &half_stopped as &Branch);
        g.conditional(g.scalar(0i32), &[branch(), branch()])[0]
    });
    assert_eq!(found, [3.0]);
}

#[test]
fn what_has_no_rule_says_so() {
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [3]));
    let y = graph.while_loop(
        &[x],
        |_, s| s[0].sum_all().lt(10.0),
        |_, s| vec![s[0] * 2.0],
    )[0];
    gradients(y.sum_all(), &[x]);
    let error = graph.error().expect("an error").to_string();
    assert!(
        error.contains("while") && error.contains("inside its body"),
        "{error}"
    );
}
