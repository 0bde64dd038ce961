//! The least that an HTTP server made with hyper does: reads each request's bytes and answers the same bytes to all of them.
//!
//! `bare THREADS ANSWER_FILE CONTENT_TYPE` takes a free port on loopback and prints its address as a line.

use std::convert::Infallible;
use std::error::Error;

use headrace_load::{Connection, serve_connections};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().ok_or("THREADS is missing")?.parse()?;
    let answer = Bytes::from(std::fs::read(arguments.next().ok_or("ANSWER_FILE is missing")?)?);
    let content_type = HeaderValue::from_str(&arguments.next().ok_or("CONTENT_TYPE is missing")?)?;
    serve_connections(threads, move |connection| serve(connection, answer.clone(), content_type.clone()))
}

async fn serve(connection: Connection, answer: Bytes, content_type: HeaderValue) {
    let service = service_fn(|request| reply(request, answer.clone(), content_type.clone()));
    // A client that goes ends its connection only.
    drop(http1::Builder::new().serve_connection(connection, service).await);
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
