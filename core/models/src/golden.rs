use headrace_types::{DType, Error, ErrorCode, Field, Result};
use serde::{Deserialize, Serialize};

use crate::any::AnyModel;
use crate::document::corrupt;

/// Rows that one golden file may hold: they are replayed at every start.
const GOLDEN_ROWS_MAX: usize = 100_000;

/// Units in the last place by which a score may differ. In one environment scores agree to 1 (float32) or 2 (float64);
/// another platform's `exp` may add to that, and must not keep a sound model from being ready. Margins are the strict
/// gate.
const SCORE_ULPS_MAX: f64 = 8.0;

/// A feature of a golden row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GoldenValue {
    /// A missing value, of a number or of a text.
    Missing(()),
    Number(f64),
    /// Of an input that takes text.
    Text(String),
}

/// `golden.json`: rows with the margins and scores that the training library gave them. `null` is NaN, or a text that is not there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GoldenRows {
    pub features: Vec<Vec<GoldenValue>>,
    pub margins: Vec<Vec<Option<f64>>>,
    pub scores: Vec<Vec<Option<f64>>>,
}

impl GoldenRows {
    /// # Errors
    /// `corrupt_model` when it is not JSON of this shape.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))
    }

    /// Evaluates the rows and compares: margins bit for bit or within the bound that the README of this crate states for
    /// the family, scores within a few units in the last place. A model that is run by somebody else has a bound of its own, relative
    /// to the largest golden value of the same output.
    ///
    /// # Errors
    /// `golden_row_mismatch` naming the first row that differs; `corrupt_model` when the rows do not have the model's
    /// shape.
    pub fn replay(&self, model: &AnyModel) -> Result<()> {
        self.replay_of(model, &[])
    }

    /// As [`replay`](Self::replay), of a model with these features: none, or one for each input.
    ///
    /// # Errors
    /// As [`replay`](Self::replay), and `corrupt_model` naming a feature that is text in the rows and a number in the signature, or the
    /// other way round.
    pub(crate) fn replay_of(&self, model: &AnyModel, signature: &[Field]) -> Result<()> {
        let rows = self.features.len();
        if rows == 0 || rows > GOLDEN_ROWS_MAX {
            return Err(corrupt(format!("there are {rows} golden rows; 1 to {GOLDEN_ROWS_MAX} are needed")));
        }
        let outputs_count = model.outputs_count();
        let features = self.numbers(model, signature)?;
        let expected_margins = flat("margins", &self.margins, rows, outputs_count)?;
        let expected_scores = flat("scores", &self.scores, rows, outputs_count)?;
        let mut values = vec![0.0; rows * outputs_count];
        let mut tolerances = Vec::with_capacity(values.len());
        model.golden_margins(&features, rows, &mut values)?;
        let bounds = bounds(model, &expected_margins);
        for row in features.chunks_exact(model.features_count()) {
            let of_row = model.margin_tolerances(row)?;
            tolerances.extend(of_row.iter().zip(&bounds).map(|(tolerance, bound)| tolerance.max(*bound)));
        }
        for (index, (&value, &expected)) in values.iter().zip(&expected_margins).enumerate() {
            if !agree(value, expected, tolerances[index]) {
                return Err(mismatch("margin", index / outputs_count, index % outputs_count, value, expected));
            }
        }
        model.scores(&mut values);
        let bounds = self::bounds(model, &expected_scores);
        for (index, (&value, &expected)) in values.iter().zip(&expected_scores).enumerate() {
            // No link is steeper than 1, but the exponential one, whose slope is the score.
            let from_margin = tolerances[index] * expected.abs().max(1.0);
            let units = SCORE_ULPS_MAX * model.score_epsilon() * expected.abs() + from_margin;
            let tolerance = units.max(bounds[index % outputs_count]);
            if !agree(value, expected, tolerance) {
                return Err(mismatch("score", index / outputs_count, index % outputs_count, value, expected));
            }
        }
        Ok(())
    }
}

impl GoldenRows {
    /// The features as the model takes them, codes in the place of texts.
    fn numbers(&self, model: &AnyModel, signature: &[Field]) -> Result<Vec<f64>> {
        let width = model.features_count();
        let name =
            |input: usize| signature.get(input).map_or_else(|| input.to_string(), |field| format!("'{}'", field.name));
        let mut numbers = Vec::new();
        for (index, row) in self.features.iter().enumerate() {
            check_width("features", index, row.len(), width)?;
            for (input, value) in row.iter().enumerate() {
                if let Some(field) = signature.get(input) {
                    check_value(index, value, field)?;
                }
                let number = match (value, model.vocabulary(input)) {
                    (GoldenValue::Number(number), _) => Some(*number),
                    (GoldenValue::Missing(()), None) => Some(f64::NAN),
                    (GoldenValue::Missing(()), Some(vocabulary)) => vocabulary.code(None),
                    (GoldenValue::Text(text), Some(vocabulary)) => vocabulary.code(Some(text)),
                    (GoldenValue::Text(_), None) => {
                        let message =
                            format!("golden row {index} has text as feature {}, a number is taken", name(input));
                        return Err(corrupt(message));
                    }
                };
                let refused =
                    || corrupt(format!("golden row {index} has no category of the model as feature {}", name(input)));
                numbers.push(number.ok_or_else(refused)?);
            }
        }
        Ok(numbers)
    }
}

/// The engine gives a model texts where the signature has a string, and numbers elsewhere: rows of the other kind prove nothing about it.
fn check_value(row: usize, value: &GoldenValue, field: &Field) -> Result<()> {
    let is_text = match value {
        GoldenValue::Missing(()) => return Ok(()),
        GoldenValue::Number(_) => false,
        GoldenValue::Text(_) => true,
    };
    if is_text == (field.dtype == DType::STRING) {
        return Ok(());
    }
    let (given, hint) = if is_text {
        ("text", "declare the feature as a string, or export the model with golden rows of the numbers that are stored")
    } else {
        ("a number", "export the model with golden rows that hold the texts")
    };
    let message = format!("golden row {row} has {given} as feature '{}', which is a {}", field.name, field.dtype);
    Err(Error::new(ErrorCode::CorruptModel, message, hint))
}

/// By how much the values of each output may differ, whatever their row.
fn bounds(model: &AnyModel, expected: &[f64]) -> Vec<f64> {
    let outputs_count = model.outputs_count();
    let mut largest = vec![0.0; outputs_count];
    for (index, value) in expected.iter().enumerate().filter(|(_, value)| value.is_finite()) {
        largest[index % outputs_count] = f64::max(largest[index % outputs_count], value.abs());
    }
    largest.iter().map(|largest| largest * model.golden_bound()).collect()
}

fn agree(value: f64, expected: f64, tolerance: f64) -> bool {
    value == expected || (value.is_nan() && expected.is_nan()) || (value - expected).abs() <= tolerance
}

fn mismatch(what: &str, row: usize, output: usize, value: f64, expected: f64) -> Error {
    Error::new(
        ErrorCode::GoldenRowMismatch,
        format!("golden row {row}, output {output}: the {what} is {value:?}, the training library gave {expected:?}"),
        "export the model again; if it stays so, please report this kind of model with its library's version",
    )
}

fn flat(what: &str, rows: &[Vec<Option<f64>>], count: usize, width: usize) -> Result<Vec<f64>> {
    if rows.len() != count {
        return Err(corrupt(format!("golden '{what}' has {} rows, 'features' has {count}", rows.len())));
    }
    let mut values = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        check_width(what, index, row.len(), width)?;
        values.extend(row.iter().map(|value| value.unwrap_or(f64::NAN)));
    }
    Ok(values)
}

fn check_width(what: &str, index: usize, have: usize, width: usize) -> Result<()> {
    if have == width {
        return Ok(());
    }
    Err(corrupt(format!("row {index} of golden '{what}' has {have} values, the model {width}")))
}
