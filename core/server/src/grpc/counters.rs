//! What a worker counts of its gRPC calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headrace_engine::{Histogram, HistogramSnapshot};
use headrace_protocol::grpc::status_name;

use super::method::{METHODS, Method};
use crate::counters::Page;

/// gRPC's status codes.
const CODES: usize = 17;

/// Counters of one worker; only its own thread writes them. Each message of a ModelStreamInfer counts as a call.
#[derive(Debug)]
pub(crate) struct GrpcCounters {
    calls: [[AtomicU64; CODES]; METHODS],
    latency: [Histogram; METHODS],
}

impl Default for GrpcCounters {
    fn default() -> Self {
        Self {
            calls: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            latency: std::array::from_fn(|_| Histogram::default()),
        }
    }
}

impl GrpcCounters {
    pub(crate) fn record(&self, method: usize, code: u8, latency: Duration) {
        self.calls[method][usize::from(code).min(CODES - 1)].fetch_add(1, Ordering::Relaxed);
        self.latency[method].record(latency);
    }

    /// Calls that were answered with a status.
    pub(crate) fn answered(&self, code: u8) -> u64 {
        self.calls.iter().map(|codes| codes[usize::from(code).min(CODES - 1)].load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn write<'a>(workers: impl Iterator<Item = &'a Self> + Clone, page: &mut Page) {
        let name_of = |method: usize| Method::ALL.get(method).map_or("none", |method| method.name());
        page.family("headrace_grpc_requests_total", "counter", "gRPC calls answered, by method and status.");
        for method in 0..METHODS {
            for code in 0..CODES {
                let count = workers.clone().map(|worker| worker.calls[method][code].load(Ordering::Relaxed)).sum();
                if count > 0 {
                    let code = u8::try_from(code).map_or("", status_name);
                    page.sample("headrace_grpc_requests_total", &[("method", name_of(method)), ("code", code)], count);
                }
            }
        }
        page.family("headrace_grpc_request_seconds", "histogram", "From a call's headers to its answer, by method.");
        for method in 0..METHODS {
            let mut total = HistogramSnapshot::default();
            workers.clone().for_each(|worker| worker.latency[method].add_to(&mut total));
            page.histogram("headrace_grpc_request_seconds", &[("method", name_of(method))], &total);
        }
    }
}
