//! Reading a plan: what it compiles to, what it refuses and how, what changes between two.
#![allow(clippy::unwrap_used)]

mod common;

use common::{changed, flights, plan, refused};
use headrace_features::{DefinitionKind, FeatureFrom, InputFrom, Plan, PlanDiff};
use headrace_types::ErrorCode;
use serde_json::{Value, json};

#[test]
fn a_service_is_compiled_in_the_order_of_its_features() {
    let plan = plan(&flights());
    let service = plan.service("departure_risk").unwrap();
    let names: Vec<&str> = service.features.iter().map(|feature| feature.name.as_str()).collect();
    assert_eq!(names, ["temp", "hour_sin", "carrier_last_delay", "crosswind", "plane_last_delay", "plane_age"]);
    let keys: Vec<&str> = service.join_keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(keys, ["origin", "carrier", "tailnum"]);
    assert_eq!(service.request_fields.len(), 1);
    // The service's own stored features first, then what only the expressions read.
    let stored: Vec<(&str, &str)> = service.stored.iter().map(|f| (f.view.as_str(), f.field.as_str())).collect();
    assert_eq!(
        stored,
        [
            ("weather", "temp"),
            ("carrier_delay", "carrier_last_delay"),
            ("plane_delay", "plane_last_delay"),
            ("weather", "wind_dir"),
            ("weather", "wind_speed"),
            ("plane", "year"),
        ]
    );
    assert_eq!(service.stored[2].key_positions, [2]);
    assert_eq!(service.stored[0].ttl_us, Some(10_800_000_000));
    let from: Vec<FeatureFrom> = service.features.iter().map(|feature| feature.from).collect();
    assert_eq!(from[..2], [FeatureFrom::Stored(0), FeatureFrom::OnDemand(0)]);
    assert_eq!(
        service.program_inputs,
        [InputFrom::Request(0), InputFrom::Stored(3), InputFrom::Stored(4), InputFrom::Stored(5)]
    );
    let outputs: Vec<&str> = service.program.as_ref().unwrap().outputs().iter().map(|f| f.name.as_str()).collect();
    assert_eq!(outputs, ["hour_sin", "crosswind", "plane_age"]);
    assert_eq!(service.views(), ["weather", "carrier_delay", "plane_delay", "plane"]);
}

#[test]
fn views_with_equal_keys_share_a_table() {
    let plan = plan(&flights());
    let tables: Vec<(&str, Vec<&str>)> =
        plan.tables().iter().map(|t| (t.name.as_str(), t.views.iter().map(String::as_str).collect())).collect();
    assert_eq!(
        tables,
        [("carrier", vec!["carrier_delay"]), ("origin", vec!["weather"]), ("tailnum", vec!["plane", "plane_delay"])]
    );
    let view = plan.view("plane_delay").unwrap();
    assert_eq!((view.table, view.view_index, view.is_static()), (2, 1, false));
    assert!(plan.view("plane").unwrap().is_static());
}

#[test]
fn keys_of_several_entities_and_none() {
    let json = changed(|plan| {
        plan["views"]["weather"]["entities"] = json!(["plane", "airport"]);
        plan["views"]["carrier_delay"]["entities"] = json!([]);
    });
    let plan = plan(&json);
    let names: Vec<&str> = plan.tables().iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["", "tailnum", "tailnum,origin"]);
    let service = plan.service("departure_risk").unwrap();
    assert_eq!(service.stored[1].key_positions, [] as [usize; 0]);
    assert_eq!(service.stored[0].key_positions, [0, 1]);
}

#[test]
fn the_digest_names_the_content() {
    let text = flights().to_string();
    let spaced = serde_json::to_string_pretty(&flights()).unwrap();
    let (one, two) = (Plan::from_json(&text).unwrap(), Plan::from_json(&spaced).unwrap());
    assert_eq!(one.digest(), two.digest());
    assert_eq!(Plan::from_json(one.canonical_json()).unwrap().digest(), one.digest());
    let other = plan(&changed(|plan| plan["views"]["weather"]["ttl_us"] = json!(1)));
    assert_ne!(other.digest(), one.digest());
}

#[test]
fn full_feature_names_join_view_and_feature() {
    let json = changed(|plan| {
        plan["services"] = json!({"s": {"full_feature_names": true, "features": [
            {"view": "weather", "feature": "temp", "name": "weather__temp"}]}});
    });
    assert_eq!(plan(&json).service("s").unwrap().features[0].name, "weather__temp");
    let short = changed(|plan| plan["services"]["departure_risk"]["full_feature_names"] = json!(true));
    assert_eq!(refused(&short).code, ErrorCode::InvalidDefinition);
}

#[track_caller]
fn assert_refused(code: ErrorCode, message: &str, hint: &str, change: impl FnOnce(&mut Value)) {
    let error = refused(&changed(change));
    assert_eq!((error.code, error.message.as_str()), (code, message));
    assert!(error.hint.contains(hint), "hint: {}", error.hint);
}

#[test]
fn a_view_may_have_later_versions_beside_the_first() {
    let mut document = flights();
    document["views"]["weather@v2"] = document["views"]["weather"].clone();
    document["views"]["weather@v12"] = document["views"]["weather"].clone();
    let plan = plan(&document);
    assert_eq!(plan.tables()[1].views, ["weather", "weather@v12", "weather@v2"]);
    for name in
        ["weather@v1", "weather@v0", "weather@v", "weather@v02", "weather@v+2", "weather@2", "@v2", "request@v2"]
    {
        let mut document = flights();
        document["views"][name] = document["views"]["weather"].clone();
        assert_eq!(refused(&document).code, ErrorCode::InvalidDefinition, "{name}");
    }
}

#[test]
fn unknown_names_are_refused_with_near_ones() {
    use ErrorCode::{UnknownEntity, UnknownFeature, UnknownFeatureView};
    assert_refused(UnknownEntity, "view 'weather': there is no entity 'airprot'", "'airport'", |plan| {
        plan["views"]["weather"]["entities"] = json!(["airprot"]);
    });
    assert_refused(
        UnknownFeatureView,
        "service 'departure_risk': there is no feature view 'wether'",
        "'weather'",
        |plan| {
            plan["services"]["departure_risk"]["features"][0]["view"] = json!("wether");
        },
    );
    assert_refused(UnknownFeature, "service 'departure_risk': view 'weather' has no feature 'tmp'", "'temp'", |plan| {
        plan["services"]["departure_risk"]["features"][0] = json!({"view": "weather", "feature": "tmp", "name": "tmp"});
    });
    assert_refused(
        UnknownFeature,
        "view 'departure': input 'windir': view 'weather' has no feature 'windir'",
        "'wind_dir'",
        |plan| {
            plan["on_demand_views"]["departure"]["inputs"][1]["name"] = json!("windir");
        },
    );
    assert_refused(
        UnknownFeatureView,
        "view 'departure': input 'wind_dir': there is no feature view 'weathr'",
        "'weather'",
        |plan| {
            plan["on_demand_views"]["departure"]["inputs"][1]["from"] = json!("weathr");
        },
    );
    let error = plan(&flights()).service("departure_rsk").map(|_| ()).unwrap_err();
    assert_eq!((error.code, error.hint.as_str()), (ErrorCode::UnknownFeatureService, "did you mean 'departure_risk'?"));
    let error = plan(&flights()).view("weatherr").map(|_| ()).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownFeatureView);
}

#[test]
fn expressions_are_checked_even_without_a_service() {
    assert_refused(
        ErrorCode::InvalidExpression,
        "view 'departure': field 'hour_sin': sin(args[0]): expected a number, got timestamp\n    \
         sin(col(\"planned_departure\"))\n    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        "epoch_seconds",
        |plan| {
            plan["services"] = json!({});
            plan["on_demand_views"]["departure"]["fields"][0]["expr"] =
                json!({"op": "sin", "args": [{"op": "col", "name": "planned_departure"}]});
        },
    );
    assert_refused(
        ErrorCode::TypeMismatch,
        "view 'departure': input 'wind_dir' is float32, and 'wind_dir' of view 'weather' is float64",
        "cast",
        |plan| plan["on_demand_views"]["departure"]["inputs"][1]["dtype"] = json!("float32"),
    );
}

#[test]
fn clashes_are_named() {
    use ErrorCode::NameClash;
    assert_refused(NameClash, "view 'weather': two columns are named 'temp'", "rename", |plan| {
        plan["views"]["weather"]["fields"][1]["name"] = json!("temp");
    });
    assert_refused(NameClash, "view 'weather': two columns are named 'origin'", "rename", |plan| {
        plan["views"]["weather"]["fields"][1]["name"] = json!("origin");
    });
    assert_refused(NameClash, "view 'departure': two inputs are named 'wind_dir'", "rename", |plan| {
        plan["on_demand_views"]["departure"]["inputs"][2]["name"] = json!("wind_dir");
    });
    assert_refused(NameClash, "a feature view and an on-demand view are both named 'weather'", "rename", |plan| {
        plan["on_demand_views"]["weather"] = plan["on_demand_views"]["departure"].clone();
    });
    assert_refused(
        NameClash,
        "service 'departure_risk': the feature 'temp' of view 'weather' is listed twice",
        "once",
        |plan| {
            plan["services"]["departure_risk"]["features"][1] =
                plan["services"]["departure_risk"]["features"][0].clone()
        },
    );
    assert_refused(
        NameClash,
        "service 'departure_risk': views 'weather' and 'carrier_delay' both have a feature 'temp'",
        "full_feature_names",
        |plan| {
            plan["views"]["carrier_delay"]["fields"][0]["name"] = json!("temp");
            plan["services"]["departure_risk"]["features"][2] =
                json!({"view": "carrier_delay", "feature": "temp", "name": "temp"});
        },
    );
    assert_refused(
        NameClash,
        "service 'departure_risk': 'planned_departure' is a feature and also a join key or a field of the request",
        "rename",
        |plan| {
            plan["on_demand_views"]["departure"]["fields"][0]["name"] = json!("planned_departure");
            plan["services"]["departure_risk"]["features"][1] =
                json!({"view": "departure", "feature": "planned_departure", "name": "planned_departure"});
        },
    );
    assert_refused(
        ErrorCode::InvalidDefinition,
        "join key 'origin' is string in entity 'airport' and int64 in entity 'hub'",
        "another name",
        |plan| plan["entities"]["hub"] = json!({"join_keys": [{"name": "origin", "dtype": "int64"}]}),
    );
}

#[test]
fn one_request_field_has_one_type() {
    let json = changed(|plan| {
        plan["on_demand_views"]["other"] = json!({
            "inputs": [{"name": "planned_departure", "dtype": "int64", "from": "request"}],
            "fields": [{"name": "copy", "dtype": "int64", "expr": {"op": "col", "name": "planned_departure"}}]});
        let features = plan["services"]["departure_risk"]["features"].as_array_mut().unwrap();
        features.push(json!({"view": "other", "feature": "copy", "name": "copy"}));
    });
    let error = refused(&json);
    assert_eq!(error.code, ErrorCode::NameClash);
    assert!(error.message.contains("'planned_departure' is timestamp"), "{error}");
}

#[test]
fn inputs_with_one_name_from_two_views_stay_apart() {
    let json = changed(|plan| {
        plan["views"]["carrier_delay"]["fields"][0]["name"] = json!("temp");
        plan["on_demand_views"] = json!({
            "one": {"inputs": [{"name": "temp", "dtype": "float64", "from": "weather"}],
                    "fields": [{"name": "a", "dtype": "float64", "expr": {"op": "col", "name": "temp"}}]},
            "two": {"inputs": [{"name": "temp", "dtype": "float64", "from": "carrier_delay"}],
                    "fields": [{"name": "b", "dtype": "float64", "expr": {"op": "col", "name": "temp"}}]}});
        plan["services"] = json!({"s": {"features": [
            {"view": "one", "feature": "a", "name": "a"}, {"view": "two", "feature": "b", "name": "b"}]}});
    });
    let plan = plan(&json);
    let service = plan.service("s").unwrap();
    assert_eq!(service.program_inputs, [InputFrom::Stored(0), InputFrom::Stored(1)]);
    assert_eq!(service.stored[1].view, "carrier_delay");
}

type Change = Box<dyn FnOnce(&mut Value)>;

#[test]
fn bad_definitions_are_refused() {
    use ErrorCode::InvalidDefinition;
    let cases: Vec<(&str, Change)> = vec![
        ("is not a name for a view", Box::new(|p| p["views"]["two words"] = p["views"]["weather"].clone())),
        ("is not a name for a view", Box::new(|p| p["views"]["a__b"] = p["views"]["weather"].clone())),
        ("is not a name for an entity", Box::new(|p| p["entities"][""] = p["entities"]["airport"].clone())),
        ("is not a name for a field", Box::new(|p| p["views"]["weather"]["fields"][0]["name"] = json!("1x"))),
        ("is not a name for a project", Box::new(|p| p["project"] = json!("a b"))),
        ("cannot be named 'request'", Box::new(|p| p["views"]["request"] = p["views"]["weather"].clone())),
        ("has a ttl, and its rows have no event time", Box::new(|p| p["views"]["plane"]["ttl_us"] = json!(5))),
        ("its ttl is -5 us", Box::new(|p| p["views"]["weather"]["ttl_us"] = json!(-5))),
        ("it has no fields", Box::new(|p| p["views"]["weather"]["fields"] = json!([]))),
        ("it has no features", Box::new(|p| p["services"]["departure_risk"]["features"] = json!([]))),
        ("it has no join keys", Box::new(|p| p["entities"]["airport"]["join_keys"] = json!([]))),
        (
            "join key 'origin' is float64",
            Box::new(|p| p["entities"]["airport"]["join_keys"][0]["dtype"] = json!("float64")),
        ),
        (
            "join key 'origin' is list<string>",
            Box::new(|p| p["entities"]["airport"]["join_keys"][0]["dtype"] = json!("list<string>")),
        ),
        ("view 'weather': unknown field 'tll_us'", Box::new(|p| p["views"]["weather"]["tll_us"] = json!(1))),
        ("plan: unknown field 'extra'", Box::new(|p| p["extra"] = json!(1))),
        (
            "missing field 'source'",
            Box::new(|p| {
                p["views"]["weather"].as_object_mut().unwrap().remove("source");
            }),
        ),
        ("there is no source of kind 'kafka'", Box::new(|p| p["views"]["weather"]["source"]["kind"] = json!("kafka"))),
        ("has no path", Box::new(|p| p["views"]["weather"]["source"]["path"] = json!(null))),
        ("format 'xlsx'", Box::new(|p| p["views"]["weather"]["source"]["format"] = json!("xlsx"))),
        ("no event_ts", Box::new(|p| p["views"]["plane"]["source"]["available_after_us"] = json!(1))),
        ("negative available_after", Box::new(|p| p["views"]["weather"]["source"]["available_after_us"] = json!(-1))),
        ("is named 'other'", Box::new(|p| p["services"]["departure_risk"]["features"][0]["name"] = json!("other"))),
        ("has no format", Box::new(|p| p["format"] = json!(0))),
        ("'float63' is not a type", Box::new(|p| p["views"]["weather"]["fields"][0]["dtype"] = json!("float63"))),
    ];
    for (part, change) in cases {
        let error = refused(&changed(change));
        assert_eq!(error.code, InvalidDefinition, "{error}");
        assert!(error.message.contains(part), "expected {part:?} in {:?}", error.message);
        assert!(!error.hint.is_empty(), "{error}");
    }
}

#[test]
fn what_is_no_plan_is_refused() {
    let code = |text: &str| Plan::from_json(text).map(|_| ()).unwrap_err().code;
    assert_eq!(code("{"), ErrorCode::InvalidJson);
    assert_eq!(code("[]"), ErrorCode::InvalidDefinition);
    assert_eq!(code(&"[".repeat(100_000)), ErrorCode::InvalidJson);
    assert_eq!(code(&changed(|plan| plan["format"] = json!(2)).to_string()), ErrorCode::NewerFormat);
}

#[test]
fn an_empty_project_is_a_plan() {
    let plan = Plan::from_json(r#"{"format": 1, "project": "my-project"}"#).unwrap();
    assert!(plan.tables().is_empty());
    assert_eq!(plan.service("x").map(|_| ()).unwrap_err().hint, "there are no feature services yet");
}

#[test]
fn the_first_apply_adds_everything() {
    let new = plan(&flights());
    let diff = PlanDiff::between(None, &new);
    assert_eq!((diff.added.len(), diff.changed.len(), diff.removed.len(), diff.breaking.len()), (9, 0, 0, 0));
    assert!(PlanDiff::between(Some(&new), &new).is_empty());
    let weather = diff.added.iter().find(|added| added.name == "weather").unwrap();
    assert_eq!(weather.kind, DefinitionKind::View);
    assert!(weather.details.contains(&"field 'temp': float64".to_owned()), "{:?}", weather.details);
}

#[test]
fn changes_are_listed_with_their_details() {
    let old = plan(&flights());
    let new = plan(&changed(|plan| {
        plan["views"]["weather"]["ttl_us"] = json!(60);
        plan["views"]["weather"]["fields"].as_array_mut().unwrap().push(json!({"name": "humid", "dtype": "float64"}));
        plan["views"]["carrier_delay"]["owner"] = json!("ops");
    }));
    let diff = PlanDiff::between(Some(&old), &new);
    assert!(diff.breaking.is_empty() && diff.added.is_empty() && diff.removed.is_empty());
    let details: Vec<&str> =
        diff.changed.iter().flat_map(|changed| changed.details.iter().map(String::as_str)).collect();
    assert_eq!(details, ["owner: null -> \"ops\"", "field 'humid' added: float64", "ttl_us: 10800000000 -> 60"]);
}

fn breaking(change: impl FnOnce(&mut Value)) -> Vec<(String, Option<String>, String, String)> {
    let diff = PlanDiff::between(Some(&plan(&flights())), &plan(&changed(change)));
    for breaking in &diff.breaking {
        assert_eq!(breaking.services, ["departure_risk"]);
    }
    diff.breaking.into_iter().map(|b| (b.view, b.field, b.old, b.new)).collect()
}

#[test]
fn what_a_service_uses_cannot_go_unnoticed() {
    let expect = |view: &str, field: Option<&str>, old: &str, new: &str| {
        vec![(view.to_owned(), field.map(str::to_owned), old.to_owned(), new.to_owned())]
    };
    assert_eq!(
        breaking(|plan| plan["views"]["weather"]["fields"][0]["dtype"] = json!("float32")),
        expect("weather", Some("temp"), "float64", "float32")
    );
    // Used by no service.
    assert_eq!(breaking(|plan| plan["views"]["plane"]["fields"][1]["dtype"] = json!("bytes")), []);
    assert_eq!(
        breaking(|plan| {
            plan["views"]["weather"]["fields"].as_array_mut().unwrap().remove(0);
            plan["services"]["departure_risk"]["features"].as_array_mut().unwrap().remove(0);
        }),
        expect("weather", Some("temp"), "float64", "removed")
    );
    assert_eq!(
        breaking(|plan| {
            plan["views"].as_object_mut().unwrap().remove("carrier_delay");
            plan["services"]["departure_risk"]["features"].as_array_mut().unwrap().remove(2);
        }),
        expect("carrier_delay", None, "view of 1 features", "removed")
    );
    assert_eq!(
        breaking(|plan| plan["views"]["carrier_delay"]["entities"] = json!(["carrier", "airport"])),
        expect("carrier_delay", None, "keys (carrier: string)", "keys (carrier: string, origin: string)")
    );
    assert_eq!(
        breaking(|plan| plan["on_demand_views"]["departure"]["fields"][2]["dtype"] = json!("float64")),
        expect("departure", Some("plane_age"), "int64", "float64")
    );
    assert_eq!(
        breaking(|plan| {
            let inputs = plan["on_demand_views"]["departure"]["inputs"].as_array_mut().unwrap();
            inputs.push(json!({"name": "seats", "dtype": "int64", "from": "request"}));
        }),
        expect("departure", Some("seats"), "not in the request", "int64 in the request")
    );
}
