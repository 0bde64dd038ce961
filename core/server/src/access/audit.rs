//! The audit: one JSON line for each refusal and each grant that changes something, chained by hashes.
//!
//! A row's `prev` is the SHA-256 of the line before it, so a row cannot be changed, removed or put in between without all later ones
//! showing it. `headrace audit verify` looks. A request never waits for the file: rows go through a bounded queue, and what finds no
//! room is counted and told by the next row.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};

use super::rate::{Limiter, Rate};

/// Rows that may wait for the writer.
const ROWS_MAX: usize = 4096;
/// Refusals that are written: a flood of them must not fill the disk.
const REFUSALS_RATE: &str = "100/s";
const REFUSALS_BURST: u64 = 1000;
/// Bytes of a row.
const ROW_BYTES_MAX: u64 = 64 << 10;
/// How long written rows may be lost to a power cut.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// What becomes a row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) subject: String,
    pub(crate) action: &'static str,
    pub(crate) resource: String,
    pub(crate) allowed: bool,
    pub(crate) rule: String,
    pub(crate) reason: &'static str,
    pub(crate) evidence: Vec<String>,
}

/// The line, in the order of the Decision record.
#[derive(Serialize)]
struct Line<'a> {
    decision_id: String,
    at: String,
    subject: &'a str,
    action: &'a str,
    resource: &'a str,
    allowed: bool,
    rule: &'a str,
    reason: &'a str,
    evidence: &'a [String],
    prev: &'a str,
}

#[derive(Debug, Default)]
pub(crate) struct AuditCounters {
    pub(crate) written: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failed: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Audit {
    rows: Mutex<Option<SyncSender<Row>>>,
    refusals: Limiter,
    pub(crate) counters: Arc<AuditCounters>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Audit {
    /// Goes on with the chain of the file, or begins one.
    ///
    /// # Errors
    /// `io`; `corrupt_store` when the file's last row is none.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (file, prev) = continued(path).map_err(|error| error.within(format_args!("audit {}", path.display())))?;
        let (sender, rows) = sync_channel(ROWS_MAX);
        let counters = Arc::new(AuditCounters::default());
        let mut writer = Writer { file, prev, counters: Arc::clone(&counters), dropped_told: 0 };
        let thread = std::thread::Builder::new().name("headrace-audit".to_owned());
        let thread = thread.spawn(move || writer.write_all(&rows))?;
        Ok(Self {
            rows: Mutex::new(Some(sender)),
            refusals: Limiter::new(Rate::parse(REFUSALS_RATE, Some(REFUSALS_BURST))?),
            counters,
            writer: Mutex::new(Some(thread)),
        })
    }

    pub(crate) fn note(&self, row: Row) {
        let has_room = row.allowed || self.refusals.take().is_ok();
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = has_room && rows.as_ref().is_some_and(|rows| rows.try_send(row).is_ok());
        if !sent {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what waits, and takes no more.
    pub(crate) fn close(&self) {
        drop(self.rows.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(writer.join());
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    file: File,
    /// The digest of the last line.
    prev: String,
    counters: Arc<AuditCounters>,
    dropped_told: u64,
}

impl Writer {
    fn write_all(&mut self, rows: &Receiver<Row>) {
        let mut synced = Instant::now();
        let mut is_dirty = false;
        loop {
            let received = rows.recv_timeout(SYNC_INTERVAL);
            let is_over = matches!(received, Err(RecvTimeoutError::Disconnected));
            if let Ok(row) = received {
                let outcome = match self.write(row) {
                    Ok(()) => &self.counters.written,
                    Err(_) => &self.counters.failed,
                };
                outcome.fetch_add(1, Ordering::Relaxed);
                is_dirty = true;
            } else if is_over {
                return self.sync();
            }
            if is_dirty && synced.elapsed() >= SYNC_INTERVAL {
                self.sync();
                (is_dirty, synced) = (false, Instant::now());
            }
        }
    }

    fn sync(&self) {
        if self.file.sync_data().is_err() {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&mut self, mut row: Row) -> Result<()> {
        let dropped = self.counters.dropped.load(Ordering::Relaxed);
        if dropped > self.dropped_told {
            row.evidence.push(format!("{} rows before this one were dropped", dropped - self.dropped_told));
        }
        let now = jiff::Timestamp::now();
        let line = Line {
            decision_id: decision_id(now),
            at: now.to_string(),
            subject: &row.subject,
            action: row.action,
            resource: &row.resource,
            allowed: row.allowed,
            rule: &row.rule,
            reason: row.reason,
            evidence: &row.evidence,
            prev: &self.prev,
        };
        let mut bytes = serde_json::to_vec(&line).map_err(|error| Error::internal(error.to_string()))?;
        let digest = headrace_types::digest_bytes(&bytes);
        bytes.push(b'\n');
        let end = self.file.stream_position()?;
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a row would break the chain.
            self.file.set_len(end)?;
            self.file.seek(SeekFrom::Start(end))?;
            return Err(error.into());
        }
        self.prev = digest;
        self.dropped_told = dropped;
        Ok(())
    }
}

/// A UUID of version 7.
fn decision_id(now: jiff::Timestamp) -> String {
    let mut random = [0; 10];
    // Without the system's randomness the time alone tells rows apart.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
    let ms = u64::try_from(now.as_millisecond()).unwrap_or(0) & 0xffff_ffff_ffff;
    random[0] = random[0] & 0x0f | 0x70;
    random[2] = random[2] & 0x3f | 0x80;
    let tail: String = random[4..].iter().map(|byte| format!("{byte:02x}")).collect();
    let [a, b, c, d, ..] = random;
    format!("{:08x}-{:04x}-{a:02x}{b:02x}-{c:02x}{d:02x}-{tail}", ms >> 16, ms & 0xffff)
}

/// Opens the file for further rows. A row that a crash has cut off was never told to anybody and is taken away.
fn continued(path: &Path) -> Result<(File, String)> {
    #[derive(Deserialize)]
    struct Last {
        #[serde(rename = "prev")]
        _prev: String,
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
    file.try_lock().map_err(|_| {
        Error::new(ErrorCode::StoreLocked, "another process writes it", "give each server an audit file of its own")
    })?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(2 * ROW_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let kept = from + whole as u64;
    let damaged = || {
        let hint = "move the file away and keep it; `headrace audit verify FILE` says where it is damaged";
        Error::new(ErrorCode::CorruptStore, "its last row is none, so its chain cannot go on", hint)
    };
    if whole == 0 && from > 0 {
        return Err(damaged());
    }
    file.set_len(kept)?;
    file.seek(SeekFrom::Start(kept))?;
    if whole == 0 {
        return Ok((file, String::new()));
    }
    let begin = tail[..whole - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let last = &tail[begin..whole - 1];
    serde_json::from_slice::<Last>(last).map_err(|_| damaged())?;
    Ok((file, headrace_types::digest_bytes(last)))
}
