//! Selective kernels, ResNet-D shortcuts, squeeze-excite and the distillation loss against plain loops in f64, written from the
//! reference (§3.8, §3.9, §10) and sharing nothing with the graphs.

mod common;

use simclr::grad::gradients;
use simclr::hlo::{DType, Graph, Literal, Shape};
use simclr::loss::distill;
use simclr::model::Network;
use simclr::nn::{Builder, Kind, Settings};

/// Images `[batch, height, width, channels]`, row-major.
#[derive(Clone)]
struct Map {
    dims: [usize; 4],
    values: Vec<f64>,
}

impl Map {
    fn zeros(dims: [usize; 4]) -> Self {
        Map {
            dims,
            values: vec![0.0; dims.iter().product()],
        }
    }

    fn place(&self, b: usize, y: usize, x: usize, c: usize) -> usize {
        let [_, h, w, channels] = self.dims;
        ((b * h + y) * w + x) * channels + c
    }

    fn at(&self, b: usize, y: usize, x: usize, c: usize) -> f64 {
        self.values[self.place(b, y, x, c)]
    }

    fn from(dims: [usize; 4], value: impl Fn(usize, usize, usize, usize) -> f64) -> Self {
        let mut map = Map::zeros(dims);
        for b in 0..dims[0] {
            for y in 0..dims[1] {
                for x in 0..dims[2] {
                    for c in 0..dims[3] {
                        let place = map.place(b, y, x, c);
                        map.values[place] = value(b, y, x, c);
                    }
                }
            }
        }
        map
    }

    fn each(&self, f: impl Fn(f64) -> f64) -> Self {
        Map {
            dims: self.dims,
            values: self.values.iter().map(|&v| f(v)).collect(),
        }
    }

    fn relu(&self) -> Self {
        self.each(|v| v.max(0.0))
    }

    /// Mean over the pixels, as one pixel.
    fn mean(&self) -> Self {
        let [n, h, w, c] = self.dims;
        Map::from([n, 1, 1, c], |b, _, _, c| {
            let sum: f64 = (0..h * w).map(|i| self.at(b, i / w, i % w, c)).sum();
            sum / (h * w) as f64
        })
    }

    /// Channels `from..to`.
    fn channels(&self, from: usize, to: usize) -> Self {
        let [n, h, w, _] = self.dims;
        Map::from([n, h, w, to - from], |b, y, x, c| {
            self.at(b, y, x, from + c)
        })
    }
}

/// The variables of a block, taken in creation order.
struct Weights {
    list: Vec<(Vec<usize>, Vec<f64>)>,
    next: usize,
}

impl Weights {
    fn next(&mut self) -> (Vec<usize>, Vec<f64>) {
        self.next += 1;
        self.list[self.next - 1].clone()
    }

    /// Fixed padding: (k − 1) / 2 before, whatever the stride.
    fn conv(&mut self, x: &Map, stride: usize) -> Map {
        let (dims, kernel) = self.next();
        let [kh, kw, inputs, outputs] = dims[..] else {
            panic!("a kernel")
        };
        let [n, h, w, c] = x.dims;
        assert_eq!(c, inputs);
        let before = (kh - 1) / 2;
        Map::from(
            [n, h.div_ceil(stride), w.div_ceil(stride), outputs],
            |b, y, xx, o| {
                let mut sum = 0.0;
                for i in 0..kh {
                    for j in 0..kw {
                        let (row, column) = (y * stride + i, xx * stride + j);
                        if row < before
                            || column < before
                            || row - before >= h
                            || column - before >= w
                        {
                            continue;
                        }
                        for c in 0..inputs {
                            let weight = kernel[((i * kw + j) * inputs + c) * outputs + o];
                            sum += weight * x.at(b, row - before, column - before, c);
                        }
                    }
                }
                sum
            },
        )
    }

    fn bias(&mut self, x: &Map) -> Map {
        let (_, bias) = self.next();
        let [n, h, w, c] = x.dims;
        Map::from([n, h, w, c], |b, y, xx, c| x.at(b, y, xx, c) + bias[c])
    }

    /// Normalisation by the batch.
    fn norm(&mut self, x: &Map) -> Map {
        let (_, gamma) = self.next();
        let (_, beta) = self.next();
        self.next += 2; // moving statistics
        let [n, h, w, channels] = x.dims;
        let rows = (n * h * w) as f64;
        let mut out = Map::zeros(x.dims);
        for c in 0..channels {
            let of = |f: &dyn Fn(f64) -> f64| {
                x.values
                    .iter()
                    .skip(c)
                    .step_by(channels)
                    .map(|&v| f(v))
                    .sum::<f64>()
                    / rows
            };
            let mean = of(&|v| v);
            let variance = of(&|v| (v - mean).powi(2));
            for i in (c..x.values.len()).step_by(channels) {
                out.values[i] =
                    gamma[c] * (x.values[i] - mean) / (variance + 1e-5).sqrt() + beta[c];
            }
        }
        out
    }

    /// Reference §3.8, steps 1 to 5.
    fn selective_kernel(&mut self, x: &Map, f: usize, stride: usize) -> Map {
        let both = self.conv(x, stride);
        let both = self.norm(&both).relu();
        let (x0, x1) = (both.channels(0, f), both.channels(f, 2 * f));
        let mut sum = x0.clone();
        sum.values
            .iter_mut()
            .zip(&x1.values)
            .for_each(|(a, b)| *a += b);
        let v = self.conv(&sum.mean(), 1);
        let v = self.norm(&v).relu();
        let a = self.conv(&v, 1);
        Map::from(x0.dims, |b, y, xx, c| {
            let (e0, e1) = (a.at(b, 0, 0, c).exp(), a.at(b, 0, 0, f + c).exp());
            (e0 * x0.at(b, y, xx, c) + e1 * x1.at(b, y, xx, c)) / (e0 + e1)
        })
    }

    fn squeeze_excite(&mut self, x: &Map) -> Map {
        let s = self.conv(&x.mean(), 1);
        let s = self.bias(&s).relu();
        let s = self.conv(&s, 1);
        let s = self.bias(&s);
        let [n, h, w, c] = x.dims;
        Map::from([n, h, w, c], |b, y, xx, c| {
            x.at(b, y, xx, c) / (1.0 + (-s.at(b, 0, 0, c)).exp())
        })
    }
}

/// The average of a ResNet-D shortcut: with stride 2 a row and a column of zeros at the end count; with stride 1 what is beyond the
/// end does not.
fn pooled(x: &Map, stride: usize) -> Map {
    let [n, h, w, c] = x.dims;
    let out = |side: usize| {
        if stride == 2 {
            (side + 1 - 2) / 2 + 1
        } else {
            side
        }
    };
    Map::from([n, out(h), out(w), c], |b, y, xx, c| {
        let (mut sum, mut inside) = (0.0, 0.0);
        for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (row, column) = (y * stride + i, xx * stride + j);
            if row < h && column < w {
                sum += x.at(b, row, column, c);
                inside += 1.0;
            }
        }
        sum / if stride == 2 { 4.0 } else { inside }
    })
}

fn number(i: usize, seed: usize) -> f64 {
    let mixed = ((i + 1) * 2_654_435_761 + seed * 40_503) % 1_000_003;
    mixed as f64 / 1_000_003.0 - 0.5
}

/// One block through the graph and through the loops.
fn check(network: &Network, stride: usize, project: bool, dims: [usize; 4]) {
    let what = format!("{network:?}, stride {stride}, {dims:?}");
    let filters = 4;
    let settings = Settings {
        dtype: DType::F64,
        activations: DType::F64,
        ..Settings::default()
    };
    let shape = Shape::new(DType::F64, dims.map(|d| d as i64));
    let scratch = Graph::new();
    let mut collecting = Builder::collecting(&scratch, settings.clone());
    network.block(
        &mut collecting,
        scratch.zeros(&shape),
        filters,
        stride as i64,
        project,
    );
    let variables = collecting.variables().to_vec();
    let list: Vec<(Vec<usize>, Vec<f64>)> = variables
        .iter()
        .enumerate()
        .map(|(k, v)| {
            let centre = if v.kind == Kind::Gamma { 1.0 } else { 0.0 };
            let values = (0..v.elements())
                .map(|i| centre + number(i, k + 1))
                .collect();
            (v.dims.iter().map(|&d| d as usize).collect(), values)
        })
        .collect();
    let images = Map::from(dims, |b, y, x, c| {
        number(((b * dims[1] + y) * dims[2] + x) * dims[3] + c, 0)
    });

    let graph = Graph::new();
    let values = list
        .iter()
        .zip(&variables)
        .map(|((_, values), v)| graph.constant(Literal::new(&v.dims, values)))
        .collect();
    let mut builder = Builder::with_values(&graph, settings, values);
    let x = graph.constant(Literal::new(&shape.dims, &images.values));
    let y = network.block(&mut builder, x, filters, stride as i64, project);
    let module = graph.finish("block", &[y]).expect("a module");
    let found = common::run(&module, &[]).remove(0);

    let mut weights = Weights { list, next: 0 };
    let shortcut = if project {
        let pooled = if network.sk_ratio > 0.0 {
            pooled(&images, stride)
        } else {
            images.clone()
        };
        let y = weights.conv(&pooled, if network.sk_ratio > 0.0 { 1 } else { stride });
        weights.norm(&y)
    } else {
        images.clone()
    };
    let first = if network.bottleneck() { 1 } else { stride };
    let y = weights.conv(&images, first);
    let mut y = weights.norm(&y).relu();
    if network.bottleneck() {
        y = if network.sk_ratio > 0.0 {
            weights.selective_kernel(&y, filters as usize, stride)
        } else {
            let y = weights.conv(&y, stride);
            weights.norm(&y).relu()
        };
    }
    let y = weights.conv(&y, 1);
    let mut y = weights.norm(&y);
    if network.se_ratio > 0.0 {
        y = weights.squeeze_excite(&y);
    }
    assert_eq!(
        weights.next,
        weights.list.len(),
        "{what}: every variable was used"
    );
    y.values
        .iter_mut()
        .zip(&shortcut.values)
        .for_each(|(a, b)| *a = (*a + b).max(0.0));
    assert_eq!(found.shape().dims, y.dims.map(|d| d as i64), "{what}");
    for (a, b) in found.to_f64s().iter().zip(&y.values) {
        assert!((a - b).abs() < 1e-9, "{what}: {a} {b}");
    }
}

#[test]
fn blocks_are_those_of_plain_loops() {
    for depth in [18, 50] {
        for (sk_ratio, se_ratio) in [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)] {
            let network = Network {
                resnet_depth: depth,
                sk_ratio,
                se_ratio,
                ..Network::default()
            };
            // Even and odd sides: their last row is padded differently.
            for dims in [[3, 6, 4, 5], [3, 5, 7, 5]] {
                check(&network, 1, true, dims);
                check(&network, 2, true, dims);
            }
            let width = if network.bottleneck() { 16 } else { 4 };
            check(&network, 1, false, [3, 5, 6, width]);
        }
    }
}

/// T²·mean of −Σ p(teacher)·log p(student), and its gradient T·(p(student) − p(teacher)) / B.
#[test]
fn the_distillation_loss_is_its_formula() {
    let (rows, classes) = (5, 7);
    let numbers = |seed: usize| {
        (0..rows * classes)
            .map(|i| 6.0 * number(i, seed))
            .collect::<Vec<f64>>()
    };
    let (teacher, student) = (numbers(1), numbers(2));
    let dims = [rows as i64, classes as i64];
    for temperature in [0.1, 1.0, 4.0] {
        let graph = Graph::new();
        let t = graph.parameter("teacher", Shape::new(DType::F64, dims));
        let s = graph.parameter("student", Shape::new(DType::F64, dims));
        let loss = distill(t, s, temperature);
        let found = gradients(loss, &[t, s]);
        assert!(found[0].is_none(), "no gradient reaches the teacher");
        let gradient = found[1].expect("a gradient");
        let module = graph
            .finish("distill", &[loss, gradient])
            .expect("a module");
        let arguments = [Literal::new(&dims, &teacher), Literal::new(&dims, &student)];
        let results = common::run(&module, &arguments);
        let softmax = |logits: &[f64]| -> Vec<f64> {
            let exponentials: Vec<f64> = logits.iter().map(|x| (x / temperature).exp()).collect();
            let sum: f64 = exponentials.iter().sum();
            exponentials.iter().map(|e| e / sum).collect()
        };
        let mut expected = 0.0;
        let mut expected_gradient = Vec::new();
        for row in 0..rows {
            let range = row * classes..(row + 1) * classes;
            let (p, q) = (softmax(&teacher[range.clone()]), softmax(&student[range]));
            for (p, q) in p.iter().zip(&q) {
                expected -= temperature * temperature * p * q.ln() / rows as f64;
                expected_gradient.push(temperature * (q - p) / rows as f64);
            }
        }
        let loss = results[0].to_f64s()[0];
        assert!(
            (loss - expected).abs() < 1e-9 * expected.abs().max(1.0),
            "T = {temperature}: {loss} {expected}"
        );
        for (a, b) in results[1].to_f64s().iter().zip(&expected_gradient) {
            assert!((a - b).abs() < 1e-9, "T = {temperature}: {a} {b}");
        }
    }
}
