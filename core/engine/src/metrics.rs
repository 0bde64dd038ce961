//! What a model version counts of its own work. Writers add to one of a few shards, so that threads do not fight over a cache
//! line; a reader sums the shards.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use headrace_types::ErrorCode;

use crate::histogram::{Histogram, HistogramSnapshot};
use crate::response::Timing;

const SHARDS_COUNT: usize = 8;

/// The phases of a request that are timed apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Phase {
    /// From the request's arrival to the start of work, without what the transport took to read and decode it.
    Queue,
    Lookup,
    Transform,
    Model,
    Total,
}

impl Phase {
    pub const ALL: [Phase; 5] = [Phase::Queue, Phase::Lookup, Phase::Transform, Phase::Model, Phase::Total];

    pub fn name(self) -> &'static str {
        match self {
            Phase::Queue => "queue",
            Phase::Lookup => "lookup",
            Phase::Transform => "transform",
            Phase::Model => "model",
            Phase::Total => "total",
        }
    }
}

/// What a transport times of a prediction before and after the engine's phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum TransportPhase {
    /// From the request's headers to the last byte of its body.
    Read,
    Decode,
    Encode,
}

impl TransportPhase {
    pub const ALL: [TransportPhase; 3] = [TransportPhase::Read, TransportPhase::Decode, TransportPhase::Encode];

    pub fn name(self) -> &'static str {
        match self {
            TransportPhase::Read => "read",
            TransportPhase::Decode => "decode",
            TransportPhase::Encode => "encode",
        }
    }
}

/// Why requests fail, in the words of Triton's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum FailureReason {
    /// The model is overloaded, or not ready.
    Rejected,
    /// The caller waits no longer.
    Canceled,
    /// The model failed.
    Backend,
    /// Most of all the request is wrong.
    Other,
}

impl FailureReason {
    pub const ALL: [FailureReason; 4] =
        [FailureReason::Rejected, FailureReason::Canceled, FailureReason::Backend, FailureReason::Other];

    pub fn name(self) -> &'static str {
        match self {
            FailureReason::Rejected => "REJECTED",
            FailureReason::Canceled => "CANCELED",
            FailureReason::Backend => "BACKEND",
            FailureReason::Other => "OTHER",
        }
    }

    fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Unavailable => FailureReason::Rejected,
            ErrorCode::DeadlineExceeded | ErrorCode::Cancelled => FailureReason::Canceled,
            ErrorCode::ModelFailed | ErrorCode::FunctionFailed | ErrorCode::Internal => FailureReason::Backend,
            _ => FailureReason::Other,
        }
    }
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    requests: AtomicU64,
    failures: [AtomicU64; FailureReason::ALL.len()],
    direct_calls: AtomicU64,
    cost_ns: AtomicU64,
    rows: AtomicU64,
    failed_rows: AtomicU64,
    last_request_ms: AtomicU64,
    phases: [Histogram; Phase::ALL.len()],
    transport: [Histogram; TransportPhase::ALL.len()],
}

/// Counters and latency histograms of one model version.
#[derive(Debug)]
pub struct ModelMetrics {
    shards: Box<[Shard; SHARDS_COUNT]>,
}

impl Default for ModelMetrics {
    fn default() -> Self {
        Self { shards: Box::new(std::array::from_fn(|_| Shard::default())) }
    }
}

impl ModelMetrics {
    pub(crate) fn record(&self, timing: &Timing, rows: usize, failed_rows: usize, now_us: i64) {
        let shard = self.shard();
        shard.requests.fetch_add(1, Ordering::Relaxed);
        shard.rows.fetch_add(rows as u64, Ordering::Relaxed);
        shard.cost_ns.fetch_add(u64::try_from(timing.cost.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        shard.failed_rows.fetch_add(failed_rows as u64, Ordering::Relaxed);
        shard.last_request_ms.store(u64::try_from(now_us / 1000).unwrap_or(0), Ordering::Relaxed);
        for phase in Phase::ALL {
            shard.phases[phase as usize].record(timing.of(phase));
        }
    }

    /// Notes what a transport took for an answered request, in the order of [`TransportPhase::ALL`].
    pub fn record_transport(&self, durations: [Duration; TransportPhase::ALL.len()]) {
        for (histogram, duration) in self.shard().transport.iter().zip(durations) {
            histogram.record(duration);
        }
    }

    /// Notes a call of the model that answers one request alone.
    pub(crate) fn record_direct_call(&self) {
        self.shard().direct_calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn record_failure(&self, code: ErrorCode, total: Duration) {
        let shard = self.shard();
        shard.failures[FailureReason::of(code) as usize].fetch_add(1, Ordering::Relaxed);
        shard.phases[Phase::Total as usize].record(total);
    }

    pub fn snapshot(&self) -> MetricsSnapshot {
        let mut total = MetricsSnapshot::default();
        for shard in self.shards.iter() {
            total.requests += shard.requests.load(Ordering::Relaxed);
            for (sum, failures) in total.failures.iter_mut().zip(&shard.failures) {
                *sum += failures.load(Ordering::Relaxed);
            }
            total.direct_calls += shard.direct_calls.load(Ordering::Relaxed);
            total.cost_ns += shard.cost_ns.load(Ordering::Relaxed);
            total.rows += shard.rows.load(Ordering::Relaxed);
            total.failed_rows += shard.failed_rows.load(Ordering::Relaxed);
            total.last_request_ms = total.last_request_ms.max(shard.last_request_ms.load(Ordering::Relaxed));
            for (sum, phase) in total.phases.iter_mut().zip(&shard.phases) {
                phase.add_to(sum);
            }
            for (sum, phase) in total.transport.iter_mut().zip(&shard.transport) {
                phase.add_to(sum);
            }
        }
        total
    }

    fn shard(&self) -> &Shard {
        &self.shards[thread_number() % SHARDS_COUNT]
    }
}

/// A small number of this thread, given in the order in which threads first ask.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.with(Cell::get)
}

/// The sums of a model version's counters at one moment.
#[derive(Debug, Clone, Default)]
pub struct MetricsSnapshot {
    /// Requests answered, also those in which single rows failed.
    pub requests: u64,
    /// In the order of [`FailureReason::ALL`].
    pub failures: [u64; FailureReason::ALL.len()],
    /// Calls of the model outside its queue.
    pub direct_calls: u64,
    /// What answered requests are charged for, see [`Timing::cost`].
    pub cost_ns: u64,
    pub rows: u64,
    pub failed_rows: u64,
    /// Milliseconds since 1970 of the last answered request; 0 when there was none.
    pub last_request_ms: u64,
    phases: [HistogramSnapshot; Phase::ALL.len()],
    transport: [HistogramSnapshot; TransportPhase::ALL.len()],
}

impl MetricsSnapshot {
    /// Rows that have an answer.
    pub fn answered_rows(&self) -> u64 {
        // They are counted one after the other, so a reader may see a failed row that is not yet among all.
        self.rows.saturating_sub(self.failed_rows)
    }

    pub fn failed_requests(&self) -> u64 {
        self.failures.iter().sum()
    }

    pub fn phase(&self, phase: Phase) -> &HistogramSnapshot {
        &self.phases[phase as usize]
    }

    /// Requests that came over a transport; those of the process itself have no such phases.
    pub fn transport(&self, phase: TransportPhase) -> &HistogramSnapshot {
        &self.transport[phase as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_several_threads_add_up() {
        let metrics = ModelMetrics::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        metrics.record(&Timing::default(), 3, 1, 5_000);
                    }
                    metrics.record_transport([Duration::ZERO, Duration::from_micros(2), Duration::from_micros(3)]);
                    metrics.record_failure(ErrorCode::ModelFailed, Duration::from_millis(1));
                });
            }
        });
        let total = metrics.snapshot();
        assert_eq!((total.requests, total.failed_requests(), total.rows, total.failed_rows), (400, 4, 1200, 400));
        assert_eq!(total.phase(Phase::Total).count(), 404);
        assert_eq!(total.phase(Phase::Lookup).count(), 400);
        assert_eq!(total.transport(TransportPhase::Encode).sum_ns(), 4 * 3_000);
        assert_eq!(total.last_request_ms, 5);
        assert_eq!(total.failures[FailureReason::Backend as usize], 4);
    }
}
