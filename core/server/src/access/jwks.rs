//! The issuer's keys: from a file, or fetched and kept. An issuer that is away changes nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode, Result};
use http::Uri;
use serde::Deserialize;

use super::fetch::fetch;
use super::token::{Algorithm, Public, VerifyingKey, base64_url};

/// Keys of one issuer.
const KEYS_MAX: usize = 64;
/// From one fetch to the next at least, whatever tokens come.
const FETCH_INTERVAL: Duration = Duration::from_secs(10);

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    Url {
        url: Uri,
        /// Certificates to trust instead of the public ones.
        ca: Option<PathBuf>,
    },
}

/// The keys that are known now.
#[derive(Debug)]
pub(crate) struct KeySet {
    pub(crate) source: Source,
    refresh: Duration,
    /// None until they have been fetched.
    keys: RwLock<Option<Arc<[VerifyingKey]>>>,
    /// A token has named a key that is not known.
    is_wanted: AtomicBool,
    fetched: Mutex<Fetched>,
}

#[derive(Debug, Default)]
struct Fetched {
    tried: Option<Instant>,
    digest: Option<super::caller::Digest>,
}

impl KeySet {
    /// Reads a file at once; an address is asked later.
    ///
    /// # Errors
    /// The file's.
    pub(crate) fn open(source: Source, refresh: Duration) -> Result<Self> {
        let keys = match &source {
            Source::File(path) => {
                let bytes = std::fs::read(path).map_err(|error| Error::from(error).within(path.display()))?;
                Some(parse(&bytes).map_err(|error| error.within(path.display()))?.into())
            }
            Source::Url { .. } => None,
        };
        let (is_wanted, fetched) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { source, refresh, keys: RwLock::new(keys), is_wanted, fetched })
    }

    pub(crate) fn keys(&self) -> Option<Arc<[VerifyingKey]>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a key is missing. Whether the keys will be asked for soon.
    pub(crate) fn want(&self) -> bool {
        if matches!(self.source, Source::File(_)) {
            return false;
        }
        self.is_wanted.store(true, Ordering::Relaxed);
        let tried = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).tried;
        tried.is_none_or(|tried| tried.elapsed() >= FETCH_INTERVAL)
    }

    fn is_due(&self) -> bool {
        let Some(tried) = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).tried else { return true };
        let is_missed = self.is_wanted.load(Ordering::Relaxed) || self.keys().is_none();
        tried.elapsed() >= if is_missed { FETCH_INTERVAL } else { self.refresh }
    }

    /// Asks the issuer if it is time. Whether the keys have changed.
    ///
    /// # Errors
    /// Why they cannot be had; those that are known stay.
    pub(crate) async fn keep(&self) -> Result<bool> {
        let Source::Url { url, ca } = &self.source else { return Ok(false) };
        if !self.is_due() {
            return Ok(false);
        }
        self.is_wanted.store(false, Ordering::Relaxed);
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).tried = Some(Instant::now());
        let bytes = fetch(url, ca.as_deref()).await?;
        let digest = super::caller::digest_of(&bytes);
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if fetched.digest == Some(digest) {
            return Ok(false);
        }
        let keys = parse(&bytes).map_err(|error| error.within(url))?;
        fetched.digest = Some(digest);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.into());
        Ok(true)
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys that sign with an algorithm of ours; others of the same document are passed over.
///
/// # Errors
/// `invalid_json` for what is no key set, `invalid_argument` for one without a key that can be used.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<VerifyingKey>> {
    let hint = "a key set is {\"keys\": [..]} (RFC 7517)";
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| Error::new(ErrorCode::InvalidJson, format!("no key set: {error}"), hint))?;
    let keys: Vec<VerifyingKey> = document.keys.iter().take(KEYS_MAX).filter_map(key_of).collect();
    if keys.is_empty() {
        let message = "the key set has no public key of RS256, ES256 or EdDSA";
        return Err(Error::new(ErrorCode::InvalidArgument, message, hint));
    }
    Ok(keys)
}

fn key_of(jwk: &Jwk) -> Option<VerifyingKey> {
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return None;
    }
    let bytes = |member: &Option<String>| base64_url(member.as_deref()?);
    let (algorithm, public) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (Algorithm::Rs256, Public::Rsa { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? }),
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            (Algorithm::Es256, Public::Bytes([&[4][..], &x, &y].concat()))
        }
        ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, Public::Bytes(bytes(&jwk.x)?)),
        _ => return None,
    };
    if jwk.alg.as_deref().is_some_and(|named| Algorithm::of_name(named) != Some(algorithm)) {
        return None;
    }
    Some(VerifyingKey { id: jwk.kid.clone(), algorithm, public })
}
