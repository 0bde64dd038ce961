//! `Model`: a model version by itself, for checks, batch scoring and benchmarks.

use std::path::PathBuf;
use std::sync::OnceLock;

use headrace_models::{AnyModel, Features, LoadedModel, Manifest, ModelDraft, ModelFolder, ModelFormat};
use headrace_types::{Error, ErrorCode};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Outcome, detached, guarded};
use crate::fork::ForkGuard;
use crate::model_rows::{encoded, is_numeric};
use crate::runtimes::runtimes_of;
use crate::tensor::{Element, View};

/// Values from which on an evaluation lets other Python threads run: below, handing the lock over costs more than the work.
const DETACH_VALUES_MIN: usize = 4_096;

/// Values that one call may answer (16 GiB).
const VALUES_MAX: usize = 1 << 31;

/// Threads that this process may run at once. Asked once: the answer is read from several files.
fn cores() -> &'static usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// A loaded model, by itself.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct Model {
    model: AnyModel,
    manifest: Option<Manifest>,
    digest: Option<String>,
    fork: ForkGuard,
}

#[pymethods]
impl Model {
    /// Opens a version's folder: verifies its digests, loads the model, replays its golden rows. `runtimes` is as `headrace.runtimes` finds
    /// them.
    #[staticmethod]
    #[pyo3(signature = (path, runtimes=None))]
    fn open(py: Python<'_>, path: PathBuf, runtimes: Option<&Bound<'_, PyDict>>) -> Outcome<Self> {
        let runtimes = runtimes_of(py, runtimes)?;
        Ok(Self::of(detached(py, || ModelFolder::open_with(&path, &runtimes))?))
    }

    /// Makes the next version of a model from a draft (JSON), the model's file and further files (names in the folder, and paths).
    #[staticmethod]
    #[pyo3(signature = (models, name, draft, data, files=None, runtimes=None))]
    fn create(
        py: Python<'_>,
        models: PathBuf,
        name: &str,
        draft: &str,
        data: &[u8],
        files: Option<Vec<(String, PathBuf)>>,
        runtimes: Option<&Bound<'_, PyDict>>,
    ) -> Outcome<Self> {
        let runtimes = runtimes_of(py, runtimes)?;
        let files = files.unwrap_or_default();
        let create =
            || ModelFolder::create_with(&models, name, &ModelDraft::from_json(draft)?, data, &files, &runtimes);
        Ok(Self::of(detached(py, create)?))
    }

    /// Reads a model file by itself; it has no name, no signature and no golden rows.
    #[staticmethod]
    #[pyo3(signature = (format, data, task=None, settings=None, runtimes=None))]
    fn from_bytes(
        py: Python<'_>,
        format: &str,
        data: &[u8],
        task: Option<&str>,
        settings: Option<&str>,
        runtimes: Option<&Bound<'_, PyDict>>,
    ) -> Outcome<Self> {
        let runtimes = runtimes_of(py, runtimes)?;
        let load = || AnyModel::from_bytes(ModelFormat::from_name(format)?, data, task, settings, &runtimes);
        Ok(Self { model: detached(py, load)?, manifest: None, digest: None, fork: ForkGuard::new() })
    }

    #[getter]
    fn name(&self) -> Option<&str> {
        self.manifest.as_ref().map(|manifest| manifest.name.as_str())
    }

    #[getter]
    fn version(&self) -> Option<u32> {
        self.manifest.as_ref().map(|manifest| manifest.version)
    }

    #[getter]
    fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The manifest as JSON.
    #[getter]
    fn manifest(&self) -> Outcome<Option<String>> {
        let Some(manifest) = &self.manifest else { return Ok(None) };
        let text = serde_json::to_string(manifest).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Some(text))
    }

    #[getter]
    fn features_count(&self) -> usize {
        self.model.features_count()
    }

    /// Margins a row gets.
    #[getter]
    fn outputs_count(&self) -> usize {
        self.model.outputs_count()
    }

    /// The features that may be given as text, by their places.
    #[getter]
    fn text_features(&self) -> Vec<usize> {
        self.model.native().map_or_else(Vec::new, |model| model.text_inputs().collect())
    }

    /// The texts that a feature has codes for, in the order of their codes; None of one that takes numbers, and where the file knows only their
    /// hashes.
    fn categories(&self, feature: usize) -> Option<Vec<&str>> {
        self.model.vocabulary(feature)?.words()
    }

    /// The codes that stand for texts of a feature; None of one that takes numbers.
    fn codes(&self, feature: usize) -> Option<Vec<f64>> {
        Some(self.model.vocabulary(feature)?.codes())
    }

    /// The rows as the model computes with them, float64 `[rows, features]`: codes in the place of texts.
    fn encode<'py>(&self, x: &Bound<'py, PyAny>) -> Outcome<Bound<'py, PyAny>> {
        let py = x.py();
        let (owner, view) = self.matrix(x)?;
        let rows = if view.dimensions == 1 { 1 } else { view.shape.0 };
        let array = py.import("numpy")?.call_method1(intern!(py, "asarray"), (owner, intern!(py, "float64")))?;
        Ok(array.call_method1(intern!(py, "reshape"), (rows, self.model.features_count()))?)
    }

    /// Raw margins, float64 `[rows, outputs]`, of rows of float32 or float64 `[rows, features]`; NaN is a missing value. Where features are text:
    /// a frame, a dict of columns, or rows of objects.
    #[pyo3(signature = (x, threads=None))]
    fn margins<'py>(&self, x: &Bound<'py, PyAny>, threads: Option<usize>) -> Outcome<Bound<'py, PyArray2<f64>>> {
        self.margins_array(x, threads, false)
    }

    /// How much each feature adds to the margins: float64 `[rows, features + 1]`, or `[rows, outputs, features + 1]` of a model with several
    /// outputs; the last value is the expected margin.
    #[pyo3(signature = (x, threads=None))]
    fn contributions<'py>(&self, x: &Bound<'py, PyAny>, threads: Option<usize>) -> Outcome<Bound<'py, PyAny>> {
        self.model.check_explainable()?;
        let (outputs, width) = (self.model.outputs_count(), self.model.features_count() + 1);
        let (rows, values) = self.evaluate(x, threads, outputs * width, |features, rows, out, threads| {
            self.model.contributions_of(features, rows, out, threads)
        })?;
        if outputs == 1 {
            return Ok(values.reshape([rows, width])?.into_any());
        }
        Ok(values.reshape([rows, outputs, width])?.into_any())
    }

    /// Raises what `contributions` would, without any work.
    fn check_explainable(&self) -> Outcome<()> {
        Ok(self.model.check_explainable()?)
    }

    /// Memory that the compiled model takes.
    #[getter]
    fn bytes(&self) -> usize {
        self.model.bytes()
    }

    /// Memory that explanations take now.
    #[getter]
    fn explainer_bytes(&self) -> usize {
        self.model.explainer_bytes()
    }

    /// As `margins`, turned into scores.
    #[pyo3(signature = (x, threads=None))]
    fn scores<'py>(&self, x: &Bound<'py, PyAny>, threads: Option<usize>) -> Outcome<Bound<'py, PyArray2<f64>>> {
        self.margins_array(x, threads, true)
    }

    fn __repr__(&self) -> String {
        match &self.manifest {
            Some(manifest) => format!("Model({}/{})", manifest.name, manifest.version),
            None => format!("Model({} features)", self.model.features_count()),
        }
    }
}

impl Model {
    fn of(loaded: LoadedModel) -> Self {
        Self {
            model: loaded.model,
            manifest: Some(loaded.manifest),
            digest: Some(loaded.digest),
            fork: ForkGuard::new(),
        }
    }

    fn margins_array<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        threads: Option<usize>,
        as_scores: bool,
    ) -> Outcome<Bound<'py, PyArray2<f64>>> {
        let outputs = self.model.outputs_count();
        let (rows, margins) = self.evaluate(x, threads, outputs, |features, rows, out, threads| {
            self.model.margins_of(features, rows, out, threads)?;
            if as_scores {
                self.model.scores(out);
            }
            Ok(())
        })?;
        Ok(margins.reshape([rows, outputs])?)
    }

    /// The number of rows, and what `work` makes of them: `width` values a row.
    fn evaluate<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        threads: Option<usize>,
        width: usize,
        work: impl FnOnce(Features<'_>, usize, &mut [f64], usize) -> Result<(), Error> + Send,
    ) -> Outcome<(usize, Bound<'py, PyArray1<f64>>)> {
        self.fork.check("Model")?;
        let py = x.py();
        let (owner, view) = self.matrix(x)?;
        let rows = if view.dimensions == 1 { 1 } else { view.shape.0 };
        if rows.checked_mul(width).is_none_or(|values| values > VALUES_MAX) {
            let message = format!("{rows} rows of {width} values each are more than one call answers");
            return Err(Error::new(ErrorCode::TooLarge, message, "give fewer rows at a time").into());
        }
        let values = PyArray1::<f64>::zeros(py, rows * width, false);
        let threads = threads.unwrap_or_else(|| *cores()).max(1);
        {
            // SAFETY: `owner` keeps the array alive to the end of the call, and the element type is matched.
            let features = unsafe {
                match view.element {
                    Element::Float32 => Features::Float32(view.slice()),
                    _ => Features::Float64(view.slice()),
                }
            };
            // SAFETY: the array was made above, nobody else has seen it.
            let out = unsafe { values.as_slice_mut() }.map_err(|error| Error::internal(error.to_string()))?;
            let run = || work(features, rows, out, threads);
            // A function may loop: how long it takes cannot be told by the number of values.
            let is_short = view.len() < DETACH_VALUES_MIN && !self.model.takes_long();
            if is_short && !self.model.waits() { guarded(run) } else { detached(py, run) }?;
        }
        drop(owner);
        Ok((rows, values))
    }

    fn has_texts(&self) -> bool {
        self.model.native().is_some_and(|model| model.text_inputs().next().is_some())
    }

    /// The rows as a view, texts as their codes, and after a conversion by NumPy where they are neither float32 nor float64, not contiguous or not aligned.
    fn matrix<'py>(&self, x: &Bound<'py, PyAny>) -> Outcome<(Bound<'py, PyAny>, View)> {
        let is_fit = |view: &View| matches!(view.element, Element::Float32 | Element::Float64);
        let (owner, view) = match View::of("x", x) {
            Ok(view) if is_fit(&view) => (x.clone(), view),
            _ if self.has_texts() && !is_numeric(x) => {
                let names = self.manifest.as_ref().map(|manifest| &manifest.signature.features[..]);
                let encoded = encoded(&self.model, names, x)?.into_any();
                let view = View::of("x", &encoded)?;
                (encoded, view)
            }
            _ => {
                let py = x.py();
                let arguments = (x, intern!(py, "float64"), ["C", "A"]);
                let converted = py.import("numpy")?.call_method1(intern!(py, "require"), arguments)?;
                let view = View::of("x", &converted)?;
                (converted, view)
            }
        };
        let columns = if view.dimensions == 1 { view.shape.0 } else { view.shape.1 };
        if columns != self.model.features_count() {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("x has {columns} features a row, the model takes {}", self.model.features_count()),
                "give the features of the model's signature, in its order",
            )
            .into());
        }
        Ok((owner, view))
    }
}
