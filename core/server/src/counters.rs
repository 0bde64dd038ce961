//! What a worker counts of its requests, and the Prometheus text of all counters.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use headrace_engine::{Engine, Histogram, HistogramSnapshot};

use crate::access::Access;
use crate::budget::MemoryBudget;
use crate::grpc::GrpcCounters;
use crate::model_counters::write_models;
use crate::observe::Observer;
use crate::process::write_process;
use crate::route::ROUTE_NAMES;

/// Statuses that are counted by themselves; the last place is for all others.
const STATUSES: [u16; 11] = [200, 400, 401, 403, 404, 405, 408, 413, 429, 500, 503];

/// Counters of one worker; only its own thread writes them.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounters {
    pub(crate) grpc: GrpcCounters,
    requests: [[AtomicU64; STATUSES.len() + 1]; ROUTE_NAMES.len()],
    latency: [Histogram; ROUTE_NAMES.len()],
    pub(crate) in_flight: AtomicU64,
    /// Connections given to the worker and not yet closed.
    pub(crate) connections: AtomicU64,
    pub(crate) timed_out_connections: AtomicU64,
    pub(crate) panics: AtomicU64,
}

impl WorkerCounters {
    pub(crate) fn record(&self, route: usize, status: u16, latency: std::time::Duration) {
        let place = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        self.requests[route][place].fetch_add(1, Ordering::Relaxed);
        self.latency[route].record(latency);
    }

    /// Requests that were answered with a status that is counted by itself.
    pub(crate) fn answered(&self, status: u16) -> u64 {
        let Some(place) = STATUSES.iter().position(|known| *known == status) else { return 0 };
        self.requests.iter().map(|statuses| statuses[place].load(Ordering::Relaxed)).sum()
    }
}

/// Everything that the metrics listener reads.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) engine: Arc<Engine>,
    pub(crate) workers: Vec<Arc<WorkerCounters>>,
    pub(crate) refused_connections: AtomicU64,
    pub(crate) budget: Arc<MemoryBudget>,
    /// Who traces and logs, if anybody does.
    pub(crate) observer: OnceLock<Weak<Observer>>,
    pub(crate) access: Option<Arc<Access>>,
}

impl Scrape {
    fn sum(&self, counter: impl Fn(&WorkerCounters) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|worker| counter(worker).load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn connections(&self) -> u64 {
        self.sum(|worker| &worker.connections)
    }

    /// The Prometheus text format, version 0.0.4.
    pub(crate) fn text(&self) -> String {
        let mut page = Page::default();
        page.family("headrace_build_info", "gauge", "The version that runs.");
        page.sample("headrace_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.write_http(&mut page);
        GrpcCounters::write(self.workers.iter().map(|worker| &worker.grpc), &mut page);
        write_models(&self.engine, &mut page);
        self.write_payload(&mut page);
        self.write_consistency(&mut page);
        self.write_tables(&mut page);
        if let Some(observer) = self.observer.get().and_then(Weak::upgrade) {
            observer.write_metrics(&mut page);
        }
        write_process(&mut page);
        if let Some(access) = &self.access {
            access.write(&mut page);
        }
        page.text
    }

    fn write_http(&self, page: &mut Page) {
        page.family("headrace_http_requests_total", "counter", "Requests answered, by route and status.");
        for (route, name) in ROUTE_NAMES.iter().enumerate() {
            for place in 0..=STATUSES.len() {
                let count = self.sum(|worker| &worker.requests[route][place]);
                if count > 0 {
                    let status = STATUSES.get(place).map_or("other".to_owned(), u16::to_string);
                    page.sample("headrace_http_requests_total", &[("route", name), ("status", &status)], count);
                }
            }
        }
        page.family("headrace_http_request_seconds", "histogram", "From a request's headers to its answer, by route.");
        for (route, name) in ROUTE_NAMES.iter().enumerate() {
            let mut total = HistogramSnapshot::default();
            self.workers.iter().for_each(|worker| worker.latency[route].add_to(&mut total));
            page.histogram("headrace_http_request_seconds", &[("route", name)], &total);
        }
        let gauges = [
            (
                "headrace_http_requests_in_flight",
                "Requests being read or answered.",
                self.sum(|worker| &worker.in_flight),
            ),
            ("headrace_http_connections", "Open connections.", self.connections()),
            (
                "headrace_http_memory_bytes",
                "Bytes that the bodies and answers of requests at work hold.",
                self.budget.held_bytes() as u64,
            ),
        ];
        for (name, help, value) in gauges {
            page.family(name, "gauge", help);
            page.sample(name, &[], value);
        }
        let counters = [
            (
                "headrace_http_connections_refused_total",
                "Connections turned away because too many were open.",
                self.refused_connections.load(Ordering::Relaxed),
            ),
            (
                "headrace_http_connections_timed_out_total",
                "Connections ended because the client was too slow or idle.",
                self.sum(|worker| &worker.timed_out_connections),
            ),
            ("headrace_http_panics_total", "Requests that ended in a panic.", self.sum(|worker| &worker.panics)),
        ];
        for (name, help, value) in counters {
            page.family(name, "counter", help);
            page.sample(name, &[], value);
        }
    }

    fn write_payload(&self, page: &mut Page) {
        let Some(stats) = self.engine.payload().map(headrace_engine::PayloadLog::stats) else { return };
        let name = "headrace_payload_rows_total";
        page.family(name, "counter", "Sampled rows, by what became of them; those in memory are not among them yet.");
        for (outcome, rows) in [
            ("written", stats.written_rows),
            ("dropped_memory", stats.dropped_full_rows),
            ("dropped_io", stats.dropped_io_rows),
        ] {
            page.sample(name, &[("outcome", outcome)], rows);
        }
        page.family("headrace_payload_segments_total", "counter", "Payload segments written.");
        page.sample("headrace_payload_segments_total", &[], stats.written_segments);
        for (name, help, value) in [
            ("headrace_payload_waiting_rows", "Sampled rows that wait for their segment.", stats.waiting_rows),
            ("headrace_payload_waiting_bytes", "Bytes that they hold.", stats.waiting_bytes),
        ] {
            page.family(name, "gauge", help);
            page.sample(name, &[], value);
        }
    }

    fn write_tables(&self, page: &mut Page) {
        let tables = self.engine.store().map(|store| store.stats()).unwrap_or_default();
        let name = "headrace_online_table_keys";
        page.family(name, "gauge", "Keys of an online table, those whose rows are all deleted included.");
        for (table, stats) in &tables {
            page.sample(name, &[("table", table)], stats.keys as u64);
        }
        let name = "headrace_online_table_bytes";
        page.family(name, "gauge", "Bytes that an online table uses: rows, index and texts.");
        for (table, stats) in &tables {
            page.sample(name, &[("table", table)], stats.used_bytes as u64);
        }
    }

    /// What the last `headrace verify consistency` of the project found.
    fn write_consistency(&self, page: &mut Page) {
        let Some(report) = self.engine.consistency() else { return };
        let name = "headrace_consistency_mismatch_ratio";
        page.family(name, "gauge", "Share of served values that differ from what is recomputed offline.");
        for one in &report.features {
            let labels = [("deployment", one.deployment.as_str()), ("feature", &one.feature)];
            page.number(name, &labels, one.mismatch_ratio());
        }
        let name = "headrace_consistency_values";
        page.family(name, "gauge", "Served values that were recomputed, by outcome.");
        for one in &report.features {
            let differing = one.mismatched + one.missing + one.extra;
            for (outcome, count) in [
                ("equal", one.count.saturating_sub(differing)),
                ("mismatched", one.mismatched),
                ("missing", one.missing),
                ("extra", one.extra),
            ] {
                let labels = [("deployment", one.deployment.as_str()), ("feature", &one.feature), ("outcome", outcome)];
                page.sample(name, &labels, count);
            }
        }
        let name = "headrace_consistency_verified_timestamp_seconds";
        page.family(name, "gauge", "When the last verification ended, in seconds since 1970.");
        #[allow(clippy::cast_precision_loss)] // 53 bits of microseconds are 285 years
        page.number(name, &[], report.verified_at_us as f64 / 1e6);
    }
}

#[derive(Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels = labels_text(labels);
        self.line(format_args!("{name}{labels} {value}"));
    }

    pub(crate) fn number(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels = labels_text(labels);
        self.line(format_args!("{name}{labels} {value}"));
    }

    pub(crate) fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &HistogramSnapshot) {
        let count = histogram.count();
        if count == 0 {
            return;
        }
        for (end_ns, below) in histogram.cumulative() {
            let end = seconds(end_ns);
            let labels = labels_text(&[labels, &[("le", &end)]].concat());
            self.line(format_args!("{name}_bucket{labels} {below}"));
        }
        let all = labels_text(&[labels, &[("le", "+Inf")]].concat());
        let labels = labels_text(labels);
        let sum = seconds(histogram.sum_ns());
        self.line(format_args!("{name}_bucket{all} {count}\n{name}_sum{labels} {sum}\n{name}_count{labels} {count}"));
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn seconds(ns: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // 53 bits of nanoseconds are 104 days
    let seconds = ns as f64 / 1e9;
    seconds.to_string()
}

fn labels_text(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use headrace_engine::{ConsistencyReport, EngineOptions, FeatureConsistency};
    use std::time::Duration;

    #[test]
    fn the_page_sums_the_workers() {
        let workers = vec![Arc::new(WorkerCounters::default()), Arc::new(WorkerCounters::default())];
        for worker in &workers {
            worker.record(0, 200, Duration::from_micros(3));
            worker.record(7, 418, Duration::from_micros(3));
        }
        let engine = Arc::new(Engine::new(EngineOptions::default()));
        let damage = headrace_types::Error::new(headrace_types::ErrorCode::CorruptModel, "damaged", "");
        engine.note_unloaded("late", 3, damage);
        engine.set_consistency(Some(ConsistencyReport {
            verified_at_us: 1_500_000,
            features: vec![FeatureConsistency {
                deployment: "risk".to_owned(),
                feature: "temp".to_owned(),
                count: 8,
                mismatched: 1,
                missing: 1,
                extra: 0,
            }],
        }));
        let scrape = Scrape {
            engine,
            workers,
            refused_connections: AtomicU64::new(5),
            budget: MemoryBudget::new(1),
            observer: OnceLock::new(),
            access: None,
        };
        let text = scrape.text();
        for line in [
            "headrace_http_requests_total{route=\"live\",status=\"200\"} 2",
            "headrace_http_requests_total{route=\"infer\",status=\"other\"} 2",
            "headrace_http_request_seconds_count{route=\"live\"} 2",
            "headrace_http_request_seconds_bucket{route=\"live\",le=\"0.000004096\"} 2",
            "headrace_http_request_seconds_bucket{route=\"live\",le=\"+Inf\"} 2",
            "headrace_http_connections_refused_total 5",
            "headrace_model_ready{model=\"late\",version=\"3\"} 0",
            "headrace_model_load_failures_total 1",
            "headrace_consistency_mismatch_ratio{deployment=\"risk\",feature=\"temp\"} 0.25",
            "headrace_consistency_values{deployment=\"risk\",feature=\"temp\",outcome=\"equal\"} 6",
            "headrace_consistency_verified_timestamp_seconds 1.5",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert_eq!(labels_text(&[("model", "a\"b\\c\n")]), "{model=\"a\\\"b\\\\c\\n\"}");
    }
}
