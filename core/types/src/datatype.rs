use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{DType, Error, ErrorCode, Result, ScalarType};

/// The type of a tensor's elements, by its name in the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Datatype {
    Bool,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    pub const ALL: [Datatype; 14] = [
        Datatype::Bool,
        Datatype::UInt8,
        Datatype::UInt16,
        Datatype::UInt32,
        Datatype::UInt64,
        Datatype::Int8,
        Datatype::Int16,
        Datatype::Int32,
        Datatype::Int64,
        Datatype::Fp16,
        Datatype::Bf16,
        Datatype::Fp32,
        Datatype::Fp64,
        Datatype::Bytes,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Datatype::Bool => "BOOL",
            Datatype::UInt8 => "UINT8",
            Datatype::UInt16 => "UINT16",
            Datatype::UInt32 => "UINT32",
            Datatype::UInt64 => "UINT64",
            Datatype::Int8 => "INT8",
            Datatype::Int16 => "INT16",
            Datatype::Int32 => "INT32",
            Datatype::Int64 => "INT64",
            Datatype::Fp16 => "FP16",
            Datatype::Bf16 => "BF16",
            Datatype::Fp32 => "FP32",
            Datatype::Fp64 => "FP64",
            Datatype::Bytes => "BYTES",
        }
    }

    /// # Errors
    /// `invalid_tensor` quoting the name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|datatype| datatype.name()).collect();
            Error::new(
                ErrorCode::InvalidTensor,
                format!("'{}' is not a datatype", name.chars().take(40).collect::<String>()),
                format!("use one of {}", names.join(", ")),
            )
        })
    }

    /// The protocol's type of a field; a list has none.
    pub fn of(dtype: DType) -> Option<Self> {
        let DType::Scalar(scalar) = dtype else { return None };
        Some(match scalar {
            ScalarType::Bool => Datatype::Bool,
            ScalarType::Int8 => Datatype::Int8,
            ScalarType::Int16 => Datatype::Int16,
            ScalarType::Int32 => Datatype::Int32,
            ScalarType::Int64 | ScalarType::Timestamp => Datatype::Int64,
            ScalarType::UInt8 => Datatype::UInt8,
            ScalarType::UInt16 => Datatype::UInt16,
            ScalarType::UInt32 => Datatype::UInt32,
            ScalarType::UInt64 => Datatype::UInt64,
            ScalarType::Float32 => Datatype::Fp32,
            ScalarType::Float64 => Datatype::Fp64,
            ScalarType::String | ScalarType::Bytes => Datatype::Bytes,
        })
    }

    /// Bytes of one element; `None` for BYTES.
    pub fn width_bytes(self) -> Option<usize> {
        match self {
            Datatype::Bool | Datatype::UInt8 | Datatype::Int8 => Some(1),
            Datatype::UInt16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => Some(2),
            Datatype::UInt32 | Datatype::Int32 | Datatype::Fp32 => Some(4),
            Datatype::UInt64 | Datatype::Int64 | Datatype::Fp64 => Some(8),
            Datatype::Bytes => None,
        }
    }

    /// The type of the values in a column. The 16-bit floats become float32, which holds each of them exactly.
    pub fn dtype(self) -> DType {
        DType::Scalar(match self {
            Datatype::Bool => ScalarType::Bool,
            Datatype::UInt8 => ScalarType::UInt8,
            Datatype::UInt16 => ScalarType::UInt16,
            Datatype::UInt32 => ScalarType::UInt32,
            Datatype::UInt64 => ScalarType::UInt64,
            Datatype::Int8 => ScalarType::Int8,
            Datatype::Int16 => ScalarType::Int16,
            Datatype::Int32 => ScalarType::Int32,
            Datatype::Int64 => ScalarType::Int64,
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 => ScalarType::Float32,
            Datatype::Fp64 => ScalarType::Float64,
            Datatype::Bytes => ScalarType::Bytes,
        })
    }

    /// Whether values may stand in JSON: the 16-bit floats have no portable form there.
    pub fn has_json_form(self) -> bool {
        !matches!(self, Datatype::Fp16 | Datatype::Bf16)
    }

    /// The name in a Triton model configuration.
    pub fn config_name(self) -> String {
        match self {
            Datatype::Bytes => "TYPE_STRING".to_owned(),
            other => format!("TYPE_{}", other.name()),
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Datatype {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        Self::from_name(&name)
    }
}

impl From<Datatype> for String {
    fn from(datatype: Datatype) -> String {
        datatype.name().to_owned()
    }
}

/// Half precision to single, exactly.
pub fn f32_of_f16(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    match exponent {
        0 => {
            // Zero and subnormals: fraction * 2^-24.
            let magnitude = f32::from(bits & 0x3ff) * (1.0 / 16_777_216.0);
            f32::from_bits(sign | magnitude.to_bits())
        }
        0x1f => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

/// The upper half of a float32.
pub fn f32_of_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read_back() {
        for datatype in Datatype::ALL {
            assert_eq!(Datatype::from_name(datatype.name()).unwrap(), datatype);
            assert_eq!(datatype.width_bytes().is_none(), datatype == Datatype::Bytes);
        }
        assert_eq!(Datatype::from_name("FP8").unwrap_err().code, ErrorCode::InvalidTensor);
        assert_eq!(Datatype::of(DType::TIMESTAMP), Some(Datatype::Int64));
        assert_eq!(Datatype::of(DType::List(ScalarType::Int8)), None);
    }

    #[test]
    fn half_floats_have_their_values() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2.0_f32.powi(-24)),
            (0x0400, 2.0_f32.powi(-14)),
            (0x7c00, f32::INFINITY),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(f32_of_f16(bits).to_bits(), f32::to_bits(value), "{bits:04x}");
        }
        assert!(f32_of_f16(0x7e01).is_nan());
        assert_eq!((f32_of_bf16(0x3f80), f32_of_bf16(0xc000)), (1.0, -2.0));
    }
}
