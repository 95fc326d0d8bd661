//! The five transforms of `F(2×2, 3×3)`, each a small matrix applied along both dimensions of a tile, for some channels at once.
#![expect(unsafe_code, reason = "vector instructions")]

use super::super::vectors::{Avx2, Avx512, Vectors, best};

/// Outputs of a tile along a dimension.
pub(super) const STEP: usize = 2;
/// Taps of a kernel along a dimension.
pub(super) const TAPS: usize = 3;
/// Points at which a tile's polynomials are multiplied, along a dimension: as many as cells of the image that its outputs see.
pub(super) const SIDE: usize = STEP + TAPS - 1;

/// Where the cells of a tile lie that are equally far apart: so many numbers from row to row, and from column to column.
#[derive(Clone, Copy)]
pub(super) struct Grid<P> {
    pub start: P,
    pub row: usize,
    pub column: usize,
}

/// Where the cells of a tile lie.
trait Cells<P> {
    unsafe fn at(&self, row: usize, column: usize) -> P;
}

impl Cells<*const f32> for Grid<*const f32> {
    #[inline(always)]
    unsafe fn at(&self, row: usize, column: usize) -> *const f32 {
        unsafe { self.start.add(row * self.row + column * self.column) }
    }
}

impl Cells<*mut f32> for Grid<*mut f32> {
    #[inline(always)]
    unsafe fn at(&self, row: usize, column: usize) -> *mut f32 {
        unsafe { self.start.add(row * self.row + column * self.column) }
    }
}

impl<P: Copy, const N: usize> Cells<P> for [[P; N]; N] {
    #[inline(always)]
    unsafe fn at(&self, row: usize, column: usize) -> P {
        self[row][column]
    }
}

/// From a tile of numbers, for each of so many channels, to another tile.
pub(super) type Transform<From, To> = unsafe fn(&From, &To, usize);
/// The cells of a tile one by one, where some are left out.
pub(super) type Each<P, const N: usize> = [[P; N]; N];
type Read = Grid<*const f32>;
type Write = Grid<*mut f32>;

/// The transforms, for one kind of instructions.
pub(super) struct Transforms {
    /// A tile of an image to its points, `Bᵀ d B`.
    pub image: Transform<Read, Write>,
    pub image_at_border: Transform<Each<*const f32, SIDE>, Write>,
    /// A kernel to its points, `G g Gᵀ`.
    pub kernel: Transform<Read, Write>,
    /// Sums of products at each point to outputs, `Aᵀ m A`.
    pub outputs: Transform<Read, Write>,
    pub outputs_at_border: Transform<Read, Each<*mut f32, STEP>>,
    /// Gradients of outputs to those of sums at each point, `A y Aᵀ`.
    pub gradient: Transform<Read, Write>,
    pub gradient_at_border: Transform<Each<*const f32, STEP>, Write>,
    /// Gradients of a kernel's points to that of the kernel, `Gᵀ u G`.
    pub of_kernel: Transform<Read, Write>,
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
    from: &impl Cells<*const f32>,
    to: &impl Cells<*mut f32>,
    count: usize,
) {
    // SAFETY: the caller's; a mask leaves out what lies behind the last channel.
    unsafe {
        let mut first = 0;
        while first + V::LANES <= count {
            vector::<V, M, FROM, TO>(from, to, first, None);
            first += V::LANES;
        }
        if first < count {
            vector::<V, M, FROM, TO>(from, to, first, Some(V::mask(count - first)));
        }
    }
}

/// The same for as many channels as a vector has, or its mask.
#[inline(always)]
unsafe fn vector<V: Vectors, M: Matrix<V, FROM, TO>, const FROM: usize, const TO: usize>(
    from: &impl Cells<*const f32>,
    to: &impl Cells<*mut f32>,
    first: usize,
    mask: Option<V::Mask>,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut columns = [[V::zero(); TO]; FROM];
        for (j, column) in columns.iter_mut().enumerate() {
            let mut cells = [V::zero(); FROM];
            for (i, cell) in cells.iter_mut().enumerate() {
                let place = from.at(i, j).add(first);
                *cell = match mask {
                    None => V::load(place),
                    Some(mask) => V::load_masked(mask, place),
                };
            }
            *column = M::apply(cells);
        }
        for i in 0..TO {
            let mut row = [V::zero(); FROM];
            for (value, column) in row.iter_mut().zip(&columns) {
                *value = column[i];
            }
            for (j, value) in M::apply(row).into_iter().enumerate() {
                let place = to.at(i, j).add(first);
                match mask {
                    None => V::store(place, value),
                    Some(mask) => V::store_masked(mask, place, value),
                }
            }
        }
    }
}

macro_rules! transforms {
    ($vectors:ident $features:literal) => {
        Transforms {
            image: transforms!($vectors $features Image SIDE SIDE, Read, Write),
            image_at_border: transforms!($vectors $features Image SIDE SIDE, Each<*const f32, SIDE>, Write),
            kernel: transforms!($vectors $features Kernel TAPS SIDE, Read, Write),
            outputs: transforms!($vectors $features Outputs SIDE STEP, Read, Write),
            outputs_at_border: transforms!($vectors $features Outputs SIDE STEP, Read, Each<*mut f32, STEP>),
            gradient: transforms!($vectors $features Gradient STEP SIDE, Read, Write),
            gradient_at_border: transforms!($vectors $features Gradient STEP SIDE, Each<*const f32, STEP>, Write),
            of_kernel: transforms!($vectors $features OfKernel SIDE TAPS, Read, Write),
        }
    };
    ($vectors:ident $features:literal $matrix:ident $from:ident $to:ident, $read:ty, $write:ty) => {{
        #[target_feature(enable = $features)]
        unsafe fn one(from: &$read, to: &$write, count: usize) {
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
