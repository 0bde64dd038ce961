//! Python values to columns of the engine and back, for the paths where a caller gives a few rows in dictionaries.
//!
//! Whole frames cross as Arrow ([`crate::frame`]) and tensors as NumPy ([`crate::tensor`]); nothing here is made for millions of values.

use headrace_engine::{ColumnBuilder, RowError};
use headrace_types::{Column, ColumnData, DType, Error, ScalarType, TimestampUs, Value, days_from_civil};
use numpy::PyUntypedArray;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

use crate::error::{Outcome, text_of, type_mismatch};
use crate::tensor::{Element, View};

/// A sequence of Python values as a column; a value that does not fit spoils its row only.
pub(crate) fn column_of(
    name: &str,
    dtype: DType,
    values: &Bound<'_, PyAny>,
    row_errors: &mut Vec<RowError>,
) -> Outcome<Column> {
    let mut builder;
    if let Ok(list) = values.cast::<PyList>() {
        builder = ColumnBuilder::new(name, dtype, list.len());
        for value in list.iter() {
            push(&mut builder, &value)?;
        }
    } else if let Ok(tuple) = values.cast::<PyTuple>() {
        builder = ColumnBuilder::new(name, dtype, tuple.len());
        for value in tuple.iter_borrowed() {
            push(&mut builder, &value)?;
        }
    } else if let Some(data) = array_of(dtype, values) {
        return Ok(Column::new(data));
    } else {
        let items = items_of(name, values)?;
        builder = ColumnBuilder::new(name, dtype, items.len());
        for value in items.iter() {
            push(&mut builder, &value)?;
        }
    }
    let (column, errors) = builder.finish();
    row_errors.extend(errors);
    Ok(column)
}

/// A NumPy array of exactly the column's type; none for anything else, which goes value by value: a masked array is an array, too, and hides
/// some of its values.
fn array_of(dtype: DType, values: &Bound<'_, PyAny>) -> Option<ColumnData> {
    let array = values.cast_exact::<PyUntypedArray>().ok()?;
    let view = View::of("values", array).ok().filter(|view| view.dimensions == 1)?;
    // SAFETY: `values` keeps the array alive, and the element type is matched; nothing runs meanwhile that could write to it.
    unsafe {
        match (view.element, dtype) {
            (Element::Int64, DType::Scalar(ScalarType::Int64)) => Some(ColumnData::Int64(view.slice().to_vec())),
            (Element::Float32, DType::Scalar(ScalarType::Float32)) => Some(ColumnData::Float32(view.slice().to_vec())),
            (Element::Float64, DType::Scalar(ScalarType::Float64)) => Some(ColumnData::Float64(view.slice().to_vec())),
            _ => None,
        }
    }
}

/// What a NumPy array, an Arrow array, a pandas or Polars column holds, as a list.
pub(crate) fn items_of<'py>(name: &str, values: &Bound<'py, PyAny>) -> Outcome<Bound<'py, PyList>> {
    let py = values.py();
    let not_a_sequence = |found: String| {
        type_mismatch(
            format!("column '{name}' is {found}, not a sequence of values"),
            format!("write {{'{name}': [..]}}"),
        )
    };
    if values.is_instance_of::<PyString>() || values.is_instance_of::<PyBytes>() || values.is_instance_of::<PyDict>() {
        return Err(not_a_sequence(format!("a {}", values.get_type().name()?)));
    }
    for method in [intern!(py, "to_pylist"), intern!(py, "tolist"), intern!(py, "to_list")] {
        if let Ok(list) = values.call_method0(method) {
            return list.cast_into::<PyList>().map_err(|_| not_a_sequence("a scalar".to_owned()));
        }
    }
    let is_sized = values.len().is_ok();
    let items = if is_sized { values.try_iter() } else { Err(pyo3::exceptions::PyTypeError::new_err("")) };
    let Ok(items) = items else { return Err(not_a_sequence(format!("a {}", values.get_type().name()?))) };
    let list = PyList::empty(py);
    for item in items {
        list.append(item?)?;
    }
    Ok(list)
}

fn push(builder: &mut ColumnBuilder, value: &Bound<'_, PyAny>) -> Outcome<()> {
    if let Ok(text) = value.cast::<PyString>() {
        builder.push_str(text.to_str()?);
    } else if let Ok(float) = value.cast_exact::<PyFloat>() {
        builder.push_f64(float.value());
    } else if value.is_none() {
        builder.push_null();
    } else if let Ok(flag) = value.cast::<PyBool>() {
        builder.push_bool(flag.is_true());
    } else if value.is_instance_of::<PyInt>() {
        push_int(builder, value);
    } else {
        push_other(builder, value)?;
    }
    Ok(())
}

fn push_int(builder: &mut ColumnBuilder, value: &Bound<'_, PyAny>) {
    if let Ok(number) = value.extract::<i64>() {
        builder.push_i64(number);
    } else if let Ok(number) = value.extract::<u64>() {
        builder.push_u64(number);
    } else {
        let dtype = builder.dtype();
        builder.push_error(headrace_types::Error::new(
            headrace_types::ErrorCode::TypeMismatch,
            format!("{value} is not a {dtype}"),
            "no integer type is that wide",
        ));
    }
}

/// The less frequent types: bytes, times, NumPy scalars, lists.
fn push_other(builder: &mut ColumnBuilder, value: &Bound<'_, PyAny>) -> Outcome<()> {
    let py = value.py();
    if let Ok(bytes) = value.cast::<PyBytes>() {
        builder.push_bytes(bytes.as_bytes());
    } else if let Ok(bytes) = value.cast::<PyByteArray>() {
        builder.push_bytes(&bytes.to_vec());
    } else if value.is_instance(datetime_type(py)?)? {
        if is_not_a_time(value)? {
            builder.push_null();
        } else {
            builder.push_value(Value::Timestamp(datetime_us(value)?));
        }
    } else if let Ok(plain) = value.call_method0(intern!(py, "item")) {
        // A NumPy scalar; a datetime64 in nanoseconds becomes an int there, so it is asked for microseconds first.
        if let Ok(kind) = value.getattr(intern!(py, "dtype")).and_then(|dtype| dtype.getattr(intern!(py, "kind")))
            && kind.extract::<&str>().is_ok_and(|kind| kind == "M")
        {
            let micros = value.call_method1(intern!(py, "astype"), ("datetime64[us]",))?;
            return push(builder, &micros.call_method0(intern!(py, "item"))?);
        }
        push_plain(builder, &plain)?;
    } else if builder.dtype().is_list() && !value.is_instance_of::<PyDict>() {
        let mut errors = Vec::new();
        let column = column_of("", DType::Scalar(builder.dtype().element()), value, &mut errors)?;
        match errors.pop() {
            Some(first) => builder.push_error(Error::clone(&first.error)),
            None => builder.push_value(Value::List((0..column.len()).map(|row| column.value(row)).collect())),
        }
    } else {
        push_unknown(builder, value)?;
    }
    Ok(())
}

fn push_plain(builder: &mut ColumnBuilder, plain: &Bound<'_, PyAny>) -> Outcome<()> {
    let known = plain.is_instance_of::<PyString>()
        || plain.is_instance_of::<PyFloat>()
        || plain.is_instance_of::<PyInt>()
        || plain.is_instance_of::<PyBytes>()
        || plain.is_none();
    if known { push(builder, plain) } else { push_unknown(builder, plain) }
}

fn push_unknown(builder: &mut ColumnBuilder, value: &Bound<'_, PyAny>) -> Outcome<()> {
    let dtype = builder.dtype();
    builder.push_error(headrace_types::Error::new(
        headrace_types::ErrorCode::TypeMismatch,
        format!("a value of type {} is not a {dtype}", value.get_type().name()?),
        format!("give a {dtype}"),
    ));
    Ok(())
}

fn datetime_type<'py>(py: Python<'py>) -> PyResult<&'py Bound<'py, PyType>> {
    static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    DATETIME.import(py, "datetime", "datetime")
}

/// pandas' NaT is a datetime that is not equal to itself.
fn is_not_a_time(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.ne(value)
}

/// Microseconds UTC of a `datetime.datetime`; without a zone it is UTC.
pub(crate) fn datetime_us(value: &Bound<'_, PyAny>) -> Outcome<TimestampUs> {
    let py = value.py();
    let part = |name: &Bound<'_, PyString>| -> PyResult<i64> { value.getattr(name)?.extract() };
    let small = |name: &Bound<'_, PyString>| -> PyResult<u32> { value.getattr(name)?.extract() };
    let days = days_from_civil(part(intern!(py, "year"))?, small(intern!(py, "month"))?, small(intern!(py, "day"))?);
    let seconds = part(intern!(py, "hour"))? * 3600 + part(intern!(py, "minute"))? * 60 + part(intern!(py, "second"))?;
    let mut us = (days * 86_400 + seconds) * 1_000_000 + part(intern!(py, "microsecond"))?;
    let offset = value.call_method0(intern!(py, "utcoffset"))?;
    if !offset.is_none() {
        let part = |name: &Bound<'_, PyString>| -> PyResult<i64> { offset.getattr(name)?.extract() };
        let offset_seconds = part(intern!(py, "days"))? * 86_400 + part(intern!(py, "seconds"))?;
        us -= offset_seconds * 1_000_000 + part(intern!(py, "microseconds"))?;
    }
    Ok(us)
}

/// A column as a list of Python values: null is None, a timestamp an aware `datetime`.
pub(crate) fn list_of<'py>(py: Python<'py>, column: &Column) -> Outcome<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for row in 0..column.len() {
        list.append(if column.is_null(row) { py.None() } else { object_at(py, &column.data, row)? })?;
    }
    Ok(list)
}

fn object_at(py: Python<'_>, data: &ColumnData, row: usize) -> Outcome<Py<PyAny>> {
    object_of(py, &data.get(row), data.dtype())
}

fn object_of(py: Python<'_>, value: &Value, dtype: DType) -> Outcome<Py<PyAny>> {
    Ok(match value {
        Value::Null => py.None(),
        Value::Bool(x) => x.into_pyobject(py)?.to_owned().into_any().unbind(),
        Value::Int(x) => x.into_pyobject(py)?.into_any().unbind(),
        Value::UInt(x) => x.into_pyobject(py)?.into_any().unbind(),
        Value::Float32(x) => f64::from(*x).into_pyobject(py)?.into_any().unbind(),
        Value::Float64(x) => x.into_pyobject(py)?.into_any().unbind(),
        Value::String(x) => x.into_pyobject(py)?.into_any().unbind(),
        Value::Bytes(x) => PyBytes::new(py, x).into_any().unbind(),
        Value::Timestamp(us) => datetime_of(py, *us)?,
        Value::List(items) => {
            let element = DType::Scalar(dtype.element());
            let objects = items.iter().map(|item| object_of(py, item, element)).collect::<Outcome<Vec<_>>>()?;
            PyList::new(py, objects)?.into_any().unbind()
        }
    })
}

/// An aware UTC `datetime`; a time outside the years 1 to 9999 stays an integer of microseconds.
fn datetime_of(py: Python<'_>, us: TimestampUs) -> Outcome<Py<PyAny>> {
    static EPOCH: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let (epoch, timedelta) = EPOCH.get_or_try_init(py, || {
        let datetime = py.import("datetime")?;
        let utc = datetime.getattr("timezone")?.getattr("utc")?;
        let epoch = datetime.getattr("datetime")?.call1((1970, 1, 1, 0, 0, 0, 0, utc))?;
        Ok::<_, PyErr>((epoch.unbind(), datetime.getattr("timedelta")?.unbind()))
    })?;
    let made = timedelta
        .bind(py)
        .call1((0, us.div_euclid(1_000_000), us.rem_euclid(1_000_000)))
        .and_then(|delta| epoch.bind(py).add(delta));
    Ok(match made {
        Ok(time) => time.unbind(),
        Err(_) => us.into_pyobject(py)?.into_any().unbind(),
    })
}

/// A mapping from column names to sequences as (name, values); `what` names it in messages.
pub(crate) fn columns_of<'py>(what: &str, mapping: &Bound<'py, PyAny>) -> Outcome<Vec<(String, Bound<'py, PyAny>)>> {
    let Ok(dict) = mapping.cast::<PyDict>() else {
        let py = mapping.py();
        let as_dict = py.get_type::<PyDict>().call1((mapping,)).map_err(|error| {
            type_mismatch(
                format!("'{what}' is not a mapping from column names to values: {}", text_of(py, &error)),
                format!("write {what}={{'name': [..]}}"),
            )
        })?;
        return columns_of(what, &as_dict);
    };
    let mut columns = Vec::with_capacity(dict.len());
    for (key, values) in dict.iter() {
        let Ok(name) = key.cast::<PyString>() else {
            return Err(type_mismatch(format!("'{what}' has the key {key}, not the name of a column"), "use strings"));
        };
        columns.push((name.to_str()?.to_owned(), values));
    }
    Ok(columns)
}
