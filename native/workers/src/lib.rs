//! Python classes in processes of their own: batches in shared memory, a socket for the few words around them, and a supervisor that
//! starts, watches and ends the processes.
//!
//! ```text
//!   WorkerPool::start(options)      N processes run pyplatform/headrace/model_worker.py; the first must come up
//!   pool.run(features, rows, out)   takes an idle worker: columns -> shared memory, "batch", wait, scores <- shared memory
//!     exception                     the batch fails, the worker goes on
//!     end, hang, broken answer      the batch fails, the worker is killed and another one started
//!     too much memory               the batch is answered, then the same
//!   drop(pool)                      kills and reaps; the kernel does when this process is killed (PR_SET_PDEATHSIG)
//! ```

mod layout;
mod memory;
mod options;
mod output;
mod pool;
mod process;

pub use layout::ColumnType;
pub use options::WorkerOptions;
pub use pool::WorkerPool;
