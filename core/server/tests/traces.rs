//! Traces over real sockets: a collector on loopback gets spans of HTTP and gRPC requests, and a dead one changes nothing for clients.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use headrace_server::{Endpoint, ExportHeaders, ServerConfig, TracesConfig};
use support::grpc::{GrpcClient, framed, infer};
use support::{Running, config, start};

const PREDICT: &str = "/v1/deployments/delay/predict";
const ONE_ROW: &[u8] = br#"{"features": {"a": [1], "b": [2]}}"#;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// Long enough that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

/// An export as it came: the head's lines in lower case, and the body.
struct Export {
    head: Vec<String>,
    body: Vec<u8>,
}

/// Answers each export with the next of these statuses, and the last one from then on.
fn collector(statuses: &[u16]) -> (SocketAddr, Receiver<Export>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, exports) = channel();
    let mut statuses = statuses.to_vec();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if line.trim_end().is_empty() {
                    break;
                }
                head.push(line.trim_end().to_ascii_lowercase());
            }
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let status = if statuses.len() > 1 { statuses.remove(0) } else { statuses[0] };
            stream.get_mut().write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes()).unwrap();
            if sender.send(Export { head, body }).is_err() {
                return;
            }
        }
    });
    (addr, exports)
}

fn traced(addr: SocketAddr, ratio: f64) -> ServerConfig {
    let traces = TracesConfig {
        endpoint: Endpoint::parse(&format!("http://{addr}")).unwrap(),
        ratio,
        is_parent_based: true,
        resource: vec![("service.name".to_owned(), "flights".to_owned())],
        headers: ExportHeaders(vec![("x-key".to_owned(), "secret".to_owned())]),
    };
    ServerConfig { traces: Some(traces), ..config() }
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-00f067aa0ba902b7-{flags}")
}

fn holds(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

fn trace_bytes() -> Vec<u8> {
    (0..16).map(|at| u8::from_str_radix(&TRACE[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn counted(server: &Running, outcome: &str) -> u64 {
    let page = server.metrics_page();
    let name = format!("headrace_traces_requests_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[test]
fn a_sampled_request_reaches_the_collector_with_its_callers_trace() {
    let (addr, exports) = collector(&[200]);
    let mut server = start(traced(addr, 0.0));
    let mut client = server.client();
    let headers =
        [("traceparent", parent("01")), ("tracestate", "congo=t61".to_owned()), ("x-request-id", "r-7".to_owned())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = client.request("POST", PREDICT, &headers, ONE_ROW);
    assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("r-7")));
    assert_eq!((answer.header("traceparent"), answer.json()["id"].as_str()), (None, Some("r-7")));
    // Neither the caller that does not record, nor the ratio of 0, makes a trace.
    client.request("POST", PREDICT, &[("traceparent", &parent("00"))], ONE_ROW);
    client.post(PREDICT, ONE_ROW);
    server.join();
    let export = exports.recv_timeout(HANG).unwrap();
    assert!(export.head[0].starts_with("post /v1/traces http/1.1"), "{:?}", export.head);
    for line in ["content-type: application/x-protobuf", "x-key: secret"] {
        assert!(export.head.iter().any(|other| other == line), "{line} is not in {:?}", export.head);
    }
    for part in
        [&trace_bytes()[..], b"POST /v1/deployments/{model}/predict", b"r-7", b"congo=t61", b"flights", b"decode"]
    {
        assert!(holds(&export.body, part), "{:?}", String::from_utf8_lossy(part));
    }
    assert_eq!(export.body.windows(16).filter(|window| *window == trace_bytes()).count(), names_in(&export.body));
    assert!(exports.try_recv().is_err(), "one trace is one export");
}

/// Spans of a predict request: itself, and the phases that took time.
fn names_in(body: &[u8]) -> usize {
    let phases: [&[u8]; 7] = [
        b"*\x04read0",
        b"*\x06decode0",
        b"*\x06lookup0",
        b"*\x09transform0",
        b"*\x05queue0",
        b"*\x05model0",
        b"*\x06encode0",
    ];
    1 + phases.iter().filter(|phase| holds(body, phase)).count()
}

#[test]
fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let (addr, exports) = collector(&[503, 200, 400, 200]);
    let server = start(traced(addr, 1.0));
    let mut client = server.client();
    assert_eq!(client.post(PREDICT, ONE_ROW).status, 200);
    let first = exports.recv_timeout(HANG).unwrap();
    assert_eq!(exports.recv_timeout(HANG).unwrap().body, first.body);
    wait_until(|| counted(&server, "exported") == 1);
    client.post(PREDICT, ONE_ROW);
    exports.recv_timeout(HANG).unwrap();
    wait_until(|| counted(&server, "dropped_failed") == 1);
}

#[test]
fn requests_are_answered_where_no_collector_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let mut server = start(traced(nobody, 1.0));
    let mut client = server.client();
    for _ in 0..100 {
        assert_eq!(client.post(PREDICT, ONE_ROW).status, 200);
    }
    let failures = |page: String| {
        let counted = page
            .lines()
            .find_map(|line| line.strip_prefix("headrace_traces_export_failures_total ").map(str::to_owned));
        counted.unwrap().parse::<u64>().unwrap()
    };
    wait_until(|| failures(server.metrics_page()) > 0);
    assert_eq!(client.post(PREDICT, ONE_ROW).status, 200);
    server.join();
}

#[test]
fn grpc_calls_and_each_message_of_a_stream_have_spans() {
    let (addr, exports) = collector(&[200]);
    let mut server = start(traced(addr, 0.0));
    let mut client = GrpcClient::connect(server.grpc.unwrap());
    let sampled = parent("01");
    let headers = [("traceparent", sampled.as_str())];
    let message = framed(&infer("delay", [1, 2], &[1.0, 2.0]));
    let unknown = framed(&infer("nobody", [1, 2], &[1.0, 2.0]));
    let stream = [message.clone(), unknown.clone()].concat();
    for (method, body) in [("ModelInfer", &message), ("ModelInfer", &unknown), ("ModelStreamInfer", &stream)] {
        client.try_call(&format!("/inference.GRPCInferenceService/{method}"), &headers, body).unwrap();
    }
    server.join();
    let body = exports.recv_timeout(HANG).unwrap().body;
    let count = |part: &[u8]| body.windows(part.len()).filter(|window| *window == part).count();
    assert_eq!(count(b"inference.GRPCInferenceService/ModelInfer"), 2);
    assert_eq!(count(b"inference.GRPCInferenceService/ModelStreamInfer"), 2);
    assert_eq!((count(b"unknown_model"), count(b"headrace.request.cost_seconds")), (2, 2));
}

/// Waits for what comes by itself; only a hang fails here, by the test runner's limit.
fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn hostile_headers_change_nothing_but_the_trace() {
    let (addr, exports) = collector(&[200]);
    let mut server = start(traced(addr, 1.0));
    let mut client = server.client();
    let long = "x".repeat(9000);
    for wrong in ["", "00-", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", &parent("0g"), &long, "\u{e9}"]
    {
        let answer = client.request("GET", "/v2/health/live", &[("traceparent", wrong), ("tracestate", wrong)], b"");
        assert_eq!(answer.status, 200);
    }
    let answer = client.request("GET", "/v2/health/live", &[("x-request-id", &long)], b"");
    assert_eq!((answer.status, answer.header("x-request-id")), (200, None));
    server.join();
    let export = exports.recv_timeout(HANG).unwrap();
    assert!(!holds(&export.body, long.as_bytes()) && !holds(&export.body, &trace_bytes()));
}
