//! Gradients of kernels.
#![expect(
    unsafe_code,
    reason = "transforms read and write by addresses; threads write to parts of one array"
)]

use super::super::kernel_gradient::{self, Product};
use super::super::shared::{Shared, four};
use super::super::vectors::Loops;
use super::transforms::{Grid, STEP, TAPS, Transforms, transforms};
use super::{Filter, POINTS, Points, TILES, split};
use crate::hlo::passes::WINOGRAD_GRADIENT_LOOP;
use crate::pjrt::{Call, Function};
use std::ops::Range;

/// Tiles that are worth a sum of their own, and how many such sums there are at most. Threads that share out inputs all transform all gradients
/// of outputs, those that share out tiles do not; but how many sums there are must not depend on the threads. Their number is a power of two, so
/// that two or four threads have as many each.
const SUMMED: usize = 2048;
const SUMS: usize = 8;

/// Does so many parts of some work, each once.
type Share<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// The function.
pub(in crate::loops) struct WinogradGradient;

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

impl Filter {
    /// The gradient of the kernel, by so many threads.
    pub(super) fn gradient(
        &self,
        loops: &Loops<kernel_gradient::Loop>,
        transforms: &Transforms,
        arrays: [&[f32]; 2],
        dw: &mut [f32],
        threads: usize,
        share: Share,
    ) {
        let sums = (self.tiles.count() / SUMMED).clamp(1, SUMS);
        let tiles = split(self.tiles.count(), 1 << sums.ilog2());
        let inputs = split(self.inputs, threads.div_ceil(tiles.len()));
        let size = dw.len();
        let mut several = vec![
            0.0;
            if tiles.len() > 1 {
                tiles.len() * size
            } else {
                0
            }
        ];
        let to = Shared::new(if tiles.len() > 1 {
            &mut several
        } else {
            &mut *dw
        });
        share(tiles.len() * inputs.len(), &|part| {
            let (sum, piece) = (part / inputs.len(), part % inputs.len());
            let (tiles, inputs) = (tiles[sum].clone(), inputs[piece].clone());
            self.sum(loops, transforms, arrays, &to, sum * size, tiles, inputs);
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
        let mut product = Product::new(loops, group, count, self.outputs);
        for start in tiles.clone().step_by(group) {
            let tiles = start..(start + group).min(tiles.end);
            self.see(transforms, x, inputs.clone(), tiles.clone(), &mut seen);
            self.give(transforms, dy, tiles.clone(), &mut given);
            if tiles.len() < group {
                product = Product::new(loops, tiles.len(), count, self.outputs);
            }
            for point in 0..POINTS {
                product.add([seen.of(point), given.of(point)], sums.of_mut(point));
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
