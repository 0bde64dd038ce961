//! The threads that call a model for its queue.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode, Model, Result};
use tokio::sync::oneshot;

use super::job::{Answered, Ask, Job};
use super::queue::{Part, Queue, QueueLimits, Refusal, RefusalReason, Taken};

/// A thread without work ends after this; the next request starts one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A model of which a call takes longer than this, for one row, is better called from its queue, ...
const SLOW_CALL: Duration = Duration::from_micros(500);
/// ... until a call takes less than this again.
const QUICK_CALL: Duration = Duration::from_micros(250);
/// Calls outside the queue that took less say nothing that matters; those of quick models are not noted at all.
const NOTED_CALL: Duration = Duration::from_micros(100);
/// Calls that may be repeated to find the rows that a batch fails on.
const REPEATS_MAX: usize = 64;

/// How a model's queue is set up.
#[derive(Debug, Clone)]
pub(crate) struct BatcherOptions {
    pub(crate) limits: QueueLimits,
    /// Of a model that computes on this process's processors: the turns that all such models share.
    pub(crate) turns: Option<Arc<Turns>>,
}

/// The queue of one model and the threads that call it. Threads start as they are needed; dropping it lets them end what is queued.
#[derive(Debug)]
pub(crate) struct Batcher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: String,
    model: Arc<dyn Model>,
    options: BatcherOptions,
    state: Mutex<State>,
    /// There is work for an idle thread, or the queue is closed.
    work: Condvar,
    /// By what the model says of itself.
    always_queues: bool,
    /// By what was learned of its cost.
    is_slow: AtomicBool,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    threads: usize,
    idle: usize,
    is_closed: bool,
    refused: [u64; RefusalReason::ALL.len()],
    calls: u64,
}

/// What a queue has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Requests that wait.
    pub waiting: usize,
    /// Refused or dropped requests, in the order of [`RefusalReason::ALL`].
    pub refused: [u64; RefusalReason::ALL.len()],
    /// Calls of the model.
    pub calls: u64,
}

impl Batcher {
    pub(crate) fn new(name: &str, model: Arc<dyn Model>, options: BatcherOptions) -> Self {
        let state = State {
            queue: Queue::new(options.limits, Instant::now()),
            threads: 0,
            idle: 0,
            is_closed: false,
            refused: [0; RefusalReason::ALL.len()],
            calls: 0,
        };
        let (state, work, is_slow) = (Mutex::new(state), Condvar::new(), AtomicBool::new(false));
        let always_queues = model.waits() || model.takes_long();
        Self(Arc::new(Shared { name: name.to_owned(), model, options, state, work, always_queues, is_slow }))
    }

    /// Whether requests had better queue: a call waits for others, or is so long that its caller's other work should not stand behind it.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.0.always_queues || self.0.is_slow.load(Ordering::Relaxed)
    }

    /// Notes a call outside the queue.
    pub(crate) fn note_call(&self, rows: usize, took: Duration) {
        if took >= NOTED_CALL {
            self.0.learned(&mut self.0.state().queue, |queue| queue.observe(rows, took));
        }
    }

    /// Queues a request of at least one row; the receiver gets its margins.
    ///
    /// # Errors
    /// `unavailable` when it is refused, or when no thread can be started.
    pub(crate) fn enqueue(&self, ask: Ask) -> Result<oneshot::Receiver<Result<Answered>>> {
        let shared = &self.0;
        let (job, answer) = Job::new(ask, shared.model.outputs_count());
        let mut state = shared.state();
        state.queue.admit(&Arc::new(job), Instant::now()).map_err(|refusal| state.refuse(refusal, &shared.name))?;
        if state.idle > 0 {
            shared.work.notify_one();
        }
        // An idle thread takes one of those that wait; a busy one comes to the others, but later.
        if state.idle < state.queue.len() && state.threads < shared.options.limits.executors {
            let thread = thread::Builder::new().name("headrace-model".to_owned());
            let executor = Arc::clone(shared);
            match thread.spawn(move || executor.run()) {
                Ok(_) => state.threads += 1,
                // Threads that run already will come to it.
                Err(_) if state.threads > 0 => {}
                Err(error) => {
                    let hint = "raise the limit of processes and threads (`ulimit -u`)";
                    return Err(Error::new(ErrorCode::Unavailable, format!("no thread can be started: {error}"), hint));
                }
            }
        }
        Ok(answer)
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let state = self.0.state();
        QueueStats { waiting: state.queue.len(), refused: state.refused, calls: state.calls }
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.work.notify_all();
    }
}

impl State {
    fn refuse(&mut self, refusal: Refusal, model: &str) -> Error {
        self.refused[refusal.reason() as usize] += 1;
        refusal.error(model)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut memory = Memory::default();
        while self.wait_for_work() {
            // The batch is taken when it may run, so that it grows while it waits for its turn.
            let turn = self.options.turns.as_ref().map(|turns| turns.take());
            let (taken, number) = {
                let mut state = self.state();
                let now = Instant::now();
                let taken = state.queue.take(now);
                // What takes no rows is no call: who comes meanwhile is not behind it.
                let number = (taken.rows > 0).then(|| state.queue.begun(taken.rows, now));
                state.calls += u64::from(number.is_some());
                (taken, number)
            };
            let called = catch_unwind(AssertUnwindSafe(|| self.call(&taken, &mut memory)));
            let observed = called.unwrap_or_else(|_| {
                let error = Error::internal("a batch ended in a panic; the log has the place");
                taken.parts.iter().for_each(|part| part.job.fail(error.clone()));
                None
            });
            drop(turn);
            if let Some(number) = number {
                self.learned(&mut self.state().queue, |queue| queue.ended(number, observed));
            }
        }
    }

    /// Lets the queue learn, and looks what that changes.
    fn learned(&self, queue: &mut Queue, learn: impl FnOnce(&mut Queue)) {
        learn(queue);
        if let Some(call) = queue.expected_call() {
            let bound = if self.is_slow.load(Ordering::Relaxed) { QUICK_CALL } else { SLOW_CALL };
            self.is_slow.store(call >= bound, Ordering::Relaxed);
        }
    }

    /// Whether there is work; else this thread is off the books and ends.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state();
        let idle_until = Instant::now() + IDLE_TIMEOUT;
        loop {
            if !state.queue.is_empty() {
                return true;
            }
            let left = idle_until.saturating_duration_since(Instant::now());
            if state.is_closed || left.is_zero() {
                state.threads -= 1;
                return false;
            }
            state.idle += 1;
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
        }
    }

    /// Calls the model with what was taken and answers the callers. Tells rows and time of a call that went well.
    fn call(&self, taken: &Taken, memory: &mut Memory) -> Option<(usize, Duration)> {
        for (job, refusal) in &taken.dropped {
            job.fail(self.state().refuse(*refusal, &self.name));
        }
        let (parts, rows) = (&taken.parts, taken.rows);
        let began = Instant::now();
        let [first, others @ ..] = parts.as_slice() else { return None };
        parts.iter().for_each(|part| part.job.start(began));
        let width = self.model.features_count();
        let features = if others.is_empty() {
            &first.job.ask.features[first.rows.start * width..first.rows.end * width]
        } else {
            memory.features.clear();
            for Part { job, rows } in parts {
                memory.features.extend_from_slice(&job.ask.features[rows.start * width..rows.end * width]);
            }
            &memory.features
        };
        memory.margins.clear();
        memory.margins.resize(rows * self.model.outputs_count(), 0.0);
        let mut batch = Batch { model: &*self.model, parts, features, repeats_left: REPEATS_MAX };
        batch.run(0..rows, &mut memory.margins).then(|| (rows, began.elapsed()))
    }
}

/// Memory of a thread, kept between calls.
#[derive(Debug, Default)]
struct Memory {
    features: Vec<f64>,
    margins: Vec<f64>,
}

struct Batch<'a> {
    model: &'a dyn Model,
    parts: &'a [Part],
    /// Row-major, of all parts.
    features: &'a [f64],
    repeats_left: usize,
}

impl Batch<'_> {
    /// Runs some rows of the batch and answers them; when they fail, in halves, until the failing rows are alone or no repeat is left.
    /// Whether the first call went well.
    fn run(&mut self, rows: Range<usize>, margins: &mut [f64]) -> bool {
        let began = Instant::now();
        let (width, outputs) = (self.model.features_count(), self.model.outputs_count());
        let features = &self.features[rows.start * width..rows.end * width];
        let result = catch_unwind(AssertUnwindSafe(|| self.model.margins(features, rows.len(), margins)))
            .unwrap_or_else(|_| Err(Error::internal("the model panicked; the log has the place")));
        let now = Instant::now();
        let cost = now.saturating_duration_since(began);
        match result {
            Ok(()) => self.answer(rows, Ok(margins), cost, now),
            Err(error) if rows.len() == 1 || self.repeats_left < 2 || !is_of_rows(error.code) => {
                self.answer(rows, Err(&error), cost, now);
                return false;
            }
            Err(_) => {
                self.repeats_left -= 2;
                let middle = rows.start + rows.len() / 2;
                let (first, second) = margins.split_at_mut((middle - rows.start) * outputs);
                self.run(rows.start..middle, first);
                self.run(middle..rows.end, second);
                return false;
            }
        }
        true
    }

    fn answer(&self, rows: Range<usize>, margins: Result<&mut [f64], &Error>, cost: Duration, now: Instant) {
        let margins = margins.map(|margins| &*margins);
        let outputs = self.model.outputs_count();
        let share = cost / u32::try_from(rows.len()).unwrap_or(u32::MAX).max(1);
        let mut part_begin = 0;
        for part in self.parts {
            let part_end = part_begin + part.rows.len();
            let (begin, end) = (part_begin.max(rows.start), part_end.min(rows.end));
            if begin < end {
                let own = margins.map(|margins| &margins[(begin - rows.start) * outputs..(end - rows.start) * outputs]);
                let in_job = part.rows.start + begin - part_begin..part.rows.start + end - part_begin;
                let cost = share.saturating_mul(u32::try_from(in_job.len()).unwrap_or(u32::MAX));
                part.job.take_rows(in_job, own, cost, now);
            }
            part_begin = part_end;
        }
    }
}

/// Whether other rows may fare better after such an error.
fn is_of_rows(code: ErrorCode) -> bool {
    !matches!(code, ErrorCode::Unavailable | ErrorCode::UsedAfterFork)
}

/// As many calls at a time as there are processors for models that compute in this process.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Turns {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(count.max(1)), freed: Condvar::new() })
    }

    pub(crate) fn take(self: &Arc<Self>) -> Turn {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Turn(Arc::clone(self))
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
