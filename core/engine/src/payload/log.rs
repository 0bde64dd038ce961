//! The ring between requests and the files, and the thread that empties it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use headrace_types::{Column, Error, ErrorCode, Result};

use super::chunk::Chunk;
use super::sample::Sample;
use super::segment::{Segments, write};

/// How often the writer looks for chunks. Requests do not wake it: that costs more than all the rest of their part.
const TICK: Duration = Duration::from_millis(50);

/// What is logged, and where to.
#[derive(Debug, Clone)]
pub struct PayloadOptions {
    /// Segments are `folder/DEPLOYMENT/HOUR/NODE-UUID.parquet`.
    pub folder: PathBuf,
    /// The share of entity keys whose lookups are logged, in (0, 1].
    pub sample: f64,
    /// Another salt samples other keys.
    pub salt: String,
    /// Bytes of rows that wait for their file. Rows that find no room are dropped and counted.
    pub memory_bytes_max: usize,
    /// A segment with so many rows is written.
    pub segment_rows: usize,
    /// A segment is written when its first row has waited so long. A process that is killed loses no more than this.
    pub segment_age: Duration,
}

impl PayloadOptions {
    /// The defaults for a folder: one key in a hundred.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            sample: 0.01,
            salt: String::new(),
            memory_bytes_max: 64 << 20,
            segment_rows: 100_000,
            segment_age: Duration::from_secs(60),
        }
    }
}

/// What has become of the rows that were sampled: each is written, dropped, or still in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PayloadStats {
    pub written_rows: u64,
    pub written_segments: u64,
    /// There was no room in memory.
    pub dropped_full_rows: u64,
    /// Their segment could not be written.
    pub dropped_io_rows: u64,
    /// In memory.
    pub waiting_rows: u64,
    pub waiting_bytes: u64,
}

#[derive(Debug)]
enum Message {
    Chunk(Chunk, usize),
    Flush(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Shared {
    written_rows: AtomicU64,
    written_segments: AtomicU64,
    dropped_full_rows: AtomicU64,
    dropped_io_rows: AtomicU64,
    waiting_rows: AtomicU64,
    waiting_bytes: AtomicUsize,
    /// The writer has been called before its tick.
    called: AtomicBool,
}

/// The payload log of an engine. Dropping it writes what waits.
#[derive(Debug)]
pub struct PayloadLog {
    sample: Sample,
    weight: f64,
    memory_bytes_max: usize,
    shared: Arc<Shared>,
    applied_rows: AtomicI64,
    /// `None` once it is being dropped.
    sender: Option<Sender<Message>>,
    writer: Thread,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// A process that was forked from the one with the writer has none.
    process: u32,
}

impl PayloadLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// `invalid_argument` for a share that is none; `io` when there can be no thread.
    pub fn start(options: PayloadOptions) -> Result<Self> {
        if !(options.sample > 0.0 && options.sample <= 1.0) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("the payload log shall sample {} of all keys", options.sample),
                "give a share from 0 to 1; 0.01 is one key in a hundred",
            ));
        }
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = channel();
        let (sample, weight) = (Sample::new(options.sample, &options.salt), 1.0 / options.sample);
        let memory_bytes_max = options.memory_bytes_max;
        let mut writer = Writer { options, shared: Arc::clone(&shared), segments: Segments::default() };
        let thread = std::thread::Builder::new().name("headrace-payload".to_owned());
        let thread = thread.spawn(move || writer.run(&receiver))?;
        Ok(Self {
            sample,
            weight,
            memory_bytes_max,
            shared,
            applied_rows: AtomicI64::new(-1),
            sender: Some(sender),
            writer: thread.thread().clone(),
            thread: Mutex::new(Some(thread)),
            process: std::process::id(),
        })
    }

    /// Whether the key in a row of these columns is sampled.
    pub(crate) fn takes<'a>(&self, keys: impl Iterator<Item = Option<&'a Column>>, row: usize) -> bool {
        self.sample.takes(keys, row)
    }

    /// What a sampled row stands for.
    pub(crate) fn weight(&self) -> f64 {
        self.weight
    }

    /// Says how many rows the online store has applied; lookups from now on are logged with it.
    pub fn note_applied(&self, rows: u64) {
        self.applied_rows.store(i64::try_from(rows).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn applied_rows(&self) -> i64 {
        self.applied_rows.load(Ordering::Relaxed)
    }

    /// Takes a chunk on, or drops it. Never waits.
    pub(crate) fn offer(&self, chunk: Chunk) {
        let (rows, bytes) = (chunk.rows() as u64, chunk.bytes());
        let shared = &self.shared;
        let held = shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        shared.waiting_rows.fetch_add(rows, Ordering::Relaxed);
        let taken = held <= self.memory_bytes_max
            && self.sender.as_ref().is_some_and(|sender| sender.send(Message::Chunk(chunk, bytes)).is_ok());
        if !taken {
            shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            shared.waiting_rows.fetch_sub(rows, Ordering::Relaxed);
            shared.dropped_full_rows.fetch_add(rows, Ordering::Relaxed);
        }
        if held > self.memory_bytes_max / 2 && !shared.called.swap(true, Ordering::Relaxed) {
            self.writer.unpark();
        }
    }

    /// Writes what waits and returns when it is on disk.
    pub fn flush(&self) {
        if self.process != std::process::id() {
            return;
        }
        let (done, wait) = sync_channel(1);
        if self.sender.as_ref().is_some_and(|sender| sender.send(Message::Flush(done)).is_ok()) {
            self.writer.unpark();
            // An error means that the writer is gone, and what waited with it has been counted.
            let _ = wait.recv();
        }
    }

    pub fn stats(&self) -> PayloadStats {
        let shared = &self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PayloadStats {
            written_rows: read(&shared.written_rows),
            written_segments: read(&shared.written_segments),
            dropped_full_rows: read(&shared.dropped_full_rows),
            dropped_io_rows: read(&shared.dropped_io_rows),
            waiting_rows: read(&shared.waiting_rows),
            waiting_bytes: shared.waiting_bytes.load(Ordering::Relaxed) as u64,
        }
    }
}

impl Drop for PayloadLog {
    fn drop(&mut self) {
        self.sender = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.process == std::process::id()
            && let Some(thread) = thread
        {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

struct Writer {
    options: PayloadOptions,
    shared: Arc<Shared>,
    segments: Segments,
}

impl Writer {
    fn run(&mut self, receiver: &Receiver<Message>) {
        loop {
            let mut flushed = Vec::new();
            let is_open = self.drain(receiver, &mut flushed);
            let waiting = self.shared.waiting_bytes.load(Ordering::Relaxed);
            let all = !is_open || !flushed.is_empty() || waiting > self.options.memory_bytes_max / 2;
            self.write_ready(all);
            for done in flushed {
                // Whoever asked may have gone.
                let _ = done.send(());
            }
            if !is_open {
                return;
            }
            self.shared.called.store(false, Ordering::Relaxed);
            std::thread::park_timeout(TICK);
        }
    }

    /// Takes what has come; false when there will be no more.
    fn drain(&mut self, receiver: &Receiver<Message>, flushed: &mut Vec<SyncSender<()>>) -> bool {
        loop {
            match receiver.try_recv() {
                Ok(Message::Chunk(chunk, bytes)) => {
                    let rows = chunk.rows() as u64;
                    if self.segments.add(chunk, bytes).is_err() {
                        self.settle(rows, bytes, &self.shared.dropped_io_rows);
                    }
                }
                Ok(Message::Flush(done)) => flushed.push(done),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn write_ready(&mut self, all: bool) {
        for ready in self.segments.ready(self.options.segment_age, self.options.segment_rows, all) {
            let rows = ready.chunk.rows() as u64;
            match write(&self.options.folder, &ready.chunk) {
                Ok(_) => {
                    self.shared.written_segments.fetch_add(1, Ordering::Relaxed);
                    self.settle(rows, ready.bytes, &self.shared.written_rows);
                }
                Err(_) => self.settle(rows, ready.bytes, &self.shared.dropped_io_rows),
            }
        }
    }

    /// Rows leave memory and are counted as what became of them.
    fn settle(&self, rows: u64, bytes: usize, counter: &AtomicU64) {
        counter.fetch_add(rows, Ordering::Relaxed);
        self.shared.waiting_rows.fetch_sub(rows, Ordering::Relaxed);
        self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
