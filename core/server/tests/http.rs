//! The server over real sockets: right requests, wrong ones, slow ones, many at a time, start and stop.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use headrace_engine::testing::{GatedModel, sum_regressor};
use headrace_engine::{Engine, EngineOptions, ModelSpec, ServedModel};
use headrace_server::{Server, ServerConfig};
use headrace_types::{ErrorCode, Model, Objective, Result};
use serde_json::json;
use support::{Client, Running, WAITING_MAX, config, head, start, start_with};

const PREDICT: &str = "/v1/deployments/delay/predict";
const INFER: &str = "/v2/models/delay/infer";
const ONE_ROW: &[u8] = br#"{"features": {"a": [1], "b": [2]}}"#;

fn assert_alive(client: &mut Client) {
    assert_eq!(client.get("/v2/health/live").status, 200);
}

#[test]
fn a_connection_serves_many_requests() {
    let server = start(config());
    let mut client = server.client();
    for _ in 0..3 {
        let answer = client.post(PREDICT, ONE_ROW);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["predictions"][0]["label"], "late");
        assert_eq!(answer.json()["model_version"], "2");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let answer = client.post("/v1/deployments/delay/versions/1/predict", ONE_ROW);
    assert_eq!(answer.json()["model_version"], "1");
    // Two requests in one packet are answered in their order.
    let one = [head("POST", PREDICT, &[], ONE_ROW.len()), ONE_ROW.to_vec()].concat();
    client.send(&[one.clone(), head("GET", "/v2", &[], 0)].concat());
    assert!(client.answer().unwrap().json()["predictions"].is_array());
    assert_eq!(client.answer().unwrap().json()["name"], "headrace");
}

#[test]
fn what_the_server_tells_of_itself_and_its_models() {
    let server = start(config());
    let mut client = server.client();
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/delay/ready", "/v2/models/delay/versions/1/ready"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    let metadata = client.get("/v2/models/delay").json();
    assert_eq!(metadata["versions"], json!(["1", "2"]));
    assert_eq!(metadata["inputs"], json!([{"name": "features", "datatype": "FP64", "shape": [-1, 2]}]));
    assert_eq!(metadata["outputs"][0], json!({"name": "label", "datatype": "BYTES", "shape": [-1]}));
    assert_eq!(client.get("/v2/models/delay/config").json()["input"][0]["data_type"], "TYPE_FP64");
    assert_eq!(client.get("/v2/models").json()["models"][0]["name"], "delay");
    assert_eq!(client.get("/v1/deployments").json()["deployments"][0]["model_version"], "2");
    assert_eq!(client.get("/v1/deployments/minutes").json()["task"], "regression");
    let index = client.post("/v2/repository/index", b"").json();
    assert_eq!(index.as_array().map(Vec::len), Some(4));
    assert_eq!(index[0], json!({"name": "delay", "version": "1", "state": "READY", "reason": ""}));
    client.post(PREDICT, ONE_ROW);
    let stats = client.get("/v2/models/delay/versions/2/stats").json();
    assert_eq!(stats["model_stats"][0]["inference_count"], 1);
}

#[test]
fn infer_speaks_json_and_binary_tensors() {
    let server = start(config());
    let mut client = server.client();
    let answer = client.post(INFER, br#"{"id": "7", "inputs": [{"name": "features", "shape": [2, 2], "datatype": "FP64", "data": [[1, 2], [0, 0]]}],
        "outputs": [{"name": "scores"}, {"name": "label"}]}"#);
    let body = answer.json();
    assert_eq!((body["id"].as_str(), body["model_version"].as_str()), (Some("7"), Some("2")));
    assert_eq!(body["outputs"][0]["shape"], json!([2, 2]));
    assert_eq!(body["outputs"][0]["data"][2], 0.5);
    assert_eq!(body["outputs"][1]["data"], json!(["late", "on_time"]));

    let json = br#"{"inputs": [{"name": "features", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
        "parameters": {"binary_data_output": true}, "outputs": [{"name": "margin"}, {"name": "label", "parameters": {"binary_data": false}}]}"#;
    let body = [&json[..], &1.5_f32.to_le_bytes(), &2.0_f32.to_le_bytes()].concat();
    let answer = client.request("POST", INFER, &[("Inference-Header-Content-Length", &json.len().to_string())], &body);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let split = answer.header("inference-header-content-length").unwrap().parse::<usize>().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&answer.body[..split]).unwrap();
    assert_eq!(told["outputs"][0]["parameters"]["binary_data_size"], 8);
    assert_eq!(told["outputs"][1]["data"], json!(["late"]));
    assert_eq!(answer.body[split..], 3.5_f64.to_le_bytes());

    let raw = [1.0_f64.to_le_bytes(), (-1.0_f64).to_le_bytes()].concat();
    let answer = client.request("POST", INFER, &[("inference-header-content-length", "0")], &raw);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("inference-header-content-length").is_some());
}

#[test]
fn refusals_have_the_right_status_and_the_server_lives() {
    let server = start(config());
    let mut client = server.client();
    let tensor = |text: &str| format!(r#"{{"inputs": [{{"name": "features", {text}}}]}}"#);
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        ("POST", PREDICT, "{".into(), 400, "invalid_json"),
        ("POST", PREDICT, String::new(), 400, "invalid_json"),
        ("POST", PREDICT, r#"{"features": {"a": [1, 2], "b": [1]}}"#.into(), 400, "length_mismatch"),
        ("POST", PREDICT, r#"{"features": {"a": [1]}}"#.into(), 400, "missing_column"),
        ("POST", PREDICT, r#"{"features": {"z": [1]}}"#.into(), 400, "unknown_feature"),
        ("POST", "/v1/deployments/none/predict", "{}".into(), 404, "unknown_model"),
        ("POST", "/v1/deployments/delay/versions/9/predict", "{}".into(), 404, "unknown_model_version"),
        ("POST", "/v1/deployments/delay/versions/x/predict", "{}".into(), 400, "invalid_argument"),
        ("GET", PREDICT, String::new(), 405, "method_not_allowed"),
        ("POST", "/v2/health/live", String::new(), 405, "method_not_allowed"),
        ("GET", "/nothing", String::new(), 404, "not_found"),
        ("POST", INFER, tensor(r#""shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]"#), 400, "invalid_tensor"),
        ("POST", INFER, tensor(r#""shape": [1, 2], "datatype": "FP64", "data": [1]"#), 400, "invalid_tensor"),
        ("POST", INFER, tensor(r#""shape": [1, 2], "datatype": "FP16", "data": [1, 2]"#), 400, "invalid_tensor"),
        ("POST", INFER, tensor(r#""shape": [1, 2], "datatype": "FP99", "data": [1, 2]"#), 400, "invalid_argument"),
        ("POST", INFER, tensor(r#""shape": [-1, 2], "datatype": "FP64", "data": [1, 2]"#), 400, "invalid_argument"),
        ("POST", INFER, r#"{"inputs": []}"#.into(), 400, "missing_column"),
        ("POST", INFER, String::new(), 400, "invalid_json"),
        ("GET", "/v1/deployments/none", String::new(), 404, "unknown_model"),
        ("GET", "/health", String::new(), 404, "not_found"),
        ("GET", "/metrics", String::new(), 404, "not_found"),
        ("POST", "/v2/repository/index", "x".into(), 400, "invalid_json"),
        ("POST", "/get-online-features", r#"{"feature_service": "risk"}"#.into(), 404, "unknown_feature_service"),
        ("POST", "/get-online-features", "{}".into(), 400, "invalid_argument"),
    ];
    for (method, path, body, status, code) in cases {
        let answer = client.request(method, path, &[], body.as_bytes());
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{method} {path} {body}: {}", answer.text());
        assert_eq!(answer.header("allow").is_some(), status == 405);
    }
    for value in ["abc", "-1", "+5", "99999999999999999999", "100000", ""] {
        let answer = client.request("POST", INFER, &[("Inference-Header-Content-Length", value)], b"{}");
        assert_eq!(answer.refusal(), (400, "invalid_argument".to_owned()), "{value}");
    }
    assert_alive(&mut client);
}

#[test]
fn a_refused_request_whose_body_comes_later_leaves_its_connection_open() {
    let server = start(config());
    let mut client = server.client();
    for path in ["/nothing", "/v1/deployments/delay/versions/x/predict"] {
        client.send(&head("POST", path, &[], 2));
        std::thread::sleep(Duration::from_millis(20));
        client.send(b"{}");
        assert!(client.answer().expect("an answer").status >= 400);
    }
    assert_alive(&mut client);
}

#[test]
fn what_is_not_http_is_answered_and_closed() {
    let server = start(config());
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
    ] {
        let mut client = server.client();
        client.try_send(bytes);
        if let Some(answer) = client.answer() {
            assert_eq!(answer.status, 400, "{answer:?}");
            assert!(client.is_closed());
        }
    }
    let mut client = server.client();
    client.try_send(format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000)).as_bytes());
    assert!(client.answer().is_none_or(|answer| answer.status == 431));
    assert_alive(&mut server.client());
}

#[test]
fn a_request_has_a_hundred_headers_at_most() {
    let server = start(config());
    for (headers, status) in [(100, 200), (101, 431)] {
        let mut client = server.client();
        client.send(format!("GET /v2/health/live HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(headers)).as_bytes());
        assert_eq!(client.answer().expect("an answer").status, status, "{headers} headers");
    }
    assert_alive(&mut server.client());
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_comes() {
    let server = start(ServerConfig { body_bytes_max: 10_000, ..config() });
    let mut client = server.client();
    client.send(&head("POST", PREDICT, &[], 10_001));
    assert_eq!(client.answer().unwrap().refusal(), (413, "too_large".to_owned()));

    let mut client = server.client();
    client.send(&head("POST", PREDICT, &[], 50_000));
    client.try_send(&[b' '; 50_000]);
    assert_eq!(client.answer().unwrap().status, 413);

    let mut client = server.client();
    client.send(format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes());
    for _ in 0..20 {
        client.try_send(&[&b"400\r\n"[..], &[b' '; 1024], b"\r\n"].concat());
    }
    client.try_send(b"0\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 413);

    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&vec![b' '; 1 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    let mut client = server.client();
    let answer = client.request("POST", PREDICT, &[("content-encoding", "gzip")], &bomb);
    assert_eq!(answer.refusal(), (413, "too_large".to_owned()));
    assert_alive(&mut client);
}

#[test]
fn all_bodies_together_have_a_bound() {
    let server = start(ServerConfig { memory_bytes_max: 100_000, ..config() });
    let scrape = || Client::connect(server.metrics.unwrap()).get("/metrics").text().to_owned();
    let body = [ONE_ROW, &[b' '; 80_000]].concat();
    let mut slow = server.client();
    slow.send(&head("POST", PREDICT, &[], body.len()));
    slow.send(&body[..body.len() - 1]);
    while !scrape().contains(&format!("headrace_http_memory_bytes {}", body.len() - 1)) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let answer = server.client().post(PREDICT, &body);
    assert_eq!(answer.refusal(), (503, "unavailable".to_owned()), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&body).unwrap();
    let answer = server.client().request("POST", PREDICT, &[("content-encoding", "gzip")], &gzip.finish().unwrap());
    assert_eq!(answer.refusal(), (503, "unavailable".to_owned()), "inflated bytes count");
    assert_eq!(server.client().post(PREDICT, ONE_ROW).status, 200);
    slow.send(b" ");
    assert_eq!(slow.answer().unwrap().status, 200);
    assert_eq!(server.client().post(PREDICT, &body).status, 200);
    while !scrape().contains("headrace_http_memory_bytes 0") {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_compressed_body_is_read() {
    let server = start(config());
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(ONE_ROW).unwrap();
    let answer = server.client().request("POST", PREDICT, &[("content-encoding", "gzip")], &gzip.finish().unwrap());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn slow_clients_are_cut_off_and_others_served_meanwhile() {
    let short = Duration::from_millis(200);
    let server = start(ServerConfig { header_timeout: short, body_timeout: short, idle_timeout: short, ..config() });
    let mut idle = server.client();
    let mut half_head = server.client();
    half_head.send(b"POST /v2/models/delay/infer HTTP/1.1\r\nhost:");
    let mut half_body = server.client();
    half_body.send(&head("POST", PREDICT, &[], 100));
    half_body.send(b"{");
    let mut used = server.client();
    assert_alive(&mut used);
    assert_eq!(half_body.answer().unwrap().refusal(), (408, "cancelled".to_owned()));
    assert!(half_head.is_closed());
    assert!(idle.is_closed());
    assert!(used.is_closed());
    assert_alive(&mut server.client());
}

#[test]
fn a_client_that_does_not_take_its_answer_is_cut_off() {
    let config = ServerConfig {
        write_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(200),
        ..config()
    };
    let server = start(config);
    let mut client = server.client();
    let zeros = vec!["0"; 300_000].join(",");
    let body = format!(r#"{{"features": {{"a": [{zeros}], "b": [{zeros}]}}}}"#);
    client.send(&head("POST", PREDICT, &[], body.len()));
    client.send(body.as_bytes());
    let mut metrics = Client::connect(server.metrics.unwrap());
    // Only the metrics tell, without reading the answer, that the connection has gone.
    loop {
        let text = metrics.get("/metrics").text().to_owned();
        if text.contains("headrace_http_connections_timed_out_total 1") {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        metrics = Client::connect(server.metrics.unwrap());
    }
    assert_alive(&mut server.client());
}

#[test]
fn many_connections_at_a_time_get_each_their_own_answer() {
    let server = start(config());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let mut client = server.client();
            scope.spawn(move || {
                for request in 0..200 {
                    let value = f64::from(thread * 1000 + request);
                    let answer = client.post(
                        "/v1/deployments/minutes/predict",
                        format!(r#"{{"id": "{value}", "features": {{"a": [{value}]}}}}"#).as_bytes(),
                    );
                    assert_eq!(answer.json()["predictions"][0]["value"], value);
                    assert_eq!(answer.json()["id"], value.to_string());
                }
            });
        }
    });
    let text = Client::connect(server.metrics.unwrap()).get("/metrics").text().to_owned();
    assert!(text.contains(r#"headrace_http_requests_total{route="predict",status="200"} 1600"#), "{text}");
    assert!(text.contains(r#"headrace_predict_rows_total{model="minutes",version="1",outcome="ok"} 1600"#), "{text}");
    assert!(text.contains("headrace_http_requests_in_flight 0"), "{text}");
}

#[test]
fn connections_over_the_limit_are_told_to_come_back() {
    let server = start(ServerConfig { connections_max: 2, ..config() });
    let mut kept = [server.client(), server.client()];
    kept.iter_mut().for_each(assert_alive);
    let mut third = server.client();
    let answer = third.answer().unwrap();
    assert_eq!(answer.refusal(), (503, "unavailable".to_owned()));
    assert!(third.is_closed());
    kept.iter_mut().for_each(assert_alive);
}

#[test]
fn a_panic_ends_its_request_only() {
    let server = start(config());
    let mut client = server.client();
    let answer = client.post("/v1/deployments/fragile/predict", br#"{"features": {"a": [1]}}"#);
    assert_eq!(answer.refusal(), (500, "internal".to_owned()));
    assert_eq!(client.post(PREDICT, ONE_ROW).status, 200);
    let text = Client::connect(server.metrics.unwrap()).get("/metrics").text().to_owned();
    assert!(text.contains("headrace_http_panics_total 1"), "{text}");
}

#[test]
fn a_taken_port_is_refused_by_name() {
    let server = start(config());
    let engine = Arc::new(Engine::new(EngineOptions::default()));
    let error = Server::bind(ServerConfig { http_addr: server.addr, ..config() }, engine).unwrap_err();
    assert_eq!(error.code, ErrorCode::PortBusy);
    assert!(error.message.contains(&server.addr.to_string()), "{error}");
    assert!(error.hint.contains(&server.addr.port().to_string()), "{error}");
}

/// The head of a request has arrived when the server counts it.
fn wait_for_in_flight(server: &Running, count: usize) {
    wait_for(server, &format!("headrace_http_requests_in_flight {count}"));
}

/// Waits for a line of the metrics.
fn wait_for(server: &Running, line: &str) {
    let scrape = || Client::connect(server.metrics.unwrap()).get("/metrics").text().to_owned();
    while !scrape().lines().any(|found| found == line) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A model in another process, as far as the server can tell; it counts its calls.
#[derive(Debug, Default)]
struct WaitingModel {
    gated: GatedModel,
    calls: AtomicUsize,
}

impl Model for WaitingModel {
    fn features_count(&self) -> usize {
        1
    }

    fn outputs_count(&self) -> usize {
        1
    }

    fn objective(&self) -> Objective {
        Objective::Identity
    }

    fn waits(&self) -> bool {
        true
    }

    fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.gated.margins(features, rows, margins)
    }

    fn scores(&self, _margins: &mut [f64]) {}
}

#[test]
fn requests_that_wait_for_a_model_have_a_bound_and_go_with_their_clients() {
    let model = Arc::new(WaitingModel::default());
    let spec = ModelSpec { model: ServedModel::Rows(model.clone()), ..sum_regressor("away", 1, &["a"]) };
    let mut server = start_with(ServerConfig { threads: 1, ..config() }, vec![spec]);
    let held = model.gated.gate.lock().unwrap();
    let body = br#"{"features": {"a": [1]}}"#;
    let ask = [head("POST", "/v1/deployments/away/predict", &[], body.len()), body.to_vec()].concat();
    let mut first = server.client();
    first.send(&ask);
    wait_for(&server, "headrace_model_calls_total{model=\"away\",version=\"1\",from=\"queue\"} 1");
    let mut clients: Vec<Client> = (0..WAITING_MAX).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.send(&ask));
    wait_for(&server, "headrace_queue_waiting_requests{model=\"away\",version=\"1\"} 255");
    let mut another = server.client();
    another.send(&ask);
    assert_eq!(another.answer().unwrap().refusal(), (503, "unavailable".to_owned()));
    assert_eq!(another.post(PREDICT, ONE_ROW).status, 200, "other models are answered meanwhile");
    drop(clients);
    wait_for(&server, "headrace_http_connections 2");
    wait_for(&server, "headrace_http_requests_in_flight 1");
    drop(held);
    assert_eq!(first.answer().unwrap().status, 200);
    another.send(&ask);
    assert_eq!(another.answer().unwrap().status, 200);
    assert_eq!(model.calls.load(Ordering::Relaxed), 2, "those whose clients have gone are not computed");
    wait_for(&server, "nv_inference_request_failure{model=\"away\",version=\"1\",reason=\"CANCELED\"} 255");
    server.join();
}

#[test]
fn a_stop_does_not_wait_for_a_worker_that_computes_on() {
    let gate = Arc::new(Mutex::new(()));
    let model = Arc::new(GatedModel { gate: Arc::clone(&gate) });
    let busy = ModelSpec { model: ServedModel::Rows(model), ..sum_regressor("busy", 1, &["a"]) };
    let mut server = start_with(ServerConfig { drain_timeout: Duration::from_millis(50), ..config() }, vec![busy]);
    let held = gate.lock().unwrap();
    let mut client = server.client();
    let body = br#"{"features": {"a": [1]}}"#;
    client.send(&[head("POST", "/v1/deployments/busy/predict", &[], body.len()), body.to_vec()].concat());
    wait_for_in_flight(&server, 1);
    server.join(); // would never return if it waited for the gate
    drop(held);
}

/// Predicts at once, and explains when the gate is free.
#[derive(Debug)]
struct GatedExplanations {
    gate: Arc<Mutex<()>>,
}

impl Model for GatedExplanations {
    fn features_count(&self) -> usize {
        1
    }

    fn outputs_count(&self) -> usize {
        1
    }

    fn objective(&self) -> Objective {
        Objective::Identity
    }

    fn margins(&self, features: &[f64], _rows: usize, margins: &mut [f64]) -> headrace_types::Result<()> {
        margins.copy_from_slice(features);
        Ok(())
    }

    fn scores(&self, _margins: &mut [f64]) {}

    fn check_explainable(&self) -> headrace_types::Result<()> {
        Ok(())
    }

    fn contributions(&self, features: &[f64], rows: usize, contributions: &mut [f64]) -> headrace_types::Result<()> {
        drop(self.gate.lock().unwrap());
        for row in 0..rows {
            contributions[2 * row] = features[row];
        }
        Ok(())
    }
}

#[test]
fn a_request_that_takes_long_holds_up_no_other_connection_of_its_thread() {
    let gate = Arc::new(Mutex::new(()));
    let explained = Arc::new(GatedExplanations { gate: Arc::clone(&gate) });
    let explained = ModelSpec { model: ServedModel::Rows(explained), ..sum_regressor("explained", 1, &["a"]) };
    let busy = ModelSpec { model: GatedModel { gate: Arc::clone(&gate) }.into(), ..sum_regressor("busy", 1, &["a"]) };
    let server = start_with(ServerConfig { threads: 1, ..config() }, vec![explained, busy]);
    let explain = r#"{"features": {"a": [1.5]}, "explain": true}"#.to_owned();
    let infer = r#"{"inputs": [{"name": "features", "shape": [1, 1], "datatype": "FP64", "data": [1.5]}],
        "outputs": [{"name": "contributions"}]}"#;
    let many = format!(r#"{{"features": {{"a": [{}0]}}}}"#, "0, ".repeat(9_999)) + &" ".repeat(1 << 18);
    for (path, body, part) in [
        ("/v1/deployments/explained/predict", explain, "explanation"),
        ("/v2/models/explained/infer", infer.to_owned(), "contributions"),
        ("/v1/deployments/busy/predict", many, "predictions"),
    ] {
        let held = gate.lock().unwrap();
        let (mut first, mut second) = (server.client(), server.client());
        // Two of them: the second waits for its turn.
        for client in [&mut first, &mut second] {
            client.send(&[head("POST", path, &[], body.len()), body.clone().into_bytes()].concat());
        }
        wait_for_in_flight(&server, 2);
        let mut other = server.client();
        assert_eq!(other.post("/v1/deployments/explained/predict", br#"{"features": {"a": [2]}}"#).status, 200);
        assert_alive(&mut other);
        drop(held);
        for client in [&mut first, &mut second] {
            let answer = client.answer().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.text().contains(part), "{}", answer.text());
        }
    }
}

/// Says of itself that a row may take long, and answers when the gate is free.
#[derive(Debug)]
struct LongModel(GatedModel);

impl Model for LongModel {
    fn features_count(&self) -> usize {
        1
    }

    fn outputs_count(&self) -> usize {
        1
    }

    fn objective(&self) -> Objective {
        Objective::Identity
    }

    fn takes_long(&self) -> bool {
        true
    }

    fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.0.margins(features, rows, margins)
    }

    fn scores(&self, _margins: &mut [f64]) {}
}

#[test]
fn a_model_that_takes_long_holds_up_no_other_connection_of_its_thread() {
    let gate = Arc::new(Mutex::new(()));
    let model = Arc::new(LongModel(GatedModel { gate: Arc::clone(&gate) }));
    let spec = ModelSpec { model: ServedModel::Rows(model), ..sum_regressor("slow", 1, &["a"]) };
    let server = start_with(ServerConfig { threads: 1, ..config() }, vec![spec]);
    let infer = r#"{"inputs": [{"name": "features", "shape": [1, 1], "datatype": "FP64", "data": [1.5]}]}"#;
    for (path, body) in
        [("/v1/deployments/slow/predict", r#"{"features": {"a": [1.5]}}"#), ("/v2/models/slow/infer", infer)]
    {
        let held = gate.lock().unwrap();
        let mut client = server.client();
        client.send(&[head("POST", path, &[], body.len()), body.as_bytes().to_vec()].concat());
        wait_for_in_flight(&server, 1);
        assert_eq!(server.client().post(PREDICT, ONE_ROW).status, 200);
        drop(held);
        assert_eq!(client.answer().unwrap().status, 200);
    }
}

#[test]
fn requests_that_wait_and_those_that_take_long_take_no_places_of_each_other() {
    let (away, gate) = (Arc::new(WaitingModel::default()), Arc::new(Mutex::new(())));
    let explained = Arc::new(GatedExplanations { gate: Arc::clone(&gate) });
    let specs = vec![
        ModelSpec { model: ServedModel::Rows(away.clone()), ..sum_regressor("away", 1, &["a"]) },
        ModelSpec { model: ServedModel::Rows(explained), ..sum_regressor("explained", 1, &["a"]) },
    ];
    let server = start_with(ServerConfig { threads: 1, ..config() }, specs);
    let waits = ("/v1/deployments/away/predict", r#"{"features": {"a": [1.5]}}"#, "requests wait for it");
    let long = ("/v1/deployments/explained/predict", r#"{"features": {"a": [1.5]}, "explain": true}"#, "take long");
    for (hung, other, gate) in [(waits, long, &away.gated.gate), (long, waits, &gate)] {
        let (path, body, said) = hung;
        let held = gate.lock().unwrap();
        let ask = [head("POST", path, &[], body.len()), body.as_bytes().to_vec()].concat();
        let mut clients: Vec<Client> = (0..256).map(|_| server.client()).collect();
        clients[0].send(&ask);
        // Its call runs before the others fill the queue.
        while away.calls.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        clients[1..].iter_mut().for_each(|client| client.send(&ask));
        wait_for_in_flight(&server, 256);
        let mut another = server.client();
        let refused = another.post(path, body.as_bytes());
        assert_eq!(refused.refusal(), (503, "unavailable".to_owned()));
        assert!(refused.text().contains(said), "{}", refused.text());
        let answer = another.post(other.0, other.1.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        drop(held);
        for client in &mut clients {
            assert_eq!(client.answer().unwrap().status, 200);
        }
    }
}

#[test]
fn a_refused_or_panicking_request_that_takes_long_is_answered_as_any_other() {
    let server = start(ServerConfig { threads: 1, ..config() });
    let mut client = server.client();
    let blanks = " ".repeat(1 << 18);
    let cases = [
        ("fragile", r#"{"features": {"a": [1]}, "explain": true}"#.to_owned(), (400, "unsupported_model")),
        ("fragile", format!(r#"{{"features": {{"a": [1]}}}}{blanks}"#), (500, "internal")),
        ("delay", format!(r#"{{"features": {{"a": [1]}}, {blanks}}}"#), (400, "invalid_json")),
        ("delay", format!(r#"{{"features": {{"a": [1]}}{blanks}}}"#), (400, "missing_column")),
    ];
    for (model, body, (status, code)) in cases {
        let answer = client.post(&format!("/v1/deployments/{model}/predict"), body.as_bytes());
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{}", answer.text());
    }
    assert_alive(&mut client);
}

#[test]
fn an_answer_does_not_wait_for_the_bytes_behind_its_request() {
    let server = start(config());
    let mut client = server.client();
    let one = [head("POST", PREDICT, &[], ONE_ROW.len()), ONE_ROW.to_vec()].concat();
    let live = head("GET", "/v2/health/live", &[], 0);
    // A line end behind the body, as some clients send, and the begin of the next request.
    for tail in [&b"\r\n"[..], &live[..1], &live[..20]] {
        let mut client = server.client();
        client.send(&[&one[..], tail].concat());
        assert_eq!(client.answer().unwrap().status, 200);
        client.send(if tail == b"\r\n" { &live } else { &live[tail.len()..] });
        assert_eq!(client.answer().unwrap().json()["live"], true);
    }
    let pipelined = [&one[..], &live, &one, &live[..5]].concat();
    client.send(&pipelined);
    for member in ["predictions", "live", "predictions"] {
        assert!(client.answer().unwrap().json().get(member).is_some(), "{member}");
    }
    client.send(&live[5..]);
    assert_eq!(client.answer().unwrap().json()["live"], true);
}

#[test]
fn idle_connections_do_not_keep_a_scraper_out() {
    let server = start(config());
    let mut idle: Vec<Client> = (0..40).map(|_| Client::connect(server.metrics.unwrap())).collect();
    let answer = Client::connect(server.metrics.unwrap()).get("/metrics");
    assert!(answer.text().contains("headrace_build_info"));
    assert!(idle[0].is_closed(), "the oldest makes room");
}

#[test]
fn a_stop_lets_running_requests_end_and_takes_no_more() {
    let mut server = start(config());
    let mut idle = server.client();
    assert_alive(&mut idle);
    let mut running = server.client();
    running.send(&head("POST", PREDICT, &[], ONE_ROW.len()));
    running.send(&ONE_ROW[..5]);
    wait_for_in_flight(&server, 1);
    server.handle.stop();
    assert!(idle.is_closed());
    running.send(&ONE_ROW[5..]);
    let answer = running.answer().unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    server.join();
    assert!(std::net::TcpStream::connect(server.addr).is_err());
}

#[test]
fn a_get_changes_nothing_whatever_comes_with_it() {
    let server = start(config());
    let mut client = server.client();
    let before = client.get("/v2/logging").text().to_owned();
    let body = br#"{"log_verbose_level": 7}"#;
    client.send(&[head("GET", "/v2/logging", &[], body.len()), body.to_vec()].concat());
    assert_eq!(client.answer().unwrap().text(), before);
    assert_eq!(client.get("/v2/logging").text(), before);
    assert!(client.post("/v2/logging", body).text().contains("7"));
}
