//! What is noted of one request that is traced or logged. It is made when the request comes, whoever works on it adds what it knows, and
//! when the answer is made it goes to the reporters as one piece.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headrace_engine::{Deployment, Timing};
use headrace_types::ErrorCode;

use crate::traces::{Parent, new_span_id, new_trace_id};

/// Bytes of a request's id, or of its path, that are noted.
const TEXT_BYTES_MAX: usize = 256;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Record {
    arrived: Instant,
    arrived_ns: u64,
    trace: Option<Trace>,
    facts: Mutex<Facts>,
}

/// A request's place in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    pub(crate) parent_id: Option<[u8; 8]>,
    pub(crate) state: String,
    /// Whether its spans are sent.
    pub(crate) is_sampled: bool,
}

impl Trace {
    /// A span under the caller's, or the first of a new trace.
    pub(crate) fn under(parent: Option<Parent>, samples: impl FnOnce(&[u8; 16], Option<bool>) -> bool) -> Self {
        let parent_sampled = parent.as_ref().map(|parent| parent.is_sampled);
        let (trace_id, parent_id, state) = match parent {
            Some(parent) => (parent.trace_id, Some(parent.span_id), parent.state),
            None => (new_trace_id(), None, String::new()),
        };
        let is_sampled = samples(&trace_id, parent_sampled);
        Self { trace_id, span_id: new_span_id(), parent_id, state, is_sampled }
    }
}

/// What those who work on a request know of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) model: Option<(String, u32)>,
    pub(crate) request_id: String,
    pub(crate) rows: usize,
    pub(crate) read: Duration,
    pub(crate) decode: Duration,
    pub(crate) encode: Duration,
    /// Of the engine; none where it has not answered.
    pub(crate) timing: Option<Timing>,
    pub(crate) error: Option<ErrorCode>,
}

impl Record {
    pub(crate) fn new(arrived: Instant, trace: Option<Trace>) -> Arc<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let arrived_ns = u64::try_from(since_epoch.saturating_sub(arrived.elapsed()).as_nanos()).unwrap_or(u64::MAX);
        Arc::new(Self { arrived, arrived_ns, trace, facts: Mutex::default() })
    }

    fn note(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes what was read and decoded: a prediction of this model.
    pub(crate) fn decoded(&self, deployment: &Deployment, id: Option<&str>, read: Duration, decode: Duration) {
        self.note(|facts| {
            facts.model = Some((deployment.name().to_owned(), deployment.version()));
            facts.request_id = bounded(id.unwrap_or_default());
            (facts.read, facts.decode) = (read, decode);
        });
    }

    /// Notes what the engine has answered, and how long it took to tell.
    pub(crate) fn answered(&self, id: &str, rows: usize, timing: Timing, encode: Duration) {
        self.note(|facts| {
            facts.request_id = bounded(id);
            (facts.rows, facts.timing, facts.encode) = (rows, Some(timing), encode);
        });
    }

    /// The request with its end. The id that a header names counts where the body has none.
    pub(crate) fn finish(&self, call: CallOf, named: Option<&str>, error: Option<ErrorCode>) -> Finished {
        let mut facts = Facts::default();
        self.note(|noted| std::mem::swap(noted, &mut facts));
        facts.error = error;
        if facts.request_id.is_empty() {
            facts.request_id = bounded(named.unwrap_or_default());
        }
        let (trace, arrived_ns) = (self.trace.clone(), self.arrived_ns);
        Finished { arrived_ns, total: self.arrived.elapsed(), trace, facts, call }
    }
}

/// A request that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    /// Nanoseconds since 1970.
    pub(crate) arrived_ns: u64,
    pub(crate) total: Duration,
    pub(crate) trace: Option<Trace>,
    pub(crate) facts: Facts,
    pub(crate) call: CallOf,
}

/// How it was asked and answered, by the protocol.
#[derive(Debug, Clone)]
pub(crate) enum CallOf {
    Http { method: &'static str, path: String, route: &'static str, status: u16 },
    Grpc { path: &'static str, code: u8 },
}

impl CallOf {
    pub(crate) fn http(method: &http::Method, path: &str, route: &'static str, status: u16) -> Self {
        const METHODS: [&str; 7] = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"];
        // A verb of the client's own invention is not repeated.
        let method = METHODS.into_iter().find(|known| known == method).unwrap_or("_OTHER");
        Self::Http { method, path: bounded(path), route, status }
    }
}

impl Finished {
    /// The phases of the request, in their order. Their sum is at most the whole: what is between them is the server's.
    pub(crate) fn phases(&self) -> Vec<(&'static str, Duration)> {
        let Facts { read, decode, encode, .. } = self.facts;
        let timing = self.facts.timing.unwrap_or_default();
        let all = [
            ("read", read),
            ("decode", decode),
            ("lookup", timing.lookup),
            ("transform", timing.transform),
            ("queue", timing.queue),
            ("model", timing.model),
            ("encode", encode),
        ];
        all.into_iter().filter(|(_, duration)| !duration.is_zero()).collect()
    }
}

/// A caller's text as it may be reported.
fn bounded(text: &str) -> String {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= TEXT_BYTES_MAX).last().unwrap_or(0);
    if text.len() <= TEXT_BYTES_MAX { text.to_owned() } else { text[..end].to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_says_is_bounded() {
        assert_eq!(bounded(&"ä".repeat(500)).len(), TEXT_BYTES_MAX);
        assert_eq!(bounded("short"), "short");
        let invented = http::Method::from_bytes(b"SECRET").unwrap_or_default();
        assert!(matches!(CallOf::http(&invented, "/", "none", 405), CallOf::Http { method: "_OTHER", .. }));
        assert!(matches!(CallOf::http(&http::Method::POST, "/", "none", 405), CallOf::Http { method: "POST", .. }));
    }

    #[test]
    fn a_span_is_under_its_callers_or_begins_a_trace() {
        let parent = Parent { trace_id: [1; 16], span_id: [2; 8], is_sampled: false, state: "a=1".to_owned() };
        let under = Trace::under(Some(parent), |_, sampled| sampled == Some(false));
        assert_eq!((under.trace_id, under.parent_id, under.is_sampled), ([1; 16], Some([2; 8]), true));
        assert_ne!(under.span_id, [2; 8]);
        let first = Trace::under(None, |_, sampled| sampled.is_some());
        assert!(first.parent_id.is_none() && first.trace_id != [0; 16] && !first.is_sampled);
    }

    #[test]
    fn a_finished_record_has_all_that_was_noted() {
        let record = Record::new(Instant::now(), None);
        let call = CallOf::Grpc { path: "/a/b", code: 3 };
        let finished = record.finish(call.clone(), Some("outer"), Some(ErrorCode::TooLarge));
        assert_eq!((finished.facts.request_id.as_str(), finished.facts.error), ("outer", Some(ErrorCode::TooLarge)));
        assert!(finished.phases().is_empty());
        let timing = Timing { model: Duration::from_micros(5), queue: Duration::from_micros(2), ..Timing::default() };
        record.answered("inner", 3, timing, Duration::from_micros(1));
        let finished = record.finish(call, Some("outer"), None);
        assert_eq!(finished.facts.request_id, "inner");
        let names: Vec<&str> = finished.phases().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["queue", "model", "encode"]);
    }
}
