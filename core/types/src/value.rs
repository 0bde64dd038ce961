use crate::{DType, ScalarType, TimestampUs};

/// One value of any type, for the paths where convenience matters more than speed.
///
/// NaN is a float and not `Null`: the two are different everywhere in headrace.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    /// Any of int8..int64; the column's type says which.
    Int(i64),
    /// Any of uint8..uint64.
    UInt(u64),
    Float32(f32),
    Float64(f64),
    String(String),
    Bytes(Vec<u8>),
    Timestamp(TimestampUs),
    List(Vec<Value>),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Whether this value may stand in a column of that type (null may stand in any).
    pub fn fits(&self, dtype: DType) -> bool {
        match (self, dtype) {
            (Value::Null, _) => true,
            (Value::List(items), DType::List(element)) => items.iter().all(|item| item.fits(DType::Scalar(element))),
            (value, DType::Scalar(scalar)) => value.fits_scalar(scalar),
            _ => false,
        }
    }

    fn fits_scalar(&self, scalar: ScalarType) -> bool {
        match (self, scalar) {
            (Value::Bool(_), ScalarType::Bool)
            | (Value::Float32(_), ScalarType::Float32)
            | (Value::Float64(_), ScalarType::Float64)
            | (Value::String(_), ScalarType::String)
            | (Value::Bytes(_), ScalarType::Bytes)
            | (Value::Timestamp(_), ScalarType::Timestamp)
            | (Value::Int(_), ScalarType::Int64)
            | (Value::UInt(_), ScalarType::UInt64) => true,
            (Value::Int(v), ScalarType::Int8) => i8::try_from(*v).is_ok(),
            (Value::Int(v), ScalarType::Int16) => i16::try_from(*v).is_ok(),
            (Value::Int(v), ScalarType::Int32) => i32::try_from(*v).is_ok(),
            (Value::UInt(v), ScalarType::UInt8) => u8::try_from(*v).is_ok(),
            (Value::UInt(v), ScalarType::UInt16) => u16::try_from(*v).is_ok(),
            (Value::UInt(v), ScalarType::UInt32) => u32::try_from(*v).is_ok(),
            _ => false,
        }
    }
}
