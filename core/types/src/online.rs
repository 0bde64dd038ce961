use crate::TimestampUs;

/// The event time of a row that has none (a static attribute): before every other row, and never expired.
pub const EVENT_TS_ALWAYS: TimestampUs = i64::MIN;

/// What a lookup found for one feature of one key, the same on every transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FeatureStatus {
    Present = 0,
    /// The row exists; this value in it is null.
    NullValue = 1,
    /// There is no row for the key, or it was deleted, or the key is null.
    NotFound = 2,
    /// The row is older than the view's TTL.
    OutsideMaxAge = 3,
    /// The value could not be computed.
    Invalid = 4,
}

impl FeatureStatus {
    pub const ALL: [FeatureStatus; 5] = [
        FeatureStatus::Present,
        FeatureStatus::NullValue,
        FeatureStatus::NotFound,
        FeatureStatus::OutsideMaxAge,
        FeatureStatus::Invalid,
    ];

    pub fn name(self) -> &'static str {
        match self {
            FeatureStatus::Present => "PRESENT",
            FeatureStatus::NullValue => "NULL_VALUE",
            FeatureStatus::NotFound => "NOT_FOUND",
            FeatureStatus::OutsideMaxAge => "OUTSIDE_MAX_AGE",
            FeatureStatus::Invalid => "INVALID",
        }
    }
}

/// The order of rows of one key and view, everywhere: event time, then creation time, then ingest sequence.
///
/// The derived `Ord` is that order: the largest version wins online, and a write that is not larger never replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowVersion {
    pub event_ts: TimestampUs,
    pub created_ts: TimestampUs,
    pub sequence: u64,
}
