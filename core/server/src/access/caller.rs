//! Who asks: a subject with what it is granted.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::rate::Limiter;
use super::scope::Scope;

/// Callers that are remembered beside those of the policy's keys.
const REMEMBERED_MAX: usize = 10_000;

/// A SHA-256 of a credential.
pub(crate) type Digest = [u8; 32];

pub(crate) fn digest_of(secret: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, secret).as_ref());
    digest
}

/// A scope and the rule or key that grants it.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) scope: Scope,
    pub(crate) rule: Arc<str>,
}

#[derive(Debug)]
pub(crate) struct Caller {
    /// `key:NAME`, `jwt:SUBJECT`, `mtls:IDENTITY` or `anonymous`.
    pub(crate) subject: String,
    pub(crate) granted: Vec<Granted>,
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// In seconds since 1970; the credential is worth nothing from then on.
    pub(crate) expires_s: Option<i64>,
}

pub(crate) const ANONYMOUS: &str = "anonymous";

impl Caller {
    pub(crate) fn is_anonymous(&self) -> bool {
        self.subject == ANONYMOUS
    }

    pub(crate) fn has_expired(&self, now_s: i64) -> bool {
        self.expires_s.is_some_and(|expires| now_s >= expires)
    }
}

/// Callers whose tokens and certificates have been looked at, by the digest of the credential.
#[derive(Debug, Default)]
pub(crate) struct Remembered(RwLock<HashMap<Digest, Arc<Caller>>>);

impl Remembered {
    pub(crate) fn get(&self, digest: &Digest, now_s: i64) -> Option<Arc<Caller>> {
        let callers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        callers.get(digest).filter(|caller| !caller.has_expired(now_s)).map(Arc::clone)
    }

    pub(crate) fn put(&self, digest: Digest, caller: &Arc<Caller>, now_s: i64) {
        let mut callers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= REMEMBERED_MAX {
            callers.retain(|_, caller| !caller.has_expired(now_s));
        }
        if callers.len() >= REMEMBERED_MAX {
            callers.clear();
        }
        callers.insert(digest, Arc::clone(caller));
    }

    pub(crate) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}
