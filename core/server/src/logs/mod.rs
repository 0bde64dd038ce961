//! The server's log: one line an event on stderr, for machines or for people.
//!
//! Who has something to say leaves it in a bounded ring; a thread of its own writes. Lines name models, routes, ids and durations, and no
//! value that a request brings along or an answer holds.

mod line;
mod requests;
mod watch;

use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headrace_engine::Engine;
use serde_json::Value;

pub use line::Level as LogLevel;
pub(crate) use line::Level;

use self::line::line;
use self::watch::Watch;
use crate::counters::{Page, Scrape};
use crate::record::Finished;
use crate::ring::Ring;

/// Lines that wait to be written; further ones are dropped and counted.
const LINES_MAX: usize = 8192;
/// Lines that wake the writer before its time.
const LINES_TOGETHER: usize = 256;
/// How often the writer looks for lines, for changed settings and for models that came or went.
const TICK: Duration = Duration::from_millis(200);
/// What was refused is told at most so often, with its count.
const REFUSED_INTERVAL: Duration = Duration::from_secs(1);

/// What is logged, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogConfig {
    pub format: LogFormat,
    /// Whether every request gets a line.
    pub access: bool,
    /// A request that takes as long gets a line of its own.
    pub slow: Option<Duration>,
}

/// For people, or one JSON object a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Something to write: a line, or a request of which lines are made.
#[derive(Debug)]
enum Entry {
    Line(String),
    Request(Arc<Finished>),
}

#[derive(Debug)]
pub(crate) struct Log {
    config: LogConfig,
    scrape: Arc<Scrape>,
    ring: Ring<Entry>,
    /// Whether requests get lines now: the setting, or Triton's `log_verbose_level`.
    has_access: AtomicBool,
    /// Shared with the [`Observer`](crate::observe::Observer), which looks at no request without need.
    is_active: Arc<AtomicBool>,
    stays_active: AtomicBool,
}

impl Log {
    pub(crate) fn new(config: LogConfig, scrape: Arc<Scrape>, is_active: Arc<AtomicBool>) -> Arc<Self> {
        let ring = Ring::new(LINES_MAX, LINES_TOGETHER);
        let (has_access, stays_active) = (AtomicBool::new(config.access), AtomicBool::new(false));
        Arc::new(Self { config, scrape, ring, has_access, is_active, stays_active })
    }

    /// Says whether requests are looked at for somebody else too.
    pub(crate) fn keep_active(&self, stays_active: bool) {
        self.stays_active.store(stays_active, Ordering::Relaxed);
        self.take_settings();
    }

    fn take_settings(&self) {
        let settings = self.scrape.engine.settings().log_levels();
        let has_access = settings.info && (self.config.access || settings.verbose_level > 0);
        self.has_access.store(has_access, Ordering::Relaxed);
        let is_active = self.stays_active.load(Ordering::Relaxed) || self.watches_requests();
        self.is_active.store(is_active, Ordering::Relaxed);
    }

    /// Whether it has a line for any request.
    pub(crate) fn watches_requests(&self) -> bool {
        self.config.slow.is_some() || self.has_access.load(Ordering::Relaxed)
    }

    /// Takes a line for what has happened.
    pub(crate) fn event(&self, level: Level, event: &str, message: &str, fields: &[(&str, Value)]) {
        if level.is_logged(&self.scrape.engine) {
            self.ring.push(Entry::Line(line(self.config.format, level, event, message, fields)));
        }
    }

    /// Takes a request that is answered.
    pub(crate) fn request(&self, request: Arc<Finished>) {
        if self.has_access.load(Ordering::Relaxed) || self.is_slow(&request) {
            self.ring.push(Entry::Request(request));
        }
    }

    fn is_slow(&self, request: &Finished) -> bool {
        self.config.slow.is_some_and(|slow| request.total >= slow)
    }

    pub(crate) fn close(&self) {
        self.ring.close();
    }

    /// Writes what comes until it is closed and empty.
    pub(crate) fn run(&self) {
        let mut watch = Watch::default();
        let mut refused_at: Option<Instant> = None;
        watch.models(self);
        while let Some(entries) = self.ring.take(LINES_MAX, TICK) {
            self.write(entries);
            self.take_settings();
            watch.models(self);
            if refused_at.is_none_or(|at| at.elapsed() >= REFUSED_INTERVAL) {
                refused_at = Some(Instant::now());
                watch.refused(self);
            }
        }
    }

    fn write(&self, entries: Vec<Entry>) {
        let mut text = String::new();
        for entry in entries {
            match entry {
                Entry::Line(line) => text.push_str(&line),
                Entry::Request(request) => {
                    if self.is_slow(&request) && Level::Warning.is_logged(&self.scrape.engine) {
                        text.push_str(&requests::slow_line(self.config.format, &request));
                    }
                    if self.has_access.load(Ordering::Relaxed) {
                        text.push_str(&requests::access_line(self.config.format, &request));
                    }
                }
            }
        }
        write_stderr(&text);
    }

    pub(crate) fn write_metrics(&self, page: &mut Page) {
        let name = "headrace_log_lines_dropped_total";
        page.family(name, "counter", "Log lines that found no room because they could not be written fast enough.");
        page.sample(name, &[], self.ring.dropped());
    }
}

/// Panics become lines of a log as long as it lives. What a panic says may hold values, so only its place is told.
pub(crate) struct PanicsLogged(Option<PanicHook>);

type PanicHook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

impl PanicsLogged {
    pub(crate) fn to(log: &Arc<Log>) -> Self {
        let log = Arc::clone(log);
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            let fields = [("place", place.into()), ("thread", thread.into())];
            log.event(Level::Error, "panic", "a request, or a thread, ended in a panic", &fields);
        }));
        Self(Some(previous))
    }
}

impl Drop for PanicsLogged {
    fn drop(&mut self) {
        if let Some(previous) = self.0.take() {
            std::panic::set_hook(previous);
        }
    }
}

/// Writes one line of the program around the server, in the form of the server's own.
pub fn write_log(
    engine: &Engine,
    format: LogFormat,
    level: LogLevel,
    event: &str,
    message: &str,
    fields: &[(&str, Value)],
) {
    if level.is_logged(engine) {
        write_stderr(&line(format, level, event, message, fields));
    }
}

/// One write for whole lines, so that those of other threads do not come between.
fn write_stderr(text: &str) {
    if !text.is_empty() {
        // There is no other place to say that stderr is closed.
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::MemoryBudget;
    use crate::counters::WorkerCounters;
    use headrace_engine::EngineOptions;
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU64;

    fn log() -> Arc<Log> {
        let scrape = Scrape {
            access: None,
            engine: Arc::new(Engine::new(EngineOptions::default())),
            workers: vec![Arc::new(WorkerCounters::default())],
            refused_connections: AtomicU64::new(0),
            budget: MemoryBudget::new(1),
            observer: OnceLock::new(),
        };
        Log::new(LogConfig { format: LogFormat::Json, ..LogConfig::default() }, Arc::new(scrape), Arc::default())
    }

    fn lines(log: &Log) -> Vec<String> {
        let entries = log.ring.take(LINES_MAX, Duration::ZERO).unwrap_or_default();
        let told = entries.into_iter().filter_map(|entry| match entry {
            Entry::Line(line) => Some(line),
            Entry::Request(_) => None,
        });
        told.collect()
    }

    #[test]
    fn a_panic_is_told_by_its_place_only() {
        let log = log();
        let hook = PanicsLogged::to(&log);
        let ended = std::panic::catch_unwind(|| panic!("canary"));
        drop(hook);
        assert!(ended.is_err());
        let lines = lines(&log);
        assert!(lines.iter().any(|line| line.contains("\"panic\"") && line.contains(file!())), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains("canary")), "{lines:?}");
    }

    #[test]
    fn refusals_are_one_line_with_their_count() {
        let (log, mut watch) = (log(), Watch::default());
        log.scrape.refused_connections.store(7, Ordering::Relaxed);
        (0..3).for_each(|_| log.scrape.workers[0].record(0, 503, Duration::ZERO));
        watch.refused(&log);
        let told = lines(&log);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("\"cause\":\"connections\",\"count\":7"), "{told:?}");
        watch.refused(&log);
        assert!(lines(&log).is_empty(), "nothing more was refused");
    }

    #[test]
    fn tritons_settings_switch_levels_and_requests() {
        let log = log();
        let change = |text: &str| {
            let changes = serde_json::from_str(text).unwrap_or_default();
            assert!(log.scrape.engine.settings().change_log(&changes).is_ok());
            log.take_settings();
        };
        log.event(Level::Info, "a", "", &[]);
        assert!(!log.watches_requests() && !log.is_active.load(Ordering::Relaxed));
        change(r#"{"log_info": false, "log_verbose_level": 1}"#);
        log.event(Level::Info, "b", "", &[]);
        log.event(Level::Error, "c", "", &[]);
        assert!(!log.watches_requests(), "an access line is info");
        change(r#"{"log_info": true, "log_error": false}"#);
        log.event(Level::Error, "d", "", &[]);
        assert!(log.watches_requests() && log.is_active.load(Ordering::Relaxed));
        let told = lines(&log);
        assert_eq!(told.len(), 2, "{told:?}");
    }
}
