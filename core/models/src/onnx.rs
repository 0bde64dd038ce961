//! ONNX models: run by ONNX Runtime's library, as rows of numbers in the model's feature order.

use headrace_cpu::{Features, check_lengths, spread};
use headrace_onnx::{ElementType, Output, Session, Shape, Tensor, ValueInfo, ValueType};
use headrace_types::{Error, ErrorCode, Model, Objective, Result, Task};
use serde::Deserialize;

use crate::answers::Answers;
use crate::document::{corrupt, unsupported};
use crate::link::Link;
use crate::onnx_file;
use crate::runtimes::OnnxRuntime;
use crate::xgboost::OUTPUTS_MAX;

/// Rows from which on a batch is spread over threads.
const ROWS_PER_THREAD_MIN: usize = 256;
const FEATURES_MAX: usize = 1 << 20;
/// Rows that show which dimension of an output is theirs.
const PROBE_ROWS: usize = 3;

/// The manifest's settings of an ONNX model, all of them optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OnnxSettings {
    /// The output that holds the scores.
    output: Option<String>,
    answers: Option<Answers>,
}

/// An ONNX model over rows of numbers.
#[derive(Debug)]
pub struct OnnxModel {
    session: Session,
    inputs: Vec<Input>,
    features_count: usize,
    output: usize,
    outputs_count: usize,
    is_one_row: bool,
    link: Link,
    objective: Objective,
}

/// Neighbouring features that one input takes.
#[derive(Debug, Clone, Copy)]
struct Input {
    element: ElementType,
    start: usize,
    width: usize,
    /// Whether it takes `[N]` and not `[N, width]`.
    is_vector: bool,
}

impl OnnxModel {
    /// # Errors
    /// `unavailable` without the library; `corrupt_model` and `unsupported_model` naming what the file or its graph breaks.
    pub(crate) fn load(
        bytes: &[u8],
        settings: &OnnxSettings,
        task: Task,
        features_count: Option<usize>,
        runtime: &OnnxRuntime,
    ) -> Result<Self> {
        onnx_file::check(bytes)?;
        let session = Session::new(&runtime.open()?, bytes)?;
        let (inputs, is_one_row) = inputs_of(session.inputs(), features_count)?;
        let features_count = inputs.iter().map(|input| input.width).sum();
        let output = output_of(session.outputs(), settings.output.as_deref())?;
        let answers = settings.answers.unwrap_or(Answers::of_task(task));
        let (link, objective) = answers.link(task, 1);
        let mut model = Self { session, inputs, features_count, output, outputs_count: 0, is_one_row, link, objective };
        // A row of zeros tells how many outputs a row has, which a graph need not say, and some rows whether rows come first.
        model.outputs_count = model.outputs_of_rows(1)?;
        if !model.is_one_row && model.outputs_of_rows(PROBE_ROWS)? != model.outputs_count {
            return Err(unsupported("how many outputs a row has depends on the rows", "export one that does not"));
        }
        (model.link, model.objective) = answers.link(task, model.outputs_count);
        Ok(model)
    }

    /// Runs some rows of zeros, and counts the outputs that each gets.
    fn outputs_of_rows(&self, rows: usize) -> Result<usize> {
        let zeros = vec![0.0; rows * self.features_count];
        let tensors = self.columns(Features::Float64(&zeros), rows, &mut Vec::new());
        let found = self.session.run(&self.shaped(&tensors, rows), self.output, |_, shape| Ok(shape.to_vec()))?;
        outputs_of_shape(&found, rows).filter(|count| (1..=OUTPUTS_MAX).contains(count)).ok_or_else(|| {
            let name = &self.session.outputs()[self.output].name;
            let hint = "export it with [N], [N, 1] or [N, k], N being the rows, or name another output";
            unsupported(format!("output '{name}' has shape {found:?} for {rows} rows"), hint)
        })
    }

    /// As [`crate::NativeModel::margins_of`].
    pub(crate) fn margins_of(
        &self,
        features: Features<'_>,
        rows: usize,
        margins: &mut [f64],
        threads: usize,
    ) -> Result<()> {
        let (features_count, outputs_count) = (self.features_count, self.outputs_count);
        check_lengths(features_count, outputs_count, features.len(), rows, margins.len())?;
        let threads = threads.min(rows / ROWS_PER_THREAD_MIN);
        spread(features, features_count, margins, outputs_count, threads, 1, |features, margins| {
            self.run(features, margins.len() / outputs_count, margins)
        })
    }

    fn run(&self, features: Features<'_>, rows: usize, margins: &mut [f64]) -> Result<()> {
        if self.is_one_row {
            for row in 0..rows {
                let margins = &mut margins[row * self.outputs_count..][..self.outputs_count];
                let places = row * self.features_count..(row + 1) * self.features_count;
                self.run_batch(features.slice(places), 1, margins)?;
            }
            return Ok(());
        }
        if rows == 0 { Ok(()) } else { self.run_batch(features, rows, margins) }
    }

    fn run_batch(&self, features: Features<'_>, rows: usize, margins: &mut [f64]) -> Result<()> {
        let mut unfit = Vec::new();
        let tensors = self.columns(features, rows, &mut unfit);
        self.session.run(&self.shaped(&tensors, rows), self.output, |found, shape| {
            if outputs_of_shape(shape, rows) != Some(self.outputs_count) {
                return Err(Error::new(
                    ErrorCode::ModelFailed,
                    format!(
                        "the model gave an output of shape {shape:?}, for {rows} rows it is [{rows}, {}]",
                        self.outputs_count
                    ),
                    "export it with a free first dimension on all inputs and outputs",
                ));
            }
            match found {
                Output::Float32(values) => widen(values, margins),
                Output::Float64(values) => margins.copy_from_slice(values),
                Output::Int32(values) => widen(values, margins),
                #[allow(clippy::cast_precision_loss)] // scores; whole numbers beyond 2^53 are not
                Output::Int64(values) => {
                    margins.iter_mut().zip(values).for_each(|(margin, &value)| *margin = value as f64);
                }
            }
            Ok(())
        })?;
        for row in unfit {
            margins[row * self.outputs_count..][..self.outputs_count].fill(f64::NAN);
        }
        Ok(())
    }

    /// The features by input, in its type: the caller's own memory where that is one matrix of it. A row with a number that a whole-number
    /// input cannot hold goes to `unfit`.
    fn columns<'a>(&self, features: Features<'a>, rows: usize, unfit: &mut Vec<usize>) -> Vec<Columns<'a>> {
        if let [input] = self.inputs[..] {
            match (features, input.element) {
                (Features::Float32(values), ElementType::Float32) => return vec![Columns::Lent32(values)],
                (Features::Float64(values), ElementType::Float64) => return vec![Columns::Lent64(values)],
                #[allow(clippy::cast_possible_truncation)] // a float32 model rounds its features
                (Features::Float64(values), ElementType::Float32) => {
                    return vec![Columns::Float32(values.iter().map(|&value| value as f32).collect())];
                }
                _ => {}
            }
        }
        self.inputs.iter().map(|input| self.column(*input, features, rows, unfit)).collect()
    }

    fn column<'a>(&self, input: Input, features: Features<'_>, rows: usize, unfit: &mut Vec<usize>) -> Columns<'a> {
        let places = (0..rows).flat_map(|row| {
            let start = row * self.features_count + input.start;
            (start..start + input.width).map(move |place| (row, place))
        });
        let at = |place: usize| match features {
            Features::Float32(values) => f64::from(values[place]),
            Features::Float64(values) => values[place],
        };
        let mut whole = |row: usize, place: usize, min: f64, max: f64| {
            let value = at(place);
            let is_fit = value.fract() == 0.0 && (min..=max).contains(&value);
            if !is_fit && unfit.last() != Some(&row) {
                unfit.push(row);
            }
            if is_fit { value } else { 0.0 }
        };
        // Whole numbers from -2^53 to 2^53: those that a float64 can hold.
        const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
        #[allow(clippy::cast_possible_truncation)]
        match input.element {
            ElementType::Float64 => Columns::Float64(places.map(|(_, place)| at(place)).collect()),
            ElementType::Int64 => {
                Columns::Int64(places.map(|(row, place)| whole(row, place, -WHOLE_MAX, WHOLE_MAX) as i64).collect())
            }
            ElementType::Int32 => {
                let (min, max) = (f64::from(i32::MIN), f64::from(i32::MAX));
                Columns::Int32(places.map(|(row, place)| whole(row, place, min, max) as i32).collect())
            }
            ElementType::Bool => Columns::Bool(places.map(|(row, place)| whole(row, place, 0.0, 1.0) != 0.0).collect()),
            _ => Columns::Float32(places.map(|(_, place)| at(place) as f32).collect()),
        }
    }

    fn shaped<'a>(&self, columns: &'a [Columns<'_>], rows: usize) -> Vec<(Tensor<'a>, Shape)> {
        let shape =
            |input: &Input| if input.is_vector { Shape::vector(rows) } else { Shape::matrix(rows, input.width) };
        columns.iter().zip(&self.inputs).map(|(columns, input)| (columns.tensor(), shape(input))).collect()
    }
}

impl Model for OnnxModel {
    fn features_count(&self) -> usize {
        self.features_count
    }

    fn outputs_count(&self) -> usize {
        self.outputs_count
    }

    fn objective(&self) -> Objective {
        self.objective
    }

    fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.margins_of(Features::Float64(features), rows, margins, 1)
    }

    fn scores(&self, margins: &mut [f64]) {
        self.link.apply(margins, self.outputs_count);
    }
}

/// Features in an input's type.
#[derive(Debug)]
enum Columns<'a> {
    Lent32(&'a [f32]),
    Lent64(&'a [f64]),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Bool(Vec<bool>),
}

impl Columns<'_> {
    fn tensor(&self) -> Tensor<'_> {
        match self {
            Columns::Lent32(values) => Tensor::Float32(values),
            Columns::Lent64(values) => Tensor::Float64(values),
            Columns::Float32(values) => Tensor::Float32(values),
            Columns::Float64(values) => Tensor::Float64(values),
            Columns::Int32(values) => Tensor::Int32(values),
            Columns::Int64(values) => Tensor::Int64(values),
            Columns::Bool(values) => Tensor::Bool(values),
        }
    }
}

/// The outputs of a row, if the shape is `[rows]` or `[rows, outputs]`.
fn outputs_of_shape(shape: &[i64], rows: usize) -> Option<usize> {
    let is_of_rows = |&size: &i64| usize::try_from(size) == Ok(rows);
    match shape {
        [first] if is_of_rows(first) => Some(1),
        [first, outputs] if is_of_rows(first) => usize::try_from(*outputs).ok(),
        _ => None,
    }
}

fn widen<T: Copy + Into<f64>>(values: &[T], margins: &mut [f64]) {
    margins.iter_mut().zip(values).for_each(|(margin, &value)| *margin = value.into());
}

/// The inputs laid over the features in order, and whether the model takes one row at a time.
fn inputs_of(infos: &[ValueInfo], features_count: Option<usize>) -> Result<(Vec<Input>, bool)> {
    let mut inputs = Vec::new();
    let mut start = 0;
    let mut is_one_row = false;
    for info in infos {
        let name = &info.name;
        let ValueType::Tensor { element, shape } = &info.value_type else {
            return Err(unsupported(
                format!("input '{name}' is no tensor"),
                "export it with tensors of numbers as inputs",
            ));
        };
        if matches!(element, ElementType::String | ElementType::Other(_)) {
            return Err(unsupported(
                format!("input '{name}' takes {element}"),
                "a model takes float32, float64, int64, int32 or bool: encode the feature as a number before",
            ));
        }
        let wrong = || {
            let hint = "export it with inputs [N, features], N free: dynamic_axes or dynamic_shapes in torch, [None, n] in skl2onnx";
            unsupported(format!("input '{name}' has shape {shape:?}"), hint)
        };
        let (&rows, columns) = shape.split_first().ok_or_else(wrong)?;
        match rows {
            -1 => {}
            1 => is_one_row = true,
            _ => return Err(wrong()),
        }
        let width = match columns {
            [] => 1,
            [-1] if infos.len() == 1 => features_count.ok_or_else(wrong)?,
            [width] => usize::try_from(*width).ok().filter(|width| *width > 0).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        };
        inputs.push(Input { element: *element, start, width, is_vector: columns.is_empty() });
        start += width;
        if start > FEATURES_MAX {
            return Err(unsupported(format!("it takes more than {FEATURES_MAX} features"), "select features first"));
        }
    }
    if inputs.is_empty() {
        return Err(corrupt("it has no inputs"));
    }
    Ok((inputs, is_one_row))
}

/// The output that holds the scores: the named one, the only one of floats, or that of probabilities.
fn output_of(infos: &[ValueInfo], wanted: Option<&str>) -> Result<usize> {
    let names = || infos.iter().map(|info| format!("'{}'", info.name)).collect::<Vec<_>>().join(", ");
    let is_scores = |info: &ValueInfo| {
        matches!(
            &info.value_type,
            ValueType::Tensor { element: ElementType::Float32 | ElementType::Float64, shape } if shape.len() <= 2
        )
    };
    if let Some(wanted) = wanted {
        let place = infos
            .iter()
            .position(|info| info.name == wanted)
            .ok_or_else(|| unsupported(format!("it has no output '{wanted}'"), format!("name one of {}", names())))?;
        let is_numbers = |element: &ElementType| !matches!(element, ElementType::String | ElementType::Other(_));
        return match &infos[place].value_type {
            ValueType::Tensor { element, shape } if is_numbers(element) && shape.len() <= 2 => Ok(place),
            ValueType::Tensor { element, shape } => Err(unsupported(
                format!("output '{wanted}' is {element} of shape {shape:?}"),
                "name one of numbers [N, outputs]",
            )),
            _ => Err(zip_map(wanted)),
        };
    }
    let found: Vec<usize> = (0..infos.len()).filter(|&place| is_scores(&infos[place])).collect();
    if let [only] = found[..] {
        return Ok(only);
    }
    if let Some(info) = infos.iter().find(|info| matches!(info.value_type, ValueType::Sequence | ValueType::Map)) {
        return Err(zip_map(&info.name));
    }
    if found.is_empty() {
        return Err(unsupported(
            format!("none of its outputs {} is a matrix of float32 or float64", names()),
            "export the probabilities of a classifier, or the value of a regressor, as a tensor",
        ));
    }
    let named: Vec<usize> =
        found.into_iter().filter(|&place| infos[place].name.to_lowercase().contains("prob")).collect();
    if let [only] = named[..] {
        return Ok(only);
    }
    Err(unsupported(
        format!("which of its outputs {} holds the scores cannot be told", names()),
        "name it: export_onnx(.., output=\"NAME\")",
    ))
}

fn zip_map(name: &str) -> Error {
    unsupported(
        format!("output '{name}' is a sequence of maps"),
        "convert the model with zipmap=False: options={'zipmap': False} in skl2onnx and onnxmltools",
    )
}
