//! Ctrl-C in long work: the work runs on a thread of its own while the caller's thread looks for signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use headrace_types::Error;
use pyo3::prelude::*;

use crate::error::{Outcome, guarded};

/// How long Ctrl-C may go unnoticed.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs work that checks the flag given to it, and sets that flag when a signal handler raises. The interpreter is free meanwhile.
pub(crate) fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(Arc<AtomicBool>) -> Result<T, Error> + Send,
) -> Outcome<T> {
    let cancel = &Arc::new(AtomicBool::new(false));
    let (result, interrupt) = py.detach(|| {
        let (sender, receiver) = sync_channel(1);
        std::thread::scope(move |scope| {
            let flag = Arc::clone(cancel);
            scope.spawn(move || {
                // The receiver lives until this scope ends, so the send cannot fail.
                let _ = sender.send(guarded(|| work(flag)));
            });
            let mut interrupt = None;
            loop {
                match receiver.recv_timeout(SIGNAL_CHECK_INTERVAL) {
                    Ok(result) => return (result, interrupt),
                    Err(RecvTimeoutError::Timeout) if interrupt.is_none() => {
                        interrupt = Python::attach(|py| py.check_signals()).err();
                        cancel.store(interrupt.is_some(), Ordering::Relaxed);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return (Err(Error::internal("a worker thread ended without a result")), interrupt);
                    }
                }
            }
        })
    });
    match interrupt {
        Some(error) => Err(error.into()),
        None => Ok(result?),
    }
}
