//! Who may do what, over real sockets: every path and method, both protocols.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headrace_engine::{Engine, EngineOptions};
use headrace_protocol::grpc::method_paths;
use headrace_server::{Server, ServerConfig};
use headrace_types::{ErrorCode, base64, digest_bytes};
use support::grpc::{GrpcClient, field, framed, infer};
use support::{Answer, Running, config, start};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
/// Rows of the model `delay`.
const BODY: &[u8] = br#"{"inputs": [{"name": "features", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}"#;
const KEYS: [(&str, &str); 6] = [
    ("all", "scopes = [\"*:*\"]"),
    ("delay", "scopes = [\"predict:delay\"]"),
    ("keeper", "scopes = [\"manage_models:delay\"]"),
    ("none", ""),
    ("slow", "scopes = [\"*:*\"]\nrate = \"1/h\"\nburst = 2"),
    ("old", "scopes = [\"*:*\"]\nexpires = 2020-01-01T00:00:00Z"),
];

struct Policy(PathBuf);

impl Policy {
    fn new(more: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("headrace-access-socket-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let policy = Self(folder);
        policy.write(&format!("{}{more}", keys(&KEYS)));
        policy
    }

    fn path(&self) -> PathBuf {
        self.0.join("access.toml")
    }

    fn write(&self, text: &str) {
        let new = self.0.join("new.toml");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    fn start(&self) -> Running {
        start(ServerConfig { access: Some(self.path()), ..config() })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn keys(named: &[(&str, &str)]) -> String {
    let entry = |(name, more): &(&str, &str)| {
        let hash = digest_bytes(secret(name).as_bytes());
        format!("[[keys]]\nname = \"{name}\"\nhash = \"{hash}\"\n{more}\n")
    };
    named.iter().map(entry).collect()
}

fn secret(name: &str) -> String {
    format!("hr_canary_{name}")
}

fn asked(server: &Running, key: Option<&str>, method: &str, path: &str, body: &[u8]) -> Answer {
    let bearer = format!("Bearer {}", key.map(secret).unwrap_or_default());
    let headers: &[(&str, &str)] = if key.is_some() { &[("authorization", &bearer)] } else { &[] };
    server.client().request(method, path, headers, body)
}

fn called(server: &Running, key: Option<&str>, path: &str, body: &[u8]) -> (u8, String) {
    let bearer = format!("Bearer {}", key.map(secret).unwrap_or_default());
    let headers: &[(&str, &str)] = if key.is_some() { &[("authorization", &bearer)] } else { &[] };
    let mut client = GrpcClient::connect(server.grpc.unwrap());
    let reply = client.try_call(path, headers, body).unwrap();
    (reply.status, reply.code)
}

#[test]
fn every_path_refuses_who_may_do_nothing() {
    let policy = Policy::new("");
    let server = policy.start();
    for (method, path) in [
        ("GET", "/v2"),
        ("GET", "/v2/models"),
        ("GET", "/v2/models/stats"),
        ("GET", "/v2/models/delay"),
        ("GET", "/v2/models/nothing"),
        ("GET", "/v2/models/delay/ready"),
        ("GET", "/v2/models/delay/config"),
        ("GET", "/v2/models/delay/stats"),
        ("GET", "/v2/models/delay/trace/setting"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/models/delay/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("POST", "/v2/logging"),
        ("POST", "/v2/models/delay/infer"),
        ("POST", "/v2/models/delay/versions/1/infer"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/delay/load"),
        ("POST", "/v2/repository/models/delay/unload"),
        ("POST", "/v1/deployments/delay/predict"),
        ("POST", "/v1/feature-views/weather/push"),
        ("POST", "/v1/feature-views/weather/delete"),
        ("GET", "/v1/deployments"),
        ("GET", "/v1/deployments/delay"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/v1/docs"),
    ] {
        for (key, status) in [(None, 401), (Some("wrong"), 401), (Some("old"), 401), (Some("none"), 403)] {
            let answer = asked(&server, key, method, path, b"");
            assert_eq!(answer.status, status, "{method} {path} {key:?}");
            assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{path}");
            assert!(!answer.text().contains("canary"));
        }
    }
    assert_eq!(asked(&server, None, "POST", "/get-online-features", b"{}").status, 401);
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(asked(&server, None, "GET", path, b"").status, 200);
    }
}

#[test]
fn every_grpc_method_refuses_who_may_do_nothing() {
    let policy = Policy::new("");
    let server = policy.start();
    for path in method_paths().unwrap() {
        let is_health = ["/ServerLive", "/ServerReady", "/Check", "/Watch"].iter().any(|end| path.ends_with(end));
        if is_health {
            // The health of a model tells that there is one.
            if path.contains("Health") {
                let (status, code) = called(&server, Some("all"), &path, &framed(&field(1, b"delay")));
                assert_eq!((status, code.as_str()), (16, "unauthenticated"), "{path}");
            } else {
                assert_eq!(called(&server, None, &path, &framed(b"")).0, 0, "{path}");
            }
            continue;
        }
        for key in [None, Some("wrong"), Some("old")] {
            let (status, code) = called(&server, key, &path, &framed(b""));
            assert_eq!((status, code.as_str()), (16, "unauthenticated"), "{path} {key:?}");
        }
        if path.ends_with("GetOnlineFeatures") {
            continue; // its service must exist to be asked for; tests/protocol/test_access.py has one
        }
        if path.ends_with("ModelStreamInfer") {
            continue; // told in the stream, below
        }
        let (status, code) = called(&server, Some("none"), &path, &framed(&field(1, b"delay")));
        assert_eq!((status, code.as_str()), (7, "permission_denied"), "{path}");
    }
    let mut client = GrpcClient::connect(server.grpc.unwrap());
    let bearer = format!("Bearer {}", secret("none"));
    let reply = client.try_call(STREAM, &[("authorization", &bearer)], &framed(&infer("delay", [1, 2], &[1.0, 2.0])));
    assert!(String::from_utf8_lossy(&reply.unwrap().messages[0]).contains("may not predict of 'delay'"));
}

#[test]
fn a_key_does_what_it_is_for() {
    let policy = Policy::new("");
    let server = policy.start();
    assert_eq!(asked(&server, Some("delay"), "POST", "/v2/models/delay/infer", BODY).status, 200);
    assert_eq!(asked(&server, Some("delay"), "POST", "/v2/models/minutes/infer", BODY).status, 403);
    assert_eq!(asked(&server, Some("delay"), "POST", "/v2/models/d%65lay/infer", BODY).status, 200);
    assert_eq!(asked(&server, Some("all"), "GET", "/v2/models", b"").status, 200);
    let mut client = server.client();
    let answer = client.request("POST", "/v2/models/delay/infer", &[("x-api-key", &secret("delay"))], BODY);
    assert_eq!(answer.status, 200);
    let message = infer("delay", [1, 2], &[1.0, 2.0]);
    assert_eq!(called(&server, Some("delay"), INFER, &framed(&message)).0, 0);
    assert_eq!(called(&server, Some("delay"), INFER, &framed(&infer("minutes", [1, 1], &[1.0]))).0, 7);
    // The name that counts is the one that is run.
    let two_names = [&message[..], &field(1, b"minutes")].concat();
    assert_eq!(called(&server, Some("delay"), INFER, &framed(&two_names)).0, 7);
}

#[test]
fn who_may_manage_a_model_changes_it_over_both_protocols() {
    let policy = Policy::new("");
    for (is_allowed, http, grpc, slug) in [(true, 200, 0, ""), (false, 403, 7, "read_only")] {
        let server = start(ServerConfig { access: Some(policy.path()), model_control: is_allowed, ..config() });
        for (path, method) in [("load", "RepositoryModelLoad"), ("unload", "RepositoryModelUnload")] {
            let method = format!("/inference.GRPCInferenceService/{method}");
            let over_http = |key, name| {
                asked(&server, Some(key), "POST", &format!("/v2/repository/models/{name}/{path}"), b"").status
            };
            let over_grpc = |key, name: &str| called(&server, Some(key), &method, &framed(&field(2, name.as_bytes())));
            assert_eq!((over_http("keeper", "delay"), over_grpc("keeper", "delay")), (http, (grpc, slug.to_owned())));
            for (key, name) in [("keeper", "minutes"), ("keeper", ""), ("delay", "delay")] {
                assert_eq!(over_http(key, name), 403, "{key} {name}");
                assert_eq!(over_grpc(key, name), (7, "permission_denied".to_owned()), "{key} {name}");
            }
            if is_allowed {
                assert_eq!((over_http("all", "minutes"), over_grpc("all", "minutes").0), (404, 5));
                for broken in [&b"\x12\x7f"[..], b"\x12\x01\xff", b"\x10\x05", b"\x1a\x02\x0a\x09"] {
                    assert_eq!(called(&server, Some("all"), &method, &framed(broken)).0, 3, "{broken:?}");
                }
                let with_config = [field(2, b"delay"), field(3, &field(1, b"config"))].concat();
                assert_eq!(called(&server, Some("all"), &method, &framed(&with_config)).0, 3);
            }
        }
        // Who may only ask changes no setting.
        let settings = "/inference.GRPCInferenceService/TraceSetting";
        let change =
            [field(1, &[field(1, b"trace_rate"), field(2, &field(1, b"5"))].concat()), field(2, b"delay")].concat();
        assert_eq!(called(&server, Some("keeper"), settings, &framed(&change)), (0, String::new()));
        assert_eq!(called(&server, Some("keeper"), settings, &framed(&field(2, b"delay"))).0, 7);
        assert_eq!(called(&server, Some("delay"), settings, &framed(&change)).0, 7);
    }
}

#[test]
fn a_rate_is_one_for_both_protocols() {
    let policy = Policy::new("");
    let server = policy.start();
    assert_eq!(asked(&server, Some("slow"), "POST", "/v2/models/delay/infer", BODY).status, 200);
    assert_eq!(called(&server, Some("slow"), INFER, &framed(&infer("delay", [1, 2], &[1.0, 2.0]))).0, 0);
    let answer = asked(&server, Some("slow"), "POST", "/v2/models/delay/infer", BODY);
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3601).contains(&seconds), "{seconds}");
    assert!(answer.text().contains("rate_limited"));
    let refused = called(&server, Some("slow"), INFER, &framed(&infer("delay", [1, 2], &[1.0, 2.0])));
    assert_eq!(refused, (8, "rate_limited".to_owned()));
    assert_eq!(asked(&server, Some("all"), "POST", "/v2/models/delay/infer", BODY).status, 200);
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {what}");
}

#[test]
fn a_changed_policy_comes_into_force_and_a_broken_one_does_not() {
    let policy = Policy::new("");
    let server = policy.start();
    let status = |key| asked(&server, Some(key), "GET", "/v2", b"").status;
    assert_eq!((status("all"), status("new")), (200, 401));
    // The first look must have been before the change.
    std::thread::sleep(Duration::from_millis(200));
    policy.write(&keys(&[("new", "scopes = [\"*:*\"]")]));
    eventually("the new key holds", || status("new") == 200);
    assert_eq!(status("all"), 401);
    policy.write("kees = 1");
    eventually("the fault is counted", || server.metrics_page().contains("headrace_access_reload_failures_total 1"));
    assert_eq!(status("new"), 200);
    policy.write(&keys(&KEYS));
    eventually("the old key holds again", || status("all") == 200);
}

#[test]
fn the_issuer_is_not_asked_for_each_unknown_key() {
    let issuer = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = issuer.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in issuer.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let keys = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "AAAA"}]}"#;
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{keys}", keys.len()).unwrap();
        }
    });
    let jwt =
        format!("[jwt]\nissuer = \"i\"\naudience = \"a\"\nalgorithms = [\"EdDSA\"]\njwks = \"http://{addr}/keys\"\n");
    let policy = Policy::new(&jwt);
    let server = policy.start();
    let status = |number: usize| {
        let head = base64::encode(format!("{{\"alg\":\"EdDSA\",\"kid\":\"k{number}\"}}").as_bytes());
        let token = format!("Bearer {}.e30.AAAA", head.trim_end_matches('='));
        server.client().request("GET", "/v2", &[("authorization", &token)], b"").status
    };
    eventually("the keys are there", || status(0) == 401);
    for number in 1..300 {
        assert!([401, 503].contains(&status(number)));
    }
    let fetched = requests.load(Ordering::Relaxed);
    assert!((1..=4).contains(&fetched), "{fetched}");
}

#[test]
fn an_address_that_others_reach_needs_a_policy() {
    let engine = || Arc::new(Engine::new(EngineOptions::default()));
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let open = || ServerConfig { http_addr: any, ..config() };
    let error = Server::bind(open(), engine()).unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert!(error.to_string().contains("0.0.0.0") && error.to_string().contains("--access"), "{error}");
    let grpc = ServerConfig { grpc_addr: Some(any), ..config() };
    assert_eq!(Server::bind(grpc, engine()).unwrap_err().code, ErrorCode::PermissionDenied);
    Server::bind(ServerConfig { insecure_no_auth: true, ..open() }, engine()).unwrap();
    let policy = Policy::new("");
    let server = Server::bind(ServerConfig { access: Some(policy.path()), ..open() }, engine()).unwrap();
    assert!(server.take_notices().iter().any(|notice| notice.contains("in clear")));
}
