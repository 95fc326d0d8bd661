//! StableHLO text against the module it was written from: both are compiled by the same plugin and give the same numbers.

mod common;

use simclr::hlo::{Conv, DType, Graph, Literal, Module, Monoid, PadDim, Shape, Value, WindowDim};
use simclr::pjrt::{Argument, BufferSpec, CompileOptions, ElementType};

/// Runs StableHLO text on arrays of f32.
fn run_text(module: &Module, text: &str, arguments: &[Literal]) -> Vec<Literal> {
    let engine = common::engine(1);
    let device = engine.client().devices()[0].clone();
    let options = CompileOptions {
        num_replicas: 1,
        device_ids: vec![device.id()],
        overrides: Vec::new(),
        parameters: arguments
            .iter()
            .map(|argument| BufferSpec {
                element_type: ElementType::F32,
                dims: argument.shape().dims.clone(),
            })
            .collect(),
        donated: Vec::new(),
    };
    let program = engine.client().compile_stablehlo(text, &options);
    let program = program.unwrap_or_else(|error| panic!("{error}\n{text}"));
    let buffers = arguments
        .iter()
        .map(|argument| Argument::Donate(engine.put(argument, &device).expect("a buffer")))
        .collect();
    let results = program.execute(vec![buffers]).expect("a launch");
    let shapes = module.results();
    results[0]
        .iter()
        .zip(shapes)
        .map(|(buffer, shape)| Literal::from_bytes(shape, buffer.to_host().expect("bytes")))
        .collect::<Option<_>>()
        .expect("results of their shapes")
}

fn ramp(dims: &[i64]) -> Literal {
    let count = dims.iter().product::<i64>();
    let values: Vec<f32> = (0..count)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 16.0)
        .collect();
    Literal::new(dims, &values)
}

/// Builds results from two arguments, `[2, 6, 6, 4]` and `[3, 3, 4, 5]`, and compares the two ways.
fn same(build: impl for<'g> Fn(&'g Graph, Value<'g>, Value<'g>) -> Vec<Value<'g>>) {
    let (x_dims, k_dims) = ([2, 6, 6, 4], [3, 3, 4, 5]);
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, x_dims));
    let k = graph.parameter("k/with \"quotes\"", Shape::new(DType::F32, k_dims));
    let results = build(&graph, x, k);
    let module = graph.finish("both", &results).expect("a module");
    let names: Vec<String> = (0..results.len()).map(|i| format!("result {i}")).collect();
    let text = module.to_stablehlo(&names).expect("text");
    let arguments = [ramp(&x_dims), ramp(&k_dims)];
    let expected = common::run(&module, &arguments);
    let found = run_text(&module, &text, &arguments);
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.shape(), expected.shape(), "result {i}");
        for (a, b) in found.to_f64s().into_iter().zip(expected.to_f64s()) {
            // The two ways may be fused differently.
            assert!(
                (a - b).abs() <= 1e-5 * b.abs().max(1.0) || (a.is_nan() && b.is_nan()),
                "result {i}: {a} {b}\n{text}"
            );
        }
    }
}

#[test]
fn elementwise_operations() {
    same(|graph, x, _| {
        let positive = x.abs() + 0.5;
        let flags = x.gt(0.25);
        let whole = x.convert(DType::S32);
        let bits = x.bitcast_convert(DType::U32);
        vec![
            x + 1.0,
            x - positive,
            x * x,
            x / positive,
            x.max(0.0),
            x.min(positive),
            positive.pow(graph.full(&Shape::new(DType::F32, [2, 6, 6, 4]), 1.5)),
            positive.log(),
            positive.rsqrt(),
            positive.sqrt(),
            x.exp(),
            x.tanh(),
            x.logistic(),
            -x,
            x.sign(),
            x.floor(),
            flags.select(x, positive),
            flags,
            whole,
            bits,
            bits.shift_right(graph.full(&Shape::new(DType::U32, [2, 6, 6, 4]), 3.0)),
            whole.convert(DType::F64) + graph.iota(DType::F64, &[2, 6, 6, 4], 2),
            x.convert(DType::Bf16).convert(DType::F32),
        ]
    });
}

#[test]
fn shapes_and_places() {
    same(|graph, x, _| {
        let pad = |low, high, interior| PadDim {
            low,
            high,
            interior,
        };
        let whole = Literal::new(&[2, 2], &[1i64, -2, 3, i64::MAX]);
        let small = Literal::new(&[3], &[true, true, true]);
        let at = [1, 2, 0, 3].map(|i| graph.scalar(i));
        vec![
            x.reshape(&[12, 24]),
            x.transpose(&[3, 0, 2, 1]),
            x.slice_dim(1, 2, 5),
            x.pad(
                0.5,
                &[pad(0, 1, 0), pad(1, 0, 1), pad(-1, 2, 0), pad(0, 0, 0)],
            ),
            x.reverse(&[1, 3]),
            graph.concatenate(&[x, x], 2),
            x.dynamic_slice(&at, &[1, 2, 3, 1]),
            x.dynamic_update_slice(x.slice_dim(0, 0, 1), &at),
            graph.constant(whole),
            graph.constant(small),
            graph.scalar(0.1f32).broadcast_in_dim(&[3, 2], &[]),
        ]
    });
}

#[test]
fn reductions_products_and_windows() {
    same(|_, x, k| {
        let window = |size, stride, low, high| WindowDim::new(size, stride, low, high);
        let pool = [
            window(1, 1, 0, 0),
            window(3, 2, 0, 1),
            window(2, 1, 1, 0),
            window(1, 1, 0, 0),
        ];
        let strided = Conv::nhwc(vec![window(3, 2, 1, 1), window(3, 1, 0, 2)]);
        let mut dilated = Conv::nhwc(vec![window(3, 1, 2, 2); 2]);
        dilated.window[0].base_dilation = 2;
        dilated.window[1].window_dilation = 2;
        let rows = x.reshape(&[12, 24]);
        vec![
            x.sum(&[1, 2]),
            x.mean(&[0, 1, 2, 3]),
            x.reduce(Monoid::Maximum, &[3]),
            x.reduce(Monoid::Minimum, &[0, 2]),
            x.gt(0.0).reduce(Monoid::And, &[0]),
            x.reduce_window(Monoid::Maximum, &pool),
            x.reduce_window(Monoid::Add, &pool),
            x.convolve(k, strided),
            x.convolve(k, dilated),
            rows.matmul(rows.transpose(&[1, 0])),
        ]
    });
}

#[test]
fn what_is_not_written_is_named() {
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [4]));
    let y = {
        let _scope = graph.scope("loop");
        graph.while_loop(
            &[x],
            |_, s| s[0].sum(&[0]).lt(10.0),
            |_, s| vec![s[0] + 1.0],
        )[0]
    };
    let module = graph.finish("looping", &[y]).expect("a module");
    let error = module.to_stablehlo(&[]).expect_err("a loop").to_string();
    assert!(
        error.contains("while") && error.contains("StableHLO"),
        "{error}"
    );
}
