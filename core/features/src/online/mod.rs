//! Online: how rows travel to the store, the store in this process, and the compiled lookup of a service.
//!
//! A batch of rows of one view is encoded once, by [`encode_rows`]. The bytes are the value in the write-ahead log and what
//! every store applies. They describe themselves, so that a log outlives a change of the view: fields are matched by name and
//! type, new ones are null, dropped ones are left out.
//!
//! ```text
//! bytes    content (little endian; each part begins at a multiple of 8, filled up with zeros)
//! 8        magic "HRROWS" 0 0
//! 4        u32 format version, 1
//! 4        u32 length of the header
//! 8        u64 rows
//! 8        u64 sequence of the first row; the others follow by one
//! header   JSON: {"view": name, "keys": [{"name", "dtype"}], "fields": [{"name", "dtype"}]}; of events also "now_us", and "resets"
//! 8 rows   i64 event_ts, microseconds UTC; the smallest i64 for a row without one
//! 8 rows   i64 created_ts
//! rows     u8: 1 for a tombstone, else 0
//! 4(n + 1) u32 offsets of the keys
//! 4(n + 1) u32 offsets of the images; a tombstone's is empty
//! keys     canonical keys (headrace_cpu::KeyEncoder)
//! images   of the fields (headrace_cpu::ImageLayout)
//! 4        u32 CRC-32 of everything before
//! ```

mod batch;
mod encode;
mod erase;
mod keys;
mod local;
mod plan;
mod snapshot;
mod store;
mod windows;

pub use headrace_cpu::{EncodedKeys, KeysRef, OpenMode, TableStats};

pub use batch::EncodedBatch;
pub use encode::{EncodeOptions, EncodedRows, REFUSED_FUTURE, REFUSED_NULL_EVENT_TS, REFUSED_NULL_KEY, encode_rows};
pub use local::{LocalStore, StoreOptions};
pub use plan::{OnlinePlan, StoredColumns, TableKeys};
pub use store::{ApplyCounts, OnlineStore, TableReader};
