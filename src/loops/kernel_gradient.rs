//! The gradient of a convolution's kernel: a product over all pixels, `dw[tap, c, k] = Σ x[pixel + tap, c] · dy[pixel, k]`.
//!
//! A block of `dw` stays in registers, inputs by 16 outputs each, while pixels go by: each number of `x` is multiplied with whole vectors
//! of `dy`. Nothing is packed, shifted or transposed: a tap reads the pixels that it meets where they lie, those of the border are left
//! out. Pixels come in groups small enough for the cache to hold while all blocks pass over them. The order of every sum depends on
//! shapes alone, not on how many threads share the work.
#![expect(
    unsafe_code,
    reason = "vector instructions, and threads that write to parts of one array"
)]

use super::shared::{Shared, four};
use super::vectors::{Avx2, Avx512, GROUP, Loops, Vectors, load, loops, store};
use crate::hlo::passes::KERNEL_GRADIENT_LOOP;
use crate::pjrt::{Call, Function};
use std::ops::Range;

/// Channels from which a block has one tap. Fewer would leave registers empty, so that a block then takes neighbouring taps, too, for the
/// outputs that meet them all.
const CHANNELS: usize = 16;

/// The function.
pub(super) struct KernelGradient;

impl Function for KernelGradient {
    const NAME: &'static str = KERNEL_GRADIENT_LOOP;

    /// Images NHWC, the gradient of outputs NHWK, attributes `stride`, `low_rows` and `low_columns` (padding before the image); the result
    /// is the gradient of an HWIO kernel.
    fn run(call: &mut Call) -> Result<(), String> {
        let (x, dy) = (call.argument(0)?, call.argument(1)?);
        let stride = call.number("stride")?;
        let low = [call.number("low_rows")?, call.number("low_columns")?];
        let sharing = call.sharing();
        let (dims, dw) = call.result()?;
        let (images, outputs) = (four("images", x.dims)?, four("outputs", dy.dims)?);
        let kernel = four("kernels", dims)?;
        if stride == 0 || images[0] != outputs[0] || kernel[2..] != [images[3], outputs[3]] {
            return Err(format!(
                "images {images:?} and outputs {outputs:?} do not make a kernel {kernel:?}"
            ));
        }
        let side = |i: usize| Side {
            size: images[1 + i],
            outputs: outputs[1 + i],
            stride,
            low: low[i],
        };
        let convolution = Convolution {
            images: images[0],
            rows: side(0),
            columns: side(1),
            taps: [kernel[0], kernel[1]],
            inputs: kernel[2],
            outputs: kernel[3],
        };
        dw.fill(0.0);
        let (arrays, dw) = ([x.values, dy.values], Shared::new(dw));
        let parts = convolution.parts(loops(), sharing.parts());
        sharing.share(parts.len(), &|part| {
            convolution.add(loops(), &parts[part], arrays, &dw);
        });
        Ok(())
    }
}

/// One direction of a convolution: an input of `size` cells, `low` zeros before it, and `outputs` cells `stride` apart.
#[derive(Debug, Clone, Copy)]
struct Side {
    size: usize,
    outputs: usize,
    stride: usize,
    low: usize,
}

impl Side {
    /// The outputs that see a cell of the input, not of its border, through the tap.
    fn outputs(&self, tap: usize) -> Range<usize> {
        let first = self.low.saturating_sub(tap).div_ceil(self.stride);
        let end = (self.size + self.low)
            .saturating_sub(tap)
            .div_ceil(self.stride);
        first..end.min(self.outputs).max(first)
    }

    /// The cell that an output sees through the tap.
    fn input(&self, output: usize, tap: usize) -> usize {
        output * self.stride + tap - self.low
    }
}

/// What is differentiated by its kernel.
struct Convolution {
    images: usize,
    rows: Side,
    columns: Side,
    taps: [usize; 2],
    inputs: usize,
    outputs: usize,
}

/// A block of the result: a row of taps, `inputs` numbers that follow each other there from `first` on, and vectors of outputs; and the
/// pixels of a row of which it is the sum.
struct Block {
    row: usize,
    first: usize,
    inputs: usize,
    output: usize,
    columns: Range<usize>,
    /// The first number of `x` in a row that the first pixel meets.
    start: usize,
}

/// What a block passes over: images, rows, columns, and how far apart they lie in `x` and in `dy`.
struct Pass {
    counts: [usize; 3],
    x: [usize; 3],
    dy: [usize; 3],
}

/// A block and its pixels.
pub(super) struct Work<'a> {
    pass: &'a Pass,
    /// Numbers between rows of the block in the result.
    outputs: usize,
    /// Lanes of the last vector that are outputs.
    last: usize,
    x: *const f32,
    dy: *const f32,
    dw: *mut f32,
}

/// A sum over pixels of products of their inputs with their outputs: the gradient of a 1×1 kernel.
pub(super) struct Product<'l> {
    loops: &'l Loops<Loop>,
    convolution: Convolution,
    blocks: Vec<Block>,
}

impl<'l> Product<'l> {
    pub fn new(loops: &'l Loops<Loop>, pixels: usize, inputs: usize, outputs: usize) -> Self {
        let side = |size| Side {
            size,
            outputs: size,
            stride: 1,
            low: 0,
        };
        let convolution = Convolution {
            images: 1,
            rows: side(1),
            columns: side(pixels),
            taps: [1, 1],
            inputs,
            outputs,
        };
        let blocks = convolution.tasks(loops).into_iter().flatten().collect();
        Product {
            loops,
            convolution,
            blocks,
        }
    }

    /// Adds it, of `[pixels, inputs]` and `[pixels, outputs]`, to `[inputs, outputs]`.
    pub fn add(&self, arrays: [&[f32]; 2], to: &mut [f32]) {
        let to = Shared::new(to);
        for block in &self.blocks {
            self.convolution
                .add_block(self.loops, block, &(0..1), &(0..1), arrays, &to);
        }
    }
}

impl Pass {
    /// Makes one row of rows, or of images, that follow each other without a gap, so that the innermost loop is long.
    fn join(&mut self) {
        for _ in 0..2 {
            let count = self.counts[2];
            if [self.x, self.dy]
                .iter()
                .all(|steps| steps[1] == count * steps[2])
            {
                self.counts = [1, self.counts[0], self.counts[1] * count];
                for steps in [&mut self.x, &mut self.dy] {
                    steps[1] = steps[0];
                }
            }
        }
    }
}

impl Convolution {
    /// All blocks, in about so many parts that write to places of their own.
    fn parts(&self, loops: &Loops<Loop>, count: usize) -> Vec<Vec<Block>> {
        let mut tasks = self.tasks(loops);
        let per = tasks.len().div_ceil(count.max(1));
        let mut parts = Vec::new();
        while !tasks.is_empty() {
            let rest = tasks.split_off(per.min(tasks.len()));
            parts.push(tasks.into_iter().flatten().collect());
            tasks = rest;
        }
        parts
    }

    /// Adds blocks of the gradient to what is there.
    fn add(&self, loops: &Loops<Loop>, blocks: &[Block], arrays: [&[f32]; 2], dw: &Shared) {
        for (images, rows) in self.groups() {
            for block in blocks {
                self.add_block(loops, block, &images, &rows, arrays, dw);
            }
        }
    }

    /// Blocks that write to one place are in one task.
    fn tasks(&self, loops: &Loops<Loop>) -> Vec<Vec<Block>> {
        let [rows, columns] = self.taps;
        let all = columns * self.inputs;
        let inside = (0..columns)
            .map(|tap| self.columns.outputs(tap))
            .reduce(|a, b| a.start.max(b.start)..a.end.min(b.end))
            .filter(|range| self.inputs < CHANNELS && !range.is_empty());
        let mut tasks = Vec::new();
        for row in 0..rows {
            if let Some(inside) = inside.clone() {
                let mut task = Vec::new();
                let start = self.columns.input(inside.start, 0) * self.inputs;
                self.blocks(loops, row, 0..all, &inside, start, &mut task);
                for tap in 0..columns {
                    let met = self.columns.outputs(tap);
                    for rest in [met.start..inside.start, inside.end..met.end] {
                        self.tap(loops, row, tap, rest, &mut task);
                    }
                }
                tasks.push(task);
                continue;
            }
            for tap in 0..columns {
                let mut task = Vec::new();
                self.tap(loops, row, tap, self.columns.outputs(tap), &mut task);
                tasks.extend(task.into_iter().map(|block| vec![block]));
            }
        }
        tasks
    }

    fn tap(
        &self,
        loops: &Loops<Loop>,
        row: usize,
        tap: usize,
        columns: Range<usize>,
        into: &mut Vec<Block>,
    ) {
        if !columns.is_empty() {
            let start = self.columns.input(columns.start, tap) * self.inputs;
            let numbers = tap * self.inputs..(tap + 1) * self.inputs;
            self.blocks(loops, row, numbers, &columns, start, into);
        }
    }

    fn blocks(
        &self,
        loops: &Loops<Loop>,
        row: usize,
        numbers: Range<usize>,
        columns: &Range<usize>,
        start: usize,
        into: &mut Vec<Block>,
    ) {
        for output in (0..self.outputs).step_by(loops.width()) {
            let most = loops.most_rows(loops.vectors(self.outputs, output).0);
            for first in numbers.clone().step_by(most) {
                into.push(Block {
                    row,
                    first,
                    inputs: most.min(numbers.end - first),
                    output,
                    columns: columns.clone(),
                    start: start + first - numbers.start,
                });
            }
        }
    }

    /// Images and rows of outputs that a cache holds at once.
    fn groups(&self) -> Vec<(Range<usize>, Range<usize>)> {
        let cells = self.columns.size * self.inputs * self.rows.stride
            + self.columns.outputs * self.outputs;
        let rows = (GROUP / size_of::<f32>() / cells).max(1);
        let images = (rows / self.rows.outputs).max(1);
        let cut = |count: usize, step: usize| {
            (0..count)
                .step_by(step)
                .map(move |i| i..(i + step).min(count))
        };
        cut(self.images, images)
            .flat_map(|images| cut(self.rows.outputs, rows).map(move |rows| (images.clone(), rows)))
            .collect()
    }

    fn add_block(
        &self,
        loops: &Loops<Loop>,
        block: &Block,
        images: &Range<usize>,
        rows: &Range<usize>,
        [x, dy]: [&[f32]; 2],
        dw: &Shared,
    ) {
        let met = self.rows.outputs(block.row);
        let rows = met.start.max(rows.start)..met.end.min(rows.end);
        if rows.is_empty() {
            return;
        }
        let (x_row, dy_row) = (
            self.columns.size * self.inputs,
            self.columns.outputs * self.outputs,
        );
        let (x_image, dy_image) = (self.rows.size * x_row, self.rows.outputs * dy_row);
        let x_start =
            images.start * x_image + self.rows.input(rows.start, block.row) * x_row + block.start;
        let dy_start = images.start * dy_image
            + rows.start * dy_row
            + block.columns.start * self.outputs
            + block.output;
        let (vectors, last) = loops.vectors(self.outputs, block.output);
        let mut pass = Pass {
            counts: [images.len(), rows.len(), block.columns.len()],
            x: [
                x_image,
                x_row * self.rows.stride,
                self.inputs * self.columns.stride,
            ],
            dy: [dy_image, dy_row, self.outputs],
        };
        pass.join();
        let end = |start: usize, steps: [usize; 3], width: usize| {
            let far = pass.counts.iter().zip(steps).map(|(c, s)| (c - 1) * s);
            start + far.sum::<usize>() + width
        };
        let width = (vectors - 1) * loops.lanes + last;
        assert!(end(x_start, pass.x, block.inputs) <= x.len());
        assert!(end(dy_start, pass.dy, width) <= dy.len());
        let place = (block.row * self.taps[1] * self.inputs + block.first) * self.outputs;
        let dw = dw.part(
            place + block.output,
            (block.inputs - 1) * self.outputs + width,
        );
        // SAFETY: the processor has the instructions, or the function would not be registered; all that is read and written lies inside by
        // the assertions, and is written in rows of a kernel that only this task has.
        unsafe {
            loops.table[vectors - 1][block.inputs - 1](&Work {
                pass: &pass,
                outputs: self.outputs,
                last,
                x: x.as_ptr().add(x_start),
                dy: dy.as_ptr().add(dy_start),
                dw,
            });
        }
    }
}

/// Adds a block of so many inputs and vectors of outputs.
#[inline(always)]
unsafe fn block<V: Vectors, const INPUTS: usize, const VECTORS: usize>(work: &Work) {
    let pass = work.pass;
    // SAFETY: the caller has seen to what is read and written, and to the instructions.
    unsafe {
        let last = V::mask(work.last);
        let mut sums = [[V::zero(); VECTORS]; INPUTS];
        for image in 0..pass.counts[0] {
            for row in 0..pass.counts[1] {
                let mut x = work.x.add(image * pass.x[0] + row * pass.x[1]);
                let mut dy = work.dy.add(image * pass.dy[0] + row * pass.dy[1]);
                for _ in 0..pass.counts[2] {
                    let right: [V::Vector; VECTORS] = load::<V, VECTORS>(last, dy);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let left = V::all(*x.add(i));
                        for v in 0..VECTORS {
                            sums[v] = V::multiply_add(left, right[v], sums[v]);
                        }
                    }
                    x = x.add(pass.x[2]);
                    dy = dy.add(pass.dy[2]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let place = work.dw.add(i * work.outputs);
            let mut total = load::<V, VECTORS>(last, place);
            for v in 0..VECTORS {
                total[v] = V::add(total[v], sums[v]);
            }
            store::<V, VECTORS>(last, place, total);
        }
    }
}

loops!(block, Work);

#[cfg(test)]
mod tests {
    use super::super::trials::{SIZES, agree, random};
    use super::super::vectors::supported;
    use super::*;

    fn expected(sizes: [usize; 12], x: &[f32], dy: &[f32]) -> Vec<f64> {
        let [
            n,
            h,
            wide,
            c,
            k,
            down,
            across,
            stride,
            low_rows,
            low_columns,
            rows,
            columns,
        ] = sizes;
        let cell = |output: usize, tap: usize, low: usize, size: usize| {
            let place = (output * stride + tap).checked_sub(low)?;
            (place < size).then_some(place)
        };
        let mut dw = vec![0.0; down * across * c * k];
        for (i, dw) in dw.iter_mut().enumerate() {
            let (k0, c0, tap) = (i % k, i / k % c, i / k / c);
            for pixel in 0..n * rows * columns {
                let (column, row, image) = (
                    pixel % columns,
                    pixel / columns % rows,
                    pixel / columns / rows,
                );
                let cells = (
                    cell(row, tap / across, low_rows, h),
                    cell(column, tap % across, low_columns, wide),
                );
                let (Some(iy), Some(ix)) = cells else {
                    continue;
                };
                let a = x[((image * h + iy) * wide + ix) * c + c0];
                *dw += f64::from(a) * f64::from(dy[pixel * k + k0]);
            }
        }
        dw
    }

    fn computed(
        loops: &Loops<Loop>,
        sizes: [usize; 12],
        parts: usize,
        arrays: [&[f32]; 2],
    ) -> Vec<f32> {
        let [
            n,
            h,
            wide,
            c,
            k,
            down,
            across,
            stride,
            low_rows,
            low_columns,
            rows,
            columns,
        ] = sizes;
        let side = |size, outputs, low| Side {
            size,
            outputs,
            stride,
            low,
        };
        let convolution = Convolution {
            images: n,
            rows: side(h, rows, low_rows),
            columns: side(wide, columns, low_columns),
            taps: [down, across],
            inputs: c,
            outputs: k,
        };
        let mut dw = vec![0.0; down * across * c * k];
        let shared = Shared::new(&mut dw);
        for part in convolution.parts(loops, parts) {
            convolution.add(loops, &part, arrays, &shared);
        }
        dw
    }

    #[test]
    fn gradients_are_the_sum_that_is_written_down() {
        for (i, sizes) in SIZES.into_iter().enumerate() {
            let [n, h, wide, c, k, _, _, _, _, _, rows, columns] = sizes;
            let x = random(400 + i as u32, n * h * wide * c);
            let dy = random(500 + i as u32, n * rows * columns * k);
            let expected = expected(sizes, &x, &dy);
            for loops in supported(&AVX512, &AVX2) {
                let found = computed(loops, sizes, 1, [&x, &dy]);
                agree(
                    &found,
                    &expected,
                    &format!("{sizes:?}, {} lanes", loops.lanes),
                );
                for parts in [2, 7] {
                    assert!(
                        found == computed(loops, sizes, parts, [&x, &dy]),
                        "{sizes:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn outputs_see_what_lies_inside() {
        for (size, stride, low, taps, outputs) in [
            (5, 1, 1, 3, 5),
            (8, 2, 0, 3, 4),
            (8, 2, 3, 7, 4),
            (2, 1, 1, 3, 2),
            (1, 1, 1, 3, 1),
            (4, 3, 2, 5, 9),
        ] {
            let side = Side {
                size,
                outputs,
                stride,
                low,
            };
            for tap in 0..taps {
                let inside =
                    (0..outputs).filter(|o| (low..low + size).contains(&(o * stride + tap)));
                assert!(side.outputs(tap).eq(inside), "{side:?}, tap {tap}");
            }
        }
    }
}
