//! From the column of a request to the tensors of the model.

use headrace_models::{INPUT_LENGTHS, INPUT_MASK, INPUT_TEXT, INPUT_TOKENS, SequenceInput};
use headrace_types::{Column, ColumnData, Datatype, Error, ErrorCode, Result, Tensor, Value};

use crate::request::{RowError, RowErrors};

/// Tokens that one call may have, padding included: 32 MiB as int64.
const TOKENS_MAX: usize = 1 << 22;

/// The rows that the model is given; the others fail, each with its reason.
pub(super) fn taken(input: &SequenceInput, column: &Column, row_errors: &mut Vec<RowError>) -> Vec<usize> {
    let mut sound = vec![true; column.len()];
    row_errors.iter().for_each(|error| sound[error.row] = false);
    let mut wrong = RowErrors::default();
    let mut rows = Vec::with_capacity(column.len());
    for (row, _) in sound.iter().enumerate().filter(|(_, is_sound)| **is_sound) {
        match fault(input, column, row) {
            Some(what) => wrong.note(row, || bad_row(input, row, &what)),
            None => rows.push(row),
        }
    }
    row_errors.extend(wrong.into_vec());
    rows
}

fn name(input: &SequenceInput) -> &'static str {
    if *input == SequenceInput::Text { "text" } else { "tokens" }
}

fn bad_row(input: &SequenceInput, row: usize, what: &str) -> Error {
    let hint = match input {
        SequenceInput::Text => "give a text for each row",
        SequenceInput::Tokens { .. } => "give a list of whole numbers for each row",
    };
    Error::new(ErrorCode::TypeMismatch, format!("row {row} of '{}' {what}", name(input)), hint)
}

/// Why the model cannot be given a row.
fn fault(input: &SequenceInput, column: &Column, row: usize) -> Option<String> {
    if column.is_null(row) {
        return Some("is null".to_owned());
    }
    let SequenceInput::Tokens { width, .. } = input else { return None };
    let tokens = tokens_of(column, row);
    match (tokens.len(), *width) {
        (0, _) => Some("has no tokens".to_owned()),
        (count, Some(width)) if count > width => Some(format!("has {count} tokens, the model takes {width}")),
        (count, Some(width)) if count < width && !input.may_pad() => {
            Some(format!("has {count} tokens, the model takes {width} and no padding"))
        }
        _ if tokens.iter().any(Value::is_null) => Some("holds a null".to_owned()),
        _ => None,
    }
}

fn tokens_of(column: &Column, row: usize) -> &[Value] {
    match &column.data {
        ColumnData::List(_, lists) => lists.get(row).map_or(&[], Vec::as_slice),
        _ => &[],
    }
}

/// The model's inputs for some rows of the column.
///
/// # Errors
/// `length_mismatch`, `too_large`.
pub(super) fn tensors(input: &SequenceInput, column: &Column, taken: &[usize]) -> Result<Vec<Tensor>> {
    let SequenceInput::Tokens { datatype, width, lengths, mask } = input else {
        let ColumnData::String(texts) = &column.data else {
            return Err(Error::internal("a column of texts of another type"));
        };
        return Ok(vec![Tensor::of_bytes(INPUT_TEXT, vec![taken.len()], taken.iter().map(|&row| &texts[row]))?]);
    };
    let counts: Vec<usize> = taken.iter().map(|&row| tokens_of(column, row).len()).collect();
    let longest = counts.iter().copied().max().unwrap_or(0);
    if let Some(place) = counts.iter().position(|count| *count != longest)
        && !input.may_pad()
    {
        let other = counts.iter().position(|count| *count == longest).unwrap_or(0);
        return Err(Error::new(
            ErrorCode::LengthMismatch,
            format!(
                "row {} of 'tokens' has {} tokens, row {} has {longest}, and the model has no '{INPUT_LENGTHS}' or '{INPUT_MASK}' that \
                 would tell it where padding begins",
                taken[place], counts[place], taken[other]
            ),
            "send rows of one length in a request",
        ));
    }
    let width = width.unwrap_or(longest);
    if width.checked_mul(taken.len()).is_none_or(|tokens| tokens > TOKENS_MAX) {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("{} rows of {width} tokens, padding included, are more than {TOKENS_MAX} tokens", taken.len()),
            "split the request into several, with rows of similar length in each",
        ));
    }
    let matrix = vec![taken.len(), width];
    let padded = |token: &dyn Fn(&Value) -> i64| {
        let mut numbers = Vec::with_capacity(taken.len() * width);
        for &row in taken {
            let tokens = tokens_of(column, row);
            numbers.extend(tokens.iter().map(token));
            numbers.resize(numbers.len() + width - tokens.len(), 0);
        }
        numbers
    };
    let token = |value: &Value| if let Value::Int(number) = value { *number } else { 0 };
    let mut tensors = vec![integers(INPUT_TOKENS, *datatype, matrix.clone(), &padded(&token))?];
    if let Some(datatype) = lengths {
        let counts: Vec<i64> = counts.iter().map(|count| i64::try_from(*count).unwrap_or(i64::MAX)).collect();
        tensors.push(integers(INPUT_LENGTHS, *datatype, vec![taken.len()], &counts)?);
    }
    if let Some(datatype) = mask {
        tensors.push(integers(INPUT_MASK, *datatype, matrix, &padded(&|_| 1))?);
    }
    Ok(tensors)
}

/// The column has the tensor's type, so every number fits.
fn integers(name: &str, datatype: Datatype, shape: Vec<usize>, numbers: &[i64]) -> Result<Tensor> {
    #[allow(clippy::cast_possible_truncation)]
    let data: Vec<u8> = match datatype {
        Datatype::Int32 => numbers.iter().flat_map(|number| (*number as i32).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
    };
    Tensor::new(name, datatype, shape, data.into())
}
