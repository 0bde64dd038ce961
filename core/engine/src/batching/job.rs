//! The rows of one request in the queue, which may be answered in several calls of the model.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headrace_types::{Error, Result};
use tokio::sync::oneshot;

use crate::request::{RowError, RowErrors};

/// What a request asks of the queue.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Row-major `[rows, features]`.
    pub(crate) features: Vec<f64>,
    pub(crate) rows: usize,
    pub(crate) arrived: Instant,
    pub(crate) deadline: Option<Instant>,
    /// Levels before the usual one; below zero behind it.
    pub(crate) priority: i32,
}

/// The margins of a request's rows, and what they took.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Row-major `[rows, outputs]`; NaN in a failed row.
    pub(crate) margins: Vec<f64>,
    /// The rows that the model failed on, not all of them.
    pub(crate) row_errors: Vec<RowError>,
    /// When its first call began.
    pub(crate) started: Instant,
    /// From there to the end of its last call.
    pub(crate) model: Duration,
    /// Its part of the calls' time, by rows.
    pub(crate) cost: Duration,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) ask: Ask,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    margins: Vec<f64>,
    rows_left: usize,
    row_errors: RowErrors,
    /// The first failure, which is the request's when no row has an answer.
    failure: Option<Error>,
    started: Option<Instant>,
    cost: Duration,
    /// None when it has been answered.
    caller: Option<oneshot::Sender<Result<Answered>>>,
}

impl Job {
    /// A job, and where its answer will come.
    pub(crate) fn new(ask: Ask, outputs: usize) -> (Self, oneshot::Receiver<Result<Answered>>) {
        let (caller, answer) = oneshot::channel();
        let state = State {
            margins: vec![f64::NAN; ask.rows * outputs],
            rows_left: ask.rows,
            row_errors: RowErrors::default(),
            failure: None,
            started: None,
            cost: Duration::ZERO,
            caller: Some(caller),
        };
        (Self { ask, state: Mutex::new(state) }, answer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits for the answer any more: the caller has gone, or the job has failed.
    pub(crate) fn is_forsaken(&self) -> bool {
        self.state().caller.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Ends the job with an error, unless it has ended.
    pub(crate) fn fail(&self, error: Error) {
        if let Some(caller) = self.state().caller.take() {
            // Who has gone needs no answer.
            drop(caller.send(Err(error)));
        }
    }

    /// Notes that a call with some of the rows begins.
    pub(crate) fn start(&self, now: Instant) {
        self.state().started.get_or_insert(now);
    }

    /// Takes the margins of some rows, or why they have none, and `cost`, their part of the call. Answers the caller with the last ones.
    pub(crate) fn take_rows(&self, rows: Range<usize>, margins: Result<&[f64], &Error>, cost: Duration, now: Instant) {
        let mut state = self.state();
        let outputs = state.margins.len() / self.ask.rows;
        state.cost += cost;
        state.rows_left -= rows.len();
        match margins {
            Ok(margins) => state.margins[rows.start * outputs..rows.end * outputs].copy_from_slice(margins),
            Err(error) => {
                for row in rows {
                    state.row_errors.note(row, || error.clone().within(format!("row {row}")));
                }
                state.failure.get_or_insert_with(|| error.clone());
            }
        }
        if state.rows_left > 0 {
            return;
        }
        let Some(caller) = state.caller.take() else { return };
        let started = state.started.unwrap_or(now);
        let answer = match state.failure.take() {
            Some(failure) if state.row_errors.len() == self.ask.rows => Err(failure),
            _ => Ok(Answered {
                margins: std::mem::take(&mut state.margins),
                row_errors: std::mem::take(&mut state.row_errors).into_vec(),
                started,
                model: now.saturating_duration_since(started),
                cost: state.cost,
            }),
        };
        drop(caller.send(answer));
    }
}
