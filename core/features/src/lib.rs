//! Features: the compiled plan of a project, the point-in-time join that makes training sets from it, and the online store that serves it.
//!
//! Offline and online must agree, so both start here: one [`Plan`], one row order
//! ([`RowVersion`](headrace_types::RowVersion)), one meaning of TTL and of null, one program for what is computed on demand.

mod arrow;
#[cfg(feature = "conformance")]
pub mod conformance;
mod join;
mod online;
mod plan;
mod windows;

pub use arrow::{arrow_type, plain_array, plain_column};
pub use join::{
    AsKnownAt, CREATED_TS_COLUMN, DELETED_COLUMN, EVENT_TS_COLUMN, JOIN_ROWS_MAX, JoinCounts, JoinOptions, JoinOutput,
    PointInTimeJoin, STATUS_SUFFIX, SourceRows, ViewCounts, column_array, complete_join, partition_rows,
    point_in_time_join,
};
pub use online::{
    ApplyCounts, EncodeOptions, EncodedBatch, EncodedKeys, EncodedRows, KeysRef, LocalStore, OnlinePlan, OnlineStore,
    OpenMode, REFUSED_FUTURE, REFUSED_NULL_EVENT_TS, REFUSED_NULL_KEY, StoreOptions, StoreSnapshot, StoredColumns,
    TableKeys, TableReader, TableStats, encode_rows,
};
pub use plan::{
    Breaking, DefinitionKind, DefinitionRef, ENTITIES_PER_VIEW_MAX, EntityPlan, FEATURES_PER_SERVICE_MAX,
    FIELDS_PER_VIEW_MAX, FeatureFrom, InputFrom, JOIN_KEYS_MAX, NAME_BYTES_MAX, OnDemandInput, OnDemandViewPlan,
    PLAN_BYTES_MAX, PLAN_FORMAT, Plan, PlanDiff, REQUEST, ServiceFeature, ServicePlan, Source, StoredFeature,
    TablePlan, ViewPlan,
};
pub use windows::{GROUPS_MAX, HOPS_PER_WINDOW_MAX, LAST_K_MAX, WINDOW_US_MAX, WindowKind, WindowStats};
