//! What a run found.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::histogram::Histogram;

/// The answers of one status.
#[derive(Debug, Clone, Serialize)]
pub struct Latencies {
    pub count: u64,
    /// Answers that came in the measured time, those to earlier requests among them; late ones are not.
    pub per_s: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How long was measured.
    pub seconds: f64,
    /// Requests that were due in that time.
    pub due: u64,
    /// Requests that were due and have no answer, or whose connection broke.
    pub unanswered: u64,
    /// By HTTP status; a gRPC call counts as 200, or as 500 when it ended without a message.
    pub by_status: BTreeMap<u16, Latencies>,
}

impl Report {
    #[allow(clippy::cast_precision_loss)] // below 2^53
    pub(crate) fn new(
        seconds: f64,
        due: u64,
        answers: &BTreeMap<u16, u64>,
        histograms: &BTreeMap<u16, Histogram>,
    ) -> Self {
        let answered: u64 = histograms.values().map(Histogram::count).sum();
        let per_s = |status: &u16| answers.get(status).copied().unwrap_or(0) as f64 / seconds;
        let latencies = |(status, found): (&u16, &Histogram)| (*status, Latencies::of(found, per_s(status)));
        let by_status = histograms.iter().map(latencies).collect();
        Self { seconds, due, unanswered: due.saturating_sub(answered), by_status }
    }
}

impl Latencies {
    #[allow(clippy::cast_precision_loss)] // microseconds of hours
    fn of(histogram: &Histogram, per_s: f64) -> Self {
        let us = |ns: u64| ns as f64 / 1000.0;
        let quantile_us = |quantile| us(histogram.quantile_ns(quantile));
        Self {
            count: histogram.count(),
            per_s,
            p50_us: quantile_us(0.5),
            p90_us: quantile_us(0.9),
            p99_us: quantile_us(0.99),
            p999_us: quantile_us(0.999),
            max_us: us(histogram.max_ns()),
        }
    }
}
