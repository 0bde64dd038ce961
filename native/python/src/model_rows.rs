//! Rows with texts, as a model takes them: frames, dicts of columns and rows of objects become a matrix with codes in the place of texts.

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use headrace_engine::no_category;
use headrace_features::plain_array;
use headrace_models::AnyModel;
use headrace_types::{DType, Error, ErrorCode, Field, Vocabulary};
use numpy::{PyArray2, PyArrayMethods};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};

use crate::error::{Outcome, text_of, type_mismatch};
use crate::frame::batch_of;
use crate::values::{columns_of, items_of};

/// Whether it is an array of numbers: codes stand in it for texts.
pub(crate) fn is_numeric(x: &Bound<'_, PyAny>) -> bool {
    is_of_kind(x, "biuf")
}

/// Whether it has a NumPy type of one of these kinds.
fn is_of_kind(x: &Bound<'_, PyAny>, kinds: &str) -> bool {
    let py = x.py();
    let kind = x.getattr(intern!(py, "dtype")).and_then(|dtype| dtype.getattr(intern!(py, "kind")));
    kind.is_ok_and(|kind| kind.extract::<&str>().is_ok_and(|kind| kinds.contains(kind)))
}

/// The matrix `[rows, features]` of rows that hold texts. Columns are found by the names of the model's features; without names they come
/// in the model's order.
///
/// # Errors
/// `missing_column`, `length_mismatch`; `type_mismatch` or `invalid_argument` naming a value that the model does not take.
pub(crate) fn encoded<'py>(
    model: &AnyModel,
    features: Option<&[Field]>,
    x: &Bound<'py, PyAny>,
) -> Outcome<Bound<'py, PyArray2<f64>>> {
    let py = x.py();
    let names = features.map(|fields| fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>());
    let is_frame = ["__arrow_c_stream__", "__arrow_c_array__"].iter().any(|name| x.hasattr(*name).unwrap_or(false));
    let columns = if x.is_instance_of::<PyDict>() {
        let given = columns_of("x", x)?.into_iter();
        let columns = given.map(|(name, values)| Ok((Values::of(&name, &values)?, name)));
        let columns = columns.map(|found: Outcome<_>| found.map(|(values, name)| (name, values)));
        in_order(columns.collect::<Outcome<_>>()?, model.features_count(), names.as_deref())?
    } else if is_frame {
        let batch = batch_of("x", x)?;
        let schema = batch.schema();
        let named = schema.fields().iter().zip(batch.columns());
        let columns = named.map(|(field, array)| (field.name().clone(), Values::Arrow(array.clone()))).collect();
        in_order(columns, model.features_count(), names.as_deref())?
    } else {
        columns_of_rows(model.features_count(), names.as_deref(), x)?
    };
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    let width = columns.len();
    let matrix = PyArray2::<f64>::zeros(py, [rows, width], false);
    {
        // SAFETY: the array was made above, nobody else has seen it.
        let cells = unsafe { matrix.as_slice_mut() }.map_err(|error| Error::internal(error.to_string()))?;
        for (index, (name, values)) in columns.iter().enumerate() {
            if values.len() != rows {
                let message = format!("column '{name}' has {} rows, the first one has {rows}", values.len());
                return Err(Error::new(ErrorCode::LengthMismatch, message, "give columns of one length").into());
            }
            let cells = &mut cells[index.min(rows * width)..];
            let mut cells = cells.iter_mut().step_by(width);
            let mut put = |number: f64| cells.next().map_or((), |cell| *cell = number);
            values.encode(name, model.vocabulary(index), &mut put)?;
        }
    }
    Ok(matrix)
}

/// A column as it was given.
enum Values<'py> {
    Arrow(ArrayRef),
    Objects(Bound<'py, PyList>),
}

impl<'py> Values<'py> {
    /// # Errors
    /// `type_mismatch` for what is no sequence of values, and for categories of numbers: the model has codes of its own for them.
    fn of(name: &str, values: &Bound<'py, PyAny>) -> Outcome<Self> {
        if is_of_kind(values, "mM") {
            return Err(type_mismatch(format!("column '{name}' holds times"), "the model takes numbers and texts"));
        }
        let items = items_of(name, values)?;
        let is_number =
            |item: &Bound<'_, PyAny>| !item.is_none() && !item.is_instance_of::<PyString>() && !is_nan(item);
        if values.hasattr("cat")? && items.iter().any(|item| is_number(&item)) {
            let message = format!("column '{name}' holds categories that are numbers");
            return Err(type_mismatch(message, "give the codes that the model was trained on, as numbers"));
        }
        Ok(Values::Objects(items))
    }

    fn len(&self) -> usize {
        match self {
            Values::Arrow(array) => array.len(),
            Values::Objects(values) => values.len(),
        }
    }

    fn encode(&self, name: &str, vocabulary: Option<&Vocabulary>, put: &mut impl FnMut(f64)) -> Outcome<()> {
        match (self, vocabulary) {
            (Values::Arrow(array), Some(vocabulary)) if is_text(array.data_type()) => {
                let texts =
                    plain_array(array, DType::STRING).map_err(|error| error.within(format!("column '{name}'")))?;
                for (row, text) in texts.as_string::<i32>().iter().enumerate() {
                    put(code_of(vocabulary, name, row, text)?);
                }
            }
            (Values::Arrow(array), vocabulary) => numbers_of(array, name, vocabulary, put)?,
            (Values::Objects(values), vocabulary) => {
                for (row, value) in values.iter().enumerate() {
                    put(number_of(vocabulary, name, row, &value)?);
                }
            }
        }
        Ok(())
    }
}

/// The columns in the model's order.
fn in_order<'py>(
    mut columns: Vec<(String, Values<'py>)>,
    features_count: usize,
    names: Option<&[&str]>,
) -> Outcome<Vec<(String, Values<'py>)>> {
    let Some(names) = names else {
        if columns.len() == features_count {
            return Ok(columns);
        }
        let message = format!("x has {} columns, the model takes {features_count} features", columns.len());
        return Err(
            Error::new(ErrorCode::LengthMismatch, message, "give a column for each feature, in its order").into()
        );
    };
    let mut ordered = Vec::with_capacity(names.len());
    for name in names {
        let Some(place) = columns.iter().position(|(other, _)| other == name) else {
            let message = format!("x has no column '{name}'");
            return Err(Error::new(ErrorCode::MissingColumn, message, "give a column for each feature").into());
        };
        ordered.push(columns.swap_remove(place));
    }
    Ok(ordered)
}

/// The columns of rows of objects, or of one row.
fn columns_of_rows<'py>(
    features_count: usize,
    names: Option<&[&str]>,
    x: &Bound<'py, PyAny>,
) -> Outcome<Vec<(String, Values<'py>)>> {
    let py = x.py();
    let arguments = (x, intern!(py, "object"));
    let rows = py.import("numpy")?.call_method1(intern!(py, "asarray"), arguments)?;
    let dimensions: usize = rows.getattr(intern!(py, "ndim"))?.extract()?;
    let rows = if dimensions == 1 { rows.call_method1(intern!(py, "reshape"), (1, -1))? } else { rows };
    let shape: Vec<usize> = rows.getattr(intern!(py, "shape"))?.extract()?;
    if shape.len() != 2 || shape[1] != features_count {
        let message = format!("x has shape {shape:?}, the model takes [rows, {features_count}]");
        let hint = "give the features of the model's signature, in its order, or a dict of columns";
        return Err(Error::new(ErrorCode::LengthMismatch, message, hint).into());
    }
    let columns = rows.getattr("T")?.call_method0(intern!(py, "tolist"))?.cast_into::<PyList>().map_err(PyErr::from)?;
    let name = |index: usize| names.map_or_else(|| index.to_string(), |names| names[index].to_owned());
    let columns = columns.iter().enumerate();
    columns.map(|(index, values)| Ok((name(index), Values::of(&name(index), &values)?))).collect()
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_text(values),
        DataType::Null => true,
        other => other.is_string(),
    }
}

fn numbers_of(array: &ArrayRef, name: &str, vocabulary: Option<&Vocabulary>, put: &mut impl FnMut(f64)) -> Outcome<()> {
    let kind = array.data_type();
    if matches!(kind, DataType::Dictionary(..)) || vocabulary.is_some_and(|vocabulary| !vocabulary.takes_codes) {
        let wanted = if vocabulary.is_some() { "text" } else { "a number" };
        let hint = "give texts where the model knows texts, and else the codes of categories";
        return Err(type_mismatch(format!("column '{name}' is {kind}, the model takes {wanted}"), hint));
    }
    if let Some(flags) = array.as_boolean_opt() {
        flags.iter().for_each(|flag| put(flag.map_or(f64::NAN, |flag| f64::from(u8::from(flag)))));
        return Ok(());
    }
    let numbers = plain_array(array, DType::FLOAT64).map_err(|error| error.within(format!("column '{name}'")))?;
    numbers.as_primitive::<Float64Type>().iter().for_each(|number| put(number.unwrap_or(f64::NAN)));
    Ok(())
}

fn code_of(vocabulary: &Vocabulary, name: &str, row: usize, text: Option<&str>) -> Outcome<f64> {
    Ok(vocabulary.code(text).ok_or_else(|| no_category(row, name, text))?)
}

/// None, NaN and pandas' NA are nulls; with a vocabulary a text has a code, and a number is one.
fn number_of(vocabulary: Option<&Vocabulary>, name: &str, row: usize, value: &Bound<'_, PyAny>) -> Outcome<f64> {
    let py = value.py();
    if let (Some(vocabulary), Ok(text)) = (vocabulary, value.cast::<PyString>()) {
        let text = text.to_str().map_err(|error| {
            let message = format!("row {row} of '{name}' is no Unicode text: {}", text_of(py, &error));
            type_mismatch(message, "give a str without lone surrogates")
        })?;
        return code_of(vocabulary, name, row, Some(text));
    }
    if value.is_none() || is_nan(value) || value.get_type().name()?.to_str()? == "NAType" {
        return vocabulary.map_or(Ok(f64::NAN), |vocabulary| code_of(vocabulary, name, row, None));
    }
    let wanted = match vocabulary {
        Some(vocabulary) if !vocabulary.takes_codes => "text",
        _ => "a number",
    };
    let is_number = |value: &Bound<'_, PyAny>| {
        value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>()
    };
    if wanted == "a number" {
        if is_number(value) {
            return Ok(value.extract()?);
        }
        // A NumPy scalar says what it is; a date is no number, though NumPy has one for it.
        let is_scalar = is_numeric(value);
        if let Ok(plain) = value.call_method0(intern!(py, "item"))
            && is_scalar
            && is_number(&plain)
        {
            return Ok(plain.extract()?);
        }
    }
    let message = format!("row {row} of '{name}' is {}, the model takes {wanted}", value.repr()?);
    Err(type_mismatch(
        message,
        "give a str where the model knows texts, a number elsewhere, and None where nothing is known",
    ))
}

fn is_nan(value: &Bound<'_, PyAny>) -> bool {
    value.cast::<PyFloat>().is_ok_and(|number| number.value().is_nan())
}
