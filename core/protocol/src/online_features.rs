//! Feature lookup in the JSON that Feast's clients speak: entities by column in, one columnar object a feature out.

use headrace_engine::{Engine, FeatureRequest, FeatureResponse, FeatureService, RowError, shortened};
use headrace_types::{Batch, Column, Error, ErrorCode, FeatureStatus, Result};
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use crate::json::{ColumnSeed, Fault, KeyHandler, ObjectSeed, WRONG_VALUES_MAX, parse, separate, write, write_value};

/// The time that Feast writes beside a value without an event time. Lookups here do not return event times, so it stands beside
/// every value; the status says whether the value may be used.
const NO_EVENT_TIME: &str = "\"1970-01-01T00:00:00Z\"";

/// A decoded request: the service it names, and what to ask it.
#[derive(Debug)]
pub struct OnlineFeaturesRequest {
    pub service: std::sync::Arc<FeatureService>,
    pub features: FeatureRequest,
    /// Answer `view__feature` instead of the service's own names.
    pub full_feature_names: bool,
}

impl OnlineFeaturesRequest {
    /// The names of the features as they are asked for.
    pub(crate) fn names(&self, response: &FeatureResponse) -> Vec<String> {
        if self.full_feature_names {
            self.service.full_names()
        } else {
            response.features.iter().map(|field| field.name.clone()).collect()
        }
    }
}

/// The body as it stands: columns can be typed only when the service is known.
struct Body<'de, 'f> {
    fault: &'f Fault,
    entities: Option<&'de RawValue>,
    request: Option<&'de RawValue>,
    request_context: Option<&'de RawValue>,
    feature_service: Option<String>,
    lists_features: bool,
    full_feature_names: bool,
}

impl<'de> KeyHandler<'de> for Body<'de, '_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "entities" => self.entities = map.next_value()?,
            "request" => self.request = map.next_value()?,
            "request_context" => self.request_context = map.next_value()?,
            "feature_service" => self.feature_service = map.next_value()?,
            "full_feature_names" => self.full_feature_names = map.next_value::<Option<bool>>()?.unwrap_or(false),
            "features" => self.lists_features |= map.next_value::<Option<IgnoredAny>>()?.is_some(),
            // Feast's clients send it; there is one version of a view here.
            "include_feature_view_version_metadata" => drop(map.next_value::<IgnoredAny>()?),
            _ => {
                return Err(self.fault.raise(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("the body has an unknown key '{}'", shortened(key)),
                    "use entities, feature_service, request (or request_context), full_feature_names",
                )));
            }
        }
        Ok(())
    }
}

/// Reads `{"entities": {column: [..]}, "feature_service": name, "full_feature_names"?, "request"?}`. Request fields may stand
/// among the entities, as in Feast, in `request` as in the Common API, or in `request_context`.
///
/// # Errors
/// `invalid_json`; `unknown_feature_service`; `invalid_argument` for a list of features instead of a service; `unknown_entity`,
/// `type_mismatch` naming the column.
pub fn decode_online_features(engine: &Engine, body: &[u8]) -> Result<OnlineFeaturesRequest> {
    let fault = Fault::default();
    let empty = Body {
        fault: &fault,
        entities: None,
        request: None,
        request_context: None,
        feature_service: None,
        lists_features: false,
        full_feature_names: false,
    };
    let parsed = parse(body, &fault, ObjectSeed { what: "the body", fault: Some(&fault), each: empty })?;
    let Some(name) = parsed.feature_service else {
        let what = if parsed.lists_features { "a list of features is not offered here" } else { "no service is named" };
        let hint = "define a FeatureService with these features, apply it, and send its name in feature_service";
        return Err(Error::new(ErrorCode::InvalidArgument, what, hint));
    };
    let service = engine.feature_service(&name)?;
    let mut columns = Columns {
        service: &service,
        fault: &fault,
        rows_max: engine.rows_max(),
        given: Vec::new(),
        row_errors: Vec::new(),
    };
    for (what, json) in
        [("entities", parsed.entities), ("request", parsed.request), ("request_context", parsed.request_context)]
    {
        let Some(json) = json else { continue };
        let seed = ObjectSeed { what, fault: Some(&fault), each: columns };
        columns = parse(json.get().as_bytes(), &fault, seed)?;
    }
    let Columns { given, row_errors, .. } = columns;
    let (keys, fields) =
        given.into_iter().partition(|(name, _)| service.join_keys().iter().any(|key| key.name == *name));
    let features = FeatureRequest { entities: batch(keys), request: batch(fields), row_errors };
    Ok(OnlineFeaturesRequest { service, features, full_feature_names: parsed.full_feature_names })
}

fn batch(columns: Vec<(String, Column)>) -> Batch {
    Batch { rows: columns.first().map_or(0, |(_, column)| column.len()), columns }
}

struct Columns<'a> {
    service: &'a FeatureService,
    fault: &'a Fault,
    rows_max: usize,
    given: Vec<(String, Column)>,
    row_errors: Vec<RowError>,
}

impl<'de> KeyHandler<'de> for Columns<'_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let field = self.service.field(key).map_err(|error| self.fault.raise::<A::Error>(error))?;
        let (column, errors) = map.next_value_seed(ColumnSeed {
            field,
            fault: self.fault,
            rows_max: self.rows_max,
            wrong_max: WRONG_VALUES_MAX.saturating_sub(self.row_errors.len()),
        })?;
        self.row_errors.extend(errors);
        self.given.push((field.name.clone(), column));
        Ok(())
    }
}

/// Writes the answer: the join keys as they were given, then the features.
pub fn encode_online_features(request: &OnlineFeaturesRequest, response: &FeatureResponse) -> Vec<u8> {
    let keys = &request.features.entities.columns;
    let names = request.names(response);
    let mut out = Vec::with_capacity(256 + 64 * response.rows * (keys.len() + names.len()));
    out.extend_from_slice(b"{\"metadata\":{\"feature_names\":");
    write(&mut out, &keys.iter().map(|(name, _)| name).chain(&names).collect::<Vec<_>>());
    out.extend_from_slice(b"},\"results\":[");
    let present = vec![FeatureStatus::Present; response.rows];
    let keys = keys.iter().map(|(_, column)| (column, &present));
    for (index, (column, statuses)) in keys.chain(response.columns.iter().zip(&response.statuses)).enumerate() {
        separate(&mut out, index);
        write_result(&mut out, column, statuses);
    }
    out.extend_from_slice(b"]}");
    out
}

fn write_result(out: &mut Vec<u8>, column: &Column, statuses: &[FeatureStatus]) {
    out.extend_from_slice(b"{\"values\":[");
    for row in 0..column.len() {
        separate(out, row);
        write_value(out, column, row);
    }
    out.extend_from_slice(b"],\"statuses\":[");
    for (row, status) in statuses.iter().enumerate() {
        separate(out, row);
        write(out, status.name());
    }
    out.extend_from_slice(b"],\"event_timestamps\":[");
    for row in 0..column.len() {
        separate(out, row);
        out.extend_from_slice(NO_EVENT_TIME.as_bytes());
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    use headrace_engine::EngineOptions;
    use headrace_features::{LocalStore, Plan, StoreOptions};
    use serde_json::{Value, json};

    /// A service over a view that has no rows, and one computed feature of each type that JSON writes in a way of its own.
    fn engine() -> Engine {
        let about = |mut json: Value| {
            json["description"] = "".into();
            json["owner"] = "".into();
            json["tags"] = json!({});
            json
        };
        let source =
            json!({"kind": "push", "event_ts": null, "created_ts": null, "available_after_us": null, "rename": {}});
        let col = |name: &str| json!({"op": "col", "name": name});
        let feature = |view: &str, name: &str| json!({"view": view, "feature": name, "name": name});
        let plan = json!({
            "format": 1, "project": "p",
            "entities": {"user": about(json!({"join_keys": [{"name": "user", "dtype": "int64"}]}))},
            "views": {"stored": about(json!({"entities": ["user"], "fields": [{"name": "score", "dtype": "float32"}], "ttl_us": null, "online": true, "source": source}))},
            "on_demand_views": {"made": about(json!({
                "inputs": [{"name": "at", "dtype": "timestamp", "from": "request"}, {"name": "x", "dtype": "float64", "from": "request"}],
                "fields": [{"name": "when", "dtype": "timestamp", "expr": col("at")},
                           {"name": "root", "dtype": "float64", "expr": {"op": "sqrt", "args": [col("x")]}}]}))},
            "services": {"s": about(json!({"full_feature_names": false,
                "features": [feature("stored", "score"), feature("made", "when"), feature("made", "root")]}))},
        });
        let plan = Arc::new(Plan::from_json(&plan.to_string()).unwrap());
        let store = LocalStore::create(&plan, StoreOptions { bytes_max: 1 << 22, huge_pages: false }).unwrap();
        let engine = Engine::new(EngineOptions::default());
        engine.install(Arc::new(store), plan).unwrap();
        engine
    }

    fn answer(body: &Value) -> Result<Value> {
        let engine = engine();
        let request = decode_online_features(&engine, body.to_string().as_bytes())?;
        let response = engine.look_up(&request.service, &request.features)?;
        Ok(serde_json::from_slice(&encode_online_features(&request, &response)).unwrap())
    }

    #[test]
    fn results_are_columnar_with_the_keys_first() {
        let body = json!({"entities": {"user": [7, null], "at": ["2013-01-31T10:00:00.5Z", "1970-01-01"]}, "request_context": {"x": [4, -1.0]},
            "feature_service": "s", "include_feature_view_version_metadata": true});
        let answer = answer(&body).unwrap();
        assert_eq!(answer["metadata"]["feature_names"], json!(["user", "score", "when", "root"]));
        let epoch = "1970-01-01T00:00:00Z";
        assert_eq!(
            answer["results"][0],
            json!({"values": [7, null], "statuses": ["PRESENT", "PRESENT"], "event_timestamps": [epoch, epoch]})
        );
        assert_eq!(answer["results"][1]["statuses"], json!(["NOT_FOUND", "NOT_FOUND"]));
        assert_eq!(answer["results"][2]["values"], json!(["2013-01-31T10:00:00.500Z", epoch]));
        // The root of -1 is NaN, which JSON cannot say.
        assert_eq!(answer["results"][3]["values"], json!([2.0, null]));
        assert_eq!(answer["results"][3]["statuses"], json!(["PRESENT", "PRESENT"]));
    }

    #[test]
    fn full_names_and_bad_rows() {
        let body = json!({"feature_service": "s", "full_feature_names": true, "entities": {"user": ["seven", 7], "at": ["1970-01-01", "1970-01-01"]}, "request": {"x": [0, 0]}});
        let answer = answer(&body).unwrap();
        assert_eq!(answer["metadata"]["feature_names"], json!(["user", "stored__score", "made__when", "made__root"]));
        assert_eq!(answer["results"][1]["statuses"], json!(["INVALID", "NOT_FOUND"]));
        assert_eq!(answer["results"][3]["statuses"], json!(["INVALID", "PRESENT"]));
        assert_eq!(answer["results"][3]["values"], json!([null, 0.0]));
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        for (body, code, part) in [
            (json!({"entities": {}}), ErrorCode::InvalidArgument, "no service"),
            (json!({"entities": {}, "features": ["stored:score"]}), ErrorCode::InvalidArgument, "list of features"),
            (json!({"entities": {}, "feature_service": "t"}), ErrorCode::UnknownFeatureService, "'t'"),
            (json!({"entities": {"usr": [1]}, "feature_service": "s"}), ErrorCode::UnknownEntity, "'usr'"),
            (json!({"entities": {"user": 1}, "feature_service": "s"}), ErrorCode::TypeMismatch, "'user' is not a list"),
            (json!({"entities": {"user": [1], "at": [0]}, "feature_service": "s"}), ErrorCode::MissingColumn, "'x'"),
            (
                json!({"entities": {"user": [1], "at": [0, 1], "x": [1]}, "feature_service": "s"}),
                ErrorCode::LengthMismatch,
                "'user'",
            ),
            (json!([]), ErrorCode::InvalidArgument, "a list was sent, expected an object as the body"),
            (json!({"entity": {}, "feature_service": "s"}), ErrorCode::InvalidArgument, "unknown key 'entity'"),
            (
                json!({"entities": {"user": [1], "at": [null]}, "request": {"x": [1]}, "request_context": {"x": [1]}, "feature_service": "s"}),
                ErrorCode::InvalidArgument,
                "'x' is given twice",
            ),
        ] {
            let error = answer(&body).unwrap_err();
            assert_eq!(error.code, code, "{body}: {error}");
            assert!(error.message.contains(part), "{body}: {error}");
        }
        let error = decode_online_features(&engine(), b"{\"entities\": {").unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidJson);
    }
}
