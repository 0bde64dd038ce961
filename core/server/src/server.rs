//! Listeners, threads, start and stop.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use headrace_engine::Engine;
use headrace_types::{Error, ErrorCode, Result};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use crate::access::Access;
use crate::budget::MemoryBudget;
use crate::config::ServerConfig;
use crate::counters::{Scrape, WorkerCounters};
use crate::errands::{ErrandQueues, Errands};
use crate::grpc::REFUSAL;
use crate::logs::{Level, Log};
use crate::observe::Observer;
use crate::open_files::allowed_connections;
use crate::repository::{ModelChange, change_queue};
use crate::scrape::serve_metrics;
use crate::worker::{Speaks, Worker};
use crate::writes::{ViewWrite, write_queue};

/// After an accept has failed (no file descriptor is left, say), the pause before the next.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// After the drain timeout, how long the workers may take to end the connections that are left.
const DRAIN_GRACE: Duration = Duration::from_millis(250);
/// How often a stopping server looks whether its workers are done.
const JOIN_TICK: Duration = Duration::from_millis(5);

/// A server whose addresses are taken and which answers once it runs.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    addrs: LocalAddrs,
    scrape: Arc<Scrape>,
    listeners: Mutex<Option<Listeners>>,
    errands: Arc<ErrandQueues>,
    observer: Option<Arc<Observer>>,
    handle: ServerHandle,
}

#[derive(Debug)]
struct Listeners {
    http: TcpListener,
    grpc: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

/// The addresses that a server listens on, with the ports that port 0 became.
#[derive(Debug, Clone, Copy)]
pub struct LocalAddrs {
    pub http: SocketAddr,
    pub grpc: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
}

/// Stops a server from any thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    stop: Arc<watch::Sender<bool>>,
}

impl ServerHandle {
    /// Takes no more connections, lets running requests end within the drain timeout, then makes [`Server::run`] return, whatever
    /// still computes.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Server {
    /// Takes the addresses.
    ///
    /// # Errors
    /// `port_busy` naming the address, or `io`.
    pub fn bind(mut config: ServerConfig, engine: Arc<Engine>) -> Result<Self> {
        config.connections_max = allowed_connections(config.connections_max);
        let access = config.access.as_deref().map(Access::open).transpose()?;
        check_openness(&config, access.as_deref())?;
        let http = listen(config.http_addr, "HTTP")?;
        let grpc = config.grpc_addr.map(|addr| listen(addr, "gRPC")).transpose()?;
        let metrics = config.metrics_addr.map(|addr| listen(addr, "metrics")).transpose()?;
        let addrs = LocalAddrs {
            http: http.local_addr()?,
            grpc: grpc.as_ref().map(TcpListener::local_addr).transpose()?,
            metrics: metrics.as_ref().map(TcpListener::local_addr).transpose()?,
        };
        let workers = (0..config.threads_count()).map(|_| Arc::new(WorkerCounters::default())).collect();
        let budget = MemoryBudget::new(config.memory_bytes_max);
        let (refused_connections, observer) = (AtomicU64::new(0), OnceLock::new());
        let scrape = Arc::new(Scrape { engine, workers, refused_connections, budget, observer, access });
        let observer = Observer::of(&config, &scrape)?;
        if let Some(observer) = &observer {
            let _ = scrape.observer.set(Arc::downgrade(observer)); // it was made just now
        }
        let handle = ServerHandle { stop: Arc::new(watch::Sender::new(false)) };
        let writes = write_queue(config.writes_max);
        let errands = Arc::new(ErrandQueues { writes, models: change_queue(config.model_control) });
        let listeners = Mutex::new(Some(Listeners { http, grpc, metrics }));
        Ok(Self { config, addrs, scrape, listeners, errands, observer, handle })
    }

    pub fn local_addrs(&self) -> LocalAddrs {
        self.addrs
    }

    /// The writes that clients ask for, once: none where `writes_max` is 0 or they are taken already.
    pub fn take_writes(&self) -> Option<Errands<ViewWrite>> {
        self.errands.writes.take()
    }

    /// The models that clients want loaded or unloaded, once: none without `model_control`, or where they are taken already.
    pub fn take_model_changes(&self) -> Option<Errands<ModelChange>> {
        self.errands.models.take()
    }

    /// Whether clients must speak TLS.
    pub fn has_tls(&self) -> bool {
        self.scrape.access.as_ref().is_some_and(|access| access.has_tls())
    }

    /// What one should know of the access policy since the last time, such as a changed file that is wrong.
    pub fn take_notices(&self) -> Vec<String> {
        self.scrape.access.as_ref().map(|access| access.take_notices()).unwrap_or_default()
    }

    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until [`ServerHandle::stop`]; the calling thread takes the connections and hands each to the worker with the fewest.
    ///
    /// # Errors
    /// `io` when a thread or a runtime cannot be made; `unavailable` when the server has run before.
    pub fn run(&self) -> Result<()> {
        let taken = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(listeners) = taken else {
            return Err(Error::new(ErrorCode::Unavailable, "this server has run already", "bind a new one"));
        };
        let Some(observer) = &self.observer else { return self.serve(listeners) };
        let reporters = observer.start()?;
        self.log_ready();
        let served = self.serve(listeners);
        observer.end(reporters);
        served
    }

    fn log(&self) -> Option<&Log> {
        self.observer.as_ref()?.log().map(|log| &**log)
    }

    fn log_ready(&self) {
        let Some(log) = self.log() else { return };
        let text = |addr: Option<SocketAddr>| addr.map_or(Value::Null, |addr| addr.to_string().into());
        let LocalAddrs { http, grpc, metrics } = self.addrs;
        let (version, pid) = (env!("CARGO_PKG_VERSION").into(), std::process::id().into());
        let fields = [("version", version), ("pid", pid), ("threads", self.config.threads_count().into())];
        log.event(Level::Info, "start", "the server begins", &fields);
        let fields = [("http", text(Some(http))), ("grpc", text(grpc)), ("metrics", text(metrics))];
        log.event(Level::Info, "ready", "connections are taken", &fields);
    }

    fn serve(&self, listeners: Listeners) -> Result<()> {
        let stopping = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(Semaphore::new(self.config.threads_count()));
        let mut senders = Vec::new();
        let mut threads = Vec::new();
        for (number, counters) in self.scrape.workers.iter().enumerate() {
            let (sender, streams) = unbounded_channel();
            let (counters, observer) = (Arc::clone(counters), self.observer.clone());
            let (stopping, errands) = (Arc::clone(&stopping), Arc::clone(&self.errands));
            let (config, turns) = (self.config.clone(), Arc::clone(&turns));
            let given = Arc::clone(&counters);
            let worker = Worker::new(&self.scrape, config, given, stopping, observer, errands, turns);
            let thread = thread::Builder::new().name(format!("headrace-http-{number}"));
            threads.push(thread.spawn(move || worker.run(streams))?);
            senders.push((sender, counters));
        }
        let acceptor = Acceptor { config: &self.config, scrape: &self.scrape, workers: senders };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let accepted = runtime.block_on(async {
            if let Some(metrics) = listeners.metrics {
                tokio::spawn(serve_metrics(tokio_listener(metrics)?, Arc::clone(&self.scrape)));
            }
            if let Some(access) = &self.scrape.access {
                tokio::spawn(Arc::clone(access).keep());
            }
            let grpc = listeners.grpc.map(tokio_listener).transpose()?;
            acceptor.accept_until(tokio_listener(listeners.http)?, grpc, self.handle.stop.subscribe()).await;
            io::Result::Ok(())
        });
        stopping.store(true, Ordering::Relaxed);
        if let Some(log) = self.log() {
            let fields = [("connections", self.scrape.connections().into())];
            log.event(Level::Info, "drain", "no connections are taken any more, running requests end", &fields);
        }
        drop(acceptor); // closes the channels, which tells the workers to drain
        let joined = self.join(threads);
        if let Some(access) = &self.scrape.access {
            access.close();
        }
        joined?;
        Ok(accepted?)
    }

    /// Waits for the workers as long as they may drain. A worker that still computes then is left alone: it holds no connection that
    /// could be answered in time, and ends with the process.
    fn join(&self, threads: Vec<JoinHandle<io::Result<()>>>) -> Result<()> {
        let deadline = Instant::now() + self.config.drain_timeout + DRAIN_GRACE;
        for thread in threads {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(JOIN_TICK);
            }
            if thread.is_finished() {
                thread.join().map_err(|_| Error::internal("a worker thread panicked"))??;
            }
        }
        Ok(())
    }
}

/// The way of connections to a worker.
type Streams = UnboundedSender<(TcpStream, Speaks)>;

struct Acceptor<'a> {
    config: &'a ServerConfig,
    scrape: &'a Scrape,
    workers: Vec<(Streams, Arc<WorkerCounters>)>,
}

impl Acceptor<'_> {
    async fn accept_until(
        &self,
        http: tokio::net::TcpListener,
        grpc: Option<tokio::net::TcpListener>,
        mut stop: watch::Receiver<bool>,
    ) {
        let accept_grpc = async {
            match &grpc {
                Some(grpc) => self.accept_all(grpc, Speaks::Grpc).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.accept_all(&http, Speaks::Http) => {}
            () = accept_grpc => {}
            // The sender lives in the server, so this ends only by a stop.
            _ = stop.wait_for(|stopped| *stopped) => {}
        }
    }

    async fn accept_all(&self, listener: &tokio::net::TcpListener, speaks: Speaks) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.hand_over(stream, speaks),
                Err(_) => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
            }
        }
    }

    fn hand_over(&self, stream: tokio::net::TcpStream, speaks: Speaks) {
        let Ok(stream) = stream.into_std() else { return };
        if self.scrape.connections() >= self.config.connections_max as u64 {
            self.scrape.refused_connections.fetch_add(1, Ordering::Relaxed);
            // In plain words a client of TLS would understand nothing.
            if !self.scrape.access.as_ref().is_some_and(|access| access.has_tls()) {
                refuse(&stream, speaks);
            }
            return;
        }
        let fewest = self.workers.iter().min_by_key(|(_, counters)| counters.connections.load(Ordering::Relaxed));
        if let Some((sender, counters)) = fewest {
            counters.connections.fetch_add(1, Ordering::Relaxed);
            if sender.send((stream, speaks)).is_err() {
                counters.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// A last word to a client that is one too many; the stream does not block, so a full buffer loses it.
fn refuse(mut stream: &TcpStream, speaks: Speaks) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
        retry-after: 1\r\ncontent-length: 90\r\n\r\n\
        {\"error\":\"too many connections are open (try again in a second)\",\"code\":\"unavailable\"}    ";
    drop(stream.write_all(match speaks {
        Speaks::Http => ANSWER,
        Speaks::Grpc => REFUSAL,
    }));
}

fn tokio_listener(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Nobody is let in from other machines unless somebody has said who.
///
/// # Errors
/// `permission_denied`, naming the address.
fn check_openness(config: &ServerConfig, access: Option<&Access>) -> Result<()> {
    let mut addrs =
        [Some(("HTTP", config.http_addr)), config.grpc_addr.map(|addr| ("gRPC", addr))].into_iter().flatten();
    let Some((what, addr)) = addrs.find(|(_, addr)| !addr.ip().to_canonical().is_loopback()) else { return Ok(()) };
    match access {
        Some(access) if !access.has_tls() => {
            access.notice(format!(
                "{what} on {addr} is not encrypted, so keys and tokens go in clear: add [tls] to the access policy"
            ));
            Ok(())
        }
        Some(_) => Ok(()),
        None if config.insecure_no_auth => Ok(()),
        None => Err(Error::new(
            ErrorCode::PermissionDenied,
            format!("{what} on {addr} could be reached from other machines, and nothing says who may do what"),
            "name a policy (`headrace serve --access access.toml`; `headrace keys create` begins one), or let everybody in with --insecure-no-auth",
        )),
    }
}

fn listen(addr: SocketAddr, what: &str) -> Result<TcpListener> {
    TcpListener::bind(addr).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Error::new(
            ErrorCode::PortBusy,
            format!("{what} address {addr} is taken by another process"),
            format!("stop that process (`ss -ltnp 'sport = :{}'` names it), or choose another port", addr.port()),
        ),
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorCode::Io,
            format!("{what} address {addr} may not be taken: {error}"),
            "choose a port above 1023",
        ),
        _ => Error::new(
            ErrorCode::Io,
            format!("{what} address {addr} cannot be taken: {error}"),
            "use an address of this machine",
        ),
    })
}
