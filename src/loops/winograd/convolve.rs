//! Convolutions.
#![expect(
    unsafe_code,
    reason = "transforms read and write by addresses; threads write to parts of one array"
)]

use super::super::convolution::{self, Product};
use super::super::shared::{Shared, four};
use super::super::vectors::Loops;
use super::transforms::{Grid, SIDE, STEP, TAPS, Transforms, transforms};
use super::{Filter, POINTS, Points, TILES, split};
use crate::hlo::passes::WINOGRAD_LOOP;
use crate::pjrt::{Call, Function};
use std::ops::Range;

/// Inputs of a turned kernel that are read side by side: a line of the cache.
const TURNED: usize = 16;

/// Tiles that are worth a part for a thread, which reads the whole transformed kernel.
const FEWEST: usize = 16;

/// The function.
pub(in crate::loops) struct Winograd;

impl Function for Winograd {
    const NAME: &'static str = WINOGRAD_LOOP;

    /// Images NHWC and a 3×3 kernel HWIO; with attribute `turned`, 1, the kernel whose taps are turned round and whose inputs are its outputs
    /// (the gradient of an input). Attributes `low_rows` and `low_columns`, padding before the image. The result is NHWO.
    fn run(call: &mut Call) -> Result<(), String> {
        let (x, w) = (call.argument(0)?, call.argument(1)?);
        let turned = match call.number("turned")? {
            0 => false,
            1 => true,
            other => return Err(format!("`turned` is {other}, expected 0 or 1")),
        };
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
            let turned = if turned { "turned " } else { "" };
            return Err(format!(
                "images {images:?} and {turned}kernel {kernel:?} do not make {outputs:?}"
            ));
        }
        let (loops, transforms) = (convolution::loops(), transforms());
        // Not filled with zeros first, which takes as long as transforming a kernel of 512 channels does.
        let mut points = Box::new_uninit_slice(POINTS * filter.inputs * filter.outputs);
        let shared = Shared::room(&mut points);
        let parts = split(filter.inputs, sharing.parts());
        sharing.share(parts.len(), &|part| {
            let inputs = parts[part].clone();
            filter.transform_kernel(loops, transforms, w.values, turned, &shared, inputs);
        });
        // SAFETY: of every input, at every point, all outputs have been written.
        let points = unsafe { points.assume_init() };
        let y = Shared::new(y);
        let tiles = filter.tiles.count();
        let parts = split(tiles, sharing.parts().min(tiles.div_ceil(FEWEST)));
        sharing.share(parts.len(), &|part| {
            let tiles = parts[part].clone();
            filter.convolve(loops, transforms, x.values, &points, &y, tiles);
        });
        Ok(())
    }
}

impl Filter {
    /// Writes the points of the kernel's rows of some inputs: for each point, and each block of outputs that a product takes at once, a matrix.
    pub(super) fn transform_kernel(
        &self,
        loops: &Loops<convolution::Loop>,
        transforms: &Transforms,
        w: &[f32],
        turned: bool,
        points: &Shared,
        inputs: Range<usize>,
    ) {
        let width = loops.width().min(self.outputs);
        let room = if turned {
            TAPS * TAPS * TURNED * width
        } else {
            0
        };
        let mut rows = vec![0.0; room];
        for first in (0..self.outputs).step_by(width) {
            let count = width.min(self.outputs - first);
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
    pub(super) fn convolve(
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
        let blocks = (0..self.outputs).step_by(width).map(|first| {
            let count = width.min(self.outputs - first);
            (first, Product::new(loops, self.inputs, count))
        });
        let blocks: Vec<(usize, Product)> = blocks.collect();
        let mut seen = Points::new(group, self.inputs);
        let mut sums = Points::new(group, width);
        let mut left_out = vec![0.0; width];
        let left_out = left_out.as_mut_ptr();
        for start in tiles.clone().step_by(group) {
            let tiles = start..(start + group).min(tiles.end);
            self.see(transforms, x, 0..self.inputs, tiles.clone(), &mut seen);
            for (first, product) in &blocks {
                let (first, count) = (*first, product.outputs());
                for point in 0..POINTS {
                    let matrix = (point * self.outputs + first) * self.inputs;
                    let matrix = &points[matrix..matrix + self.inputs * count];
                    product.multiply(tiles.len(), seen.of(point), matrix, sums.of_mut(point));
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
}
