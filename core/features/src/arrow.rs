//! Arrow columns as they come, brought to the one Arrow type that each of our types has.
//!
//! What loses nothing is converted; anything else is refused by the column's name.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow_array::{Array, ArrayRef, ListArray, PrimitiveArray, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field as ArrowField, TimeUnit};
use headrace_expr::did_you_mean;
use headrace_types::{DType, Error, ErrorCode, Result, ScalarType};

/// The name of the zone of every timestamp that we give out.
const UTC: &str = "UTC";

/// The Arrow type of a type: plain arrays, timestamps in microseconds of UTC, lists with 32-bit offsets.
pub fn arrow_type(dtype: DType) -> DataType {
    match dtype {
        DType::List(element) => {
            DataType::List(Arc::new(ArrowField::new_list_field(arrow_type(DType::Scalar(element)), true)))
        }
        DType::Scalar(scalar) => match scalar {
            ScalarType::Bool => DataType::Boolean,
            ScalarType::Int8 => DataType::Int8,
            ScalarType::Int16 => DataType::Int16,
            ScalarType::Int32 => DataType::Int32,
            ScalarType::Int64 => DataType::Int64,
            ScalarType::UInt8 => DataType::UInt8,
            ScalarType::UInt16 => DataType::UInt16,
            ScalarType::UInt32 => DataType::UInt32,
            ScalarType::UInt64 => DataType::UInt64,
            ScalarType::Float32 => DataType::Float32,
            ScalarType::Float64 => DataType::Float64,
            ScalarType::String => DataType::Utf8,
            ScalarType::Bytes => DataType::Binary,
            ScalarType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        },
    }
}

/// A column of a batch as a plain array of a type.
///
/// # Errors
/// `missing_column` with the nearest names, or `type_mismatch`; both name the column.
pub fn plain_column(batch: &RecordBatch, name: &str, dtype: DType) -> Result<ArrayRef> {
    let Some(column) = batch.column_by_name(name) else {
        let schema = batch.schema();
        return Err(Error::new(
            ErrorCode::MissingColumn,
            format!("there is no column '{name}'"),
            did_you_mean(name, "columns", schema.fields().iter().map(|field| field.name().as_str())),
        ));
    };
    plain_array(column, dtype).map_err(|error| error.within(format!("column '{name}'")))
}

/// An array as a plain array of a type: views, large and dictionary arrays are unpacked, widths changed where every value fits.
///
/// # Errors
/// `type_mismatch` when the types do not go together or a value does not fit.
pub fn plain_array(array: &ArrayRef, dtype: DType) -> Result<ArrayRef> {
    let target = arrow_type(dtype);
    let source = array.data_type();
    if *source == target {
        return Ok(Arc::clone(array));
    }
    if let DataType::Dictionary(_, values) = source {
        return plain_array(&cast(array, values.as_ref())?, dtype);
    }
    if matches!(source, DataType::Null) {
        return Ok(new_null_array(&target, array.len()));
    }
    match dtype {
        DType::List(element) => list(array, element),
        DType::Scalar(ScalarType::Timestamp) => timestamp(array),
        DType::Scalar(ScalarType::String) if source.is_string() => cast(array, &target),
        DType::Scalar(ScalarType::Bytes) if source.is_binary() => cast(array, &target),
        DType::Scalar(scalar) if is_int(scalar) && source.is_integer() => cast(array, &target),
        DType::Scalar(ScalarType::Float32 | ScalarType::Float64) if source.is_floating() => cast(array, &target),
        DType::Scalar(ScalarType::Float32 | ScalarType::Float64) if source.is_integer() => {
            let floats = cast(array, &target)?;
            // An int that the float cannot hold exactly comes back changed, or not at all.
            match cast(&floats, source) {
                Ok(back) if back.as_ref() == array.as_ref() => Ok(floats),
                _ => Err(Error::new(
                    ErrorCode::TypeMismatch,
                    format!("it is {source} with values that {dtype} does not hold exactly"),
                    "declare the field as an int, or round the column to a float yourself",
                )),
            }
        }
        DType::Scalar(_) => Err(mismatch(source, dtype)),
    }
}

fn is_int(scalar: ScalarType) -> bool {
    scalar.is_numeric() && !matches!(scalar, ScalarType::Bool | ScalarType::Float32 | ScalarType::Float64)
}

fn mismatch(source: &DataType, dtype: DType) -> Error {
    Error::new(
        ErrorCode::TypeMismatch,
        format!("it is {source}, expected {dtype}"),
        "convert the column, or change the type in the definition",
    )
}

/// Arrow's cast; a value that does not fit is an error.
fn cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, target, &options).map_err(|error| {
        Error::new(
            ErrorCode::TypeMismatch,
            format!("it is {}, and does not fit {target}: {error}", array.data_type()),
            "convert the column, or change the type in the definition",
        )
    })
}

fn list(array: &ArrayRef, element: ScalarType) -> Result<ArrayRef> {
    let child = match array.data_type() {
        DataType::List(child) | DataType::LargeList(child) | DataType::FixedSizeList(child, _) => child,
        DataType::ListView(child) | DataType::LargeListView(child) => child,
        other => return Err(mismatch(other, DType::List(element))),
    };
    let lists = cast(array, &DataType::List(Arc::clone(child)))?;
    let lists = lists.as_list::<i32>();
    let values = plain_array(lists.values(), DType::Scalar(element)).map_err(|error| error.within("list values"))?;
    let field = Arc::new(ArrowField::new_list_field(arrow_type(DType::Scalar(element)), true));
    Ok(Arc::new(ListArray::new(field, lists.offsets().clone(), values, lists.nulls().cloned())))
}

/// Times in any unit and zone, and dates (their midnight in UTC). Nanoseconds are rounded down.
fn timestamp(array: &ArrayRef) -> Result<ArrayRef> {
    const DAY_US: i64 = 86_400_000_000;
    let times: TimestampMicrosecondArray = match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().clone(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array.as_primitive::<TimestampNanosecondType>().unary(|ns| ns.div_euclid(1_000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            scaled(array.as_primitive::<TimestampMillisecondType>(), 1_000)?
        }
        DataType::Timestamp(TimeUnit::Second, _) => scaled(array.as_primitive::<TimestampSecondType>(), 1_000_000)?,
        DataType::Date32 => array.as_primitive::<Date32Type>().unary(|day| i64::from(day) * DAY_US),
        DataType::Date64 => scaled(array.as_primitive::<Date64Type>(), 1_000)?,
        other => return Err(mismatch(other, DType::Scalar(ScalarType::Timestamp))),
    };
    Ok(Arc::new(times.with_timezone(UTC)))
}

fn scaled<T: arrow_array::types::ArrowPrimitiveType<Native = i64>>(
    array: &PrimitiveArray<T>,
    factor: i64,
) -> Result<TimestampMicrosecondArray> {
    let overflow = |value: i64| {
        Error::new(
            ErrorCode::TypeMismatch,
            format!("the time {value} does not fit 64 bits of microseconds"),
            "remove or correct the time",
        )
    };
    array.try_unary(|value| value.checked_mul(factor).ok_or_else(|| overflow(value)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::types::Int8Type;
    use arrow_array::{
        BooleanArray, DictionaryArray, Float64Array, Int8Array, Int64Array, LargeListArray, LargeStringArray,
        StringArray, StringViewArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
    };

    fn dtype(text: &str) -> DType {
        text.parse().unwrap()
    }

    fn plain(array: impl Array + 'static, name: &str) -> Result<ArrayRef> {
        plain_array(&(Arc::new(array) as ArrayRef), dtype(name))
    }

    #[test]
    fn strings_of_every_layout_become_plain() {
        let expected: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        assert_eq!(&plain(LargeStringArray::from(vec![Some("a"), None]), "string").unwrap(), &expected);
        assert_eq!(&plain(StringViewArray::from(vec![Some("a"), None]), "string").unwrap(), &expected);
        let dictionary: DictionaryArray<Int8Type> = [Some("a"), None].into_iter().collect();
        assert_eq!(&plain(dictionary, "string").unwrap(), &expected);
        assert_eq!(plain(Int64Array::from(vec![1]), "string").unwrap_err().code, ErrorCode::TypeMismatch);
    }

    #[test]
    fn int_widths_change_only_where_values_fit() {
        let expected: ArrayRef = Arc::new(Int8Array::from(vec![Some(127), None]));
        assert_eq!(&plain(Int64Array::from(vec![Some(127), None]), "int8").unwrap(), &expected);
        assert_eq!(plain(Int64Array::from(vec![128]), "int8").unwrap_err().code, ErrorCode::TypeMismatch);
        assert_eq!(plain(UInt64Array::from(vec![u64::MAX]), "int64").unwrap_err().code, ErrorCode::TypeMismatch);
        assert_eq!(plain(Float64Array::from(vec![1.0]), "int64").unwrap_err().code, ErrorCode::TypeMismatch);
        assert_eq!(plain(BooleanArray::from(vec![true]), "int64").unwrap_err().code, ErrorCode::TypeMismatch);
    }

    #[test]
    fn ints_become_floats_only_exactly() {
        let exact = 1_i64 << 53;
        let floats = plain(Int64Array::from(vec![exact]), "float64").unwrap();
        assert_eq!(floats.as_primitive::<arrow_array::types::Float64Type>().value(0), 9_007_199_254_740_992.0);
        assert!(plain(Int64Array::from(vec![exact + 1]), "float64").is_err());
        assert!(plain(Int64Array::from(vec![i64::MAX]), "float64").is_err());
    }

    #[test]
    fn times_of_every_unit_become_microseconds() {
        let micros = |array: ArrayRef| array.as_primitive::<TimestampMicrosecondType>().values().to_vec();
        assert_eq!(micros(plain(TimestampNanosecondArray::from(vec![-1, 1_999]), "timestamp").unwrap()), [-1, 1]);
        let zoned = TimestampMillisecondArray::from(vec![2]).with_timezone("+05:00");
        assert_eq!(micros(plain(zoned, "timestamp").unwrap()), [2_000]);
        assert!(plain(TimestampMillisecondArray::from(vec![i64::MAX]), "timestamp").is_err());
    }

    #[test]
    fn lists_are_converted_with_their_values() {
        let lists = LargeListArray::from_iter_primitive::<arrow_array::types::Int64Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
        ]);
        let plain = plain(lists, "list<int32>").unwrap();
        assert_eq!(plain.data_type(), &arrow_type(dtype("list<int32>")));
        assert_eq!((plain.len(), plain.null_count()), (3, 1));
    }
}
