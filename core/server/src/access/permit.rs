//! What a request was admitted as, to ask for each thing that it wants.

use std::net::SocketAddr;
use std::sync::Arc;

use headrace_types::{Error, ErrorCode, Result};

use super::caller::Caller;
use super::policy::Policy;
use super::scope::Action;
use super::state::{Access, Asked, now_s};

/// The other end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) addr: Option<SocketAddr>,
    /// Of its certificate.
    pub(crate) identity: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Permit {
    /// This server has no policy: everybody may do everything.
    Open,
    /// Nobody was asked who it is: it may ask for the server's health.
    Nobody,
    Caller(Admitted),
}

#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(super) access: Arc<Access>,
    pub(super) policy: Arc<Policy>,
    pub(super) caller: Arc<Caller>,
    pub(super) peer: Arc<Peer>,
}

impl Permit {
    /// Decides, and notes what was decided.
    ///
    /// # Errors
    /// `permission_denied`; `unauthenticated` for who showed nothing.
    pub(crate) fn permit(&self, action: Action, resource: &str) -> Result<()> {
        match self {
            Permit::Open => Ok(()),
            Permit::Nobody => Err(Error::new(
                ErrorCode::Unauthenticated,
                "only the server's own health is told without a credential",
                "ask with ModelReady, which takes one",
            )),
            Permit::Caller(admitted) => admitted.permit(action, resource),
        }
    }

    /// A further request under the same admission: whether it still holds, and is not one too many.
    ///
    /// # Errors
    /// `unauthenticated`, `rate_limited`.
    pub(crate) fn again(&self, action: Action) -> Result<()> {
        let Permit::Caller(admitted) = self else { return Ok(()) };
        let is_old = !Arc::ptr_eq(&admitted.policy, &admitted.access.policy());
        if is_old || admitted.caller.has_expired(now_s()) {
            let what = if is_old { "the access policy has changed" } else { "the credential has expired" };
            return Err(Error::new(ErrorCode::Unauthenticated, what, "open the stream again"));
        }
        let asked = Asked { action, resource: "", peer: &admitted.peer };
        admitted.access.charge(&admitted.caller, asked).map_err(|refusal| refusal.error)
    }
}

impl Admitted {
    fn permit(&self, action: Action, resource: &str) -> Result<()> {
        self.access.decided(&self.caller, Asked { action, resource, peer: &self.peer })
    }
}
