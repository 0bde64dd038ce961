//! The metrics listener: GET /metrics, nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::counters::Scrape;

/// Scrapers that may be connected at a time; one more closes the oldest, so that idle connections keep nobody out.
const SCRAPERS_MAX: usize = 16;
/// A scraper's whole connection.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

pub(crate) async fn serve_metrics(listener: TcpListener, scrape: Arc<Scrape>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        open.retain(|scraper| !scraper.is_finished());
        if open.len() >= SCRAPERS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(serve_scraper(stream, Arc::clone(&scrape))).abort_handle());
    }
}

async fn serve_scraper(stream: TcpStream, scrape: Arc<Scrape>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&scrape, request.uri().path());
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    // However the scrape ends, the connection closes.
    drop(tokio::time::timeout(SCRAPE_TIMEOUT, connection).await);
}

fn answer(scrape: &Scrape, path: &str) -> Response<Full<Bytes>> {
    let (status, content_type, text) = match path {
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", scrape.text()),
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
