//! Working memory of a prediction, kept between requests so that a small one allocates little.

use std::sync::{Mutex, PoisonError};

use headrace_cpu::EncodedKeys;
use headrace_features::StoredColumns;
use headrace_types::FeatureStatus;

use crate::request::RowError;

/// Memory of a request with more rows than this goes back to the system.
const KEPT_ROWS_MAX: usize = 4096;
/// Memories kept for one model version; more threads at a time than this make their own.
const KEPT_COUNT_MAX: usize = 64;

/// A model's features in one of two precisions; both memories are kept.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    pub(crate) float64: Vec<f64>,
    pub(crate) float32: Vec<f32>,
    /// Which of them a request has filled.
    pub(crate) is_float32: bool,
}

impl Matrix {
    /// The features as float64, which leaves nothing here.
    pub(crate) fn take_float64(&mut self) -> Vec<f64> {
        if self.is_float32 {
            self.float32.iter().copied().map(f64::from).collect()
        } else {
            std::mem::take(&mut self.float64)
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Of the request that it works for.
    rows: usize,
    /// Row-major `[rows, features]`, what the model gets.
    pub(crate) matrix: Matrix,
    /// The canonical keys of the tables.
    pub(crate) keys: Vec<EncodedKeys>,
    pub(crate) stored: StoredColumns,
    pub(crate) expr: headrace_expr::Scratch,
    /// Row-major `[rows, margins]`.
    pub(crate) margins: Vec<f64>,
    /// Failed rows, in the order in which they were found; a row may be here twice.
    pub(crate) row_errors: Vec<RowError>,
}

impl Scratch {
    pub(crate) fn start(&mut self, rows: usize, margins: usize) {
        self.rows = rows;
        self.margins.clear();
        self.margins.resize(rows * margins, 0.0);
        self.row_errors.clear();
    }

    /// Room for so many features of float64, all of them missing, and where rows are noted that have no value for one.
    pub(crate) fn missing_float64(&mut self, values: usize) -> (&mut [f64], &mut Vec<RowError>) {
        let Matrix { float64, is_float32, .. } = &mut self.matrix;
        *is_float32 = false;
        float64.clear();
        float64.resize(values, f64::NAN);
        (float64, &mut self.row_errors)
    }

    /// What a lookup found of a stored feature in a row.
    pub(crate) fn stored_status(&self, row: usize, index: usize) -> FeatureStatus {
        let number = self.stored.status[row * self.stored.columns.len() + index];
        FeatureStatus::ALL.into_iter().find(|status| *status as u8 == number).unwrap_or(FeatureStatus::Invalid)
    }

    /// The failed rows in order, each with the first thing that was wrong in it.
    pub(crate) fn take_row_errors(&mut self) -> Vec<RowError> {
        let mut errors = std::mem::take(&mut self.row_errors);
        errors.sort_by_key(|error| error.row); // stable: the first found stays first
        errors.dedup_by_key(|error| error.row);
        errors
    }
}

/// A few scratches of one model version, handed out and back. The lock is held for a push or a pop only.
#[derive(Debug, Default)]
pub(crate) struct ScratchPool(Mutex<Vec<Scratch>>);

impl ScratchPool {
    pub(crate) fn take(&self) -> Scratch {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(crate) fn give(&self, scratch: Scratch) {
        if scratch.rows > KEPT_ROWS_MAX {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_COUNT_MAX {
            kept.push(scratch);
        }
    }
}
