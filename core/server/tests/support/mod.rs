//! A running server with two small models, and a client that speaks HTTP by hand, so that it can also speak it wrongly.
#![allow(unreachable_pub, dead_code)] // shared by test programs, which are crates of their own

pub mod grpc;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use headrace_engine::testing::{PanickingModel, sum_classifier, sum_regressor};
use headrace_engine::{BatchingOptions, Engine, EngineOptions, ModelSpec};
use headrace_server::{Errand, Errands, ModelChange, Server, ServerConfig, ServerHandle};
use headrace_types::{Error, ErrorCode, Result};

/// Long enough that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

pub struct Running {
    pub addr: SocketAddr,
    pub grpc: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub handle: ServerHandle,
    thread: Option<JoinHandle<Result<()>>>,
}

pub fn config() -> ServerConfig {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    ServerConfig {
        http_addr: any,
        grpc_addr: Some(any),
        metrics_addr: Some(any),
        threads: 2,
        ..ServerConfig::default()
    }
}

pub fn start(config: ServerConfig) -> Running {
    start_with(config, Vec::new())
}

/// Requests that may wait for one model.
pub const WAITING_MAX: usize = 255;

/// As [`start`], with further models.
pub fn start_with(config: ServerConfig, specs: Vec<ModelSpec>) -> Running {
    // A test holds this model for as long as the machine needs to connect many clients.
    let objectives = HashMap::from([("away".to_owned(), Duration::from_secs(60))]);
    let batching = BatchingOptions { requests_max: WAITING_MAX, objectives, ..BatchingOptions::default() };
    let engine = Arc::new(Engine::new(EngineOptions { batching, ..EngineOptions::default() }));
    engine.add_model(sum_classifier("delay", 1, &["a", "b"])).unwrap();
    engine.add_model(sum_classifier("delay", 2, &["a", "b"])).unwrap();
    engine.add_model(sum_regressor("minutes", 1, &["a"])).unwrap();
    let fragile = sum_classifier("fragile", 1, &["a"]);
    engine.add_model(ModelSpec { model: PanickingModel.into(), ..fragile }).unwrap();
    for spec in specs {
        engine.add_model(spec).unwrap();
    }
    let server = Server::bind(config, engine).unwrap();
    let (addrs, handle) = (server.local_addrs(), server.handle());
    if let Some(changes) = server.take_model_changes() {
        std::thread::spawn(move || answer_changes(&changes));
    }
    let thread = std::thread::spawn(move || server.run());
    Running { addr: addrs.http, grpc: addrs.grpc, metrics: addrs.metrics, handle, thread: Some(thread) }
}

/// Says of each change of a model that it is made, except of those of `minutes`.
fn answer_changes(changes: &Errands<ModelChange>) {
    while let Ok(next) = changes.next(Duration::from_millis(50)) {
        let Some(Errand { what, answer }) = next else { continue };
        answer.send(match what {
            ModelChange::Load(name) | ModelChange::Unload(name) if name == "minutes" => {
                Err(Error::new(ErrorCode::UnknownModel, format!("there is no model '{name}'"), "register it"))
            }
            _ => Ok(Vec::new()),
        });
    }
}

impl Running {
    pub fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    /// What Prometheus reads.
    pub fn metrics_page(&self) -> String {
        let mut client = Client::connect(self.metrics.unwrap());
        client.get("/metrics").text().to_owned()
    }

    /// Stops the server and waits for it.
    pub fn join(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.join();
    }
}

pub struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Sends as much as the server takes.
    pub fn try_send(&mut self, bytes: &[u8]) {
        drop(self.stream.get_mut().write_all(bytes));
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&head(method, path, headers, body.len()));
        self.send(body);
        self.answer().expect("an answer")
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.request("POST", path, &[], body)
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    /// The next answer; `None` when the server has closed the connection instead.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            read => read.unwrap(),
        };
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body.resize(length, 0);
        self.stream.read_exact(&mut answer.body).unwrap();
        Some(answer)
    }

    /// Whether the server closes the connection without another answer.
    pub fn is_closed(&mut self) -> bool {
        self.answer().is_none()
    }
}

pub fn head(method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and slug of an error answer.
    pub fn refusal(&self) -> (u16, String) {
        let json = self.json();
        assert!(json["error"].as_str().is_some_and(|error| !error.is_empty()), "{json}");
        (self.status, json["code"].as_str().unwrap().to_owned())
    }
}
