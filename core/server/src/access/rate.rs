//! Requests a second of one caller, shared by all threads: the generic cell rate algorithm in one atomic.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode, Result};

/// Callers whose rate is kept apart; what comes beyond shares one limit.
const LIMITERS_MAX: usize = 10_000;
const COUNT_MAX: u64 = 1_000_000_000;

/// So many requests in a time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds from one request to the next.
    interval_ns: u64,
    burst: u64,
}

impl Rate {
    /// Reads `100/s`, `600/m` or `1000/h`. Without a burst as many may come at once as in the time.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub(crate) fn parse(text: &str, burst: Option<u64>) -> Result<Self> {
        let wrong =
            |message: String| Error::new(ErrorCode::InvalidArgument, message, "write it like 100/s, 600/m or 1000/h");
        let parts = text.split_once('/').and_then(|(count, unit)| {
            let seconds: u64 = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                _ => return None,
            };
            let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
            Some((count.parse::<u64>().ok().filter(|count| digits && (1..=COUNT_MAX).contains(count))?, seconds))
        });
        let Some((count, seconds)) = parts else {
            return Err(wrong(format!("rate '{}' is none", text.chars().take(40).collect::<String>())));
        };
        let burst = burst.unwrap_or(count);
        if !(1..=COUNT_MAX).contains(&burst) {
            return Err(wrong(format!("burst {burst} is not between 1 and {COUNT_MAX}")));
        }
        Ok(Self { interval_ns: (seconds * 1_000_000_000 / count).max(1), burst })
    }

    /// How far ahead of the clock the next request's own time may be.
    fn ahead_ns(self) -> u64 {
        self.interval_ns.saturating_mul(self.burst - 1)
    }
}

/// One caller's requests.
#[derive(Debug)]
pub(crate) struct Limiter {
    rate: Rate,
    began: Instant,
    /// When the next request would come if all came evenly, in nanoseconds since `began`.
    next_ns: AtomicU64,
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, began: Instant::now(), next_ns: AtomicU64::new(0) }
    }

    /// # Errors
    /// How long to wait, where the request is one too many.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        self.take_at(self.now_ns())
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn take_at(&self, now_ns: u64) -> Result<(), Duration> {
        let taken = self.next_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            let own = next.max(now_ns);
            (own - now_ns <= self.rate.ahead_ns()).then(|| own.saturating_add(self.rate.interval_ns))
        });
        taken.map(drop).map_err(|next| {
            Duration::from_nanos(next.saturating_sub(now_ns).saturating_sub(self.rate.ahead_ns()).max(1))
        })
    }

    /// Whether it would let a whole burst pass: then forgetting it changes nothing.
    fn is_idle(&self) -> bool {
        self.next_ns.load(Ordering::Relaxed) <= self.now_ns()
    }
}

/// The limiters of all callers, kept while the policy changes.
#[derive(Debug, Default)]
pub(crate) struct Limiters {
    by_subject: RwLock<HashMap<String, Arc<Limiter>>>,
}

impl Limiters {
    /// The limiter of a subject: the one it has, unless its rate has changed.
    pub(crate) fn of(&self, subject: &str, rate: Rate) -> Arc<Limiter> {
        let mut limiters = self.by_subject.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = limiters.get(subject).filter(|found| found.rate == rate) {
            return Arc::clone(found);
        }
        if limiters.len() >= LIMITERS_MAX {
            limiters.retain(|_, limiter| !limiter.is_idle());
        }
        let name = if limiters.len() < LIMITERS_MAX { subject } else { "" };
        if let Some(found) = limiters.get(name).filter(|found| found.rate == rate) {
            return Arc::clone(found);
        }
        let limiter = Arc::new(Limiter::new(rate));
        limiters.insert(name.to_owned(), Arc::clone(&limiter));
        limiter
    }
}
