//! What the log learns by looking: models that came and went, and how much was refused. Nobody has to tell it, so it costs no request
//! anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use headrace_engine::RefusalReason;
use headrace_protocol::grpc::status_code;
use headrace_types::ErrorCode;
use serde_json::Value;

use super::Log;
use super::line::Level;

/// A model's name and version.
type Version = (String, u32);

/// What was there when the log looked last.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    loaded: BTreeSet<Version>,
    failed: BTreeSet<Version>,
    counts: BTreeMap<String, u64>,
}

impl Watch {
    pub(crate) fn models(&mut self, log: &Log) {
        let engine = &log.scrape.engine;
        let told = |level, event: &str, message: &str, (name, version): &Version, more: &[(&str, Value)]| {
            let fields = [("model", Value::from(name.as_str())), ("version", Value::from(*version))];
            log.event(level, event, message, &[&fields[..], more].concat());
        };
        let mut loaded = BTreeSet::new();
        let mut failed = BTreeSet::new();
        for model in engine.models() {
            let version = (model.name().to_owned(), model.version());
            if let Some(fault) = model.fault() {
                if !self.failed.contains(&version) {
                    let more = [("error", fault.code.slug().into())];
                    told(Level::Error, "model_failed", &fault.message, &version, &more);
                }
                failed.insert(version);
            } else {
                if !self.loaded.contains(&version) {
                    told(Level::Info, "model_loaded", "the model can answer", &version, &[]);
                }
                loaded.insert(version);
            }
        }
        for (name, number, fault) in engine.unloaded_models() {
            let version = (name, number);
            if !self.failed.contains(&version) && !self.loaded.contains(&version) {
                let more = [("error", fault.code.slug().into())];
                told(Level::Error, "model_failed", &fault.message, &version, &more);
            }
            failed.insert(version);
        }
        for version in self.loaded.iter().filter(|version| !loaded.contains(*version)) {
            let (event, message) = ("model_unloaded", "the model answers no more");
            told(Level::Info, event, message, version, &[]);
        }
        (self.loaded, self.failed) = (loaded, failed);
    }

    /// One line for each cause, with how often it has refused since the last look.
    pub(crate) fn refused(&mut self, log: &Log) {
        let scrape = &log.scrape;
        let connections = scrape.refused_connections.load(Ordering::Relaxed);
        self.count(log, "connections", "connections were turned away, too many are open", &[], connections);
        let http = scrape.workers.iter().map(|worker| worker.answered(503)).sum();
        self.count(log, "http", "requests were answered with 503", &[], http);
        let unavailable = status_code(ErrorCode::Unavailable);
        let grpc = scrape.workers.iter().map(|worker| worker.grpc.answered(unavailable)).sum();
        self.count(log, "grpc", "calls were answered with UNAVAILABLE", &[], grpc);
        for model in scrape.engine.models() {
            let refused = model.queue_stats().refused;
            for reason in [RefusalReason::Full, RefusalReason::Late] {
                let fields = [
                    ("model", Value::from(model.name())),
                    ("version", Value::from(model.version())),
                    ("reason", Value::from(reason.name())),
                ];
                let message = match reason {
                    RefusalReason::Full => "requests found the model's queue full",
                    _ => "requests would have ended too late",
                };
                self.count(log, "queue", message, &fields, refused[reason as usize]);
            }
        }
    }

    fn count(&mut self, log: &Log, cause: &str, message: &str, fields: &[(&str, Value)], total: u64) {
        let key = fields.iter().fold(cause.to_owned(), |key, (_, value)| format!("{key} {value}"));
        let before = self.counts.insert(key, total).unwrap_or(0);
        // A model that was loaded again counts from 0.
        let count = total.saturating_sub(before);
        if count > 0 {
            let more = [("cause", Value::from(cause)), ("count", Value::from(count))];
            log.event(Level::Warning, "refused", message, &[&more[..], fields].concat());
        }
    }
}
