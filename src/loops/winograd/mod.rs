//! Convolutions of 3×3 kernels, forward and of the input's gradient, and gradients of such kernels, by Winograd's minimal filtering
//! `F(2×2, 3×3)` (Lavin and Gray, arXiv 1509.09308, section 4): 16 instead of 36 products for every 4 outputs.
//!
//! Outputs come in tiles of 2×2, which see 4×4 cells. Along a dimension two outputs of three taps are the transpose of a product of two
//! polynomials, found from values at four points. So cells and kernel are transformed, `V = Bᵀ d B` and `U = G g Gᵀ`; at each of 16 points a
//! matrix product over the inputs, `M = V · U`, is the convolution of 1×1 that [`super::convolution`] knows; and `Aᵀ M A` are the outputs. The
//! gradient of the kernel is the transpose of that: `Gᵀ (Σ Vᵀ · (A dy Aᵀ)) G`, a sum over all tiles.
//!
//! All factors are 0, ±1 and ½, so that forward rounding is 1.1 to 2.2 times that of [`super::convolution`] (docs/benchmarks.md), whose sums are short. A
//! number of an image that is infinite or none spoils all outputs of the tiles that see it. The order of every sum depends on shapes alone, not on
//! how many threads share the work.
#![expect(
    unsafe_code,
    reason = "transforms read and write by addresses; threads write to parts of one array"
)]

mod convolve;
mod gradient;
#[cfg(test)]
mod tests;
mod tiles;
mod transforms;

pub(super) use convolve::Winograd;
pub(super) use gradient::WinogradGradient;

use std::ops::Range;
use tiles::{Side, Tiles};
use transforms::{Grid, SIDE, Transforms};

/// Tiles that are transformed before their products, so that what these read is in the cache still. From 32 to 192 is alike for convolutions; the
/// gradient of a kernel of 64 channels takes longer with more.
const TILES: usize = 64;

/// Points of a tile.
const POINTS: usize = SIDE * SIDE;

/// Numbers behind those of a point, so that a tile's points do not all fall on the same lines of the cache.
const APART: usize = 16;

/// About so many ranges, alike but for the last one.
fn split(all: usize, parts: usize) -> Vec<Range<usize>> {
    let per = all.div_ceil(parts.max(1)).max(1);
    let starts = (0..all).step_by(per);
    starts.map(|start| start..(start + per).min(all)).collect()
}

/// A convolution of a 3×3 kernel.
struct Filter {
    tiles: Tiles,
    inputs: usize,
    outputs: usize,
}

impl Filter {
    /// That of NHWC images, `low` zeros before their rows and columns, to NHWO outputs.
    fn new(images: [usize; 4], outputs: [usize; 4], low: [usize; 2]) -> Self {
        let side = |i: usize| Side {
            size: images[1 + i],
            low: low[i],
            outputs: outputs[1 + i],
        };
        Filter {
            tiles: Tiles {
                images: images[0],
                rows: side(0),
                columns: side(1),
            },
            inputs: images[3],
            outputs: outputs[3],
        }
    }

    /// Transforms what tiles see of some inputs.
    fn see(
        &self,
        transforms: &Transforms,
        x: &[f32],
        inputs: Range<usize>,
        tiles: Range<usize>,
        into: &mut Points,
    ) {
        let count = inputs.len();
        let zeros = vec![0.0; count];
        for (i, tile) in self.tiles.range(tiles).enumerate() {
            let to = into.to(i * count, count);
            let place = |cell: usize, count: usize| {
                x[cell * self.inputs + inputs.start..][..count].as_ptr()
            };
            // SAFETY: the processor has the instructions, and there are so many numbers in each place.
            unsafe {
                if let Some(cell) = self.tiles.inside(tile) {
                    let row = self.tiles.columns.size * self.inputs;
                    let from = Grid {
                        start: place(cell, (SIDE - 1) * (row + self.inputs) + count),
                        row,
                        column: self.inputs,
                    };
                    (transforms.image)(&from, &to, count);
                    continue;
                }
                let mut from = [[zeros.as_ptr(); SIDE]; SIDE];
                for (from, row) in from.iter_mut().zip(self.tiles.cells(tile)) {
                    for (from, cell) in from.iter_mut().zip(row) {
                        *from = cell.map_or(zeros.as_ptr(), |cell| place(cell, count));
                    }
                }
                (transforms.image_at_border)(&from, &to, count);
            }
        }
    }
}

/// A matrix for each point.
struct Points {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Points {
    fn new(rows: usize, columns: usize) -> Self {
        Points {
            values: vec![0.0; POINTS * (rows * columns + APART)],
            rows,
            columns,
        }
    }

    fn place(&self, point: usize) -> Range<usize> {
        let start = point * self.apart();
        start..start + self.rows * self.columns
    }

    fn of(&self, point: usize) -> &[f32] {
        &self.values[self.place(point)]
    }

    fn of_mut(&mut self, point: usize) -> &mut [f32] {
        let place = self.place(point);
        &mut self.values[place]
    }

    /// Where so many numbers lie in the matrix of each point.
    fn from(&self, first: usize, count: usize) -> Grid<*const f32> {
        let Range { start, end } = self.places(first, count);
        Grid {
            start: self.values[start..end].as_ptr(),
            row: SIDE * self.apart(),
            column: self.apart(),
        }
    }

    /// The same, to write to.
    fn to(&mut self, first: usize, count: usize) -> Grid<*mut f32> {
        let Range { start, end } = self.places(first, count);
        Grid {
            start: self.values[start..end].as_mut_ptr(),
            row: SIDE * self.apart(),
            column: self.apart(),
        }
    }

    fn places(&self, first: usize, count: usize) -> Range<usize> {
        assert!(first + count <= self.rows * self.columns);
        first..(POINTS - 1) * self.apart() + first + count
    }

    /// From one point's matrix to the next one's.
    fn apart(&self) -> usize {
        self.rows * self.columns + APART
    }
}
