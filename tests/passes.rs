//! Target passes change no result beyond rounding: each alone, on random convolution graphs and on a ResNet step.

mod common;

use simclr::grad::gradients;
use simclr::hlo::passes::{ALL, Pass, Selection};
use simclr::hlo::{
    Computation, Conv, DType, Graph, Literal, Module, Monoid, Op, Shape, Type, WindowDim,
};
use simclr::loss::nt_xent;
use simclr::model::Network;
use simclr::nn::{Builder, Settings, initial_value};
use simclr::pjrt::Client;
use simclr::random::threefry2x32;

fn random(seed: u32, count: usize) -> Vec<f64> {
    (0..count)
        .map(|i| f64::from(threefry2x32([seed, 3], [i as u32, 0])[0]) / 2_147_483_648.0 - 1.0)
        .collect()
}

/// All but those whose calls know f32 alone, which `tests/loops` is for.
fn of_any_type() -> impl Iterator<Item = &'static Pass> {
    ALL.iter().filter(|pass| !pass.loops)
}

/// Runs a module exactly as it is.
fn plain(module: &Module, arguments: &[Literal]) -> Vec<Vec<f64>> {
    let client = Client::cpu(common::plugin(), 1).unwrap();
    let engine = simclr::engine::Engine::new(client, &Selection::Only(Vec::new()));
    let program = engine.compile(module).expect("the module compiles");
    let results = program
        .run(&engine, &[arguments.to_vec()])
        .expect("the module runs");
    results[0].iter().map(Literal::to_f64s).collect()
}

fn arguments(module: &Module) -> Vec<Literal> {
    module
        .parameters()
        .iter()
        .enumerate()
        .map(|(i, (_, s))| Literal::from_f64s(s.dtype, &s.dims, &random(i as u32, s.elements())))
        .collect()
}

fn compare(
    title: &str,
    passes: impl Iterator<Item = &'static Pass>,
    module: &Module,
    arguments: &[Literal],
    tolerance: f64,
) {
    let expected = plain(module, arguments);
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    // A gradient that is zero but for rounding is held against the largest one.
    let largest = expected.iter().map(|v| norm(v)).fold(0.0, f64::max);
    for pass in passes {
        let rewritten = (pass.run)(module).expect("the pass");
        assert_eq!(
            rewritten.results(),
            module.results(),
            "{title}, {}",
            pass.name
        );
        for (i, (a, b)) in plain(&rewritten, arguments)
            .iter()
            .zip(&expected)
            .enumerate()
        {
            let apart: Vec<f64> = a.iter().zip(b).map(|(x, y)| x - y).collect();
            let error = norm(&apart) / norm(b).max(1e-6 * largest);
            assert!(
                error <= tolerance,
                "{title}, {}, result {i}: {error:.1e}",
                pass.name
            );
        }
    }
}

/// Convolutions with their gradients in f64: sizes, strides, paddings, channels at random.
fn random_graph(seed: u32) -> Module {
    let draw =
        |i: u32, below: i64| i64::from(threefry2x32([seed, i], [0, 0])[0]) * below / (1i64 << 32);
    let graph = Graph::new();
    let (height, width) = (5 + draw(0, 5), 5 + draw(1, 5));
    let channels = 1 + draw(2, 4);
    let x = graph.parameter("x", Shape::new(DType::F64, [2, height, width, channels]));
    let mut inputs = vec![x];
    let mut y = x;
    for layer in 0..3 {
        let i = 10 * (layer + 1);
        let size = [1, 1, 3, 2][draw(i, 4) as usize];
        let stride = 1 + draw(i + 1, 2);
        // A window always fits the map.
        let size = if y.dim(1).min(y.dim(2)) < size {
            1
        } else {
            size
        };
        let (low, high) = if size == 1 {
            (0, 0)
        } else {
            (draw(i + 2, 2), draw(i + 3, 3))
        };
        let outputs = 1 + draw(i + 4, 5);
        let shape = Shape::new(DType::F64, [size, size, y.dim(3), outputs]);
        let kernel = graph.parameter("w", shape);
        inputs.push(kernel);
        let window = WindowDim::new(size, stride, low, high);
        y = y.convolve(kernel, Conv::nhwc(vec![window; 2])).tanh();
    }
    // A map smaller than its window, with one side padded more, and with cells or taps spread.
    let tiny = graph.parameter("tiny", Shape::new(DType::F64, [2, 2, 1 + draw(50, 2), 3]));
    let around = graph.parameter("around", Shape::new(DType::F64, [3, 3, 3, 2]));
    inputs.extend([tiny, around]);
    let spread = |size: i64| WindowDim {
        base_dilation: 1 + draw(51, 2),
        window_dilation: 1 + draw(52, 2),
        ..WindowDim::new(3, 1, 2, size)
    };
    let window = vec![spread(2 + draw(53, 2)), spread(3)];
    let z = tiny.convolve(around, Conv::nhwc(window)).tanh();
    let weights = graph.parameter("weights", Shape::new(DType::F64, [36, 64]));
    // Normalised maps, large enough for what is done to large ones only; many images or few.
    let dims = [[8, 16, 16, 8], [3, 32, 32, 8], [8, 64, 64, 8]][draw(60, 3) as usize];
    let large = graph.parameter("large", Shape::new(DType::F64, dims));
    let behind = graph.parameter("behind", Shape::new(DType::F64, [3, 3, 8, 2]));
    inputs.extend([large, behind]);
    let centred = large - large.mean(&[0, 1, 2]).broadcast_trailing(&dims);
    let window = vec![WindowDim::new(3, 1, 1, 1); 2];
    let w = centred.tanh().convolve(behind, Conv::nhwc(window)) * 0.1;
    // Windows that overlap or leave pixels out.
    let steps = graph.parameter("steps", Shape::new(DType::F64, [2, 9, 8, 3]));
    inputs.push(steps);
    let size = 2 + draw(70, 2);
    let window =
        |i: u32| WindowDim::new(size, 1 + draw(i, 3), draw(i + 1, size), draw(i + 2, size));
    let windows = [
        WindowDim::identity(),
        window(71),
        window(75),
        WindowDim::identity(),
    ];
    let p = steps.reduce_window(Monoid::Maximum, &windows).tanh();
    let p = p * graph.parameter("slopes", p.shape());
    // A window over pictures.
    let picture = graph.parameter("picture", Shape::new(DType::F64, [2, 16, 13, 3]));
    let stem = graph.parameter("stem", Shape::new(DType::F64, [7, 7, 3, 4]));
    inputs.extend([picture, stem]);
    let window = |i: u32| WindowDim::new(7, 2 + draw(i, 2), draw(i + 1, 7), draw(i + 2, 7));
    let v = picture.convolve(stem, Conv::nhwc(vec![window(81), window(85)]));
    let v = (v * 0.1).tanh();
    let loss = (w * w).sum_all()
        + (y * y).sum_all()
        + (z * z).sum_all()
        + (weights * weights).sum_all()
        + p.sum_all()
        + (v * v).sum_all();
    let mut outputs = vec![loss];
    for (gradient, input) in gradients(loss, &inputs).into_iter().zip(&inputs) {
        outputs.push(gradient.unwrap_or_else(|| graph.zeros(&input.shape())));
    }
    graph.finish("random", &outputs).expect("the graph")
}

#[test]
fn passes_agree_on_random_convolution_graphs() {
    for seed in 0..12 {
        let module = random_graph(seed);
        compare(
            &format!("graph {seed}"),
            of_any_type(),
            &module,
            &arguments(&module),
            1e-12,
        );
    }
}

/// Loss and gradients of a network in f64 on images of such a side, inside a loop as in the training step; and arguments for it.
fn resnet_step(network: &Network, side: i64) -> (Module, Vec<Literal>) {
    let variables = network.variables().unwrap();
    let graph = Graph::new();
    let settings = Settings {
        dtype: DType::F64,
        activations: DType::F64,
        ..Settings::default()
    };
    let images = graph.parameter("images", Shape::new(DType::F64, [4, side, side, 3]));
    let mut init = vec![graph.scalar(0i32), images, graph.scalar(0.0f64)];
    for variable in &variables {
        let shape = Shape::new(DType::F64, variable.dims.clone());
        init.push(graph.parameter(&variable.name, shape));
    }
    let result = graph.while_loop(
        &init,
        |_, s| s[0].lt(1.0),
        |graph, s| {
            let values = s[3..].to_vec();
            let mut builder = Builder::with_values(graph, settings.clone(), values.clone());
            let z = network.forward(&mut builder, s[1]).z();
            let squares = values.iter().map(|v| (*v * *v).sum_all());
            let decay = squares.fold(graph.scalar(0.0f64), |sum, square| sum + square);
            let loss = nt_xent(z, 0.5, true, 1).loss + decay * 1e-4;
            let found = gradients(loss, &values);
            let mut next = vec![s[0] + 1.0, s[1], loss];
            next.extend(found.into_iter().zip(&values).map(|(g, v)| g.unwrap_or(*v)));
            next
        },
    );
    let module = graph.finish("step", &result[2..]).expect("the graph");
    let pixels = random(1, (4 * side * side * 3) as usize);
    let mut arguments = vec![Literal::new(&[4, side, side, 3], &pixels)];
    for (i, variable) in variables.iter().enumerate() {
        let mut values: Vec<f64> = initial_value(variable, i, 1)
            .into_iter()
            .map(f64::from)
            .collect();
        // The last scale of a block starts at zero, which would hide the block.
        values.iter_mut().for_each(|v| *v += 0.05);
        arguments.push(Literal::from_f64s(DType::F64, &variable.dims, &values));
    }
    (module, arguments)
}

fn narrow(resnet_depth: usize, image_size: usize) -> Network {
    Network {
        resnet_depth,
        width_multiplier: 0.125,
        image_size,
        num_proj_layers: 2,
        proj_out_dim: 16,
        ..Network::default()
    }
}

#[test]
fn passes_agree_on_the_resnet_step() {
    for depth in [18, 50] {
        let (module, arguments) = resnet_step(&narrow(depth, 32), 16);
        let title = format!("ResNet-{depth}");
        compare(&title, of_any_type(), &module, &arguments, 1e-8);
    }
}

/// Every operation of a module, those of its loops too.
fn operations(computation: &Computation, found: &mut Vec<(Op, Vec<i64>)>) {
    for node in &computation.nodes {
        let first = node
            .operands
            .first()
            .map(|id| &computation.nodes[id.index()].ty);
        let dims = first.map_or(Vec::new(), |ty| match ty {
            Type::Array(shape) => shape.dims.clone(),
            _ => Vec::new(),
        });
        found.push((node.op.clone(), dims));
        if let Op::While { body, .. } = &node.op {
            operations(body, found);
        }
    }
}

/// Stem and pool of networks for large images, of which the passes for GPUs leave nothing.
#[test]
fn passes_for_gpus_agree_on_stem_and_pool() {
    let (module, arguments) = resnet_step(&narrow(18, 64), 64);
    let of_gpus = || ALL.iter().filter(|pass| pass.platform == "cuda");
    compare("64 pixels", of_gpus(), &module, &arguments, 1e-8);
    let left = |module: &Module| {
        let mut found = Vec::new();
        operations(&module.entry, &mut found);
        let pools = found
            .iter()
            .filter(|(op, _)| matches!(op, Op::SelectAndScatter { .. }));
        // Forward, images have three channels behind their pixels; of the gradient of the stem's kernel, pixels are two apart.
        let stems = found.iter().filter(|(op, dims)| match op {
            Op::Convolution(conv) => {
                dims[3] == 3
                    && conv
                        .window
                        .iter()
                        .all(|w| w.stride == 2 || w.window_dilation == 2)
            }
            _ => false,
        });
        (stems.count(), pools.count())
    };
    assert_eq!(left(&module), (2, 1));
    let rewritten = of_gpus().fold(module, |module, pass| (pass.run)(&module).unwrap());
    assert_eq!(left(&rewritten), (0, 0));
}

/// Of equal pixels, each window takes the first, row by row: held against loops over the windows.
#[test]
fn of_equal_pixels_the_gradient_goes_to_the_first() {
    let pass = ALL.iter().find(|pass| pass.name == "pool-gradients");
    let run = pass.unwrap().run;
    let (height, width) = (9, 8);
    for (rows, columns) in [
        (WindowDim::new(3, 2, 0, 1), WindowDim::new(3, 2, 1, 1)),
        (WindowDim::new(3, 3, 1, 1), WindowDim::new(2, 1, 1, 0)),
        (WindowDim::new(2, 3, 0, 1), WindowDim::new(3, 1, 2, 2)),
    ] {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(DType::F64, [1, height, width, 1]));
        let windows = [WindowDim::identity(), rows, columns, WindowDim::identity()];
        let (down, across) = (rows.output(height), columns.output(width));
        let dy = graph.parameter("dy", Shape::new(DType::F64, [1, down, across, 1]));
        let module = graph.finish("pool", &[x.select_and_scatter(dy, &windows)]);
        let whole = |seed, count: i64| -> Vec<f64> {
            let values = random(seed, count as usize).into_iter();
            values.map(|value| (2.0 * value).round()).collect()
        };
        let (pixels, slopes) = (
            whole(1, height * width),
            random(2, (down * across) as usize),
        );
        let mut expected = vec![0.0; pixels.len()];
        for (window, slope) in slopes.iter().enumerate() {
            let (i, j) = (window as i64 / across, window as i64 % across);
            let mut first: Option<usize> = None;
            for y in i * rows.stride - rows.low..i * rows.stride - rows.low + rows.size {
                for x in j * columns.stride - columns.low
                    ..j * columns.stride - columns.low + columns.size
                {
                    if (0..height).contains(&y) && (0..width).contains(&x) {
                        let here = (y * width + x) as usize;
                        if first.is_none_or(|found| pixels[here] > pixels[found]) {
                            first = Some(here);
                        }
                    }
                }
            }
            expected[first.expect("a pixel")] += slope;
        }
        let arguments = [
            Literal::new(&[1, height, width, 1], &pixels),
            Literal::new(&[1, down, across, 1], &slopes),
        ];
        let found = plain(&run(&module.unwrap()).unwrap(), &arguments);
        let apart = found[0].iter().zip(&expected).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f64::max) < 1e-12, "{windows:?}");
    }
}

/// As the pass says of itself: the padding is −∞, too.
#[test]
fn a_window_of_nothing_gives_its_gradient_to_the_padding() {
    let pass = ALL.iter().find(|pass| pass.name == "pool-gradients");
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F64, [1, 2, 4, 1]));
    let window = WindowDim::new(2, 2, 0, 0);
    let across = WindowDim::new(2, 2, 1, 1);
    let windows = [WindowDim::identity(), window, across, WindowDim::identity()];
    let dy = graph.parameter("dy", Shape::new(DType::F64, [1, 1, 3, 1]));
    let module = graph.finish("pool", &[x.select_and_scatter(dy, &windows)]);
    let pixels = [
        f64::NEG_INFINITY,
        1.0,
        -1.0,
        2.0,
        f64::NEG_INFINITY,
        0.0,
        0.0,
        1.0,
    ];
    let arguments = [
        Literal::new(&[1, 2, 4, 1], &pixels),
        Literal::new(&[1, 1, 3, 1], &[1.0, 1.0, 1.0]),
    ];
    let found = plain(&(pass.unwrap().run)(&module.unwrap()).unwrap(), &arguments);
    assert_eq!(found[0], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
}

/// As on a GPU, in bf16, where the sum over windows must not be rounded at each of them.
#[test]
fn the_gradient_of_a_pool_in_bf16_is_rounded_once() {
    let pass = ALL.iter().find(|pass| pass.name == "pool-gradients");
    let run = pass.unwrap().run;
    let pooled = |dtype: DType| {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(dtype, [2, 9, 9, 3]));
        let window = WindowDim::new(3, 1, 1, 1);
        let windows = [WindowDim::identity(), window, window, WindowDim::identity()];
        let dy = graph.parameter("dy", Shape::new(dtype, [2, 9, 9, 3]));
        let module = graph.finish("pool", &[x.select_and_scatter(dy, &windows)]);
        run(&module.unwrap()).unwrap()
    };
    // Different pixels, and slopes that add up to what bf16 does not hold.
    let pixels: Vec<f64> = (0..486).map(|i| f64::from(i * 149 % 487 % 256)).collect();
    let slopes: Vec<f64> = (0..486).map(|i| f64::from(i * 89 % 251)).collect();
    let arguments = |dtype: DType| {
        [&pixels, &slopes].map(|values| Literal::from_f64s(dtype, &[2, 9, 9, 3], values))
    };
    let exact = plain(&pooled(DType::F64), &arguments(DType::F64));
    let found = plain(&pooled(DType::Bf16), &arguments(DType::Bf16));
    let rounded = Literal::from_f64s(DType::Bf16, &[2, 9, 9, 3], &exact[0]).to_f64s();
    assert_eq!(found[0], rounded);
    assert!(rounded != exact[0]);
}

/// Each pass does something on a step: a pass that matches nothing would agree with everything.
#[test]
fn passes_find_what_they_are_for() {
    let module = (0..12).map(random_graph);
    let count = |module: &Module| {
        let convolution = |op: &Op| matches!(op, Op::Convolution(_));
        module
            .entry
            .nodes
            .iter()
            .filter(|node| convolution(&node.op))
            .count()
    };
    let text = |module: &Module| module.to_string();
    let modules: Vec<Module> = module.collect();
    for pass in of_any_type() {
        let changed = modules
            .iter()
            .any(|m| text(&(pass.run)(m).unwrap()) != text(m));
        assert!(changed, "{} changes nothing", pass.name);
    }
    let pointwise = ALL
        .iter()
        .find(|pass| pass.name == "pointwise-convolutions")
        .unwrap();
    assert!(
        modules
            .iter()
            .any(|m| count(&(pointwise.run)(m).unwrap()) < count(m))
    );
}

/// Whether a pass leaves no convolution over whole maps, the gradient of a kernel.
#[test]
fn kernel_gradients_keep_to_the_shapes_that_were_measured() {
    let pass = ALL.iter().find(|pass| pass.name == "kernel-gradients");
    let run = pass.unwrap().run;
    let replaced = |inputs: i64, taps: i64, stride: i64| {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(DType::F32, [2, 16, 16, inputs]));
        let w = graph.parameter("w", Shape::new(DType::F32, [taps, taps, inputs, 4]));
        let window = WindowDim::new(taps, stride, taps / 2, taps / 2);
        let y = x.convolve(w, Conv::nhwc(vec![window; 2]));
        let gradient = gradients((y * y).sum_all(), &[w])[0].expect("a gradient");
        let module = graph.finish("one", &[gradient]).expect("the graph");
        let count = |module: &Module| {
            let nodes = module.entry.nodes.iter();
            nodes
                .filter(|node| matches!(node.op, Op::Convolution(_)))
                .count()
        };
        let rewritten = run(&module).expect("the pass");
        assert!(count(&rewritten) + 1 >= count(&module));
        count(&rewritten) < count(&module)
    };
    for stride in [1, 2] {
        assert!(replaced(1, 3, stride));
        assert!(replaced(32, 3, stride));
        assert!(replaced(32, 2, stride));
        assert!(!replaced(33, 3, stride), "more than 32 inputs");
        assert!(!replaced(3, 4, stride), "more than three taps");
        assert!(!replaced(3, 7, stride), "more than three taps");
        // 1×1 kernels are those of another pass.
        assert!(!replaced(3, 1, stride));
    }
}
