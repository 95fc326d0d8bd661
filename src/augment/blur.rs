//! Gaussian blur (reference O13).

use crate::hlo::{DType, PadDim, Value};

/// Blurs `[n, S, S, 3]`: widths `sigma` f32 `[n]`, `2·radius + 1` taps, zeros outside.
pub fn blur<'g>(x: Value<'g>, sigma: Value<'g>, radius: i64) -> Value<'g> {
    let graph = x.graph();
    let grid = [x.dim(0), 2 * radius + 1];
    let place = graph.iota(DType::F32, &grid, 1) - radius as f64;
    let variance = (sigma * sigma * 2.0).broadcast_leading(&grid);
    let weights = (-(place * place) / variance).exp();
    let weights = weights / weights.sum(&[1]).broadcast_leading(&grid);
    // Along the width first, then along the height.
    let horizontal = shifted_sum(x, weights, 2, radius);
    shifted_sum(horizontal, weights, 1, radius)
}

/// Weighted sum of shifted copies along a dimension; weights `[n, taps]`.
fn shifted_sum<'g>(x: Value<'g>, weights: Value<'g>, dim: usize, radius: i64) -> Value<'g> {
    let size = x.dim(dim);
    let mut padding = vec![PadDim::default(); 4];
    padding[dim] = PadDim {
        low: radius,
        high: radius,
        interior: 0,
    };
    let padded = x.pad(0.0, &padding);
    let mut sum: Option<Value<'g>> = None;
    for tap in 0..=2 * radius {
        let weight = weights.slice_dim(1, tap, tap + 1).reshape(&[x.dim(0)]);
        let part = padded.slice_dim(dim, tap, tap + size) * weight.broadcast_leading(&x.dims());
        sum = Some(match sum {
            Some(sum) => sum + part,
            None => part,
        });
    }
    sum.unwrap_or(x)
}

/// Blurs the images whose `selected` (pred `[n]`) is set and clips all to [0, 1]. Half the taps follow from the image size:
/// ⌊S/10⌋ div 2.
pub fn blur_half<'g>(
    x: Value<'g>,
    sigma: Value<'g>,
    selected: Value<'g>,
    image_size: usize,
) -> Value<'g> {
    let blurred = blur(x, sigma, (image_size / 10 / 2) as i64);
    selected
        .broadcast_leading(&x.dims())
        .select(blurred, x)
        .clamp(0.0, 1.0)
}
