//! Segments: rows of one shape and one hour that become one Parquet file.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_types::{Error, ErrorCode, Result, TimestampUs, format_timestamp};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::chunk::Chunk;
use crate::request_id::new_request_id;

const HOUR_US: i64 = 3_600_000_000;

/// The rows that wait for their file, by the address of their shape and the hour. A shape lives as long as its rows.
#[derive(Debug, Default)]
pub(super) struct Segments(HashMap<(usize, i64), Open>);

#[derive(Debug)]
struct Open {
    chunk: Chunk,
    bytes: usize,
    since: Instant,
}

/// A segment that has been taken out to be written.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) chunk: Chunk,
    /// As they were counted when its chunks came.
    pub(super) bytes: usize,
}

impl Segments {
    /// # Errors
    /// `internal` where the chunk does not fit what is there; the rows of the request that came are lost then.
    pub(super) fn add(&mut self, chunk: Chunk, bytes: usize) -> Result<()> {
        let at_us = chunk.heads.first().map_or(0, |head| head.at_us);
        let key = (Arc::as_ptr(&chunk.shape).addr(), at_us.div_euclid(HOUR_US));
        match self.0.get_mut(&key) {
            Some(open) => {
                open.chunk.append(chunk)?;
                open.bytes += bytes;
            }
            None => {
                self.0.insert(key, Open { chunk, bytes, since: Instant::now() });
            }
        }
        Ok(())
    }

    /// Takes out what is old or large enough; everything with `all`.
    pub(super) fn ready(&mut self, age: Duration, rows: usize, all: bool) -> Vec<Ready> {
        let is_due = |open: &Open| all || open.chunk.rows() >= rows || open.since.elapsed() >= age;
        let due: Vec<_> = self.0.iter().filter(|(_, open)| is_due(open)).map(|(key, _)| *key).collect();
        due.iter()
            .filter_map(|key| self.0.remove(key))
            .map(|open| Ready { chunk: open.chunk, bytes: open.bytes })
            .collect()
    }
}

/// Writes a segment's file; it appears whole or not at all.
///
/// # Errors
/// `io`; nothing is left then.
pub(super) fn write(folder: &Path, chunk: &Chunk) -> Result<PathBuf> {
    let at_us = chunk.heads.first().map_or(0, |head| head.at_us);
    let folder = folder.join(folder_name(&chunk.shape.deployment)).join(hour_name(at_us));
    fs::create_dir_all(&folder)?;
    let name = format!("{}-{}.parquet", chunk.shape.node, new_request_id(at_us));
    let (path, aside) = (folder.join(&name), folder.join(format!(".{name}.tmp")));
    let written = write_file(&aside, chunk).and_then(|()| Ok(fs::rename(&aside, &path)?));
    match written {
        Ok(()) => Ok(path),
        Err(error) => {
            drop(fs::remove_file(&aside));
            Err(error)
        }
    }
}

fn write_file(path: &Path, chunk: &Chunk) -> Result<()> {
    let batch = chunk.to_batch()?;
    let failed = |error: parquet::errors::ParquetError| {
        Error::new(ErrorCode::Io, format!("the payload segment {} cannot be written: {error}", path.display()), "")
    };
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let said = chunk.shape.schema.metadata().iter();
    let said = said.map(|(key, value)| parquet::file::metadata::KeyValue::new(key.clone(), value.clone())).collect();
    let properties = properties.set_key_value_metadata(Some(said)).build();
    let mut file = fs::File::create(path)?;
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.close().map_err(failed)?;
    Ok(file.sync_all()?)
}

/// A name as a folder: what a path could take for something else is written as `%41`.
fn folder_name(name: &str) -> String {
    let mut folder = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || (byte == b'.' && at > 0) {
            folder.push(char::from(byte));
        } else {
            folder.push_str(&format!("%{byte:02X}"));
        }
    }
    folder
}

/// The hour of a time in UTC, `2013-01-01T05`.
fn hour_name(at_us: TimestampUs) -> String {
    let text = format_timestamp(at_us);
    text.get(..13).map_or_else(|| format!("hour{}", at_us.div_euclid(HOUR_US)), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folders() {
        assert_eq!(folder_name("late-2.b_c"), "late-2.b_c");
        assert_eq!(folder_name("../a/b c"), "%2E.%2Fa%2Fb%20c");
        assert_eq!(hour_name(0), "1970-01-01T00");
        assert_eq!(hour_name(1_356_998_400_000_000 + 5 * HOUR_US + 1), "2013-01-01T05");
    }
}
