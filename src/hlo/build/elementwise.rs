//! Element by element: one value, or two of one shape.

use super::super::graph::Value;
use super::super::op::{Binary, Comparison, Op, Unary};
use super::super::shape::DType;

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $name:ident => $unary:ident),* $(,)?) => {
        impl<'g> Value<'g> {$(
            $(#[$doc])*
            pub fn $name(self) -> Value<'g> {
                self.unary(Unary::$unary)
            }
        )*}
    };
}
unary_methods! {
    /// Absolute value.
    abs => Abs,
    /// Cube root.
    cbrt => Cbrt,
    /// Rounded up.
    ceil => Ceil,
    /// Cosine.
    cos => Cos,
    /// Error function.
    erf => Erf,
    /// e to the power.
    exp => Exp,
    /// e to the power, less one.
    expm1 => Expm1,
    /// Rounded down.
    floor => Floor,
    /// Neither infinite nor not-a-number.
    is_finite => IsFinite,
    /// Natural logarithm.
    log => Log,
    /// Logarithm of one more.
    log1p => Log1p,
    /// 1 / (1 + e⁻ˣ).
    logistic => Logistic,
    /// Logical (or bitwise) negation.
    logical_not => Not,
    /// Nearest integer, halves away from zero.
    round_afz => RoundAfz,
    /// Nearest integer, halves to even.
    round_even => RoundEven,
    /// 1 / √x.
    rsqrt => Rsqrt,
    /// −1, 0 or 1.
    sign => Sign,
    /// Sine.
    sin => Sin,
    /// Square root.
    sqrt => Sqrt,
    /// Tangent.
    tan => Tan,
    /// Hyperbolic tangent.
    tanh => Tanh,
}

macro_rules! binary_methods {
    ($($(#[$doc:meta])* $name:ident => $binary:ident),* $(,)?) => {
        impl<'g> Value<'g> {$(
            $(#[$doc])*
            pub fn $name(self, rhs: impl Operand<'g>) -> Value<'g> {
                self.binary(Binary::$binary, rhs)
            }
        )*}
    };
}
binary_methods! {
    /// Logical (or bitwise) and.
    and => And,
    /// Angle of the point (rhs, self).
    atan2 => Atan2,
    /// The larger.
    max => Maximum,
    /// The smaller.
    min => Minimum,
    /// Logical (or bitwise) or.
    or => Or,
    /// Power.
    pow => Power,
    /// Remainder with the sign of the dividend.
    remainder => Remainder,
    /// Bits moved up.
    shift_left => ShiftLeft,
    /// Bits moved down, the sign filled in.
    shift_right_arithmetic => ShiftRightArithmetic,
    /// Bits moved down, zeros filled in.
    shift_right => ShiftRightLogical,
    /// Exclusive or.
    xor => Xor,
}

macro_rules! comparison_methods {
    ($($(#[$doc:meta])* $name:ident => $direction:ident),* $(,)?) => {
        impl<'g> Value<'g> {$(
            $(#[$doc])*
            pub fn $name(self, rhs: impl Operand<'g>) -> Value<'g> {
                let (a, b) = self.with_operand(rhs);
                self.graph.push(Op::Compare(Comparison::$direction), &[a, b])
            }
        )*}
    };
}
comparison_methods! {
    /// Elementwise equality (`pred`).
    eq => Eq,
    /// Elementwise difference (`pred`).
    ne => Ne,
    /// Elementwise less-than (`pred`).
    lt => Lt,
    /// Elementwise less-or-equal (`pred`).
    le => Le,
    /// Elementwise greater-than (`pred`).
    gt => Gt,
    /// Elementwise greater-or-equal (`pred`).
    ge => Ge,
}

/// The right side of a binary operation: a value, or a number of the left side's type.
pub trait Operand<'g> {
    /// As a value of the left side's graph.
    fn value(self, lhs: Value<'g>) -> Value<'g>;
}

impl<'g> Operand<'g> for Value<'g> {
    fn value(self, _: Value<'g>) -> Value<'g> {
        self
    }
}

impl<'g> Operand<'g> for f64 {
    fn value(self, lhs: Value<'g>) -> Value<'g> {
        lhs.graph.scalar_of(lhs.dtype(), self)
    }
}

macro_rules! operators {
    ($($trait:ident :: $method:ident => $binary:ident),*) => {$(
        impl<'g, R: Operand<'g>> std::ops::$trait<R> for Value<'g> {
            type Output = Value<'g>;
            fn $method(self, rhs: R) -> Value<'g> {
                self.binary(Binary::$binary, rhs)
            }
        }
        impl<'g> std::ops::$trait<Value<'g>> for f64 {
            type Output = Value<'g>;
            fn $method(self, rhs: Value<'g>) -> Value<'g> {
                rhs.graph.scalar_of(rhs.dtype(), self).binary(Binary::$binary, rhs)
            }
        }
    )*};
}
operators!(Add::add => Add, Sub::sub => Subtract, Mul::mul => Multiply, Div::div => Divide);

impl<'g> std::ops::Neg for Value<'g> {
    type Output = Value<'g>;
    fn neg(self) -> Value<'g> {
        self.unary(Unary::Negate)
    }
}

impl<'g> Value<'g> {
    /// Element type.
    pub fn dtype(self) -> DType {
        self.shape().dtype
    }

    /// Dimensions.
    pub fn dims(self) -> Vec<i64> {
        self.shape().dims
    }

    /// Size of one dimension (0 if there is no such dimension; the operation that needs it will say so).
    pub fn dim(self, dim: usize) -> i64 {
        self.shape().dims.get(dim).copied().unwrap_or(0)
    }

    /// Number of dimensions.
    pub fn rank(self) -> usize {
        self.shape().rank()
    }

    /// An elementwise operation on one operand.
    pub fn unary(self, unary: Unary) -> Value<'g> {
        self.graph.push(Op::Unary(unary), &[self])
    }

    /// An elementwise operation on two operands (a scalar on either side is broadcast).
    pub fn binary(self, binary: Binary, rhs: impl Operand<'g>) -> Value<'g> {
        let (a, b) = self.with_operand(rhs);
        self.graph.push(Op::Binary(binary), &[a, b])
    }

    fn with_operand(self, rhs: impl Operand<'g>) -> (Value<'g>, Value<'g>) {
        let rhs = rhs.value(self);
        match (self.rank(), rhs.rank()) {
            (0, 1..) => (self.broadcast_scalar(&rhs.dims()), rhs),
            (1.., 0) => (self, rhs.broadcast_scalar(&self.dims())),
            _ => (self, rhs),
        }
    }

    /// `self` (pred, or a scalar pred) ? `on_true` : `on_false`, either of which may be a number of the other's type.
    pub fn select(self, on_true: Value<'g>, on_false: impl Operand<'g>) -> Value<'g> {
        let on_false = on_false.value(on_true);
        let dims = [self.dims(), on_true.dims(), on_false.dims()]
            .into_iter()
            .max_by_key(Vec::len)
            .unwrap_or_default();
        let spread = |v: Value<'g>| {
            if v.rank() == 0 {
                v.broadcast_scalar(&dims)
            } else {
                v
            }
        };
        self.graph.push(
            Op::Select,
            &[spread(self), spread(on_true), spread(on_false)],
        )
    }

    /// Limited to `low..=high`.
    pub fn clamp(self, low: f64, high: f64) -> Value<'g> {
        let shape = self.shape();
        let (low, high) = (self.graph.full(&shape, low), self.graph.full(&shape, high));
        self.graph.push(Op::Clamp, &[low, self, high])
    }

    /// Converted to another element type.
    pub fn convert(self, dtype: DType) -> Value<'g> {
        if self.dtype() == dtype && !self.is_invalid() {
            return self;
        }
        self.graph.push(Op::Convert(dtype), &[self])
    }

    /// The same bits read as another element type of the same size.
    pub fn bitcast_convert(self, dtype: DType) -> Value<'g> {
        self.graph.push(Op::BitcastConvert(dtype), &[self])
    }

    /// The identity, through which no gradient flows.
    pub fn stop_gradient(self) -> Value<'g> {
        self.graph.push(Op::StopGradient, &[self])
    }
}
