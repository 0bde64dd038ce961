use headrace_types::{DType, Error, ErrorCode, Result, ScalarType};
use serde_json::Value;

use crate::kind::{Kind, int_range};

/// A constant of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<[u8]>),
}

/// What makes two literals the same register. Floats are compared by their bits, so that NaN equals itself and -0 is not 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LiteralKey {
    Null(Kind),
    Bool(bool),
    Int(Kind, i64),
    Float(u64),
    Text(Kind, Box<[u8]>),
}

impl Literal {
    pub(crate) fn key(&self, kind: Kind) -> LiteralKey {
        match self {
            Literal::Null => LiteralKey::Null(kind),
            Literal::Bool(value) => LiteralKey::Bool(*value),
            Literal::Int(value) => LiteralKey::Int(kind, *value),
            Literal::Float(value) => LiteralKey::Float(value.to_bits()),
            Literal::Text(value) => LiteralKey::Text(kind, value.clone()),
        }
    }

    /// Reads the `value` of a literal of a type.
    pub(crate) fn from_json(dtype: DType, value: &Value) -> Result<Self> {
        let DType::Scalar(scalar) = dtype else {
            return Err(wrong(dtype, value, "a literal is a scalar"));
        };
        if value.is_null() {
            return Ok(Literal::Null);
        }
        match scalar {
            ScalarType::Bool => value.as_bool().map(Literal::Bool),
            ScalarType::Float32 => float(value).map(|v| Literal::Float(f64::from(v as f32))),
            ScalarType::Float64 => float(value).map(Literal::Float),
            ScalarType::String => value.as_str().map(|text| Literal::Text(text.as_bytes().into())),
            ScalarType::Bytes => return Err(wrong(dtype, value, "compare two columns of bytes instead")),
            ScalarType::Timestamp => value.as_i64().map(Literal::Int),
            _ => value
                .as_i64()
                .filter(|v| int_range(scalar).is_some_and(|(low, high)| (low..=high).contains(v)))
                .map(Literal::Int),
        }
        .ok_or_else(|| {
            wrong(
                dtype,
                value,
                match scalar {
                    ScalarType::Float32 | ScalarType::Float64 => "write a number, or one of \"nan\", \"inf\", \"-inf\"",
                    ScalarType::Timestamp => "write whole microseconds since 1970 in UTC",
                    ScalarType::UInt64 => "write a whole number from 0 to 9223372036854775807",
                    _ => "write a value of the type, within its range",
                },
            )
        })
    }
}

fn float(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("nan") => Some(f64::NAN),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

fn wrong(dtype: DType, value: &Value, hint: &str) -> Error {
    Error::new(ErrorCode::InvalidExpression, format!("the value {value} is not a literal of type {dtype}"), hint)
}
