//! Resizing on the host, of bytes to bytes: first rows, then columns, a row of the result at a time.

use pulp::{Arch, Simd, WithSimd};

use super::Area;
use crate::augment::ResizeKernel;
use crate::augment::resize::PARTS;

/// Bicubic resizing to squares, as the device's (reference O5), of bytes to bytes.
#[derive(Debug)]
pub struct HostResize {
    kernel: ResizeKernel,
    table: Vec<f32>,
    size: usize,
    /// The widest vectors of this processor; what is computed does not depend on it.
    arch: Arch,
}

/// Where the pixels of an axis come from: each from as many as there are `taps`, which follow each other. Those outside are the edge.
struct Axis {
    taps: usize,
    first: Vec<isize>,
    /// `[size, taps]`.
    weights: Vec<f32>,
}

/// Pixels outside that taps reach, at most, on each side.
const EDGE: usize = 2;

impl HostResize {
    /// To squares of this size.
    pub fn new(kernel: ResizeKernel, size: usize) -> Self {
        HostResize {
            kernel,
            table: kernel.table(),
            size,
            arch: Arch::new(),
        }
    }

    /// Side of the results.
    pub fn size(&self) -> usize {
        self.size
    }

    fn axis(&self, length: usize) -> Axis {
        match self.kernel {
            ResizeKernel::Antialiased => antialiased(length, self.size),
            kernel => self.interpolated(kernel, length),
        }
    }

    /// Of the original's kernels: four taps, whose weights are read from a table.
    fn interpolated(&self, kernel: ResizeKernel, length: usize) -> Axis {
        let scale = length as f32 / self.size as f32;
        let (mut first, mut weights) = (Vec::new(), Vec::new());
        for output in 0..self.size {
            let position = match kernel {
                ResizeKernel::V1Legacy => output as f32 * scale,
                _ => (output as f32 + 0.5) * scale - 0.5,
            };
            let base = position.floor();
            let part = ((position - base) * PARTS as f32).round_ties_even() as usize;
            let begin = base as isize - 1;
            let mut found = [0.0; 4];
            for (number, weight) in self.table[part * 4..part * 4 + 4].iter().enumerate() {
                let inside = (0..length as isize).contains(&(begin + number as isize));
                if kernel == ResizeKernel::V1Legacy || inside {
                    found[number] = *weight;
                }
            }
            if kernel != ResizeKernel::V1Legacy {
                let inverse = 1.0 / found.iter().sum::<f32>();
                found.iter_mut().for_each(|weight| *weight *= inverse);
            }
            first.push(begin);
            weights.extend(found);
        }
        Axis {
            taps: 4,
            first,
            weights,
        }
    }

    /// Cuts `area` out of an image u8 `[height, width, 3]` and resizes it to `out`, u8 `[size, size, 3]`.
    ///
    /// # Panics
    /// If the area does not lie in the image, or `out` has another size.
    pub fn crop(&self, image: &[u8], width: usize, area: Area, out: &mut [u8]) {
        assert_eq!(out.len(), self.size * self.size * 3, "a square of the size");
        let (rows, columns) = (self.axis(area.height), self.axis(area.width));
        self.arch.dispatch(Cut {
            image,
            width,
            area,
            rows: &rows,
            columns: &columns,
            out,
        });
    }
}

/// Weights of a cubic that is as much wider as pixels become fewer, within the area.
fn antialiased(length: usize, size: usize) -> Axis {
    let scale = length as f64 / size as f64;
    let stretch = scale.max(1.0);
    let reach = 2.0 * stretch;
    let taps = (2 * reach.ceil() as usize + 1).min(length);
    let (mut first, mut weights) = (Vec::new(), Vec::new());
    for output in 0..size {
        let centre = (output as f64 + 0.5) * scale;
        let begin = (centre - reach + 0.5).floor().max(0.0) as usize;
        let begin = begin.min(length - taps);
        let found: Vec<f64> = (begin..begin + taps)
            .map(|place| ResizeKernel::cubic((place as f64 + 0.5 - centre) / stretch))
            .collect();
        let sum: f64 = found.iter().sum();
        first.push(begin as isize);
        weights.extend(found.iter().map(|weight| (weight / sum) as f32));
    }
    Axis {
        taps,
        first,
        weights,
    }
}

/// What is to be cut. All that it calls is inlined: compiled for the vectors of the processor.
struct Cut<'a> {
    image: &'a [u8],
    width: usize,
    area: Area,
    rows: &'a Axis,
    columns: &'a Axis,
    out: &'a mut [u8],
}

impl WithSimd for Cut<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Cut {
            image,
            width,
            area,
            rows,
            columns,
            out,
        } = self;
        let size = rows.first.len();
        let bytes = area.width * 3;
        // Rows of the picture as numbers, each at its number modulo the taps: those of a row of the result follow each other, and most of
        // them are those of the row before.
        let mut held = vec![(usize::MAX, Vec::new()); rows.taps];
        // A row of the area with its edges, and one of the result: a number more each, so that a pixel can be handled as four numbers.
        let mut line = vec![0f32; bytes + 2 * 3 * EDGE + 1];
        let mut found = vec![0f32; size * 3 + 1];
        let inner = 3 * EDGE..3 * EDGE + bytes;
        let last = area.height as isize - 1;
        for ((&first, weights), out) in rows
            .first
            .iter()
            .zip(rows.weights.chunks_exact(rows.taps))
            .zip(out.chunks_exact_mut(size * 3))
        {
            let places = (0..rows.taps as isize).map(|tap| (first + tap).clamp(0, last) as usize);
            for place in places.clone() {
                let (number, values) = &mut held[place % rows.taps];
                if *number != place {
                    *number = place;
                    values.resize(bytes, 0f32);
                    let row = (area.top + place) * width + area.left;
                    for (value, &byte) in values.iter_mut().zip(&image[row * 3..][..bytes]) {
                        *value = f32::from(byte);
                    }
                }
            }
            let taken: Vec<&[f32]> = places
                .map(|place| &held[place % rows.taps].1[..bytes])
                .collect();
            blend(&taken, weights, &mut line[inner.clone()]);
            for edge in 0..EDGE {
                line.copy_within(inner.start..inner.start + 3, 3 * edge);
                line.copy_within(inner.end - 3..inner.end, inner.end + 3 * edge);
            }
            // The fourth number is the next pixel's to write.
            let begins = columns
                .first
                .iter()
                .map(|first| 3 * (first + EDGE as isize) as usize);
            if columns.taps == 4 {
                let (weights, _) = columns.weights.as_chunks();
                for (pixel, (begin, weights)) in begins.zip(weights).enumerate() {
                    found[pixel * 3..pixel * 3 + 4].copy_from_slice(&four(&line[begin..], weights));
                }
            } else {
                let weights = columns.weights.chunks_exact(columns.taps);
                for (pixel, (begin, weights)) in begins.zip(weights).enumerate() {
                    found[pixel * 3..pixel * 3 + 4].copy_from_slice(&sums(&line[begin..], weights));
                }
            }
            for (byte, sum) in out.iter_mut().zip(&found) {
                *byte = byte_of(*sum);
            }
        }
    }
}

/// The nearest byte, a half up: `(sum + 0.5) as u8` in operations that vectors have.
#[inline(always)]
fn byte_of(sum: f32) -> u8 {
    // To this power of two added, a number is rounded to a whole one, which its last bits then are.
    const WHOLE: f32 = (1 << 23) as f32;
    let sum = (sum + 0.5).clamp(0.0, 255.5);
    let whole = (sum + WHOLE) - WHOLE;
    let whole = if whole > sum { whole - 1.0 } else { whole };
    (whole + WHOLE).to_bits() as u8
}

/// The sum of rows by their weights.
#[inline(always)]
fn blend(rows: &[&[f32]], weights: &[f32], line: &mut [f32]) {
    if let (&[a, b, c, d], &[wa, wb, wc, wd]) = (rows, weights) {
        for ((((value, a), b), c), d) in line.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *value = a * wa + b * wb + c * wc + d * wd;
        }
        return;
    }
    line.fill(0.0);
    for (row, weight) in rows.iter().zip(weights) {
        for (value, pixel) in line.iter_mut().zip(*row) {
            *value += pixel * weight;
        }
    }
}

/// The sum of four pixels by their weights, and of a fourth number beside each.
#[inline(always)]
fn four(part: &[f32], weights: &[f32; 4]) -> [f32; 4] {
    let part: &[f32; 13] = part[..13].try_into().expect("thirteen");
    let [a, b, c, d] = *weights;
    let mut sums = [0f32; 4];
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = part[i] * a + part[i + 3] * b + part[i + 6] * c + part[i + 9] * d;
    }
    sums
}

/// The sum of pixels by their weights, and of a fourth number beside each.
#[inline(always)]
fn sums(part: &[f32], weights: &[f32]) -> [f32; 4] {
    let mut sums = [0f32; 4];
    for (pixel, weight) in part.windows(4).step_by(3).zip(weights) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += value * weight;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Anything but smooth, so that every tap counts.
    fn noise(height: usize, width: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..height * width * 3)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    }

    /// Each number of the result by itself, in double precision, from the definition of the kernel.
    fn plain(
        kernel: ResizeKernel,
        image: &[u8],
        width: usize,
        area: Area,
        size: usize,
    ) -> Vec<f64> {
        let cubic = |a: f64, x: f64| match x.abs() {
            x if x < 1.0 => (a + 2.0) * x * x * x - (a + 3.0) * x * x + 1.0,
            x if x < 2.0 => a * x * x * x - 5.0 * a * x * x + 8.0 * a * x - 4.0 * a,
            _ => 0.0,
        };
        let weights = |output: usize, length: usize| -> Vec<(usize, f64)> {
            let scale = length as f64 / size as f64;
            let (centre, a, stretch) = match kernel {
                ResizeKernel::V1Legacy => (output as f64 * scale, -0.75, 1.0),
                ResizeKernel::V2HalfPixel => ((output as f64 + 0.5) * scale - 0.5, -0.5, 1.0),
                ResizeKernel::Antialiased => {
                    ((output as f64 + 0.5) * scale - 0.5, -0.5, scale.max(1.0))
                }
            };
            let reach = 40;
            let base = centre.floor() as i64;
            let mut found = Vec::new();
            for place in base - reach..=base + reach {
                let weight = cubic(a, (place as f64 - centre) / stretch);
                let inside = (0..length as i64).contains(&place);
                if inside || kernel == ResizeKernel::V1Legacy {
                    found.push((place.clamp(0, length as i64 - 1) as usize, weight));
                }
            }
            let sum: f64 = found.iter().map(|(_, weight)| weight).sum();
            found
                .iter()
                .map(|(place, weight)| (*place, weight / sum))
                .collect()
        };
        let mut out = Vec::new();
        for row in 0..size {
            for column in 0..size {
                for channel in 0..3 {
                    let mut sum = 0.0;
                    for (y, a) in weights(row, area.height) {
                        for (x, b) in weights(column, area.width) {
                            let at = ((area.top + y) * width + area.left + x) * 3 + channel;
                            sum += a * b * f64::from(image[at]);
                        }
                    }
                    out.push(sum);
                }
            }
        }
        out
    }

    #[test]
    fn crops_are_those_of_the_definition() {
        let (height, width) = (61, 83);
        let image = noise(height, width);
        let area = |top, left, height, width| Area {
            top,
            left,
            height,
            width,
        };
        let kernels = [
            ResizeKernel::V1Legacy,
            ResizeKernel::V2HalfPixel,
            ResizeKernel::Antialiased,
        ];
        for kernel in kernels {
            for (size, area) in [
                (16, area(0, 0, height, width)),
                (12, area(5, 20, 37, 41)),
                (24, area(60, 0, 1, 83)),
                (24, area(0, 82, 61, 1)),
                (9, area(3, 4, 2, 3)),
                (7, area(30, 40, 7, 7)),
            ] {
                let mut out = vec![0; size * size * 3];
                HostResize::new(kernel, size).crop(&image, width, area, &mut out);
                let expected = plain(kernel, &image, width, area, size);
                let mut worst = 0f64;
                for (&found, expected) in out.iter().zip(expected) {
                    let expected = expected.clamp(0.0, 255.0);
                    worst = worst.max((f64::from(found) - expected).abs());
                }
                // Half a grey level of rounding; the original's kernels also round fractions to a part in 1024.
                let allowed = match kernel {
                    ResizeKernel::Antialiased => 0.501,
                    _ => 1.1,
                };
                assert!(
                    worst <= allowed,
                    "{kernel:?} to {size} of {area:?}: {worst}"
                );
            }
        }
    }

    /// The widest vectors and none give the same bytes.
    #[test]
    fn crops_do_not_depend_on_the_processor() {
        let (height, width, size) = (157, 203, 40);
        let image = noise(height, width);
        let area = Area {
            top: 3,
            left: 8,
            height: 150,
            width: 190,
        };
        for kernel in [
            ResizeKernel::V1Legacy,
            ResizeKernel::V2HalfPixel,
            ResizeKernel::Antialiased,
        ] {
            let mut resize = HostResize::new(kernel, size);
            let mut results = [(); 2].map(|()| vec![0; size * size * 3]);
            resize.crop(&image, width, area, &mut results[0]);
            resize.arch = Arch::Scalar;
            resize.crop(&image, width, area, &mut results[1]);
            assert!(results[0] == results[1], "{kernel:?}");
        }
    }
}
