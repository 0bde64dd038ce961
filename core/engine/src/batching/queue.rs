//! Who is next, who is refused, and how much goes into a batch. No threads and no clock here: times come from the caller.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode};

use super::cost::CostModel;
use super::job::Job;

/// Rows of a batch when nothing limits them by time: a request of more is cut, so that others come in between.
const BATCH_ROWS_MAX: usize = 16_384;

#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// How long a request shall take at most, from its arrival to its answer.
    pub(crate) objective: Duration,
    /// Requests that wait.
    pub(crate) requests_max: usize,
    /// Calls of the model at a time.
    pub(crate) executors: usize,
}

/// Why a request is not taken into the queue, or is dropped from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many requests wait as may.
    Full { waiting: usize },
    /// It would end too late, by prediction.
    Late { wait: Duration, bound: Duration, has_deadline: bool },
    /// Its deadline passed in the queue.
    Expired { waited: Duration },
    /// Its caller has gone.
    Gone,
}

impl Refusal {
    /// The refusal in the words of its reason, as metrics count it.
    pub(crate) fn reason(self) -> RefusalReason {
        match self {
            Refusal::Full { .. } => RefusalReason::Full,
            Refusal::Late { .. } => RefusalReason::Late,
            Refusal::Expired { .. } => RefusalReason::Expired,
            Refusal::Gone => RefusalReason::Gone,
        }
    }

    pub(crate) fn error(self, model: &str) -> Error {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        match self {
            Refusal::Full { waiting } => Error::new(
                ErrorCode::Unavailable,
                format!("model '{model}' is overloaded: {waiting} requests wait for it"),
                "try again in a second, or serve it with more workers",
            ),
            Refusal::Late { wait, bound, has_deadline } => Error::new(
                ErrorCode::Unavailable,
                format!(
                    "model '{model}' is overloaded: an answer would take {}, {} are left of the {}",
                    ms(wait),
                    ms(bound),
                    if has_deadline { "request's deadline" } else { "model's latency objective" }
                ),
                "try again in a second, or allow more time",
            ),
            Refusal::Expired { waited } => Error::new(
                ErrorCode::DeadlineExceeded,
                format!("the request's deadline passed while it waited {} for model '{model}'", ms(waited)),
                "allow more time, or send fewer requests at once",
            ),
            Refusal::Gone => Error::new(ErrorCode::Cancelled, "the caller has gone", ""),
        }
    }
}

/// What metrics count refusals by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum RefusalReason {
    Full,
    Late,
    Expired,
    Gone,
}

impl RefusalReason {
    pub const ALL: [RefusalReason; 4] =
        [RefusalReason::Full, RefusalReason::Late, RefusalReason::Expired, RefusalReason::Gone];

    pub fn name(self) -> &'static str {
        match self {
            RefusalReason::Full => "full",
            RefusalReason::Late => "late",
            RefusalReason::Expired => "expired",
            RefusalReason::Gone => "gone",
        }
    }
}

/// How often a refusal looks for callers that have gone.
const GONE_PAUSE: Duration = Duration::from_millis(5);

/// Nanoseconds from the queue's birth to when the request is due, then the order of arrival.
type Key = (i128, u64);

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    /// The first row that no call has taken.
    next_row: usize,
}

impl Entry {
    fn rows(&self) -> usize {
        self.job.ask.rows - self.next_row
    }
}

/// Rows of one request in a batch.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) job: Arc<Job>,
    pub(crate) rows: Range<usize>,
}

/// What an executor takes from the queue.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// A batch; none when nothing waits.
    pub(crate) parts: Vec<Part>,
    pub(crate) rows: usize,
    /// Requests whose turn came too late.
    pub(crate) dropped: Vec<(Arc<Job>, Refusal)>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    born: Instant,
    entries: BTreeMap<Key, Entry>,
    rows: usize,
    next_number: u64,
    cost: CostModel,
    /// When the calls that run are expected to end.
    running: Vec<(u64, Instant)>,
    /// Requests whose callers had gone when room was needed; the next call reports them.
    gone: Vec<Arc<Job>>,
    looked_for_gone: Instant,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits, now: Instant) -> Self {
        Self {
            limits,
            born: now,
            entries: BTreeMap::new(),
            rows: 0,
            next_number: 0,
            cost: CostModel::default(),
            running: Vec::new(),
            gone: Vec::new(),
            looked_for_gone: now,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn admit(&mut self, job: &Arc<Job>, now: Instant) -> Result<(), Refusal> {
        let mut refusal = self.refusal_of(job, now);
        // Nobody is refused for the sake of callers that have gone.
        if refusal.is_some() && self.removes_gone(now) {
            refusal = self.refusal_of(job, now);
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let key = self.key_of(job);
        self.next_number += 1;
        self.rows += job.ask.rows;
        self.entries.insert(key, Entry { job: Arc::clone(job), next_row: 0 });
        Ok(())
    }

    fn refusal_of(&self, job: &Job, now: Instant) -> Option<Refusal> {
        if self.entries.len() >= self.limits.requests_max {
            return Some(Refusal::Full { waiting: self.entries.len() });
        }
        let wait = self.expected_wait(self.key_of(job), job.ask.rows, now)?;
        let objective_ends = job.ask.arrived + self.limits.objective;
        let ends = job.ask.deadline.unwrap_or(objective_ends);
        // An idle model takes even what cannot end in time if only the objective says so: it would never be answered otherwise.
        let is_hopeless = job.ask.deadline.is_some() || wait.is_behind_others;
        let is_late = is_hopeless && now.checked_add(wait.time).is_none_or(|answered| answered > ends);
        let bound = ends.saturating_duration_since(now);
        is_late.then(|| Refusal::Late { wait: wait.time, bound, has_deadline: job.ask.deadline.is_some() })
    }

    /// Removes those whose callers have gone, if there are any. It looks at all that wait, so not for each refusal.
    fn removes_gone(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked_for_gone) < GONE_PAUSE {
            return false;
        }
        self.looked_for_gone = now;
        let before = self.entries.len();
        self.entries.retain(|_, entry| {
            let is_gone = entry.job.is_forsaken();
            if is_gone {
                self.rows -= entry.rows();
                self.gone.push(Arc::clone(&entry.job));
            }
            !is_gone
        });
        self.entries.len() < before
    }

    /// The most urgent rows that make one call, and who is dropped on the way.
    pub(crate) fn take(&mut self, now: Instant) -> Taken {
        let mut taken = Taken::default();
        taken.dropped.extend(self.gone.drain(..).map(|job| (job, Refusal::Gone)));
        let rows_max = self.batch_rows_max();
        while taken.rows < rows_max {
            let Some(mut first) = self.entries.first_entry() else { break };
            let entry = first.get_mut();
            if let Some(refusal) = refusal_at_turn(&entry.job, now) {
                let entry = first.remove();
                self.rows -= entry.rows();
                taken.dropped.push((entry.job, refusal));
                continue;
            }
            let rows = entry.rows().min(rows_max - taken.rows);
            taken.parts.push(Part { job: Arc::clone(&entry.job), rows: entry.next_row..entry.next_row + rows });
            entry.next_row += rows;
            if entry.rows() == 0 {
                first.remove();
            }
            taken.rows += rows;
            self.rows -= rows;
        }
        taken
    }

    /// Notes that a call of so many rows begins; the number is for [`ended`](Self::ended).
    pub(crate) fn begun(&mut self, rows: usize, now: Instant) -> u64 {
        self.next_number += 1;
        let takes = self.cost.predict(rows).unwrap_or_default();
        self.running.push((self.next_number, now + takes));
        self.next_number
    }

    /// Notes that a call has ended, and how long it took if that says something about the model.
    pub(crate) fn ended(&mut self, number: u64, observed: Option<(usize, Duration)>) {
        self.running.retain(|(running, _)| *running != number);
        if let Some((rows, took)) = observed {
            self.observe(rows, took);
        }
    }

    /// Notes that a call of so many rows took so long.
    pub(crate) fn observe(&mut self, rows: usize, took: Duration) {
        self.cost.observe(rows, took);
    }

    /// What a call of one row is expected to take, once that is known.
    pub(crate) fn expected_call(&self) -> Option<Duration> {
        self.cost.predict(1)
    }

    /// Rows of the next batch at most: half of the objective is for waiting. Before the first call it is one request's first row.
    fn batch_rows_max(&self) -> usize {
        self.cost.rows_within(self.limits.objective / 2).map_or(1, |rows| rows.min(BATCH_ROWS_MAX))
    }

    fn key_of(&self, job: &Job) -> Key {
        let objective_ends = job.ask.arrived + self.limits.objective;
        let due = job.ask.deadline.map_or(objective_ends, |deadline| deadline.min(objective_ends));
        let ns = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX / 2);
        let since_born = ns(due.saturating_duration_since(self.born));
        (since_born - i128::from(job.ask.priority) * ns(self.limits.objective), self.next_number)
    }

    /// How long it will be until a new request is answered, with what is due before it; none while nothing is known.
    fn expected_wait(&self, key: Key, rows: usize, now: Instant) -> Option<ExpectedWait> {
        let rows_ahead = self.rows_ahead_of(key);
        let batch_rows = self.batch_rows_max();
        // What is ahead fills whole calls; the rest of it shares the first call of this request.
        let rest = rows_ahead % batch_rows;
        let ahead = self.cost.predict_calls(rows_ahead / batch_rows, rows_ahead - rest)?;
        let own = self.cost.predict_calls((rest + rows).div_ceil(batch_rows), rest + rows)?;
        let is_busy = self.running.len() >= self.limits.executors;
        let first_free = self.running.iter().map(|(_, ends)| ends.saturating_duration_since(now)).min();
        let begins = first_free.filter(|_| is_busy).unwrap_or_default();
        let executors = u32::try_from(self.limits.executors).unwrap_or(u32::MAX);
        let time = begins.saturating_add(ahead / executors).saturating_add(own);
        Some(ExpectedWait { time, is_behind_others: is_busy || rows_ahead > 0 })
    }

    /// Rows that are due before.
    fn rows_ahead_of(&self, key: Key) -> usize {
        if self.entries.last_key_value().is_none_or(|(last, _)| *last < key) {
            return self.rows;
        }
        self.entries.range(..key).map(|(_, entry)| entry.rows()).sum()
    }
}

struct ExpectedWait {
    time: Duration,
    is_behind_others: bool,
}

fn refusal_at_turn(job: &Job, now: Instant) -> Option<Refusal> {
    if job.is_forsaken() {
        return Some(Refusal::Gone);
    }
    let is_late = job.ask.deadline.is_some_and(|deadline| now >= deadline);
    is_late.then(|| Refusal::Expired { waited: now.saturating_duration_since(job.ask.arrived) })
}
