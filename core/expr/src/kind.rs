use std::fmt;

use headrace_types::{DType, ScalarType};

/// What an expression works with: the language's types, fewer than the types of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Bool,
    Int,
    Float,
    Timestamp,
    String,
    Bytes,
    /// Only its validity can be asked for.
    List,
}

impl Kind {
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::List(_) => Kind::List,
            DType::Scalar(scalar) => match scalar {
                ScalarType::Bool => Kind::Bool,
                ScalarType::Int8 | ScalarType::Int16 | ScalarType::Int32 | ScalarType::Int64 => Kind::Int,
                ScalarType::UInt8 | ScalarType::UInt16 | ScalarType::UInt32 | ScalarType::UInt64 => Kind::Int,
                ScalarType::Float32 | ScalarType::Float64 => Kind::Float,
                ScalarType::String => Kind::String,
                ScalarType::Bytes => Kind::Bytes,
                ScalarType::Timestamp => Kind::Timestamp,
            },
        }
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self, Kind::Int | Kind::Float)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Timestamp => "timestamp",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::List => "list",
        })
    }
}

/// The least and the largest `i64` that a value of an integer type has; `None` for the other types.
pub(crate) fn int_range(scalar: ScalarType) -> Option<(i64, i64)> {
    Some(match scalar {
        ScalarType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        ScalarType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        ScalarType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        ScalarType::Int64 => (i64::MIN, i64::MAX),
        ScalarType::UInt8 => (0, u8::MAX.into()),
        ScalarType::UInt16 => (0, u16::MAX.into()),
        ScalarType::UInt32 => (0, u32::MAX.into()),
        ScalarType::UInt64 => (0, i64::MAX),
        _ => return None,
    })
}
