//! From records to spans: one of the request, and one of each phase that was measured.

use headrace_protocol::grpc::status_name;
use prost::Message;

use super::ids::new_span_id;
use super::message::{
    ExportTraceServiceRequest, FAILED, INTERNAL, InstrumentationScope, KeyValue, Resource, ResourceSpans, SERVER,
    ScopeSpans, Span, Status, Value,
};
use crate::record::{CallOf, Finished, Trace};

/// Of a span's flags: whether the parent is known to be in another process.
const HAS_IS_REMOTE: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;
const SAMPLED: u32 = 1;

/// gRPC codes that are the server's fault.
const SERVER_FAULTS: [u8; 6] = [2, 4, 12, 13, 14, 15];

/// The body of an export.
pub(crate) fn encoded<'a>(resource: &[(String, String)], records: impl Iterator<Item = &'a Finished>) -> Vec<u8> {
    let attributes = resource.iter().map(|(name, value)| KeyValue::text(name, value.as_str())).collect();
    let scope = InstrumentationScope { name: "headrace".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let spans = records.flat_map(spans_of).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    let resource_spans = vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn spans_of(record: &Finished) -> Vec<Span> {
    let Some(trace) = &record.trace else { return Vec::new() };
    let mut spans = vec![request_span(record, trace)];
    let end_ns = record.arrived_ns.saturating_add(ns(record.total));
    let mut began_ns = record.arrived_ns;
    for (name, duration) in record.phases() {
        // The engine measures how long phases take, not when they begin: they are told one after the other.
        let phase_end_ns = began_ns.saturating_add(ns(duration)).min(end_ns);
        spans.push(Span {
            trace_id: trace.trace_id.to_vec(),
            span_id: new_span_id().to_vec(),
            trace_state: trace.state.clone(),
            parent_span_id: trace.span_id.to_vec(),
            name: name.to_owned(),
            kind: INTERNAL,
            start_time_unix_nano: began_ns.min(end_ns),
            end_time_unix_nano: phase_end_ns,
            flags: SAMPLED | HAS_IS_REMOTE,
            ..Span::default()
        });
        began_ns = phase_end_ns;
    }
    spans
}

fn request_span(record: &Finished, trace: &Trace) -> Span {
    let (name, mut attributes, has_failed) = match &record.call {
        CallOf::Http { method, path, route, status } => http_attributes(method, path, route, *status),
        CallOf::Grpc { path, code } => grpc_attributes(path, *code),
    };
    let facts = &record.facts;
    if let Some((model, version)) = &facts.model {
        attributes.push(KeyValue::text("headrace.model.name", model.as_str()));
        attributes.push(KeyValue::text("headrace.model.version", version.to_string()));
    }
    if !facts.request_id.is_empty() {
        attributes.push(KeyValue::text("headrace.request.id", facts.request_id.as_str()));
    }
    if let Some(timing) = facts.timing {
        attributes.push(KeyValue::count("headrace.request.rows", facts.rows));
        attributes.push(KeyValue::new("headrace.request.cost_seconds", Value::Number(timing.cost.as_secs_f64())));
    }
    if let Some(code) = facts.error {
        attributes.push(KeyValue::text("error.type", code.slug()));
    }
    let is_remote = if trace.parent_id.is_some() { IS_REMOTE } else { 0 };
    Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.span_id.to_vec(),
        trace_state: trace.state.clone(),
        parent_span_id: trace.parent_id.map_or_else(Vec::new, |parent| parent.to_vec()),
        name,
        kind: SERVER,
        start_time_unix_nano: record.arrived_ns,
        end_time_unix_nano: record.arrived_ns.saturating_add(ns(record.total)),
        attributes,
        status: has_failed.then(|| Status { message: String::new(), code: FAILED }),
        flags: SAMPLED | HAS_IS_REMOTE | is_remote,
    }
}

/// Name, attributes, and whether the server is to blame.
fn http_attributes(method: &str, path: &str, route: &str, status: u16) -> (String, Vec<KeyValue>, bool) {
    let mut attributes = vec![
        KeyValue::text("http.request.method", method),
        KeyValue::text("url.path", path),
        KeyValue::text("url.scheme", "http"),
        KeyValue::count("http.response.status_code", status),
    ];
    let named = if method == "_OTHER" { "HTTP" } else { method };
    if route.is_empty() {
        return (named.to_owned(), attributes, status >= 500);
    }
    attributes.push(KeyValue::text("http.route", route));
    (format!("{named} {route}"), attributes, status >= 500)
}

fn grpc_attributes(path: &str, code: u8) -> (String, Vec<KeyValue>, bool) {
    let name = path.trim_start_matches('/');
    let (service, method) = name.split_once('/').unwrap_or((name, ""));
    let attributes = vec![
        KeyValue::text("rpc.system", "grpc"),
        KeyValue::text("rpc.service", service),
        KeyValue::text("rpc.method", method),
        KeyValue::count("rpc.grpc.status_code", code),
        KeyValue::text("rpc.response.status_code", status_name(code)),
    ];
    (name.to_owned(), attributes, SERVER_FAULTS.contains(&code))
}

fn ns(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::record::Facts;
    use headrace_engine::Timing;
    use headrace_types::ErrorCode;
    use std::time::Duration;

    fn finished(call: CallOf, facts: Facts) -> Finished {
        let trace = Trace {
            trace_id: [7; 16],
            span_id: [8; 8],
            parent_id: Some([9; 8]),
            state: "a=1".to_owned(),
            is_sampled: true,
        };
        Finished { arrived_ns: 1000, total: Duration::from_nanos(500), trace: Some(trace), facts, call }
    }

    fn decoded(records: &[Finished]) -> ResourceSpans {
        let resource = [("service.name".to_owned(), "flights".to_owned())];
        let bytes = encoded(&resource, records.iter());
        ExportTraceServiceRequest::decode(&bytes[..]).unwrap().resource_spans.remove(0)
    }

    fn value(span: &Span, key: &str) -> Option<Value> {
        span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
    }

    #[test]
    fn a_request_becomes_a_span_with_its_phases_below() {
        let timing = Timing {
            lookup: Duration::from_nanos(100),
            model: Duration::from_nanos(200),
            cost: Duration::from_millis(3),
            ..Timing::default()
        };
        let facts = Facts {
            model: Some(("delay".to_owned(), 2)),
            request_id: "r1".to_owned(),
            rows: 4,
            decode: Duration::from_nanos(50),
            timing: Some(timing),
            ..Facts::default()
        };
        let call =
            CallOf::http(&http::Method::POST, "/v1/deployments/delay/predict", "/v1/deployments/{name}/predict", 200);
        let told = decoded(&[finished(call, facts)]);
        assert_eq!(told.resource.unwrap().attributes, [KeyValue::text("service.name", "flights")]);
        let spans = &told.scope_spans[0].spans;
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["POST /v1/deployments/{name}/predict", "decode", "lookup", "model"]);
        let [request, phases @ ..] = &spans[..] else { panic!("no span") };
        assert_eq!((request.parent_span_id.as_slice(), request.kind, request.flags), (&[9; 8][..], SERVER, 0x301));
        assert_eq!((request.start_time_unix_nano, request.end_time_unix_nano), (1000, 1500));
        assert_eq!((request.trace_state.as_str(), &request.status), ("a=1", &None));
        assert_eq!(value(request, "headrace.request.rows"), Some(Value::Count(4)));
        assert_eq!(value(request, "headrace.request.cost_seconds"), Some(Value::Number(0.003)));
        assert_eq!(value(request, "headrace.model.version"), Some(Value::Text("2".to_owned())));
        let mut began = 1000;
        for phase in phases {
            assert_eq!((phase.parent_span_id.as_slice(), phase.trace_id.as_slice()), (&[8; 8][..], &[7; 16][..]));
            assert_eq!((phase.start_time_unix_nano, phase.kind), (began, INTERNAL));
            began = phase.end_time_unix_nano;
        }
        assert_eq!(began, 1350);
    }

    #[test]
    fn failures_are_told_and_only_the_servers_own_mark_the_span() {
        let facts = || Facts { error: Some(ErrorCode::Unavailable), ..Facts::default() };
        for (call, has_failed) in [
            (CallOf::http(&http::Method::GET, "/x", "", 404), false),
            (CallOf::http(&http::Method::GET, "/x", "", 503), true),
            (CallOf::Grpc { path: "/headrace.v1.Headrace/Predict", code: 3 }, false),
            (CallOf::Grpc { path: "/headrace.v1.Headrace/Predict", code: 14 }, true),
        ] {
            let told = decoded(&[finished(call, facts())]);
            let span = &told.scope_spans[0].spans[0];
            assert_eq!(span.status.as_ref().is_some_and(|status| status.code == FAILED), has_failed, "{span:?}");
            assert_eq!(value(span, "error.type"), Some(Value::Text("unavailable".to_owned())));
        }
        let told =
            decoded(&[finished(CallOf::Grpc { path: "/headrace.v1.Headrace/Predict", code: 0 }, Facts::default())]);
        let span = &told.scope_spans[0].spans[0];
        assert_eq!(span.name, "headrace.v1.Headrace/Predict");
        assert_eq!(value(span, "rpc.service"), Some(Value::Text("headrace.v1.Headrace".to_owned())));
    }

    #[test]
    fn phases_end_with_their_request() {
        let facts = Facts { read: Duration::from_secs(1), decode: Duration::from_secs(1), ..Facts::default() };
        let told = decoded(&[finished(CallOf::http(&http::Method::GET, "/", "", 200), facts)]);
        assert!(told.scope_spans[0].spans.iter().all(|span| span.end_time_unix_nano <= 1500));
    }
}
