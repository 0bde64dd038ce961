//! TLS on the listeners: HTTP/1.1 on one, HTTP/2 on the other, and who the client's certificate says it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headrace_types::{Error, ErrorCode, Result};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::identity_of;
use super::permit::Peer;
use super::state::Access;
use crate::worker::Speaks;

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
    /// Whether a client must have a certificate.
    pub(crate) required: bool,
}

#[derive(Clone)]
pub(crate) struct Tls {
    http: TlsAcceptor,
    grpc: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let hint =
        "give files in PEM: certificates (the own one first), a private key, certificates of the clients' authority";
    Error::new(ErrorCode::InvalidArgument, format!("{}: {error}", path.display()), hint)
}

/// The certificates of a file, at least one.
///
/// # Errors
/// `invalid_argument`, naming the file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let found = read.map_err(|error| wrong(path, &error))?;
    if found.is_empty() { Err(wrong(path, &"no certificate is in it")) } else { Ok(found) }
}

impl Tls {
    /// # Errors
    /// `invalid_argument`, naming the file.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self> {
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, &error))?;
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(error.to_string()))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| wrong(path, &error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = if files.required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(path, &error))?)
            }
        };
        let config = builder.with_single_cert(chain, key).map_err(|error| wrong(&files.certificate, &error))?;
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            TlsAcceptor::from(Arc::new(config))
        };
        Ok(Self { http: speaking(b"http/1.1"), grpc: speaking(b"h2") })
    }

    pub(crate) fn acceptor(&self, speaks: Speaks) -> TlsAcceptor {
        match speaks {
            Speaks::Http => self.http.clone(),
            Speaks::Grpc => self.grpc.clone(),
        }
    }
}

/// The stream behind a handshake, and who is at its other end; none where it fails or does not end in time.
pub(crate) async fn accepted(
    access: &Access,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    timeout: Duration,
) -> Option<(TlsStream<TcpStream>, Arc<Peer>)> {
    let addr = stream.peer_addr().ok();
    let Ok(Ok(stream)) = tokio::time::timeout(timeout, acceptor.accept(stream)).await else {
        access.counters.failed_handshakes.fetch_add(1, Ordering::Relaxed);
        return None;
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = certificate.and_then(|certificate| identity_of(certificate));
    Some((stream, Arc::new(Peer { addr, identity })))
}
