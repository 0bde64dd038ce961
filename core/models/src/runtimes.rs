//! What runs or compiles the models that headrace does not evaluate by itself, as the process that serves them says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headrace_onnx::Library;
use headrace_types::{Error, ErrorCode, Result, ScalarFunction};

/// What model formats that headrace does not run itself need. By default there is nothing.
#[derive(Debug, Clone, Default)]
pub struct Runtimes {
    pub onnx: OnnxRuntime,
    pub python: PythonRuntime,
    /// What compiles functions of rows; `None` where there is nothing that can.
    pub functions: Option<Arc<dyn FunctionCompiler>>,
}

/// Turns the source of a function into native code.
pub trait FunctionCompiler: std::fmt::Debug + Send + Sync {
    /// Checks and compiles the function of a model's file, whose form has been checked.
    ///
    /// # Errors
    /// `corrupt_model` naming what cannot be compiled; `unavailable` where the compiler is not installed.
    fn compile(&self, definition: &str) -> Result<Arc<dyn ScalarFunction>>;
}

/// The workers of Python classes.
#[derive(Debug, Clone, Default)]
pub struct PythonRuntime {
    /// The Python program; `None` where there is none.
    pub python: Option<PathBuf>,
    /// `headrace/model_worker.py`.
    pub worker_file: PathBuf,
    /// Processes for each model version.
    pub workers: usize,
    pub batch_deadline: Duration,
    pub start_deadline: Duration,
    /// What a worker's own memory may hold before it is replaced; 0 for no bound.
    pub memory_bytes_max: u64,
    /// The address space of a worker; 0 for no bound.
    pub address_bytes_max: u64,
    /// Shared memory of a worker for one batch.
    pub batch_bytes_max: usize,
    /// The whole environment of a worker.
    pub environment: Vec<(String, String)>,
}

/// ONNX Runtime's shared library.
#[derive(Debug, Clone, Default)]
pub struct OnnxRuntime {
    /// The file; `None` where none was found.
    pub library: Option<PathBuf>,
    /// Threads of the process's one pool, for all sessions together; 0 and 1 run a session on the thread that calls it.
    pub threads: usize,
}

impl OnnxRuntime {
    pub(crate) fn open(&self) -> Result<Arc<Library>> {
        let path = self.library.as_ref().ok_or_else(|| {
            Error::new(
                ErrorCode::Unavailable,
                "an ONNX model needs ONNX Runtime, and there is no wheel of it in this Python",
                "pip install onnxruntime, or give the path of libonnxruntime.so in HEADRACE_ONNXRUNTIME",
            )
        })?;
        Library::open(path, self.threads)
    }
}
