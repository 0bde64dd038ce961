//! One GET of a small document. No redirect is followed: the policy names the address that is trusted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headrace_types::{Error, ErrorCode, Result};
use http::header::{ACCEPT, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls::{certificates, provider};

/// From the connection to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// # Errors
/// `unavailable`, naming the address.
pub(crate) async fn fetch(url: &Uri, ca: Option<&Path>) -> Result<Bytes> {
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch_now(url, ca)).await;
    fetched.unwrap_or_else(|_| Err(away("no answer in time"))).map_err(|error| error.within(url))
}

async fn fetch_now(url: &Uri, ca: Option<&Path>) -> Result<Bytes> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| away(&error.to_string()))?;
    if !is_tls {
        return get(stream, url).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| away(&error.to_string()))?;
    let stream = connector(ca)?.connect(name, stream).await.map_err(|error| away(&error.to_string()))?;
    get(stream, url).await
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| away(&error.to_string()).within(path.display()))?;
            }
        }
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| away(&error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn get(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, url: &Uri) -> Result<Bytes> {
    let failed = |error: &dyn std::fmt::Display| away(&error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = url.authority().map_or("", http::uri::Authority::as_str);
    let request = Request::get(path).header(HOST, host).header(ACCEPT, "application/json").body(Empty::<Bytes>::new());
    let answered = async {
        let answer =
            sender.send_request(request.map_err(|error| failed(&error))?).await.map_err(|error| failed(&error))?;
        if answer.status() != http::StatusCode::OK {
            return Err(failed(&format_args!("status {}", answer.status())));
        }
        let body = Limited::new(answer.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| failed(&error))?.to_bytes())
    };
    let answer = answered.await;
    connection.abort();
    answer
}

fn away(reason: &str) -> Error {
    Error::new(
        ErrorCode::Unavailable,
        reason,
        "the keys that are known stay in use; look whether the issuer can be reached from here",
    )
}
