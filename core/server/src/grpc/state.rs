//! What a gRPC connection is doing, for the sweep that ends those that take too long.
//!
//! As over HTTP/1 no request has a timer of its own while it runs: the connection notes the worker's ticks, and the worker looks over its
//! connections once a tick.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use crate::connection::{TickLimits, Watch};

/// Bytes that a client may send beyond the messages that are taken from it, all at a time: the windows' content and frames.
const CREDIT_BYTES_MAX: i64 = 4 << 20;
/// Bytes of frames that a request is worth beside its message: headers, and pings between requests.
const REQUEST_CREDIT_BYTES: i64 = 64 << 10;

/// Shared by a connection's stream, its requests, and the sweep.
#[derive(Debug)]
pub(crate) struct GrpcState {
    /// The worker's tick counter.
    ticks: Arc<AtomicU64>,
    /// Requests, streams and answers that are not sent yet.
    open: AtomicU64,
    /// The tick of the last byte in or out, and of the end of the last request.
    active_tick: AtomicU64,
    /// The write timeout.
    write_ticks: u64,
    /// Answers that are not sent yet, by the half-time in which they were made; see [`Self::is_stuck`].
    unsent: [AtomicU64; 2],
    /// Bytes that the client may still send without a message being taken from it.
    credit: AtomicI64,
    pub(crate) pinged: Notify,
    ending: watch::Sender<bool>,
    /// The half-time of the last look.
    looked: AtomicU64,
}

impl GrpcState {
    pub(crate) fn new(ticks: Arc<AtomicU64>, limits: &TickLimits) -> Self {
        let now = ticks.load(Ordering::Relaxed);
        Self {
            ticks,
            open: AtomicU64::new(0),
            active_tick: AtomicU64::new(now),
            write_ticks: limits.write.max(1),
            unsent: Default::default(),
            credit: AtomicI64::new(CREDIT_BYTES_MAX),
            pinged: Notify::new(),
            ending: watch::Sender::new(false),
            looked: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    fn note_active(&self) {
        self.active_tick.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Asks the connection to end; streams see it too.
    pub(crate) fn end(&self) {
        self.ending.send_replace(true);
    }

    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// A client that sends messages may send frames around them.
    pub(crate) fn earn(&self, message_bytes: usize) {
        let earned = i64::try_from(message_bytes).unwrap_or(CREDIT_BYTES_MAX).saturating_mul(2);
        self.add_credit(earned);
    }

    fn add_credit(&self, earned: i64) {
        let credit = self.credit.load(Ordering::Relaxed).saturating_add(earned).min(CREDIT_BYTES_MAX);
        self.credit.store(credit, Ordering::Relaxed);
    }

    /// Whether the connection must be ended at once. One that is merely idle is asked to end, one with streams whether the client is
    /// still there.
    pub(crate) fn is_overdue(&self, limits: &TickLimits) -> bool {
        let quiet = self.now().saturating_sub(self.active_tick.load(Ordering::Relaxed));
        if quiet > limits.idle {
            if quiet > limits.idle + limits.head {
                return true;
            }
            if self.is_idle() {
                self.end();
            } else {
                self.pinged.notify_one();
            }
        }
        self.is_stuck()
    }

    /// Whether an answer is not sent within one to two write timeouts. Answers are counted by the half-time that they were made in; at
    /// the end of a half-time none of the one before may be left.
    fn is_stuck(&self) -> bool {
        let half = self.now() / self.write_ticks;
        if self.looked.swap(half, Ordering::Relaxed) == half {
            return false;
        }
        // The place of the coming half-time was that of the one before the last.
        self.unsent[place_of(half)].load(Ordering::Relaxed) > 0
    }
}

fn place_of(half: u64) -> usize {
    usize::from(half % 2 == 1)
}

/// Counts a request as long as it is open.
#[derive(Debug)]
pub(crate) struct OpenRequest(Arc<GrpcState>);

impl OpenRequest {
    pub(crate) fn new(state: &Arc<GrpcState>) -> Self {
        state.open.fetch_add(1, Ordering::Relaxed);
        state.add_credit(REQUEST_CREDIT_BYTES);
        Self(Arc::clone(state))
    }

    pub(crate) fn state(&self) -> &Arc<GrpcState> {
        &self.0
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.note_active();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts an answer until it is sent, and keeps its request open.
#[derive(Debug)]
pub(crate) struct Sending {
    state: Arc<GrpcState>,
    place: usize,
    _request: Option<OpenRequest>,
}

impl Sending {
    pub(crate) fn new(state: &Arc<GrpcState>, request: Option<OpenRequest>) -> Self {
        let place = place_of(state.now() / state.write_ticks);
        state.unsent[place].fetch_add(1, Ordering::Relaxed);
        Self { state: Arc::clone(state), place, _request: request }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.state.unsent[self.place].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection ends when its client sends much and asks nothing.
impl Watch for GrpcState {
    fn on_read(&self, bytes: usize) -> io::Result<()> {
        let read = i64::try_from(bytes).unwrap_or(i64::MAX);
        if !self.is_idle() {
            self.note_active(); // what an idle client sends, such as pings, does not keep its connection
        }
        if self.credit.fetch_sub(read, Ordering::Relaxed) < read {
            return Err(io::Error::other("the client sends much and asks nothing"));
        }
        Ok(())
    }
}
