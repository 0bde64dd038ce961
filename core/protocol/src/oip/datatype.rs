//! How the elements of a datatype look in a binary tensor, and as values of a column.

pub(crate) use headrace_types::invalid_tensor as invalid;
use headrace_types::{ColumnData, Result};
pub(crate) use headrace_types::{Datatype, f32_of_bf16, f32_of_f16};

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
        Datatype::Bf16 => ColumnData::Float32(
            blob.as_chunks().0.iter().map(|bytes| f32_of_bf16(u16::from_le_bytes(*bytes))).collect(),
        ),
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
