//! The random draws of the augmentation have the laws of reference §2.3, with fixed seeds: nothing here depends on luck.

mod common;

use simclr::augment::draws::{self, Draws};
use simclr::augment::{Augmentation, Brightness, Key, ResizeKernel, ViewDraws, sample_crop};
use simclr::hlo::{DType, Graph, Literal, Shape, Value};
use simclr::pjrt::Argument;
use simclr::random::{threefry2x32, threefry2x32_hlo};

/// Images of the large sample; there are twice as many views.
const N: usize = 20_000;

fn augmentation(strength: f64, brightness: Brightness) -> Augmentation {
    Augmentation {
        image_size: 32,
        color_jitter_strength: strength,
        use_blur: true,
        brightness,
        resize: ResizeKernel::V2HalfPixel,
        drop_colour_at_zero_strength: false,
    }
}

/// One column per drawn quantity, f64 `[2n]`: all first views, then all second ones.
struct Sample {
    columns: Vec<(&'static str, Vec<f64>)>,
}

impl Sample {
    fn draw(strength: f64, brightness: Brightness, seed: u32) -> Self {
        let graph = Graph::new();
        let key = Key {
            seed: [graph.scalar(seed), graph.scalar(77u32)],
            step: graph.scalar(5u32),
        };
        let example = graph.iota(DType::U32, &[N as i64], 0);
        let drawn =
            augmentation(strength, brightness).draw(&Draws::both_views(key, example), [32, 32]);
        let (names, values): (Vec<_>, Vec<_>) = columns(&drawn).into_iter().unzip();
        let module = graph.finish("draws", &values).expect("the graph");
        let found = common::run(&module, &[]);
        Sample {
            columns: names
                .into_iter()
                .zip(found.iter().map(Literal::to_f64s))
                .collect(),
        }
    }

    fn of(&self, name: &str) -> &[f64] {
        let (_, values) = self
            .columns
            .iter()
            .find(|(column, _)| *column == name)
            .expect("a column");
        values
    }
}

fn columns<'g>(drawn: &ViewDraws<'g>) -> Vec<(&'static str, Value<'g>)> {
    let colour = &drawn.colour;
    vec![
        ("flip", drawn.flip),
        ("jitter", colour.jittered),
        ("first", colour.order[0]),
        ("second", colour.order[1]),
        ("third", colour.order[2]),
        ("fourth", colour.order[3]),
        ("brightness", colour.factors.brightness),
        ("contrast", colour.factors.contrast),
        ("saturation", colour.factors.saturation),
        ("hue", colour.factors.hue),
        ("grey", colour.grey),
        ("blur", drawn.blurred),
        ("sigma", drawn.sigma),
        ("top", drawn.crop.top),
        ("left", drawn.crop.left),
        ("height", drawn.crop.height),
        ("width", drawn.crop.width),
    ]
}

/// Kolmogorov-Smirnov statistic against the uniform law on [low, high), times √n: above 1.95 with probability 0.001.
fn uniform_distance(values: &[f64], low: f64, high: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let distance = sorted
        .iter()
        .enumerate()
        .map(|(i, value)| {
            let expected = (value - low) / (high - low);
            let (below, above) = (i as f64 / n, (i + 1) as f64 / n);
            f64::max((expected - below).abs(), (above - expected).abs())
        })
        .fold(0.0, f64::max);
    distance * n.sqrt()
}

fn assert_uniform(name: &str, values: &[f64], low: f64, high: f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let rounding = 1e-6;
    assert!(
        least >= low - rounding && most <= high + rounding,
        "{name}: {least} to {most}, expected [{low}, {high})"
    );
    let distance = uniform_distance(values, low, high);
    assert!(
        distance < 1.95,
        "{name}: not uniform on [{low}, {high}): {distance}"
    );
}

fn assert_probability(name: &str, values: &[f64], probability: f64) {
    assert!(values.iter().all(|&v| v == 0.0 || v == 1.0), "{name}");
    let n = values.len() as f64;
    let share = values.iter().sum::<f64>() / n;
    let deviation = (probability * (1.0 - probability) / n).sqrt();
    assert!(
        (share - probability).abs() < 4.0 * deviation,
        "{name}: {share}, expected {probability} ± {deviation}"
    );
}

#[test]
fn events_have_their_probabilities() {
    let sample = Sample::draw(0.5, Brightness::Multiplicative, 1);
    for (name, probability) in [("flip", 0.5), ("jitter", 0.8), ("grey", 0.2), ("blur", 0.5)] {
        for (view, values) in sample.of(name).chunks(N).enumerate() {
            assert_probability(&format!("{name}, view {view}"), values, probability);
        }
    }
}

#[test]
fn factors_are_uniform_on_their_ranges() {
    for strength in [0.5, 1.0] {
        let sample = Sample::draw(strength, Brightness::Multiplicative, 2);
        let reach = 0.8 * strength;
        for name in ["brightness", "contrast", "saturation"] {
            assert_uniform(name, sample.of(name), 1.0 - reach, 1.0 + reach);
        }
        assert_uniform("hue", sample.of("hue"), -0.2 * strength, 0.2 * strength);
    }
    let additive = Sample::draw(1.0, Brightness::Additive, 2);
    assert_uniform("offset", additive.of("brightness"), -0.8, 0.8);
    // Above 1.25 only the brightness is defined, and its range starts at 0.
    let strong = Sample::draw(1.5, Brightness::Multiplicative, 2);
    assert_uniform("strong brightness", strong.of("brightness"), 0.0, 2.2);
    let none = Sample::draw(0.0, Brightness::Multiplicative, 2);
    for (name, only) in [
        ("brightness", 1.0),
        ("contrast", 1.0),
        ("saturation", 1.0),
        ("hue", 0.0),
    ] {
        assert!(none.of(name).iter().all(|&value| value == only), "{name}");
    }
}

#[test]
fn all_orders_are_equally_likely() {
    let sample = Sample::draw(0.5, Brightness::Multiplicative, 3);
    let places = ["first", "second", "third", "fourth"].map(|name| sample.of(name));
    let mut counts = std::collections::BTreeMap::new();
    for i in 0..2 * N {
        let order = places.map(|place| place[i] as i64);
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3], "each operation once");
        *counts.entry(order).or_insert(0.0) += 1.0;
    }
    assert_eq!(counts.len(), 24);
    let expected = 2.0 * N as f64 / 24.0;
    let chi: f64 = counts
        .values()
        .map(|count: &f64| (count - expected).powi(2) / expected)
        .sum();
    // 23 degrees of freedom: above 49.7 with probability 0.001.
    assert!(chi < 49.7, "{chi}");
}

/// Every two columns of a view, and every column of the first view with every one of the second, are uncorrelated; what is known to
/// hang together (the places of an order, the sides of a box) is left out; offsets are taken relative to their range.
#[test]
fn draws_and_views_are_independent() {
    let sample = Sample::draw(0.5, Brightness::Multiplicative, 4);
    let free = [
        "flip",
        "jitter",
        "first",
        "brightness",
        "contrast",
        "saturation",
        "hue",
        "grey",
        "blur",
        "height",
    ];
    let places = [("top", "height"), ("left", "width")]
        .map(|(offset, side)| (offset, places(sample.of(offset), sample.of(side))));
    let halves: Vec<(String, &[f64])> = free
        .iter()
        .map(|name| (*name, sample.of(name)))
        .chain(places.iter().map(|(name, values)| (*name, &values[..])))
        .flat_map(|(name, values)| {
            let (one, two) = values.split_at(N);
            [(format!("{name} 1"), one), (format!("{name} 2"), two)]
        })
        .collect();
    let bound = 4.5 / (N as f64).sqrt();
    for (i, (name, values)) in halves.iter().enumerate() {
        for (other, more) in &halves[i + 1..] {
            let found = correlation(values, more);
            assert!(found.abs() < bound, "{name} and {other}: {found}");
        }
        // Neighbours in the batch.
        let found = correlation(&values[1..], &values[..N - 1]);
        assert!(found.abs() < bound, "{name} and its neighbour: {found}");
    }
}

/// Offsets of crops of 32 × 32 pixels as fractions of what is left beside them: uniform on {0, …, room − 1}, they have the mean ½
/// whatever the crop's size, and so hang together with nothing.
fn places(offsets: &[f64], sides: &[f64]) -> Vec<f64> {
    (offsets.iter().zip(sides))
        .map(|(offset, side)| (offset + 0.5) / (32.0 - side).max(1.0))
        .collect()
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let (mx, my) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx) * (a - mx);
        yy += (b - my) * (b - my);
    }
    xy / (xx * yy).sqrt()
}

/// One width per view and step, uniform over steps.
#[test]
fn the_blurs_width_is_shared_by_a_view() {
    let graph = Graph::new();
    let step = graph.parameter("step", Shape::scalar(DType::U32));
    let key = Key {
        seed: [graph.scalar(9u32), graph.scalar(0u32)],
        step,
    };
    let example = graph.iota(DType::U32, &[3], 0);
    let drawn = augmentation(0.5, Brightness::Multiplicative)
        .draw(&Draws::both_views(key, example), [32, 32]);
    let module = graph.finish("sigma", &[drawn.sigma]).expect("the graph");
    let engine = common::engine(1);
    let program = engine.compile(&module).expect("a program");
    let mut all = Vec::new();
    for step in 0..500u32 {
        let step = engine
            .put(&Literal::scalar(step), &program.devices()[0])
            .expect("a buffer");
        let results = program
            .launch(vec![vec![Argument::Keep(&step)]])
            .expect("a launch");
        let sigma = program.read(0, &results[0]).expect("results")[0].to_f64s();
        let [a, b, c, d, e, f] = sigma[..] else {
            panic!("six views")
        };
        assert!(a == b && b == c && d == e && e == f && a != d, "{sigma:?}");
        all.extend([a, d]);
    }
    assert_uniform("sigma", &all, 0.1, 2.0);
    let (first, second): (Vec<f64>, Vec<f64>) =
        all.chunks(2).map(|pair| (pair[0], pair[1])).unzip();
    assert!(correlation(&first, &second).abs() < 4.0 / 500f64.sqrt());
}

/// 20 × 400 fits no box of the wanted area and aspect: every crop is the whole image (reference O3, step 3).
#[test]
fn where_no_box_fits_the_crop_is_the_whole_image() {
    let graph = Graph::new();
    let key = Key {
        seed: [graph.scalar(1u32), graph.scalar(2u32)],
        step: graph.scalar(3u32),
    };
    let draws = Draws::both_views(key, graph.iota(DType::U32, &[500], 0));
    let crop = sample_crop(&draws, 20, 400, 1.0);
    let outputs = [crop.top, crop.left, crop.height, crop.width];
    let module = graph.finish("crop", &outputs).expect("the graph");
    let found = common::run(&module, &[]);
    for (values, expected) in found.iter().zip([0, 0, 20, 400]) {
        assert!(values.to_vec::<i32>().iter().all(|&v| v == expected));
    }
}

/// The views of an image are bit for bit the same on one replica, two or four, and differ by step and by seed.
#[test]
fn views_do_not_depend_on_the_number_of_replicas() {
    let total = 8i64;
    let pixels: Vec<u8> = (0..total * 32 * 32 * 3)
        .map(|i| threefry2x32([1, 2], [i as u32, 0])[0] as u8)
        .collect();
    let views = |replicas: usize, seed: u32, step: u32| {
        let n = total / replicas as i64;
        let graph = Graph::new();
        let images = graph.parameter("images", Shape::new(DType::U8, [n, 32, 32, 3]));
        let key = Key {
            seed: [graph.scalar(seed), graph.scalar(0u32)],
            step: graph.scalar(step),
        };
        let place = graph.iota(DType::U32, &[n], 0) + graph.replica_id() * n as f64;
        let made = augmentation(0.5, Brightness::Multiplicative).two_views(images, key, place);
        let module = graph
            .finish("views", &[made])
            .and_then(|module| module.with_replicas(replicas))
            .expect("the graph");
        let arguments: Vec<Vec<Literal>> = pixels
            .chunks(pixels.len() / replicas)
            .map(|part| vec![Literal::new(&[n, 32, 32, 3], part)])
            .collect();
        let found = common::run_replicas(&module, &arguments);
        // Per replica first views, then second ones; put together as one replica has them.
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for results in &found {
            let values = results[0].to_vec::<f32>();
            let (one, two) = values.split_at(values.len() / 2);
            first.extend_from_slice(one);
            second.extend_from_slice(two);
        }
        first.extend(second);
        first
    };
    let one = views(1, 1, 1);
    assert_eq!(one, views(2, 1, 1));
    assert_eq!(one, views(4, 1, 1));
    assert_ne!(one, views(1, 2, 1));
    assert_ne!(one, views(1, 1, 2));
    let (first, second) = one.split_at(one.len() / 2);
    assert_ne!(first, second);
    assert!(one.iter().all(|v| (0.0..=1.0).contains(v)));
}

/// The generator in a module is the one on the host, which agrees with its published vectors.
#[test]
fn the_generator_is_the_same_on_device_and_host() {
    let counters: Vec<u32> = (0..4096u32).map(|i| i.wrapping_mul(0x9E37_79B9)).collect();
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::U32, [4096]));
    let spread = |word: u32| graph.scalar(word).broadcast_scalar(&[4096]);
    let (k0, k1) = (0x1234_5678, 0x9ABC_DEF0);
    let bits = threefry2x32_hlo([spread(k0), spread(k1)], [x, x.xor(f64::from(u32::MAX))]);
    let module = graph.finish("threefry", &bits).expect("the graph");
    let found = common::run(&module, &[Literal::new(&[4096], &counters)]);
    for (i, &counter) in counters.iter().enumerate() {
        let expected = threefry2x32([k0, k1], [counter, !counter]);
        let on_device = [0, 1].map(|word| found[word].to_vec::<u32>()[i]);
        if i % 512 == 0 || on_device != expected {
            assert_eq!(on_device, expected);
        }
    }
}

/// The purposes are distinct and fit their byte of the counter.
#[test]
fn purposes_are_distinct() {
    let all = [
        draws::ASPECT,
        draws::HEIGHT,
        draws::TOP,
        draws::LEFT,
        draws::FLIP,
        draws::JITTER,
        draws::ORDER,
        draws::BRIGHTNESS,
        draws::CONTRAST,
        draws::SATURATION,
        draws::HUE,
        draws::GREY,
        draws::BLUR,
        draws::SIGMA,
    ];
    let distinct: std::collections::BTreeSet<u32> = all.into_iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert!(all.iter().all(|&purpose| purpose < 256));
}
