//! Bicubic resizing (reference O5), as two small matrix products whose weights hold crop, kernel and mirror.

use super::crop::Crop;
use crate::hlo::{DType, DotDims, Graph, Literal, Precision, Value};

/// The original's two kernels, which take four pixels however far apart those of the result lie, and a third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeKernel {
    /// First generation: corner-aligned grid, a = −0.75, taps clamped to the edge.
    V1Legacy,
    /// Second generation: half-pixel grid, a = −0.5, outside taps dropped and the others scaled up.
    V2HalfPixel,
    /// The second's cubic, as much wider as pixels become fewer, so that all of them count: as Pillow's and torchvision's.
    Antialiased,
}

/// Fractions are rounded to this many parts.
pub(super) const PARTS: usize = 1024;

impl ResizeKernel {
    fn a(self) -> f64 {
        match self {
            ResizeKernel::V1Legacy => -0.75,
            ResizeKernel::V2HalfPixel | ResizeKernel::Antialiased => -0.5,
        }
    }

    /// The cubic with a = −0.5 at a distance.
    pub(super) fn cubic(x: f64) -> f64 {
        match x.abs() {
            x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            _ => 0.0,
        }
    }

    /// Weights of the four taps at each of the 1025 fractions, row-major `[1025, 4]`.
    pub(super) fn table(self) -> Vec<f32> {
        let a = self.a();
        let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
        let far = |x: f64| {
            let y = f64::from(x as f32 + 1.0);
            ((a * y - 5.0 * a) * y + 8.0 * a) * y - 4.0 * a
        };
        (0..=PARTS)
            .flat_map(|q| {
                let u = q as f64 / PARTS as f64;
                let v = 1.0 - u;
                [far(u) as f32, near(u) as f32, near(v) as f32, far(v) as f32]
            })
            .collect()
    }
}

/// Weights `[n, out, full]` that take `out` samples of the stretch `start..start + length` of an axis of `full` cells; `start` and
/// `length` are s32 `[n]`, and images whose `mirror` (pred `[n]`) is set come out reversed.
fn weights<'g>(
    start: Value<'g>,
    length: Value<'g>,
    mirror: Option<Value<'g>>,
    out: i64,
    full: i64,
    kernel: ResizeKernel,
) -> Value<'g> {
    let graph = start.graph();
    let n = start.dim(0);
    let grid = [n, out];
    let spread = |v: Value<'g>| v.broadcast_leading(&grid);
    let mut output = graph.iota(DType::S32, &grid, 1);
    if let Some(mirror) = mirror {
        output = spread(mirror).select((out - 1) as f64 - output, output);
    }
    let output = output.convert(DType::F32);
    let scale = spread(length.convert(DType::F32) / out as f64);
    // A dense matrix: cell `c` of the axis gets its weight, or those of the taps that fall on it.
    let cube = [n, out, full];
    if kernel == ResizeKernel::Antialiased {
        let cell = graph.iota(DType::S32, &cube, 2);
        let [start, length] = [start, length].map(|v| v.broadcast_leading(&cube));
        let place = cell - start;
        let inside = place.ge(0.0).and(place.lt(length));
        let centre = ((output + 0.5) * scale).broadcast_leading(&cube);
        let stretch = scale.max(1.0).broadcast_leading(&cube);
        let x = ((place.convert(DType::F32) + 0.5 - centre) / stretch).abs();
        let near = (1.5 * x - 2.5) * x * x + 1.0;
        let far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0;
        let weight = x.lt(1.0).select(near, x.lt(2.0).select(far, 0.0));
        let weight = inside.select(weight, 0.0);
        return weight / weight.sum(&[2]).broadcast_leading(&cube);
    }
    let position = match kernel {
        ResizeKernel::V1Legacy => output * scale,
        _ => (output + 0.5) * scale - 0.5,
    };
    let base = position.floor();
    let fraction = ((position - base) * PARTS as f64)
        .round_even()
        .convert(DType::S32);
    let table = graph.constant(Literal::new(&[PARTS as i64 + 1, 4], &kernel.table()));
    let taps = table
        .take_rows(fraction.reshape(&[n * out]))
        .reshape(&[n, out, 4]);
    let base = base.convert(DType::S32);
    let last = spread(length) - 1.0;
    let mut places = Vec::new();
    let mut values = Vec::new();
    for tap in 0..4 {
        let place = base + (tap as f64 - 1.0);
        let inside = place.ge(0.0).and(place.le(last));
        let clamped = place.max(0.0).min(last);
        let weight = taps.slice_dim(2, tap, tap + 1).reshape(&grid);
        places.push(clamped + spread(start));
        values.push(match kernel {
            ResizeKernel::V1Legacy => weight,
            _ => inside.select(weight, 0.0),
        });
    }
    if kernel == ResizeKernel::V2HalfPixel {
        let sum = values[0] + values[1] + values[2] + values[3];
        let inverse = 1.0 / sum;
        values = values.into_iter().map(|v| v * inverse).collect();
    }
    let cell = graph.iota(DType::S32, &cube, 2);
    let mut matrix = graph.zeros(&crate::hlo::Shape::new(DType::F32, cube));
    for (place, value) in places.into_iter().zip(values) {
        let hit = cell.eq(place.broadcast_leading(&cube));
        matrix = matrix + hit.select(value.broadcast_leading(&cube), 0.0);
    }
    matrix
}

/// Crops each image `[n, H, W, 3]` to its box, resizes to `[n, rows, columns, 3]`, and mirrors those whose `flip` is set. Values may
/// leave [0, 1].
pub fn crop_and_resize<'g>(
    images: Value<'g>,
    crop: &Crop<'g>,
    flip: Option<Value<'g>>,
    [rows, columns]: [i64; 2],
    kernel: ResizeKernel,
) -> Value<'g> {
    let (n, height, width) = (images.dim(0), images.dim(1), images.dim(2));
    if height != width || rows != columns {
        let vertical = weights(crop.top, crop.height, None, rows, height, kernel);
        let horizontal = weights(crop.left, crop.width, flip, columns, width, kernel);
        return apply(images, vertical, horizontal);
    }
    // Both axes at once: half as many operations to compile.
    let graph = images.graph();
    let both = |a: Value<'g>, b: Value<'g>| graph.concatenate(&[a, b], 0);
    let upright = graph.scalar(false).broadcast_scalar(&[n]);
    let weights = weights(
        both(crop.top, crop.left),
        both(crop.height, crop.width),
        flip.map(|flip| both(upright, flip)),
        rows,
        height,
        kernel,
    );
    apply(
        images,
        weights.slice_dim(0, 0, n),
        weights.slice_dim(0, n, 2 * n),
    )
}

/// Resizes `[n, H, W, 3]` to `[n, rows, columns, 3]`.
pub fn resize(images: Value, rows: i64, columns: i64, kernel: ResizeKernel) -> Value {
    let graph: &Graph = images.graph();
    let n = images.dim(0);
    let all = |size: i64| graph.scalar(size as i32).broadcast_scalar(&[n]);
    let (height, width) = (images.dim(1), images.dim(2));
    let vertical = weights(all(0), all(height), None, rows, height, kernel);
    let horizontal = weights(all(0), all(width), None, columns, width, kernel);
    apply(images, vertical, horizontal)
}

/// `[n, H, W, C]` by `[n, rows, H]`, then by `[n, columns, W]`.
fn apply<'g>(images: Value<'g>, vertical: Value<'g>, horizontal: Value<'g>) -> Value<'g> {
    let (n, height, width, channels) = (images.dim(0), images.dim(1), images.dim(2), images.dim(3));
    let (rows, columns) = (vertical.dim(1), horizontal.dim(1));
    let product = |left: Value<'g>, right: Value<'g>, contracted: i64| {
        left.dot_general(
            right,
            DotDims {
                lhs_contracting: vec![2],
                rhs_contracting: vec![contracted],
                lhs_batch: vec![0],
                rhs_batch: vec![0],
                // Pixels have eight bits; weights in bf16 would blur them.
                precision: Precision::Highest,
            },
        )
    };
    // [n, rows, W·C]
    let tall = product(vertical, images.reshape(&[n, height, width * channels]), 1);
    // [n, columns, rows, C]
    let wide = product(horizontal, tall.reshape(&[n, rows, width, channels]), 2);
    wide.reshape(&[n, columns, rows, channels])
        .transpose(&[0, 2, 1, 3])
}
