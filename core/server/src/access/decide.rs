//! The one function that decides. Whatever no scope grants is refused.

use super::caller::Caller;
use super::scope::Action;

/// Whether somebody may do something, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision<'a> {
    pub(crate) allowed: bool,
    /// The key or rule that grants it; empty where none does.
    pub(crate) rule: &'a str,
    pub(crate) reason: &'static str,
}

pub(crate) fn decide<'a>(subject: &'a Caller, action: Action, resource: &str) -> Decision<'a> {
    match subject.granted.iter().find(|granted| granted.scope.grants(action, resource)) {
        Some(granted) => Decision { allowed: true, rule: &granted.rule, reason: "granted" },
        None if subject.is_anonymous() => Decision { allowed: false, rule: "", reason: "no credential" },
        None => Decision { allowed: false, rule: "", reason: "no scope grants it" },
    }
}
