//! The five transforms of `F(2×2, 3×3)`, each a small matrix applied along both dimensions of a tile, for some channels at once.
#![expect(unsafe_code, reason = "vector instructions")]

use super::super::vectors::{Avx2, Avx512, Vectors, best};

/// Outputs of a tile along a dimension.
pub(super) const STEP: usize = 2;
/// Taps of a kernel along a dimension.
pub(super) const TAPS: usize = 3;
/// Points at which a tile's polynomials are multiplied, along a dimension: as many as cells of the image that its outputs see.
pub(super) const SIDE: usize = STEP + TAPS - 1;

/// From tiles of numbers for each of some channels, at these addresses, to other tiles.
pub(super) type Transform<const FROM: usize, const TO: usize> =
    unsafe fn(&[[*const f32; FROM]; FROM], &[[*mut f32; TO]; TO], usize);

/// The transforms, for one kind of instructions.
pub(super) struct Transforms {
    /// A tile of an image to its points, `Bᵀ d B`.
    pub image: Transform<SIDE, SIDE>,
    /// A kernel to its points, `G g Gᵀ`.
    pub kernel: Transform<TAPS, SIDE>,
    /// Sums of products at each point to outputs, `Aᵀ m A`.
    pub outputs: Transform<SIDE, STEP>,
    /// Gradients of outputs to those of sums at each point, `A y Aᵀ`.
    pub gradient: Transform<STEP, SIDE>,
    /// Gradients of a kernel's points to that of the kernel, `Gᵀ u G`.
    pub of_kernel: Transform<SIDE, TAPS>,
}

/// A matrix that is applied to a column of vectors.
trait Matrix<V: Vectors, const FROM: usize, const TO: usize> {
    unsafe fn apply(x: [V::Vector; FROM]) -> [V::Vector; TO];
}

struct Image;
impl<V: Vectors> Matrix<V, SIDE, SIDE> for Image {
    #[inline(always)]
    unsafe fn apply([a, b, c, d]: [V::Vector; SIDE]) -> [V::Vector; SIDE] {
        unsafe {
            [
                V::subtract(a, c),
                V::add(b, c),
                V::subtract(c, b),
                V::subtract(b, d),
            ]
        }
    }
}

struct Kernel;
impl<V: Vectors> Matrix<V, TAPS, SIDE> for Kernel {
    #[inline(always)]
    unsafe fn apply([a, b, c]: [V::Vector; TAPS]) -> [V::Vector; SIDE] {
        unsafe {
            let (half, outer) = (V::all(0.5), V::add(a, c));
            let sum = V::multiply(half, V::add(outer, b));
            let difference = V::multiply(half, V::subtract(outer, b));
            [a, sum, difference, c]
        }
    }
}

struct Outputs;
impl<V: Vectors> Matrix<V, SIDE, STEP> for Outputs {
    #[inline(always)]
    unsafe fn apply([a, b, c, d]: [V::Vector; SIDE]) -> [V::Vector; STEP] {
        unsafe { [V::add(V::add(a, b), c), V::subtract(V::subtract(b, c), d)] }
    }
}

struct Gradient;
impl<V: Vectors> Matrix<V, STEP, SIDE> for Gradient {
    #[inline(always)]
    unsafe fn apply([a, b]: [V::Vector; STEP]) -> [V::Vector; SIDE] {
        unsafe {
            [
                a,
                V::add(a, b),
                V::subtract(a, b),
                V::subtract(V::zero(), b),
            ]
        }
    }
}

struct OfKernel;
impl<V: Vectors> Matrix<V, SIDE, TAPS> for OfKernel {
    #[inline(always)]
    unsafe fn apply([a, b, c, d]: [V::Vector; SIDE]) -> [V::Vector; TAPS] {
        unsafe {
            let half = V::all(0.5);
            let sum = V::multiply(half, V::add(b, c));
            let difference = V::multiply(half, V::subtract(b, c));
            [V::add(a, sum), difference, V::add(sum, d)]
        }
    }
}

/// Applies a matrix along columns, then along rows.
#[inline(always)]
unsafe fn both<V: Vectors, M: Matrix<V, FROM, TO>, const FROM: usize, const TO: usize>(
    from: &[[*const f32; FROM]; FROM],
    to: &[[*mut f32; TO]; TO],
    count: usize,
) {
    let mut first = 0;
    while first < count {
        let lanes = (count - first).min(V::LANES);
        // SAFETY: the caller's; a mask leaves out what lies behind the last channel.
        unsafe {
            let mask = V::mask(lanes);
            let mut half = [[V::zero(); FROM]; TO];
            for j in 0..FROM {
                let mut column = [V::zero(); FROM];
                for i in 0..FROM {
                    let place = from[i][j].add(first);
                    column[i] = match lanes == V::LANES {
                        true => V::load(place),
                        false => V::load_masked(mask, place),
                    };
                }
                let column = M::apply(column);
                for i in 0..TO {
                    half[i][j] = column[i];
                }
            }
            for i in 0..TO {
                let row = M::apply(half[i]);
                for j in 0..TO {
                    let place = to[i][j].add(first);
                    match lanes == V::LANES {
                        true => V::store(place, row[j]),
                        false => V::store_masked(mask, place, row[j]),
                    }
                }
            }
        }
        first += V::LANES;
    }
}

macro_rules! transforms {
    ($vectors:ident $features:literal) => {
        Transforms {
            image: transforms!($vectors $features Image SIDE SIDE),
            kernel: transforms!($vectors $features Kernel TAPS SIDE),
            outputs: transforms!($vectors $features Outputs SIDE STEP),
            gradient: transforms!($vectors $features Gradient STEP SIDE),
            of_kernel: transforms!($vectors $features OfKernel SIDE TAPS),
        }
    };
    ($vectors:ident $features:literal $matrix:ident $from:ident $to:ident) => {{
        #[target_feature(enable = $features)]
        unsafe fn one(from: &[[*const f32; $from]; $from], to: &[[*mut f32; $to]; $to], count: usize) {
            // SAFETY: the caller's.
            unsafe { both::<$vectors, $matrix, $from, $to>(from, to, count) }
        }
        one
    }};
}

pub(super) const AVX512: Transforms = transforms!(Avx512 "avx512f");
pub(super) const AVX2: Transforms = transforms!(Avx2 "avx2,fma");

/// Those for this processor.
pub(super) fn transforms() -> &'static Transforms {
    best(&AVX512, &AVX2)
}
