//! What a pipeline does to a row before its estimator sees it, in float64, compiled to a flat plan: for each column that
//! comes out, the column that goes in and the operations between.
//!
//! Rows are prepared in blocks, one column after another, so that an operation is a loop over neighbouring values and
//! nothing is allocated for a row.

use headrace_cpu::Features;
use headrace_types::Result;
use serde::Deserialize;

use crate::document::{corrupt, unsupported};

/// Columns that rows may have.
const COLUMNS_MAX: usize = 1 << 16;
/// Stages that a preparation may have.
const STAGES_MAX: usize = 64;
/// Rows that are prepared together.
const BLOCK: usize = 64;

/// One step of a column. NaN is a missing value, and stays one unless it is said otherwise.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Operation {
    Add(f64),
    Subtract(f64),
    Multiply(f64),
    Divide(f64),
    /// Multiplies by a column of the stage before.
    Times(usize),
    /// Bounds, the lower one first.
    Clip(f64, f64),
    /// What takes the place of a missing value.
    Fill(f64),
    /// A value, and what takes its place.
    Replace(f64, f64),
    /// 1 for a missing value, else 0.
    IsMissing,
    /// 1 for a value in the list, else 0; null in the list is the missing value.
    IsAnyOf(Vec<Option<f64>>),
    /// 1 for a value that is not in the list, else 0.
    IsNoneOf(Vec<Option<f64>>),
    /// How many of these increasing edges are at most the value.
    Bin(Vec<f64>),
    Code(Codes),
    /// The Yeo-Johnson power transform of this parameter.
    YeoJohnson(f64),
    /// The Box-Cox power transform of this parameter.
    BoxCox(f64),
}

/// Numbers in the place of categories.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Codes {
    /// Increasing.
    values: Vec<f64>,
    /// One for each value; null is NaN.
    codes: Vec<Option<f64>>,
    missing: Option<f64>,
    unknown: Option<f64>,
}

/// A column that a stage gives.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Column {
    /// A column of the stage before, or of the model's features.
    from: usize,
    #[serde(default)]
    operations: Vec<Operation>,
}

/// What each row is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Norm {
    /// The sum of magnitudes.
    L1,
    /// The root of the sum of squares.
    L2,
    /// The largest magnitude.
    Max,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Stage {
    Columns(Vec<Column>),
    Normalize(Norm),
}

/// Stages that follow each other.
#[derive(Debug)]
pub(crate) struct Preparation {
    inputs_count: usize,
    outputs_count: usize,
    /// The widest row on the way.
    width_max: usize,
    stages: Vec<Stage>,
}

impl Preparation {
    /// # Errors
    /// `corrupt_model` naming the stage and what is wrong with it.
    pub(super) fn new(inputs_count: usize, stages: Vec<Stage>) -> Result<Self> {
        if stages.len() > STAGES_MAX {
            return Err(corrupt(format!("it has {} stages, at most {STAGES_MAX} are read", stages.len())));
        }
        let (mut width, mut width_max) = (inputs_count, inputs_count);
        for (index, stage) in stages.iter().enumerate() {
            let Stage::Columns(columns) = stage else { continue };
            check_columns(columns, width).map_err(|error| error.within(format!("stage {index}")))?;
            width = columns.len();
            width_max = width_max.max(width);
        }
        if width_max > COLUMNS_MAX || inputs_count == 0 {
            return Err(corrupt(format!("its rows have {width_max} columns; 1 to {COLUMNS_MAX} are read")));
        }
        Ok(Self { inputs_count, outputs_count: width, width_max, stages })
    }

    pub(crate) fn inputs_count(&self) -> usize {
        self.inputs_count
    }

    pub(crate) fn outputs_count(&self) -> usize {
        self.outputs_count
    }

    /// For each column that comes out, the feature that it is made of.
    ///
    /// # Errors
    /// `unsupported_model` naming a stage that makes a column of several features.
    pub(crate) fn sources(&self) -> Result<Vec<usize>> {
        let mut sources: Vec<usize> = (0..self.inputs_count).collect();
        for (index, stage) in self.stages.iter().enumerate() {
            let mixed = |what: &str| {
                unsupported(
                    format!(
                        "stage {index} of its preparation {what}, so contributions cannot be told apart by feature"
                    ),
                    "explain a pipeline whose columns are each made of one feature",
                )
            };
            let Stage::Columns(columns) = stage else { return Err(mixed("divides rows by their norm")) };
            let source = |column: &Column| {
                let source = sources[column.from];
                let is_mixed =
                    |operation: &Operation| matches!(operation, Operation::Times(other) if sources[*other] != source);
                if column.operations.iter().any(is_mixed) { Err(mixed("multiplies features")) } else { Ok(source) }
            };
            sources = columns.iter().map(source).collect::<Result<_>>()?;
        }
        Ok(sources)
    }

    /// Prepares `features`, rows of `inputs_count` values, a block of rows at a time, and hands each block's rows to
    /// `take`.
    ///
    /// # Errors
    /// Those of `take`.
    pub(crate) fn prepare(&self, features: Features<'_>, take: impl FnMut(&[f64], usize) -> Result<()>) -> Result<()> {
        match features {
            Features::Float32(values) => self.prepare_values(values, take),
            Features::Float64(values) => self.prepare_values(values, take),
        }
    }

    fn prepare_values<T: Copy + Into<f64>>(
        &self,
        features: &[T],
        mut take: impl FnMut(&[f64], usize) -> Result<()>,
    ) -> Result<()> {
        let rows = features.len() / self.inputs_count;
        let block = rows.min(BLOCK);
        let mut given = vec![0.0; block * self.width_max];
        let mut made = given.clone();
        for features in features.chunks(block.max(1) * self.inputs_count) {
            let rows = features.len() / self.inputs_count;
            for (value, &feature) in given.iter_mut().zip(features) {
                *value = feature.into();
            }
            let mut width = self.inputs_count;
            for stage in &self.stages {
                match stage {
                    Stage::Columns(columns) => {
                        for (index, column) in columns.iter().enumerate() {
                            column.run(&given, width, rows, &mut made[index..], columns.len());
                        }
                        width = columns.len();
                        std::mem::swap(&mut given, &mut made);
                    }
                    Stage::Normalize(norm) => {
                        given[..rows * width].chunks_exact_mut(width).for_each(|row| norm.divide(row));
                    }
                }
            }
            take(&given[..rows * width], rows)?;
        }
        Ok(())
    }
}

fn check_columns(columns: &[Column], width: usize) -> Result<()> {
    if columns.is_empty() {
        return Err(corrupt("it gives no columns"));
    }
    for (index, column) in columns.iter().enumerate() {
        if column.from >= width {
            return Err(corrupt(format!("column {index} is made from column {} of {width}", column.from)));
        }
        for operation in &column.operations {
            let is_sound = match operation {
                Operation::Clip(low, high) => low <= high,
                Operation::Times(other) => *other < width,
                Operation::Bin(edges) => edges.is_sorted(),
                Operation::Code(codes) => {
                    codes.values.is_sorted_by(|a, b| a < b) && codes.values.len() == codes.codes.len()
                }
                _ => true,
            };
            if !is_sound {
                return Err(corrupt(format!("column {index} has bounds, edges, codes or a column out of order")));
            }
        }
    }
    Ok(())
}

impl Column {
    /// Reads every `width`-th value of `given` and writes every `made_width`-th of `made`, `rows` of them.
    fn run(&self, given: &[f64], width: usize, rows: usize, made: &mut [f64], made_width: usize) {
        let mut values = [0.0; BLOCK];
        let values = &mut values[..rows];
        let column = |index: usize| given[index..].iter().step_by(width);
        for (value, &from) in values.iter_mut().zip(column(self.from)) {
            *value = from;
        }
        for operation in &self.operations {
            if let Operation::Times(other) = operation {
                values.iter_mut().zip(column(*other)).for_each(|(value, factor)| *value *= factor);
            } else {
                operation.run(values);
            }
        }
        for (to, &value) in made.iter_mut().step_by(made_width).zip(&*values) {
            *to = value;
        }
    }
}

impl Operation {
    /// What needs no other column.
    fn run(&self, values: &mut [f64]) {
        let each =
            |values: &mut [f64], one: &dyn Fn(f64) -> f64| values.iter_mut().for_each(|value| *value = one(*value));
        let flag = |is_set: bool| f64::from(u8::from(is_set));
        match self {
            Operation::Add(number) => values.iter_mut().for_each(|value| *value += number),
            Operation::Subtract(number) => values.iter_mut().for_each(|value| *value -= number),
            Operation::Multiply(number) => values.iter_mut().for_each(|value| *value *= number),
            Operation::Divide(number) => values.iter_mut().for_each(|value| *value /= number),
            Operation::Clip(low, high) => values.iter_mut().for_each(|value| *value = value.clamp(*low, *high)),
            Operation::Fill(number) => each(values, &|value| if value.is_nan() { *number } else { value }),
            Operation::Replace(from, to) => each(values, &|value| if value == *from { *to } else { value }),
            Operation::IsMissing => each(values, &|value| flag(value.is_nan())),
            Operation::IsAnyOf(list) => each(values, &|value| flag(holds(list, value))),
            Operation::IsNoneOf(list) => each(values, &|value| flag(!holds(list, value))),
            Operation::Bin(edges) => each(values, &|value| bin(edges, value)),
            Operation::Code(codes) => each(values, &|value| codes.of(value)),
            Operation::YeoJohnson(power) => each(values, &|value| yeo_johnson(value, *power)),
            Operation::BoxCox(power) => each(values, &|value| box_cox(value, *power)),
            Operation::Times(_) => {}
        }
    }
}

fn holds(list: &[Option<f64>], value: f64) -> bool {
    list.iter().any(|item| item.map_or(value.is_nan(), |item| item == value))
}

#[allow(clippy::cast_precision_loss)] // a number of edges
fn bin(edges: &[f64], value: f64) -> f64 {
    if value.is_nan() { value } else { edges.partition_point(|&edge| edge <= value) as f64 }
}

/// Powers nearer to their limit than this are taken for it, as scikit-learn does.
const POWER_EPSILON: f64 = f64::EPSILON;

/// Yeo and Johnson, "A new family of power transformations to improve normality or symmetry", Biometrika 87 (2000).
fn yeo_johnson(value: f64, power: f64) -> f64 {
    if value >= 0.0 {
        if power.abs() < POWER_EPSILON { value.ln_1p() } else { ((power * value.ln_1p()).exp_m1()) / power }
    } else if (power - 2.0).abs() < POWER_EPSILON {
        -(-value).ln_1p()
    } else {
        -((2.0 - power) * (-value).ln_1p()).exp_m1() / (2.0 - power)
    }
}

/// Box and Cox, "An analysis of transformations", Journal of the Royal Statistical Society B 26 (1964).
fn box_cox(value: f64, power: f64) -> f64 {
    if power.abs() < POWER_EPSILON { value.ln() } else { (power * value.ln()).exp_m1() / power }
}

impl Codes {
    fn of(&self, value: f64) -> f64 {
        let code = if value.is_nan() {
            self.missing
        } else {
            let at = self.values.partition_point(|&known| known < value);
            if self.values.get(at) == Some(&value) { self.codes[at] } else { self.unknown }
        };
        code.unwrap_or(f64::NAN)
    }
}

impl Norm {
    /// A row whose norm is next to nothing stays as it is.
    fn divide(self, row: &mut [f64]) {
        let norm = match self {
            Norm::L1 => row.iter().map(|value| value.abs()).sum(),
            Norm::L2 => row.iter().map(|value| value * value).sum::<f64>().sqrt(),
            Norm::Max => row.iter().fold(0.0, |max: f64, value| max.max(value.abs())),
        };
        let is_nothing = norm < 10.0 * f64::EPSILON;
        if !is_nothing {
            row.iter_mut().for_each(|value| *value /= norm);
        }
    }
}
