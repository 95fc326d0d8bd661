//! Colour jitter and grey (reference O7 to O12).

use super::Brightness;
use super::draws::{self, Draws, scaled};
use crate::hlo::{DType, Literal, Value};

/// Image times a factor per image.
pub fn brightness_multiplicative<'g>(x: Value<'g>, factor: Value<'g>) -> Value<'g> {
    x * factor.broadcast_leading(&x.dims())
}

/// Image plus an offset per image.
pub fn brightness_additive<'g>(x: Value<'g>, offset: Value<'g>) -> Value<'g> {
    x + offset.broadcast_leading(&x.dims())
}

/// Away from (or towards) the image's mean colour.
pub fn contrast<'g>(x: Value<'g>, factor: Value<'g>) -> Value<'g> {
    let mean = x.mean(&[1, 2]).broadcast_in_dim(&x.dims(), &[0, 3]);
    (x - mean) * factor.broadcast_leading(&x.dims()) + mean
}

/// Channels of an image and their extremes, `[n, H, W]` each.
struct Pixels<'g> {
    channels: [Value<'g>; 3],
    high: Value<'g>,
    low: Value<'g>,
}

impl<'g> Pixels<'g> {
    fn of(x: Value<'g>) -> Self {
        let dims = x.dims();
        let plane = [dims[0], dims[1], dims[2]];
        let channels = [0, 1, 2].map(|c| x.slice_dim(3, c, c + 1).reshape(&plane));
        let [r, g, b] = channels;
        Pixels {
            channels,
            high: r.max(g).max(b),
            low: r.min(g).min(b),
        }
    }
}

fn stack<'g>(channels: [Value<'g>; 3], dims: &[i64]) -> Value<'g> {
    let planes = channels.map(|c| c.reshape(&[dims[0], dims[1], dims[2], 1]));
    planes[0].graph().concatenate(&planes, 3)
}

/// Saturation times a factor, clipped to [0, 1], with hue and value kept. In the hue-saturation-value picture each channel is
/// value − saturation·(its share), so the new channel is v − (v − c)·(new saturation / old).
pub fn saturation<'g>(x: Value<'g>, factor: Value<'g>) -> Value<'g> {
    let dims = x.dims();
    let pixels = Pixels::of(x);
    let plane = pixels.high.dims();
    let range = pixels.high - pixels.low;
    let positive = pixels.high.gt(0.0);
    let value = positive.select(pixels.high, 1.0);
    let old = positive.select(range / value, 0.0);
    let new = (old * factor.broadcast_leading(&plane)).clamp(0.0, 1.0);
    let coloured = old.gt(0.0);
    // A grey pixel, or one with no positive channel, becomes its value.
    let ratio = coloured.select(new / coloured.select(old, 1.0), 0.0);
    stack(
        pixels
            .channels
            .map(|c| pixels.high - (pixels.high - c) * ratio),
        &dims,
    )
}

/// Hue turned by a fraction of the circle per image, the extremes of each pixel kept.
///
/// With θ the hue in sixths of a turn, a channel lies at low + range·t, where t is a clipped ramp of θ: |θ−3|−1 for red, 2−|θ−2|
/// for green, 2−|θ−4| for blue.
pub fn hue<'g>(x: Value<'g>, turn: Value<'g>) -> Value<'g> {
    let dims = x.dims();
    let pixels = Pixels::of(x);
    let plane = pixels.high.dims();
    let [r, g, b] = pixels.channels;
    let (high, low) = (pixels.high, pixels.low);
    let range = high - low;
    let flat = range.eq(0.0);
    let inverse = 1.0 / flat.select(x.graph().full(&range.shape(), 1.0), range);
    let from_red = (g - b) * inverse;
    let from_green = (b - r) * inverse + 2.0;
    let from_blue = (r - g) * inverse + 4.0;
    let theta = r
        .eq(high)
        .select(from_red, g.eq(high).select(from_green, from_blue));
    // θ is in [−1, 5], the turn in (−3, 3] sixths: one correction either way suffices.
    let turned = flat.select(x.graph().zeros(&range.shape()), theta)
        + (turn * 6.0).broadcast_leading(&plane);
    let turned = turned.lt(0.0).select(turned + 6.0, turned);
    let turned = turned.ge(6.0).select(turned - 6.0, turned);
    let at = |ramp: Value<'g>| low + range * ramp.clamp(0.0, 1.0);
    let red = at((turned - 3.0).abs() - 1.0);
    let green = at(2.0 - (turned - 2.0).abs());
    let blue = at(2.0 - (turned - 4.0).abs());
    stack([red, green, blue], &dims)
}

/// Luma on all three channels.
pub fn grey(x: Value) -> Value {
    let dims = x.dims();
    let plane = [dims[0], dims[1], dims[2]];
    let [r, g, b] = [0, 1, 2].map(|c| x.slice_dim(3, c, c + 1).reshape(&plane));
    let luma = r * f64::from(0.2989f32) + g * f64::from(0.587f32) + b * f64::from(0.114f32);
    luma.broadcast_leading(&dims)
}

/// Parameters of the four operations, f32 `[n]` each.
#[derive(Clone, Copy)]
pub struct Factors<'g> {
    /// Factor (or offset, with additive brightness).
    pub brightness: Value<'g>,
    /// Factor.
    pub contrast: Value<'g>,
    /// Factor.
    pub saturation: Value<'g>,
    /// Turn, as a fraction of the circle.
    pub hue: Value<'g>,
}

/// The operation at each of the four positions per image, s32 `[n]` each: 0 brightness, 1 contrast, 2 saturation, 3 hue.
pub type Order<'g> = [Value<'g>; 4];

/// The four operations in each image's own order, clipped to [0, 1] after each (reference O11).
///
/// Three of them are affine in the pixel, so each position is one affine stage and one hue stage, each taken by the images whose
/// turn it is; that is a third of the work of computing all four everywhere.
pub fn jitter<'g>(
    x: Value<'g>,
    order: &Order<'g>,
    factors: &Factors<'g>,
    brightness: Brightness,
) -> Value<'g> {
    let dims = x.dims();
    let spread = |v: Value<'g>| v.broadcast_leading(&dims);
    let mut x = x;
    for &op in order {
        let is = |code: f64| spread(op.eq(code));
        let mean = x.mean(&[1, 2]).broadcast_in_dim(&dims, &[0, 3]);
        let brightened = match brightness {
            Brightness::Multiplicative => brightness_multiplicative(x, factors.brightness),
            Brightness::Additive => brightness_additive(x, factors.brightness),
        };
        let contrasted = (x - mean) * spread(factors.contrast) + mean;
        let saturated = saturation(x, factors.saturation);
        let turned = hue(x, factors.hue);
        x = is(0.0).select(
            brightened,
            is(1.0).select(contrasted, is(2.0).select(saturated, turned)),
        );
        x = x.clamp(0.0, 1.0);
    }
    x
}

/// Random jitter with probability 0.8, then grey with probability 0.2 (reference O11, O12).
pub(super) fn random<'g>(
    x: Value<'g>,
    strength: f64,
    brightness: Brightness,
    draws: &Draws<'g>,
) -> Value<'g> {
    let _scope = x.graph().scope("colour");
    let dims = x.dims();
    let spread = |v: Value<'g>| v.broadcast_leading(&dims);
    let between =
        |purpose: u32, low: f64, high: f64| draws.uniform(purpose, 0) * (high - low) + low;
    let reach = 0.8 * strength;
    let factors = Factors {
        brightness: match brightness {
            Brightness::Multiplicative => {
                between(draws::BRIGHTNESS, (1.0 - reach).max(0.0), 1.0 + reach)
            }
            Brightness::Additive => between(draws::BRIGHTNESS, -reach, reach),
        },
        contrast: between(draws::CONTRAST, 1.0 - reach, 1.0 + reach),
        saturation: between(draws::SATURATION, 1.0 - reach, 1.0 + reach),
        hue: between(draws::HUE, -0.2 * strength, 0.2 * strength),
    };
    let jittered = jitter(x, &random_order(draws), &factors, brightness);
    let apply = spread(draws.uniform(draws::JITTER, 0).lt(0.8));
    let x = apply.select(jittered, x);
    let drop = spread(draws.uniform(draws::GREY, 0).lt(0.2));
    drop.select(grey(x), x)
}

/// A uniform permutation of the four operations per image: one of 24, from a table.
fn random_order<'g>(draws: &Draws<'g>) -> Order<'g> {
    let bits = draws.bits(draws::ORDER, 0);
    let graph = bits.graph();
    let n = bits.dim(0);
    let count = graph.scalar(24i32).broadcast_scalar(&[n]);
    let chosen = scaled(bits, count);
    let table = graph.constant(Literal::new(&[24, 4], &permutations()));
    let rows = table.take_rows(chosen);
    [0, 1, 2, 3].map(|i| {
        rows.slice_dim(1, i, i + 1)
            .reshape(&[n])
            .convert(DType::S32)
    })
}

fn permutations() -> Vec<i32> {
    let mut all = Vec::new();
    for code in 0..256 {
        let order = [code >> 6, code >> 4 & 3, code >> 2 & 3, code & 3];
        if (0..4).all(|op| order.contains(&op)) {
            all.extend(order);
        }
    }
    all
}
