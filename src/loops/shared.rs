//! What the loops have in common: dimensions, and a result that threads share, each writing to places of its own.
#![expect(unsafe_code, reason = "threads that write to parts of one array")]

use std::mem::MaybeUninit;

/// Dimensions of an array that has four.
pub(super) fn four(what: &str, dims: &[i64]) -> Result<[usize; 4], String> {
    let four: Option<[i64; 4]> = dims.try_into().ok();
    four.map(|dims| dims.map(|d| d as usize))
        .ok_or_else(|| format!("{what} have dimensions {dims:?}, expected four"))
}

/// An array to write to.
pub(super) struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: an address and a number; who writes there answers for it.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(array: &mut [f32]) -> Self {
        Shared {
            start: array.as_mut_ptr(),
            len: array.len(),
        }
    }

    /// Room for an array, none of it written yet.
    pub fn room(array: &mut [MaybeUninit<f32>]) -> Self {
        Shared {
            start: array.as_mut_ptr().cast(),
            len: array.len(),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of a number.
    pub fn at(&self, index: usize) -> *mut f32 {
        assert!(index <= self.len);
        // SAFETY: inside the array, or just behind it.
        unsafe { self.start.add(index) }
    }

    /// The address of so many numbers.
    pub fn part(&self, first: usize, count: usize) -> *mut f32 {
        assert!(first + count <= self.len);
        self.at(first)
    }
}
