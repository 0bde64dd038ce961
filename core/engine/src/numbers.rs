//! Columns as a model takes them: one f64 each, NaN where there is none. A text becomes the code that the model has for it.

use headrace_expr::Output;
use headrace_types::{Column, ColumnData, Error, ErrorCode, Field, Model};

use crate::request::{RowError, RowErrors, shortened};

/// Where the values of a feature go: row `r` to `matrix[r * width + index]`.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) model: &'a dyn Model,
    pub(crate) field: &'a Field,
    pub(crate) index: usize,
    pub(crate) width: usize,
    pub(crate) matrix: &'a mut [f64],
    pub(crate) row_errors: &'a mut Vec<RowError>,
}

impl Target<'_> {
    pub(crate) fn take_column(&mut self, column: &Column) {
        match &column.data {
            ColumnData::String(texts) => self.take_texts(texts, column.validity.as_deref()),
            _ => copy_numbers(column, self.matrix, self.width, self.index),
        }
    }

    pub(crate) fn take_output(&mut self, output: &Output) {
        match &output.data {
            ColumnData::String(texts) => self.take_texts(texts, Some(&output.validity)),
            _ => copy_output(output, self.matrix, self.width, self.index),
        }
    }

    fn take_texts(&mut self, texts: &[String], validity: Option<&[bool]>) {
        let Some(vocabulary) = self.model.vocabulary(self.index) else { return }; // the matrix holds NaN from its start
        let mut refused = RowErrors::default();
        for (row, text) in texts.iter().enumerate() {
            let text = validity.is_none_or(|validity| validity[row]).then_some(text.as_str());
            match vocabulary.code(text) {
                Some(code) => self.matrix[row * self.width + self.index] = code,
                None => refused.note(row, || no_category(row, &self.field.name, text)),
            }
        }
        self.row_errors.extend(refused.into_vec());
    }
}

/// What is told of a text that the model's trainer answers with an error for.
pub fn no_category(row: usize, name: &str, text: Option<&str>) -> Error {
    let text = text.map_or_else(|| "null".to_owned(), |text| format!("'{}'", shortened(text)));
    Error::new(
        ErrorCode::InvalidArgument,
        format!("row {row} of '{name}': {text} is no category that the model was trained on"),
        "give one of its categories or leave the row out; scikit-learn's encoders take any with handle_unknown='ignore'",
    )
}

/// Writes a numeric column into one column of a row-major matrix: row `r` goes to `matrix[r * width + index]`.
/// A null becomes NaN, a bool 0 or 1, an integer the nearest float. Columns of other types become NaN.
fn copy_numbers(column: &Column, matrix: &mut [f64], width: usize, index: usize) {
    let cells = matrix.iter_mut().skip(index).step_by(width);
    macro_rules! copy {
        ($values:expr, $convert:expr) => {
            for (cell, &value) in cells.zip($values) {
                *cell = $convert(value);
            }
        };
    }
    #[allow(clippy::cast_precision_loss)] // the nearest float is what a model gets
    match &column.data {
        ColumnData::Bool(v) => copy!(v, |value| f64::from(u8::from(value))),
        ColumnData::Int8(v) => copy!(v, f64::from),
        ColumnData::Int16(v) => copy!(v, f64::from),
        ColumnData::Int32(v) => copy!(v, f64::from),
        ColumnData::Int64(v) => copy!(v, |value| value as f64),
        ColumnData::UInt8(v) => copy!(v, f64::from),
        ColumnData::UInt16(v) => copy!(v, f64::from),
        ColumnData::UInt32(v) => copy!(v, f64::from),
        ColumnData::UInt64(v) => copy!(v, |value| value as f64),
        ColumnData::Float32(v) => copy!(v, f64::from),
        ColumnData::Float64(v) => copy!(v, |value| value),
        ColumnData::Timestamp(_) | ColumnData::String(_) | ColumnData::Bytes(_) | ColumnData::List(..) => {
            cells.for_each(|cell| *cell = f64::NAN);
        }
    }
    if let Some(validity) = &column.validity {
        for (row, _) in validity.iter().enumerate().filter(|(_, valid)| !**valid) {
            matrix[row * width + index] = f64::NAN;
        }
    }
}

/// As [`copy_numbers`], from an output of expressions.
fn copy_output(output: &Output, matrix: &mut [f64], width: usize, index: usize) {
    for (row, cell) in matrix.iter_mut().skip(index).step_by(width).enumerate() {
        *cell = output.number(row);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use headrace_types::{DType, Unknown, Vocabulary};

    use super::*;
    use crate::testing::SumModel;

    #[test]
    fn texts_become_codes_and_refused_ones_fail_their_row() {
        let mut vocabulary = Vocabulary::of_words(["b", "a"]).unwrap();
        vocabulary.unknown = Unknown::Refused;
        let model = SumModel::identity(2).of_text(vocabulary);
        let field = Field::new("kind", DType::STRING);
        let (mut matrix, mut row_errors) = (vec![f64::NAN; 8], Vec::new());
        let mut target = Target {
            model: &model,
            field: &field,
            index: 0,
            width: 2,
            matrix: &mut matrix,
            row_errors: &mut row_errors,
        };
        let texts = ["a", "b", "c", "a"].map(str::to_owned).to_vec();
        let validity = vec![true, true, true, false];
        target.take_column(&Column { data: ColumnData::String(texts.clone()), validity: Some(validity.clone()) });
        target.take_output(&Output { data: ColumnData::String(texts), validity });
        assert_eq!((matrix[0], matrix[2]), (1.0, 0.0));
        assert!(matrix[4].is_nan() && matrix[6].is_nan() && matrix[1].is_nan());
        assert_eq!(row_errors.iter().map(|failed| failed.row).collect::<Vec<_>>(), [2, 2]);
        assert!(row_errors[0].error.message.contains("row 2 of 'kind': 'c' is no category"), "{}", row_errors[0].error);
    }

    #[test]
    fn each_row_lands_in_its_own_and_nulls_are_nan() {
        let mut matrix = vec![-1.0; 6];
        let column = Column { data: ColumnData::Int16(vec![5, 6, 7]), validity: Some(vec![true, false, true]) };
        copy_numbers(&column, &mut matrix, 2, 1);
        copy_numbers(&Column::new(ColumnData::Bool(vec![true, false, true])), &mut matrix, 2, 0);
        assert!(matrix[3].is_nan());
        matrix[3] = 0.0;
        assert_eq!(matrix, [1.0, 5.0, 0.0, 0.0, 1.0, 7.0]);
    }
}
