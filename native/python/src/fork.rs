//! Fork safety: locks and threads do not survive a fork, so a handle made before one refuses to work after it, by name.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use headrace_types::{Error, ErrorCode, Result};
use pyo3::prelude::*;

/// How many forks lie between the first process and this one. A relaxed load of it costs nothing; asking for the process id is a system call.
static GENERATION: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_fork() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Asks the C library to count forks in the child. Called when the module is imported.
pub(crate) fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler only increments an atomic, which is allowed between fork and exec.
        unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
    });
}

unsafe extern "C" {
    /// glibc's `atexit` whose handler is told the exit status.
    #[cfg(target_env = "gnu")]
    fn on_exit(
        handler: extern "C" fn(status: libc::c_int, argument: *mut libc::c_void),
        argument: *mut libc::c_void,
    ) -> libc::c_int;
}

#[cfg(target_env = "gnu")]
extern "C" fn end_now(status: libc::c_int, _argument: *mut libc::c_void) {
    // SAFETY: flushing all streams and ending the process are allowed in an exit handler.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(status);
    }
}

/// Lets a forked child end without the exit handlers that it has inherited: RocksDB's would wait for threads that only the parent has.
///
/// The interpreter has ended by then; handlers registered after this call still run, since the last one registered runs first.
#[pyfunction]
pub(crate) fn skip_inherited_exit_handlers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the handler takes no argument and lives as long as the program.
    unsafe {
        on_exit(end_now, std::ptr::null_mut());
    }
}

/// Remembers the process in which a handle was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForkGuard(u64);

impl ForkGuard {
    pub(crate) fn new() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// # Errors
    /// `used_after_fork` naming the class.
    #[inline]
    pub(crate) fn check(self, class: &str) -> Result<()> {
        if self.0 == GENERATION.load(Ordering::Relaxed) { Ok(()) } else { Err(used_after_fork(class)) }
    }
}

#[cold]
fn used_after_fork(class: &str) -> Error {
    Error::new(
        ErrorCode::UsedAfterFork,
        format!("this {class} was made before the process forked"),
        format!("make the {class} in the child process, after the fork"),
    )
}
