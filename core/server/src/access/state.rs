//! The policy in force, and everything that outlives it: limits, the audit, counters.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headrace_types::{Error, ErrorCode, Result};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use tokio_rustls::TlsAcceptor;

use super::audit::{Audit, Row};
use super::caller::{ANONYMOUS, Caller, digest_of};
use super::decide::decide;
use super::permit::{Admitted, Peer, Permit};
use super::policy::Policy;
use super::rate::Limiters;
use super::scope::Action;
use super::token::{Fault, TOKEN_BYTES_MAX, verify};
use crate::counters::Page;
use crate::worker::Speaks;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What our API keys begin with.
const KEY_PREFIX: &str = "hr_";
/// Characters of a name that an audit row repeats.
const RESOURCE_CHARS_MAX: usize = 200;
/// Notices that wait to be read.
const NOTICES_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Access {
    pub(super) path: PathBuf,
    current: RwLock<Arc<Policy>>,
    pub(super) limiters: Limiters,
    audit: Audit,
    pub(crate) counters: AccessCounters,
    notices: Mutex<Vec<String>>,
}

#[derive(Debug, Default)]
pub(crate) struct AccessCounters {
    /// By action, in the order of [`Action::ALL`]: granted, and refused for want of a scope.
    decided: [[AtomicU64; 2]; Action::ALL.len()],
    unauthenticated: AtomicU64,
    limited: AtomicU64,
    pub(super) failed_handshakes: AtomicU64,
    pub(super) failed_reloads: AtomicU64,
    pub(super) reloads: AtomicU64,
    pub(super) failed_fetches: AtomicU64,
}

/// What somebody wants, from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) action: Action,
    pub(crate) resource: &'a str,
    pub(crate) peer: &'a Peer,
}

/// Why a request goes no further, and when it may be sent again.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    pub(crate) retry_after: Option<Duration>,
}

enum Credential<'a> {
    Key(&'a str),
    Token(&'a str),
}

pub(crate) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

impl Access {
    /// # Errors
    /// What is wrong in the file, or in one that it names.
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>> {
        let limiters = Limiters::default();
        let policy = Policy::load(path, &limiters, None)?;
        let notices = Mutex::new(policy.warnings.clone());
        let audit = Audit::open(&policy.audit)?;
        let current = RwLock::new(Arc::new(policy));
        Ok(Arc::new(Self {
            path: path.to_owned(),
            current,
            limiters,
            audit,
            counters: AccessCounters::default(),
            notices,
        }))
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, policy: Policy) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    pub(crate) fn tls(&self, speaks: Speaks) -> Option<TlsAcceptor> {
        self.policy().tls.as_ref().map(|tls| tls.acceptor(speaks))
    }

    pub(crate) fn has_tls(&self) -> bool {
        self.policy().tls.is_some()
    }

    pub(crate) fn notice(&self, text: String) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < NOTICES_MAX {
            notices.push(text);
        }
    }

    pub(crate) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the audit's last rows.
    pub(crate) fn close(&self) {
        self.audit.close();
    }

    /// Who sent these headers, if the request is not one too many.
    ///
    /// # Errors
    /// `unauthenticated`, `rate_limited`; `unavailable` while the issuer's keys are missing.
    pub(crate) fn admit(
        self: &Arc<Self>,
        headers: &HeaderMap,
        peer: &Arc<Peer>,
        action: Action,
        resource: &str,
    ) -> Result<Permit, Refusal> {
        let asked = Asked { action, resource, peer };
        let policy = self.policy();
        let caller = match credential_of(headers) {
            Ok(credential) => self.identified(&policy, credential, asked)?,
            Err(reason) => return Err(self.unauthenticated(reason, asked)),
        };
        self.charge(&caller, asked)?;
        Ok(Permit::Caller(Admitted { access: Arc::clone(self), policy, caller, peer: Arc::clone(peer) }))
    }

    fn identified(
        &self,
        policy: &Policy,
        credential: Option<Credential<'_>>,
        asked: Asked<'_>,
    ) -> Result<Arc<Caller>, Refusal> {
        let now = now_s();
        match (credential, &asked.peer.identity) {
            (Some(Credential::Key(key)), _) => {
                let found = policy.keys.get(&digest_of(key.as_bytes()));
                found.filter(|caller| !caller.has_expired(now)).map(Arc::clone).ok_or_else(|| {
                    let reason = if found.is_some() { "the API key has expired" } else { "the API key is not known" };
                    self.unauthenticated(reason, asked)
                })
            }
            (Some(Credential::Token(token)), _) => self.by_token(policy, token, now, asked),
            (None, Some(identity)) => {
                let digest = digest_of(identity.as_bytes());
                Ok(policy.by_certificate.get(&digest, now).unwrap_or_else(|| {
                    let caller = policy.of_certificate(identity, &self.limiters);
                    policy.by_certificate.put(digest, &caller, now);
                    caller
                }))
            }
            (None, None) => {
                let anonymous = policy.anonymous.as_ref().map(Arc::clone);
                anonymous.ok_or_else(|| self.unauthenticated("no credential", asked))
            }
        }
    }

    fn by_token(&self, policy: &Policy, token: &str, now: i64, asked: Asked<'_>) -> Result<Arc<Caller>, Refusal> {
        let Some(jwt) = &policy.jwt else { return Err(self.unauthenticated("tokens are not taken here", asked)) };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(self.unauthenticated("the token is too long", asked));
        }
        let digest = digest_of(token.as_bytes());
        if let Some(caller) = policy.by_token.get(&digest, now) {
            return Ok(caller);
        }
        let missing = |what: &str| {
            let error = Error::new(ErrorCode::Unavailable, what, "try again in a few seconds");
            Refusal { error, retry_after: None }
        };
        let Some(keys) = jwt.keys.keys() else { return Err(missing("the issuer's keys have not been fetched yet")) };
        match verify(token, &keys, &jwt.expected, now) {
            Ok(claims) => {
                let caller = policy.of_token(&claims, &self.limiters);
                policy.by_token.put(digest, &caller, now);
                Ok(caller)
            }
            Err(Fault::UnknownKey) if jwt.keys.want() => Err(missing("the token's key is asked for")),
            Err(fault) => Err(self.unauthenticated(fault.text(), asked)),
        }
    }

    /// Counts a request against its caller's rate.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn charge(&self, caller: &Caller, asked: Asked<'_>) -> Result<(), Refusal> {
        let Some(Err(wait)) = caller.limiter.as_ref().map(|limiter| limiter.take()) else { return Ok(()) };
        self.counters.limited.fetch_add(1, Ordering::Relaxed);
        self.note(&caller.subject, asked, false, "", "more requests than its rate");
        let message = format!("{} sends more requests than its rate allows", caller.subject);
        let hint = format!("try again in {:.3} s", wait.as_secs_f64());
        Err(Refusal { error: Error::new(ErrorCode::RateLimited, message, hint), retry_after: Some(wait) })
    }

    /// Decides, counts, and notes what is worth a row.
    ///
    /// # Errors
    /// `permission_denied`, `unauthenticated`.
    pub(super) fn decided(&self, caller: &Caller, asked: Asked<'_>) -> Result<()> {
        let Asked { action, resource, .. } = asked;
        let decision = decide(caller, action, resource);
        if !decision.allowed && caller.is_anonymous() {
            return Err(self.unauthenticated(decision.reason, asked).error);
        }
        self.counters.decided[action as usize][usize::from(!decision.allowed)].fetch_add(1, Ordering::Relaxed);
        if !decision.allowed || action.changes() {
            self.note(&caller.subject, asked, decision.allowed, decision.rule, decision.reason);
        }
        if decision.allowed {
            return Ok(());
        }
        let what =
            if resource.is_empty() { "the whole server".to_owned() } else { format!("'{}'", shortened(resource)) };
        let message = format!("{} may not {} of {what}", caller.subject, action.name());
        let needed = if resource.is_empty() { "*".to_owned() } else { shortened(resource) };
        Err(Error::new(ErrorCode::PermissionDenied, message, format!("it needs the scope {}:{needed}", action.name())))
    }

    fn unauthenticated(&self, reason: &'static str, asked: Asked<'_>) -> Refusal {
        self.counters.unauthenticated.fetch_add(1, Ordering::Relaxed);
        self.note(ANONYMOUS, asked, false, "", reason);
        let hint =
            "send an API key (Authorization: Bearer hr_..., or X-API-Key), a token of the issuer, or a certificate";
        Refusal { error: Error::new(ErrorCode::Unauthenticated, reason, hint), retry_after: None }
    }

    fn note(&self, subject: &str, asked: Asked<'_>, allowed: bool, rule: &str, reason: &'static str) {
        let mut evidence: Vec<String> = Vec::new();
        evidence.extend(asked.peer.addr.map(|addr| format!("from {addr}")));
        evidence.extend(asked.peer.identity.as_ref().map(|identity| format!("certificate of {identity}")));
        self.audit.note(Row {
            subject: subject.to_owned(),
            action: asked.action.name(),
            resource: shortened(asked.resource),
            allowed,
            rule: rule.to_owned(),
            reason,
            evidence,
        });
    }

    pub(crate) fn write(&self, page: &mut Page) {
        let name = "headrace_access_decisions_total";
        page.family(name, "counter", "What callers that are known asked for, by action and outcome.");
        for (action, counts) in Action::ALL.iter().zip(&self.counters.decided) {
            for (outcome, count) in ["granted", "refused"].iter().zip(counts) {
                let labels = [("action", action.name()), ("outcome", outcome)];
                page.sample(name, &labels, count.load(Ordering::Relaxed));
            }
        }
        let (counters, audit) = (&self.counters, &self.audit.counters);
        for (name, help, count) in [
            (
                "headrace_access_unauthenticated_total",
                "Requests without a credential that holds.",
                &counters.unauthenticated,
            ),
            ("headrace_access_rate_limited_total", "Requests beyond their caller's rate.", &counters.limited),
            ("headrace_access_reloads_total", "New policies that came into force.", &counters.reloads),
            (
                "headrace_access_reload_failures_total",
                "Changed policies that were refused; the one before stays.",
                &counters.failed_reloads,
            ),
            ("headrace_access_jwks_failures_total", "Failed fetches of the issuer's keys.", &counters.failed_fetches),
            (
                "headrace_tls_handshake_failures_total",
                "Connections that ended in their TLS handshake.",
                &counters.failed_handshakes,
            ),
            ("headrace_audit_rows_total", "Rows of the audit that were written.", &audit.written),
            ("headrace_audit_rows_dropped_total", "Rows of the audit that found no room.", &audit.dropped),
            ("headrace_audit_failures_total", "Rows of the audit that the disk did not take.", &audit.failed),
        ] {
            page.family(name, "counter", help);
            page.sample(name, &[], count.load(Ordering::Relaxed));
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(RESOURCE_CHARS_MAX).collect()
}

/// The one credential of a request.
///
/// # Errors
/// Why it is none; what was sent is not repeated.
fn credential_of(headers: &HeaderMap) -> Result<Option<Credential<'_>>, &'static str> {
    let mut bearers = headers.get_all(AUTHORIZATION).iter();
    let mut keys = headers.get_all(API_KEY).iter();
    let text = match (bearers.next(), keys.next()) {
        (None, None) => return Ok(None),
        (Some(bearer), None) if bearers.next().is_none() => {
            let text = bearer.to_str().map_err(|_| "the credential is not text")?;
            let (scheme, text) = text.split_once(' ').ok_or("the credential has no scheme: Bearer")?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err("the credential is not of the scheme Bearer");
            }
            text.trim()
        }
        (None, Some(key)) if keys.next().is_none() => {
            let key = key.to_str().map_err(|_| "the credential is not text")?.trim();
            return Ok(Some(Credential::Key(key)));
        }
        _ => return Err("more than one credential"),
    };
    Ok(Some(if text.starts_with(KEY_PREFIX) { Credential::Key(text) } else { Credential::Token(text) }))
}
