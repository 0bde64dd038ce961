//! Our columns as Arrow arrays.

use std::sync::Arc;

use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
    ListArray, NullArray, PrimitiveArray, StringArray, StructArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field as ArrowField};
use headrace_features::arrow_type;
use headrace_types::{Column, ColumnData, DType, Error, Result, Value};

pub(super) fn array_of(column: &Column) -> Result<ArrayRef> {
    let nulls = column.validity.as_ref().map(|validity| NullBuffer::from(validity.clone()));
    let is_valid = |row: &usize| column.validity.as_ref().is_none_or(|validity| validity[*row]);
    let rows = || 0..column.len();
    Ok(match &column.data {
        ColumnData::Bool(v) => Arc::new(BooleanArray::new(v.clone().into(), nulls)),
        ColumnData::Int8(v) => Arc::new(Int8Array::new(v.clone().into(), nulls)),
        ColumnData::Int16(v) => Arc::new(Int16Array::new(v.clone().into(), nulls)),
        ColumnData::Int32(v) => Arc::new(Int32Array::new(v.clone().into(), nulls)),
        ColumnData::Int64(v) => Arc::new(Int64Array::new(v.clone().into(), nulls)),
        ColumnData::UInt8(v) => Arc::new(UInt8Array::new(v.clone().into(), nulls)),
        ColumnData::UInt16(v) => Arc::new(UInt16Array::new(v.clone().into(), nulls)),
        ColumnData::UInt32(v) => Arc::new(UInt32Array::new(v.clone().into(), nulls)),
        ColumnData::UInt64(v) => Arc::new(UInt64Array::new(v.clone().into(), nulls)),
        ColumnData::Float32(v) => Arc::new(Float32Array::new(v.clone().into(), nulls)),
        ColumnData::Float64(v) => Arc::new(Float64Array::new(v.clone().into(), nulls)),
        ColumnData::Timestamp(v) => {
            Arc::new(PrimitiveArray::<TimestampMicrosecondType>::new(v.clone().into(), nulls).with_timezone("UTC"))
        }
        ColumnData::String(v) => {
            Arc::new(rows().map(|row| is_valid(&row).then(|| v[row].as_str())).collect::<StringArray>())
        }
        ColumnData::Bytes(v) => {
            Arc::new(rows().map(|row| is_valid(&row).then(|| v[row].as_slice())).collect::<BinaryArray>())
        }
        ColumnData::List(element, v) => {
            let dtype = DType::Scalar(*element);
            let items = Column::from_values(dtype, v.iter().flatten().cloned().collect::<Vec<Value>>())?;
            let field = Arc::new(ArrowField::new_list_field(arrow_type(dtype), true));
            let offsets = OffsetBuffer::from_lengths(v.iter().map(Vec::len));
            Arc::new(ListArray::new(field, offsets, array_of(&items)?, nulls))
        }
    })
}

/// A struct of these columns, or nulls where the type says that there are none.
pub(super) fn struct_of(kind: &DataType, columns: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef> {
    match kind {
        DataType::Struct(fields) => {
            let array = StructArray::try_new(fields.clone(), columns, None);
            Ok(Arc::new(
                array.map_err(|error| Error::internal(format!("a payload does not fit its columns: {error}")))?,
            ))
        }
        _ => Ok(Arc::new(NullArray::new(rows))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::Array;

    #[test]
    fn every_type_becomes_its_arrow_type() {
        let values = [
            ("bool", Value::Bool(true)),
            ("int8", Value::Int(-1)),
            ("int16", Value::Int(-1)),
            ("int32", Value::Int(-1)),
            ("int64", Value::Int(i64::MIN)),
            ("uint8", Value::UInt(1)),
            ("uint16", Value::UInt(1)),
            ("uint32", Value::UInt(1)),
            ("uint64", Value::UInt(u64::MAX)),
            ("float32", Value::Float32(f32::NAN)),
            ("float64", Value::Float64(-0.0)),
            ("string", Value::String("x".repeat(100_000))),
            ("bytes", Value::Bytes(vec![0, 255])),
            ("timestamp", Value::Timestamp(-1)),
            ("list<string>", Value::List(vec![Value::String("a".to_owned()), Value::Null])),
            ("list<float32>", Value::List(vec![])),
        ];
        for (name, value) in values {
            let dtype: DType = name.parse().unwrap();
            let column = Column::from_values(dtype, [value, Value::Null]).unwrap();
            let array = array_of(&column).unwrap();
            assert_eq!(array.data_type(), &arrow_type(dtype), "{name}");
            assert_eq!((array.len(), array.null_count(), array.is_null(1)), (2, 1, true), "{name}");
        }
    }
}
