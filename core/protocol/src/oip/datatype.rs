//! The data types of the Open Inference Protocol, and how their elements look in a binary tensor.

use headrace_types::{ColumnData, DType, Error, ErrorCode, Result, ScalarType};

/// A tensor's element type by its protocol name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datatype {
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
    pub(crate) const ALL: [Datatype; 14] = [
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

    pub(crate) fn name(self) -> &'static str {
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
    pub(crate) fn from_name(name: &str) -> Result<Self> {
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
    pub(crate) fn of(dtype: DType) -> Option<Self> {
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
    pub(crate) fn width_bytes(self) -> Option<usize> {
        match self {
            Datatype::Bool | Datatype::UInt8 | Datatype::Int8 => Some(1),
            Datatype::UInt16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => Some(2),
            Datatype::UInt32 | Datatype::Int32 | Datatype::Fp32 => Some(4),
            Datatype::UInt64 | Datatype::Int64 | Datatype::Fp64 => Some(8),
            Datatype::Bytes => None,
        }
    }

    /// The type of the values in memory. The 16-bit floats become float32, which holds each of them exactly.
    pub(crate) fn dtype(self) -> DType {
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
    pub(crate) fn has_json_form(self) -> bool {
        !matches!(self, Datatype::Fp16 | Datatype::Bf16)
    }

    /// The name in a Triton model configuration.
    pub(crate) fn config_name(self) -> String {
        match self {
            Datatype::Bytes => "TYPE_STRING".to_owned(),
            other => format!("TYPE_{}", other.name()),
        }
    }
}

/// Reads a binary tensor of exactly `count` elements: little-endian, row-major, no padding; BYTES elements behind a 4-byte length.
///
/// # Errors
/// `invalid_tensor` with the sizes.
pub(crate) fn read_binary(name: &str, datatype: Datatype, count: usize, blob: &[u8]) -> Result<ColumnData> {
    if let Some(width) = datatype.width_bytes()
        && count.checked_mul(width) != Some(blob.len())
    {
        return Err(invalid(
            name,
            format!(
                "has {} bytes, {count} elements of {} need {}",
                blob.len(),
                datatype.name(),
                count.saturating_mul(width)
            ),
        ));
    }
    macro_rules! numbers {
        ($type:ty) => {
            blob.as_chunks().0.iter().map(|bytes| <$type>::from_le_bytes(*bytes)).collect()
        };
    }
    Ok(match datatype {
        Datatype::Bool => {
            if let Some(byte) = blob.iter().find(|byte| **byte > 1) {
                return Err(invalid(name, format!("holds the byte {byte}, a BOOL is 0 or 1")));
            }
            ColumnData::Bool(blob.iter().map(|byte| *byte == 1).collect())
        }
        Datatype::UInt8 => ColumnData::UInt8(blob.to_vec()),
        Datatype::UInt16 => ColumnData::UInt16(numbers!(u16)),
        Datatype::UInt32 => ColumnData::UInt32(numbers!(u32)),
        Datatype::UInt64 => ColumnData::UInt64(numbers!(u64)),
        Datatype::Int8 => ColumnData::Int8(numbers!(i8)),
        Datatype::Int16 => ColumnData::Int16(numbers!(i16)),
        Datatype::Int32 => ColumnData::Int32(numbers!(i32)),
        Datatype::Int64 => ColumnData::Int64(numbers!(i64)),
        Datatype::Fp32 => ColumnData::Float32(numbers!(f32)),
        Datatype::Fp64 => ColumnData::Float64(numbers!(f64)),
        Datatype::Fp16 => {
            ColumnData::Float32(blob.as_chunks().0.iter().map(|bytes| f32_of_f16(u16::from_le_bytes(*bytes))).collect())
        }
        Datatype::Bf16 => {
            let widen = |bytes: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            ColumnData::Float32(blob.as_chunks().0.iter().map(widen).collect())
        }
        Datatype::Bytes => ColumnData::Bytes(read_bytes_elements(name, count, blob)?),
    })
}

fn read_bytes_elements(name: &str, count: usize, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
    // Every element has at least its length, so a count that cannot be right reserves nothing.
    let mut elements = Vec::with_capacity(count.min(blob.len() / 4));
    let mut rest = blob;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((element, after)) = after.split_at_checked(length) else {
            return Err(invalid(
                name,
                format!("says that element {} has {length} bytes, {} are left", elements.len(), after.len()),
            ));
        };
        elements.push(element.to_vec());
        rest = after;
        if elements.len() > count {
            break;
        }
    }
    if elements.len() != count || !rest.is_empty() {
        return Err(invalid(name, format!("does not hold exactly {count} BYTES elements in its {} bytes", blob.len())));
    }
    Ok(elements)
}

pub(crate) fn invalid(name: &str, what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::InvalidTensor,
        format!("tensor '{name}' {what}"),
        "correct shape, datatype or data of that tensor",
    )
}

/// Half precision to single, exactly.
fn f32_of_f16(bits: u16) -> f32 {
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

/// Appends one BYTES element.
pub(crate) fn write_bytes_element(out: &mut Vec<u8>, bytes: &[u8]) {
    // A request is bounded far below 4 GiB, and so is every element that an answer repeats or names.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn blob_of(data: &ColumnData) -> Vec<u8> {
        let mut blob = Vec::new();
        match data {
            ColumnData::Float64(v) => blob.extend(v.iter().flat_map(|value| value.to_le_bytes())),
            ColumnData::Bytes(v) => v.iter().for_each(|bytes| write_bytes_element(&mut blob, bytes)),
            other => panic!("{other:?}"),
        }
        blob
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
        let blob = [0x80, 0x3f, 0x00, 0xc0];
        assert_eq!(read_binary("x", Datatype::Bf16, 2, &blob).unwrap(), ColumnData::Float32(vec![1.0, -2.0]));
    }

    #[test]
    fn wrong_sizes_are_refused_with_the_numbers() {
        for (datatype, count, blob, part) in [
            (Datatype::Fp64, 2, &[0u8; 15][..], "15 bytes"),
            (Datatype::Fp64, usize::MAX, &[0; 8], "elements"),
            (Datatype::Bool, 1, &[2], "byte 2"),
            (Datatype::Bytes, 1, &[1, 0, 0], "exactly 1"),
            (Datatype::Bytes, 1, &[9, 0, 0, 0, b'a'], "9 bytes, 1 are left"),
            (Datatype::Bytes, 1, &[255, 255, 255, 255], "0 are left"),
            (Datatype::Bytes, 2, &[0, 0, 0, 0], "exactly 2"),
            (Datatype::Bytes, 1, &[0, 0, 0, 0, 0, 0, 0, 0], "exactly 1"),
        ] {
            let error = read_binary("x", datatype, count, blob).unwrap_err();
            assert!(error.message.contains(part) && error.message.contains("'x'"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn numbers_and_bytes_survive_the_wire(numbers in prop::collection::vec(any::<f64>(), 0..20),
                                              elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9)) {
            for (datatype, data) in [(Datatype::Fp64, ColumnData::Float64(numbers)), (Datatype::Bytes, ColumnData::Bytes(elements))] {
                let blob = blob_of(&data);
                let back = read_binary("x", datatype, data.len(), &blob).unwrap();
                prop_assert_eq!(&blob, &blob_of(&back));
                for end in 0..blob.len() {
                    prop_assert!(read_binary("x", datatype, data.len(), &blob[..end]).is_err());
                }
            }
        }

        #[test]
        fn random_blobs_never_panic(kind in 0usize..14, count in 0usize..40, blob in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(data) = read_binary("x", Datatype::ALL[kind], count, &blob) {
                prop_assert_eq!(data.len(), count);
            }
        }
    }
}
