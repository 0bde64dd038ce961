//! A few threads over a list of jobs, and the flag that stops them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use headrace_types::{Error, ErrorCode, Result};

/// Rows between two looks at the flag.
pub(super) const CANCEL_CHECK_ROWS: usize = 8_192;

/// Whether the caller has asked to stop.
#[derive(Clone, Copy)]
pub(super) struct Cancel<'a>(Option<&'a AtomicBool>);

impl<'a> Cancel<'a> {
    pub(super) fn new(flag: Option<&'a AtomicBool>) -> Self {
        Self(flag)
    }

    pub(super) fn check(self) -> Result<()> {
        if self.0.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Error::new(ErrorCode::Cancelled, "the join was cancelled", ""));
        }
        Ok(())
    }
}

/// Runs a function over each item on at most `threads` threads; results are in the order of the items.
///
/// # Errors
/// The first item's error; items not yet begun are then left out.
pub(super) fn parallel_map<'a, T: Sync, R: Send>(
    threads: usize,
    items: &'a [T],
    work: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if threads <= 1 || items.len() <= 1 {
        return items.iter().map(work).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worker = || {
        let mut results = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = work(item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            results.push((index, result));
        }
        results
    };
    let mut results = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads.min(items.len())).map(|_| scope.spawn(worker)).collect();
        let mut results = worker();
        for helper in helpers {
            match helper.join() {
                Ok(more) => results.extend(more),
                Err(_) => results.push((0, Err(Error::internal("a thread of the join stopped by a panic")))),
            }
        }
        results
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        let squares = parallel_map(4, &items, |item| Ok(item * item)).unwrap();
        assert_eq!(squares, items.iter().map(|item| item * item).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_ends_the_work() {
        let items: Vec<usize> = (0..100).collect();
        let result = parallel_map(4, &items, |item| if *item == 7 { Err(Error::internal("seven")) } else { Ok(*item) });
        assert_eq!(result.unwrap_err().message, "seven");
    }

    #[test]
    fn a_set_flag_cancels() {
        let flag = AtomicBool::new(false);
        let cancel = Cancel::new(Some(&flag));
        assert!(cancel.check().is_ok());
        flag.store(true, Ordering::Relaxed);
        assert_eq!(cancel.check().unwrap_err().code, ErrorCode::Cancelled);
        assert!(Cancel::new(None).check().is_ok());
    }
}
