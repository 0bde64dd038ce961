//! The workers of a model: who is idle, and a thread that keeps as many alive as there shall be.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode, Result};

use crate::layout::Layout;
use crate::options::WorkerOptions;
use crate::output::say;
use crate::process::{Failure, Worker, kill_group};

/// How often idle and starting workers are looked at.
const IDLE_TICK: Duration = Duration::from_secs(1);
const START_TICK: Duration = Duration::from_millis(10);
/// A worker is started at once after a first failure, then after this and twice as long each time, up to the longest pause.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How much longer than a worker's start the start of the pool may take.
const START_GRACE: Duration = Duration::from_secs(5);
/// After so many starts that failed in a row, batches fail at once until a later start succeeds.
const START_FAILURES_MAX: u32 = 3;

/// The worker processes of one model. Dropping it ends them.
#[derive(Debug)]
pub struct WorkerPool {
    shared: Arc<Shared>,
    supervisor: Option<JoinHandle<()>>,
    rows_max: usize,
    owner: u32,
}

#[derive(Debug)]
struct Shared {
    options: WorkerOptions,
    state: Mutex<State>,
    /// A worker is ready, or a start has failed: for who starts the pool.
    started: Condvar,
    /// Something is missing or the pool stops: for the supervisor, which a batch that ends well does not wake.
    missing: Condvar,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Worker>,
    /// Process ids of the workers that run a batch.
    busy: Vec<i32>,
    starting: usize,
    /// Callers that wait for an idle worker, in their order; the first is told when there is one.
    waiting: VecDeque<Arc<Condvar>>,
    is_stopping: bool,
    /// Starts that failed since a worker last answered its first batch.
    start_failures: u32,
    /// Workers lost since the last batch that ended well.
    losses: u32,
    last_failure: Option<Error>,
    start_after: Option<Instant>,
}

impl State {
    fn live(&self) -> usize {
        self.idle.len() + self.busy.len() + self.starting
    }

    fn tell_first(&self) {
        if let (false, Some(first)) = (self.idle.is_empty(), self.waiting.front()) {
            first.notify_one();
        }
    }

    fn start_has_failed(&mut self, error: Error) {
        self.start_failures = self.start_failures.saturating_add(1);
        self.last_failure = Some(error);
        self.put_off();
        self.waiting.iter().for_each(|place| place.notify_one());
    }

    fn put_off(&mut self) {
        let failures = self.start_failures.max(self.losses);
        let pause = match failures {
            0 | 1 => Duration::ZERO,
            more => BACKOFF_FIRST.saturating_mul(1 << (more - 2).min(10)).min(BACKOFF_MAX),
        };
        self.start_after = Some(Instant::now() + pause);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: &str) {
        say(&format!("headrace: model {}", self.options.name), line);
    }
}

impl WorkerPool {
    /// Starts the workers, and returns when the first is ready.
    ///
    /// # Errors
    /// `model_failed` with the class's exception, `deadline_exceeded` when it takes too long, `unavailable` when Python cannot be started,
    /// `unsupported_model` without columns and when a single row does not fit into a batch.
    pub fn start(options: WorkerOptions) -> Result<Self> {
        if options.columns.is_empty() {
            let hint = "give the model at least one feature: a batch has the rows of its columns";
            return Err(Error::new(
                ErrorCode::UnsupportedModel,
                "a Python class needs features, and it has none",
                hint,
            ));
        }
        let rows_max = Layout::rows_max(&options.columns, options.outputs_count, options.batch_bytes_max);
        if rows_max == 0 || options.outputs_count == 0 {
            return Err(Error::new(
                ErrorCode::UnsupportedModel,
                format!("a row of {} features does not fit into a batch", options.columns.len()),
                "raise [models] batch_bytes_max",
            ));
        }
        let shared =
            Arc::new(Shared { options, state: Mutex::default(), started: Condvar::new(), missing: Condvar::new() });
        let supervised = Arc::clone(&shared);
        let supervisor = std::thread::Builder::new()
            .name("headrace-workers".into())
            .spawn(move || supervise(&supervised))
            .map_err(|error| unavailable(&format!("no thread for the workers: {error}")))?;
        let pool = Self { shared, supervisor: Some(supervisor), rows_max, owner: std::process::id() };
        {
            let limit = pool.shared.options.start_deadline.saturating_add(START_GRACE);
            let is_open = |state: &mut State| state.idle.is_empty() && state.start_failures == 0;
            let (state, _) = pool
                .shared
                .started
                .wait_timeout_while(pool.shared.state(), limit, is_open)
                .unwrap_or_else(PoisonError::into_inner);
            if state.idle.is_empty() {
                let failure = state.last_failure.clone();
                drop(state);
                let late =
                    || Error::new(ErrorCode::DeadlineExceeded, "no worker has started", "raise [models] start_seconds");
                return Err(failure.unwrap_or_else(late));
            }
        }
        Ok(pool)
    }

    /// Worker processes, and so batches at a time.
    pub fn workers(&self) -> usize {
        self.shared.options.workers
    }

    /// Scores of `rows` rows: row-major float64 `[rows, columns]` in, `[rows, outputs]` out. Callers run in parallel, one for each worker.
    ///
    /// # Errors
    /// `model_failed`, `deadline_exceeded`, `unavailable` while no worker can be started, `used_after_fork`.
    pub fn run(&self, features: &[f64], rows: usize, scores: &mut [f64]) -> Result<()> {
        self.run_within(self.shared.options.batch_deadline, features, rows, scores)
    }

    /// As [`run`](Self::run), for the first batch of all: it may import and compile, and has the time of a start as well.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_first(&self, features: &[f64], rows: usize, scores: &mut [f64]) -> Result<()> {
        let options = &self.shared.options;
        self.run_within(options.batch_deadline.saturating_add(options.start_deadline), features, rows, scores)
    }

    fn run_within(&self, limit: Duration, features: &[f64], rows: usize, scores: &mut [f64]) -> Result<()> {
        let options = &self.shared.options;
        if std::process::id() != self.owner {
            return Err(Error::new(
                ErrorCode::UsedAfterFork,
                "the workers of this model belong to the process before the fork",
                "open the model again in this process",
            ));
        }
        let (width, outputs) = (options.columns.len(), options.outputs_count);
        if Some(features.len()) != rows.checked_mul(width) || Some(scores.len()) != rows.checked_mul(outputs) {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("{rows} rows, {} features and {} scores do not fit", features.len(), scores.len()),
                "give whole rows",
            ));
        }
        let parts = features.chunks(self.rows_max * width).zip(scores.chunks_mut(self.rows_max * outputs));
        for (features, scores) in parts {
            self.run_part(limit, features, scores)?;
        }
        Ok(())
    }

    fn run_part(&self, limit: Duration, features: &[f64], scores: &mut [f64]) -> Result<()> {
        let wait_until = Instant::now() + limit;
        loop {
            let mut worker = self.take(wait_until, limit)?;
            // The batch has its whole time from here on: who got the worker late must not have it killed.
            let result = match worker.run(&self.shared.options, features, scores, limit) {
                Ok(()) => Ok(()),
                Err(Failure::Answered(error)) => Err(error),
                Err(Failure::Unsent) => {
                    let reason = (!worker.has_answered()).then(|| worker.lost_before_use());
                    self.lose(worker, reason);
                    continue;
                }
                Err(Failure::Lost(error)) => {
                    self.shared.say(&format!("worker {} is replaced: {}", worker.pid(), error.message));
                    self.lose(worker, None);
                    return Err(error);
                }
            };
            self.give_back(worker, result.is_ok());
            return result;
        }
    }

    /// An idle worker, waited for until the deadline behind those who wait already.
    fn take(&self, deadline: Instant, limit: Duration) -> Result<Worker> {
        let mut state = self.shared.state();
        if state.waiting.is_empty()
            && let Some(worker) = state.idle.pop()
        {
            state.busy.push(worker.pid());
            return Ok(worker);
        }
        let place = Arc::new(Condvar::new());
        state.waiting.push_back(Arc::clone(&place));
        let taken = loop {
            let is_first = state.waiting.front().is_some_and(|first| Arc::ptr_eq(first, &place));
            if is_first && let Some(worker) = state.idle.pop() {
                state.busy.push(worker.pid());
                break Ok(worker);
            }
            let is_broken =
                state.start_failures >= START_FAILURES_MAX && state.busy.is_empty() && state.idle.is_empty();
            if let (true, Some(failure)) = (is_broken, &state.last_failure) {
                let message = format!("no worker can be started: {}", failure.message);
                break Err(Error::new(ErrorCode::Unavailable, message, failure.hint.clone()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err(Error::new(
                    ErrorCode::DeadlineExceeded,
                    format!("no worker was free within {} s", limit.as_secs_f64()),
                    "send fewer requests at once, or raise [models] workers",
                ));
            }
            state = place.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting.retain(|other| !Arc::ptr_eq(other, &place));
        state.tell_first();
        taken
    }

    fn give_back(&self, mut worker: Worker, is_well: bool) {
        let bound = self.shared.options.memory_bytes_max;
        let has_grown = bound > 0 && worker.memory_if_due().is_some_and(|bytes| bytes > bound);
        if has_grown {
            self.shared.say(&format!("worker {} holds more than {bound} bytes and is replaced", worker.pid()));
        }
        let mut state = self.shared.state();
        state.busy.retain(|&pid| pid != worker.pid());
        state.start_failures = 0;
        if is_well {
            state.losses = 0;
        }
        if has_grown {
            drop(state);
            drop(worker);
            self.shared.missing.notify_one();
            return;
        }
        state.idle.push(worker);
        state.tell_first();
    }

    /// Ends a worker that is of no use. One that ended before it saw its first batch has a reason and counts as a start that failed, or
    /// such a class would be started for ever.
    fn lose(&self, worker: Worker, reason: Option<Error>) {
        let mut state = self.shared.state();
        state.busy.retain(|&pid| pid != worker.pid());
        if let Some(reason) = reason {
            state.start_has_failed(reason);
        }
        state.losses = state.losses.saturating_add(1);
        state.put_off();
        // If no worker is left, and none can be started, who waits is told so.
        state.waiting.iter().for_each(|place| place.notify_one());
        drop(state);
        drop(worker);
        self.shared.missing.notify_one();
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        if std::process::id() != self.owner {
            // A fork's copy: threads and processes are the parent's. The thread's handle is left as it is, and so is what it shares.
            std::mem::forget((self.supervisor.take(), Arc::clone(&self.shared)));
            return;
        }
        {
            let mut state = self.shared.state();
            state.is_stopping = true;
            state.busy.iter().for_each(|&pid| kill_group(pid));
        }
        self.shared.missing.notify_one();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

fn unavailable(message: &str) -> Error {
    Error::new(
        ErrorCode::Unavailable,
        message,
        "check [models] python in headrace.toml and the limits of processes and memory",
    )
}

/// Starts what is missing and looks at the idle, until the pool is dropped. Runs on the thread that all workers end with.
fn supervise(shared: &Shared) {
    let options = &shared.options;
    let mut starting: Vec<(Worker, Instant)> = Vec::new();
    loop {
        let missing = {
            let mut state = shared.state();
            if state.is_stopping {
                let idle = std::mem::take(&mut state.idle);
                drop(state);
                drop((idle, starting));
                return;
            }
            let is_time = state.start_after.is_none_or(|after| after <= Instant::now());
            let missing = if is_time { options.workers.saturating_sub(state.live()) } else { 0 };
            state.starting += missing;
            missing
        };
        for _ in 0..missing {
            match Worker::spawn(options) {
                Ok(worker) => starting.push((worker, Instant::now() + options.start_deadline)),
                Err(error) => {
                    let python = options.python.display();
                    start_failed(shared, unavailable(&format!("Python '{python}' cannot be started: {error}")));
                }
            }
        }
        let mut waiting = Vec::new();
        for (mut worker, deadline) in starting.drain(..) {
            if !worker.has_ended() && Instant::now() < deadline {
                waiting.push((worker, deadline));
                continue;
            }
            match worker.read_start_by(options, deadline).and_then(|()| rests_within(options, &mut worker)) {
                Ok(()) => {
                    let mut state = shared.state();
                    state.starting -= 1;
                    state.idle.push(worker);
                    state.tell_first();
                    drop(state);
                    shared.started.notify_all();
                }
                Err(error) => {
                    drop(worker);
                    start_failed(shared, error);
                }
            }
        }
        starting = waiting;
        look_at_idle(shared);
        let state = shared.state();
        if state.is_stopping {
            continue;
        }
        let mut pause = if starting.is_empty() { IDLE_TICK } else { START_TICK };
        if state.live() < options.workers {
            // At once if nothing is put off. The lock is held from here to the wait, so no worker goes unnoticed between.
            let put_off = state.start_after.map(|after| after.saturating_duration_since(Instant::now()));
            pause = pause.min(put_off.unwrap_or_default());
        }
        drop(shared.missing.wait_timeout(state, pause));
    }
}

fn start_failed(shared: &Shared, error: Error) {
    shared.say(&format!("a worker could not be started: {}", error.message));
    let mut state = shared.state();
    state.starting -= 1;
    state.start_has_failed(error);
    drop(state);
    shared.started.notify_all();
}

/// Refuses a worker that is too large before it has done anything: its successors would be, too.
fn rests_within(options: &WorkerOptions, worker: &mut Worker) -> Result<()> {
    let bound = options.memory_bytes_max;
    match worker.memory_bytes() {
        Some(bytes) if bound > 0 && bytes > bound => Err(too_large_at_rest(bytes, bound)),
        _ => Ok(()),
    }
}

fn too_large_at_rest(bytes: u64, bound: u64) -> Error {
    Error::new(
        ErrorCode::ModelFailed,
        format!("the worker holds {bytes} bytes before its first batch, and memory_bytes_max is {bound}"),
        "raise [models] memory_bytes_max above what the class needs at rest",
    )
}

/// Idle workers that have ended or grown too large are replaced.
fn look_at_idle(shared: &Shared) {
    let bound = shared.options.memory_bytes_max;
    let mut gone = Vec::new();
    let mut state = shared.state();
    let idle = std::mem::take(&mut state.idle);
    for mut worker in idle {
        let grown = worker.memory_if_due().filter(|&bytes| bound > 0 && bytes > bound);
        if grown.is_some() || worker.has_ended() { gone.push((worker, grown)) } else { state.idle.push(worker) }
    }
    drop(state);
    for (mut worker, grown) in gone {
        if worker.has_answered() {
            shared.say(&format!("worker {} has ended or grown too large while idle, and is replaced", worker.pid()));
            continue;
        }
        let error = grown.map_or_else(|| worker.lost_before_use(), |bytes| too_large_at_rest(bytes, bound));
        shared.say(&format!("worker {} is of no use: {}", worker.pid(), error.message));
        shared.state().start_has_failed(error);
        shared.started.notify_all();
    }
}
