//! Normal draws, many side by side. Sums, products, quotients and roots of short arrays are all there is, which the compiler makes
//! vectors of; no function of the system's is called and no product fused with a sum, so that each processor draws the same bits.

use pulp::{Simd, WithSimd};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2, LN_2, PI, TAU};

use crate::random::{open_uniform, threefry2x32};

/// Draws side by side: several vectors of any processor's.
const SIDE: usize = 32;
/// Elements whose rejected draws are repeated together, so that those, too, come side by side; a multiple of `SIDE`.
const TOGETHER: usize = 64 * SIDE;

/// Draws to be made into `out`: of each element, the first attempt not beyond `limit`, by `scale`. All that it calls is inlined:
/// compiled for the vectors of the processor.
pub(super) struct Draws<'a> {
    pub key: [u32; 2],
    pub scale: f64,
    pub limit: f64,
    pub out: &'a mut [f32],
}

impl WithSimd for Draws<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Draws {
            key,
            scale,
            limit,
            out,
        } = self;
        // Places in a part of the result that still want a draw; those after `count` are left over, drawn to fill an array and not used.
        let mut wanted = [0; TOGETHER];
        for (part, out) in out.chunks_mut(TOGETHER).enumerate() {
            let first = (part * TOGETHER) as u32;
            for (place, wanted) in wanted.iter_mut().enumerate() {
                *wanted = place as u32;
            }
            let (mut count, mut attempt) = (out.len(), 0);
            while count > 0 {
                let mut rejected = 0;
                for begin in (0..count).step_by(SIDE) {
                    let mut places = [0; SIDE];
                    places.copy_from_slice(&wanted[begin..begin + SIDE]);
                    let values = normals(key, first, &places, attempt);
                    for (place, value) in places.into_iter().zip(values).take(count - begin) {
                        out[place as usize] = (scale * value) as f32;
                        // No branch: the next one takes this one's place unless it was rejected.
                        wanted[rejected] = place;
                        rejected += usize::from(value.abs() > limit);
                    }
                }
                count = rejected;
                attempt += 1;
            }
        }
    }
}

/// A standard normal draw (Box–Muller) of the element at each of the places that begin with the element `first`. Loops over the arrays and
/// not `map`, which is not inlined.
#[inline(always)]
fn normals(key: [u32; 2], first: u32, places: &[u32; SIDE], attempt: u32) -> [f64; SIDE] {
    let (mut a, mut b) = ([0; SIDE], [0; SIDE]);
    for i in 0..SIDE {
        [a[i], b[i]] = threefry2x32(key, [first + places[i], attempt]);
    }
    let mut values = [0.0; SIDE];
    for i in 0..SIDE {
        let radius = (-2.0 * ln(open_uniform(a[i]))).sqrt();
        values[i] = radius * cos(TAU * open_uniform(b[i]));
    }
    values
}

/// The logarithm of a positive number that is not subnormal, to about a unit in the last place: with x = 2ᵏ(1 + f), 1 + f in [√½, √2),
/// and s = f/(2 + f), it is k ln 2 + 2 artanh s, and 2 artanh s = f − (f²/2 − s(f²/2 + R)), where R is the rest of the series,
/// 2s²/3 + 2s⁴/5 + … (FreeBSD's msun, `e_log.c`; the coefficients here are Taylor's, and the first left out is 2⁻⁶⁰ of the sum).
#[inline(always)]
fn ln(x: f64) -> f64 {
    const LEAST: u64 = FRAC_1_SQRT_2.to_bits();
    const FRACTION: u64 = (1 << 52) - 1;
    // Few enough bits that their product with k is exact, and the rest.
    const HIGH: f64 = f64::from_bits(LN_2.to_bits() & !0x1f_ffff);
    const LOW: f64 = 1.908_214_929_270_587_7e-10;
    const SERIES: [f64; 10] = {
        let mut series = [0.0; 10];
        let mut n = 0;
        while n < 10 {
            series[n] = 2.0 / (2 * n + 3) as f64;
            n += 1;
        }
        series
    };
    let above = x.to_bits().wrapping_sub(LEAST);
    let k = f64::from((above as i64 >> 52) as i32);
    let f = f64::from_bits((above & FRACTION) + LEAST) - 1.0;
    let s = f / (2.0 + f);
    let half = 0.5 * f * f;
    let square = s * s;
    let rest = square * polynomial(&SERIES, square);
    k * HIGH + (f - (half - (s * (half + rest) + k * LOW)))
}

/// The cosine of an angle in [0, 2π], to two units in the last place: the sine of what it is past 3π/2, or short of π/2, by
/// Taylor's series (the first term left out is 2⁻⁵⁹ at most).
#[inline(always)]
fn cos(x: f64) -> f64 {
    // Few enough bits that a difference near zero is exact, and the rest.
    const HIGH: f64 = f64::from_bits(FRAC_PI_2.to_bits() & !0xf_ffff);
    const LOW: f64 = 6.077_100_506_506_192e-11;
    const SERIES: [f64; 10] = {
        let mut series = [0.0; 10];
        let (mut n, mut factorial) = (0, 1.0);
        while n < 10 {
            factorial *= -(((2 * n + 2) * (2 * n + 3)) as f64);
            series[n] = 1.0 / factorial;
            n += 1;
        }
        series
    };
    let past = if x > PI {
        (x - 3.0 * HIGH) - 3.0 * LOW
    } else {
        (HIGH - x) + LOW
    };
    let square = past * past;
    past + past * (square * polynomial(&SERIES, square))
}

/// Σ cₙxⁿ.
#[inline(always)]
fn polynomial(coefficients: &[f64; 10], x: f64) -> f64 {
    let mut sum = coefficients[9];
    for n in (0..9).rev() {
        sum = sum * x + coefficients[n];
    }
    sum
}
