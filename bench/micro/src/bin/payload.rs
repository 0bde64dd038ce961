//! What the payload log costs a lookup: off, on with a key that is not sampled, and on with every key sampled.
//!
//! 50 float64 features of an int64 key, and of a string key, in a store without rows: the log's part does not depend on what is found.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use headrace_engine::{Engine, EngineOptions, FeatureRequest, PayloadLog, PayloadOptions};
use headrace_features::{LocalStore, Plan, StoreOptions};
use headrace_micro::{Timed, print_table, time_in_turns};
use headrace_types::{Batch, Column, ColumnData, Result};

const FEATURES: usize = 50;
/// So small a share that no key is sampled.
const NONE: f64 = 1e-18;

fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("headrace-micro-payload-{}", std::process::id()));
    for (dtype, rows) in [("int64", 1), ("int64", 100), ("string", 1), ("string", 100)] {
        let plan = Arc::new(Plan::from_json(&plan_json(dtype))?);
        let store = Arc::new(LocalStore::create(&plan, StoreOptions { bytes_max: 1 << 24, huge_pages: false })?);
        let engine = |sample: Option<f64>| -> Result<Engine> {
            let log = sample.map(|sample| PayloadLog::start(options(&folder, sample))).transpose()?;
            let engine = Engine::new(EngineOptions { payload: log.map(Arc::new), ..EngineOptions::default() });
            engine.install(Arc::clone(&store), Arc::clone(&plan))?;
            Ok(engine)
        };
        let requests: Vec<FeatureRequest> = (0..64).map(|number| request(dtype, rows, number)).collect();
        let engines = [("off", engine(None)?), ("not sampled", engine(Some(NONE))?), ("sampled", engine(Some(1.0))?)];
        let mut timed: Vec<Timed<'_>> = engines
            .iter()
            .map(|(name, engine)| {
                Timed::new(*name, rows, |call| {
                    let found = engine.get_online_features("features", &requests[call % requests.len()]);
                    std::hint::black_box(found.is_ok());
                })
            })
            .collect();
        time_in_turns(&mut timed);
        print_table(&format!("{FEATURES} features, {dtype} key"), &timed)?;
        let stats = engines[2].1.payload().map(PayloadLog::stats).unwrap_or_default();
        let all = stats.written_rows + stats.waiting_rows + stats.dropped_full_rows;
        print_dropped(stats.dropped_full_rows, all)?;
    }
    drop(std::fs::remove_dir_all(&folder));
    Ok(())
}

fn print_dropped(dropped: u64, all: u64) -> io::Result<()> {
    use io::Write;
    writeln!(io::stdout(), "  of {all} sampled rows {dropped} found no room\n")
}

fn options(folder: &std::path::Path, sample: f64) -> PayloadOptions {
    PayloadOptions { sample, ..PayloadOptions::new(PathBuf::from(folder)) }
}

fn request(dtype: &str, rows: usize, number: usize) -> FeatureRequest {
    let ids = (0..rows).map(|row| number * rows + row);
    #[allow(clippy::cast_possible_wrap)] // small numbers
    let keys = match dtype {
        "int64" => ColumnData::Int64(ids.map(|id| id as i64).collect()),
        _ => ColumnData::String(ids.map(|id| format!("user-{id:08}")).collect()),
    };
    let entities = Batch { rows, columns: vec![("user".to_owned(), Column::new(keys))] };
    FeatureRequest { entities, ..FeatureRequest::default() }
}

fn plan_json(dtype: &str) -> String {
    let names: Vec<String> = (0..FEATURES).map(|number| format!("f{number}")).collect();
    let fields: Vec<String> = names.iter().map(|name| format!(r#"{{"name": "{name}", "dtype": "float64"}}"#)).collect();
    let features: Vec<String> =
        names.iter().map(|name| format!(r#"{{"view": "profile", "feature": "{name}", "name": "{name}"}}"#)).collect();
    let about = r#""description": "", "tags": {}, "owner": """#;
    format!(
        r#"{{"format": 1, "project": "micro",
        "entities": {{"user": {{"join_keys": [{{"name": "user", "dtype": "{dtype}"}}], {about}}}}},
        "views": {{"profile": {{"entities": ["user"], "fields": [{}], "ttl_us": null, "online": true, {about}, "source":
            {{"kind": "push", "event_ts": "at", "created_ts": null, "available_after_us": null, "rename": {{}}}}}}}},
        "on_demand_views": {{}},
        "services": {{"features": {{"features": [{}], "full_feature_names": false, {about}}}}}}}"#,
        fields.join(", "),
        features.join(", ")
    )
}
