//! Functions of one row, written in Python: their source is the model's file, and whoever embeds the engine compiles it to native code.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use headrace_cpu::{Features, check_lengths, spread};
use headrace_types::{Error, ErrorCode, Field, Model, Objective, Result, ScalarFunction, Task};
use serde::Deserialize;
use serde_json::{Number, Value};

use crate::answers::Answers;
use crate::document::{corrupt, unsupported};
use crate::link::Link;
use crate::runtimes::FunctionCompiler;

/// The format of the file that this version writes and reads.
const FORMAT: u64 = 1;
const FILE_BYTES_MAX: usize = 1 << 20;
/// As the compiler has it: `SOURCE_BYTES_MAX` in `headrace/compiled_functions.py`.
const SOURCE_BYTES_MAX: usize = 16_384;
const NAME_CHARS_MAX: usize = 256;
/// Rows from which on a batch is spread over threads.
const ROWS_PER_THREAD_MIN: usize = 256;
/// Whole numbers from -2^53 to 2^53 are those that a float64 feature holds exactly.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The manifest's settings of a function, all of them optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FunctionSettings {
    answers: Option<Answers>,
}

/// `model.function.json`. The compiler reads the same text, and checks the source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionFile {
    #[allow(dead_code)] // read before the rest, so that a newer one is named
    format: u64,
    /// `module:name`, for messages.
    name: String,
    source: String,
    parameters: Vec<Parameter>,
    returns: Kind,
    /// Variables of its module.
    constants: BTreeMap<String, Constant>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameter {
    name: String,
    dtype: Kind,
    takes_null: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Int64,
    Float64,
    Bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[allow(dead_code)] // only that it is one of these
enum Constant {
    Bool(bool),
    Number(Number),
}

/// A function that is called for each row.
#[derive(Debug)]
pub struct FunctionModel {
    function: Arc<dyn ScalarFunction>,
    parameters: Vec<Parameter>,
    returns: Kind,
    link: Link,
    objective: Objective,
}

impl FunctionModel {
    /// Checks the file's form and has its source checked and compiled. `features` are the signature's, where there is one.
    ///
    /// # Errors
    /// `corrupt_model`, `newer_format`, `too_large`; `unavailable` without a compiler, and what that fails with.
    pub(crate) fn load(
        bytes: &[u8],
        settings: &FunctionSettings,
        task: Task,
        features: Option<&[Field]>,
        compiler: Option<&Arc<dyn FunctionCompiler>>,
    ) -> Result<Self> {
        if bytes.len() > FILE_BYTES_MAX {
            let message = format!("the file has {} bytes, {FILE_BYTES_MAX} are the limit", bytes.len());
            return Err(Error::new(ErrorCode::TooLarge, message, "write a smaller function"));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| corrupt(format!("not UTF-8: {error}")))?;
        let file = FunctionFile::read(text)?;
        if let Some(features) = features {
            file.check_features(features)?;
        }
        let compiler = compiler.ok_or_else(|| {
            let hint = "load it from Python with the extra headrace[numba], which compiles it";
            Error::new(ErrorCode::Unavailable, "a Python function needs a compiler, and none was given", hint)
        })?;
        let function = compiler.compile(text)?;
        let (link, objective) = settings.answers.unwrap_or(Answers::of_task(task)).link(task, 1);
        Ok(Self { function, parameters: file.parameters, returns: file.returns, link, objective })
    }

    /// As [`crate::NativeModel::margins_of`]. A row that the function has no value for gets NaN.
    pub(crate) fn margins_of(
        &self,
        features: Features<'_>,
        rows: usize,
        margins: &mut [f64],
        threads: usize,
    ) -> Result<()> {
        let width = self.parameters.len();
        check_lengths(width, 1, features.len(), rows, margins.len())?;
        let threads = threads.min(rows / ROWS_PER_THREAD_MIN);
        spread(features, width, margins, 1, threads, 1, |features, margins| {
            match features {
                Features::Float64(values) => self.run(values, margins),
                Features::Float32(values) => self.run(values, margins),
            }
            Ok(())
        })
    }

    fn run<T: Copy + Into<f64>>(&self, features: &[T], margins: &mut [f64]) {
        let mut words = vec![0; self.parameters.len()];
        let mut valid = vec![true; self.parameters.len()];
        for (row, margin) in features.chunks_exact(self.parameters.len()).zip(margins) {
            *margin = self.value(row, &mut words, &mut valid).unwrap_or(f64::NAN);
        }
    }

    /// The function's value for a row; none where a feature is missing or unfit for its parameter, or the function has none.
    fn value<T: Copy + Into<f64>>(&self, row: &[T], words: &mut [u64], valid: &mut [bool]) -> Option<f64> {
        for (place, (parameter, &feature)) in self.parameters.iter().zip(row).enumerate() {
            let feature: f64 = feature.into();
            valid[place] = !feature.is_nan();
            words[place] = if valid[place] { parameter.dtype.word(feature)? } else { 0 };
            if !valid[place] && !parameter.takes_null {
                return None;
            }
        }
        self.function.call(words, valid).map(|word| self.returns.number(word))
    }
}

impl FunctionFile {
    fn read(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|error| corrupt(format!("not JSON: {error}")))?;
        match value.get("format").and_then(Value::as_u64) {
            Some(FORMAT) => {}
            Some(format) if format > FORMAT => {
                return Err(Error::new(
                    ErrorCode::NewerFormat,
                    format!("the function's file has format {format}, this headrace reads up to {FORMAT}"),
                    "upgrade headrace, or export the function again with this version",
                ));
            }
            _ => return Err(corrupt(format!("'format' is not {FORMAT}"))),
        }
        let file: Self = serde_json::from_str(text).map_err(|error| corrupt(error.to_string()))?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<()> {
        let is_plain = |name: &str| {
            let chars = name.chars().count();
            let is_part = |character: char| character.is_alphanumeric() || "_.:".contains(character);
            (1..=NAME_CHARS_MAX).contains(&chars) && name.chars().all(is_part)
        };
        let names = [&self.name].into_iter().chain(self.parameters.iter().map(|parameter| &parameter.name));
        if let Some(odd) = names.chain(self.constants.keys()).find(|name| !is_plain(name)) {
            return Err(corrupt(format!(
                "'{}' is not a name",
                odd.chars().take(40).collect::<String>().escape_debug()
            )));
        }
        if self.source.len() > SOURCE_BYTES_MAX {
            return Err(corrupt(format!("the source has over {SOURCE_BYTES_MAX} bytes")));
        }
        if self.parameters.is_empty() {
            return Err(unsupported("the function has no parameters", "a model needs at least one feature"));
        }
        let mut seen = HashSet::new();
        match self.parameters.iter().find(|parameter| !seen.insert(&parameter.name)) {
            Some(twice) => Err(corrupt(format!("it has two parameters '{}'", twice.name))),
            None => Ok(()),
        }
    }

    /// The features of the signature are the parameters, in their order.
    fn check_features(&self, features: &[Field]) -> Result<()> {
        let mut pairs = self.parameters.iter().zip(features).enumerate();
        if let Some((place, (parameter, feature))) = pairs.find(|(_, (p, f))| p.name != f.name) {
            return Err(corrupt(format!(
                "feature {place} of the signature is '{}', the function's parameter there is '{}'",
                feature.name, parameter.name
            )));
        }
        Ok(())
    }
}

impl Kind {
    /// The bits by which the function takes a value; none if its type does not have that value.
    fn word(self, value: f64) -> Option<u64> {
        let is_whole = value.fract() == 0.0 && value.abs() <= WHOLE_MAX;
        #[allow(clippy::cast_possible_truncation)]
        match self {
            Kind::Float64 => Some(value.to_bits()),
            Kind::Int64 => is_whole.then_some((value as i64).cast_unsigned()),
            Kind::Bool => (value == 0.0 || value == 1.0).then_some(u64::from(value == 1.0)),
        }
    }

    fn number(self, word: u64) -> f64 {
        #[allow(clippy::cast_precision_loss)] // whole numbers beyond 2^53 are rounded, as Python's float() does
        match self {
            Kind::Float64 => f64::from_bits(word),
            Kind::Int64 => word.cast_signed() as f64,
            Kind::Bool => f64::from(u8::from(word != 0)),
        }
    }
}

impl Model for FunctionModel {
    fn features_count(&self) -> usize {
        self.parameters.len()
    }

    fn outputs_count(&self) -> usize {
        1
    }

    fn objective(&self) -> Objective {
        self.objective
    }

    /// A row's loops may take tenths of a second.
    fn takes_long(&self) -> bool {
        true
    }

    fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.margins_of(Features::Float64(features), rows, margins, 1)
    }

    fn scores(&self, margins: &mut [f64]) {
        self.link.apply(margins, 1);
    }
}
