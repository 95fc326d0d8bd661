//! Sums over all dimensions but the last, such as those of batch normalisation: `Σ (x − m)` or `Σ (x − m)²` for each channel.
//!
//! Rows are read in order, once. As many make a sum of their own as lie in a block; blocks are added in double precision. Both the blocks
//! and their order depend on shapes alone, not on how many threads share the work.
//!
//! Short columns are added up one row after the other instead, as the plugin does: so that their sums are its own to the bit.
#![expect(
    unsafe_code,
    reason = "vector instructions, and threads that write to parts of one array"
)]

use super::shared::Shared;
use super::vectors::{Avx2, Avx512, Loops, Vectors, load, loops, store};
use crate::hlo::passes::COLUMN_SUMS_LOOP;
use crate::pjrt::{Call, Function};
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of a block.
const ROWS: usize = 256;

/// Rows that have sums of their own in it, so that the processor need not wait for one sum.
const AT_ONCE: usize = 4;

/// Rows of a block of sums in order, which stays in the cache while one vector after the other is added.
const IN_ORDER: usize = 16;

/// Numbers from which threads share sums in order; fewer are added sooner than another thread begins.
const SHARED: usize = 1 << 15;

/// The function.
pub(super) struct ColumnSums;

impl Function for ColumnSums {
    const NAME: &'static str = COLUMN_SUMS_LOOP;

    /// An array, and what is subtracted from its last dimension; attribute `square`, 1 for the sum of squares; attribute `in_order`, the
    /// number of equal parts of the rows that are added up one row after the other, then one part after the other, or 0 for blocks in
    /// double precision; attribute `rounded`, 1 for squares that are rounded before they are added; the result is as long as the last
    /// dimension.
    fn run(call: &mut Call) -> Result<(), String> {
        let (x, middle) = (call.argument(0)?, call.argument(1)?);
        let term = match (call.number("square")?, call.number("rounded")?) {
            (1, 1) => Term::RoundedSquare,
            (1, _) => Term::Square,
            _ => Term::Distance,
        };
        let parts = call.number("in_order")?;
        let sharing = call.sharing();
        let (dims, result) = call.result()?;
        let columns = result.len();
        if x.dims.last() != Some(&(columns as i64)) || middle.values.len() != columns {
            return Err(format!(
                "an array of {:?} and {:?} do not make sums of {dims:?}",
                x.dims, middle.dims
            ));
        }
        let rows = x.values.len() / columns;
        if parts > 0 {
            if rows % parts != 0 {
                return Err(format!("{rows} rows are not {parts} equal parts"));
            }
            let mut sums = vec![0.0; parts * columns];
            let shared = Shared::new(&mut sums);
            let threads = if x.values.len() < SHARED {
                1
            } else {
                sharing.parts()
            };
            let per = columns.div_ceil(threads).next_multiple_of(loops().lanes);
            sharing.share(columns.div_ceil(per), &|share| {
                let own = share * per..columns.min((share + 1) * per);
                add_in_order(loops(), x.values, middle.values, term, parts, &own, &shared);
            });
            total_in_order(&sums, result);
            return Ok(());
        }
        let blocks = rows.div_ceil(ROWS);
        let mut sums = vec![0.0; blocks * columns];
        let shared = Shared::new(&mut sums);
        let per = blocks.div_ceil(sharing.parts());
        sharing.share(blocks.div_ceil(per), &|part| {
            for block in part * per..((part + 1) * per).min(blocks) {
                add(loops(), x.values, middle.values, term, block, &shared);
            }
        });
        total(&sums, result);
        Ok(())
    }
}

/// Sums in order of so many equal parts of the rows, of some columns; to a row of sums for each part.
fn add_in_order(
    loops: &Loops<Loop>,
    x: &[f32],
    middle: &[f32],
    term: Term,
    parts: usize,
    own: &Range<usize>,
    sums: &Shared,
) {
    let columns = middle.len();
    let rows = x.len() / columns / parts;
    for part in 0..parts {
        for row in (0..rows).step_by(IN_ORDER) {
            for first in own.clone().step_by(loops.width()) {
                let (vectors, last) = loops.vectors(own.end, first);
                // SAFETY: the processor has the instructions, or the function would not be registered; so many rows and numbers from
                // `first` on are there, and these columns of the sums are one thread's.
                unsafe {
                    loops.table[vectors - 1][0](&Work {
                        columns,
                        rows: IN_ORDER.min(rows - row),
                        last,
                        term,
                        continued: row > 0,
                        x: x.as_ptr().add((part * rows + row) * columns + first),
                        middle: middle.as_ptr().add(first),
                        sums: sums.at(part * columns + first),
                        lifetime: PhantomData,
                    });
                }
            }
        }
    }
}

/// Adds the rows of sums in order.
fn total_in_order(sums: &[f32], result: &mut [f32]) {
    result.fill(0.0);
    for row in sums.chunks_exact(result.len()) {
        for (result, sum) in result.iter_mut().zip(row) {
            *result += sum;
        }
    }
}

/// A block's sums, to its row of sums.
fn add(loops: &Loops<Loop>, x: &[f32], middle: &[f32], term: Term, block: usize, sums: &Shared) {
    let columns = middle.len();
    let rows = &x[block * ROWS * columns..];
    let rows = &rows[..rows.len().min(ROWS * columns)];
    for first in (0..columns).step_by(loops.width()) {
        let (vectors, last) = loops.vectors(columns, first);
        // SAFETY: the processor has the instructions, or the function would not be registered; a row has so many numbers from `first` on,
        // and so has a block's row of sums, which one thread writes.
        unsafe {
            loops.table[vectors - 1][AT_ONCE - 1](&Work {
                columns,
                rows: rows.len() / columns,
                last,
                term,
                continued: false,
                x: rows.as_ptr().add(first),
                middle: middle.as_ptr().add(first),
                sums: sums.at(block * columns + first),
                lifetime: PhantomData,
            });
        }
    }
}

/// Adds the rows of sums.
pub(super) fn total(sums: &[f32], result: &mut [f32]) {
    let mut totals = vec![0.0; result.len()];
    for row in sums.chunks_exact(result.len()) {
        for (total, &sum) in totals.iter_mut().zip(row) {
            *total += f64::from(sum);
        }
    }
    for (result, total) in result.iter_mut().zip(totals) {
        *result = total as f32;
    }
}

/// What is added up.
#[derive(Clone, Copy, Debug)]
enum Term {
    Distance,
    /// Rounded only as it is added.
    Square,
    /// Rounded before.
    RoundedSquare,
}

pub(super) struct Work<'a> {
    columns: usize,
    rows: usize,
    /// Lanes of the last vector that are columns.
    last: usize,
    term: Term,
    /// Whether the sums begin with those that are there, not with zeros.
    continued: bool,
    x: *const f32,
    middle: *const f32,
    sums: *mut f32,
    lifetime: PhantomData<&'a f32>,
}

/// Sums of so many rows at once and vectors of columns.
#[inline(always)]
unsafe fn block<V: Vectors, const ROWS: usize, const VECTORS: usize>(work: &Work) {
    // SAFETY: the caller has seen to what is read and written, and to the instructions.
    unsafe {
        let last = V::mask(work.last);
        let middle = load::<V, VECTORS>(last, work.middle);
        let mut sums = [[V::zero(); VECTORS]; ROWS];
        if work.continued {
            sums[0] = load::<V, VECTORS>(last, work.sums);
        }
        let whole = work.rows / ROWS * ROWS;
        for row in (0..whole).step_by(ROWS) {
            for (i, sums) in sums.iter_mut().enumerate() {
                *sums = add_row::<V, VECTORS>(work, row + i, middle, *sums);
            }
        }
        for row in whole..work.rows {
            sums[0] = add_row::<V, VECTORS>(work, row, middle, sums[0]);
        }
        let mut total = sums[0];
        for sums in &sums[1..] {
            for v in 0..VECTORS {
                total[v] = V::add(total[v], sums[v]);
            }
        }
        store::<V, VECTORS>(last, work.sums, total);
    }
}

/// (A closure would be compiled without the instructions.)
#[inline(always)]
unsafe fn add_row<V: Vectors, const VECTORS: usize>(
    work: &Work,
    row: usize,
    middle: [V::Vector; VECTORS],
    mut sums: [V::Vector; VECTORS],
) -> [V::Vector; VECTORS] {
    // SAFETY: the caller's.
    unsafe {
        let x = load::<V, VECTORS>(V::mask(work.last), work.x.add(row * work.columns));
        for v in 0..VECTORS {
            let apart = V::subtract(x[v], middle[v]);
            sums[v] = match work.term {
                Term::Distance => V::add(apart, sums[v]),
                Term::Square => V::multiply_add(apart, apart, sums[v]),
                Term::RoundedSquare => V::add(V::multiply(apart, apart), sums[v]),
            };
        }
    }
    sums
}

loops!(block, Work);

#[cfg(test)]
mod tests {
    use super::super::trials::{agree, random};
    use super::super::vectors::supported;
    use super::*;

    #[test]
    fn sums_are_those_that_are_written_down() {
        for (i, (rows, columns)) in [
            (1, 1),
            (3, 16),
            (700, 5),
            (1030, 16),
            (515, 40),
            (257, 64),
            (300, 130),
            (9, 333),
        ]
        .into_iter()
        .enumerate()
        {
            let x = random(600 + i as u32, rows * columns);
            let middle = random(700 + i as u32, columns);
            for term in [Term::Distance, Term::Square] {
                let square = matches!(term, Term::Square);
                let mut expected = vec![0.0; columns];
                for (j, &x) in x.iter().enumerate() {
                    let apart = f64::from(x) - f64::from(middle[j % columns]);
                    expected[j % columns] += if square { apart * apart } else { apart };
                }
                let mut first: Option<Vec<f32>> = None;
                for loops in supported(&AVX512, &AVX2) {
                    let mut sums = vec![f32::NAN; rows.div_ceil(super::ROWS) * columns];
                    let blocks = sums.len() / columns;
                    let shared = Shared::new(&mut sums);
                    for block in (0..blocks).rev() {
                        add(loops, &x, &middle, term, block, &shared);
                    }
                    let mut found = vec![f32::NAN; columns];
                    total(&sums, &mut found);
                    agree(
                        &found,
                        &expected,
                        &format!("{rows} × {columns}, {square}, {} lanes", loops.lanes),
                    );
                    // Whatever the vectors' width.
                    assert!(
                        first.get_or_insert(found.clone()) == &found,
                        "{rows} × {columns}"
                    );
                }
            }
        }
    }

    /// One row after the other, whatever the vectors, and whoever adds which columns.
    #[test]
    fn sums_in_order_are_those_of_a_plain_loop_to_the_bit() {
        for (i, (rows, columns, parts)) in [
            (1, 1, 1),
            (17, 16, 1),
            (48, 130, 1),
            (64, 70, 2),
            (96, 300, 3),
            (784, 65, 1),
        ]
        .into_iter()
        .enumerate()
        {
            let x = random(800 + i as u32, rows * columns);
            let middle = random(900 + i as u32, columns);
            for term in [Term::Distance, Term::Square, Term::RoundedSquare] {
                let expected: Vec<u32> = (0..columns)
                    .map(|column| {
                        let mut total = 0f32;
                        for part in 0..parts {
                            let mut sum = 0f32;
                            for row in part * rows / parts..(part + 1) * rows / parts {
                                let apart = x[row * columns + column] - middle[column];
                                sum = match term {
                                    Term::Distance => sum + apart,
                                    Term::Square => apart.mul_add(apart, sum),
                                    Term::RoundedSquare => apart * apart + sum,
                                };
                            }
                            total += sum;
                        }
                        total.to_bits()
                    })
                    .collect();
                for loops in supported(&AVX512, &AVX2) {
                    for threads in [1, 3] {
                        let mut sums = vec![f32::NAN; parts * columns];
                        let shared = Shared::new(&mut sums);
                        let per = columns.div_ceil(threads);
                        for first in (0..columns).step_by(per) {
                            let own = first..columns.min(first + per);
                            add_in_order(loops, &x, &middle, term, parts, &own, &shared);
                        }
                        let mut found = vec![f32::NAN; columns];
                        total_in_order(&sums, &mut found);
                        let found: Vec<u32> = found.iter().map(|sum| sum.to_bits()).collect();
                        assert_eq!(
                            found, expected,
                            "{rows} × {columns}, {term:?}, {} lanes",
                            loops.lanes
                        );
                    }
                }
            }
        }
    }
}
