//! Calls of functions: row by row with the bits of the arguments, or with whole columns.

use headrace_types::{Column, ColumnData, DType, Error, ErrorCode, Result, ScalarType};

use super::{Frame, store};
use crate::cells::{Cells, Values, WRONG_STORAGE};
use crate::column::ColumnView;
use crate::function::{Function, FunctionCode};
use crate::kind::Kind;
use crate::program::Call;

pub(super) fn call(call: &Call, frame: &mut Frame<'_>, out: &mut Cells) -> Result<()> {
    let code = frame.code;
    let function: &Function = &code.functions[call.function];
    match function.code()? {
        FunctionCode::Scalar(_) => {
            let (mut words, mut valid) = (Vec::new(), Vec::new());
            for row in 0..frame.count {
                words.clear();
                valid.clear();
                for &argument in &call.arguments {
                    let cells = frame.cells(argument);
                    valid.push(cells.valid[row]);
                    words.push(word(&cells.values, row));
                }
                let result = scalar(function, &mut words, &valid)?;
                out.valid[row] = result.is_some();
                set(&mut out.values, row, result.unwrap_or(0));
            }
            Ok(())
        }
        FunctionCode::Batch(batch) => {
            let arguments = call.arguments.iter().zip(&call.kinds).map(|(&register, &kind)| {
                let cells = frame.cells(register);
                let mut data = ColumnData::with_capacity(dtype_of(kind), frame.count);
                crate::scratch::resize(&mut data, frame.count);
                store::store(cells, 0..frame.count, &|at| frame.text(at), &mut data);
                Column { data, validity: Some(cells.valid[..frame.count].to_vec()) }
            });
            let arguments: Vec<Column> = arguments.collect();
            let column = batch.call(arguments, frame.count)?;
            if column.dtype() != function.spec.returns || column.len() != frame.count {
                return Err(Error::internal(format!("function '{}' gave another column", function.spec.name)));
            }
            let view = ColumnView::from(&column);
            super::load::load(&view, 0, 0, frame.count, out, frame.pool);
            if let Values::Text(texts) = &mut out.values {
                keep_texts(&column, texts, &mut out.valid, frame)?;
            }
            Ok(())
        }
    }
}

/// The value of a compiled function: null for a null argument that it does not take.
pub(super) fn scalar(function: &Function, words: &mut [u64], valid: &[bool]) -> Result<Option<u64>> {
    let FunctionCode::Scalar(code) = function.code()? else {
        return Err(Error::internal(format!("function '{}' is not compiled", function.spec.name)));
    };
    for ((word, &valid), parameter) in words.iter_mut().zip(valid).zip(&function.spec.parameters) {
        if !valid {
            if !parameter.takes_null {
                return Ok(None);
            }
            *word = 0;
        }
    }
    Ok(code.call(words, valid))
}

fn word(values: &Values, row: usize) -> u64 {
    match values {
        Values::Bool(values) => values[row].into(),
        Values::Int(values) => values[row] as u64,
        Values::Float(values) => values[row].to_bits(),
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn set(values: &mut Values, row: usize, word: u64) {
    match values {
        Values::Bool(values) => values[row] = word != 0,
        Values::Int(values) => values[row] = word as i64,
        Values::Float(values) => values[row] = f64::from_bits(word),
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

/// The column does not outlive the call, so its strings go to the chunk's pool; one that is too long is an error, as a null would be
/// taken for the function's own.
fn keep_texts(
    column: &Column,
    texts: &mut [crate::cells::TextRef],
    valid: &mut [bool],
    frame: &mut Frame<'_>,
) -> Result<()> {
    for (row, (text, valid)) in texts.iter_mut().zip(valid).enumerate().take(frame.count) {
        let bytes = match &column.data {
            _ if !*valid => &[][..],
            ColumnData::String(values) => values[row].as_bytes(),
            ColumnData::Bytes(values) => &values[row],
            _ => &[],
        };
        *text = frame.pool.keep(bytes).ok_or_else(|| {
            Error::new(
                ErrorCode::TooLarge,
                format!("a function gave a text of {} bytes", bytes.len()),
                format!("at most {} are allowed", crate::cells::TEXT_BYTES_MAX),
            )
        })?;
    }
    Ok(())
}

/// The type in which a function gets an argument.
fn dtype_of(kind: Kind) -> DType {
    let scalar = match kind.element().unwrap_or(kind) {
        Kind::Bool => ScalarType::Bool,
        Kind::Int => ScalarType::Int64,
        Kind::Float => ScalarType::Float64,
        Kind::Timestamp => ScalarType::Timestamp,
        Kind::Bytes => ScalarType::Bytes,
        _ => ScalarType::String,
    };
    if kind.is_list() { DType::List(scalar) } else { DType::Scalar(scalar) }
}
