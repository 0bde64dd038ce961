//! The flights project as a plan, for tests to take parts from.
#![allow(dead_code, clippy::unwrap_used)]

use headrace_features::Plan;
use headrace_types::{Error, ErrorCode};
use serde_json::{Value, json};

pub(crate) fn flights() -> Value {
    let file = |event_ts: Value| {
        json!({"kind": "file", "path": "rows.parquet", "format": "parquet", "event_ts": event_ts, "created_ts": null,
               "available_after_us": null, "rename": {}})
    };
    let float = |name: &str| json!({"name": name, "dtype": "float64"});
    let call = |op: &str, args: Value| json!({"op": op, "args": args});
    let col = |name: &str| json!({"op": "col", "name": name});
    json!({
        "format": 1,
        "project": "flights",
        "entities": {
            "airport": {"join_keys": [{"name": "origin", "dtype": "string"}]},
            "plane": {"join_keys": [{"name": "tailnum", "dtype": "string"}]},
            "carrier": {"join_keys": [{"name": "carrier", "dtype": "string"}]},
        },
        "views": {
            "weather": {"entities": ["airport"], "fields": [float("temp"), float("wind_dir"), float("wind_speed")],
                        "ttl_us": 10_800_000_000i64, "source": file(json!("time_hour"))},
            "plane": {"entities": ["plane"], "fields": [{"name": "year", "dtype": "int32"}, {"name": "model", "dtype": "string"}],
                      "source": file(Value::Null)},
            "carrier_delay": {"entities": ["carrier"], "fields": [float("carrier_last_delay")], "source": file(json!("finished"))},
            "plane_delay": {"entities": ["plane"], "fields": [float("plane_last_delay")], "source": file(json!("finished"))},
        },
        "on_demand_views": {
            "departure": {
                "inputs": [{"name": "planned_departure", "dtype": "timestamp", "from": "request"},
                           {"name": "wind_dir", "dtype": "float64", "from": "weather"},
                           {"name": "wind_speed", "dtype": "float64", "from": "weather"},
                           {"name": "year", "dtype": "int32", "from": "plane"}],
                "fields": [
                    {"name": "hour_sin", "dtype": "float64",
                     "expr": call("sin", json!([call("mul", json!([call("hour", json!([col("planned_departure")])),
                                                                  {"op": "lit", "dtype": "float64", "value": 0.261_799_387_799_149_4}]))]))},
                    {"name": "crosswind", "dtype": "float64",
                     "expr": call("mul", json!([col("wind_speed"), call("sin", json!([call("radians", json!([col("wind_dir")]))]))]))},
                    {"name": "plane_age", "dtype": "int64",
                     "expr": call("sub", json!([call("year", json!([col("planned_departure")])), col("year")]))},
                ],
            },
        },
        "services": {
            "departure_risk": {"features": [
                {"view": "weather", "feature": "temp", "name": "temp"},
                {"view": "departure", "feature": "hour_sin", "name": "hour_sin"},
                {"view": "carrier_delay", "feature": "carrier_last_delay", "name": "carrier_last_delay"},
                {"view": "departure", "feature": "crosswind", "name": "crosswind"},
                {"view": "plane_delay", "feature": "plane_last_delay", "name": "plane_last_delay"},
                {"view": "departure", "feature": "plane_age", "name": "plane_age"},
            ]},
        },
    })
}

/// The flights plan after a change.
pub(crate) fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut plan = flights();
    change(&mut plan);
    plan
}

pub(crate) fn plan(json: &Value) -> Plan {
    Plan::from_json(&json.to_string()).unwrap()
}

pub(crate) fn refused(json: &Value) -> Error {
    let error = Plan::from_json(&json.to_string()).unwrap_err();
    assert_ne!(error.code, ErrorCode::Internal, "{error}");
    error
}
