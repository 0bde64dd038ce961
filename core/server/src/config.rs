//! What a server is told at its start. Every limit has a unit and a default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::logs::LogConfig;
use crate::traces::TracesConfig;

/// Addresses and limits of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where predictions and features are served. Port 0 takes a free one.
    pub http_addr: SocketAddr,
    /// Where the same is served over gRPC; `None` for nowhere.
    pub grpc_addr: Option<SocketAddr>,
    /// Where Prometheus reads; `None` for nowhere.
    pub metrics_addr: Option<SocketAddr>,
    /// Threads that serve requests; 0 for one for each processor.
    pub threads: usize,
    /// Bytes of a request's body, as sent and as decompressed.
    pub body_bytes_max: usize,
    /// Bytes that the bodies and answers of all requests at work may hold; a request that would need more is told to come back later.
    pub memory_bytes_max: usize,
    /// Writes that may wait for the writer; 0 for a server that does not write.
    pub writes_max: usize,
    /// Whether clients may load and unload models.
    pub model_control: bool,
    /// The file that says who may do what; without one everybody may do everything, on loopback addresses only.
    pub access: Option<PathBuf>,
    /// Whether everybody may do everything from other machines, too.
    pub insecure_no_auth: bool,
    /// Connections open at a time; further ones are told to come back later. Fewer where the process may not open that many files:
    /// 256 files are left to everything else.
    pub connections_max: usize,
    /// From the first byte of a request to the end of its headers.
    pub header_timeout: Duration,
    /// From the end of the headers to the end of the body.
    pub body_timeout: Duration,
    /// From the answer being ready to the client having taken it.
    pub write_timeout: Duration,
    /// For a connection that waits for its next request.
    pub idle_timeout: Duration,
    /// After a stop, how long running requests may take.
    pub drain_timeout: Duration,
    /// Where traces of requests go; `None` for nowhere.
    pub traces: Option<TracesConfig>,
    /// What is logged on stderr; `None` for nothing.
    pub log: Option<LogConfig>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            http_addr: loopback(8000),
            grpc_addr: Some(loopback(8001)),
            metrics_addr: Some(loopback(8002)),
            threads: 0,
            body_bytes_max: 64 << 20,
            memory_bytes_max: 1 << 30,
            writes_max: 0,
            model_control: false,
            access: None,
            insecure_no_auth: false,
            connections_max: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(10),
            traces: None,
            log: None,
        }
    }
}

impl ServerConfig {
    pub(crate) fn threads_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}
