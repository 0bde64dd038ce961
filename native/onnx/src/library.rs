//! The process's one ONNX Runtime: opened at its first use, never closed, because its threads and exit handlers may outlive any handle.

use std::ffi::{CStr, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use headrace_types::{Error, ErrorCode, Result};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use crate::api::{API_VERSION, Api, ApiBase, OrtAllocator, OrtEnv, OrtMemoryInfo, Status};
use crate::status::{check, unavailable};

/// Messages of the library below this are not printed: errors come back as statuses.
const LOG_FATAL: c_int = 4;
const ARENA_ALLOCATOR: c_int = 1;
const MEMORY_DEFAULT: c_int = 0;
/// Threads that may be asked for.
const THREADS_MAX: usize = 1024;

static OPENED: OnceLock<Arc<Library>> = OnceLock::new();
/// Held by who opens the library.
static OPENING: Mutex<()> = Mutex::new(());
/// The process that opens it, or 0: a child that was forked meanwhile must not wait for a thread of its parent.
static OPENER: AtomicU32 = AtomicU32::new(0);

/// The functions and the environment of the opened library.
#[derive(Debug)]
pub struct Library {
    pub(crate) api: Api,
    pub(crate) env: *mut OrtEnv,
    pub(crate) memory: *mut OrtMemoryInfo,
    pub(crate) allocator: *mut OrtAllocator,
    version: String,
    path: PathBuf,
    /// The process that opened it, in which the threads of its pool run.
    owner: u32,
}

// SAFETY: environment, memory info and default allocator are made once and documented as usable from any thread at once.
unsafe impl Send for Library {}
// SAFETY: as above; nothing here changes after `open`.
unsafe impl Sync for Library {}

impl Library {
    /// Opens the library, with one pool of `threads` threads for all sessions; 1 has no pool: a session runs on the thread that calls it.
    /// A process has one: later calls get what the first one opened. A forked child has its parent's, and no thread of the pool: what it
    /// loads runs on the thread that calls it.
    ///
    /// # Errors
    /// `unavailable` when there is no such file, or it is no ONNX Runtime of version 1.17 or later; `used_after_fork` in a child that was
    /// forked while its parent opened it.
    pub fn open(path: &Path, threads: usize) -> Result<Arc<Self>> {
        if let Some(library) = OPENED.get() {
            return Ok(Arc::clone(library));
        }
        let own = process::id();
        if ![0, own].contains(&OPENER.load(Ordering::Acquire)) {
            return Err(used_after_fork("ONNX Runtime was being opened when the process forked"));
        }
        OPENER.store(own, Ordering::Release);
        let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = OPENED.get() {
            return Ok(Arc::clone(library));
        }
        OPENER.store(own, Ordering::Release); // who held the lock before has cleared it
        let loaded = load(path, threads).map(|library| Arc::clone(OPENED.get_or_init(|| Arc::new(library))));
        OPENER.store(0, Ordering::Release);
        loaded
    }

    /// Whether this process was forked from the one that opened the library.
    pub(crate) fn is_inherited(&self) -> bool {
        self.owner != process::id()
    }

    /// The library's own version, such as 1.32.0.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn load(path: &Path, threads: usize) -> Result<Library> {
    let place = |message: String| unavailable(format!("ONNX Runtime '{}': {message}", path.display()));
    // SAFETY: opening a library runs its initializers. The path is the operator's setting or a wheel that they installed; its symbols
    // stay local, so that they meet no other copy of the library in this process.
    let handle =
        unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| place(error.to_string()))?;
    // SAFETY: the symbol has this type in every version of the library.
    let base = unsafe { handle.get::<unsafe extern "C" fn() -> *const ApiBase>(b"OrtGetApiBase\0") }
        .map_err(|error| place(error.to_string()))?;
    // SAFETY: the function takes nothing and returns a pointer to a static.
    let base = unsafe { base().as_ref() }.ok_or_else(|| place("it has no API".into()))?;
    // SAFETY: the text is a static C string.
    let version = unsafe { CStr::from_ptr((base.get_version_string)()) }.to_string_lossy().into_owned();
    // SAFETY: any version may be asked for; one that the library does not have is answered with null.
    let table = unsafe { (base.get_api)(API_VERSION) };
    if table.is_null() {
        return Err(place(format!("version {version} is too old, 1.{API_VERSION} is needed")));
    }
    // SAFETY: it is the library's table of version 17.
    let api = unsafe { Api::of_table(table) };
    // The handle is forgotten on purpose: the library stays open to the end of the process.
    std::mem::forget(handle);
    let env = environment(&api, threads).map_err(|error| place(error.message))?;
    let mut memory = ptr::null_mut();
    // SAFETY: the out pointer is ours; 1 and 0 are the arena allocator and the default memory of the header.
    call(&api, unsafe { (api.create_cpu_memory_info)(ARENA_ALLOCATOR, MEMORY_DEFAULT, &mut memory) })?;
    let mut allocator = ptr::null_mut();
    // SAFETY: the out pointer is ours; the allocator belongs to the library.
    call(&api, unsafe { (api.get_allocator_with_default_options)(&mut allocator) })?;
    Ok(Library { api, env, memory, allocator, version, path: path.to_owned(), owner: process::id() })
}

fn environment(api: &Api, threads: usize) -> Result<*mut OrtEnv> {
    let threads = c_int::try_from(threads.clamp(1, THREADS_MAX)).unwrap_or(1);
    let mut options = ptr::null_mut();
    // SAFETY: the out pointer is ours.
    call(api, unsafe { (api.create_threading_options)(&mut options) })?;
    let mut env = ptr::null_mut();
    // SAFETY: `options` was made above and is alive; the name is a C string; the out pointer is ours.
    let made = unsafe {
        call(api, (api.set_global_intra_op_num_threads)(options, threads))
            .and_then(|()| call(api, (api.set_global_inter_op_num_threads)(options, 1)))
            .and_then(|()| call(api, (api.set_global_spin_control)(options, 0)))
            .and_then(|()| {
                call(api, (api.create_env_with_global_thread_pools)(LOG_FATAL, c"headrace".as_ptr(), options, &mut env))
            })
    };
    // SAFETY: it was made above, and the environment keeps a copy.
    unsafe { (api.release_threading_options)(options) };
    made?;
    // SAFETY: the environment was made above.
    call(api, unsafe { (api.disable_telemetry_events)(env) })?;
    Ok(env)
}

pub(crate) fn used_after_fork(message: &str) -> Error {
    Error::new(ErrorCode::UsedAfterFork, message, "load the model in the child process, after the fork")
}

/// A status that only a defect or a lack of memory can cause.
pub(crate) fn call(api: &Api, status: Status) -> Result<()> {
    // SAFETY: callers pass what a function of the table has just returned.
    unsafe { check(api, status) }.map_err(|text| Error::internal(format!("ONNX Runtime: {text}")))
}

/// Frees what the library allocated for its caller.
///
/// # Safety
/// `pointer` came from a function of this library that was given its default allocator.
pub(crate) unsafe fn free(library: &Library, pointer: *mut c_void) {
    // SAFETY: the caller's promise.
    let status = unsafe { (library.api.allocator_free)(library.allocator, pointer) };
    drop(call(&library.api, status));
}
