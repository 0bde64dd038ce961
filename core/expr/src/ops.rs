//! The instructions that a compiled expression is made of.

/// The number of a register, which is also the number of the instruction that writes it.
pub(crate) type Register = u32;

/// A function of one float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FloatUnary {
    Neg,
    Abs,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Exp,
    Log,
    Log1p,
    Expm1,
    Sqrt,
    Floor,
    Ceil,
    Round,
    Radians,
    /// Rounds to the nearest float32.
    ToFloat32,
}

/// A function of two floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FloatBinary {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Min,
    Max,
}

/// A function of one int; null where it overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum IntUnary {
    Neg,
    Abs,
}

/// A function of two ints; null where it overflows or divides by zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum IntBinary {
    Add,
    Sub,
    Mul,
    Mod,
    Min,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Logic {
    And,
    Or,
}

/// A part of a UTC time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TimePart {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    DayOfWeek,
    DayOfYear,
}

/// How the values of a register are stored. Timestamps are ints, strings and bytes are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Storage {
    Bool,
    Int,
    Float,
    Text,
    /// Validity only.
    None,
}

/// One step of a program. Instruction `i` writes register `i` and reads only registers below `i`.
///
/// Equal instructions write equal values, so the compiler emits each one once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Instruction {
    /// Reads an input column, widened.
    Input(u32),
    /// A constant, filled in when the scratch is made.
    Literal(u32),
    FloatUnary(FloatUnary, Register),
    FloatBinary(FloatBinary, Register, Register),
    IntUnary(IntUnary, Register),
    IntBinary(IntBinary, Register, Register),
    /// Compares two registers of equal storage.
    Compare(Comparison, Register, Register),
    Logic(Logic, Register, Register),
    Not(Register),
    IsNull(Register),
    /// The first of two values that is not null.
    Coalesce(Register, Register),
    /// Condition, value where it is true, value where it is false.
    IfElse(Register, Register, Register),
    TimePart(TimePart, Register),
    EpochSeconds(Register),
    BoolToInt(Register),
    IntToFloat(Register),
    /// Cuts the fraction; null when it is NaN or outside the `i64`s.
    FloatToInt(Register),
    /// Null outside the range, both ends inclusive.
    IntWithin(Register, i64, i64),
}
