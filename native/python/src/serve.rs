//! `serve`: the HTTP and gRPC server on this process's main thread, until a signal asks it to stop.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headrace_server::{Errand, Errands, ModelChange, Server, ServerConfig, ViewWrite, Write};
use headrace_types::{Error, ErrorCode};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engine::Engine;
use crate::error::{Outcome, error_of, guarded, type_mismatch};
use crate::join::RecordRows;
use crate::logs::{log_config, traces_config};

/// How long a signal may go unnoticed.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// What the server calls.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Callbacks {
    ready: Option<Py<PyAny>>,
    tick: Option<Py<PyAny>>,
    write: Option<Py<PyAny>>,
    change_model: Option<Py<PyAny>>,
    notice: Option<Py<PyAny>>,
}

/// Answers requests until SIGINT or SIGTERM, then ends what has begun and returns.
///
/// `config` has the keys host, http_port, grpc_port and metrics_port (None for no gRPC or no metrics), threads, body_bytes_max,
/// memory_bytes_max, writes_max, log, access_log, slow_request_seconds, traces, metrics_host, access (the path of a policy, or None) and
/// insecure_no_auth. `callbacks` has these keys, each None for nothing:
///
/// - `ready(addresses)` is called once connections are taken, `tick()` every `tick_seconds`. An exception in either stops the server and is
///   raised.
/// - `write(view, frame, wrong, event_ts_us, is_deletion)` makes a write, on a thread of its own, and returns the JSON that answers it; an
///   exception in it answers that request.
/// - `notice(text)` is told what one should know of the access policy.
/// - `change_model(name, is_loaded)` loads or unloads a model, on a thread of its own, too; without it clients cannot.
#[pyfunction]
#[pyo3(signature = (engine, config, callbacks, tick_seconds=1.0))]
pub(crate) fn serve(
    py: Python<'_>,
    engine: &Engine,
    config: &Bound<'_, PyDict>,
    callbacks: Callbacks,
    tick_seconds: f64,
) -> Outcome<()> {
    let engine = engine.checked()?.clone();
    let Callbacks { ready, tick: on_tick, write: on_write, change_model: on_model_change, notice: on_notice } =
        callbacks;
    let config = ServerConfig { model_control: on_model_change.is_some(), ..config_of(config)? };
    let server = Server::bind(config, engine)?;
    if let Some(on_ready) = ready {
        let addresses = server.local_addrs();
        let ready = PyDict::new(py);
        ready.set_item("http", addresses.http.to_string())?;
        ready.set_item("grpc", addresses.grpc.map(|address| address.to_string()))?;
        ready.set_item("metrics", addresses.metrics.map(|address| address.to_string()))?;
        ready.set_item("tls", server.has_tls())?;
        on_ready.call1(py, (ready,))?;
    }
    let tick = Duration::try_from_secs_f64(tick_seconds)
        .map_err(|_| type_mismatch(format!("tick_seconds is {tick_seconds}"), "give a positive number of seconds"))?;
    let (writes, model_changes) = (server.take_writes(), server.take_model_changes());
    let has_ended = AtomicBool::new(false);
    let handle = server.handle();
    let (result, interrupt) = py.detach(|| {
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| guarded(|| server.run()));
            let has_ended = &has_ended;
            if let (Some(writes), Some(on_write)) = (writes, &on_write) {
                scope.spawn(move || run_errands(&writes, has_ended, |py, write| make_write(py, on_write, write)));
            }
            if let (Some(changes), Some(on_change)) = (model_changes, &on_model_change) {
                scope
                    .spawn(move || run_errands(&changes, has_ended, |py, change| change_model(py, on_change, &change)));
            }
            let mut interrupt = None;
            let mut ticked = Instant::now();
            while !serving.is_finished() {
                std::thread::sleep(SIGNAL_CHECK_INTERVAL);
                let is_due = ticked.elapsed() >= tick;
                let checked = Python::attach(|py| {
                    py.check_signals()?;
                    if let Some(callback) = &on_notice {
                        for notice in server.take_notices() {
                            callback.call1(py, (notice,))?;
                        }
                    }
                    if let (true, Some(callback)) = (is_due, &on_tick) {
                        callback.call0(py)?;
                    }
                    Ok::<(), PyErr>(())
                });
                if is_due {
                    ticked = Instant::now();
                }
                if let Err(error) = checked {
                    interrupt = Some(error);
                    handle.stop();
                    break;
                }
            }
            let result = serving.join().unwrap_or_else(|_| Err(Error::internal("the acceptor thread panicked")));
            has_ended.store(true, Ordering::Relaxed);
            (result, interrupt)
        })
    });
    match interrupt {
        // Both signals come as KeyboardInterrupt: `headrace.serving` installs a handler that turns SIGTERM into it.
        Some(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => Ok(result?),
        Some(error) => Err(error.into()),
        None => Ok(result?),
    }
}

/// Runs what clients ask for, one after the other, until the server has ended.
fn run_errands<T>(errands: &Errands<T>, has_ended: &AtomicBool, run: impl Fn(Python<'_>, T) -> PyResult<Vec<u8>>) {
    loop {
        match errands.next(SIGNAL_CHECK_INTERVAL) {
            Ok(Some(Errand { what, answer })) => {
                answer.send(Python::attach(|py| run(py, what).map_err(|error| error_of(py, &error))));
            }
            Ok(None) if has_ended.load(Ordering::Relaxed) => return,
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

pub(crate) fn make_write(
    py: Python<'_>,
    on_write: &Py<PyAny>,
    ViewWrite { view, write }: ViewWrite,
) -> PyResult<Vec<u8>> {
    let answer = match write {
        Write::Push(pushed) => {
            on_write.call1(py, (view, RecordRows::new(pushed.rows), pushed.wrong, None::<i64>, false))
        }
        Write::Delete(deleted) => {
            let nothing_wrong: Vec<(usize, String)> = Vec::new();
            on_write.call1(py, (view, RecordRows::new(deleted.keys), nothing_wrong, deleted.event_ts_us, true))
        }
    };
    answer.and_then(|answer| answer.extract::<String>(py)).map(String::into_bytes)
}

/// The protocol's answer has no body.
pub(crate) fn change_model(py: Python<'_>, on_change: &Py<PyAny>, change: &ModelChange) -> PyResult<Vec<u8>> {
    let (name, is_loaded) = match change {
        ModelChange::Load(name) => (name, true),
        ModelChange::Unload(name) => (name, false),
    };
    on_change.call1(py, (name, is_loaded)).map(|_| Vec::new())
}

fn config_of(given: &Bound<'_, PyDict>) -> Outcome<ServerConfig> {
    let defaults = ServerConfig::default();
    let address = |name: &str| -> Outcome<IpAddr> {
        let Some(host) = given.get_item(name)? else { return Ok(defaults.http_addr.ip()) };
        let text: String = host.extract()?;
        let number = if text == "localhost" { "127.0.0.1" } else { &text };
        Ok(number.parse().map_err(|_| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("server.{name} is '{text}'"),
                "give an IP address: 127.0.0.1, 0.0.0.0 or ::1",
            )
        })?)
    };
    // Metrics have a host of their own: opening HTTP to others does not open them.
    let (host, metrics_host) = (address("host")?, address("metrics_host")?);
    let port = |name: &str, default: u16| -> Outcome<u16> {
        match given.get_item(name)? {
            Some(port) => port
                .extract()
                .map_err(|_| type_mismatch(format!("server.{name} is {port}"), "give a port from 0 to 65535")),
            None => Ok(default),
        }
    };
    let optional = |name: &str, host: IpAddr, default: u16| -> Outcome<Option<SocketAddr>> {
        match given.get_item(name)? {
            Some(none) if none.is_none() => Ok(None),
            _ => Ok(Some(SocketAddr::new(host, port(name, default)?))),
        }
    };
    let (grpc_addr, metrics_addr) = (optional("grpc_port", host, 8001)?, optional("metrics_port", metrics_host, 8002)?);
    let count = |name: &str, default: usize| -> Outcome<usize> {
        match given.get_item(name)? {
            Some(count) => count
                .extract()
                .map_err(|_| type_mismatch(format!("server.{name} is {count}"), "give a whole number, not negative")),
            None => Ok(default),
        }
    };
    let access: Option<PathBuf> = given.get_item("access")?.map(|path| path.extract()).transpose()?.flatten();
    let insecure_no_auth = given.get_item("insecure_no_auth")?.is_some_and(|flag| flag.is_truthy().unwrap_or(false));
    Ok(ServerConfig {
        access,
        insecure_no_auth,
        http_addr: SocketAddr::new(host, port("http_port", defaults.http_addr.port())?),
        grpc_addr,
        metrics_addr,
        threads: count("threads", defaults.threads)?,
        body_bytes_max: count("body_bytes_max", defaults.body_bytes_max)?,
        memory_bytes_max: count("memory_bytes_max", defaults.memory_bytes_max)?,
        writes_max: count("writes_max", defaults.writes_max)?,
        traces: traces_config(given)?,
        log: log_config(given)?,
        ..defaults
    })
}
