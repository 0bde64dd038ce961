//! The instructions that a compiled expression is made of.

/// The number of a register, which is also the number of the instruction that writes it.
pub(crate) type Register = u32;

/// The number of a constant of a program: a zone, boundaries, keys, a separator.
pub(crate) type ConstantId = u32;

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

/// A part of a time, read off its calendar and clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TimePart {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Microsecond,
    DayOfWeek,
    DayOfYear,
    SecondOfDay,
}

/// What a time is cut to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TimeUnit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Letters {
    Lower,
    Upper,
}

/// Which ends of a string are stripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Start,
    End,
    Both,
}

/// A question about two strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

/// A value for a list of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ListReduction {
    Sum,
    Mean,
    Min,
    Max,
}

/// A change of every element of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    IntToFloat,
    ToFloat32,
    /// Null outside the range, both ends inclusive.
    IntWithin(i64, i64),
}

/// How the values of a register are stored. Timestamps are ints, strings and bytes are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Storage {
    Bool,
    Int,
    Float,
    Text,
    BoolList,
    IntList,
    FloatList,
    TextList,
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
    /// Degrees: latitude and longitude of one point and of the other. Kilometres.
    Haversine([Register; 4]),

    /// The time that clocks of a zone show, as microseconds of a calendar without zones.
    LocalTime(ConstantId, Register),
    TimePart(TimePart, Register),
    /// Cuts a UTC time.
    Truncate(TimeUnit, Register),
    /// Cuts a time by the clocks of a zone.
    TruncateLocal(TimeUnit, ConstantId, Register),
    EpochSeconds(Register),

    BoolToInt(Register),
    IntToFloat(Register),
    /// Cuts the fraction; null when it is NaN or outside the `i64`s.
    FloatToInt(Register),
    /// Null outside the range, both ends inclusive.
    IntWithin(Register, i64, i64),
    IntToBool(Register),
    FloatToBool(Register),
    ParseInt(Register),
    ParseFloat(Register),
    ParseBool(Register),
    ParseTime(Register),
    BoolToText(Register),
    IntToText(Register),
    FloatToText(Register),
    TimeToText(Register),
    /// Null where bytes are not UTF-8.
    BytesToText(Register),

    Letters(Letters, Register),
    /// Removes characters of a constant text; of an empty one, white space.
    Strip(Side, ConstantId, Register),
    /// Characters of a string.
    TextLength(Register),
    TextTest(TextTest, Register, Register),
    /// Text, what to look for, what to put in its place.
    Replace(Register, Register, Register),
    /// Text, first character, number of characters.
    Slice(Register, Register, Register),
    Concat(Register, Register),
    Split(ConstantId, Register),

    /// The number of boundaries at or below a float; null for NaN.
    Bucketize(ConstantId, Register),
    /// XXH64 of a value, with the other register as the seed.
    Hash(Register, Register),
    /// The remainder of a hash, read as unsigned.
    HashBucket(u32, Register),
    /// Whether the value is among the constant's keys.
    IsIn(ConstantId, Register),
    /// The constant's value for a key, or else the other register's.
    Lookup(ConstantId, Register, Register),

    ListReduce(ListReduction, Register),
    ListLength(Register),
    /// List, value.
    ListContains(Register, Register),
    /// List, index.
    ListGet(Register, Register),
    ListElements(Element, Register),

    /// Calls a function; the program's list of calls has the arguments.
    Call(u32),
}

impl Instruction {
    /// Whether each row may need memory of its own, up to `TEXT_BYTES_MAX` or `LIST_ITEMS_MAX`.
    pub(crate) fn builds(self) -> bool {
        matches!(
            self,
            Instruction::Letters(..)
                | Instruction::Replace(..)
                | Instruction::Concat(..)
                | Instruction::Split(..)
                | Instruction::BoolToText(_)
                | Instruction::IntToText(_)
                | Instruction::FloatToText(_)
                | Instruction::TimeToText(_)
                | Instruction::Call(_)
        )
    }
}
