use std::path::PathBuf;
use std::time::Duration;

use crate::layout::ColumnType;

/// What the workers of a model run, and within which bounds.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// How messages name the model.
    pub name: String,
    /// The Python program; it needs numpy and pyarrow, not headrace.
    pub python: PathBuf,
    /// `headrace/model_worker.py`.
    pub worker_file: PathBuf,
    /// The folder of the model's files.
    pub folder: PathBuf,
    pub module: String,
    pub class: String,
    /// Names and digests of the files that must be in the folder.
    pub files: Vec<(String, String)>,
    /// Names and types of the columns of a batch.
    pub columns: Vec<(String, ColumnType)>,
    /// Numbers a row gets.
    pub outputs_count: usize,
    /// Processes, each for one batch at a time.
    pub workers: usize,
    /// How long a batch may take from the moment that a worker has it; it may wait as long for a worker before.
    pub batch_deadline: Duration,
    /// How long a worker may take from its start until it is ready.
    pub start_deadline: Duration,
    /// A worker whose own memory has grown beyond this is replaced between two batches; 0 for no bound.
    pub memory_bytes_max: u64,
    /// The address space that the kernel gives a worker (`RLIMIT_AS`); 0 for no bound.
    pub address_bytes_max: u64,
    /// What a batch with its scores may take of shared memory; a larger one is run in parts.
    pub batch_bytes_max: usize,
    /// The whole environment of a worker.
    pub environment: Vec<(String, String)>,
}
