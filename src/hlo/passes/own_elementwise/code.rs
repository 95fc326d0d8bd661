//! The operations that a program can have.

use crate::hlo::Binary;

/// The loop of programs; the number is that of the order of its sums and of [`Code`], so that another order is another program.
pub const ELEMENTWISE_LOOP: &str = "simclr.elementwise.1";

/// Values that an operation takes at most.
pub const TAKES: usize = 8;

/// Numbers of an operation in a program: its [`Code`], the value that it makes, those that it takes.
pub const WORDS: usize = 2 + TAKES;

/// Operations of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Code {
    /// Added to a result over all dimensions but the last.
    Sum,
    /// The product of two values, likewise.
    SumProduct,
    Add,
    Subtract,
    Multiply,
    Divide,
    Maximum,
    Minimum,
    SquareRoot,
    InverseRoot,
    /// `a·b + c`, rounded once, as the plugin does where it finds the two.
    MultiplyAdd,
    /// `c − a·b`, rounded once.
    SubtractProduct,
    /// `(a − b)·c`.
    SubtractMultiply,
    /// `c` where `a > b`, elsewhere `d`; likewise the next two.
    WhereGreater,
    WhereAtLeast,
    WhereEqual,
    // Those of batch normalisation that follow one another, so that what lies between them stays in a register.
    /// `(a − b)·c·d + e`.
    Normalise,
    /// The larger of that and `f`.
    NormaliseMaximum,
    /// `g` where that is greater than `f`, elsewhere `h`.
    WhereNormalisedGreater,
    /// `a` times `(b − c)·d`, added to a result.
    SumProductNormal,
    /// `(a − b)·c·d`.
    NormalMultiply,
    /// `((a − b) − c)·d`.
    SubtractTwoMultiply,
    /// `((a − b) − (c − d)·e·f)·g`.
    NormalGradient,
}

impl Code {
    /// All, in the order of their numbers.
    pub const ALL: [Code; 23] = [
        Code::Sum,
        Code::SumProduct,
        Code::Add,
        Code::Subtract,
        Code::Multiply,
        Code::Divide,
        Code::Maximum,
        Code::Minimum,
        Code::SquareRoot,
        Code::InverseRoot,
        Code::MultiplyAdd,
        Code::SubtractProduct,
        Code::SubtractMultiply,
        Code::WhereGreater,
        Code::WhereAtLeast,
        Code::WhereEqual,
        Code::Normalise,
        Code::NormaliseMaximum,
        Code::WhereNormalisedGreater,
        Code::SumProductNormal,
        Code::NormalMultiply,
        Code::SubtractTwoMultiply,
        Code::NormalGradient,
    ];

    /// The code of a number.
    pub fn numbered(number: i64) -> Option<Self> {
        let index = usize::try_from(number).ok()?;
        Self::ALL.get(index).copied()
    }

    /// How many values it takes.
    pub const fn operands(self) -> usize {
        match self {
            Code::Sum | Code::SquareRoot | Code::InverseRoot => 1,
            Code::SumProduct
            | Code::Add
            | Code::Subtract
            | Code::Multiply
            | Code::Divide
            | Code::Maximum
            | Code::Minimum => 2,
            Code::MultiplyAdd | Code::SubtractProduct | Code::SubtractMultiply => 3,
            Code::WhereGreater
            | Code::WhereAtLeast
            | Code::WhereEqual
            | Code::SumProductNormal
            | Code::NormalMultiply
            | Code::SubtractTwoMultiply => 4,
            Code::Normalise => 5,
            Code::NormaliseMaximum => 6,
            Code::NormalGradient => 7,
            Code::WhereNormalisedGreater => 8,
        }
    }

    /// Whether it makes a sum.
    pub const fn sums(self) -> bool {
        matches!(self, Code::Sum | Code::SumProduct | Code::SumProductNormal)
    }

    /// The one operation that computes `first`, and with it in a place among what it takes `second`.
    pub(super) fn joined(first: Code, second: Code, place: usize) -> Option<Code> {
        Some(match (first, second, place) {
            (Code::SubtractMultiply, Code::MultiplyAdd, 0) => Code::Normalise,
            (Code::Normalise, Code::Maximum, 0) => Code::NormaliseMaximum,
            (Code::Normalise, Code::WhereGreater, 0) => Code::WhereNormalisedGreater,
            (Code::SubtractMultiply, Code::SumProduct, 1) => Code::SumProductNormal,
            (Code::SubtractMultiply, Code::Multiply, 0) => Code::NormalMultiply,
            (Code::Subtract, Code::SubtractMultiply, 0) => Code::SubtractTwoMultiply,
            (Code::NormalMultiply, Code::SubtractTwoMultiply, 2) => Code::NormalGradient,
            _ => return None,
        })
    }
}

/// The code of an elementwise operation on two values.
pub(super) fn code(op: Binary) -> Option<Code> {
    Some(match op {
        Binary::Add => Code::Add,
        Binary::Subtract => Code::Subtract,
        Binary::Multiply => Code::Multiply,
        Binary::Divide => Code::Divide,
        Binary::Maximum => Code::Maximum,
        Binary::Minimum => Code::Minimum,
        _ => return None,
    })
}
