//! Element types and options as plugins number them.

use std::fmt;

/// Element type of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ElementType {
    Pred,
    S8,
    S16,
    S32,
    S64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
    Bf16,
}

impl ElementType {
    const ALL: [ElementType; 13] = [
        ElementType::Pred,
        ElementType::S8,
        ElementType::S16,
        ElementType::S32,
        ElementType::S64,
        ElementType::U8,
        ElementType::U16,
        ElementType::U32,
        ElementType::U64,
        ElementType::F16,
        ElementType::F32,
        ElementType::F64,
        ElementType::Bf16,
    ];

    /// `PJRT_Buffer_Type`: 1 to 13 in the order above. (HLO numbers bf16 differently.)
    pub(super) fn code(self) -> i32 {
        self as i32 + 1
    }

    pub(super) fn from_code(code: i32) -> Option<Self> {
        Self::ALL.get(usize::try_from(code - 1).ok()?).copied()
    }

    /// Bytes of one element.
    pub fn byte_size(self) -> usize {
        match self {
            ElementType::Pred | ElementType::S8 | ElementType::U8 => 1,
            ElementType::S16 | ElementType::U16 | ElementType::F16 | ElementType::Bf16 => 2,
            ElementType::S32 | ElementType::U32 | ElementType::F32 => 4,
            ElementType::S64 | ElementType::U64 | ElementType::F64 => 8,
        }
    }
}

/// The value of an option of a client or of a compilation.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum OptionValue {
    Str(String),
    Int(i64),
    IntList(Vec<i64>),
    Float(f32),
    Bool(bool),
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionValue::Str(text) => f.write_str(text),
            OptionValue::Int(value) => write!(f, "{value}"),
            OptionValue::IntList(values) => {
                let texts: Vec<String> = values.iter().map(i64::to_string).collect();
                f.write_str(&texts.join("."))
            }
            OptionValue::Float(value) => write!(f, "{value}"),
            OptionValue::Bool(value) => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_header() {
        assert_eq!(ElementType::Pred.code(), 1);
        assert_eq!(ElementType::F32.code(), 11);
        assert_eq!(ElementType::Bf16.code(), 13);
        for element_type in ElementType::ALL {
            assert_eq!(
                ElementType::from_code(element_type.code()),
                Some(element_type)
            );
        }
        assert_eq!(ElementType::from_code(0), None);
        assert_eq!(ElementType::from_code(14), None);
    }
}
