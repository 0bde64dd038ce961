//! The least that an HTTP server made with hyper does: reads each request's bytes and answers the same bytes to all of them.
//!
//! `bare THREADS ANSWER_FILE CONTENT_TYPE` takes a free port on loopback and prints its address as a line. It serves as the engine's own
//! listeners do: a thread takes connections and hands each to the thread that has the fewest, each thread with a runtime of its own.

use std::convert::Infallible;
use std::error::Error;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().ok_or("THREADS is missing")?.parse()?;
    let answer = Bytes::from(std::fs::read(arguments.next().ok_or("ANSWER_FILE is missing")?)?);
    let content_type = HeaderValue::from_str(&arguments.next().ok_or("CONTENT_TYPE is missing")?)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut senders = Vec::new();
    for _ in 0..threads.max(1) {
        let (sender, streams) = unbounded_channel();
        let (answer, content_type) = (answer.clone(), content_type.clone());
        std::thread::spawn(move || serve(streams, &answer, &content_type));
        senders.push(sender);
    }
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    for (number, stream) in listener.incoming().enumerate() {
        senders[number % senders.len()].send(stream?)?;
    }
    Ok(())
}

fn serve(mut streams: UnboundedReceiver<TcpStream>, answer: &Bytes, content_type: &HeaderValue) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        while let Some(stream) = streams.recv().await {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let io = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
            let (answer, content_type) = (answer.clone(), content_type.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| reply(request, answer.clone(), content_type.clone()));
                // A client that goes ends its connection only.
                drop(http1::Builder::new().serve_connection(io, service).await);
            });
        }
        Ok(())
    })
}

async fn reply(
    request: Request<Incoming>,
    answer: Bytes,
    content_type: HeaderValue,
) -> Result<Response<Full<Bytes>>, Infallible> {
    drop(request.into_body().collect().await);
    let mut response = Response::new(Full::new(answer));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}
