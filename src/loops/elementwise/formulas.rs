//! What each operation computes, in vectors.

use super::super::vectors::{Avx2, Avx512, Vectors, best};
use crate::hlo::passes::{Code, TAKES};

/// An operation on so many numbers: where the result goes, where what it takes lies, and what is needed soon.
pub(super) type Loop = unsafe fn(usize, *mut f32, [*const f32; TAKES], *const f32);

/// A loop for each [`Code`].
pub(super) type Loops = [Loop; Code::ALL.len()];

/// What an operation computes.
trait Formula {
    const OPERANDS: usize;
    unsafe fn of<V: Vectors>(x: [V::Vector; TAKES]) -> V::Vector;
}

/// Vectors that are computed beside each other.
const BESIDE: usize = 4;

#[inline(always)]
unsafe fn each<V: Vectors, F: Formula>(
    count: usize,
    to: *mut f32,
    from: [*const f32; TAKES],
    soon: *const f32,
) {
    // SAFETY: the caller has seen to what is read and written, and to the instructions.
    unsafe {
        let mut i = 0;
        while i + BESIDE * V::LANES <= count {
            let mut results = [V::zero(); BESIDE];
            for (beside, result) in results.iter_mut().enumerate() {
                V::fetch(soon.wrapping_add(i + beside * V::LANES));
                *result = F::of::<V>(whole::<V>(F::OPERANDS, from, i + beside * V::LANES));
            }
            for (beside, result) in results.into_iter().enumerate() {
                V::store(to.add(i + beside * V::LANES), result);
            }
            i += BESIDE * V::LANES;
        }
        while i + V::LANES <= count {
            V::store(to.add(i), F::of::<V>(whole::<V>(F::OPERANDS, from, i)));
            i += V::LANES;
        }
        if i < count {
            let mask = V::mask(count - i);
            let mut x = [V::zero(); TAKES];
            for (x, from) in x.iter_mut().zip(from).take(F::OPERANDS) {
                *x = V::load_masked(mask, from.add(i));
            }
            V::store_masked(mask, to.add(i), F::of::<V>(x));
        }
    }
}

/// (A closure would be compiled without the instructions.)
#[inline(always)]
unsafe fn whole<V: Vectors>(
    operands: usize,
    from: [*const f32; TAKES],
    i: usize,
) -> [V::Vector; TAKES] {
    // SAFETY: the caller's.
    unsafe {
        let mut x = [V::zero(); TAKES];
        for (x, from) in x.iter_mut().zip(from).take(operands) {
            *x = V::load(from.add(i));
        }
        x
    }
}

#[inline(always)]
unsafe fn normal<V: Vectors>(x: V::Vector, mean: V::Vector, inverse: V::Vector) -> V::Vector {
    // SAFETY: the caller's.
    unsafe { V::multiply(V::subtract(x, mean), inverse) }
}

#[inline(always)]
unsafe fn normalised<V: Vectors>(x: [V::Vector; TAKES]) -> V::Vector {
    // SAFETY: the caller's.
    unsafe { V::multiply_add(normal::<V>(x[0], x[1], x[2]), x[3], x[4]) }
}

/// The formulas of all codes, and tables of their loops.
macro_rules! formulas {
    ($($code:ident $operands:literal |$v:ident, $x:ident| $formula:expr;)*) => {
        $(
            struct $code;
            impl Formula for $code {
                const OPERANDS: usize = $operands;
                #[inline(always)]
                unsafe fn of<$v: Vectors>($x: [$v::Vector; TAKES]) -> $v::Vector {
                    // SAFETY: the caller's.
                    unsafe { $formula }
                }
            }
        )*
        pub(super) const AVX512: Loops = table!(Avx512 "avx512f" $($code)*);
        pub(super) const AVX2: Loops = table!(Avx2 "avx2,fma" $($code)*);
        const OPERANDS: [usize; Code::ALL.len()] = [$($operands),*];
        /// In the order of the tables.
        const ORDER: [Code; Code::ALL.len()] = [$(Code::$code),*];
    };
}

macro_rules! table {
    ($vectors:ident $features:literal $($code:ident)*) => {
        [$({
            #[target_feature(enable = $features)]
            unsafe fn one(count: usize, to: *mut f32, from: [*const f32; TAKES], soon: *const f32) {
                // SAFETY: the caller's.
                unsafe { each::<$vectors, $code>(count, to, from, soon) }
            }
            one
        }),*]
    };
}

formulas! {
    // Of the sum so far, which is the last one taken.
    Sum 2 |V, x| V::add(x[0], x[1]);
    SumProduct 3 |V, x| V::multiply_add(x[0], x[1], x[2]);
    Add 2 |V, x| V::add(x[0], x[1]);
    Subtract 2 |V, x| V::subtract(x[0], x[1]);
    Multiply 2 |V, x| V::multiply(x[0], x[1]);
    Divide 2 |V, x| V::divide(x[0], x[1]);
    Maximum 2 |V, x| V::maximum(x[0], x[1]);
    Minimum 2 |V, x| V::minimum(x[0], x[1]);
    SquareRoot 1 |V, x| V::square_root(x[0]);
    InverseRoot 1 |V, x| V::divide(V::all(1.0), V::square_root(x[0]));
    MultiplyAdd 3 |V, x| V::multiply_add(x[0], x[1], x[2]);
    SubtractProduct 3 |V, x| V::subtract_product(x[0], x[1], x[2]);
    SubtractMultiply 3 |V, x| V::multiply(V::subtract(x[0], x[1]), x[2]);
    WhereGreater 4 |V, x| V::where_greater(x[0], x[1], x[2], x[3]);
    WhereAtLeast 4 |V, x| V::where_at_least(x[0], x[1], x[2], x[3]);
    WhereEqual 4 |V, x| V::where_equal(x[0], x[1], x[2], x[3]);
    Normalise 5 |V, x| normalised::<V>(x);
    NormaliseMaximum 6 |V, x| V::maximum(normalised::<V>(x), x[5]);
    WhereNormalisedGreater 8 |V, x| V::where_greater(normalised::<V>(x), x[5], x[6], x[7]);
    SumProductNormal 5 |V, x| V::multiply_add(x[0], normal::<V>(x[1], x[2], x[3]), x[4]);
    NormalMultiply 4 |V, x| V::multiply(normal::<V>(x[0], x[1], x[2]), x[3]);
    SubtractTwoMultiply 4 |V, x| V::multiply(V::subtract(V::subtract(x[0], x[1]), x[2]), x[3]);
    NormalGradient 7 |V, x| {
        let part = V::multiply(normal::<V>(x[2], x[3], x[4]), x[5]);
        V::multiply(V::subtract(V::subtract(x[0], x[1]), part), x[6])
    };
}

// The tables are indexed by code.
const _: () = {
    let mut i = 0;
    while i < ORDER.len() {
        assert!(ORDER[i] as usize == i);
        // Of a sum the formula takes what it is so far, too.
        assert!(OPERANDS[i] == ORDER[i].operands() + ORDER[i].sums() as usize);
        i += 1;
    }
};

/// Those for this processor.
pub(super) fn loops() -> &'static Loops {
    best(&AVX512, &AVX2)
}
