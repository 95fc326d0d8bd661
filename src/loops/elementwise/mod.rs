//! Programs of elementwise operations, and sums of what they compute over all dimensions but the last: normalisations, activations, their
//! gradients, and the updates of variables.
//!
//! A program says what is computed of the numbers at one place ([`Code`]). It is carried out on a tile after the other, each operation on
//! the whole tile, so that what one operation leaves the next finds in the first-level cache, and arrays are read and written once. Nothing
//! has to be compiled for it, and telling which operation comes next is spread over a tile.
//!
//! Sums are made as those of [`super::column_sums`]: by blocks, which are added in double precision, in an order that depends on shapes alone.
#![expect(
    unsafe_code,
    reason = "vector instructions, and threads that write to parts of one array"
)]

mod formulas;
#[cfg(test)]
mod tests;

use super::column_sums::total;
use super::shared::Shared;
use crate::hlo::passes::{Code, ELEMENTWISE_LOOP, TAKES, WORDS};
use crate::pjrt::{Call, Function, Sharing};
use formulas::{Loops, loops};
use std::ops::Range;

/// Numbers of a tile at most.
const TILE: usize = 512;

/// Tiles, or rows where they are longer, whose numbers a sum adds in single precision.
const BLOCK: usize = 32;

/// Numbers from which a thread's part is worth waking it.
const PART: usize = 1 << 16;

/// The function.
pub(super) struct Elementwise;

impl Function for Elementwise {
    const NAME: &'static str = ELEMENTWISE_LOOP;

    /// Operands are arrays of `size` numbers, rows that are repeated along all dimensions but the last, which has `columns`, and single numbers.
    /// Values are numbered: operands, `constants` (bits of f32), `registers`, results. Of `code`, each operation is [`WORDS`] long: [`Code`],
    /// the value that it makes, and those that it takes.
    fn run(call: &mut Call) -> Result<(), String> {
        let operands = (0..call.arguments())
            .map(|i| call.argument_at(i))
            .collect::<Result<Vec<_>, _>>()?;
        let results = (0..call.results())
            .map(|i| call.result_at(i))
            .collect::<Result<Vec<_>, _>>()?;
        let constants = call.numbers("constants")?.iter();
        let program = Program::new(
            call.numbers("code")?,
            [call.number("size")?, call.number("columns")?],
            call.number("registers")?,
            constants.map(|&bits| f32::from_bits(bits as u32)).collect(),
            &operands,
            &results,
        )?;
        program.run(loops(), &call.sharing());
        Ok(())
    }
}

/// What a value is at a place.
#[derive(Clone, Copy)]
enum Source {
    /// A number for each place.
    Array(*const f32),
    /// One for each column.
    Row(*const f32),
    /// The same everywhere.
    Number(f32),
    /// What an operation left.
    Register(usize),
}

/// Where what an operation makes goes.
#[derive(Clone, Copy)]
enum Target {
    Register(usize),
    Result(*mut f32),
    /// The sum of so many before it.
    Sum(usize),
}

struct Step {
    code: Code,
    target: Target,
    takes: [usize; TAKES],
}

/// A program with its arrays.
struct Program {
    steps: Vec<Step>,
    values: Vec<Source>,
    registers: usize,
    /// Numbers of the arrays, and of a row of them.
    size: usize,
    columns: usize,
    /// Results that are sums.
    sums: Vec<*mut f32>,
    /// Operands and results of a number for each place, which come from further away than the first-level cache.
    arrays: Vec<*const f32>,
}

// SAFETY: threads read the operands, and each writes to results at places of its own.
unsafe impl Sync for Program {}

impl Program {
    fn new(
        code: &[i64],
        [size, columns]: [usize; 2],
        registers: usize,
        constants: Vec<f32>,
        operands: &[(*const f32, usize)],
        results: &[(*mut f32, usize)],
    ) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what} does not fit its program");
        if columns == 0 || size == 0 || size % columns != 0 || !code.len().is_multiple_of(WORDS) {
            return Err(wrong("the size"));
        }
        let mut values = Vec::with_capacity(operands.len() + constants.len() + registers);
        for &(at, count) in operands {
            values.push(match count {
                _ if count == size => Source::Array(at),
                _ if count == columns => Source::Row(at),
                // SAFETY: an array holds something.
                1 => Source::Number(unsafe { *at }),
                _ => return Err(wrong("an operand")),
            });
        }
        let arrays = operands.iter().filter(|&&(_, count)| count == size);
        let mut arrays: Vec<*const f32> = arrays.map(|&(at, _)| at).collect();
        let made = results.iter().filter(|&&(_, count)| count == size);
        arrays.extend(made.map(|&(at, _)| at.cast_const()));
        values.extend(constants.into_iter().map(Source::Number));
        let first = values.len();
        values.extend((0..registers).map(Source::Register));
        // A result can be read again at the place where it was written.
        let of_results = values.len();
        values.extend(results.iter().map(|&(at, _)| Source::Array(at)));
        // Whether each is written, and whether it is a sum.
        let mut written = vec![None; results.len()];
        let mut sums = Vec::new();
        let mut steps = Vec::with_capacity(code.len() / WORDS);
        for words in code.chunks_exact(WORDS) {
            let code = Code::numbered(words[0]).ok_or_else(|| wrong("an operation"))?;
            let target = usize::try_from(words[1]).unwrap_or(usize::MAX);
            let target = match target.checked_sub(of_results) {
                Some(result) => match results.get(result) {
                    Some(&(at, count)) if code.sums() && count == columns => {
                        sums.push(at);
                        Target::Sum(sums.len() - 1)
                    }
                    Some(&(at, count)) if !code.sums() && count == size => Target::Result(at),
                    _ => return Err(wrong("a result")),
                },
                None if target >= first && !code.sums() => Target::Register(target - first),
                None => return Err(wrong("an operation's target")),
            };
            let mut takes = [0; TAKES];
            for (take, &word) in takes.iter_mut().zip(&words[2..]).take(code.operands()) {
                // Of results only those that an operation before this one has made at each place.
                let made = |v: usize| match v.checked_sub(of_results) {
                    Some(result) => written.get(result) == Some(&Some(false)),
                    None => true,
                };
                let value = usize::try_from(word).ok().filter(|&v| made(v));
                *take = value.ok_or_else(|| wrong("what an operation takes"))?;
            }
            if let Some(result) = usize::try_from(words[1])
                .ok()
                .and_then(|v| v.checked_sub(of_results))
            {
                written[result] = Some(code.sums());
            }
            steps.push(Step {
                code,
                target,
                takes,
            });
        }
        if written.contains(&None) {
            return Err(wrong("a result that nothing makes"));
        }
        Ok(Program {
            steps,
            values,
            registers,
            size,
            columns,
            sums,
            arrays,
        })
    }

    /// Numbers of a tile: whole rows, or a piece of one.
    fn tile(&self) -> usize {
        match TILE / self.columns {
            0 => TILE,
            rows => (rows * self.columns).min(self.size),
        }
    }

    /// Rows that a block of sums adds.
    fn rows_of_block(&self) -> usize {
        BLOCK * (TILE / self.columns).max(1)
    }

    fn blocks(&self) -> usize {
        (self.size / self.columns).div_ceil(self.rows_of_block())
    }

    fn run(&self, loops: &Loops, sharing: &Sharing) {
        let blocks = self.blocks();
        let parts = sharing.parts().min(self.size.div_ceil(PART));
        let per = blocks.div_ceil(parts.max(1));
        let mut sums = vec![0f32; blocks * self.sums.len() * self.columns];
        let shared = Shared::new(&mut sums);
        sharing.share(blocks.div_ceil(per), &|part| {
            self.part(loops, part * per..((part + 1) * per).min(blocks), &shared);
        });
        self.total(&sums);
    }

    /// Some blocks; each has a row for each sum among `sums`.
    fn part(&self, loops: &Loops, blocks: Range<usize>, sums: &Shared) {
        let mut scratch = Scratch::new(self);
        for block in blocks {
            let own = sums.at(block * self.sums.len() * self.columns);
            // SAFETY: the processor has the instructions, or the function would not be registered; a block's sums and its places of
            // results are one thread's.
            unsafe { self.block(loops, block, &mut scratch, own) };
        }
    }

    /// Adds the sums of all blocks.
    fn total(&self, sums: &[f32]) {
        if self.sums.is_empty() {
            return;
        }
        let mut totals = vec![0f32; self.sums.len() * self.columns];
        total(sums, &mut totals);
        for (totals, &at) in totals.chunks_exact(self.columns).zip(&self.sums) {
            // SAFETY: a sum has as many numbers as columns.
            unsafe { std::slice::from_raw_parts_mut(at, self.columns) }.copy_from_slice(totals);
        }
    }

    /// One block of rows; its sums, of all results one after the other, go to `sums`.
    unsafe fn block(&self, loops: &Loops, block: usize, scratch: &mut Scratch, sums: *mut f32) {
        let (tile, columns) = (self.tile(), self.columns);
        let rows = self.rows_of_block();
        let end = ((block + 1) * rows * columns).min(self.size);
        scratch.clear_sums();
        // A tile of whole rows begins with the first column.
        let (mut at, mut column) = (block * rows * columns, 0);
        while at < end {
            let count = match tile < columns {
                true => tile.min(columns - column),
                false => tile.min(end - at),
            };
            for (number, step) in self.steps.iter().enumerate() {
                let soon = match self.arrays.get(number) {
                    Some(array) => array.wrapping_add(at + count),
                    // Nothing more: what is there already.
                    None => scratch.register(0).cast_const(),
                };
                // SAFETY: `Program::new` has checked sizes and numbers of values.
                unsafe {
                    let from = step.takes.map(|value| scratch.at(self, value, at, column));
                    let (to, from) = match step.target {
                        Target::Register(register) => (scratch.register(register), from),
                        Target::Result(result) => (result.add(at), from),
                        Target::Sum(sum) => {
                            let sum = scratch.sum(sum).add(column);
                            let mut from = from;
                            from[step.code.operands()] = sum;
                            (sum, from)
                        }
                    };
                    loops[step.code as usize](count, to, from, soon);
                }
            }
            at += count;
            if tile < columns {
                column = (column + count) % columns;
            }
        }
        for sum in 0..self.sums.len() {
            // Rows of a tile that were summed beside each other, in halves.
            let from = scratch.sum(sum);
            let mut left = (tile / columns).max(1);
            // SAFETY: a sum has room for a tile and for a row, and the block's sums for a row each.
            unsafe {
                while left > 1 {
                    let half = left / 2;
                    let upper = from.add((left - half) * columns).cast_const();
                    let mut both = [upper; TAKES];
                    both[0] = from;
                    loops[Code::Add as usize](half * columns, from, both, upper);
                    left -= half;
                }
                std::ptr::copy_nonoverlapping(from, sums.add(sum * columns), columns);
            }
        }
    }
}

/// A thread's registers, tiles of what is repeated, and sums.
struct Scratch {
    memory: Vec<f32>,
    /// Where it begins so that vectors lie in one line of the cache.
    start: usize,
    tile: usize,
    registers: usize,
    /// The tile of each value that is repeated, among them.
    repeated: Vec<usize>,
    sums: usize,
    sum: usize,
    of_sums: usize,
}

/// Numbers in a line of the cache.
const LINE: usize = 16;

impl Scratch {
    fn new(program: &Program) -> Self {
        let columns = program.columns;
        let tile = program.tile().next_multiple_of(LINE);
        let sum = tile.max(columns).next_multiple_of(LINE);
        let mut count = 0;
        let repeated: Vec<usize> = (program.values.iter())
            .map(|value| match value {
                Source::Number(_) => true,
                Source::Row(_) => columns <= TILE,
                _ => false,
            })
            .map(|repeated| {
                count += usize::from(repeated);
                count.wrapping_sub(1)
            })
            .collect();
        let of_sums = (program.registers + count) * tile;
        let mut memory = vec![0f32; of_sums + program.sums.len() * sum + LINE];
        let start = memory
            .as_ptr()
            .align_offset(LINE * size_of::<f32>())
            .min(LINE);
        for (value, &number) in program.values.iter().zip(&repeated) {
            let own = |memory: &mut [f32]| -> *mut f32 {
                memory[start + (program.registers + number) * tile..].as_mut_ptr()
            };
            match *value {
                Source::Number(number) => {
                    let at = own(&mut memory);
                    // SAFETY: a tile of this value's own.
                    unsafe { std::slice::from_raw_parts_mut(at, tile) }.fill(number);
                }
                Source::Row(row) if columns <= TILE => {
                    let at = own(&mut memory);
                    // SAFETY: a tile of this value's own, and a row of the program's; in whole rows.
                    unsafe {
                        let row = std::slice::from_raw_parts(row, columns);
                        let whole = program.tile() / columns * columns;
                        let tile = std::slice::from_raw_parts_mut(at, whole);
                        tile.chunks_exact_mut(columns)
                            .for_each(|t| t.copy_from_slice(row));
                    }
                }
                _ => {}
            }
        }
        Scratch {
            memory,
            start,
            tile,
            registers: program.registers,
            repeated,
            sums: program.sums.len(),
            sum,
            of_sums,
        }
    }

    fn place(&mut self, index: usize) -> *mut f32 {
        debug_assert!(self.start + index <= self.memory.len());
        // SAFETY: inside the memory, or just behind it.
        unsafe { self.memory.as_mut_ptr().add(self.start + index) }
    }

    fn register(&mut self, register: usize) -> *mut f32 {
        self.place(register * self.tile)
    }

    fn sum(&mut self, sum: usize) -> *mut f32 {
        self.place(self.of_sums + sum * self.sum)
    }

    fn clear_sums(&mut self) {
        let (from, count) = (self.start + self.of_sums, self.sums * self.sum);
        self.memory[from..from + count].fill(0.0);
    }

    /// Where a value lies for the tile that begins at a place, in a column.
    unsafe fn at(
        &mut self,
        program: &Program,
        value: usize,
        at: usize,
        column: usize,
    ) -> *const f32 {
        // SAFETY: the caller's.
        unsafe {
            match program.values[value] {
                Source::Array(array) => array.add(at),
                Source::Row(row) if program.columns > TILE => row.add(column),
                Source::Row(_) | Source::Number(_) => {
                    self.register(self.registers + self.repeated[value])
                }
                Source::Register(register) => self.register(register),
            }
        }
    }
}
