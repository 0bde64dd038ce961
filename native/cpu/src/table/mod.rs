//! The online table: the newest row of every key and view, read in well under a microsecond.
//!
//! [`RowTable`] is one relocatable region of memory: an index of cache lines, and rows that hold all views of a key side by
//! side. A batch of lookups overlaps its cache misses and copies rows straight into the caller's matrix. Readers never
//! block: a seqlock per shard makes them look again when a writer came between. A snapshot is the region itself.
//! [`PlainTable`] is the same in the plainest code, for the tests to compare with.

mod alloc;
mod columns;
mod cut;
#[cfg(test)]
mod forged;
mod gather;
mod hash;
mod image;
mod index;
mod key;
mod plain;
mod plan;
mod prefetch;
mod racy;
mod region;
mod schema;
mod shard;
mod snapshot;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod writer;

pub use alloc::{MemoryBudget, REGION_BYTES_MAX};
pub use image::{ImageLayout, ImageMapper, RowValues, encode_var};
pub use key::{EncodedKeys, KeyEncoder, KeysRef};
pub use plain::{PlainPlan, PlainTable};
pub use plan::{GatherFeature, GatherPlan};
pub use schema::{ROW_BYTES_MAX, TableSchema, VAR_BYTES_MAX, ViewSchema};
pub use snapshot::{OpenMode, TableSnapshot};
pub use store::{RowTable, TableOptions, TableStats, UpsertOutcome};
pub use writer::{KEY_BYTES_MAX, TableWriter};

#[cfg(target_endian = "big")]
compile_error!("the table's memory and files are little endian");
