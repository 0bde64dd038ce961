//! The lines of requests.

use serde_json::Value;

use super::LogFormat;
use super::line::{Level, line};
use crate::record::{CallOf, Finished};
use crate::traces::hex;

pub(crate) fn access_line(format: LogFormat, request: &Finished) -> String {
    line(format, Level::Info, "request", &what(request), &fields(request))
}

pub(crate) fn slow_line(format: LogFormat, request: &Finished) -> String {
    line(format, Level::Warning, "slow_request", &what(request), &fields(request))
}

fn what(request: &Finished) -> String {
    match &request.call {
        CallOf::Http { method, path, status, .. } => format!("{method} {path} {status}"),
        CallOf::Grpc { path, code } => format!("{path} {code}"),
    }
}

fn fields(request: &Finished) -> Vec<(&'static str, Value)> {
    let facts = &request.facts;
    let us = |duration: std::time::Duration| Value::from(duration.as_nanos() as f64 / 1e3);
    let mut fields: Vec<(&str, Value)> = Vec::with_capacity(16);
    match &request.call {
        CallOf::Http { status, .. } => fields.push(("status", (*status).into())),
        CallOf::Grpc { code, .. } => fields.push(("code", (*code).into())),
    }
    if let Some((model, version)) = &facts.model {
        fields.push(("model", model.as_str().into()));
        fields.push(("version", (*version).into()));
    }
    if let Some(code) = facts.error {
        fields.push(("error", code.slug().into()));
    }
    fields.push(("total_us", us(request.total)));
    if let Some(timing) = facts.timing {
        fields.push(("rows", facts.rows.into()));
        fields.push(("cost_us", us(timing.cost)));
    }
    for (phase, duration) in request.phases() {
        fields.push((phase_field(phase), us(duration)));
    }
    if !facts.request_id.is_empty() {
        fields.push(("request_id", facts.request_id.as_str().into()));
    }
    if let Some(trace) = &request.trace {
        fields.push(("trace_id", hex(&trace.trace_id).into()));
        fields.push(("span_id", hex(&trace.span_id).into()));
    }
    fields
}

fn phase_field(phase: &str) -> &'static str {
    match phase {
        "read" => "read_us",
        "decode" => "decode_us",
        "lookup" => "lookup_us",
        "transform" => "transform_us",
        "queue" => "queue_us",
        "model" => "model_us",
        _ => "encode_us",
    }
}
