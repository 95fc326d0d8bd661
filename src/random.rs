//! Threefry-2x32 with 20 rounds (Salmon et al. 2011), on the host and as HLO: all randomness of the project. A draw is a pure
//! function of a key and a counter, built from 32-bit integer operations, so it is the same on every platform.

use crate::hlo::{DType, Value};

const PARITY: u32 = 0x1BD1_1BDA;
const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];

/// 64 random bits from a 64-bit key and a 64-bit counter. Inlined, so that loops over many are compiled for the vectors of their caller.
#[inline(always)]
pub fn threefry2x32(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    let keys = [key[0], key[1], PARITY ^ key[0] ^ key[1]];
    let mut x = [
        counter[0].wrapping_add(keys[0]),
        counter[1].wrapping_add(keys[1]),
    ];
    for group in 0..5 {
        for &rotation in &ROTATIONS[group % 2] {
            x[0] = x[0].wrapping_add(x[1]);
            x[1] = x[1].rotate_left(rotation) ^ x[0];
        }
        x[0] = x[0].wrapping_add(keys[(group + 1) % 3]);
        x[1] = x[1]
            .wrapping_add(keys[(group + 2) % 3])
            .wrapping_add(group as u32 + 1);
    }
    x
}

/// The same on u32 arrays of one shape (scalars are spread).
pub fn threefry2x32_hlo<'g>(key: [Value<'g>; 2], counter: [Value<'g>; 2]) -> [Value<'g>; 2] {
    let [k0, k1] = key;
    let keys = [k0, k1, k0.xor(k1).xor(f64::from(PARITY))];
    let mut x = [counter[0] + keys[0], counter[1] + keys[1]];
    for group in 0..5 {
        for &rotation in &ROTATIONS[group % 2] {
            x[0] = x[0] + x[1];
            let rotated = x[1]
                .shift_left(f64::from(rotation))
                .or(x[1].shift_right(f64::from(32 - rotation)));
            x[1] = rotated.xor(x[0]);
        }
        x[0] = x[0] + keys[(group + 1) % 3];
        x[1] = x[1] + keys[(group + 2) % 3] + (group as f64 + 1.0);
    }
    x
}

/// Uniform f32 in [0, 1) on the grid 2⁻²³ from 32 random bits.
pub fn uniform_hlo(bits: Value) -> Value {
    bits.shift_right(9.0).convert(DType::F32) * (1.0 / f64::from(1u32 << 23))
}

/// Uniform f64 in (0, 1) from 32 random bits: never 0, so that its logarithm exists.
#[inline(always)]
pub fn open_uniform(bits: u32) -> f64 {
    (f64::from(bits) + 0.5) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors published with the generator (Random123, `kat_vectors`).
    #[test]
    fn agrees_with_the_published_vectors() {
        assert_eq!(threefry2x32([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry2x32([!0, !0], [!0, !0]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(
            threefry2x32([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]),
            [0xc492_3a9c, 0x483d_f7a0]
        );
    }
}
