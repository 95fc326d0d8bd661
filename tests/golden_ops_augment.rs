//! Image operations against the original's numbers: every augmentation kind of `ops.json`, with the tolerances of its README.

mod common;
mod golden_support;

use serde_json::Value as Json;

use golden_support::{Expected, Report, flag, id, integer, number, tensor, uniform, word};
use simclr::augment::{
    Augmentation, Brightness, ColourDraws, Crop, Factors, Key, Order, ResizeKernel, ViewDraws,
    blur, blur_half, brightness_additive, brightness_multiplicative, centre_crop, contrast,
    crop_and_resize, crop_geometry, draws::Draws, evaluation_view, grey, hue, jitter, resize,
    sample_crop, saturation, to_float,
};
use simclr::hlo::{DType, Graph, Literal, Op, Precision, Shape, Value};

/// Many cases in one module: one compilation for a whole kind.
struct Bench<'g> {
    graph: &'g Graph,
    arguments: Vec<Literal>,
    outputs: Vec<Value<'g>>,
}

impl<'g> Bench<'g> {
    fn new(graph: &'g Graph) -> Self {
        Bench {
            graph,
            arguments: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// One image `[H, W, 3]` (or a batch of them) as an argument `[n, H, W, 3]`.
    fn image(&mut self, value: &Json, dtype: DType) -> Value<'g> {
        let found = tensor(value);
        let mut dims = found.dims.clone();
        if dims.len() == 3 {
            dims.insert(0, 1);
        }
        let values: Vec<f64> = found.wide();
        self.arguments
            .push(Literal::from_f64s(dtype, &dims, &values));
        let name = format!("x{}", self.arguments.len());
        self.graph.parameter(name, Shape::new(dtype, dims))
    }

    /// One number per image, for one image.
    fn factor(&self, value: f64) -> Value<'g> {
        self.graph.constant(Literal::new(&[1], &[value as f32]))
    }

    fn whole(&self, value: i64) -> Value<'g> {
        self.graph.constant(Literal::new(&[1], &[value as i32]))
    }

    fn run(self) -> Vec<Literal> {
        let module = self
            .graph
            .finish("golden", &self.outputs)
            .expect("the graph");
        common::run(&module, &self.arguments)
    }
}

/// Builds all cases of a kind, runs them at once, compares `expect[field]` elementwise.
fn check(
    kind: &str,
    field: &str,
    tolerance: f64,
    build: impl for<'g> Fn(&mut Bench<'g>, &Json) -> Value<'g>,
) {
    let cases = golden_support::ops(kind);
    if cases.is_empty() {
        return;
    }
    let graph = Graph::new();
    let mut bench = Bench::new(&graph);
    for case in &cases {
        let output = build(&mut bench, case);
        bench.outputs.push(output);
    }
    let found = bench.run();
    let mut report = Report::default();
    for (case, found) in cases.iter().zip(found) {
        let expected = Expected(&case["expect"][field]);
        report.check(
            || id(case).into(),
            expected.largest_error(&found.to_f64s()),
            tolerance,
        );
    }
    report.finish(kind);
}

fn kernel(name: &str) -> ResizeKernel {
    match name {
        "v1_legacy" | "v1" => ResizeKernel::V1Legacy,
        "v2_half_pixel" | "v2" => ResizeKernel::V2HalfPixel,
        other => panic!("kernel {other}"),
    }
}

#[test]
fn golden_resize() {
    check("resize", "image", 2e-6, |bench, case| {
        let p = &case["params"];
        let x = bench.image(&case["inputs"]["image"], DType::F32);
        resize(
            x,
            integer(&p["height"]),
            integer(&p["width"]),
            kernel(word(&p["kernel"])),
        )
    });
}

fn crop<'g>(bench: &Bench<'g>, value: &Json) -> Crop<'g> {
    Crop {
        top: bench.whole(integer(&value["y"])),
        left: bench.whole(integer(&value["x"])),
        height: bench.whole(integer(&value["height"])),
        width: bench.whole(integer(&value["width"])),
    }
}

#[test]
fn golden_crop_resize() {
    check("crop_resize", "image", 2e-6, |bench, case| {
        let p = &case["params"];
        let x = bench.image(&case["inputs"]["image_u8"], DType::U8);
        let crop = crop(bench, &p["crop"]);
        let kernel = kernel(word(&p["kernel"]));
        let size = [integer(&p["height"]), integer(&p["width"])];
        crop_and_resize(to_float(x), &crop, None, size, kernel)
    });
}

#[test]
fn golden_eval_preprocess() {
    check("eval_preprocess", "image", 2e-6, |bench, case| {
        let p = &case["params"];
        let x = to_float(bench.image(&case["inputs"]["image_u8"], DType::U8));
        if !flag(&p["test_crop"]) {
            return x.clamp(0.0, 1.0);
        }
        evaluation_view(
            x,
            integer(&p["height"]),
            integer(&p["width"]),
            kernel(word(&p["impl"])),
        )
    });
}

#[test]
fn golden_center_crop_geometry() {
    for case in golden_support::ops("center_crop_geometry") {
        for row in golden_support::list(&case["expect"]["rows"]) {
            let n: Vec<i64> = golden_support::numbers(row)
                .iter()
                .map(|&x| x as i64)
                .collect();
            let [y, x, height, width] = centre_crop(n[0], n[1], n[2], n[3]);
            assert_eq!(
                [height, width, y, x],
                n[4..8],
                "image {}x{} to {}x{}",
                n[0],
                n[1],
                n[2],
                n[3]
            );
        }
    }
}

#[test]
fn golden_single_colour_operations() {
    type Op = for<'g> fn(Value<'g>, Value<'g>) -> Value<'g>;
    let kinds: [(&str, &str, f64, Op); 5] = [
        ("brightness_v1", "delta", 1e-6, brightness_additive),
        ("brightness_v2", "factor", 1e-6, brightness_multiplicative),
        ("contrast", "factor", 2e-6, contrast),
        ("saturation", "factor", 5e-6, saturation),
        ("hue", "delta", 5e-6, hue),
    ];
    for (kind, parameter, tolerance, op) in kinds {
        check(kind, "image", tolerance, |bench, case| {
            let x = bench.image(&case["inputs"]["image"], DType::F32);
            op(x, bench.factor(number(&case["params"][parameter])))
        });
    }
    check("grayscale", "image", 1e-6, |bench, case| {
        grey(bench.image(&case["inputs"]["image"], DType::F32))
    });
}

fn factors<'g>(bench: &Bench<'g>, p: &Json) -> (Order<'g>, Factors<'g>) {
    let factors = Factors {
        brightness: bench.factor(number(&p["brightness"])),
        contrast: bench.factor(number(&p["contrast"])),
        saturation: bench.factor(number(&p["saturation"])),
        hue: bench.factor(number(&p["hue"])),
    };
    let order = [0, 1, 2, 3].map(|i| bench.whole(integer(&p["order"][i])));
    (order, factors)
}

#[test]
fn golden_color_jitter() {
    check("color_jitter", "image", 2e-5, |bench, case| {
        let x = bench.image(&case["inputs"]["image"], DType::F32);
        let p = &case["params"];
        let (order, factors) = factors(bench, p);
        let brightness = match word(&p["impl"]) {
            "simclrv1" => Brightness::Additive,
            _ => Brightness::Multiplicative,
        };
        jitter(x, &order, &factors, brightness)
    });
}

#[test]
fn golden_gaussian_blur() {
    check("gaussian_blur", "image", 2e-6, |bench, case| {
        let x = bench.image(&case["inputs"]["image"], DType::F32);
        let p = &case["params"];
        let radius = integer(&p["image_size"]) / 10 / 2;
        assert_eq!(radius, integer(&p["radius"]));
        blur(x, bench.factor(number(&p["sigma"])), radius)
    });
}

#[test]
fn golden_batch_random_blur() {
    check("batch_random_blur", "images", 2e-6, |bench, case| {
        let p = &case["params"];
        let x = bench.image(&case["inputs"]["images"], DType::F32);
        let draws: Vec<f32> = golden_support::numbers(&p["uniform_draws"])
            .iter()
            .map(|&u| u as f32)
            .collect();
        let draws = bench
            .graph
            .constant(Literal::new(&[draws.len() as i64], &draws));
        let sigma = bench.graph.scalar(number(&p["sigma"]) as f32);
        let sigma = sigma.broadcast_scalar(&draws.dims());
        blur_half(x, sigma, draws.lt(0.5), integer(&p["image_size"]) as usize)
    });
}

/// The program's own pipeline, with the golden case's draws in place of its own.
#[test]
fn golden_train_preprocess() {
    check("train_preprocess", "image", 3e-5, |bench, case| {
        let p = &case["params"];
        let x = bench.image(&case["inputs"]["image_u8"], DType::U8);
        let (order, factors) = factors(bench, p);
        let event = |key: &str| bench.graph.constant(Literal::new(&[1], &[flag(&p[key])]));
        let drawn = ViewDraws {
            crop: crop(bench, &p["crop"]),
            flip: event("flip"),
            colour: ColourDraws {
                jittered: event("jitter_applied"),
                order,
                factors,
                grey: event("grayscale_applied"),
            },
            blurred: bench.graph.constant(Literal::new(&[1], &[false])),
            sigma: bench.factor(1.0),
        };
        let augmentation = Augmentation {
            image_size: integer(&p["image_size"]) as usize,
            color_jitter_strength: 0.5,
            use_blur: false,
            brightness: Brightness::Multiplicative,
            resize: kernel(word(&p["impl"])),
            drop_colour_at_zero_strength: false,
        };
        augmentation.view(x, &drawn)
    });
}

/// Draws of our sampler against the original's: two-sample chi-square of the histograms, and the invariants.
#[test]
fn golden_crop_sampler() {
    let mut report = Report::default();
    for case in golden_support::ops("crop_sampler") {
        let p = &case["params"];
        let (height, width) = (integer(&p["image_height"]), integer(&p["image_width"]));
        let n = integer(&p["draws"]);
        let graph = Graph::new();
        let key = Key {
            seed: [graph.scalar(11u32), graph.scalar(7u32)],
            step: graph.scalar(3u32),
        };
        let draws = Draws::new(
            key,
            graph.iota(DType::U32, &[n], 0),
            graph.zeros(&Shape::new(DType::U32, [n])),
        );
        let aspect = number(&p["output_aspect"]) as f32;
        let crop = sample_crop(&draws, height, width, aspect);
        let outputs = [crop.top, crop.left, crop.height, crop.width];
        let module = graph.finish("sampler", &outputs).expect("the graph");
        let found: Vec<Vec<i32>> = common::run(&module, &[])
            .iter()
            .map(|values| values.to_vec())
            .collect();
        let expect = &case["expect"];
        let total = (height * width) as f64;
        let mut areas = Vec::new();
        let mut aspects = Vec::new();
        let [tops, lefts, heights, widths] = [0, 1, 2, 3].map(|k| found[k].iter());
        for (((&y, &x), &h), &w) in tops.zip(lefts).zip(heights).zip(widths) {
            let [y, x, h, w] = [y, x, h, w].map(i64::from);
            let area = (h * w) as f64 / total;
            areas.push(area);
            aspects.push(w as f64 / h as f64);
            let whole = h == height && w == width;
            report.expect(
                || format!("{}: area {area}", id(&case)),
                area >= 0.1 - 1e-6 || whole,
            );
            // The last legal offset is never drawn.
            let inside = |offset: i64, size: i64, full: i64| {
                offset == 0 || offset >= 0 && offset < full - size
            };
            let legal = inside(y, h, height) && inside(x, w, width);
            report.expect(|| format!("{}: {y},{x} {h}x{w}", id(&case)), legal);
        }
        for (name, values) in [("area_hist", &areas), ("aspect_hist", &aspects)] {
            let hist = &expect[name];
            let (low, high) = (number(&hist["lo"]), number(&hist["hi"]));
            let theirs = golden_support::numbers(&hist["counts"]);
            let mut ours = vec![0.0; theirs.len()];
            for &value in values.iter() {
                let bin = ((value - low) / (high - low) * ours.len() as f64) as i64;
                let last = ours.len() as i64 - 1;
                ours[bin.clamp(0, last) as usize] += 1.0;
            }
            report.check(
                || format!("{} {name}", id(&case)),
                chi_square(&ours, &theirs),
                5.0,
            );
        }
        for (name, column) in [("height_hist", 2), ("width_hist", 3)] {
            let hist = &expect[name];
            if hist["values"].is_null() {
                continue; // tall images have these in bins of several values
            }
            let values = golden_support::numbers(&hist["values"]);
            let theirs = golden_support::numbers(&hist["counts"]);
            let mut ours = vec![0.0; theirs.len()];
            for &value in &found[column] {
                match values.iter().position(|&v| v == f64::from(value)) {
                    Some(bin) => ours[bin] += 1.0,
                    None => report.expect(|| format!("{} {name}: {value}", id(&case)), false),
                }
            }
            report.check(
                || format!("{} {name}", id(&case)),
                chi_square(&ours, &theirs),
                5.0,
            );
        }
        let whole = (0..n as usize)
            .filter(|&i| i64::from(found[2][i]) == height && i64::from(found[3][i]) == width)
            .count();
        // Nearly all draws have room: a count on either side has the deviation of a binomial of `n`.
        let alike =
            |ours: f64, theirs: f64| (ours - theirs).abs() <= 5.0 * (ours + theirs).sqrt().max(1.0);
        let theirs = number(&expect["whole_image_count"]);
        report.expect(
            || format!("{}: {whole} whole images, theirs {theirs}", id(&case)),
            alike(whole as f64, theirs),
        );
        for (name, offset, size, full) in [("offset_y", 0, 2, height), ("offset_x", 1, 3, width)] {
            let expect = &expect[name];
            // (offset, room) of the crops that leave some.
            let roomy: Vec<(i64, i64)> = (found[offset].iter().zip(&found[size]))
                .map(|(&at, &size)| (i64::from(at), full - i64::from(size)))
                .filter(|&(_, room)| room > 0)
                .collect();
            let mut count = |key: &str, of: &dyn Fn(i64, i64) -> bool| {
                let ours = roomy.iter().filter(|&&(at, room)| of(at, room)).count() as f64;
                let theirs = number(&expect[key]);
                report.expect(
                    || format!("{} {name} {key}: {ours}, theirs {theirs}", id(&case)),
                    alike(ours, theirs),
                );
            };
            count("crops_with_room", &|_, _| true);
            count("count_offset_zero", &|at, _| at == 0);
            count("count_offset_equals_room", &|at, room| at == room);
            count("count_offset_equals_room_minus_1", &|at, room| {
                at == room - 1
            });
            let hist = &expect["rel_hist"];
            let theirs = golden_support::numbers(&hist["counts"]);
            let mut ours = vec![0.0; theirs.len()];
            for &(at, room) in &roomy {
                ours[bin(at as f64 / room as f64, hist)] += 1.0;
            }
            report.check(
                || format!("{} {name} rel_hist", id(&case)),
                chi_square(&ours, &theirs),
                5.0,
            );
        }
    }
    report.finish("crop_sampler");
}

/// The bin of a golden histogram that holds a value. Edges are the multiples of the bin's width as f64 has them, for offsets that are
/// fractions of a small room lie on edges.
fn bin(value: f64, hist: &Json) -> usize {
    let (low, high) = (number(&hist["lo"]), number(&hist["hi"]));
    let bins = golden_support::numbers(&hist["counts"]).len();
    let width = (high - low) / bins as f64;
    (1..bins)
        .filter(|&k| value >= low + k as f64 * width)
        .count()
}

/// Standardised two-sample chi-square, bins of fewer than 20 pooled.
fn chi_square(ours: &[f64], theirs: &[f64]) -> f64 {
    let (mut sum, mut bins) = (0.0, 0.0);
    let (mut a, mut b) = (0.0, 0.0);
    for (x, y) in ours.iter().zip(theirs) {
        a += x;
        b += y;
        if a + b >= 20.0 {
            sum += (a - b) * (a - b) / (a + b);
            bins += 1.0;
            (a, b) = (0.0, 0.0);
        }
    }
    let df = f64::max(bins - 1.0, 1.0);
    (sum - df) / (2.0 * df).sqrt()
}

/// The table of reference §13.2: lowest and highest height for given aspects.
#[test]
fn crop_geometry_is_the_originals() {
    let table: [(i64, i64, [[i32; 2]; 4]); 5] = [
        (32, 32, [[10, 32], [9, 32], [8, 25], [8, 24]]),
        (375, 500, [[141, 375], [122, 375], [110, 375], [106, 375]]),
        (500, 375, [[141, 500], [122, 375], [110, 300], [106, 281]]),
        (224, 224, [[73, 224], [63, 224], [57, 179], [55, 168]]),
        (96, 64, [[26, 85], [22, 64], [20, 51], [19, 48]]),
    ];
    for (height, width, rows) in table {
        let graph = Graph::new();
        let aspects = graph.constant(Literal::new(&[4], &[0.75f32, 1.0, 1.25, 4.0 / 3.0]));
        let (low, high) = crop_geometry(aspects, height, width);
        let module = graph.finish("geometry", &[low, high]).expect("the graph");
        let found = common::run(&module, &[]);
        let expected = |k: usize| rows.iter().map(|row| row[k]).collect::<Vec<_>>();
        assert_eq!(
            found[0].to_vec::<i32>(),
            expected(0),
            "lowest of {height}x{width}"
        );
        assert_eq!(
            found[1].to_vec::<i32>(),
            expected(1),
            "highest of {height}x{width}"
        );
    }
}

/// The hash of reference §13.3 as a number in [0, 1).
fn hashed(i: u32, j: u32) -> f32 {
    let mut x = i.wrapping_add(j.wrapping_mul(1_000_003));
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    (f64::from(x ^ (x >> 16)) / 4_294_967_296.0) as f32
}

/// The vectors of reference §13.3: image operations on a 5 × 7 image, first row or single pixels, and sums.
#[test]
fn image_operations_have_the_vectors_of_the_reference() {
    let image: Vec<f32> = (0..105).map(|i| hashed(i, 500)).collect();
    assert!((image[0] - 0.477_505_8).abs() < 1e-7);
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [1, 5, 7, 3]));
    let factor = |value: f32| graph.constant(Literal::new(&[1], &[value]));
    let (v1, v2) = (ResizeKernel::V1Legacy, ResizeKernel::V2HalfPixel);
    // Output, sum of all if the reference gives it, and (row, column, channel) with the expected value.
    type Case<'g> = (Value<'g>, Option<f64>, Vec<([usize; 3], f64)>);
    let row = |values: &[f64]| -> Vec<([usize; 3], f64)> {
        let places = (0..).map(|column| [0, column, 0]);
        places.zip(values.iter().copied()).collect()
    };
    let pixels = |values: &[[f64; 3]]| -> Vec<([usize; 3], f64)> {
        let mut list = Vec::new();
        for (column, pixel) in values.iter().enumerate() {
            list.extend((0..3).map(|c| ([0, column, c], pixel[c])));
        }
        list
    };
    let mut blurred = pixels(&[[0.2144674, 0.4258389, 0.3209651]]);
    blurred.extend([
        ([2, 3, 0], 0.7135831),
        ([2, 3, 1], 0.6874142),
        ([2, 3, 2], 0.3861662),
    ]);
    let cases: Vec<Case> = vec![
        (
            resize(x, 3, 4, v1),
            Some(18.610773),
            row(&[0.4775058, 0.4282998, 0.1178447, 0.9462091]),
        ),
        (
            resize(x, 3, 4, v2),
            Some(19.768241),
            row(&[0.3037047, 0.5235108, 0.3689158, 0.8381026]),
        ),
        (
            resize(x, 8, 10, v1),
            Some(125.82188),
            row(&[
                0.4775058, 0.0996092, 0.1956242, 0.5119082, 0.1999605, 0.1178447, 0.3946439,
                0.8102233, 0.9643346, 0.9710055,
            ]),
        ),
        (
            resize(x, 8, 10, v2),
            Some(124.806795),
            row(&[
                0.5287316, 0.1924218, 0.0667359, 0.5014796, 0.2365426, 0.0898360, 0.2704293,
                0.7523702, 0.9762431, 0.9981675,
            ]),
        ),
        (
            hue(x, factor(0.1)),
            None,
            pixels(&[
                [0.4775058, 0.7102941, 0.6899406],
                [0.0278875, 0.4457629, 0.8342292],
            ]),
        ),
        (
            hue(x, factor(-0.15)),
            None,
            pixels(&[
                [0.6142535, 0.7102941, 0.4775058],
                [0.0425921, 0.8342292, 0.0278875],
            ]),
        ),
        (
            saturation(x, factor(0.3)),
            None,
            pixels(&[
                [0.6404576, 0.7102941, 0.6622861],
                [0.5923267, 0.8342292, 0.8056276],
            ]),
        ),
        (
            saturation(x, factor(1.7)),
            None,
            pixels(&[
                [0.3145541, 0.7102941, 0.4382491],
                [0.0, 0.8342292, 0.7355933],
            ]),
        ),
        (
            contrast(x, factor(0.4)),
            None,
            pixels(&[
                [0.5170203, 0.6173560, 0.4968589],
                [0.3371730, 0.6669301, 0.5723081],
            ]),
        ),
        (
            contrast(x, factor(1.6)),
            None,
            pixels(&[
                [0.4379914, 0.8032321, 0.6036763],
                [-0.2813979, 1.0015284, 0.9054731],
            ]),
        ),
        (grey(x), None, pixels(&[[0.6223996; 3], [0.5822617; 3]])),
        (blur(x, factor(0.7), 1), Some(46.866129), blurred),
    ];
    let outputs: Vec<Value> = cases.iter().map(|case| case.0).collect();
    let shapes: Vec<Vec<i64>> = outputs.iter().map(|value| value.dims()).collect();
    let module = graph.finish("vectors", &outputs).expect("the graph");
    let found = common::run(&module, &[Literal::new(&[1, 5, 7, 3], &image)]);
    for (number, (_, sum, values)) in cases.iter().enumerate() {
        let numbers = found[number].to_f64s();
        let width = shapes[number][2] as usize;
        for &([row, column, channel], expected) in values {
            let value = numbers[(row * width + column) * 3 + channel];
            assert!(
                (value - expected).abs() < 5e-7,
                "case {number} at {row},{column},{channel}: {value}, expected {expected}"
            );
        }
        if let Some(sum) = sum {
            let total: f64 = numbers.iter().sum();
            assert!(
                (total - sum).abs() < 2e-5,
                "case {number}: sum {total}, expected {sum}"
            );
        }
    }
}

/// On devices that shorten the factors of a product, resizing must ask for all of f32.
#[test]
fn resizing_asks_for_precise_products() {
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [1, 9, 9, 3]));
    let small = resize(x, 4, 4, ResizeKernel::V2HalfPixel);
    let module = graph.finish("resize", &[small]).expect("the graph");
    let precisions: Vec<Precision> = module
        .entry
        .nodes
        .iter()
        .filter_map(|node| match &node.op {
            Op::Dot(dims) => Some(dims.precision),
            _ => None,
        })
        .collect();
    assert_eq!(precisions, [Precision::Highest; 2]);
}

#[test]
fn golden_generators_agree_with_their_own_formula() {
    // The reader's generator is the one the draws of the golden files came from; a wrong one would make every case wrong alike.
    assert_eq!(uniform(0, 1) as f32, 0.007_765_114_3);
}
