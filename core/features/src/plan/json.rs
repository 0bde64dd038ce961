//! The plan as it is written: strict serde structures, read piece by piece so that a fault is named by its definition.

use std::collections::BTreeMap;

use headrace_types::{DType, Error, ErrorCode, Field, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The plan format that this version writes and reads.
pub const PLAN_FORMAT: u64 = 1;
/// The largest plan, in bytes of JSON.
pub const PLAN_BYTES_MAX: usize = 64 << 20;

/// The top of a plan; its definitions are read one by one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanJson {
    #[serde(rename = "format")]
    _format: u64,
    pub(super) project: String,
    #[serde(default)]
    pub(super) entities: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) views: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) on_demand_views: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) services: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntityJson {
    pub(super) join_keys: Vec<Field>,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) owner: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ViewJson {
    pub(super) entities: Vec<String>,
    pub(super) fields: Vec<Field>,
    /// Functions over windows; then the fields are columns of events, and these are the features.
    #[serde(default)]
    pub(super) aggregations: Vec<Value>,
    #[serde(default)]
    pub(super) ttl_us: Option<i64>,
    #[serde(default = "yes")]
    pub(super) online: bool,
    pub(super) source: Source,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) owner: String,
}

fn yes() -> bool {
    true
}

/// Where the rows of a view come from. The core reads its time columns only; opening files is the SDK's work.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// `file` or `push`.
    pub kind: String,
    /// Of a file source: a file, folder or glob.
    #[serde(default)]
    pub path: Option<String>,
    /// Of a file source: `parquet`, `csv`, `jsonl` or `delta`.
    #[serde(default)]
    pub format: Option<String>,
    /// Of a Delta table: the version (a number) or the time (ISO 8601) to read it at; none reads the newest.
    #[serde(default)]
    pub as_of: Option<String>,
    /// The column of the event time; none for static rows, which are always true.
    #[serde(default)]
    pub event_ts: Option<String>,
    /// The column of the time at which a row became known.
    #[serde(default)]
    pub created_ts: Option<String>,
    /// Without a creation time, a row became known this long after its event time.
    #[serde(default)]
    pub available_after_us: Option<i64>,
    /// Column of the source -> name in the view.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnDemandJson {
    pub(super) inputs: Vec<InputJson>,
    pub(super) fields: Vec<ExprFieldJson>,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) owner: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputJson {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) from: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExprFieldJson {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) expr: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceJson {
    pub(super) features: Vec<FeatureJson>,
    #[serde(default)]
    pub(super) full_feature_names: bool,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) owner: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeatureJson {
    pub(super) view: String,
    pub(super) feature: String,
    pub(super) name: String,
}

/// Reads the text of a plan into its top and its canonical form.
pub(super) fn read(text: &str) -> Result<(PlanJson, String)> {
    if text.len() > PLAN_BYTES_MAX {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("the plan has {} bytes, the limit is {PLAN_BYTES_MAX}", text.len()),
            "divide the project",
        ));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Error::new(
            ErrorCode::InvalidJson,
            format!("the plan is not JSON: {error}"),
            "make it again with `headrace apply`",
        )
    })?;
    let canonical = value.to_string();
    match value.get("format").and_then(Value::as_u64) {
        Some(PLAN_FORMAT) => {}
        Some(format) if format > PLAN_FORMAT => {
            return Err(Error::new(
                ErrorCode::NewerFormat,
                format!("the plan has format {format}, this version reads up to {PLAN_FORMAT}"),
                "upgrade headrace",
            ));
        }
        _ => {
            return Err(Error::new(
                ErrorCode::InvalidDefinition,
                format!("the plan has no format {PLAN_FORMAT}"),
                "make it again with `headrace apply`",
            ));
        }
    }
    Ok((definition(value).map_err(|error| error.within("plan"))?, canonical))
}

/// Reads one definition strictly: a member that is not known is refused by name.
pub(crate) fn definition<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| {
        Error::new(
            ErrorCode::InvalidDefinition,
            error.to_string().replace('`', "'"),
            "correct the definition and apply again",
        )
    })
}
