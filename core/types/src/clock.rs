use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01T00:00:00Z, the only representation of time in the engine.
pub type TimestampUs = i64;

/// Where "now" comes from. TTLs are relative to it, so a replay needs one that it can set.
pub trait Clock: Send + Sync + Debug {
    fn now_us(&self) -> TimestampUs;
}

/// The machine's wall clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> TimestampUs {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
        }
    }
}

/// A clock that stands still until it is set: for replays, proofs and tests.
#[derive(Debug, Default)]
pub struct VirtualClock(AtomicI64);

impl VirtualClock {
    pub fn new(now_us: TimestampUs) -> Self {
        Self(AtomicI64::new(now_us))
    }

    pub fn set(&self, now_us: TimestampUs) {
        self.0.store(now_us, Ordering::Release);
    }
}

impl Clock for VirtualClock {
    fn now_us(&self) -> TimestampUs {
        self.0.load(Ordering::Acquire)
    }
}
