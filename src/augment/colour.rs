//! Colour jitter and grey (reference O7 to O12).
//!
//! Inside, images are planes `[3, n, P]` (channel, image, pixel): every operation is then elementwise over long rows, or a
//! reduction over channels or pixels, which is what vector units like.

use super::Brightness;
use super::draws::{self, Draws, scaled};
use crate::hlo::{DType, Literal, Shape, Value};

/// NHWC to planes.
fn planes(x: Value) -> Value {
    let dims = x.dims();
    x.transpose(&[3, 0, 1, 2])
        .reshape(&[3, dims[0], dims[1] * dims[2]])
}

/// Planes to the NHWC shape `dims`.
fn pixels<'g>(x: Value<'g>, dims: &[i64]) -> Value<'g> {
    x.reshape(&[3, dims[0], dims[1], dims[2]])
        .transpose(&[1, 2, 3, 0])
}

/// Applies an operation on planes to NHWC images.
fn on_planes<'g>(x: Value<'g>, op: impl FnOnce(Value<'g>) -> Value<'g>) -> Value<'g> {
    pixels(op(planes(x)), &x.dims())
}

/// One number per image over all its planes.
fn per_image<'g>(value: Value<'g>, x: Value<'g>) -> Value<'g> {
    value.broadcast_in_dim(&x.dims(), &[1])
}

/// One number per pixel over the three channels.
fn per_pixel<'g>(value: Value<'g>, x: Value<'g>) -> Value<'g> {
    value.broadcast_in_dim(&x.dims(), &[1, 2])
}

/// Image `[n, H, W, 3]` times a factor per image.
pub fn brightness_multiplicative<'g>(x: Value<'g>, factor: Value<'g>) -> Value<'g> {
    x * factor.broadcast_leading(&x.dims())
}

/// Image `[n, H, W, 3]` plus an offset per image.
pub fn brightness_additive<'g>(x: Value<'g>, offset: Value<'g>) -> Value<'g> {
    x + offset.broadcast_leading(&x.dims())
}

/// Away from (or towards) the image's mean colour: `[n, H, W, 3]`, a factor per image.
pub fn contrast<'g>(x: Value<'g>, factor: Value<'g>) -> Value<'g> {
    on_planes(x, |x| contrasted(x, x.mean(&[2]), factor))
}

fn contrasted<'g>(x: Value<'g>, mean: Value<'g>, factor: Value<'g>) -> Value<'g> {
    let mean = mean.broadcast_in_dim(&x.dims(), &[0, 1]);
    (x - mean) * per_image(factor, x) + mean
}

/// Saturation times a factor per image, clipped to [0, 1], with hue and value kept: `[n, H, W, 3]`.
pub fn saturation<'g>(x: Value<'g>, factor: Value<'g>) -> Value<'g> {
    on_planes(x, |x| {
        let extremes = Extremes::of(x);
        let ratio = saturation_ratio(&extremes, factor);
        let high = per_pixel(extremes.high, x);
        high - (high - x) * per_pixel(ratio, x)
    })
}

/// Largest and smallest channel of each pixel, `[n, P]`.
struct Extremes<'g> {
    high: Value<'g>,
    low: Value<'g>,
}

impl<'g> Extremes<'g> {
    fn of(x: Value<'g>) -> Self {
        Extremes {
            high: x.reduce_max(&[0]),
            low: x.reduce_min(&[0]),
        }
    }
}

/// New saturation over old, `[n, P]`. In the hue-saturation-value picture a channel is value − saturation·(its share), so the new
/// channel is v − (v − c)·ratio; a grey pixel, or one with no positive channel, becomes its value.
fn saturation_ratio<'g>(extremes: &Extremes<'g>, factor: Value<'g>) -> Value<'g> {
    let (high, low) = (extremes.high, extremes.low);
    let positive = high.gt(0.0);
    let old = positive.select((high - low) / positive.select(high, 1.0), 0.0);
    let new = (old * factor.broadcast_leading(&high.dims())).clamp(0.0, 1.0);
    let coloured = old.gt(0.0);
    coloured.select(new / coloured.select(old, 1.0), 0.0)
}

/// Hue turned by a fraction of the circle per image, the extremes of each pixel kept: `[n, H, W, 3]`.
pub fn hue<'g>(x: Value<'g>, turn: Value<'g>) -> Value<'g> {
    on_planes(x, |x| {
        let extremes = Extremes::of(x);
        turned(x, &extremes, turned_hue(x, &extremes, turn))
    })
}

/// The new hue θ of each pixel in sixths of a turn, `[n, P]`, in [0, 6).
fn turned_hue<'g>(x: Value<'g>, extremes: &Extremes<'g>, turn: Value<'g>) -> Value<'g> {
    let (high, low) = (extremes.high, extremes.low);
    let dims = high.dims();
    let [r, g, b] = [0, 1, 2].map(|c| x.slice_dim(0, c, c + 1).reshape(&dims));
    let range = high - low;
    let flat = range.eq(0.0);
    let zeros = x.graph().zeros(&range.shape());
    let (is_red, is_green) = (r.eq(high), g.eq(high));
    // One division: the difference of the two lower channels over the range, from the sector of the highest.
    let difference = is_red.select(g - b, is_green.select(b - r, r - g));
    let sector = is_red.select(zeros, is_green.select(zeros + 2.0, zeros + 4.0));
    let theta = difference / flat.select(zeros + 1.0, range) + sector;
    // θ is in [−1, 5] and the turn in (−3, 3] sixths: one correction either way suffices.
    let theta = flat.select(zeros, theta) + (turn * 6.0).broadcast_leading(&dims);
    let theta = theta.lt(0.0).select(theta + 6.0, theta);
    theta.ge(6.0).select(theta - 6.0, theta)
}

/// Channels at hue θ: low + range·t, where t is a clipped ramp of θ: |θ − 3| − 1 for red, 2 − |θ − 2| for green, 2 − |θ − 4| for
/// blue.
fn turned<'g>(x: Value<'g>, extremes: &Extremes<'g>, theta: Value<'g>) -> Value<'g> {
    let constants = |values: [f32; 3]| {
        x.graph()
            .constant(Literal::new(&[3], &values))
            .broadcast_leading(&x.dims())
    };
    let distance = (per_pixel(theta, x) - constants([3.0, 2.0, 4.0])).abs();
    let ramp = distance * constants([1.0, -1.0, -1.0]) + constants([-1.0, 2.0, 2.0]);
    let (high, low) = (per_pixel(extremes.high, x), per_pixel(extremes.low, x));
    low + (high - low) * ramp.clamp(0.0, 1.0)
}

/// Luma on all three channels: `[n, H, W, 3]`.
pub fn grey(x: Value) -> Value {
    on_planes(x, |x| {
        let luma = luma(x);
        per_pixel(luma, x)
    })
}

fn luma(x: Value) -> Value {
    let dims = x.dims();
    let [r, g, b] = [0, 1, 2].map(|c| x.slice_dim(0, c, c + 1).reshape(&[dims[1], dims[2]]));
    r * f64::from(0.2989f32) + g * f64::from(0.587f32) + b * f64::from(0.114f32)
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

/// The four operations in each image's own order, clipped to [0, 1] after each (reference O11): `[n, H, W, 3]`.
pub fn jitter<'g>(
    x: Value<'g>,
    order: &Order<'g>,
    factors: &Factors<'g>,
    brightness: Brightness,
) -> Value<'g> {
    on_planes(x, |x| jitter_planes(x, order, factors, brightness))
}

/// At each position all images take the step together, each selecting its own operation. A loop over the four positions: its state
/// is what keeps the compiler from computing earlier positions again inside every use of a later one.
fn jitter_planes<'g>(
    x: Value<'g>,
    order: &Order<'g>,
    factors: &Factors<'g>,
    brightness: Brightness,
) -> Value<'g> {
    let graph = x.graph();
    let n = x.dim(1);
    let order: Vec<Value> = order.iter().map(|op| op.reshape(&[1, n])).collect();
    let state = [
        graph.scalar(0i32),
        x,
        graph.concatenate(&order, 0),
        factors.brightness,
        factors.contrast,
        factors.saturation,
        factors.hue,
    ];
    graph.while_loop(
        &state,
        |_, s| s[0].lt(4.0),
        |graph, s| {
            let op = s[2]
                .dynamic_slice(&[s[0], graph.scalar(0i32)], &[1, n])
                .reshape(&[n]);
            let factors = Factors {
                brightness: s[3],
                contrast: s[4],
                saturation: s[5],
                hue: s[6],
            };
            let mut next = s.to_vec();
            next[0] = s[0] + 1.0;
            next[1] = one_position(s[1], op, &factors, brightness);
            next
        },
    )[1]
}

/// One operation on each image of the planes, clipped to [0, 1].
fn one_position<'g>(
    x: Value<'g>,
    op: Value<'g>,
    factors: &Factors<'g>,
    brightness: Brightness,
) -> Value<'g> {
    let extremes = Extremes::of(x);
    let ratio = saturation_ratio(&extremes, factors.saturation);
    let theta = turned_hue(x, &extremes, factors.hue);
    let is = |code: f64| per_image(op.eq(code), x);
    let level = per_image(factors.brightness, x);
    let brightened = match brightness {
        Brightness::Multiplicative => x * level,
        Brightness::Additive => x + level,
    };
    let high = per_pixel(extremes.high, x);
    let saturated = high - (high - x) * per_pixel(ratio, x);
    let stepped = is(0.0).select(
        brightened,
        is(1.0).select(
            contrasted(x, x.mean(&[2]), factors.contrast),
            is(2.0).select(saturated, turned(x, &extremes, theta)),
        ),
    );
    stepped.clamp(0.0, 1.0)
}

/// Jitter and grey for the images that drew them (reference O11, O12). At strength 0 each of the four operations is the identity,
/// whose clip stays.
pub(super) fn jitter_and_grey<'g>(
    x: Value<'g>,
    drawn: &ColourDraws<'g>,
    strength: f64,
    brightness: Brightness,
) -> Value<'g> {
    let _scope = x.graph().scope("colour");
    on_planes(x, |x| {
        let jittered = if strength == 0.0 {
            x.clamp(0.0, 1.0)
        } else {
            jitter_planes(x, &drawn.order, &drawn.factors, brightness)
        };
        let x = per_image(drawn.jittered, x).select(jittered, x);
        per_image(drawn.grey, x).select(per_pixel(luma(x), x), x)
    })
}

/// What is drawn for the colours of each view.
#[derive(Clone, Copy)]
pub struct ColourDraws<'g> {
    /// Whether the four operations are applied, pred `[n]`.
    pub jittered: Value<'g>,
    /// Their order.
    pub order: Order<'g>,
    /// Their parameters.
    pub factors: Factors<'g>,
    /// Whether colour is dropped, pred `[n]`.
    pub grey: Value<'g>,
}

impl<'g> ColourDraws<'g> {
    /// Draws with the laws of reference §2.3 at a strength.
    pub(super) fn new(draws: &Draws<'g>, strength: f64, brightness: Brightness) -> Self {
        let reach = 0.8 * strength;
        let (low, high) = (1.0 - reach, 1.0 + reach);
        ColourDraws {
            jittered: draws.happens(draws::JITTER, 0.8),
            order: random_order(draws),
            factors: Factors {
                brightness: match brightness {
                    Brightness::Multiplicative => {
                        draws.between(draws::BRIGHTNESS, low.max(0.0), high)
                    }
                    Brightness::Additive => draws.between(draws::BRIGHTNESS, -reach, reach),
                },
                contrast: draws.between(draws::CONTRAST, low, high),
                saturation: draws.between(draws::SATURATION, low, high),
                hue: draws.between(draws::HUE, -0.2 * strength, 0.2 * strength),
            },
            grey: draws.happens(draws::GREY, 0.2),
        }
    }
}

/// A uniform permutation of the four operations per image: one of 24, from a table.
fn random_order<'g>(draws: &Draws<'g>) -> Order<'g> {
    let bits = draws.bits(draws::ORDER);
    let graph = bits.graph();
    let n = bits.dim(0);
    let count = graph.full(&Shape::new(DType::S32, [n]), 24.0);
    let chosen = scaled(bits, count);
    let table = graph.constant(Literal::new(&[24, 4], &permutations()));
    let rows = table.take_rows(chosen);
    [0, 1, 2, 3].map(|i| rows.slice_dim(1, i, i + 1).reshape(&[n]))
}

/// The 24 orders of four operations, row-major `[24, 4]`.
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
