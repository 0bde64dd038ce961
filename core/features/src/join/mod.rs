//! The point-in-time join: for each entity row, the features as they were known at its time.
//!
//! For each view on its own: of the source rows with the entity row's key and `event_ts <= t`, the one with the largest
//! (event_ts, created_ts, input order) is taken; then it is judged as a lookup judges it, by tombstone and TTL, both ends inclusive.
//! With a cutoff only rows with `created_ts <= cutoff` take part. The output has exactly the entity rows, in their order.
//!
//! How: keys become dense group numbers (`groups`), the entity rows of each group are sorted by time (`moments`), and source rows are taken in
//! one by one, in any order, of which the newest for each moment is kept (`newest`, `held`). Where more of a source is needed, all its rows are
//! held: views of aggregates (`windows`), and cutoffs that go back while time goes on (`view`, `timeline`). On-demand features are computed
//! over the result (`computed`, `complete`). `run` drives it all; `partition` cuts a join into independent parts.

mod complete;
mod computed;
mod entities;
mod groups;
mod held;
mod moments;
mod newest;
mod parallel;
mod partition;
mod run;
mod source;
mod timeline;
mod view;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::RecordBatch;

pub use complete::complete_join;
pub use computed::column_array;
pub use partition::partition_rows;
pub use run::{PointInTimeJoin, point_in_time_join};
pub use source::{CREATED_TS_COLUMN, DELETED_COLUMN, EVENT_TS_COLUMN, SourceRows};
pub use view::ViewCounts;

/// What ends the name of a column of statuses: `temp__status`.
pub const STATUS_SUFFIX: &str = "__status";

/// The largest number of rows of an entity frame or a source.
pub const JOIN_ROWS_MAX: usize = u32::MAX as usize - 1;

/// Which source rows count, by the time at which they became known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AsKnownAt {
    /// All of them: a row that became known after the entity row's time counts too.
    #[default]
    Off,
    /// Those known at the entity row's event time.
    EventTime,
    /// Those known at the time in this column of the entity rows.
    Column(String),
}

/// How to join.
#[derive(Debug, Clone, Default)]
pub struct JoinOptions {
    /// The column of the entity rows with their time.
    pub event_ts_column: String,
    /// The cutoff.
    pub as_known_at: AsKnownAt,
    /// The number of threads; 0 takes one per core.
    pub threads: usize,
    /// Whether to add a column of statuses for each feature.
    pub statuses: bool,
    /// Source rows that cannot be an answer any more are let go when those held exceed so many bytes; 0 keeps them.
    pub held_bytes_max: usize,
    /// Set it to make the join stop with the error `cancelled`.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// What the join has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JoinCounts {
    /// Entity rows.
    pub rows: u64,
    /// By view.
    pub views: BTreeMap<String, ViewCounts>,
}

/// A training set.
#[derive(Debug, Clone)]
pub struct JoinOutput {
    /// The entity rows as given, then the service's features in order, then, if asked for, a column of statuses for each.
    pub batch: RecordBatch,
    /// What was found and what was left out.
    pub counts: JoinCounts,
}
