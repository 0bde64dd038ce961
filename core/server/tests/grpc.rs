//! The gRPC listener over real sockets: right calls, wrong ones, abuse, start and stop.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use headrace_engine::ModelSpec;
use headrace_engine::testing::{GatedModel, sum_regressor};
use headrace_server::ServerConfig;
use support::grpc::{GrpcClient, Reply, field, framed, infer, reply_of};
use support::{Running, config, start, start_with};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

fn client(server: &Running) -> GrpcClient {
    GrpcClient::connect(server.grpc.unwrap())
}

fn assert_alive(server: &Running) {
    assert_eq!(client(server).call(LIVE, b"").messages, [[8, 1]]);
}

/// Whether the bytes stand somewhere in a message.
fn holds(message: &[u8], part: &[u8]) -> bool {
    message.windows(part.len()).any(|window| window == part)
}

fn assert_refused(reply: &Reply, status: u8, code: &str) {
    assert_eq!((reply.status, reply.code.as_str()), (status, code), "{}", reply.reason);
    assert!(!reply.reason.is_empty() && reply.messages.is_empty());
}

#[test]
fn a_raw_request_gets_raw_scores() {
    let server = start(config());
    let mut client = client(&server);
    for _ in 0..3 {
        let reply = client.call(INFER, &infer("delay", [1, 2], &[1.0, -1.0]));
        assert_eq!(reply.status, 0, "{}", reply.reason);
        let message = &reply.messages[0];
        assert!(message.starts_with(b"\x0a\x05delay\x12\x012"), "{message:?}");
        assert!(holds(message, &field(6, &[0.5_f64.to_le_bytes(), 0.5_f64.to_le_bytes()].concat())));
    }
    let page = server.metrics_page();
    assert!(page.contains("headrace_grpc_requests_total{method=\"ModelInfer\",code=\"OK\"} 3"), "{page}");
}

#[test]
fn typed_values_get_typed_scores_and_both_forms_together_are_refused() {
    let server = start(config());
    let mut client = client(&server);
    let contents = |values: &[f64]| field(7, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    let tensor =
        |contents: &[u8]| [field(1, b"features"), field(2, b"FP64"), field(3, &[1, 2]), field(5, contents)].concat();
    let typed = [field(1, b"delay"), field(5, &tensor(&contents(&[1.0, -1.0])))].concat();
    let reply = client.call(INFER, &typed);
    assert_eq!(reply.status, 0, "{}", reply.reason);
    assert!(holds(&reply.messages[0], &field(5, &contents(&[0.5, 0.5]))));
    assert_refused(&client.call(INFER, &[typed.clone(), field(7, &[0; 16])].concat()), 3, "invalid_tensor");
    for wrong in [contents(&[1.0]), contents(&[1.0, 2.0, 3.0]), field(6, &[0; 8]), vec![]] {
        let request = [field(1, b"delay"), field(5, &tensor(&wrong))].concat();
        assert_refused(&client.call(INFER, &request), 3, "invalid_tensor");
    }
}

#[test]
fn refusals_have_status_slug_and_reason() {
    let server = start(config());
    let mut client = client(&server);
    for (path, message, status, code) in [
        (INFER, infer("nothing", [1, 2], &[0.0; 2]), 5, "unknown_model"),
        (INFER, [infer("delay", [1, 2], &[0.0; 2]), field(2, b"9")].concat(), 5, "unknown_model_version"),
        (INFER, [infer("delay", [1, 2], &[0.0; 2]), field(2, b"x")].concat(), 3, "invalid_argument"),
        (INFER, infer("delay", [1, 3], &[0.0; 3]), 3, "invalid_tensor"),
        (INFER, infer("delay", [1, 2], &[0.0; 3]), 3, "invalid_tensor"),
        (INFER, b"\xff\xff".to_vec(), 3, "invalid_argument"),
        (INFER, field(1, b"delay"), 3, "missing_column"),
        (INFER, infer("fragile", [1, 1], &[0.0]), 13, "internal"),
        ("/inference.GRPCInferenceService/RepositoryModelLoad", vec![], 7, "read_only"),
        ("/inference.GRPCInferenceService/SystemSharedMemoryStatus", vec![], 12, "method_not_allowed"),
        ("/inference.GRPCInferenceService/Nothing", vec![], 12, "method_not_allowed"),
        (CHECK, field(1, b"nothing"), 5, "unknown_model"),
    ] {
        assert_refused(&client.call(path, &message), status, code);
    }
    let request = framed(&infer("delay", [1, 2], &[0.0; 2]));
    for (name, value, status) in [("grpc-timeout", "5", 3), ("grpc-encoding", "br", 12), ("grpc-timeout", "0n", 4)] {
        let reply = client.try_call(INFER, &[(name, value)], &request).unwrap();
        assert_eq!(reply.status, status, "{name} {value}: {}", reply.reason);
    }
    for (body, code) in [
        (vec![], "invalid_argument"),
        ([request.clone(), request.clone()].concat(), "invalid_argument"),
        (request[..9].to_vec(), "cancelled"),
        ([&[7][..], &request[1..]].concat(), "invalid_argument"),
        ([&[1][..], &request[1..]].concat(), "invalid_argument"),
    ] {
        let reply = client.try_call(INFER, &[], &body).unwrap();
        assert_eq!(reply.code, code, "{}", reply.reason);
    }
    assert_alive(&server);
}

#[test]
fn a_message_over_the_limit_is_refused_before_it_comes() {
    let server = start(ServerConfig { body_bytes_max: 1000, ..config() });
    let mut client = client(&server);
    let (response, mut stream) = client.open(INFER, &[]).unwrap();
    stream.send_data(Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff]), false).unwrap();
    let reply = client.block_on(reply_of(response)).unwrap();
    assert_refused(&reply, 8, "too_large");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&[0; 100_000]).unwrap();
    let mut bomb = framed(&gzip.finish().unwrap());
    bomb[0] = 1;
    let reply = client.try_call(INFER, &[("grpc-encoding", "gzip")], &bomb).unwrap();
    assert_refused(&reply, 8, "too_large");
    assert_alive(&server);
}

#[test]
fn a_compressed_message_gets_a_compressed_answer() {
    let server = start(config());
    let mut client = client(&server);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&infer("delay", [100, 2], &[0.0; 200])).unwrap();
    let mut body = framed(&gzip.finish().unwrap());
    body[0] = 1;
    let reply = client.try_call(INFER, &[("grpc-encoding", "gzip")], &body).unwrap();
    assert_eq!(reply.status, 0, "{}", reply.reason);
    assert_eq!(reply.headers["grpc-encoding"], "gzip");
    assert!(reply.messages[0].starts_with(&[0x1f, 0x8b]));
}

#[test]
fn a_message_in_many_pieces_is_put_together() {
    let server = start(config());
    let mut client = client(&server);
    let (response, mut stream) = client.open(INFER, &[]).unwrap();
    let request = framed(&infer("delay", [1, 2], &[1.0, -1.0]));
    for piece in request.chunks(7) {
        stream.send_data(Bytes::copy_from_slice(piece), false).unwrap();
        client.rest(2);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(client.block_on(reply_of(response)).unwrap().status, 0);
}

#[test]
fn a_message_that_stops_coming_is_given_up() {
    let server = start(ServerConfig { body_timeout: Duration::from_millis(100), ..config() });
    let mut client = client(&server);
    let (response, mut stream) = client.open(INFER, &[]).unwrap();
    stream.send_data(Bytes::from_static(&[0, 0, 0]), false).unwrap();
    assert_refused(&client.block_on(reply_of(response)).unwrap(), 1, "cancelled");
}

#[test]
fn a_stream_answers_in_order_and_goes_on_after_an_error() {
    let server = start(config());
    let mut client = client(&server);
    let requests: Vec<u8> = [
        framed(&[infer("delay", [1, 2], &[1.0, -1.0]), field(3, b"first")].concat()),
        framed(&infer("nothing", [1, 2], &[0.0; 2])),
        framed(&[infer("delay", [1, 2], &[1.0, -1.0]), field(3, b"third")].concat()),
    ]
    .concat();
    let reply = client.try_call(STREAM, &[], &requests).unwrap();
    assert_eq!((reply.status, reply.messages.len()), (0, 3));
    assert!(holds(&reply.messages[0], b"first") && holds(&reply.messages[2], b"third"));
    assert!(reply.messages[1].starts_with(&[0x0a]) && holds(&reply.messages[1], b"nothing"));
}

#[test]
fn health_is_checked_and_watched() {
    let mut server = start(config());
    let mut client = client(&server);
    for service in [&b""[..], b"delay", b"inference.GRPCInferenceService"] {
        assert_eq!(client.call(CHECK, &field(1, service)).messages, [[8, 1]]);
    }
    let (response, mut stream) = client.open(WATCH, &[]).unwrap();
    stream.send_data(framed(b"").into(), true).unwrap();
    let mut body = client.block_on(response).unwrap().into_body();
    assert_eq!(client.block_on(body.data()).unwrap().unwrap(), framed(&[8, 1]));
    server.join();
    let trailers = client.block_on(async {
        while body.data().await.is_some() {}
        body.trailers().await.unwrap().unwrap()
    });
    assert_eq!(trailers["grpc-status"], "14");
}

#[test]
fn reflection_lists_services_and_gives_files() {
    let server = start(config());
    let mut client = client(&server);
    for path in [REFLECTION, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"] {
        let asked = [framed(&field(7, b"")), framed(&field(4, b"headrace.v1.Headrace")), framed(&field(4, b"none"))];
        let reply = client.try_call(path, &[], &asked.concat()).unwrap();
        assert_eq!((reply.status, reply.messages.len()), (0, 3), "{}", reply.reason);
        assert!(holds(&reply.messages[0], b"inference.GRPCInferenceService"));
        assert!(holds(&reply.messages[1], b"GetOnlineFeaturesRequest"));
        assert!(holds(&reply.messages[2], b"there is no"));
    }
}

#[test]
fn a_running_request_ends_before_the_server_does() {
    let gate = Arc::new(Mutex::new(()));
    let model = Arc::new(GatedModel { gate: Arc::clone(&gate) });
    let mut server = start_with(
        config(),
        vec![ModelSpec { model: headrace_engine::ServedModel::Rows(model), ..sum_regressor("gated", 1, &["a"]) }],
    );
    let mut client = client(&server);
    let held = gate.lock().unwrap();
    let (response, mut stream) = client.open(INFER, &[]).unwrap();
    stream.send_data(framed(&infer("gated", [1, 1], &[2.0])).into(), true).unwrap();
    client.rest(100);
    server.handle.stop();
    client.rest(50);
    drop(held);
    assert_eq!(client.block_on(reply_of(response)).unwrap().status, 0);
    server.join();
}

#[test]
fn thousands_of_resets_end_the_connection_and_harm_no_other() {
    let server = start(config());
    let mut other = client(&server);
    let mut hostile = client(&server);
    let mut ended = false;
    for number in 0..5000 {
        let Ok((_, mut stream)) = hostile.open(INFER, &[]) else {
            ended = true;
            break;
        };
        stream.send_reset(h2::Reason::CANCEL);
        if number % 100 == 0 {
            hostile.rest(1);
        }
    }
    // Whether the connection was ended depends on how many resets came before their requests were seen.
    if !ended {
        assert!(hostile.try_call(LIVE, &[], &framed(b"")).is_ok());
    }
    assert_eq!(other.call(LIVE, b"").status, 0);
    let page = server.metrics_page();
    assert!(page.contains("headrace_http_requests_in_flight 0"), "{page}");
}

#[test]
fn a_client_that_only_pings_is_ended() {
    let server = start(config());
    let mut stream = std::net::TcpStream::connect(server.grpc.unwrap()).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").unwrap();
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[1; 8]].concat().repeat(1000);
    stream.set_nonblocking(false).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let answers = std::thread::spawn(move || drop(std::io::copy(&mut reader, &mut std::io::sink())));
    let sent = (0..1000).take_while(|_| stream.write_all(&ping).is_ok()).count();
    assert!(sent < 1000, "{} bytes of pings were taken", sent * ping.len());
    answers.join().unwrap();
    assert_alive(&server);
}

#[test]
fn what_is_not_http2_is_not_served() {
    let server = start(ServerConfig { header_timeout: Duration::from_millis(100), ..config() });
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", &[0xff; 100]] {
        let mut stream = std::net::TcpStream::connect(server.grpc.unwrap()).unwrap();
        stream.write_all(bytes).unwrap();
        // Whatever is answered, the connection is closed by the server.
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
    }
    assert_alive(&server);
}

#[test]
fn an_idle_connection_is_ended_and_a_listener_may_be_switched_off() {
    let server = start(ServerConfig { idle_timeout: Duration::from_millis(100), ..config() });
    let mut client = client(&server);
    assert_eq!(client.call(LIVE, b"").status, 0);
    client.rest(600);
    assert!(client.try_call(LIVE, &[], &framed(b"")).is_err());
    assert!(start(ServerConfig { grpc_addr: None, ..config() }).grpc.is_none());
}
