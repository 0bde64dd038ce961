//! What a server answers over HTTP, described by OpenAPI 3.1: the routes, and the columns of each deployment with their types.

mod page;
mod schemas;

use headrace_engine::{Deployment, Engine};
use serde_json::{Map, Value, json};

pub use page::page;
pub(crate) use schemas::output_names;
use schemas::{predict_request, predict_response, shared};

/// GET /v1/openapi.json: of what is served now.
pub fn document(engine: &Engine) -> Value {
    let mut paths = Map::new();
    common_paths(&mut paths, engine);
    inference_paths(&mut paths);
    json!({
        "openapi": "3.1.0",
        "info": {"title": "headrace", "version": env!("CARGO_PKG_VERSION"), "description":
            "Predictions, features and models of this server. Each deployment has its own path, with its columns and their types."},
        "paths": paths,
        "components": {"schemas": shared()},
    })
}

fn common_paths(paths: &mut Map<String, Value>, engine: &Engine) {
    paths.insert("/v1/deployments".into(), get("list_deployments", "What is served.", "DeploymentList"));
    let mut describe =
        get("describe_deployment", "A deployment, with the columns of its requests.", "DeploymentDetails");
    describe["parameters"] = json!([name_parameter("name")]);
    paths.insert("/v1/deployments/{name}".into(), describe);
    let mut usual = engine.models();
    usual.dedup_by(|one, other| one.name() == other.name());
    for deployment in usual.iter().filter_map(|model| engine.find_model(model.name(), None).ok()) {
        predict_path(paths, &deployment, None);
    }
    for deployment in engine.models() {
        predict_path(paths, &deployment, Some(deployment.version()));
    }
    let features = post(
        "get_online_features",
        "The features of a service.",
        reference("FeaturesRequest"),
        reference("FeaturesResponse"),
    );
    paths.insert("/get-online-features".into(), features);
    for (verb, body, what) in [
        ("push", "PushRequest", "Writes rows of a feature view"),
        ("delete", "DeleteRequest", "Deletes rows of a feature view"),
    ] {
        let summary = format!("{what}, where the server takes writes.");
        let mut write = post(&format!("{verb}_rows"), &summary, reference(body), reference("WriteCounts"));
        write["parameters"] = json!([name_parameter("view")]);
        paths.insert(format!("/v1/feature-views/{{view}}/{verb}"), write);
    }
}

/// Versions of a model may differ in their columns, so each has a path of its own.
fn predict_path(paths: &mut Map<String, Value>, deployment: &Deployment, version: Option<u32>) {
    if deployment.tensor_model().is_some() && deployment.sequences().is_none() {
        return;
    }
    let (name, begin) = (deployment.name(), format!("/v1/deployments/{}", segment(deployment.name())));
    let (path, id, summary) = match version {
        None => (format!("{begin}/predict"), format!("predict_{name}"), format!("Predictions of {name}.")),
        Some(version) => (
            format!("{begin}/versions/{version}/predict"),
            format!("predict_{name}/{version}"),
            format!("Predictions of version {version} of {name}."),
        ),
    };
    paths.insert(path, post(&id, &summary, predict_request(deployment), predict_response(deployment)));
}

fn inference_paths(paths: &mut Map<String, Value>) {
    paths.insert("/v2".into(), get("server_metadata", "The server.", "ServerMetadata"));
    paths.insert("/v2/health/live".into(), get("live", "Whether the server runs.", "Live"));
    paths.insert("/v2/health/ready".into(), get("ready", "Whether every model can answer.", "Ready"));
    paths.insert("/v2/models".into(), get("list_models", "What is loaded, and what could not be.", "ModelList"));
    let infer = post(
        "infer",
        "The Open Inference Protocol: named tensors in and out.",
        reference("InferRequest"),
        reference("InferResponse"),
    );
    for (prefix, suffix, parameters) in [
        ("/v2/models/{name}", "", json!([name_parameter("name")])),
        ("/v2/models/{name}/versions/{version}", "_of_version", json!([name_parameter("name"), version_parameter()])),
    ] {
        for (path, operation) in [
            ("", get(&format!("model_metadata{suffix}"), "A model's inputs and outputs.", "ModelMetadata")),
            ("/ready", get(&format!("model_ready{suffix}"), "Whether a model can answer.", "ModelReady")),
            ("/infer", infer.clone()),
        ] {
            let mut operation = operation;
            if path == "/infer" {
                operation["post"]["operationId"] = format!("infer{suffix}").into();
            }
            operation["parameters"] = parameters.clone();
            paths.insert(format!("{prefix}{path}"), operation);
        }
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn get(id: &str, summary: &str, answer: &str) -> Value {
    json!({"get": {"operationId": id, "summary": summary, "responses": responses(&reference(answer))}})
}

fn post(id: &str, summary: &str, body: Value, answer: Value) -> Value {
    json!({"post": {"operationId": id, "summary": summary,
        "requestBody": {"required": true, "content": {"application/json": {"schema": body}}},
        "responses": responses(&answer)}})
}

/// Every refusal has the same shape.
fn responses(answer: &Value) -> Value {
    let refusal =
        |what: &str| json!({"description": what, "content": {"application/json": {"schema": reference("Error")}}});
    json!({
        "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
        "4XX": refusal("What the caller can mend: the message says how."),
        "5XX": refusal("What the caller cannot: 503 comes with Retry-After, 504 when the caller's time is over."),
    })
}

fn name_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}})
}

fn version_parameter() -> Value {
    json!({"name": "version", "in": "path", "required": true, "schema": {"type": "integer", "minimum": 0, "maximum": u32::MAX}})
}

/// A name as a part of a path. Braces would be a parameter.
fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use headrace_engine::EngineOptions;
    use headrace_engine::testing::{sum_classifier, sum_regressor};

    fn engine() -> Engine {
        let engine = Engine::new(EngineOptions::default());
        engine.add_model(sum_classifier("delay <b>", 3, &["a", "b"])).unwrap();
        engine.add_model(sum_classifier("delay <b>", 4, &["a", "b"])).unwrap();
        engine.add_model(sum_regressor("minutes", 1, &["a"])).unwrap();
        engine
    }

    #[test]
    fn each_deployment_has_its_columns() {
        let document = document(&engine());
        let path = &document["paths"]["/v1/deployments/delay%20%3Cb%3E/predict"]["post"];
        let body = &path["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["properties"]["features"]["properties"]["a"]["items"]["type"], json!(["number", "null"]));
        let answer = &path["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(answer["properties"]["task"]["const"], "classification");
        assert!(document["paths"]["/v1/deployments/minutes/versions/1/predict"].is_object());
    }

    #[test]
    fn what_is_referred_to_is_there_and_ids_are_unique() {
        let document = document(&engine());
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        let mut ids: Vec<_> =
            text.split("\"operationId\":\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn the_page_holds_no_name_as_markup_and_asks_nobody() {
        let page = String::from_utf8(page(&engine())).unwrap();
        assert!(page.contains("delay &lt;b&gt;") && !page.contains("<b>"));
        for foreign in ["src=", "http://", "https://", "<script", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
