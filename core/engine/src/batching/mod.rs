//! Batching for models of which one call is dear: their requests queue, and one call answers several.
//!
//! ```text
//!   request -> rows of features -> admission -> queue (due time) -> executor takes what is due, up to a batch -> model -> each request its rows
//! ```
//!
//! - **Work-conserving.** An executor that is free starts with what is there: nothing waits for company. Batches grow only because the
//!   executors are busy.
//! - **The cost is learned**: a call takes `fixed + per_row * rows`, fitted to the last calls. A batch has as many rows as half of the
//!   latency objective allows, and larger requests are cut.
//! - **Due first.** A request is due at its deadline, or when the objective is over if that is earlier. A level of priority moves that by
//!   one objective, so a low priority waits longer but is always reached: what comes later is due later.
//! - **Refused early.** A request that would by prediction end after its deadline (or without one, after the objective) is refused when it
//!   comes, with the reason. One whose deadline passes in the queue, or whose caller has gone, is dropped when its turn comes.
//! - **A bad row fails alone.** A call that fails is repeated in halves until the rows that make it fail are found.

mod cost;
mod executor;
mod job;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use headrace_types::Model;

use executor::{BatcherOptions, Turns};
use queue::QueueLimits;

pub(crate) use executor::Batcher;
pub use executor::QueueStats;
pub(crate) use job::{Answered, Ask};
pub use queue::RefusalReason;

/// What all queues of an engine share.
#[derive(Debug)]
pub(crate) struct Batching {
    options: BatchingOptions,
    turns: Arc<Turns>,
}

/// How requests queue for models of which one call is dear.
#[derive(Debug, Clone)]
pub struct BatchingOptions {
    /// How long a request shall take at most, from its arrival to its answer, unless it brings a deadline: what would take longer is
    /// refused at once. It also sets how large a batch may be, and how long a lower priority may wait for higher ones.
    pub objective: Duration,
    /// The objective of single models, by name.
    pub objectives: HashMap<String, Duration>,
    /// Requests that wait for one model.
    pub requests_max: usize,
    /// Calls at a time of all models that compute in this process; 0 for one for each processor.
    pub calls_at_a_time: usize,
}

impl Default for BatchingOptions {
    fn default() -> Self {
        Self { objective: Duration::from_secs(1), objectives: HashMap::new(), requests_max: 10_000, calls_at_a_time: 0 }
    }
}

impl Batching {
    pub(crate) fn new(options: BatchingOptions) -> Self {
        let calls = match options.calls_at_a_time {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            calls => calls,
        };
        Self { options: BatchingOptions { calls_at_a_time: calls, ..options }, turns: Turns::new(calls) }
    }

    /// A queue for a model.
    pub(crate) fn batcher(&self, name: &str, model: &Arc<dyn Model>) -> Batcher {
        let options = &self.options;
        let objective = options.objectives.get(name).copied().unwrap_or(options.objective);
        let executors = if model.waits() { model.calls_at_a_time().max(1) } else { options.calls_at_a_time };
        let limits = QueueLimits { objective, requests_max: options.requests_max, executors };
        let turns = (!model.waits()).then(|| Arc::clone(&self.turns));
        Batcher::new(name, Arc::clone(model), BatcherOptions { limits, turns })
    }
}
