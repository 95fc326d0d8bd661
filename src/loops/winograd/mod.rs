//! Convolutions of 3×3 kernels, forward and of the input's gradient, and gradients of such kernels, by Winograd's minimal filtering
//! `F(2×2, 3×3)` (Lavin and Gray, arXiv 1509.09308, section 4): 16 instead of 36 products for every 4 outputs.
//!
//! Outputs come in tiles of 2×2, which see 4×4 cells. Along a dimension a tile's outputs are a product of two polynomials, found from its
//! values at four points. So cells and kernel are transformed, `V = Bᵀ d B` and `U = G g Gᵀ`; at each of 16 points a matrix product over the
//! inputs, `M = V · U`, is the convolution of 1×1 that [`super::convolution`] knows; and `Aᵀ M A` are the outputs. The gradient of the kernel
//! is the same turned round: `Gᵀ (Σ Vᵀ · (A dy Aᵀ)) G`, a sum over all tiles. All factors are 0, ±1 and ½, and fewer products make shorter sums:
//! rounding is that of the sum as it is written down. The order of every sum depends on shapes alone, not on how many threads share the work.
#![expect(
    unsafe_code,
    reason = "transforms read and write by addresses; threads write to parts of one array"
)]

#[cfg(test)]
mod tests;
mod tiles;
mod transforms;

use super::convolution;
use super::kernel_gradient;
use super::shared::{Shared, four};
use super::vectors::Loops;
use crate::hlo::passes::{WINOGRAD_GRADIENT_LOOP, WINOGRAD_LOOP};
use crate::pjrt::{Call, Function};
use std::ops::Range;
use tiles::{Side, Tiles};
use transforms::{Grid, SIDE, STEP, TAPS, Transforms, transforms};

/// Tiles that are transformed before their products, so that what these read is in the cache still. From 32 to 192 is alike for convolutions; a
/// kernel's gradient takes longer with more.
const TILES: usize = 64;

/// Tiles that are worth sums of their own of a kernel's gradient, and how often there are such: parts for threads, in which each tile is
/// transformed once.
const SUMMED: usize = 2048;
const SUMS: usize = 8;

/// Points of a tile.
const POINTS: usize = SIDE * SIDE;

/// Numbers behind those of a point, so that a tile's points do not all fall on the same lines of the cache.
const APART: usize = 16;

/// Inputs of a turned kernel that are read side by side.
const TURNED: usize = 16;

/// The function of convolutions.
pub(super) struct Winograd;

impl Function for Winograd {
    const NAME: &'static str = WINOGRAD_LOOP;

    /// Images NHWC and a 3×3 kernel HWIO; with attribute `turned`, 1, the kernel whose taps are turned round and whose inputs are its outputs
    /// (the gradient of an input). Attributes `low_rows` and `low_columns`, padding before the image. The result is NHWO.
    fn run(call: &mut Call) -> Result<(), String> {
        let (x, w) = (call.argument(0)?, call.argument(1)?);
        let turned = call.number("turned")? == 1;
        let low = [call.number("low_rows")?, call.number("low_columns")?];
        let sharing = call.sharing();
        let (dims, y) = call.result()?;
        let (images, outputs) = (four("images", x.dims)?, four("outputs", dims)?);
        let filter = Filter::new(images, outputs, low);
        let kernel = four("kernels", w.dims)?;
        let expected = match turned {
            true => [TAPS, TAPS, filter.outputs, filter.inputs],
            false => [TAPS, TAPS, filter.inputs, filter.outputs],
        };
        if images[0] != outputs[0] || kernel != expected {
            return Err(format!(
                "images {images:?} and kernel {kernel:?} do not make {outputs:?}"
            ));
        }
        let (loops, transforms) = (convolution::loops(), transforms());
        let mut points = Box::new_uninit_slice(POINTS * filter.inputs * filter.outputs);
        let shared = Shared::room(&mut points);
        cut(filter.inputs, sharing.parts(), |count, range| {
            sharing.share(count, &|part| {
                filter.transform_kernel(loops, transforms, w.values, turned, &shared, range(part));
            });
        });
        // SAFETY: of every input, at every point, all outputs have been written.
        let points = unsafe { points.assume_init() };
        let y = Shared::new(y);
        cut(filter.tiles.count(), sharing.parts(), |count, range| {
            sharing.share(count, &|part| {
                filter.convolve(loops, transforms, x.values, &points, &y, range(part));
            });
        });
        Ok(())
    }
}

/// The function of kernels' gradients.
pub(super) struct WinogradGradient;

impl Function for WinogradGradient {
    const NAME: &'static str = WINOGRAD_GRADIENT_LOOP;

    /// Images NHWC, the gradient of outputs NHWK, attributes `low_rows` and `low_columns` (padding before the image); the result is the
    /// gradient of a 3×3 kernel HWIO.
    fn run(call: &mut Call) -> Result<(), String> {
        let (x, dy) = (call.argument(0)?, call.argument(1)?);
        let low = [call.number("low_rows")?, call.number("low_columns")?];
        let sharing = call.sharing();
        let (dims, dw) = call.result()?;
        let (images, outputs) = (four("images", x.dims)?, four("outputs", dy.dims)?);
        let filter = Filter::new(images, outputs, low);
        let kernel = four("kernels", dims)?;
        if images[0] != outputs[0] || kernel != [TAPS, TAPS, filter.inputs, filter.outputs] {
            return Err(format!(
                "images {images:?} and outputs {outputs:?} do not make a kernel {kernel:?}"
            ));
        }
        let loops = kernel_gradient::loops();
        let arrays = [x.values, dy.values];
        let share: Share = &|parts, work| sharing.share(parts, work);
        filter.gradient(loops, transforms(), arrays, dw, sharing.parts(), share);
        Ok(())
    }
}

/// Does so many parts of some work, each once.
type Share<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// Shares `all` out into about so many ranges: how many, and which.
fn cut(all: usize, parts: usize, to: impl FnOnce(usize, &(dyn Fn(usize) -> Range<usize> + Sync))) {
    let per = all.div_ceil(parts.max(1)).max(1);
    to(all.div_ceil(per), &|part| {
        part * per..((part + 1) * per).min(all)
    });
}

/// A convolution of a 3×3 kernel.
struct Filter {
    tiles: Tiles,
    inputs: usize,
    outputs: usize,
}

impl Filter {
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

    /// Writes the points of the kernel's rows of some inputs: for each point, and each block of outputs that a product takes at once, a matrix.
    fn transform_kernel(
        &self,
        loops: &Loops<convolution::Loop>,
        transforms: &Transforms,
        w: &[f32],
        turned: bool,
        points: &Shared,
        inputs: Range<usize>,
    ) {
        let mut rows = vec![
            0.0;
            if turned {
                TAPS * TAPS * TURNED * loops.width()
            } else {
                0
            }
        ];
        for first in (0..self.outputs).step_by(loops.width()) {
            let count = loops.width().min(self.outputs - first);
            for input in inputs.clone() {
                let beside = (input - inputs.start) % TURNED;
                if turned && beside == 0 {
                    let some = input..(input + TURNED).min(inputs.end);
                    self.turn(w, some, first..first + count, &mut rows);
                }
                // Where the first tap lies, and how far apart they are.
                let (rows, place, apart) = match turned {
                    true => (&rows[..], beside * count, TURNED * count),
                    false => (w, input * self.outputs + first, self.inputs * self.outputs),
                };
                let last = place + (TAPS * TAPS - 1) * apart;
                let taps = Grid {
                    start: rows[place..last + count].as_ptr(),
                    row: TAPS * apart,
                    column: apart,
                };
                let matrix = self.inputs * self.outputs;
                let place = first * self.inputs + input * count;
                let to = Grid {
                    start: points.part(place, (POINTS - 1) * matrix + count),
                    row: SIDE * matrix,
                    column: matrix,
                };
                // SAFETY: the processor has the instructions, or the function would not be registered; a tap and a point have so many numbers
                // there, and only this thread has this input's.
                unsafe { (transforms.kernel)(&taps, &to, count) };
            }
        }
    }

    /// Writes rows `[tap, input, output]` of the kernel turned round, whose inputs are the outputs of `w`.
    fn turn(&self, w: &[f32], inputs: Range<usize>, outputs: Range<usize>, rows: &mut [f32]) {
        let last = TAPS * TAPS - 1;
        for tap in 0..=last {
            let rows = &mut rows[tap * TURNED * outputs.len()..];
            for (column, output) in outputs.clone().enumerate() {
                let from = &w[((last - tap) * self.outputs + output) * self.inputs..];
                for (row, value) in from[inputs.clone()].iter().enumerate() {
                    rows[row * outputs.len() + column] = *value;
                }
            }
        }
    }

    /// Outputs of some tiles.
    fn convolve(
        &self,
        loops: &Loops<convolution::Loop>,
        transforms: &Transforms,
        x: &[f32],
        points: &[f32],
        y: &Shared,
        tiles: Range<usize>,
    ) {
        let group = TILES.min(tiles.len());
        let width = loops.width().min(self.outputs);
        let mut seen = Points::new(group, self.inputs);
        let mut sums = Points::new(group, width);
        let mut left_out = vec![0.0; width];
        let left_out = left_out.as_mut_ptr();
        for start in tiles.clone().step_by(group) {
            let tiles = start..(start + group).min(tiles.end);
            self.see(transforms, x, 0..self.inputs, tiles.clone(), &mut seen);
            for first in (0..self.outputs).step_by(loops.width()) {
                let count = width.min(self.outputs - first);
                let product = convolution::Convolution::product(self.inputs, count);
                let rows: Vec<[usize; 2]> = (0..tiles.len())
                    .map(|i| [i * self.inputs, i * count])
                    .collect();
                for point in 0..POINTS {
                    let matrix = (point * self.outputs + first) * self.inputs;
                    let matrix = &points[matrix..matrix + self.inputs * count];
                    let sums = Shared::new(sums.of_mut(point));
                    product.multiply(loops, seen.of(point), matrix, &sums, &rows);
                }
                for (i, tile) in self.tiles.range(tiles.clone()).enumerate() {
                    let from = sums.from(i * count, count);
                    let place =
                        |output: usize, count: usize| y.part(output * self.outputs + first, count);
                    // SAFETY: the processor has the instructions; there are so many numbers in each place, and a tile's outputs are this thread's.
                    unsafe {
                        if let Some(output) = self.tiles.whole(tile) {
                            let row = self.tiles.columns.outputs * self.outputs;
                            let to = Grid {
                                start: place(output, row + self.outputs + count),
                                row,
                                column: self.outputs,
                            };
                            (transforms.outputs)(&from, &to, count);
                            continue;
                        }
                        let mut to = [[left_out; STEP]; STEP];
                        for (to, row) in to.iter_mut().zip(self.tiles.outputs(tile)) {
                            for (to, output) in to.iter_mut().zip(row) {
                                *to = output.map_or(left_out, |output| place(output, count));
                            }
                        }
                        (transforms.outputs_at_border)(&from, &to, count);
                    }
                }
            }
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

    /// The gradient of the kernel, by so many threads. Sums of many tiles are summed up in [`SUMS`] ranges at most, whatever the threads, and
    /// inputs are shared out among those that are left.
    fn gradient(
        &self,
        loops: &Loops<kernel_gradient::Loop>,
        transforms: &Transforms,
        arrays: [&[f32]; 2],
        dw: &mut [f32],
        threads: usize,
        share: Share,
    ) {
        let sums = (self.tiles.count() / SUMMED).clamp(1, SUMS);
        let sums = 1 << sums.ilog2();
        let mut several = vec![0.0; if sums > 1 { sums * dw.len() } else { 0 }];
        let size = dw.len();
        let to = Shared::new(if sums > 1 { &mut several } else { &mut *dw });
        cut(self.tiles.count(), sums, |sums, tiles| {
            cut(self.inputs, threads.div_ceil(sums), |pieces, inputs| {
                share(sums * pieces, &|part| {
                    let (sum, piece) = (part / pieces, part % pieces);
                    let place = sum * size;
                    self.sum(
                        loops,
                        transforms,
                        arrays,
                        &to,
                        place,
                        tiles(sum),
                        inputs(piece),
                    );
                });
            });
        });
        let mut several = several.chunks_exact(size);
        if let Some(first) = several.next() {
            dw.copy_from_slice(first);
        }
        for sum in several {
            for (total, value) in dw.iter_mut().zip(sum) {
                *total += value;
            }
        }
    }

    /// What some tiles give to the gradient of some inputs' rows of the kernel, to a kernel in its place.
    #[expect(clippy::too_many_arguments, reason = "two arrays, and what of them")]
    fn sum(
        &self,
        loops: &Loops<kernel_gradient::Loop>,
        transforms: &Transforms,
        [x, dy]: [&[f32]; 2],
        dw: &Shared,
        place: usize,
        tiles: Range<usize>,
        inputs: Range<usize>,
    ) {
        let count = inputs.len();
        let group = TILES.min(tiles.len());
        let mut seen = Points::new(group, count);
        let mut given = Points::new(group, self.outputs);
        let mut sums = Points::new(count, self.outputs);
        for start in tiles.clone().step_by(group) {
            let tiles = start..(start + group).min(tiles.end);
            self.see(transforms, x, inputs.clone(), tiles.clone(), &mut seen);
            self.give(transforms, dy, tiles.clone(), &mut given);
            let product = kernel_gradient::Product::new(loops, tiles.len(), count, self.outputs);
            for point in 0..POINTS {
                let sums = Shared::new(sums.of_mut(point));
                product.add(loops, [seen.of(point), given.of(point)], &sums);
            }
        }
        for (row, input) in inputs.enumerate() {
            let from = sums.from(row * self.outputs, self.outputs);
            let tap = self.inputs * self.outputs;
            let to = Grid {
                start: dw.part(
                    place + input * self.outputs,
                    (TAPS * TAPS - 1) * tap + self.outputs,
                ),
                row: TAPS * tap,
                column: tap,
            };
            // SAFETY: the processor has the instructions; there are so many numbers in each place, and an input's are this thread's.
            unsafe { (transforms.of_kernel)(&from, &to, self.outputs) };
        }
    }

    /// Transforms the gradients of tiles' outputs.
    fn give(&self, transforms: &Transforms, dy: &[f32], tiles: Range<usize>, into: &mut Points) {
        let count = self.outputs;
        let zeros = vec![0.0; count];
        for (i, tile) in self.tiles.range(tiles).enumerate() {
            let to = into.to(i * count, count);
            // SAFETY: the processor has the instructions, and there are so many numbers in each place.
            unsafe {
                if let Some(output) = self.tiles.whole(tile) {
                    let row = self.tiles.columns.outputs * count;
                    let from = Grid {
                        start: dy[output * count..][..row + 2 * count].as_ptr(),
                        row,
                        column: count,
                    };
                    (transforms.gradient)(&from, &to, count);
                    continue;
                }
                let mut from = [[zeros.as_ptr(); STEP]; STEP];
                for (from, row) in from.iter_mut().zip(self.tiles.outputs(tile)) {
                    for (from, output) in from.iter_mut().zip(row) {
                        *from = output.map_or(zeros.as_ptr(), |output| {
                            dy[output * count..][..count].as_ptr()
                        });
                    }
                }
                (transforms.gradient_at_border)(&from, &to, count);
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
