//! Vector instructions, and blocks of sums that stay in registers.
#![expect(unsafe_code, reason = "vector instructions")]

use std::arch::x86_64::{
    __m256, __m256i, __m512, __mmask16, _CMP_EQ_OQ, _CMP_GE_OQ, _CMP_GT_OQ, _CMP_UNORD_Q,
    _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_blendv_ps, _mm256_cmp_ps, _mm256_div_ps,
    _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_maskload_ps,
    _mm256_maskstore_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_sqrt_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps,
    _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps,
    _mm512_mask_blend_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_ps,
    _mm512_min_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_sqrt_ps,
    _mm512_storeu_ps, _mm512_sub_ps,
};

/// Bytes that all blocks pass over before the next ones come from further away. From 128 to 400 KiB is alike for a second-level cache of a MiB.
pub(super) const GROUP: usize = 192 << 10;

/// Instructions on vectors of f32. A block of `ROWS` by `VECTORS` sums is made of products of a number for each row with a vector for each
/// column.
pub(super) trait Vectors {
    /// Numbers in a vector.
    const LANES: usize;
    type Vector: Copy;
    type Mask: Copy;

    /// The first lanes, one at least.
    unsafe fn mask(lanes: usize) -> Self::Mask;
    unsafe fn zero() -> Self::Vector;
    unsafe fn all(number: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// Zero where the mask is not.
    unsafe fn load_masked(mask: Self::Mask, from: *const f32) -> Self::Vector;
    /// Brings what lies there into the cache, if anything does.
    unsafe fn fetch(from: *const f32);
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    unsafe fn store_masked(mask: Self::Mask, to: *mut f32, vector: Self::Vector);
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn subtract(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn multiply(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a · b + c`, rounded once.
    unsafe fn multiply_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `c − a · b`, rounded once.
    unsafe fn subtract_product(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    unsafe fn divide(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn square_root(a: Self::Vector) -> Self::Vector;
    /// The larger one, or what is no number.
    unsafe fn maximum(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The smaller one, or what is no number.
    unsafe fn minimum(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `x` where `a > b`, elsewhere `y`.
    unsafe fn where_greater(
        a: Self::Vector,
        b: Self::Vector,
        x: Self::Vector,
        y: Self::Vector,
    ) -> Self::Vector;
    /// `x` where `a ≥ b`, elsewhere `y`.
    unsafe fn where_at_least(
        a: Self::Vector,
        b: Self::Vector,
        x: Self::Vector,
        y: Self::Vector,
    ) -> Self::Vector;
    /// `x` where `a = b`, elsewhere `y`.
    unsafe fn where_equal(
        a: Self::Vector,
        b: Self::Vector,
        x: Self::Vector,
        y: Self::Vector,
    ) -> Self::Vector;
}

pub(super) struct Avx512;

impl Vectors for Avx512 {
    const LANES: usize = 16;
    type Vector = __m512;
    type Mask = __mmask16;

    #[inline(always)]
    unsafe fn mask(lanes: usize) -> __mmask16 {
        (u32::MAX >> (32 - lanes)) as __mmask16
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn all(number: f32) -> __m512 {
        unsafe { _mm512_set1_ps(number) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_masked(mask: __mmask16, from: *const f32) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }

    #[inline(always)]
    unsafe fn fetch(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m512) {
        unsafe { _mm512_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn store_masked(mask: __mmask16, to: *mut f32, vector: __m512) {
        unsafe { _mm512_mask_storeu_ps(to, mask, vector) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn subtract(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn subtract_product(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn divide(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn square_root(a: __m512) -> __m512 {
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    unsafe fn maximum(a: __m512, b: __m512) -> __m512 {
        // The instruction gives `b` where either is no number.
        unsafe {
            _mm512_mask_blend_ps(
                _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a),
                _mm512_max_ps(a, b),
                a,
            )
        }
    }

    #[inline(always)]
    unsafe fn minimum(a: __m512, b: __m512) -> __m512 {
        // The instruction gives `b` where either is no number.
        unsafe {
            _mm512_mask_blend_ps(
                _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a),
                _mm512_min_ps(a, b),
                a,
            )
        }
    }

    #[inline(always)]
    unsafe fn where_greater(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), y, x) }
    }

    #[inline(always)]
    unsafe fn where_at_least(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b), y, x) }
    }

    #[inline(always)]
    unsafe fn where_equal(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b), y, x) }
    }
}

pub(super) struct Avx2;

impl Vectors for Avx2 {
    const LANES: usize = 8;
    type Vector = __m256;
    type Mask = __m256i;

    #[inline(always)]
    unsafe fn mask(lanes: usize) -> __m256i {
        const WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - lanes).cast()) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn all(number: f32) -> __m256 {
        unsafe { _mm256_set1_ps(number) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_masked(mask: __m256i, from: *const f32) -> __m256 {
        unsafe { _mm256_maskload_ps(from, mask) }
    }

    #[inline(always)]
    unsafe fn fetch(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m256) {
        unsafe { _mm256_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn store_masked(mask: __m256i, to: *mut f32, vector: __m256) {
        unsafe { _mm256_maskstore_ps(to, mask, vector) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn subtract(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn subtract_product(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn divide(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn square_root(a: __m256) -> __m256 {
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    unsafe fn maximum(a: __m256, b: __m256) -> __m256 {
        // The instruction gives `b` where either is no number.
        unsafe { _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a)) }
    }

    #[inline(always)]
    unsafe fn minimum(a: __m256, b: __m256) -> __m256 {
        // The instruction gives `b` where either is no number.
        unsafe { _mm256_blendv_ps(_mm256_min_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a)) }
    }

    #[inline(always)]
    unsafe fn where_greater(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) }
    }

    #[inline(always)]
    unsafe fn where_at_least(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_GE_OQ>(a, b)) }
    }

    #[inline(always)]
    unsafe fn where_equal(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)) }
    }
}

/// A row of vectors, of which the last one has a mask.
#[inline(always)]
pub(super) unsafe fn load<V: Vectors, const VECTORS: usize>(
    last: V::Mask,
    from: *const f32,
) -> [V::Vector; VECTORS] {
    // SAFETY: the caller's.
    std::array::from_fn(|v| unsafe {
        let from = from.add(V::LANES * v);
        if v + 1 < VECTORS {
            V::load(from)
        } else {
            V::load_masked(last, from)
        }
    })
}

/// The other way.
#[inline(always)]
pub(super) unsafe fn store<V: Vectors, const VECTORS: usize>(
    last: V::Mask,
    to: *mut f32,
    row: [V::Vector; VECTORS],
) {
    for (v, vector) in row.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let to = to.add(V::LANES * v);
            if v + 1 < VECTORS {
                V::store(to, vector)
            } else {
                V::store_masked(last, to, vector)
            }
        }
    }
}

/// A loop for each shape of a block, for one kind of instructions.
pub(super) struct Loops<L: 'static> {
    pub lanes: usize,
    /// By vectors and rows, less one each.
    pub table: &'static [&'static [L]],
}

impl<L> Loops<L> {
    /// Vectors of the block that begins with this one of `count` numbers, and the lanes of the last of them that are numbers.
    pub fn vectors(&self, count: usize, first: usize) -> (usize, usize) {
        let vectors = (count - first).div_ceil(self.lanes).min(self.table.len());
        let lanes = (count - first - (vectors - 1) * self.lanes).min(self.lanes);
        (vectors, lanes)
    }

    /// Numbers that the widest block has side by side.
    pub fn width(&self) -> usize {
        self.table.len() * self.lanes
    }

    /// Rows of the largest block of so many vectors.
    pub fn most_rows(&self, vectors: usize) -> usize {
        self.table[vectors - 1].len()
    }
}

/// What this processor can run; an engine makes no calls where it can run none.
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// What this processor runs: the one for AVX-512, or that for AVX2.
pub(super) fn best<T>(avx512: &'static T, avx2: &'static T) -> &'static T {
    match is_x86_feature_detected!("avx512f") {
        true => avx512,
        false => avx2,
    }
}

/// Those of the two that this processor can run.
#[cfg(test)]
pub(super) fn supported<T>(avx512: &'static T, avx2: &'static T) -> Vec<&'static T> {
    let mut found = Vec::new();
    if is_x86_feature_detected!("avx512f") {
        found.push(avx512);
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        found.push(avx2);
    }
    assert!(!found.is_empty());
    found
}

/// The loops of `block::<Vectors, ROWS, VECTORS>(&Work)` for either kind of instructions, as constants `AVX512` and `AVX2`, and `loops`, those
/// for this processor. So many sums fill the registers but for what they are made of (with AVX2 a mask takes one, too), and are more than hide
/// the latency of a product.
macro_rules! loops {
    ($block:ident, $work:ident) => {
        pub(super) type Loop = for<'a, 'b> unsafe fn(&'a $work<'b>);

        pub(super) const AVX512: Loops<Loop> = Loops {
            lanes: Avx512::LANES,
            table: &[
                loops!($block $work Avx512 "avx512f" 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24),
                loops!($block $work Avx512 "avx512f" 2: 1 2 3 4 5 6 7 8 9 10 11 12),
                loops!($block $work Avx512 "avx512f" 3: 1 2 3 4 5 6 7 8),
                loops!($block $work Avx512 "avx512f" 4: 1 2 3 4 5 6),
            ],
        };

        pub(super) const AVX2: Loops<Loop> = Loops {
            lanes: Avx2::LANES,
            table: &[
                loops!($block $work Avx2 "avx2,fma" 1: 1 2 3 4 5 6 7 8 9 10 11 12),
                loops!($block $work Avx2 "avx2,fma" 2: 1 2 3 4 5 6),
            ],
        };

        pub(super) fn loops() -> &'static Loops<Loop> {
            $crate::loops::vectors::best(&AVX512, &AVX2)
        }
    };
    ($block:ident $work:ident $vectors:ident $features:literal $columns:literal: $($rows:literal)*) => {
        &[$({
            #[target_feature(enable = $features)]
            unsafe fn one(work: &$work) {
                // SAFETY: the caller's.
                unsafe { $block::<$vectors, $rows, $columns>(work) }
            }
            one
        }),*]
    };
}
pub(super) use loops;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_all_numbers() {
        let loops = Loops::<()> {
            lanes: 16,
            table: &[&[], &[], &[], &[]],
        };
        let vectors = |count, first| loops.vectors(count, first);
        assert_eq!(
            (vectors(16, 0), vectors(17, 0), vectors(64, 0)),
            ((1, 16), (2, 1), (4, 16))
        );
        assert_eq!((vectors(100, 64), vectors(65, 64)), ((3, 4), (1, 1)));
    }
}
