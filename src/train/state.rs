//! The state of a run: at the start, on the devices, in checkpoints.

use super::checkpoint::{Array, ArraySpec};
use super::step::StateArray;
use crate::engine::{Engine, Error, Program};
use crate::hlo::{DType, Literal, Shape};
use crate::nn::{Variable, initial_value};
use crate::pjrt::Buffer;
use safetensors::Dtype;

/// Initial values: variables by their own law, slots and the step counter zero.
pub fn initial(state: &[StateArray], variables: &[Variable], seed: u64) -> Vec<Literal> {
    state
        .iter()
        .enumerate()
        .map(|(number, array)| match variables.get(number) {
            Some(variable) => literal(&array.shape, &initial_value(variable, number, seed)),
            None => Literal::zeros(array.shape.clone()),
        })
        .collect()
}

/// An array of these elements, in its own type.
fn literal(shape: &Shape, values: &[f32]) -> Literal {
    if shape.dtype == DType::F32 {
        // As they are and in one sweep: a network has millions.
        let bytes: Vec<[u8; 4]> = values.iter().map(|value| value.to_le_bytes()).collect();
        return Literal::from_bytes(shape.clone(), bytes.into_flattened())
            .expect("as many values as elements");
    }
    let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
    Literal::from_f64s(shape.dtype, &shape.dims, &values)
}

/// A copy on each device of a program: `[replica][array]`.
///
/// # Errors
/// If a device does not take it.
pub fn put(
    engine: &Engine,
    program: &Program,
    state: &[Literal],
) -> Result<Vec<Vec<Buffer>>, Error> {
    program
        .devices()
        .iter()
        .map(|device| {
            state
                .iter()
                .map(|literal| engine.put(literal, device))
                .collect()
        })
        .collect()
}

/// The element type as safetensors names it.
pub fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::Pred => Dtype::BOOL,
        DType::S32 => Dtype::I32,
        DType::S64 => Dtype::I64,
        DType::U8 => Dtype::U8,
        DType::U32 => Dtype::U32,
        DType::U64 => Dtype::U64,
        DType::Bf16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
    }
}

fn dims(array: &StateArray) -> Vec<usize> {
    array.shape.dims.iter().map(|&dim| dim as usize).collect()
}

/// What a checkpoint of this state must hold.
pub fn specs(state: &[StateArray]) -> Vec<ArraySpec> {
    state
        .iter()
        .map(|array| ArraySpec {
            name: array.name.clone(),
            dtype: dtype(array.shape.dtype),
            dims: dims(array),
        })
        .collect()
}

/// The arrays of a checkpoint, from the first replica (all hold the same).
///
/// # Errors
/// If the launch that makes them failed.
pub fn read(state: &[StateArray], buffers: &[Vec<Buffer>]) -> Result<Vec<Array>, Error> {
    let first = buffers.first().map(Vec::as_slice).unwrap_or_default();
    state
        .iter()
        .zip(first)
        .map(|(array, buffer)| {
            Ok(Array {
                name: array.name.clone(),
                dtype: dtype(array.shape.dtype),
                dims: dims(array),
                bytes: buffer.to_host()?,
            })
        })
        .collect()
}

/// Arrays of a checkpoint, checked against [`specs`] when it was loaded, as literals.
pub fn literals(state: &[StateArray], arrays: Vec<Array>) -> Vec<Literal> {
    state
        .iter()
        .zip(arrays)
        .map(|(array, saved)| {
            Literal::from_bytes(array.shape.clone(), saved.bytes)
                .unwrap_or_else(|| Literal::zeros(array.shape.clone()))
        })
        .collect()
}

/// Whether an array of floating-point numbers holds only finite ones; others always do.
pub fn is_finite(array: &Array) -> bool {
    let (exponent, width) = match array.dtype {
        // Sign and exponent are the upper bits of a little-endian number; all exponent bits set means not finite.
        Dtype::F32 => (0x7f80_u32, 4),
        Dtype::BF16 => (0x7f80, 2),
        Dtype::F64 => (0x7ff0, 8),
        _ => return true,
    };
    array.bytes.chunks_exact(width).all(|bytes| {
        let upper = u32::from(u16::from_le_bytes([bytes[width - 2], bytes[width - 1]]));
        upper & exponent != exponent
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_hold_the_values_in_their_own_type() {
        let values = [0.5f32, -3.0, 0.1, f32::MIN_POSITIVE, 65_537.0, -0.0];
        let of = |dtype| literal(&Shape::new(dtype, [2, 3]), &values);
        assert_eq!(of(DType::F32), Literal::new(&[2, 3], &values));
        assert_eq!(
            of(DType::F64),
            Literal::new(&[2, 3], &values.map(f64::from))
        );
        let short = values.map(half::bf16::from_f32);
        assert_eq!(of(DType::Bf16), Literal::new(&[2, 3], &short));
    }
}
