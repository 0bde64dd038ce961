//! What the server is told of logs and traces, and the lines of this process's own log.

use std::collections::BTreeMap;
use std::time::Duration;

use headrace_server::{Endpoint, ExportHeaders, LogConfig, LogFormat, LogLevel, TracesConfig};
use headrace_types::{Error, ErrorCode};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::Value;

use crate::engine::Engine;
use crate::error::{Outcome, detached};

/// Writes one line on stderr in the form of the server's log (`text` or `json`), if the settings of the engine's log let it through.
/// `level` is a number of Python's `logging`; `fields` are told behind the message.
#[pyfunction]
#[pyo3(signature = (engine, format, level, event, message, fields))]
pub(crate) fn write_log(
    py: Python<'_>,
    engine: &Engine,
    format: &str,
    level: u32,
    event: &str,
    message: &str,
    fields: BTreeMap<String, String>,
) -> Outcome<()> {
    let (engine, format) = (engine.checked()?, format_of(format)?);
    let level = match level {
        40.. => LogLevel::Error,
        30..40 => LogLevel::Warning,
        20..30 => LogLevel::Info,
        _ => LogLevel::Verbose,
    };
    let fields: Vec<(&str, Value)> = fields.iter().map(|(name, text)| (&**name, text.as_str().into())).collect();
    detached(py, || {
        headrace_server::write_log(engine, format, level, event, message, &fields);
        Ok(())
    })?;
    Ok(())
}

fn format_of(text: &str) -> Outcome<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("the log's format is '{text}'"),
            "use \"text\" or \"json\"",
        )
        .into()),
    }
}

/// The keys log, access_log and slow_request_seconds; no log without the first.
pub(crate) fn log_config(given: &Bound<'_, PyDict>) -> Outcome<Option<LogConfig>> {
    let Some(format) = given.get_item("log")?.filter(|format| !format.is_none()) else { return Ok(None) };
    let format = format_of(&format.extract::<String>()?)?;
    let access = given.get_item("access_log")?.map_or(Ok(false), |access| access.extract())?;
    let slow_seconds: f64 = given.get_item("slow_request_seconds")?.map_or(Ok(0.0), |slow| slow.extract())?;
    let slow = match slow_seconds {
        0.0 => None,
        seconds => Some(Duration::try_from_secs_f64(seconds).map_err(|_| {
            let message = format!("server.slow_request_seconds is {seconds}");
            Error::new(ErrorCode::InvalidArgument, message, "give seconds, or 0 for no such lines")
        })?),
    };
    Ok(Some(LogConfig { format, access, slow }))
}

/// What [`traces_config`] reads, as `headrace.traces` gives it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Traces {
    endpoint: String,
    ratio: f64,
    is_parent_based: bool,
    resource: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

/// The key traces; none where it is missing or None.
pub(crate) fn traces_config(given: &Bound<'_, PyDict>) -> Outcome<Option<TracesConfig>> {
    let Some(traces) = given.get_item("traces")?.filter(|traces| !traces.is_none()) else { return Ok(None) };
    let Traces { endpoint, ratio, is_parent_based, resource, headers } = traces.extract()?;
    let (endpoint, headers) = (Endpoint::parse(&endpoint)?, ExportHeaders(headers));
    Ok(Some(TracesConfig { endpoint, ratio, is_parent_based, resource, headers }))
}
