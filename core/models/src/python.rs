//! Python classes: run by worker processes, over batches with the columns of the signature.

use std::path::Path;

use headrace_cpu::Features;
use headrace_types::{Error, ErrorCode, Field, Model, Objective, Result, ScalarType, Task};
use headrace_workers::{ColumnType, WorkerOptions, WorkerPool};
use serde::Deserialize;

use crate::answers::Answers;
use crate::document::{corrupt, unsupported};
use crate::link::Link;
use crate::manifest::ModelFile;
use crate::runtimes::PythonRuntime;
use crate::xgboost::OUTPUTS_MAX;

/// The manifest's settings of a Python class.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PythonSettings {
    /// The module of the class: the model's file without `.py`.
    module: String,
    class: String,
    /// Numbers that a row gets.
    outputs: usize,
    #[serde(default)]
    answers: Option<Answers>,
    /// What golden values may be off, relative to the largest of their output.
    #[serde(default)]
    tolerance: f64,
}

/// A Python class in worker processes.
#[derive(Debug)]
pub struct PythonModel {
    pool: WorkerPool,
    features_count: usize,
    outputs_count: usize,
    link: Link,
    objective: Objective,
    pub(crate) tolerance: f64,
}

impl PythonModel {
    /// Starts the workers over files whose digests have been verified.
    ///
    /// # Errors
    /// `corrupt_model` for settings that are none, `unavailable` without Python, and what [`WorkerPool::start`] fails with.
    pub(crate) fn start(
        name: &str,
        folder: &Path,
        file: &ModelFile,
        settings: &PythonSettings,
        task: Task,
        features: &[Field],
        runtime: &PythonRuntime,
    ) -> Result<Self> {
        if file.file != format!("{}.py", settings.module) {
            return Err(corrupt(format!("the model's file is '{}', its module '{}'", file.file, settings.module)));
        }
        let is_bound = settings.tolerance.is_finite() && settings.tolerance >= 0.0;
        if settings.outputs == 0 || settings.outputs > OUTPUTS_MAX || !is_bound {
            return Err(corrupt("'settings' holds outputs or a tolerance out of range"));
        }
        let python = runtime.python.clone().ok_or_else(|| {
            let hint = "load it from Python, which runs its workers";
            Error::new(ErrorCode::Unavailable, "a Python class needs a Python program, and none was given", hint)
        })?;
        let files = std::iter::once((file.file.clone(), file.digest.clone()))
            .chain(file.files.iter().map(|file| (file.file.clone(), file.digest.clone())))
            .collect();
        let columns = features.iter().map(column).collect::<Result<_>>()?;
        let pool = WorkerPool::start(WorkerOptions {
            name: name.to_owned(),
            python,
            worker_file: runtime.worker_file.clone(),
            folder: folder.canonicalize()?,
            module: settings.module.clone(),
            class: settings.class.clone(),
            files,
            columns,
            outputs_count: settings.outputs,
            workers: runtime.workers.max(1),
            batch_deadline: runtime.batch_deadline,
            start_deadline: runtime.start_deadline,
            memory_bytes_max: runtime.memory_bytes_max,
            address_bytes_max: runtime.address_bytes_max,
            batch_bytes_max: runtime.batch_bytes_max,
            environment: runtime.environment.clone(),
        })?;
        let answers = settings.answers.unwrap_or(Answers::of_task(task));
        let (link, objective) = answers.link(task, settings.outputs);
        let (features_count, outputs_count) = (features.len(), settings.outputs);
        Ok(Self { pool, features_count, outputs_count, link, objective, tolerance: settings.tolerance })
    }

    /// Margins of the first rows, which may take as long as a start.
    pub(crate) fn first_margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.pool.run_first(features, rows, margins)
    }

    pub(crate) fn margins_of(&self, features: Features<'_>, rows: usize, margins: &mut [f64]) -> Result<()> {
        match features {
            Features::Float64(values) => self.pool.run(values, rows, margins),
            Features::Float32(values) => {
                let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
                self.pool.run(&values, rows, margins)
            }
        }
    }
}

impl Model for PythonModel {
    fn features_count(&self) -> usize {
        self.features_count
    }

    fn outputs_count(&self) -> usize {
        self.outputs_count
    }

    fn objective(&self) -> Objective {
        self.objective
    }

    fn waits(&self) -> bool {
        true
    }

    fn calls_at_a_time(&self) -> usize {
        self.pool.workers()
    }

    fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.margins_of(Features::Float64(features), rows, margins)
    }

    fn scores(&self, margins: &mut [f64]) {
        self.link.apply(margins, self.outputs_count);
    }
}

fn column(field: &Field) -> Result<(String, ColumnType)> {
    let column = match field.dtype.element() {
        _ if field.dtype.is_list() => None,
        ScalarType::Bool => Some(ColumnType::Bool),
        ScalarType::Int8 => Some(ColumnType::Int8),
        ScalarType::Int16 => Some(ColumnType::Int16),
        ScalarType::Int32 => Some(ColumnType::Int32),
        ScalarType::Int64 => Some(ColumnType::Int64),
        ScalarType::UInt8 => Some(ColumnType::UInt8),
        ScalarType::UInt16 => Some(ColumnType::UInt16),
        ScalarType::UInt32 => Some(ColumnType::UInt32),
        ScalarType::UInt64 => Some(ColumnType::UInt64),
        ScalarType::Float32 => Some(ColumnType::Float32),
        ScalarType::Float64 => Some(ColumnType::Float64),
        ScalarType::String | ScalarType::Bytes | ScalarType::Timestamp => None,
    };
    let refused = || {
        let message = format!("feature '{}' is a {}, a batch has columns of numbers", field.name, field.dtype);
        unsupported(message, "encode it as a number in an on-demand feature view")
    };
    column.map(|column| (field.name.clone(), column)).ok_or_else(refused)
}
