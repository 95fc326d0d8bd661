//! Element types and array shapes.

use std::fmt;

/// Element type of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// Truth value, one byte.
    Pred,
    /// Signed 32-bit integer.
    S32,
    /// Signed 64-bit integer.
    S64,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Brain floating point, 16 bits.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl DType {
    /// Bytes of one element.
    pub fn byte_size(self) -> usize {
        match self {
            DType::Pred | DType::U8 => 1,
            DType::Bf16 => 2,
            DType::S32 | DType::U32 | DType::F32 => 4,
            DType::S64 | DType::U64 | DType::F64 => 8,
        }
    }

    /// Whether this is a floating-point type (the only kind that has gradients).
    pub fn is_float(self) -> bool {
        matches!(self, DType::Bf16 | DType::F32 | DType::F64)
    }

    /// Whether this is an integer type.
    pub fn is_integer(self) -> bool {
        !self.is_float() && self != DType::Pred
    }

    /// XLA's `PrimitiveType` number.
    pub fn hlo_code(self) -> i32 {
        match self {
            DType::Pred => 1,
            DType::S32 => 4,
            DType::S64 => 5,
            DType::U8 => 6,
            DType::U32 => 8,
            DType::U64 => 9,
            DType::F32 => 11,
            DType::F64 => 12,
            DType::Bf16 => 16,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::Pred => "pred",
            DType::S32 => "s32",
            DType::S64 => "s64",
            DType::U8 => "u8",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::Bf16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        })
    }
}

/// Element type and dimensions of an array; dimensions are never negative, layout is row-major.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub dims: Vec<i64>,
}

impl Shape {
    /// An array shape.
    pub fn new(dtype: DType, dims: impl Into<Vec<i64>>) -> Self {
        Shape {
            dtype,
            dims: dims.into(),
        }
    }

    /// The shape of a scalar.
    pub fn scalar(dtype: DType) -> Self {
        Shape {
            dtype,
            dims: Vec::new(),
        }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements (1 for a scalar).
    pub fn elements(&self) -> usize {
        self.dims.iter().product::<i64>() as usize
    }

    /// Bytes of a dense array of this shape.
    pub fn byte_size(&self) -> usize {
        self.elements() * self.dtype.byte_size()
    }

    /// The same dimensions with another element type.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Shape {
            dtype,
            dims: self.dims.clone(),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.dims.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// What a node of a graph produces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// One array.
    Array(Shape),
    /// A flat tuple of arrays (nested tuples do not occur).
    Tuple(Vec<Shape>),
    /// The node could not be built; the graph holds the first such error.
    Invalid,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Array(shape) => shape.fmt(f),
            Type::Tuple(shapes) => {
                f.write_str("(")?;
                for (i, shape) in shapes.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    shape.fmt(f)?;
                }
                f.write_str(")")
            }
            Type::Invalid => f.write_str("invalid"),
        }
    }
}
