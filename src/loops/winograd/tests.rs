//! Both functions against the sums as they are written down, in double precision.

use super::super::shared::Shared;
use super::super::trials::{agree, random};
use super::super::vectors::supported;
use super::super::{convolution, kernel_gradient};
use super::*;

/// Images, rows, columns, inputs, outputs, zeros before rows and columns, outputs down and across. Maps smaller than a tile, outputs left
/// out, vectors and blocks that are not full, several groups of tiles, sums in pieces.
const SIZES: [[usize; 9]; 12] = [
    [2, 4, 4, 16, 64, 1, 1, 4, 4],
    [3, 5, 7, 33, 20, 1, 1, 5, 7],
    [2, 1, 1, 17, 40, 1, 1, 1, 1],
    [4, 2, 3, 5, 7, 1, 1, 2, 3],
    [1, 6, 6, 1, 1, 0, 0, 4, 4],
    [2, 3, 4, 18, 130, 2, 2, 5, 6],
    [1, 24, 24, 32, 32, 1, 1, 24, 24],
    [1, 5, 5, 400, 70, 1, 1, 5, 5],
    [9, 8, 8, 16, 16, 1, 1, 8, 8],
    [2, 5, 6, 8, 9, 0, 3, 4, 9],
    [1, 9, 2, 64, 96, 5, 1, 14, 2],
    // Tiles for four sums, and some more.
    [3, 110, 120, 2, 3, 1, 1, 110, 120],
];

fn filter(sizes: [usize; 9]) -> Filter {
    let [n, h, wide, c, k, low_rows, low_columns, rows, columns] = sizes;
    Filter::new(
        [n, h, wide, c],
        [n, rows, columns, k],
        [low_rows, low_columns],
    )
}

/// Calls with a pixel of the image, a tap, and a pixel of the outputs, for all that meet.
fn meetings(sizes: [usize; 9], mut each: impl FnMut(usize, usize, usize)) {
    let [n, h, wide, _, _, low_rows, low_columns, rows, columns] = sizes;
    for pixel in 0..n * rows * columns {
        let (column, row, image) = (
            pixel % columns,
            pixel / columns % rows,
            pixel / columns / rows,
        );
        for tap in 0..9 {
            let (y, x) = (row + tap / 3, column + tap % 3);
            let inside = (low_rows..low_rows + h).contains(&y)
                && (low_columns..low_columns + wide).contains(&x);
            if inside {
                let seen = (image * h + y - low_rows) * wide + x - low_columns;
                each(seen, tap, pixel);
            }
        }
    }
}

#[test]
fn convolutions_are_the_sum_that_is_written_down() {
    for (i, sizes) in SIZES.into_iter().enumerate() {
        let [n, h, wide, c, k, _, _, rows, columns] = sizes;
        let x = random(600 + i as u32, n * h * wide * c);
        let w = random(700 + i as u32, 9 * c * k);
        // What the loop is to find: tap 8 first, outputs as inputs.
        let turned: Vec<f32> = (0..9 * c * k)
            .map(|place| {
                let (input, output, tap) = (place % c, place / c % k, place / c / k);
                w[((8 - tap) * c + input) * k + output]
            })
            .collect();
        let mut expected = vec![0.0; n * rows * columns * k];
        meetings(sizes, |seen, tap, pixel| {
            for input in 0..c {
                let left = f64::from(x[seen * c + input]);
                for output in 0..k {
                    let right = w[(tap * c + input) * k + output];
                    expected[pixel * k + output] += left * f64::from(right);
                }
            }
        });
        for (loops, transforms) in supported(&convolution::AVX512, &convolution::AVX2)
            .into_iter()
            .zip(supported(&transforms::AVX512, &transforms::AVX2))
        {
            let filter = filter(sizes);
            let computed = |parts: usize, w: &[f32], turned: bool| {
                // What was there must not matter.
                let mut points = vec![f32::NAN; POINTS * c * k];
                let shared = Shared::new(&mut points);
                for inputs in split(c, parts) {
                    filter.transform_kernel(loops, transforms, w, turned, &shared, inputs);
                }
                let mut y = vec![f32::NAN; n * rows * columns * k];
                let shared = Shared::new(&mut y);
                for tiles in split(filter.tiles.count(), parts) {
                    filter.convolve(loops, transforms, &x, &points, &shared, tiles);
                }
                y
            };
            let found = computed(1, &w, false);
            let title = format!("{sizes:?}, {} lanes", loops.lanes);
            agree(&found, &expected, &title);
            for parts in [2, 7] {
                assert!(found == computed(parts, &w, false), "{title}");
                assert!(found == computed(parts, &turned, true), "{title}, turned");
            }
        }
    }
}

#[test]
fn gradients_are_the_sum_that_is_written_down() {
    for (i, sizes) in SIZES.into_iter().enumerate() {
        let [n, h, wide, c, k, _, _, rows, columns] = sizes;
        let x = random(800 + i as u32, n * h * wide * c);
        let dy = random(900 + i as u32, n * rows * columns * k);
        let mut expected = vec![0.0; 9 * c * k];
        meetings(sizes, |seen, tap, pixel| {
            for input in 0..c {
                let left = f64::from(x[seen * c + input]);
                for output in 0..k {
                    let right = dy[pixel * k + output];
                    expected[(tap * c + input) * k + output] += left * f64::from(right);
                }
            }
        });
        for (loops, transforms) in supported(&kernel_gradient::AVX512, &kernel_gradient::AVX2)
            .into_iter()
            .zip(supported(&transforms::AVX512, &transforms::AVX2))
        {
            let filter = filter(sizes);
            let computed = |parts: usize| {
                let mut dw = vec![f32::NAN; 9 * c * k];
                let arrays = [&x[..], &dy];
                filter.gradient(loops, transforms, arrays, &mut dw, parts, &|parts, work| {
                    (0..parts).for_each(work);
                });
                dw
            };
            let found = computed(1);
            let title = format!("{sizes:?}, {} lanes", loops.lanes);
            agree(&found, &expected, &title);
            for parts in [2, 7] {
                assert!(found == computed(parts), "{title}");
            }
        }
    }
}
