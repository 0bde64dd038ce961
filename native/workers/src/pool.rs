//! The workers of a model: who is idle, and a thread that keeps as many alive as there shall be.

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
    /// A worker is idle, or a start has failed: for who waits for one.
    freed: Condvar,
    /// Something is missing or the pool stops: for the supervisor, which a batch that ends well does not wake.
    missing: Condvar,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Worker>,
    /// Process ids of the workers that run a batch.
    busy: Vec<i32>,
    starting: usize,
    /// Callers that wait for an idle worker.
    waiting: usize,
    is_stopping: bool,
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
    /// `unsupported_model` when a single row does not fit into a batch.
    pub fn start(options: WorkerOptions) -> Result<Self> {
        let rows_max = Layout::rows_max(&options.columns, options.outputs_count, options.batch_bytes_max);
        if rows_max == 0 || options.outputs_count == 0 {
            return Err(Error::new(
                ErrorCode::UnsupportedModel,
                format!("a row of {} features does not fit into a batch", options.columns.len()),
                "raise [models] batch_bytes_max",
            ));
        }
        let shared =
            Arc::new(Shared { options, state: Mutex::default(), freed: Condvar::new(), missing: Condvar::new() });
        let supervised = Arc::clone(&shared);
        let supervisor = std::thread::Builder::new()
            .name("headrace-workers".into())
            .spawn(move || supervise(&supervised))
            .map_err(|error| unavailable(&format!("no thread for the workers: {error}")))?;
        let pool = Self { shared, supervisor: Some(supervisor), rows_max, owner: std::process::id() };
        {
            let mut state = pool.shared.state();
            while state.idle.is_empty() && state.start_failures == 0 {
                state = pool.shared.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.idle.is_empty() {
                let failure = state.last_failure.clone();
                drop(state);
                return Err(failure.unwrap_or_else(|| Error::internal("a worker failed without a reason")));
            }
        }
        Ok(pool)
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
        let deadline = Instant::now() + limit;
        loop {
            let mut worker = self.take(deadline)?;
            let outcome = worker.run(&self.shared.options, features, scores, deadline);
            let result = match outcome {
                Ok(()) => Ok(()),
                Err(Failure::Answered(error)) => Err(error),
                Err(Failure::Unsent) => {
                    self.lose(worker);
                    continue;
                }
                Err(Failure::Lost(error)) => {
                    self.shared.say(&format!("worker {} is replaced: {}", worker.pid(), error.message));
                    self.lose(worker);
                    return Err(error);
                }
            };
            self.give_back(worker, result.is_ok());
            return result;
        }
    }

    /// An idle worker, waited for until the deadline.
    fn take(&self, deadline: Instant) -> Result<Worker> {
        let mut state = self.shared.state();
        loop {
            if let Some(worker) = state.idle.pop() {
                state.busy.push(worker.pid());
                return Ok(worker);
            }
            let is_broken = state.start_failures >= START_FAILURES_MAX && state.busy.is_empty();
            if let (true, Some(failure)) = (is_broken, &state.last_failure) {
                let message = format!("no worker can be started: {}", failure.message);
                return Err(Error::new(ErrorCode::Unavailable, message, failure.hint.clone()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(
                    ErrorCode::DeadlineExceeded,
                    format!("no worker was free within {} s", self.shared.options.batch_deadline.as_secs_f64()),
                    "send fewer requests at once, or raise [models] workers",
                ));
            }
            state.waiting += 1;
            state = self.shared.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }

    fn give_back(&self, mut worker: Worker, is_well: bool) {
        let bound = self.shared.options.memory_bytes_max;
        if bound > 0 && worker.memory_if_due().is_some_and(|bytes| bytes > bound) {
            self.shared.say(&format!("worker {} holds more than {bound} bytes and is replaced", worker.pid()));
            let mut state = self.shared.state();
            state.busy.retain(|&pid| pid != worker.pid());
            drop(state);
            drop(worker);
            self.shared.missing.notify_one();
            return;
        }
        let mut state = self.shared.state();
        state.busy.retain(|&pid| pid != worker.pid());
        if is_well {
            state.losses = 0;
        }
        if !state.is_stopping {
            state.idle.push(worker);
        }
        let is_waited_for = state.waiting > 0;
        drop(state);
        if is_waited_for {
            self.shared.freed.notify_one();
        }
    }

    fn lose(&self, worker: Worker) {
        let mut state = self.shared.state();
        state.busy.retain(|&pid| pid != worker.pid());
        state.losses = state.losses.saturating_add(1);
        state.put_off();
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
            match worker.read_start_by(options, deadline) {
                Ok(()) => {
                    let mut state = shared.state();
                    state.starting -= 1;
                    state.start_failures = 0;
                    state.idle.push(worker);
                    drop(state);
                    shared.freed.notify_all();
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
        if let (true, Some(after)) = (state.live() < options.workers, state.start_after) {
            pause = pause.min(after.saturating_duration_since(Instant::now()));
        }
        drop(shared.missing.wait_timeout(state, pause));
    }
}

fn start_failed(shared: &Shared, error: Error) {
    shared.say(&format!("a worker could not be started: {}", error.message));
    let mut state = shared.state();
    state.starting -= 1;
    state.start_failures = state.start_failures.saturating_add(1);
    state.last_failure = Some(error);
    state.put_off();
    drop(state);
    shared.freed.notify_all();
}

/// Idle workers that have ended or grown too large are replaced.
fn look_at_idle(shared: &Shared) {
    let bound = shared.options.memory_bytes_max;
    let mut gone = Vec::new();
    let mut state = shared.state();
    let idle = std::mem::take(&mut state.idle);
    for mut worker in idle {
        let has_grown = bound > 0 && worker.memory_if_due().is_some_and(|bytes| bytes > bound);
        if has_grown || worker.has_ended() { gone.push(worker) } else { state.idle.push(worker) }
    }
    drop(state);
    for worker in gone {
        shared.say(&format!("worker {} has ended or grown too large while idle, and is replaced", worker.pid()));
    }
}
