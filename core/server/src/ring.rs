//! A bounded queue between the threads that answer requests and one that reports on them. Who puts something in never waits for the
//! reporter: what finds no room is dropped and counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Ring<T> {
    items_max: usize,
    /// The reporter is woken before its time when so many are there.
    wake_at: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    is_closed: bool,
}

impl<T> Ring<T> {
    pub(crate) fn new(items_max: usize, wake_at: usize) -> Self {
        let state = Mutex::new(State { items: VecDeque::new(), is_closed: false });
        Self { items_max, wake_at, state, changed: Condvar::new(), dropped: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: T) {
        let mut state = self.state();
        if state.is_closed || state.items.len() >= self.items_max {
            drop(state);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.items.push_back(item);
        let is_time = state.items.len() == self.wake_at;
        drop(state);
        if is_time {
            self.changed.notify_one();
        }
    }

    /// At most so many items, oldest first, after waiting until enough are there, the time is over, or the ring is closed. `None` when it
    /// is closed and empty.
    pub(crate) fn take(&self, count_max: usize, wait: Duration) -> Option<Vec<T>> {
        let mut state = self.state();
        let must_wait = |state: &mut State<T>| state.items.len() < self.wake_at && !state.is_closed;
        if must_wait(&mut state) {
            state = self.changed.wait_timeout_while(state, wait, must_wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.items.is_empty() && state.is_closed {
            return None;
        }
        let count = state.items.len().min(count_max);
        Some(state.items.drain(..count).collect())
    }

    /// Waits until the time is over, or the ring is closed.
    pub(crate) fn pause(&self, wait: Duration) {
        let closed = self.changed.wait_timeout_while(self.state(), wait, |state| !state.is_closed);
        drop(closed.unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes nothing in any more; what is there can still be taken.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Items that found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn it_is_bounded_and_counts_what_finds_no_room() {
        let ring = Ring::new(3, 2);
        (0..5).for_each(|item| ring.push(item));
        assert_eq!(ring.dropped(), 2);
        assert_eq!(ring.take(2, Duration::ZERO), Some(vec![0, 1]));
        ring.push(9);
        assert_eq!(ring.take(9, Duration::ZERO), Some(vec![2, 9]));
        assert_eq!(ring.take(9, Duration::ZERO), Some(Vec::new()));
    }

    #[test]
    fn a_closed_ring_gives_what_it_has_and_ends() {
        let ring = Ring::new(3, 1);
        ring.push(1);
        ring.close();
        ring.push(2);
        assert_eq!((ring.take(9, Duration::MAX), ring.take(9, Duration::MAX)), (Some(vec![1]), None));
        assert_eq!(ring.dropped(), 1);
        ring.pause(Duration::MAX);
    }

    #[test]
    fn the_reporter_is_woken_by_enough_items_and_by_the_end() {
        let ring = Arc::new(Ring::new(100, 3));
        let other = Arc::clone(&ring);
        let taker = std::thread::spawn(move || {
            let mut all = Vec::new();
            while let Some(items) = other.take(100, Duration::MAX) {
                all.extend(items);
            }
            all
        });
        (0..10).for_each(|item| ring.push(item));
        ring.close();
        assert_eq!(taker.join().unwrap_or_default(), (0..10).collect::<Vec<_>>());
    }
}
