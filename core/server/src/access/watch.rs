//! Brings changed files and fetched keys into force.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headrace_types::{Error, ErrorCode, Result};

use super::policy::Policy;
use super::state::Access;

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What tells one content of a file from another: when, how long, which file.
type Stamp = Option<(i64, i64, u64, u64)>;

fn stamps_of(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
    };
    files.iter().map(stamp).collect()
}

impl Access {
    /// Runs as long as the server does.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut stamps = Vec::new();
        let mut fetch_fault: Option<String> = None;
        loop {
            self.look(&mut stamps);
            let policy = self.policy();
            if let Some(jwt) = &policy.jwt {
                let fault = match jwt.keys.keep().await {
                    // What old keys have verified must be verified again.
                    Ok(true) => {
                        policy.by_token.clear();
                        None
                    }
                    Ok(false) => fetch_fault.clone(),
                    Err(error) => {
                        self.counters.failed_fetches.fetch_add(1, Ordering::Relaxed);
                        Some(error.to_string())
                    }
                };
                if let Some(text) = fault.as_ref().filter(|text| fetch_fault.as_ref() != Some(text)) {
                    self.notice(format!("the issuer's keys cannot be fetched: {text}"));
                }
                fetch_fault = fault;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Reads the policy anew when one of its files has changed since the last look.
    fn look(&self, stamps: &mut Vec<Stamp>) {
        let before = self.policy();
        let now = stamps_of(&before.files);
        if stamps.is_empty() || *stamps == now {
            *stamps = now;
            return;
        }
        match self.changed(&before, &self.path) {
            Ok(policy) => {
                policy.warnings.iter().for_each(|warning| self.notice(warning.clone()));
                // The stamps from before the reading, so that what changed meanwhile is seen; unless other files are named now.
                *stamps = if policy.files == before.files { now } else { stamps_of(&policy.files) };
                self.replace(policy);
                self.counters.reloads.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                *stamps = now;
                self.counters.failed_reloads.fetch_add(1, Ordering::Relaxed);
                self.notice(format!("the changed access policy is not taken, the one before stays in force: {error}"));
            }
        }
    }

    fn changed(&self, before: &Policy, path: &Path) -> Result<Policy> {
        let policy = Policy::load(path, &self.limiters, Some(before))?;
        let what = match () {
            () if policy.tls.is_some() != before.tls.is_some() => "[tls] comes or goes",
            () if policy.audit != before.audit => "the audit goes to another file",
            () => return Ok(policy),
        };
        Err(Error::new(ErrorCode::InvalidArgument, what, "that needs a restart of the server"))
    }
}
