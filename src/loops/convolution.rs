//! A convolution, forward or of the input's gradient: `y[pixel, k] = Σ x[pixel's cell under the tap, c] · w[tap, c, k]`.
//!
//! A block of `y` stays in registers, pixels by 16 outputs each, while taps and inputs go by: whole vectors of `w` are multiplied with
//! single numbers of each pixel's window. Nothing is packed; where windows reach beyond the image, a few images at a time are copied into
//! padded ones. Of a dilated input (the gradient of a stride) only the cells that are there are multiplied: outputs fall into classes by the
//! taps that meet such cells. The order of every sum depends on shapes alone, not on how many threads share the work.
#![expect(
    unsafe_code,
    reason = "vector instructions, and threads that write to parts of one array"
)]

use super::shared::{Shared, four};
use super::vectors::{Avx2, Avx512, GROUP, Loops, Vectors, load, loops, store};
use crate::hlo::passes::CONVOLUTION_LOOP;
use crate::pjrt::{Call, Function};
use std::ops::Range;

/// Products that are added one after the other before their sum is put down; more where the taps of 16 inputs are more. What of the kernel a
/// block reads meanwhile stays in the cache while all pixels pass, and a sum of few sums is more exact than one of many products. At 144 a
/// ResNet-50 takes 3 % longer, at 288 and more one golden check in 11,696 fails.
const TERMS: usize = 192;

/// The function.
pub(super) struct ConvolutionLoop;

impl Function for ConvolutionLoop {
    const NAME: &'static str = CONVOLUTION_LOOP;

    /// Images NHWC, a kernel HWIO, attributes `stride`, `dilation` (of the input), `low_rows` and `low_columns` (padding before the
    /// dilated input); the result is NHWO.
    fn run(call: &mut Call) -> Result<(), String> {
        let (x, w) = (call.argument(0)?, call.argument(1)?);
        let (stride, dilation) = (call.number("stride")?, call.number("dilation")?);
        let low = [call.number("low_rows")?, call.number("low_columns")?];
        let sharing = call.sharing();
        let (dims, y) = call.result()?;
        let (images, kernel) = (four("images", x.dims)?, four("kernels", w.dims)?);
        let outputs = four("outputs", dims)?;
        if stride == 0
            || dilation == 0
            || stride > 1 && dilation > 1
            || images[0] != outputs[0]
            || kernel[2..] != [images[3], outputs[3]]
        {
            return Err(format!(
                "images {images:?} and kernel {kernel:?} do not make {outputs:?} with stride {stride} and dilation {dilation}"
            ));
        }
        let side = |i: usize| {
            let (size, outputs, taps) = (images[1 + i], outputs[1 + i], kernel[i]);
            Side::new(size, outputs, taps, low[i], stride, dilation)
        };
        let convolution = Convolution {
            images: images[0],
            sides: [side(0), side(1)],
            taps: kernel[1],
            inputs: kernel[2],
            outputs: kernel[3],
        };
        let per = images[0].div_ceil(sharing.parts());
        let parts = images[0].div_ceil(per);
        let y = Shared::new(y);
        sharing.share(parts, &|part| {
            let images = part * per..((part + 1) * per).min(convolution.images);
            convolution.compute(loops(), x.values, w.values, &y, images);
        });
        Ok(())
    }
}

struct Convolution {
    images: usize,
    sides: [Side; 2],
    /// Columns of the kernel.
    taps: usize,
    inputs: usize,
    outputs: usize,
}

/// Rows or columns: the image with its padding, and the classes of outputs.
#[derive(Debug, PartialEq)]
struct Side {
    size: usize,
    outputs: usize,
    /// Zeros before the image, and all cells with them.
    before: usize,
    padded: usize,
    classes: Vec<Class>,
}

/// Outputs `first`, `first + every`, …, which see cells `step` apart through the same taps.
#[derive(Debug, PartialEq)]
struct Class {
    first: usize,
    every: usize,
    count: usize,
    step: usize,
    /// A tap, and the padded cell that the first output sees through it.
    taps: Vec<(usize, usize)>,
}

impl Side {
    fn new(
        size: usize,
        outputs: usize,
        taps: usize,
        low: usize,
        stride: usize,
        dilation: usize,
    ) -> Self {
        let (low, spread) = (low as i64, dilation as i64);
        // Of output `dilation · q + class` a tap meets a cell where this is a whole number: cell `q · stride + shift`.
        let shifts = |class: usize| {
            (0..taps).filter_map(move |tap| {
                let place = class as i64 + tap as i64 - low;
                (place.rem_euclid(spread) == 0).then_some((tap, place.div_euclid(spread)))
            })
        };
        let all = || {
            (0..dilation.min(outputs))
                .flat_map(shifts)
                .map(|(_, shift)| shift)
        };
        let before = all().min().unwrap_or(0).min(0).unsigned_abs() as usize;
        let classes: Vec<Class> = (0..dilation.min(outputs))
            .map(|first| Class {
                first,
                every: dilation,
                count: (outputs - first).div_ceil(dilation),
                step: stride,
                taps: shifts(first)
                    .map(|(tap, shift)| (tap, (shift + before as i64) as usize))
                    .collect(),
            })
            .collect();
        let last = classes.iter().flat_map(|class| {
            let far = (class.count - 1) * class.step;
            class.taps.iter().map(move |(_, cell)| far + cell + 1)
        });
        Side {
            size,
            outputs,
            before,
            padded: last.max().unwrap_or(0).max(before + size),
            classes,
        }
    }

    fn is_padded(&self) -> bool {
        self.padded > self.size
    }
}

/// Numbers of a window that follow each other both in the image and in the kernel.
struct Run {
    x: usize,
    w: usize,
    count: usize,
}

/// A block.
pub(super) struct Work<'a> {
    /// What to read of each window, and of the kernel from the block's first output on.
    runs: &'a [Run],
    /// Where each pixel's window begins, and the pixel in the result.
    pixels: &'a [[usize; 2]],
    outputs: usize,
    /// Lanes of the last vector that are outputs.
    last: usize,
    /// Whether sums are added to what is there.
    add: bool,
    x: *const f32,
    w: *const f32,
    y: *mut f32,
}

/// Products of rows of numbers with a matrix: the convolution of a 1×1 kernel.
pub(super) struct Product<'l> {
    loops: &'l Loops<Loop>,
    convolution: Convolution,
    pieces: Vec<Vec<Run>>,
}

impl<'l> Product<'l> {
    pub fn new(loops: &'l Loops<Loop>, inputs: usize, outputs: usize) -> Self {
        let convolution = Convolution {
            images: 1,
            sides: [0, 1].map(|_| Side::new(1, 1, 1, 0, 1, 1)),
            taps: 1,
            inputs,
            outputs,
        };
        let [down, across] = &convolution.sides;
        let pieces = convolution.pieces([&down.classes[0], &across.classes[0]]);
        Product {
            loops,
            convolution,
            pieces,
        }
    }

    pub fn outputs(&self) -> usize {
        self.convolution.outputs
    }

    /// `[rows, outputs]` from `[rows, inputs]` and `[inputs, outputs]`.
    pub fn multiply(&self, rows: usize, x: &[f32], matrix: &[f32], y: &mut [f32]) {
        let Convolution {
            inputs, outputs, ..
        } = self.convolution;
        let rows: Vec<[usize; 2]> = (0..rows).map(|i| [i * inputs, i * outputs]).collect();
        self.convolution
            .add_up(self.loops, &self.pieces, x, matrix, &Shared::new(y), &rows);
    }
}

impl Convolution {
    /// Some images of the result.
    fn compute(&self, loops: &Loops<Loop>, x: &[f32], w: &[f32], y: &Shared, images: Range<usize>) {
        let [rows, columns] = &self.sides;
        let padded = rows.is_padded() || columns.is_padded();
        let image = rows.size * columns.size * self.inputs;
        let padded_image = rows.padded * columns.padded * self.inputs;
        let at_once = (GROUP / size_of::<f32>() / padded_image).clamp(1, images.len());
        let mut copy = vec![0.0; if padded { at_once * padded_image } else { 0 }];
        let mut pixels = Vec::new();
        for start in images.clone().step_by(at_once) {
            let count = at_once.min(images.end - start);
            let mut group = &x[start * image..(start + count) * image];
            if padded {
                for i in 0..count {
                    self.pad(
                        &group[i * image..(i + 1) * image],
                        &mut copy[i * padded_image..],
                    );
                }
                group = &copy;
            }
            for down in &rows.classes {
                for across in &columns.classes {
                    self.pixels([down, across], start, count, &mut pixels);
                    self.class(loops, [down, across], group, w, y, &pixels);
                }
            }
        }
    }

    /// Copies an image into a padded one, whose border stays zero.
    fn pad(&self, image: &[f32], into: &mut [f32]) {
        let [rows, columns] = &self.sides;
        let (row, padded) = (columns.size * self.inputs, columns.padded * self.inputs);
        for (r, values) in image.chunks_exact(row).enumerate() {
            let place = (rows.before + r) * padded + columns.before * self.inputs;
            into[place..place + row].copy_from_slice(values);
        }
    }

    /// Where a class's pixels of some images lie: their windows in the group, and themselves in the result.
    fn pixels(
        &self,
        [down, across]: [&Class; 2],
        start: usize,
        count: usize,
        into: &mut Vec<[usize; 2]>,
    ) {
        let [rows, columns] = &self.sides;
        into.clear();
        for i in 0..count {
            for r in 0..down.count {
                let x = (i * rows.padded + r * down.step) * columns.padded;
                let y =
                    ((start + i) * rows.outputs + down.first + r * down.every) * columns.outputs;
                into.extend((0..across.count).map(|c| {
                    [
                        (x + c * across.step) * self.inputs,
                        (y + across.first + c * across.every) * self.outputs,
                    ]
                }));
            }
        }
    }

    /// Windows of a class in pieces of about [`TERMS`] products.
    fn pieces(&self, [down, across]: [&Class; 2]) -> Vec<Vec<Run>> {
        let taps = down.taps.len() * across.taps.len();
        // Whole lines of the cache.
        let inputs = (TERMS / taps.max(1) / 16 * 16).clamp(16, self.inputs.max(16));
        let mut pieces = Vec::new();
        for first in (0..self.inputs).step_by(inputs) {
            let count = inputs.min(self.inputs - first);
            let mut piece: Vec<Run> = Vec::new();
            for &(row, down) in &down.taps {
                for &(column, across) in &across.taps {
                    let x = (down * self.sides[1].padded + across) * self.inputs + first;
                    let w = (row * self.taps + column) * self.inputs + first;
                    match piece.last_mut() {
                        Some(run) if run.x + run.count == x && run.w + run.count == w => {
                            run.count += count;
                        }
                        _ => piece.push(Run { x, w, count }),
                    }
                }
            }
            pieces.push(piece);
        }
        pieces
    }

    fn class(
        &self,
        loops: &Loops<Loop>,
        class: [&Class; 2],
        x: &[f32],
        w: &[f32],
        y: &Shared,
        pixels: &[[usize; 2]],
    ) {
        self.add_up(loops, &self.pieces(class), x, w, y, pixels);
    }

    /// What windows of these pieces give to pixels' outputs.
    fn add_up(
        &self,
        loops: &Loops<Loop>,
        pieces: &[Vec<Run>],
        x: &[f32],
        w: &[f32],
        y: &Shared,
        pixels: &[[usize; 2]],
    ) {
        for output in (0..self.outputs).step_by(loops.width()) {
            let (vectors, last) = loops.vectors(self.outputs, output);
            let width = (vectors - 1) * loops.lanes + last;
            for (i, runs) in pieces.iter().enumerate() {
                let reach = runs.iter().map(|run| run.x + run.count).max().unwrap_or(0);
                for run in runs {
                    let rows = run.w + run.count;
                    assert!((rows - 1) * self.outputs + output + width <= w.len());
                }
                for block in pixels.chunks(loops.most_rows(vectors)) {
                    for &[window, place] in block {
                        assert!(reach == 0 || window + reach <= x.len());
                        assert!(place + output + width <= y.len());
                    }
                    // SAFETY: the processor has the instructions, or the function would not be registered; all that is read and written lies
                    // inside by the assertions; pixels are those of this thread's images.
                    unsafe {
                        loops.table[vectors - 1][block.len() - 1](&Work {
                            runs,
                            pixels: block,
                            outputs: self.outputs,
                            last,
                            add: i > 0,
                            x: x.as_ptr(),
                            w: w.as_ptr().add(output),
                            y: y.at(output),
                        });
                    }
                }
            }
        }
    }
}

/// Computes a block of so many pixels and vectors of outputs.
#[inline(always)]
unsafe fn block<V: Vectors, const PIXELS: usize, const VECTORS: usize>(work: &Work) {
    // SAFETY: the caller has seen to what is read and written, and to the instructions.
    unsafe {
        let last = V::mask(work.last);
        let windows: [usize; PIXELS] = std::array::from_fn(|p| work.pixels[p][0]);
        let mut sums = [[V::zero(); VECTORS]; PIXELS];
        for run in work.runs {
            let x = work.x.add(run.x);
            let mut w = work.w.add(run.w * work.outputs);
            for i in 0..run.count {
                let right: [V::Vector; VECTORS] = load::<V, VECTORS>(last, w);
                for p in 0..PIXELS {
                    let left = V::all(*x.add(windows[p] + i));
                    for v in 0..VECTORS {
                        sums[p][v] = V::multiply_add(left, right[v], sums[p][v]);
                    }
                }
                w = w.add(work.outputs);
            }
        }
        for (sums, pixel) in sums.iter_mut().zip(work.pixels) {
            let place = work.y.add(pixel[1]);
            if work.add {
                let before = load::<V, VECTORS>(last, place);
                for v in 0..VECTORS {
                    sums[v] = V::add(before[v], sums[v]);
                }
            }
            store::<V, VECTORS>(last, place, *sums);
        }
    }
}

loops!(block, Work);

#[cfg(test)]
mod tests {
    use super::super::trials::{SIZES, agree, random};
    use super::super::vectors::supported;
    use super::*;

    /// The sum as it is written down, cell by cell of the dilated input.
    fn expected(sizes: [usize; 12], dilation: usize, x: &[f32], w: &[f32]) -> Vec<f64> {
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
            (place % dilation == 0 && place / dilation < size).then_some(place / dilation)
        };
        let mut y = vec![0.0; n * rows * columns * k];
        for (i, y) in y.iter_mut().enumerate() {
            let (k0, pixel) = (i % k, i / k);
            let (column, row, image) = (
                pixel % columns,
                pixel / columns % rows,
                pixel / columns / rows,
            );
            for ty in 0..down {
                for tx in 0..across {
                    let cells = (
                        cell(row, ty, low_rows, h),
                        cell(column, tx, low_columns, wide),
                    );
                    let (Some(iy), Some(ix)) = cells else {
                        continue;
                    };
                    for c0 in 0..c {
                        let a = x[((image * h + iy) * wide + ix) * c + c0];
                        *y += f64::from(a) * f64::from(w[((ty * across + tx) * c + c0) * k + k0]);
                    }
                }
            }
        }
        y
    }

    fn computed(
        loops: &Loops<Loop>,
        sizes: [usize; 12],
        dilation: usize,
        parts: usize,
        [x, w]: [&[f32]; 2],
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
        let convolution = Convolution {
            images: n,
            sides: [
                Side::new(h, rows, down, low_rows, stride, dilation),
                Side::new(wide, columns, across, low_columns, stride, dilation),
            ],
            taps: across,
            inputs: c,
            outputs: k,
        };
        // What was there must not matter.
        let mut y = vec![f32::NAN; n * rows * columns * k];
        let shared = Shared::new(&mut y);
        for images in (0..n).collect::<Vec<_>>().chunks(n.div_ceil(parts)) {
            let images = images[0]..images[0] + images.len();
            convolution.compute(loops, x, w, &shared, images);
        }
        y
    }

    #[test]
    fn convolutions_are_the_sum_that_is_written_down() {
        for (i, sizes) in SIZES.into_iter().enumerate() {
            let [n, h, wide, c, k, down, across, ..] = sizes;
            let x = random(i as u32, n * h * wide * c);
            let w = random(100 + i as u32, down * across * c * k);
            let expected = expected(sizes, 1, &x, &w);
            for loops in supported(&AVX512, &AVX2) {
                let found = computed(loops, sizes, 1, 1, [&x, &w]);
                agree(
                    &found,
                    &expected,
                    &format!("{sizes:?}, {} lanes", loops.lanes),
                );
                assert!(found == computed(loops, sizes, 1, 2, [&x, &w]), "{sizes:?}");
            }
        }
    }

    #[test]
    fn a_dilated_input_is_multiplied_where_it_is() {
        // The gradient of a stride: the input dilated, more padding, a larger result.
        for (i, (dilation, sizes)) in [
            (2, [2, 4, 4, 20, 9, 3, 3, 1, 2, 2, 9, 9]),
            (2, [2, 4, 4, 20, 40, 3, 3, 1, 1, 1, 8, 8]),
            (2, [3, 4, 5, 6, 64, 1, 1, 1, 0, 0, 8, 10]),
            (3, [1, 3, 2, 5, 17, 4, 2, 1, 3, 0, 9, 7]),
            (2, [1, 1, 1, 5, 17, 7, 7, 1, 3, 3, 2, 2]),
            (2, [1, 4, 4, 3, 5, 1, 1, 1, 1, 1, 9, 9]),
        ]
        .into_iter()
        .enumerate()
        {
            let [n, h, wide, c, k, down, across, ..] = sizes;
            let x = random(200 + i as u32, n * h * wide * c);
            let w = random(300 + i as u32, down * across * c * k);
            let expected = expected(sizes, dilation, &x, &w);
            for loops in supported(&AVX512, &AVX2) {
                let found = computed(loops, sizes, dilation, 1, [&x, &w]);
                agree(
                    &found,
                    &expected,
                    &format!("{sizes:?}, {} lanes", loops.lanes),
                );
                assert!(
                    found == computed(loops, sizes, dilation, 3, [&x, &w]),
                    "{sizes:?}"
                );
            }
        }
    }
}
