//! On-demand features over the joined columns, by the same program that serves single rows.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, ListArray, StringArray, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field as ArrowField};
use arrow_select::concat::concat;
use headrace_expr::{ColumnSlice, ColumnView, Output, Scratch};
use headrace_types::{Column, ColumnData, DType, Error, Field, Result, ScalarType, Value};

use super::parallel::{Cancel, parallel_map};
use crate::arrow::arrow_type;
use crate::plan::{InputFrom, ServicePlan};

/// Rows computed as one job.
const JOB_ROWS: usize = 65_536;

/// The service's computed features of `count` rows, in the order of its program's outputs.
pub(super) fn compute(
    service: &ServicePlan,
    count: usize,
    request: &[ArrayRef],
    stored: &[ArrayRef],
    threads: usize,
    cancel: &Cancel<'_>,
) -> Result<Vec<ArrayRef>> {
    let Some(program) = &service.program else { return Ok(Vec::new()) };
    let inputs: Vec<&ArrayRef> = service
        .program_inputs
        .iter()
        .map(|from| match from {
            InputFrom::Request(index) => &request[*index],
            InputFrom::Stored(index) => &stored[*index],
        })
        .collect();
    let mut jobs: Vec<Range<usize>> =
        (0..count).step_by(JOB_ROWS).map(|start| start..(start + JOB_ROWS).min(count)).collect();
    if jobs.is_empty() {
        jobs.push(0..0);
    }
    let parts = parallel_map(threads, &jobs, |rows| {
        cancel.check()?;
        let lent = inputs
            .iter()
            .zip(program.inputs())
            .map(|(array, field)| Lent::new(array, field, rows.clone()))
            .collect::<Result<Vec<_>>>()?;
        let views: Vec<ColumnView<'_>> = lent.iter().map(Lent::view).collect();
        let mut scratch = Scratch::new();
        program.run(&views, rows.len(), &mut scratch)?;
        scratch.take_outputs().into_iter().map(array).collect::<Result<Vec<ArrayRef>>>()
    })?;
    if let [_] = parts.as_slice() {
        return Ok(parts.into_iter().flatten().collect());
    }
    (0..program.outputs().len())
        .map(|index| {
            let columns: Vec<&dyn Array> = parts.iter().map(|part| part[index].as_ref()).collect();
            concat(&columns).map_err(|error| Error::internal(format!("computed features: {error}")))
        })
        .collect()
}

/// A range of rows of an Arrow column in the form that a program reads: bits become bools, strings become slices.
pub(super) struct Lent<'a> {
    values: Values<'a>,
    validity: Option<Vec<bool>>,
}

enum Values<'a> {
    Slice(ColumnSlice<'a>),
    Bools(Vec<bool>),
    Strings(Vec<&'a str>),
    Bytes(Vec<&'a [u8]>),
    Lists(ScalarType, Vec<Vec<Value>>),
}

impl<'a> Lent<'a> {
    pub(super) fn new(array: &'a ArrayRef, field: &Field, rows: Range<usize>) -> Result<Self> {
        macro_rules! slice {
            ($variant:ident, $type:ty) => {
                Values::Slice(ColumnSlice::$variant(&array.as_primitive::<$type>().values()[rows.clone()]))
            };
        }
        let values = match array.data_type() {
            DataType::Int8 => slice!(Int8, Int8Type),
            DataType::Int16 => slice!(Int16, Int16Type),
            DataType::Int32 => slice!(Int32, Int32Type),
            DataType::Int64 => slice!(Int64, Int64Type),
            DataType::UInt8 => slice!(UInt8, UInt8Type),
            DataType::UInt16 => slice!(UInt16, UInt16Type),
            DataType::UInt32 => slice!(UInt32, UInt32Type),
            DataType::UInt64 => slice!(UInt64, UInt64Type),
            DataType::Float32 => slice!(Float32, Float32Type),
            DataType::Float64 => slice!(Float64, Float64Type),
            DataType::Timestamp(_, _) => slice!(Timestamp, TimestampMicrosecondType),
            DataType::Boolean => {
                let array = array.as_boolean();
                Values::Bools(rows.clone().map(|row| array.value(row)).collect())
            }
            DataType::Utf8 => {
                let array = array.as_string::<i32>();
                Values::Strings(rows.clone().map(|row| array.value(row)).collect())
            }
            DataType::Binary => {
                let array = array.as_binary::<i32>();
                Values::Bytes(rows.clone().map(|row| array.value(row)).collect())
            }
            other => match field.dtype {
                DType::List(element) => Values::Lists(element, lists(array, element, rows.clone())?),
                DType::Scalar(_) => {
                    return Err(Error::internal(format!("input '{}' has the type {other}", field.name)));
                }
            },
        };
        let validity = array.nulls().map(|nulls| rows.map(|row| nulls.is_valid(row)).collect());
        Ok(Self { values, validity })
    }

    /// One value, owned.
    fn value(&self, row: usize) -> Value {
        if self.validity.as_ref().is_some_and(|validity| !validity[row]) {
            return Value::Null;
        }
        match &self.values {
            Values::Slice(slice) => slice.get(row),
            Values::Bools(values) => Value::Bool(values[row]),
            Values::Strings(values) => Value::String(values[row].to_owned()),
            Values::Bytes(values) => Value::Bytes(values[row].to_vec()),
            Values::Lists(_, values) => Value::List(values[row].clone()),
        }
    }

    pub(super) fn view(&self) -> ColumnView<'_> {
        let data = match &self.values {
            Values::Slice(slice) => *slice,
            Values::Bools(values) => ColumnSlice::Bool(values),
            Values::Strings(values) => ColumnSlice::Str(values),
            Values::Bytes(values) => ColumnSlice::ByteSlice(values),
            Values::Lists(element, values) => ColumnSlice::List(*element, values),
        };
        ColumnView { data, validity: self.validity.as_deref() }
    }
}

/// The lists of a range of rows as values; a null list is empty here.
fn lists(array: &ArrayRef, element: ScalarType, rows: Range<usize>) -> Result<Vec<Vec<Value>>> {
    let array = array.as_list::<i32>();
    rows.map(|row| {
        let items = array.value(row);
        let count = items.len();
        let lent = Lent::new(&items, &Field::new("items", DType::Scalar(element)), 0..count)?;
        Ok((0..count).map(|item| lent.value(item)).collect())
    })
    .collect()
}

/// An output column as an Arrow array.
fn array(output: Output) -> Result<ArrayRef> {
    let Output { data, validity } = output;
    let validity = validity.contains(&false).then_some(validity);
    column_array(Column { data, validity })
}

/// A column as an Arrow array.
pub fn column_array(column: Column) -> Result<ArrayRef> {
    let Column { data, validity } = column;
    let nulls = validity.map(|validity| NullBuffer::new(BooleanBuffer::from(validity.as_slice())));
    let rows_of = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    Ok(match data {
        ColumnData::Bool(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls)),
        ColumnData::Int8(values) => Arc::new(Int8Array::new(values.into(), nulls)),
        ColumnData::Int16(values) => Arc::new(Int16Array::new(values.into(), nulls)),
        ColumnData::Int32(values) => Arc::new(Int32Array::new(values.into(), nulls)),
        ColumnData::Int64(values) => Arc::new(Int64Array::new(values.into(), nulls)),
        ColumnData::UInt8(values) => Arc::new(UInt8Array::new(values.into(), nulls)),
        ColumnData::UInt16(values) => Arc::new(UInt16Array::new(values.into(), nulls)),
        ColumnData::UInt32(values) => Arc::new(UInt32Array::new(values.into(), nulls)),
        ColumnData::UInt64(values) => Arc::new(UInt64Array::new(values.into(), nulls)),
        ColumnData::Float32(values) => Arc::new(Float32Array::new(values.into(), nulls)),
        ColumnData::Float64(values) => Arc::new(Float64Array::new(values.into(), nulls)),
        ColumnData::Timestamp(values) => {
            Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone("UTC"))
        }
        ColumnData::String(values) => Arc::new(
            values.iter().enumerate().map(|(row, value)| rows_of(row).then_some(value)).collect::<StringArray>(),
        ),
        ColumnData::Bytes(values) => Arc::new(
            values.iter().enumerate().map(|(row, value)| rows_of(row).then_some(value)).collect::<BinaryArray>(),
        ),
        ColumnData::List(element, lists) => {
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(Vec::len));
            let items = Column::from_values(DType::Scalar(element), lists.into_iter().flatten())?;
            let field = Arc::new(ArrowField::new_list_field(arrow_type(DType::Scalar(element)), true));
            Arc::new(ListArray::new(field, offsets, column_array(items)?, nulls))
        }
    })
}
