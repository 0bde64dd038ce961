use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode};

/// The type of one value that is not a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ScalarType {
    Bool = 1,
    Int8 = 2,
    Int16 = 3,
    Int32 = 4,
    Int64 = 5,
    UInt8 = 6,
    UInt16 = 7,
    UInt32 = 8,
    UInt64 = 9,
    Float32 = 10,
    Float64 = 11,
    String = 12,
    Bytes = 13,
    /// Microseconds UTC in an `i64`.
    Timestamp = 14,
}

impl ScalarType {
    pub const ALL: [ScalarType; 14] = [
        ScalarType::Bool,
        ScalarType::Int8,
        ScalarType::Int16,
        ScalarType::Int32,
        ScalarType::Int64,
        ScalarType::UInt8,
        ScalarType::UInt16,
        ScalarType::UInt32,
        ScalarType::UInt64,
        ScalarType::Float32,
        ScalarType::Float64,
        ScalarType::String,
        ScalarType::Bytes,
        ScalarType::Timestamp,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ScalarType::Bool => "bool",
            ScalarType::Int8 => "int8",
            ScalarType::Int16 => "int16",
            ScalarType::Int32 => "int32",
            ScalarType::Int64 => "int64",
            ScalarType::UInt8 => "uint8",
            ScalarType::UInt16 => "uint16",
            ScalarType::UInt32 => "uint32",
            ScalarType::UInt64 => "uint64",
            ScalarType::Float32 => "float32",
            ScalarType::Float64 => "float64",
            ScalarType::String => "string",
            ScalarType::Bytes => "bytes",
            ScalarType::Timestamp => "timestamp",
        }
    }

    /// Bytes of one value; `None` for string and bytes, whose length varies.
    pub fn width_bytes(self) -> Option<usize> {
        match self {
            ScalarType::Bool | ScalarType::Int8 | ScalarType::UInt8 => Some(1),
            ScalarType::Int16 | ScalarType::UInt16 => Some(2),
            ScalarType::Int32 | ScalarType::UInt32 | ScalarType::Float32 => Some(4),
            ScalarType::Int64 | ScalarType::UInt64 | ScalarType::Float64 | ScalarType::Timestamp => Some(8),
            ScalarType::String | ScalarType::Bytes => None,
        }
    }

    /// Integers, floats and bool: what a model can take as a number.
    pub fn is_numeric(self) -> bool {
        !matches!(self, ScalarType::String | ScalarType::Bytes | ScalarType::Timestamp)
    }
}

/// The type of a feature, a key or a request field: a scalar, or a list of scalars.
///
/// Written `int64`, `string`, `list<float32>` in definitions and plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DType {
    Scalar(ScalarType),
    List(ScalarType),
}

impl DType {
    pub const BOOL: DType = DType::Scalar(ScalarType::Bool);
    pub const INT32: DType = DType::Scalar(ScalarType::Int32);
    pub const INT64: DType = DType::Scalar(ScalarType::Int64);
    pub const FLOAT32: DType = DType::Scalar(ScalarType::Float32);
    pub const FLOAT64: DType = DType::Scalar(ScalarType::Float64);
    pub const STRING: DType = DType::Scalar(ScalarType::String);
    pub const BYTES: DType = DType::Scalar(ScalarType::Bytes);
    pub const TIMESTAMP: DType = DType::Scalar(ScalarType::Timestamp);

    /// The scalar itself, or the element of the list.
    pub fn element(self) -> ScalarType {
        match self {
            DType::Scalar(scalar) | DType::List(scalar) => scalar,
        }
    }

    pub fn is_list(self) -> bool {
        matches!(self, DType::List(_))
    }

    /// One byte that stands for this type in our file formats: the scalar's number, plus 128 for a list of it.
    pub fn code(self) -> u8 {
        match self {
            DType::Scalar(scalar) => scalar as u8,
            DType::List(scalar) => scalar as u8 | 0x80,
        }
    }

    pub fn from_code(code: u8) -> Option<Self> {
        let scalar = *ScalarType::ALL.get(usize::from(code & 0x7f).checked_sub(1)?)?;
        Some(if code & 0x80 == 0 { DType::Scalar(scalar) } else { DType::List(scalar) })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DType::Scalar(scalar) => f.write_str(scalar.name()),
            DType::List(scalar) => write!(f, "list<{}>", scalar.name()),
        }
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, is_list) = match text.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
            Some(element) => (element, true),
            None => (text, false),
        };
        let scalar = ScalarType::ALL.into_iter().find(|scalar| scalar.name() == name).ok_or_else(|| {
            Error::new(
                ErrorCode::UnknownDType,
                format!("'{text}' is not a type"),
                "use bool, int8..int64, uint8..uint64, float32, float64, string, bytes, timestamp or list<one of these>",
            )
        })?;
        Ok(if is_list { DType::List(scalar) } else { DType::Scalar(scalar) })
    }
}

impl TryFrom<String> for DType {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<DType> for String {
    fn from(dtype: DType) -> String {
        dtype.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_its_name_and_its_code() {
        for scalar in ScalarType::ALL {
            for dtype in [DType::Scalar(scalar), DType::List(scalar)] {
                assert_eq!(dtype.to_string().parse::<DType>().ok(), Some(dtype));
                assert_eq!(DType::from_code(dtype.code()), Some(dtype));
            }
        }
        assert_eq!(DType::from_code(0), None);
        assert_eq!(DType::from_code(15), None);
    }
}
