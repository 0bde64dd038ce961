//! From the tensors that a model answered to the sequences of its rows.

use headrace_models::SequenceLayout;
use headrace_types::{Datatype, Error, ErrorCode, Result, Tensor};

use super::Sequence;
use crate::request::{RowError, RowErrors};

/// Puts the answers of the rows that were run into their places.
///
/// # Errors
/// `model_failed` for tensors of other shapes than rows and tokens.
pub(super) fn read(
    layout: &SequenceLayout,
    answered: &[Tensor],
    taken: &[usize],
    sequences: &mut [Sequence],
    row_errors: &mut Vec<RowError>,
) -> Result<()> {
    let tensor = |place: Option<usize>| place.and_then(|place| answered.get(place));
    let (tokens, scores) = (tensor(layout.tokens), tensor(layout.scores));
    let width = [tokens, scores].into_iter().flatten().filter_map(|tensor| tensor.shape().get(1).copied()).next();
    let width = width.unwrap_or(0);
    for tensor in answered {
        let expected = if tensor.shape().len() == 1 { vec![taken.len()] } else { vec![taken.len(), width] };
        if tensor.shape() != expected {
            return Err(other_shape(tensor, &expected));
        }
    }
    let (tokens, scores) = (tokens.map(integers), scores.map(floats));
    let (lengths, score) = (tensor(layout.lengths).map(integers), tensor(layout.score).map(floats));
    let mut texts = tensor(layout.text).map(Tensor::bytes_elements);
    let mut wrong = RowErrors::default();
    for (place, &row) in taken.iter().enumerate() {
        let text = texts.as_mut().and_then(Iterator::next).map(std::str::from_utf8);
        let length = lengths.as_ref().map_or(Some(width), |lengths| {
            usize::try_from(lengths[place])
                .ok()
                .filter(|length| *length <= width || tokens.is_none() && scores.is_none())
        });
        let (Some(length), Ok(text)) = (length, text.transpose()) else {
            let what = if length.is_none() { "the length of its tokens is none" } else { "its text is not UTF-8" };
            wrong.note(row, || {
                Error::new(
                    ErrorCode::ModelFailed,
                    format!("row {row}: {what}"),
                    "look into the model that was exported",
                )
            });
            continue;
        };
        let (begin, end) = (place * width, place * width + length.min(width));
        sequences[row] = Sequence {
            text: text.map(str::to_owned),
            tokens: tokens.as_ref().map(|tokens| tokens[begin..end].to_vec()),
            score: score.as_ref().map(|score| score[place]),
            scores: scores.as_ref().map(|scores| scores[begin..end].to_vec()),
        };
    }
    row_errors.extend(wrong.into_vec());
    Ok(())
}

fn other_shape(tensor: &Tensor, expected: &[usize]) -> Error {
    let (name, shape) = (tensor.name(), tensor.shape());
    Error::new(
        ErrorCode::ModelFailed,
        format!("the model gave '{name}' as {shape:?}, expected {expected:?}: rows, and tokens of one width"),
        "look into the model that was exported",
    )
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    let narrow = || tensor.numbers(|bytes| i64::from(i32::from_le_bytes(bytes))).map(Iterator::collect);
    let wide = || tensor.numbers(i64::from_le_bytes).map(Iterator::collect);
    (if tensor.datatype() == Datatype::Int32 { narrow() } else { wide() }).unwrap_or_default()
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    let narrow = || tensor.numbers(|bytes| f64::from(f32::from_le_bytes(bytes))).map(Iterator::collect);
    let wide = || tensor.numbers(f64::from_le_bytes).map(Iterator::collect);
    (if tensor.datatype() == Datatype::Fp32 { narrow() } else { wide() }).unwrap_or_default()
}
