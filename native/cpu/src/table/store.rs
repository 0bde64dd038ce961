//! The row table: its parts, its options, and what it tells about itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headrace_types::{Error, ErrorCode, Result, RowVersion};

use super::alloc::{Allocator, CLASSES, MemoryBudget, REGION_BYTES_MAX};
use super::hash::random_seed;
use super::image::RowValues;
use super::index::{IndexRef, LINE_BYTES};
use super::plan::{GatherFeature, GatherPlan};
use super::region::Region;
use super::schema::{Layout, TableSchema};
use super::shard::{SHARDS, Shard};
use super::writer::TableWriter;

/// Bytes at the start of a region that a snapshot's header, schema and shard directory use.
pub(super) const HEADER_BYTES: usize = 4096;
pub(super) const DIRECTORY_ENTRY_BYTES: usize = 16;

/// How a table may use memory.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// Bound on the used bytes; several tables may share one.
    pub budget: Arc<MemoryBudget>,
    /// Ask the kernel for 2 MiB pages: worth 1.4 to 1.9 times on random lookups.
    pub huge_pages: bool,
}

impl TableOptions {
    pub fn new(bytes_max: u64) -> Self {
        Self { budget: MemoryBudget::new(bytes_max), huge_pages: true }
    }
}

/// What an upsert did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpsertOutcome {
    /// The first row of this key and view.
    Inserted,
    /// A row with a smaller version was there.
    Replaced,
    /// The row there has a version as large or larger, and stays.
    Stale,
    /// A tombstone was stored.
    Deleted,
}

/// Sizes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableStats {
    /// Keys, those whose rows are all deleted included.
    pub keys: usize,
    pub row_bytes: usize,
    /// Bytes of the region in use: rows, index and strings.
    pub used_bytes: usize,
    pub index_bytes: usize,
}

/// The online rows of one ordered list of join keys: all views of a key in one row, read without locks.
///
/// See the module's documentation for the layout and native/README.md for the file.
#[derive(Debug)]
pub struct RowTable {
    pub(super) layout: Arc<Layout>,
    pub(super) region: Region,
    pub(super) seed: u64,
    pub(super) shards: Box<[Shard]>,
    pub(super) allocator: Mutex<Allocator>,
}

impl RowTable {
    /// An empty table.
    ///
    /// # Errors
    /// `invalid_definition` or `name_clash` for a schema that no table can have; `store_full` when the budget or the
    /// address space does not allow even an empty one.
    pub fn create(schema: TableSchema, options: &TableOptions) -> Result<Self> {
        let layout = Layout::new(schema)?;
        let len = region_bytes(options.budget.bytes_max())?;
        let region = Region::anonymous(len, options.huge_pages)?;
        let start = data_offset(schema_json(&layout.schema)?.len());
        let mut allocator = Allocator::new(start, [0; CLASSES], options.budget.clone())?;
        let lines = allocator.block(&region, SHARDS * LINE_BYTES)?;
        let shards = (0..SHARDS).map(|i| Shard::new(IndexRef::new(lines + i * LINE_BYTES, 0), 0)).collect();
        let allocator = Mutex::new(allocator);
        Ok(Self { layout: Arc::new(layout), region, seed: random_seed(), shards, allocator })
    }

    pub fn schema(&self) -> &TableSchema {
        &self.layout.schema
    }

    /// Keys in the table, those whose rows are all deleted included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.rows.load(std::sync::atomic::Ordering::Relaxed)).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn is_read_only(&self) -> bool {
        !self.region.is_writable()
    }

    pub fn stats(&self) -> TableStats {
        TableStats {
            keys: self.len(),
            row_bytes: self.layout.row_bytes,
            used_bytes: self.lock().used,
            index_bytes: self.shards.iter().map(|shard| shard.index().bytes()).sum(),
        }
    }

    /// Compiles a lookup of some features.
    ///
    /// # Errors
    /// As [`GatherPlan`]'s.
    pub fn gather_plan(&self, features: &[GatherFeature], ttl_us: &[Option<i64>], width: usize) -> Result<GatherPlan> {
        GatherPlan::compile(&self.layout, features, ttl_us, width)
    }

    /// The only way to change rows: one writer at a time, readers go on.
    ///
    /// # Errors
    /// `read_only` for a table mapped from a snapshot.
    pub fn writer(&self) -> Result<TableWriter<'_>> {
        if self.is_read_only() {
            return Err(Error::new(
                ErrorCode::ReadOnly,
                "the online table is mapped read-only from a snapshot",
                "write through the process that owns the store",
            ));
        }
        Ok(TableWriter::new(self, self.lock()))
    }

    /// Stores one row of one view, or leaves the one there when its version is as large or larger.
    ///
    /// # Errors
    /// As [`TableWriter::upsert`].
    pub fn upsert(&self, view: usize, key: &[u8], version: RowVersion, values: RowValues<'_>) -> Result<UpsertOutcome> {
        self.writer()?.upsert(view, key, version, values)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Allocator> {
        // A writer that panicked has closed its shard, and its row is old or new: the table can be used.
        self.allocator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn region_bytes(bytes_max: u64) -> Result<usize> {
    if bytes_max > REGION_BYTES_MAX {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("bytes_max of the online store is {bytes_max}"),
            format!("the largest table is {REGION_BYTES_MAX} bytes"),
        ));
    }
    usize::try_from(bytes_max)
        .map_err(|_| Error::new(ErrorCode::InvalidArgument, "bytes_max is over the address space", ""))
}

pub(super) fn schema_json(schema: &TableSchema) -> Result<String> {
    serde_json::to_string(schema).map_err(|error| Error::internal(format!("a schema cannot be written: {error}")))
}

/// Where the first row or block may lie.
pub(super) fn data_offset(schema_len: usize) -> usize {
    (HEADER_BYTES + SHARDS * DIRECTORY_ENTRY_BYTES + schema_len).next_multiple_of(LINE_BYTES)
}
