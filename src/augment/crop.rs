//! The crop sampler (reference O3) and the evaluation crop (reference §2.4).

use super::draws::{self, Draws, scaled};
use crate::hlo::{DType, Value};
use crate::random::uniform_hlo;

/// One box per image, s32 `[n]` each.
#[derive(Clone, Copy)]
pub struct Crop<'g> {
    /// First row.
    pub top: Value<'g>,
    /// First column.
    pub left: Value<'g>,
    /// Rows.
    pub height: Value<'g>,
    /// Columns.
    pub width: Value<'g>,
}

pub(super) const ASPECT_LOW: f32 = 0.75;
pub(super) const ASPECT_HIGH: f32 = 4.0 / 3.0;
pub(super) const AREA_LOW: f32 = 0.08;
pub(super) const COVERED: f32 = 0.1;
pub(super) const ATTEMPTS: i32 = 100;

/// Range of heights for an aspect (width over height): `(lowest, highest)`, s32 (steps 1 to 4 of the sampler).
pub fn crop_geometry(aspect: Value, height: i64, width: i64) -> (Value, Value) {
    let (h, w) = (height as f32, width as f32);
    let smallest = AREA_LOW * w * h;
    let largest = w * h;
    let rounded = |area: f32| (area_over(aspect, area)).sqrt().round_even();
    let low = rounded(smallest);
    let mut high = rounded(largest);
    // Too wide: the highest that fits, in f64 as the original's kernel has it.
    let exact = (f64::from(w) + 0.5 - f64::from(1e-7f32)) / aspect.convert(DType::F64);
    let mut fitted = exact.floor().convert(DType::F32);
    let still_wide = (fitted * aspect).round_even().gt(f64::from(w));
    fitted = still_wide.select(fitted - 1.0, fitted);
    high = (high * aspect)
        .round_even()
        .gt(f64::from(w))
        .select(fitted, high);
    let high = high.min(f64::from(h));
    let low = low.min(high);
    (low.convert(DType::S32), high.convert(DType::S32))
}

fn area_over(aspect: Value, area: f32) -> Value {
    f64::from(area) / aspect
}

/// One attempt from the [`draws::CROP`] draws of its number, u32 `[4, n]`: `(box, whether it is accepted)`.
fn attempt<'g>(
    bits: Value<'g>,
    height: i64,
    width: i64,
    output_aspect: f32,
) -> (Crop<'g>, Value<'g>) {
    let (rows, columns) = (height as f32, width as f32);
    let smallest = f64::from(AREA_LOW * columns * rows);
    let largest = f64::from(columns * rows);
    let drawn = |purpose: u32| {
        let row = i64::from(purpose);
        bits.slice_dim(0, row, row + 1).reshape(&[bits.dim(1)])
    };
    let u = uniform_hlo(drawn(draws::ASPECT));
    let (narrow, wide) = (ASPECT_LOW * output_aspect, ASPECT_HIGH * output_aspect);
    let aspect = u * f64::from(wide - narrow) + f64::from(narrow);
    let (low, high) = crop_geometry(aspect, height, width);
    let mut h = low + scaled(drawn(draws::HEIGHT), high - low + 1.0);
    let width_of = |h: Value<'g>| {
        (h.convert(DType::F32) * aspect)
            .round_even()
            .convert(DType::S32)
    };
    let mut w = width_of(h);
    let area = |h: Value<'g>, w: Value<'g>| (h * w).convert(DType::F32);
    h = area(h, w).lt(smallest).select(h + 1.0, h);
    w = width_of(h);
    h = area(h, w).gt(largest).select(h - 1.0, h);
    w = width_of(h);
    let size = area(h, w);
    // The coverage condition lifts the smallest area from 8 % to 10 %.
    let covered = (size / largest).ge(f64::from(COVERED));
    let fits = w
        .le(width as f64)
        .and(h.le(height as f64))
        .and(w.gt(0.0))
        .and(h.gt(0.0));
    let accepted = size
        .ge(smallest)
        .and(size.le(largest))
        .and(fits)
        .and(size.ge(1.0))
        .and(covered);
    // The last legal offset is never drawn: {0, …, room − 1}, and 0 where there is no room.
    let offset = |purpose: u32, room: Value<'g>| scaled(drawn(purpose), room.max(1.0));
    let top = offset(draws::TOP, f64_minus(height, h));
    let left = offset(draws::LEFT, f64_minus(width, w));
    (
        Crop {
            top,
            left,
            height: h,
            width: w,
        },
        accepted,
    )
}

fn f64_minus(size: i64, part: Value) -> Value {
    size as f64 - part
}

/// A random box for each image, for outputs of this aspect (width over height): up to 100 attempts, then the whole image.
pub fn sample_crop<'g>(draws: &Draws<'g>, height: i64, width: i64, output_aspect: f32) -> Crop<'g> {
    let parts = draws.parts();
    let graph = parts[2].graph();
    let n = parts[2].dims();
    let number = |value: i32| graph.scalar(value).broadcast_scalar(&n);
    let open = graph.scalar(false).broadcast_scalar(&n);
    let mut state = vec![graph.scalar(0u32), open, number(0), number(0)];
    state.extend([number(height as i32), number(width as i32)]);
    // The next attempt's draws are part of the state, so that they are stored and not made again at each use.
    state.push(draws.crop_bits());
    state.extend(parts);
    let result = graph.while_loop(
        &state,
        |_, s| {
            let all = s[1].reduce(crate::hlo::Monoid::And, &[0]);
            s[0].lt(f64::from(ATTEMPTS)).and(all.logical_not())
        },
        |_, s| {
            let (crop, accepted) = attempt(s[6], height, width, output_aspect);
            let take = s[1].logical_not().and(accepted);
            let mut next = vec![
                s[0] + 1.0,
                s[1].or(accepted),
                take.select(crop.top, s[2]),
                take.select(crop.left, s[3]),
                take.select(crop.height, s[4]),
                take.select(crop.width, s[5]),
            ];
            next.push(Draws::from_parts(&s[7..]).crop_bits_at(s[0] + 1.0));
            next.extend_from_slice(&s[7..]);
            next
        },
    );
    Crop {
        top: result[2],
        left: result[3],
        height: result[4],
        width: result[5],
    }
}

/// What evaluation cuts out for an output of `rows` × `columns`: `[top, left, height, width]` (reference §2.4).
pub fn centre_crop(height: i64, width: i64, rows: i64, columns: i64) -> [i64; 4] {
    // The factor is formed in f64 and rounded once; its product with the side is in f32.
    let aspect = columns as f64 / rows as f64;
    let rounded = |x: f32| f64::from(x).round_ties_even() as i64;
    let (h, w) = (height as f32, width as f32);
    let [tall, wide] = if aspect > f64::from(w / h) {
        [rounded((0.875 / aspect) as f32 * w), rounded(0.875 * w)]
    } else {
        [rounded(0.875 * h), rounded((0.875 * aspect) as f32 * h)]
    };
    [
        (height - tall + 1).div_euclid(2),
        (width - wide + 1).div_euclid(2),
        tall,
        wide,
    ]
}
