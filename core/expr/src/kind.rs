use std::fmt;

use headrace_types::{DType, ScalarType};

use crate::ops::Storage;

/// What an expression works with: the language's types, fewer than the types of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Bool,
    Int,
    Float,
    Timestamp,
    String,
    Bytes,
    BoolList,
    IntList,
    FloatList,
    TimestampList,
    StringList,
    BytesList,
}

impl Kind {
    pub(crate) fn of(dtype: DType) -> Self {
        let element = match dtype.element() {
            ScalarType::Bool => Kind::Bool,
            ScalarType::Int8 | ScalarType::Int16 | ScalarType::Int32 | ScalarType::Int64 => Kind::Int,
            ScalarType::UInt8 | ScalarType::UInt16 | ScalarType::UInt32 | ScalarType::UInt64 => Kind::Int,
            ScalarType::Float32 | ScalarType::Float64 => Kind::Float,
            ScalarType::String => Kind::String,
            ScalarType::Bytes => Kind::Bytes,
            ScalarType::Timestamp => Kind::Timestamp,
        };
        if dtype.is_list() { element.list() } else { element }
    }

    /// The kind of a list of these; a list of lists does not exist, and a list is its own.
    pub(crate) fn list(self) -> Self {
        match self {
            Kind::Bool => Kind::BoolList,
            Kind::Int => Kind::IntList,
            Kind::Float => Kind::FloatList,
            Kind::Timestamp => Kind::TimestampList,
            Kind::String => Kind::StringList,
            Kind::Bytes => Kind::BytesList,
            list => list,
        }
    }

    /// The kind of a list's elements.
    pub(crate) fn element(self) -> Option<Self> {
        Some(match self {
            Kind::BoolList => Kind::Bool,
            Kind::IntList => Kind::Int,
            Kind::FloatList => Kind::Float,
            Kind::TimestampList => Kind::Timestamp,
            Kind::StringList => Kind::String,
            Kind::BytesList => Kind::Bytes,
            _ => return None,
        })
    }

    pub(crate) fn is_list(self) -> bool {
        self.element().is_some()
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self, Kind::Int | Kind::Float)
    }

    pub(crate) fn storage(self) -> Storage {
        match self {
            Kind::Bool => Storage::Bool,
            Kind::Int | Kind::Timestamp => Storage::Int,
            Kind::Float => Storage::Float,
            Kind::String | Kind::Bytes => Storage::Text,
            Kind::BoolList => Storage::BoolList,
            Kind::IntList | Kind::TimestampList => Storage::IntList,
            Kind::FloatList => Storage::FloatList,
            Kind::StringList | Kind::BytesList => Storage::TextList,
        }
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
            Kind::BoolList => "list of bool",
            Kind::IntList => "list of int",
            Kind::FloatList => "list of float",
            Kind::TimestampList => "list of timestamp",
            Kind::StringList => "list of string",
            Kind::BytesList => "list of bytes",
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
