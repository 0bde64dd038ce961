//! Which request is for what: paths and verbs, without any framework.

use std::borrow::Cow;

use headrace_types::{Error, ErrorCode, Result};
use http::Method;

use crate::access::Action;
use crate::repository::ModelChange;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Live,
    Ready,
    ServerMetadata,
    ModelMetadata(ModelRef),
    ModelReady(ModelRef),
    ModelConfig(ModelRef),
    ModelStatistics(ModelRef),
    Statistics,
    Infer(ModelRef),
    RepositoryIndex,
    /// POST /v2/repository/models/NAME/load and /unload
    ChangeModel(ModelChange),
    Predict(ModelRef),
    OnlineFeatures,
    /// POST /v1/feature-views/NAME/push
    Push(String),
    /// POST /v1/feature-views/NAME/delete
    Delete(String),
    /// GET /v2/models
    Models,
    /// GET /v1/deployments
    Deployments,
    /// GET /v1/deployments/NAME
    Deployment(String),
    /// GET and POST /v2[/models/NAME]/trace/setting
    TraceSetting(Option<String>),
    /// GET and POST /v2/logging
    Logging,
    /// GET /v1/openapi.json
    OpenApi,
    /// GET /v1/docs
    Docs,
}

/// A model's name and, if the path holds one, its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelRef {
    pub(crate) name: String,
    pub(crate) version: Option<u32>,
}

/// Routes as metrics count them; the last one is everything that matched none.
pub(crate) const ROUTE_NAMES: [&str; 22] = [
    "live",
    "ready",
    "server_metadata",
    "model_metadata",
    "model_ready",
    "model_config",
    "statistics",
    "infer",
    "repository_index",
    "predict",
    "online_features",
    "models",
    "deployments",
    "deployment",
    "push",
    "delete",
    "change_model",
    "trace_setting",
    "logging",
    "openapi",
    "docs",
    "none",
];
/// The paths of the routes, in the order of [`ROUTE_NAMES`]; a model's version may come behind its name.
pub(crate) const ROUTE_PATHS: [&str; ROUTE_NAMES.len()] = [
    "/v2/health/live",
    "/v2/health/ready",
    "/v2",
    "/v2/models/{model}",
    "/v2/models/{model}/ready",
    "/v2/models/{model}/config",
    "/v2/models/{model}/stats",
    "/v2/models/{model}/infer",
    "/v2/repository/index",
    "/v1/deployments/{model}/predict",
    "/get-online-features",
    "/v2/models",
    "/v1/deployments",
    "/v1/deployments/{model}",
    "/v1/feature-views/{view}/push",
    "/v1/feature-views/{view}/delete",
    "/v2/repository/models/{model}/{change}",
    "/v2/models/{model}/trace/setting",
    "/v2/logging",
    "/v1/openapi.json",
    "/v1/docs",
    "",
];
pub(crate) const ROUTE_NONE: usize = ROUTE_NAMES.len() - 1;

/// Of a path; none of ours has as many.
const SEGMENTS_MAX: usize = 16;

impl Route {
    /// The route's place in [`ROUTE_NAMES`].
    pub(crate) fn index(&self) -> usize {
        match self {
            Route::Live => 0,
            Route::Ready => 1,
            Route::ServerMetadata => 2,
            Route::ModelMetadata(_) => 3,
            Route::ModelReady(_) => 4,
            Route::ModelConfig(_) => 5,
            Route::ModelStatistics(_) | Route::Statistics => 6,
            Route::Infer(_) => 7,
            Route::RepositoryIndex => 8,
            Route::Predict(_) => 9,
            Route::OnlineFeatures => 10,
            Route::Models => 11,
            Route::Deployments => 12,
            Route::Deployment(_) => 13,
            Route::Push(_) => 14,
            Route::Delete(_) => 15,
            Route::ChangeModel(_) => 16,
            Route::TraceSetting(_) => 17,
            Route::Logging => 18,
            Route::OpenApi => 19,
            Route::Docs => 20,
        }
    }

    /// What a request does, and with what: an empty name is the whole server, and none is told by the body. None for health, which is
    /// open to all.
    pub(crate) fn asks(&self, method: &Method) -> Option<(Action, Option<&str>)> {
        let settings = if *method == Method::POST { Action::ManageModels } else { Action::ReadMetadata };
        let (action, resource) = match self {
            Route::Live | Route::Ready => return None,
            Route::Infer(model) | Route::Predict(model) => (Action::Predict, model.name.as_str()),
            Route::OnlineFeatures => return Some((Action::ReadFeatures, None)),
            Route::Push(view) | Route::Delete(view) => (Action::WriteFeatures, view.as_str()),
            Route::ChangeModel(ModelChange::Load(name) | ModelChange::Unload(name)) => {
                (Action::ManageModels, name.as_str())
            }
            Route::TraceSetting(model) => (settings, model.as_deref().unwrap_or_default()),
            Route::Logging => (settings, ""),
            Route::ModelMetadata(model)
            | Route::ModelReady(model)
            | Route::ModelConfig(model)
            | Route::ModelStatistics(model) => (Action::ReadMetadata, model.name.as_str()),
            Route::Deployment(name) => (Action::ReadMetadata, name.as_str()),
            Route::ServerMetadata
            | Route::Statistics
            | Route::RepositoryIndex
            | Route::Models
            | Route::Deployments
            | Route::OpenApi
            | Route::Docs => (Action::ReadMetadata, ""),
        };
        Some((action, Some(resource)))
    }

    fn is_post(&self) -> bool {
        matches!(
            self,
            Route::Infer(_)
                | Route::Predict(_)
                | Route::RepositoryIndex
                | Route::OnlineFeatures
                | Route::Push(_)
                | Route::Delete(_)
                | Route::ChangeModel(_)
        )
    }

    /// Whether the program around the server does it.
    pub(crate) fn is_errand(&self) -> bool {
        matches!(self, Route::Push(_) | Route::Delete(_) | Route::ChangeModel(_))
    }

    /// The verb that the route takes.
    pub(crate) fn method(&self) -> Method {
        if self.is_post() { Method::POST } else { Method::GET }
    }

    /// Whether the route takes a verb: its own, HEAD where that is GET, and POST to change settings that GET shows.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        let own = self.method();
        *method == own
            || (*method == Method::HEAD && own == Method::GET)
            || (*method == Method::POST && matches!(self, Route::TraceSetting(_) | Route::Logging))
    }

    /// # Errors
    /// `not_found` for a path that is none of ours; `invalid_argument` for a version that is not a number.
    pub(crate) fn of_path(path: &str) -> Result<Self> {
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.contains('%') {
            let segments: Vec<Cow<'_, str>> = path.split('/').map(percent_decoded).collect();
            let segments: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
            return Self::of_segments(path, &segments);
        }
        let (mut segments, mut count) = ([""; SEGMENTS_MAX], 0);
        for segment in path.split('/') {
            *segments.get_mut(count).ok_or_else(|| unknown_path(path))? = segment;
            count += 1;
        }
        Self::of_segments(path, &segments[..count])
    }

    fn of_segments(path: &str, segments: &[&str]) -> Result<Self> {
        match segments {
            ["v2"] | ["v2", ""] => Ok(Route::ServerMetadata),
            ["v2", "health", "live"] => Ok(Route::Live),
            ["v2", "health", "ready"] => Ok(Route::Ready),
            ["v2", "models"] | ["v2", "models", ""] => Ok(Route::Models),
            ["v2", "models", "stats"] => Ok(Route::Statistics),
            ["v2", "repository", "index"] | ["v2", "repository", _, "index"] => Ok(Route::RepositoryIndex),
            ["v2", "repository", "models", name, "load"] | ["v2", "repository", _, "models", name, "load"] => {
                Ok(Route::ChangeModel(ModelChange::Load((*name).to_owned())))
            }
            ["v2", "repository", "models", name, "unload"] | ["v2", "repository", _, "models", name, "unload"] => {
                Ok(Route::ChangeModel(ModelChange::Unload((*name).to_owned())))
            }
            ["v2", "trace", "setting"] => Ok(Route::TraceSetting(None)),
            ["v2", "models", name, "trace", "setting"] => Ok(Route::TraceSetting(Some((*name).to_owned()))),
            ["v2", "logging"] => Ok(Route::Logging),
            ["v2", kind @ ("systemsharedmemory" | "cudasharedmemory"), ..] => Err(no_shared_memory(kind)),
            ["v2", "models", name, "versions", version, rest @ ..] => model_route(path, name, Some(version), rest),
            ["v2", "models", name, rest @ ..] => model_route(path, name, None, rest),
            ["v1", "deployments", name, "versions", version, "predict"] => {
                Ok(Route::Predict(model(name, Some(version))?))
            }
            ["v1", "deployments", name, "predict"] => Ok(Route::Predict(model(name, None)?)),
            ["v1", "deployments"] | ["v1", "deployments", ""] => Ok(Route::Deployments),
            ["v1", "deployments", name] => Ok(Route::Deployment((*name).to_owned())),
            ["v1", "feature-views", name, "push"] => Ok(Route::Push((*name).to_owned())),
            ["v1", "feature-views", name, "delete"] => Ok(Route::Delete((*name).to_owned())),
            ["v1", "openapi.json"] => Ok(Route::OpenApi),
            ["v1", "docs"] => Ok(Route::Docs),
            ["get-online-features"] => Ok(Route::OnlineFeatures),
            _ => Err(unknown_path(path)),
        }
    }
}

fn model_route(path: &str, name: &str, version: Option<&str>, rest: &[&str]) -> Result<Route> {
    let route = match rest {
        [] => Route::ModelMetadata,
        ["ready"] => Route::ModelReady,
        ["config"] => Route::ModelConfig,
        ["stats"] => Route::ModelStatistics,
        ["infer"] => Route::Infer,
        _ => return Err(unknown_path(path)),
    };
    Ok(route(model(name, version)?))
}

fn model(name: &str, version: Option<&str>) -> Result<ModelRef> {
    Ok(ModelRef { name: name.to_owned(), version: version.map(number_of).transpose()? })
}

/// A version that may be left empty.
///
/// # Errors
/// `invalid_argument` for what is not a number.
pub(crate) fn version_of(text: &str) -> Result<Option<u32>> {
    if text.is_empty() { Ok(None) } else { number_of(text).map(Some) }
}

fn number_of(text: &str) -> Result<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<u32>().ok().filter(|_| digits).ok_or_else(|| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("'{}' is not a version", text.chars().take(40).collect::<String>()),
            "a version is a number, such as 1",
        )
    })
}

fn no_shared_memory(kind: &str) -> Error {
    Error::new(
        ErrorCode::Unsupported,
        format!("{kind} is not served: a server reads no memory that a client names"),
        "send the data in the body",
    )
}

fn unknown_path(path: &str) -> Error {
    let hint = match path.trim_end_matches('/') {
        "health" | "healthz" | "livez" | "readyz" | "live" | "ready" => {
            "use GET /v2/health/ready, or GET /v2/health/live for the process alone"
        }
        "metrics" => {
            "metrics are at /metrics of the metrics port: `metrics_port` under [server] in headrace.toml, 8002 by default"
        }
        _ => {
            "use GET /v1/deployments for what is served, POST /v1/deployments/NAME/predict, POST /get-online-features, \
             GET /v2 for the Open Inference Protocol, or GET /v1/docs"
        }
    };
    let message = format!("there is nothing at '/{}'", path.chars().take(200).collect::<String>());
    Error::new(ErrorCode::NotFound, message, hint)
}

/// `%41` to `A`. What is not a sound escape, or not UTF-8 when decoded, stays as it is and matches no name.
fn percent_decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escape = after.split_first_chunk::<2>().filter(|_| byte == b'%');
        let decoded = escape.and_then(|(digits, after)| Some((hex(digits[0])? << 4 | hex(digits[1])?, after)));
        let (byte, after) = decoded.unwrap_or((byte, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(segment), Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_of_both_protocols() {
        let model = |name: &str, version| ModelRef { name: name.to_owned(), version };
        for (path, route) in [
            ("/v2", Route::ServerMetadata),
            ("/v2/", Route::ServerMetadata),
            ("/v2/health/live", Route::Live),
            ("/v2/models/stats", Route::Statistics),
            ("/v2/models/m", Route::ModelMetadata(model("m", None))),
            ("/v2/models/m/versions/3", Route::ModelMetadata(model("m", Some(3)))),
            ("/v2/models/m/versions/3/infer", Route::Infer(model("m", Some(3)))),
            ("/v2/models/a%20b%2fc/ready", Route::ModelReady(model("a b/c", None))),
            ("/v2/models/50%/config", Route::ModelConfig(model("50%", None))),
            ("/v2/models/m/stats", Route::ModelStatistics(model("m", None))),
            ("/v2/repository/index", Route::RepositoryIndex),
            ("/v1/deployments/d/predict", Route::Predict(model("d", None))),
            ("/v1/deployments/d/versions/12/predict", Route::Predict(model("d", Some(12)))),
            ("/get-online-features", Route::OnlineFeatures),
            ("/v1/feature-views/weather%40v2/push", Route::Push("weather@v2".to_owned())),
            ("/v1/feature-views/weather/delete", Route::Delete("weather".to_owned())),
            ("/v2/models", Route::Models),
            ("/v2/models/", Route::Models),
            ("/v1/deployments", Route::Deployments),
            ("/v1/deployments/d%20e", Route::Deployment("d e".to_owned())),
            ("/v2/trace/setting", Route::TraceSetting(None)),
            ("/v2/models/m/trace/setting", Route::TraceSetting(Some("m".to_owned()))),
            ("/v2/logging", Route::Logging),
            ("/v1/openapi.json", Route::OpenApi),
            ("/v1/docs", Route::Docs),
        ] {
            assert_eq!(Route::of_path(path).unwrap(), route, "{path}");
            assert_ne!(route.index(), ROUTE_NONE);
        }
    }

    #[test]
    fn every_path_of_a_route_leads_to_it() {
        for (index, path) in ROUTE_PATHS.iter().enumerate().take(ROUTE_NONE) {
            let path = path.replace("{change}", "load");
            assert_eq!(Route::of_path(&path).unwrap().index(), index, "{path}");
        }
    }

    #[test]
    fn other_paths_are_not_found_and_versions_are_numbers() {
        for path in
            ["", "/", "/v3", "/v2/model", "/v2/models/m/explain", "/v1/deployments/d/x", "/v1/deployments/d/predict/x"]
        {
            assert_eq!(Route::of_path(path).unwrap_err().code, ErrorCode::NotFound, "{path}");
        }
        let error = Route::of_path("/v2/systemsharedmemory/region/r/register").unwrap_err();
        assert_eq!(error.code, ErrorCode::Unsupported);
        for (path, part) in [("/health", "/v2/health/ready"), ("/metrics", "metrics port"), ("/", "/v1/deployments")] {
            let error = Route::of_path(path).unwrap_err();
            assert!(error.hint.contains(part), "{path}: {error}");
        }
        for version in ["v1", "+1", "-1", "4294967296", ""] {
            let error = Route::of_path(&format!("/v2/models/m/versions/{version}")).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{version}");
        }
    }
}
