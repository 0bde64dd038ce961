//! What the last `headrace verify consistency` found, for the metrics of a server.

use serde::Deserialize;

/// The findings of one verification.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ConsistencyReport {
    /// When it ended, in microseconds UTC.
    pub verified_at_us: i64,
    pub features: Vec<FeatureConsistency>,
}

/// One feature of one deployment: served values beside what is recomputed offline.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FeatureConsistency {
    pub deployment: String,
    pub feature: String,
    /// Served values that were recomputed.
    pub count: u64,
    /// Both sides have a value, or a reason for none, and they differ.
    pub mismatched: u64,
    /// Only offline has a value.
    pub missing: u64,
    /// Only online has a value.
    pub extra: u64,
}

impl FeatureConsistency {
    /// The share of values that differ in any way.
    #[allow(clippy::cast_precision_loss)] // a ratio
    pub fn mismatch_ratio(&self) -> f64 {
        (self.mismatched + self.missing + self.extra) as f64 / self.count.max(1) as f64
    }
}
