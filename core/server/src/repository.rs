//! Loading and unloading of models on request.

use headrace_engine::shortened;
use headrace_types::{Error, ErrorCode, Result};

use crate::errands::ErrandQueue;

/// Models to load or unload that may wait.
const CHANGES_MAX: usize = 64;

/// What is to happen to the versions of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChange {
    /// All registered versions are read anew; those that are loaded answer until then.
    Load(String),
    /// None is served until it is loaded again; requests that run end normally.
    Unload(String),
}

/// The changes that clients ask for. `is_allowed` is whether they may.
pub(crate) fn change_queue(is_allowed: bool) -> ErrandQueue<ModelChange> {
    ErrandQueue::new(if is_allowed { CHANGES_MAX } else { 0 }, "changes of models", refused)
}

fn refused() -> Error {
    Error::new(
        ErrorCode::ReadOnly,
        "models are not loaded and unloaded on request here",
        "start the server with `headrace serve --model-control`, or set model_control = true under [server] in headrace.toml",
    )
}

/// Checks the body of a load or unload: it may be empty. Models come from the registry and bring their own configuration.
///
/// # Errors
/// `invalid_json`; `invalid_argument` for a configuration or files in the request.
pub(crate) fn check_body(body: &[u8]) -> Result<()> {
    #[derive(serde::Deserialize, Default)]
    struct Body {
        #[serde(default)]
        parameters: serde_json::Map<String, serde_json::Value>,
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| {
        Error::new(ErrorCode::InvalidJson, error.to_string(), "send nothing, or {\"parameters\": {}}")
    })?;
    body.parameters.keys().try_for_each(|name| check_parameter(name))
}

/// # Errors
/// `invalid_argument` for what a request cannot set.
pub(crate) fn check_parameter(name: &str) -> Result<()> {
    // Nothing depends on a model here.
    if name == "unload_dependents" {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!(
            "the parameter '{}' cannot be set: models are loaded from the registry as they are registered",
            shortened(name)
        ),
        "register the model with its files (`headrace register`), then load it by its name",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bodies_may_be_empty_and_set_nothing() {
        for body in [&b""[..], b" \n", b"{}", br#"{"parameters": {"unload_dependents": true}}"#] {
            check_body(body).unwrap();
        }
        for (body, code) in [
            (&br#"{"parameters": {"config": "{}"}}"#[..], ErrorCode::InvalidArgument),
            (br#"{"parameters": {"file:1/model.onnx": "aGk="}}"#, ErrorCode::InvalidArgument),
            (br#"{"parameters": [1]}"#, ErrorCode::InvalidJson),
            (b"[", ErrorCode::InvalidJson),
        ] {
            assert_eq!(check_body(body).unwrap_err().code, code);
        }
    }
}
