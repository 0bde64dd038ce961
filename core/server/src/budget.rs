//! The memory that all requests' bodies and answers may hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use headrace_types::{Error, ErrorCode, Result};

/// Bytes that are held, and how many may be. A body counts as it arrives and as it is inflated, an answer until it is sent.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    bytes_max: usize,
    held: AtomicUsize,
}

impl MemoryBudget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, held: AtomicUsize::new(0) })
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// One request's part of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Share {
    pub(crate) fn new(budget: &Arc<MemoryBudget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes more bytes of the budget.
    ///
    /// # Errors
    /// `unavailable` when they are not left.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<()> {
        self.take_anyway(bytes);
        if self.budget.held_bytes() > self.budget.bytes_max {
            return Err(Error::new(
                ErrorCode::Unavailable,
                format!("the requests at work hold the {} bytes that they may", self.budget.bytes_max),
                "try again in a second, or raise the server's memory_bytes_max",
            ));
        }
        Ok(())
    }

    /// Takes bytes that are there already, such as an answer's.
    pub(crate) fn take_anyway(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        self.budget.held.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

/// Bytes that keep their share of the budget as long as they live.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    pub(crate) _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_take_what_is_left_and_give_it_back() {
        let budget = MemoryBudget::new(100);
        let (mut a, mut b) = (Share::new(&budget), Share::new(&budget));
        assert!(a.take(60).is_ok() && a.take(40).is_ok());
        assert_eq!(b.take(1).map_err(|error| error.code), Err(ErrorCode::Unavailable));
        drop((a, b));
        assert_eq!(budget.held_bytes(), 0);
        let mut answer = Share::new(&budget);
        answer.take_anyway(150);
        let held = bytes::Bytes::from_owner(Held { bytes: vec![0; 150], _share: answer });
        assert!(Share::new(&budget).take(0).is_err());
        drop(held);
        assert!(Share::new(&budget).take(100).is_ok());
    }
}
