//! The host's part of the views, in plain Rust: where images are decoded on the host, it draws the box, cuts and resizes, and only
//! the finished crops cross to the device. The draws are those that the device would make, number for number; so are the boxes.

mod resize;

use super::crop::{AREA_LOW, ASPECT_HIGH, ASPECT_LOW, ATTEMPTS, COVERED, centre_crop};
use super::draws;
use crate::random::threefry2x32;
pub use resize::HostResize;

/// A part of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// The random numbers of a step's crops.
#[derive(Debug, Clone, Copy)]
pub struct HostDraws {
    key: [u32; 2],
}

impl HostDraws {
    /// For the step after `step` updates of the run with this seed.
    pub fn new(seed: u64, step: u32) -> Self {
        HostDraws {
            key: threefry2x32([seed as u32, (seed >> 32) as u32], [step, 0]),
        }
    }

    /// The random box of view `view` of the image at place `example` of the global batch, for square outputs (reference O3): up to
    /// 100 attempts, then the whole image.
    pub fn crop(&self, example: u32, view: u32, height: usize, width: usize) -> Area {
        let attempt = |number: u32| {
            let bits = |purpose: u32| {
                let word = view * 256 + number * 512 + purpose;
                threefry2x32(self.key, [example, word])[0]
            };
            attempt(bits, height as i32, width as i32)
        };
        (0..ATTEMPTS as u32).find_map(attempt).unwrap_or(Area {
            top: 0,
            left: 0,
            height,
            width,
        })
    }
}

/// One attempt of the sampler; the twin of `crop::attempt`.
fn attempt(bits: impl Fn(u32) -> u32, height: i32, width: i32) -> Option<Area> {
    let (rows, columns) = (height as f32, width as f32);
    let smallest = AREA_LOW * columns * rows;
    let largest = columns * rows;
    let uniform = (bits(draws::ASPECT) >> 9) as f32 * (1.0 / (1u32 << 23) as f32);
    let aspect = uniform * (ASPECT_HIGH - ASPECT_LOW) + ASPECT_LOW;
    let (low, high) = heights(aspect, height, width);
    let scaled = |bits: u32, count: i32| ((u64::from(bits) * count as u64) >> 32) as i32;
    let width_of = |h: i32| (h as f32 * aspect).round_ties_even() as i32;
    let area = |h: i32| h.wrapping_mul(width_of(h)) as f32;
    let mut h = low + scaled(bits(draws::HEIGHT), high - low + 1);
    if area(h) < smallest {
        h += 1;
    }
    if area(h) > largest {
        h -= 1;
    }
    let w = width_of(h);
    let size = area(h);
    let accepted = size >= smallest
        && size <= largest
        && w <= width
        && h <= height
        && w > 0
        && h > 0
        && size >= 1.0
        && size / largest >= COVERED;
    accepted.then(|| Area {
        top: scaled(bits(draws::TOP), (height - h).max(1)) as usize,
        left: scaled(bits(draws::LEFT), (width - w).max(1)) as usize,
        height: h as usize,
        width: w as usize,
    })
}

/// Lowest and highest box for an aspect (width over height); the twin of `crop::crop_geometry`.
fn heights(aspect: f32, height: i32, width: i32) -> (i32, i32) {
    let (h, w) = (height as f32, width as f32);
    let rounded = |area: f32| (area / aspect).sqrt().round_ties_even();
    let low = rounded(AREA_LOW * w * h);
    let mut high = rounded(w * h);
    if (high * aspect).round_ties_even() > w {
        high = ((f64::from(w) + 0.5 - f64::from(1e-7f32)) / f64::from(aspect)).floor() as f32;
        if (high * aspect).round_ties_even() > w {
            high -= 1.0;
        }
    }
    let high = high.min(h);
    (low.min(high) as i32, high as i32)
}

/// What evaluation cuts out for a square output (reference §2.4).
pub fn centre(height: usize, width: usize) -> Area {
    let [top, left, height, width] = centre_crop(height as i64, width as i64, 1, 1);
    // A single row or column has a centre of itself.
    Area {
        top: top as usize,
        left: left as usize,
        height: height.max(1) as usize,
        width: width.max(1) as usize,
    }
}

/// What evaluation cuts out of a picture for a network of side `size`: above 32 the centre (reference §2.4); up to 32 a picture of that
/// side stays as it is (§2.5), and of any other, which the original refuses, the centre is taken too.
pub fn evaluated(height: usize, width: usize, size: usize) -> Area {
    if size <= 32 && [height, width] == [size; 2] {
        return Area {
            top: 0,
            left: 0,
            height,
            width,
        };
    }
    centre(height, width)
}
