use super::super::trials::random;
use super::super::vectors::supported;
use super::formulas::{AVX2, AVX512};
use super::*;
use crate::random::threefry2x32;

/// What an operation is, number by number; of a sum, what is added.
fn plain(code: Code, x: &[f32]) -> f32 {
    let normal = |x: &[f32]| (x[0] - x[1]) * x[2];
    let largest = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    match code {
        Code::Sum => x[0],
        Code::SumProduct | Code::Multiply => x[0] * x[1],
        Code::Add => x[0] + x[1],
        Code::Subtract => x[0] - x[1],
        Code::Divide => x[0] / x[1],
        Code::Maximum => largest(x[0], x[1]),
        Code::Minimum => -largest(-x[0], -x[1]),
        Code::SquareRoot => x[0].sqrt(),
        Code::InverseRoot => 1.0 / x[0].sqrt(),
        Code::MultiplyAdd => x[0].mul_add(x[1], x[2]),
        Code::SubtractProduct => (-x[0]).mul_add(x[1], x[2]),
        Code::SubtractMultiply => normal(x),
        Code::WhereGreater => [x[3], x[2]][usize::from(x[0] > x[1])],
        Code::WhereAtLeast => [x[3], x[2]][usize::from(x[0] >= x[1])],
        Code::WhereEqual => [x[3], x[2]][usize::from(x[0] == x[1])],
        Code::Normalise => normal(x).mul_add(x[3], x[4]),
        Code::NormaliseMaximum => largest(normal(x).mul_add(x[3], x[4]), x[5]),
        Code::WhereNormalisedGreater => {
            [x[7], x[6]][usize::from(normal(x).mul_add(x[3], x[4]) > x[5])]
        }
        Code::SumProductNormal => x[0] * normal(&x[1..]),
        Code::NormalMultiply => normal(x) * x[3],
        Code::SubtractTwoMultiply => ((x[0] - x[1]) - x[2]) * x[3],
        Code::NormalGradient => ((x[0] - x[1]) - normal(&x[2..]) * x[5]) * x[6],
    }
}

/// Rows, columns.
const SIZES: [[usize; 2]; 11] = [
    [1, 2],
    [700, 1],
    [3, 16],
    [40, 48],
    [1030, 16],
    [515, 40],
    [257, 64],
    [300, 130],
    [9, 333],
    [5, 700],
    [70, 1100],
];

/// Every operation, of operands of every kind, of registers and of results that are read again: the same bits as number
/// by number, with either kind of instructions, whatever the order of the blocks; sums up to rounding.
#[test]
fn programs_compute_what_is_written_down() {
    for (seed, [rows, columns]) in SIZES.into_iter().enumerate() {
        let (seed, size) = (seed as u32, rows * columns);
        let draw = |at: u32, below: usize| threefry2x32([seed, 77], [at, 0])[0] as usize % below;
        let mut arrays: Vec<Vec<f32>> = (0..3).map(|i| random(10 * seed + i, size)).collect();
        // Zeros, equal numbers, one that is none.
        for at in (0..size).step_by(7) {
            arrays[1][at] = arrays[0][at];
            arrays[2][at] = 0.0;
        }
        arrays[0][size / 2] = f32::NAN;
        arrays.extend((3..5).map(|i| random(10 * seed + i, columns)));
        arrays.push(vec![0.75]);
        let constants = [0.0, -1.5];
        let (registers, first) = (3, arrays.len() + constants.len());
        let of_results = first + registers;
        // Registers, which a first step of each fills; every operation, of what is drawn from all values, with a result of its own, which
        // the next ones may take, and now and then into a register; sums of what was never NaN.
        let each: Vec<Code> = Code::ALL.into_iter().filter(|code| !code.sums()).collect();
        let mut steps: Vec<(Code, usize, [usize; TAKES])> = Vec::new();
        for register in 0..registers {
            steps.push((Code::Add, first + register, [register, 3, 0, 0, 0, 0, 0, 0]));
        }
        for (i, &code) in each.iter().enumerate() {
            // Any but the one with a NaN, which comes in at times.
            let takes = [0, 1, 2, 3, 4, 5, 6, 7].map(|k| {
                let at = 100 + 8 * i as u32 + k;
                let any = draw(at, of_results + i);
                if draw(at, 5) == 0 {
                    any
                } else {
                    any.clamp(1, of_results - 1)
                }
            });
            steps.push((code, of_results + i, takes));
            steps.push((
                Code::Multiply,
                first + i % registers,
                [of_results + i, 3, 0, 0, 0, 0, 0, 0],
            ));
            steps.push((
                Code::Add,
                first + i % registers,
                [first + i % registers, 2, 0, 0, 0, 0, 0, 0],
            ));
        }
        let of_sums = of_results + each.len();
        for (k, code) in [Code::Sum, Code::SumProduct, Code::SumProductNormal]
            .into_iter()
            .enumerate()
        {
            steps.push((code, of_sums + k, [1, 2, 3, 4, 0, 0, 0, 0]));
        }
        let words: Vec<i64> = steps
            .iter()
            .flat_map(|(code, target, takes)| {
                [*code as i64, *target as i64]
                    .into_iter()
                    .chain(takes.iter().map(|&take| take as i64))
            })
            .collect();

        let mut expected = vec![vec![0f32; size]; each.len()];
        // Sums, and those of sizes, by which rounding is told.
        let mut sums = vec![vec![[0f64; 2]; columns]; 3];
        for at in 0..size {
            let mut values: Vec<f32> = (arrays.iter())
                .map(|array| match array.len() {
                    1 => array[0],
                    count if count == size => array[at],
                    _ => array[at % columns],
                })
                .chain(constants)
                .chain(vec![0.0; registers + each.len()])
                .collect();
            for (code, target, takes) in &steps {
                let made = plain(*code, &takes.map(|take| values[take]));
                match target.checked_sub(of_sums) {
                    Some(sum) => {
                        sums[sum][at % columns][0] += f64::from(made);
                        sums[sum][at % columns][1] += f64::from(made.abs());
                    }
                    None => values[*target] = made,
                }
            }
            for (expected, &value) in expected.iter_mut().zip(&values[of_results..]) {
                expected[at] = value;
            }
        }

        let mut first_totals: Option<Vec<Vec<f32>>> = None;
        for loops in supported(&AVX512, &AVX2) {
            let mut made = vec![vec![f32::NAN; size]; each.len()];
            let mut totals = vec![vec![f32::NAN; columns]; 3];
            let mut results: Vec<(*mut f32, usize)> = made
                .iter_mut()
                .map(|result| (result.as_mut_ptr(), size))
                .collect();
            results.extend(totals.iter_mut().map(|sum| (sum.as_mut_ptr(), columns)));
            let operands: Vec<_> = arrays.iter().map(|a| (a.as_ptr(), a.len())).collect();
            let program = Program::new(
                &words,
                [size, columns],
                registers,
                constants.to_vec(),
                &operands,
                &results,
            )
            .unwrap();
            let mut of_blocks = vec![f32::NAN; program.blocks() * 3 * columns];
            let shared = Shared::new(&mut of_blocks);
            for block in (0..program.blocks()).rev() {
                program.part(loops, block..block + 1, &shared);
            }
            program.total(&of_blocks);
            for ((code, found), expected) in each.iter().zip(&made).zip(&expected) {
                for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                    // The larger of 0 and −0 is either.
                    let zeros = found == &0.0 && expected == &0.0;
                    assert!(
                        found.to_bits() == expected.to_bits()
                            || zeros
                            || found.is_nan() && expected.is_nan(),
                        "{rows} × {columns}, {at}: {found} instead of {expected} of {code:?}"
                    );
                }
            }
            for (found, expected) in totals.iter().zip(&sums) {
                for (&found, [expected, of]) in found.iter().zip(expected) {
                    let apart = (f64::from(found) - expected).abs();
                    assert!(
                        apart <= 1e-6 * of,
                        "{rows} × {columns}: {apart:.1e} of {of:.1e}"
                    );
                }
            }
            // Whatever the vectors' width.
            assert!(first_totals.get_or_insert(totals.clone()) == &totals);
        }
    }
}

#[test]
fn a_program_that_does_not_fit_its_arrays_is_refused() {
    let (x, mut y) = ([1f32; 12], [0f32; 12]);
    let mut refused = |words: &[i64], columns, counts: [usize; 2], what: &str| {
        let mut all = words.to_vec();
        all.resize(words.len().next_multiple_of(WORDS), 0);
        let operands = [(x.as_ptr(), counts[0])];
        let results = [(y.as_mut_ptr(), counts[1])];
        let error = Program::new(&all, [12, columns], 1, vec![], &operands, &results).err();
        assert_eq!(
            error.unwrap_or_default(),
            format!("{what} does not fit its program")
        );
    };
    let add = Code::Add as i64;
    refused(&[add, 2, 0, 0], 5, [12, 12], "the size");
    refused(&[add, 2, 0, 0], 0, [12, 12], "the size");
    refused(&[add, 2, 0, 0], 4, [3, 12], "an operand");
    refused(&[99, 2, 0, 0], 4, [12, 12], "an operation");
    refused(&[add, 0, 0, 0], 4, [12, 12], "an operation's target");
    refused(&[add, 3, 0, 0], 4, [12, 12], "a result");
    refused(&[add, 2, 0, 0], 4, [12, 4], "a result");
    refused(&[Code::Sum as i64, 2, 0], 4, [12, 12], "a result");
    refused(&[add, 2, 0, 3], 4, [12, 12], "what an operation takes");
    refused(&[add, 2, 0, -1], 4, [12, 12], "what an operation takes");
    refused(&[add, 2, 0, 2], 4, [12, 12], "what an operation takes");
    refused(&[add, 1, 0, 0], 4, [12, 12], "a result that nothing makes");
}
