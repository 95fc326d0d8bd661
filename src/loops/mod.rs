//! Loops of our own, where the CPU plugin's are slow: compiled programs call them.
//!
//! Each is a [`crate::pjrt::Function`] that a pass of [`crate::hlo::passes`] names in a `custom-call`. They are written for AVX-512
//! and for AVX2; elsewhere, and with a plugin that has no interface for calls or fails a test of them, the passes that need them do not run, and
//! programs are slower.

#[cfg(target_arch = "x86_64")]
mod column_sums;
#[cfg(target_arch = "x86_64")]
mod convolution;
#[cfg(target_arch = "x86_64")]
mod elementwise;
#[cfg(target_arch = "x86_64")]
mod kernel_gradient;
#[cfg(target_arch = "x86_64")]
mod shared;
#[cfg(target_arch = "x86_64")]
mod vectors;
#[cfg(target_arch = "x86_64")]
mod winograd;

use crate::pjrt::Client;

/// Makes the loops known to the client's plugin, for the CPU.
///
/// # Errors
/// Why programs cannot call them, in words.
#[cfg(target_arch = "x86_64")]
pub fn register(client: &Client) -> Result<(), String> {
    use crate::pjrt::{Error, register};
    if !vectors::is_supported() {
        return Err("this processor has neither AVX-512 nor AVX2 with FMA".into());
    }
    let all = || -> Result<bool, Error> {
        Ok(register::<convolution::ConvolutionLoop>(client)?
            && register::<kernel_gradient::KernelGradient>(client)?
            && register::<winograd::Winograd>(client)?
            && register::<winograd::WinogradGradient>(client)?
            && register::<column_sums::ColumnSums>(client)?
            && register::<elementwise::Elementwise>(client)?)
    };
    match all() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "{} has no interface for calls of this program's loops",
            client.plugin().path().display()
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Elsewhere there is nothing to be made known.
///
/// # Errors
/// Always.
#[cfg(not(target_arch = "x86_64"))]
pub fn register(_client: &Client) -> Result<(), String> {
    Err("this program's loops are for x86-64".into())
}

/// What the tests of the loops have in common.
#[cfg(all(test, target_arch = "x86_64"))]
mod trials {
    use crate::random::threefry2x32;

    /// Numbers between −1 and 1.
    pub fn random(seed: u32, count: usize) -> Vec<f32> {
        (0..count as u32)
            .map(|i| threefry2x32([seed, 5], [i, 0])[0] as f32 / 2_147_483_648.0 - 1.0)
            .collect()
    }

    /// Fails unless the numbers are those, up to the rounding of f32 sums.
    pub fn agree(found: &[f32], expected: &[f64], title: &str) {
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let apart = norm(&mut found.iter().zip(expected).map(|(&a, b)| f64::from(a) - b));
        let size = norm(&mut expected.iter().copied());
        assert_eq!(found.len(), expected.len(), "{title}");
        assert!(apart <= 1e-6 * size, "{title}: {apart:.1e} of {size:.1e}");
    }

    /// Sizes to try: images, rows, columns, inputs, outputs, taps down and across, stride, zeros before rows and columns, outputs down and
    /// across. Blocks of every width, rests of blocks, maps smaller than the kernel, several groups, rows of groups.
    pub const SIZES: [[usize; 12]; 19] = [
        [3, 9, 7, 5, 16, 3, 3, 1, 1, 1, 9, 7],
        [2, 8, 8, 3, 20, 7, 7, 2, 3, 3, 4, 4],
        [2, 8, 8, 32, 64, 3, 3, 2, 0, 0, 4, 4],
        [5, 2, 2, 40, 70, 3, 3, 1, 1, 1, 2, 2],
        [4, 1, 1, 17, 33, 3, 3, 1, 1, 1, 1, 1],
        [2, 6, 5, 1, 1, 1, 1, 1, 0, 0, 6, 5],
        [3, 7, 7, 24, 48, 1, 1, 2, 0, 0, 4, 4],
        [1, 10, 6, 12, 100, 2, 4, 3, 1, 2, 4, 2],
        [9, 16, 16, 16, 16, 3, 3, 1, 1, 1, 16, 16],
        [2, 40, 40, 40, 24, 3, 3, 1, 1, 1, 40, 40],
        [2, 4, 4, 300, 65, 3, 3, 1, 1, 1, 4, 4],
        [1, 5, 9, 7, 8, 5, 1, 1, 2, 0, 5, 9],
        [6, 3, 3, 2, 31, 3, 3, 1, 2, 2, 5, 5],
        [1, 1, 700, 30, 50, 1, 1, 1, 0, 0, 1, 700],
        // Few inputs and no output that meets all taps; results cut short; more padding than taps; more taps than a cache holds.
        [3, 1, 1, 5, 16, 3, 3, 1, 1, 1, 1, 1],
        [2, 3, 2, 6, 9, 5, 5, 1, 2, 2, 3, 2],
        [2, 9, 9, 20, 33, 3, 3, 1, 1, 1, 5, 6],
        [2, 4, 4, 18, 20, 2, 2, 1, 4, 3, 9, 8],
        [1, 20, 20, 3, 64, 17, 17, 1, 8, 8, 20, 20],
    ];
}
