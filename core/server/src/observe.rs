//! Whoever watches requests: traces and logs. Where neither is on, a request costs one test of a pointer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use headrace_types::{ErrorCode, Result};
use http::HeaderMap;

use crate::config::ServerConfig;
use crate::counters::{Page, Scrape};
use crate::logs::{Level, Log, PanicsLogged};
use crate::record::{CallOf, Record, Trace};
use crate::traces::{Parent, Traces};

/// How long a stopping server waits for each of its reporters.
const END_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Observer {
    traces: Option<Arc<Traces>>,
    log: Option<Arc<Log>>,
    /// Whether any request is looked at; the log's settings change while it runs.
    is_active: Arc<AtomicBool>,
}

impl Observer {
    /// None where nothing is to be watched.
    ///
    /// # Errors
    /// `invalid_argument` of the traces' settings.
    pub(crate) fn of(config: &ServerConfig, scrape: &Arc<Scrape>) -> Result<Option<Arc<Self>>> {
        let is_active = Arc::new(AtomicBool::new(config.traces.is_some()));
        let log = config.log.map(|log| Log::new(log, Arc::clone(scrape), Arc::clone(&is_active)));
        let traces = config.traces.clone().map(|traces| Traces::new(traces, log.clone())).transpose()?;
        if let Some(log) = &log {
            log.keep_active(traces.is_some());
        }
        let is_any = traces.is_some() || log.is_some();
        Ok(is_any.then(|| Arc::new(Self { traces, log, is_active })))
    }

    /// What is to be noted of a request that has come, if anything.
    pub(crate) fn begin(&self, headers: &HeaderMap, arrived: Instant) -> Option<Arc<Record>> {
        if !self.is_active.load(Ordering::Relaxed) {
            return None;
        }
        let parent = Parent::of(headers);
        let samples = |trace_id: &[u8; 16], parent_sampled| {
            self.traces.as_ref().is_some_and(|traces| traces.config().samples(trace_id, parent_sampled))
        };
        // Without traces of our own the log still names the caller's.
        let trace = (self.traces.is_some() || parent.is_some()).then(|| Trace::under(parent, samples));
        let is_sampled = trace.as_ref().is_some_and(|trace| trace.is_sampled);
        let is_logged = self.log.as_ref().is_some_and(|log| log.watches_requests());
        (is_sampled || is_logged).then(|| Record::new(arrived, trace))
    }

    /// Hands a request that is answered to those who report on it: with the id of its headers, which counts where its body has none, and why
    /// it failed.
    pub(crate) fn finish(&self, record: &Record, call: CallOf, named: Option<&str>, error: Option<ErrorCode>) {
        let finished = Arc::new(record.finish(call, named, error));
        if let Some(traces) = &self.traces
            && finished.trace.as_ref().is_some_and(|trace| trace.is_sampled)
        {
            traces.push(Arc::clone(&finished));
        }
        if let Some(log) = &self.log {
            log.request(finished);
        }
    }

    pub(crate) fn log(&self) -> Option<&Arc<Log>> {
        self.log.as_ref()
    }

    pub(crate) fn write_metrics(&self, page: &mut Page) {
        if let Some(traces) = &self.traces {
            traces.write(page);
        }
        if let Some(log) = &self.log {
            log.write_metrics(page);
        }
    }

    /// Starts the reporters.
    ///
    /// # Errors
    /// `io` when a thread cannot be made.
    pub(crate) fn start(&self) -> Result<Reporters> {
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.to_owned()).spawn(run);
        let (mut traces, mut log, mut panics) = (None, None, None);
        if let Some(reporter) = self.traces.clone() {
            traces = Some(spawn("headrace-traces", Box::new(move || reporter.run()))?);
        }
        if let Some(reporter) = self.log.clone() {
            panics = Some(PanicsLogged::to(&reporter));
            log = Some(spawn("headrace-log", Box::new(move || reporter.run()))?);
        }
        Ok(Reporters { traces, log, panics })
    }

    /// Lets the reporters send and write what they have, within a bound. The log goes last: it tells how the traces ended.
    pub(crate) fn end(&self, reporters: Reporters) {
        let Reporters { traces, log, panics } = reporters;
        drop(panics);
        if let (Some(reporter), Some(thread)) = (&self.traces, traces) {
            reporter.close();
            wait_for(thread);
        }
        if let (Some(reporter), Some(thread)) = (&self.log, log) {
            reporter.event(Level::Info, "stop", "the server has ended", &[]);
            reporter.close();
            wait_for(thread);
        }
    }
}

/// The threads of an observer.
pub(crate) struct Reporters {
    traces: Option<JoinHandle<()>>,
    log: Option<JoinHandle<()>>,
    panics: Option<PanicsLogged>,
}

/// A reporter that hangs, on a name service say, is left to end with the process.
fn wait_for(thread: JoinHandle<()>) {
    let deadline = Instant::now() + END_TIMEOUT;
    while !thread.is_finished() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    if thread.is_finished() {
        drop(thread.join());
    }
}
