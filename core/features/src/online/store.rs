//! What an online store must do, wherever it keeps its rows.

use std::fmt::Debug;

use headrace_cpu::{GatherFeature, KeysRef};
use headrace_types::{Column, Result, TimestampUs};

use crate::plan::TablePlan;

/// What became of the rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyCounts {
    /// First rows of their key and view.
    pub inserted: u64,
    /// Rows that took the place of an older one.
    pub replaced: u64,
    /// Rows that an equal or newer one kept out.
    pub stale: u64,
    /// Tombstones stored.
    pub deleted: u64,
    /// Rows of a view that the store does not hold: removed from the plan, or not online.
    pub skipped: u64,
}

impl ApplyCounts {
    /// All rows of the batch.
    pub fn rows(&self) -> u64 {
        self.inserted + self.replaced + self.stale + self.deleted + self.skipped
    }
}

impl std::ops::AddAssign for ApplyCounts {
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.replaced += other.replaced;
        self.stale += other.stale;
        self.deleted += other.deleted;
        self.skipped += other.skipped;
    }
}

/// A place for the newest row of every key and view.
pub trait OnlineStore: Send + Sync + Debug {
    /// Stores the rows of an encoded batch. Doing it again changes nothing: a row replaces only a smaller version.
    ///
    /// # Errors
    /// `corrupt_store` or `newer_format` for the bytes; `store_full`, `read_only`, `io` of the store.
    fn apply(&self, batch: &[u8]) -> Result<ApplyCounts>;

    /// Compiles the lookup of some features of one table into columns of a matrix of `width` columns.
    ///
    /// `ttl_us` has one entry for each view of the table.
    ///
    /// # Errors
    /// `invalid_argument` for a table or a feature that the store does not hold.
    fn table_reader(
        &self,
        table: &TablePlan,
        features: &[GatherFeature],
        ttl_us: &[Option<i64>],
        width: usize,
    ) -> Result<Box<dyn TableReader>>;
}

/// A compiled lookup in one table. Columns of the matrix that are not its own are left alone.
pub trait TableReader: Send + Sync + Debug {
    /// Fills the reader's columns of `out`, row-major `[keys, width]`, and of `status`; NaN where there is no value.
    ///
    /// # Errors
    /// `length_mismatch` for a slice of another length; `type_mismatch` for a feature that is no number.
    fn read_f32(
        &self,
        keys: KeysRef<'_>,
        now_us: TimestampUs,
        out: &mut [f32],
        status: Option<&mut [u8]>,
    ) -> Result<()>;

    /// As `read_f32`, in float64.
    ///
    /// # Errors
    /// As `read_f32`.
    fn read_f64(
        &self,
        keys: KeysRef<'_>,
        now_us: TimestampUs,
        out: &mut [f64],
        status: Option<&mut [u8]>,
    ) -> Result<()>;

    /// Empties and fills the reader's columns of any type.
    ///
    /// # Errors
    /// `length_mismatch`; `corrupt_store` for a stored value that cannot be read.
    fn read_columns(
        &self,
        keys: KeysRef<'_>,
        now_us: TimestampUs,
        columns: &mut [Column],
        status: &mut [u8],
    ) -> Result<()>;
}
