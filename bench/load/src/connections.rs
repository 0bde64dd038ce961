//! Servers to measure beside, threaded as the engine's own listeners are: a thread takes connections and hands them out in turn, and each
//! serving thread has a runtime of its own.

use std::error::Error;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// One connection.
pub type Connection = TokioIo<tokio::net::TcpStream>;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Takes a free port on loopback, prints its address as a line, and serves each connection by `serve`, on one of `threads` threads.
///
/// # Errors
/// When no port can be had, or a connection cannot be taken.
pub fn serve_connections<F>(threads: usize, serve: impl Fn(Connection) -> F + Clone + Send + 'static) -> Outcome
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut senders = Vec::new();
    for _ in 0..threads.max(1) {
        let (sender, streams) = unbounded_channel();
        let serve = serve.clone();
        std::thread::spawn(move || serve_streams(streams, serve));
        senders.push(sender);
    }
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    for (number, stream) in listener.incoming().enumerate() {
        senders[number % senders.len()].send(stream?)?;
    }
    Ok(())
}

fn serve_streams<F>(mut streams: UnboundedReceiver<TcpStream>, serve: impl Fn(Connection) -> F) -> Outcome
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        while let Some(stream) = streams.recv().await {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(TokioIo::new(tokio::net::TcpStream::from_std(stream)?)));
        }
        Ok(())
    })
}
