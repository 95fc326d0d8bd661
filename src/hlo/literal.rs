//! Host arrays: the values of constants, of arguments and of results.

use super::shape::{DType, Shape};
use half::bf16;

/// A dense row-major array on the host, elements little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    shape: Shape,
    bytes: Vec<u8>,
}

/// A Rust type with an HLO element type.
pub trait Element: Copy {
    /// The element type.
    const DTYPE: DType;
    /// Appends the little-endian bytes of `self`.
    fn write(self, out: &mut Vec<u8>);
    /// Reads one element from exactly `DTYPE.byte_size()` bytes.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($type:ty => $dtype:ident),*) => {$(
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> Self {
                let mut array = [0; std::mem::size_of::<$type>()];
                array.copy_from_slice(bytes);
                <$type>::from_le_bytes(array)
            }
        }
    )*};
}
element!(i32 => S32, i64 => S64, u8 => U8, u32 => U32, u64 => U64, bf16 => Bf16, f32 => F32, f64 => F64);

impl Element for bool {
    const DTYPE: DType = DType::Pred;
    fn write(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
    fn read(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
}

impl Literal {
    /// An array from its elements in row-major order.
    ///
    /// # Panics
    /// If the number of elements is not the product of `dims`.
    pub fn new<T: Element>(dims: &[i64], elements: &[T]) -> Self {
        let shape = Shape::new(T::DTYPE, dims);
        assert_eq!(
            shape.elements(),
            elements.len(),
            "{shape} from {} elements",
            elements.len()
        );
        let mut bytes = Vec::with_capacity(shape.byte_size());
        for &element in elements {
            element.write(&mut bytes);
        }
        Literal { shape, bytes }
    }

    /// A scalar.
    pub fn scalar<T: Element>(element: T) -> Self {
        Literal::new(&[], &[element])
    }

    /// An array from raw little-endian bytes; `None` if their number does not fit the shape.
    pub fn from_bytes(shape: Shape, bytes: Vec<u8>) -> Option<Self> {
        (shape.byte_size() == bytes.len()).then_some(Literal { shape, bytes })
    }

    /// Zeros of a shape.
    pub fn zeros(shape: Shape) -> Self {
        let bytes = vec![0; shape.byte_size()];
        Literal { shape, bytes }
    }

    /// `values` converted to `dtype` (rounded to nearest for narrower floats, truncated for integers).
    ///
    /// # Panics
    /// If the number of values is not the product of `dims`.
    pub fn from_f64s(dtype: DType, dims: &[i64], values: &[f64]) -> Self {
        let mut bytes = Vec::with_capacity(values.len() * dtype.byte_size());
        for &value in values {
            match dtype {
                DType::Pred => (value != 0.0).write(&mut bytes),
                DType::S32 => (value as i32).write(&mut bytes),
                DType::S64 => (value as i64).write(&mut bytes),
                DType::U8 => (value as u8).write(&mut bytes),
                DType::U32 => (value as u32).write(&mut bytes),
                DType::U64 => (value as u64).write(&mut bytes),
                DType::Bf16 => bf16::from_f64(value).write(&mut bytes),
                DType::F32 => (value as f32).write(&mut bytes),
                DType::F64 => value.write(&mut bytes),
            }
        }
        let shape = Shape::new(dtype, dims);
        assert_eq!(
            shape.byte_size(),
            bytes.len(),
            "{shape} from {} values",
            values.len()
        );
        Literal { shape, bytes }
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements.
    ///
    /// # Panics
    /// If `T` is not the element type.
    pub fn to_vec<T: Element>(&self) -> Vec<T> {
        assert_eq!(self.shape.dtype, T::DTYPE, "elements of {}", self.shape);
        self.bytes
            .chunks_exact(T::DTYPE.byte_size())
            .map(T::read)
            .collect()
    }

    /// The elements as `f64`, whatever their type (large 64-bit integers are rounded).
    pub fn to_f64s(&self) -> Vec<f64> {
        match self.shape.dtype {
            DType::Pred => self.to_vec::<bool>().into_iter().map(f64::from).collect(),
            DType::S32 => self.to_vec::<i32>().into_iter().map(f64::from).collect(),
            DType::S64 => self.to_vec::<i64>().into_iter().map(|x| x as f64).collect(),
            DType::U8 => self.to_vec::<u8>().into_iter().map(f64::from).collect(),
            DType::U32 => self.to_vec::<u32>().into_iter().map(f64::from).collect(),
            DType::U64 => self.to_vec::<u64>().into_iter().map(|x| x as f64).collect(),
            DType::Bf16 => self.to_vec::<bf16>().into_iter().map(f64::from).collect(),
            DType::F32 => self.to_vec::<f32>().into_iter().map(f64::from).collect(),
            DType::F64 => self.to_vec::<f64>(),
        }
    }
}
