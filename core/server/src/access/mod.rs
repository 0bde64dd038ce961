//! Who may do what: the one place that decides, for HTTP and gRPC alike.
//!
//! ```text
//!   headers, peer -> admit: credential -> Caller (bounded caches) -> rate -> Permit
//!   Permit -> permit(action, resource) -> decide -> audit row, or an error
//! ```
//!
//! Without a policy file nothing here runs: a worker tests one pointer. `access.md` describes the file.

mod audit;
mod caller;
mod decide;
mod fetch;
mod identity;
mod jwks;
mod permit;
mod policy;
mod rate;
mod scope;
mod state;
mod tls;
mod token;
mod watch;

pub(crate) use permit::{Peer, Permit};
pub(crate) use scope::Action;
pub(crate) use state::Access;
pub(crate) use tls::accepted;

#[cfg(test)]
mod tests;
