//! The thread that sends traces. It speaks HTTP/1.1 by itself: one request a connection, and of the answer only the status counts.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use headrace_types::Result;

use super::config::TracesConfig;
use super::ids::random_id;
use super::spans::encoded;
use crate::counters::Page;
use crate::logs::{Level, Log};
use crate::record::Finished;
use crate::ring::Ring;

/// Requests that wait to be sent; of further ones no trace is kept.
const RECORDS_MAX: usize = 8192;
/// Requests of one export.
const EXPORT_RECORDS: usize = 512;
/// How long a request waits for others to be sent with.
const GATHER: Duration = Duration::from_secs(1);
/// Attempts for one export.
const ATTEMPTS: u32 = 5;
/// Between the first two attempts; doubled for each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For one export, from the connection to the answer's first line.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same when the server stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);
/// Statuses upon which OTLP asks to try again.
const RETRIED: [u16; 4] = [429, 502, 503, 504];
/// Bytes of an answer's first line.
const STATUS_LINE_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Traces {
    config: TracesConfig,
    ring: Ring<Arc<Finished>>,
    log: Option<Arc<Log>>,
    exported: AtomicU64,
    failed: AtomicU64,
    attempts_failed: AtomicU64,
}

impl Traces {
    /// # Errors
    /// `invalid_argument` of the settings.
    pub(crate) fn new(config: TracesConfig, log: Option<Arc<Log>>) -> Result<Arc<Self>> {
        config.check()?;
        let ring = Ring::new(RECORDS_MAX, EXPORT_RECORDS);
        let (exported, failed, attempts_failed) = Default::default();
        Ok(Arc::new(Self { config, ring, log, exported, failed, attempts_failed }))
    }

    pub(crate) fn config(&self) -> &TracesConfig {
        &self.config
    }

    pub(crate) fn push(&self, record: Arc<Finished>) {
        self.ring.push(record);
    }

    pub(crate) fn close(&self) {
        self.ring.close();
    }

    /// Sends what comes until the ring is closed and empty.
    pub(crate) fn run(&self) {
        let mut is_failing = false;
        while let Some(records) = self.ring.take(EXPORT_RECORDS, GATHER) {
            if records.is_empty() {
                continue;
            }
            let body = encoded(&self.config.resource, records.iter().map(|record| &**record));
            let sent = self.send(&body);
            let counter = if sent.is_ok() { &self.exported } else { &self.failed };
            counter.fetch_add(records.len() as u64, Ordering::Relaxed);
            if sent.is_err() != is_failing {
                is_failing = sent.is_err();
                self.tell(sent);
            }
        }
    }

    /// Says once that the collector cannot be reached, and once that it can again.
    fn tell(&self, sent: Result<(), String>) {
        let Some(log) = &self.log else { return };
        match sent {
            Ok(()) => log.event(Level::Info, "traces_sent_again", "the collector takes traces again", &[]),
            Err(why) => {
                let message = format!("traces are dropped, the collector does not take them: {why}");
                log.event(Level::Warning, "traces_dropped", &message, &[]);
            }
        }
    }

    /// Tries as often as it is worth it.
    fn send(&self, body: &[u8]) -> Result<(), String> {
        let mut backoff = FIRST_BACKOFF;
        let mut attempt = 1;
        loop {
            let is_last = self.ring.is_closed();
            let why = match self.post(body, if is_last { LAST_TIMEOUT } else { EXPORT_TIMEOUT }) {
                Ok(200..=299) => return Ok(()),
                Ok(status) if !RETRIED.contains(&status) => {
                    self.attempts_failed.fetch_add(1, Ordering::Relaxed);
                    return Err(format!("status {status}"));
                }
                Ok(status) => format!("status {status}"),
                Err(error) => error.to_string(),
            };
            self.attempts_failed.fetch_add(1, Ordering::Relaxed);
            if attempt == ATTEMPTS || is_last {
                return Err(why);
            }
            // Not all servers of a collector at the same moment.
            self.ring.pause(backoff.mul_f64(0.75 + 0.5 * (random_id() % 1024) as f64 / 1024.0));
            (attempt, backoff) = (attempt + 1, backoff * 2);
        }
    }

    /// The status of the answer.
    fn post(&self, body: &[u8], timeout: Duration) -> io::Result<u16> {
        let deadline = Instant::now() + timeout;
        let mut stream = self.connect(timeout)?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(&[self.head(body.len()).as_bytes(), body].concat())?;
        let mut line = Vec::with_capacity(64);
        let mut piece = [0; 256];
        while !line.contains(&b'\n') && line.len() < STATUS_LINE_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut piece)? {
                0 => break,
                count => line.extend_from_slice(&piece[..count]),
            }
        }
        status_of(&line).ok_or_else(|| io::Error::other("the answer is not HTTP"))
    }

    fn connect(&self, timeout: Duration) -> io::Result<TcpStream> {
        let mut error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in self.config.endpoint.addresses()? {
            match TcpStream::connect_timeout(&address, timeout.min(CONNECT_TIMEOUT)) {
                Ok(stream) => return Ok(stream),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    fn head(&self, length: usize) -> String {
        let endpoint = &self.config.endpoint;
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: headrace/{}\r\nContent-Type: application/x-protobuf\r\n\
             Content-Length: {length}\r\nConnection: close\r\n",
            endpoint.path(),
            endpoint.authority(),
            env!("CARGO_PKG_VERSION"),
        );
        for (name, value) in &self.config.headers.0 {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head + "\r\n"
    }

    pub(crate) fn write(&self, page: &mut Page) {
        let name = "headrace_traces_requests_total";
        page.family(name, "counter", "Traced requests, by what became of their spans.");
        for (outcome, count) in [
            ("exported", self.exported.load(Ordering::Relaxed)),
            ("dropped_full", self.ring.dropped()),
            ("dropped_failed", self.failed.load(Ordering::Relaxed)),
        ] {
            page.sample(name, &[("outcome", outcome)], count);
        }
        let name = "headrace_traces_export_failures_total";
        page.family(name, "counter", "Attempts to send spans that failed.");
        page.sample(name, &[], self.attempts_failed.load(Ordering::Relaxed));
    }
}

/// The status of `HTTP/1.1 200 OK`.
fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| *byte == b' ');
    let is_http = words.next()?.starts_with(b"HTTP/1.");
    let status = std::str::from_utf8(words.next()?).ok()?.trim();
    status.parse().ok().filter(|status| is_http && (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_first_line() {
        assert_eq!(status_of(b"HTTP/1.1 200 OK\r\nx: 1\r\n"), Some(200));
        assert_eq!(status_of(b"HTTP/1.0 503\r\n"), Some(503));
        for wrong in
            [&b""[..], b"HTTP/1.1", b"HTTP/1.1 ok\r\n", b"HTTP/1.1 99999\r\n", b"SSH-2.0 200\r\n", b"\xff\xff 200"]
        {
            assert_eq!(status_of(wrong), None, "{wrong:?}");
        }
    }
}
