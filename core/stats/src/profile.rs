//! What is known about the columns of a frame.

use arrow_array::RecordBatch;
use headrace_types::{Error, ErrorCode, Result};
use serde_json::{Value as Json, json};

use crate::ColumnSummary;
use crate::bytes::{Reader, put_varint};
use crate::column::{Buffers, add_array, dtype_of};

const MAGIC: &[u8; 8] = b"HRSTATS\0";
const FORMAT: u8 = 1;
const NAME: &str = "profile";

/// The summaries of named columns, in the order in which they were first seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profile {
    rows: u64,
    columns: Vec<(String, ColumnSummary)>,
}

impl Profile {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn columns(&self) -> impl Iterator<Item = (&str, &ColumnSummary)> {
        self.columns.iter().map(|(name, summary)| (name.as_str(), summary))
    }

    pub fn column(&self, name: &str) -> Option<&ColumnSummary> {
        self.columns().find(|(column, _)| *column == name).map(|(_, summary)| summary)
    }

    /// Adds the rows of a batch. A column whose type has changed starts anew; one that is missing stays as it is.
    ///
    /// # Errors
    /// `type_mismatch` naming a column whose values cannot be read; what came before it has been added.
    pub fn add_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.add_batch_with(batch, &mut Buffers::default())
    }

    /// As [`Self::add_batch`], with buffers that are kept from one small batch to the next.
    ///
    /// # Errors
    /// As [`Self::add_batch`].
    pub fn add_batch_with(&mut self, batch: &RecordBatch, buffers: &mut Buffers) -> Result<()> {
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            let dtype = dtype_of(field.data_type());
            let summary = self.entry(field.name(), || ColumnSummary::new(dtype));
            if summary.dtype() != dtype {
                *summary = ColumnSummary::new(dtype);
            }
            add_array(summary, array, buffers).map_err(|error| error.within(format!("column '{}'", field.name())))?;
        }
        self.rows = self.rows.saturating_add(batch.num_rows() as u64);
        Ok(())
    }

    fn entry(&mut self, name: &str, new: impl FnOnce() -> ColumnSummary) -> &mut ColumnSummary {
        let at = self.columns.iter().position(|(column, _)| column == name).unwrap_or_else(|| {
            self.columns.push((name.to_owned(), new()));
            self.columns.len() - 1
        });
        &mut self.columns[at].1
    }

    /// Adds what another profile has seen.
    ///
    /// # Errors
    /// `type_mismatch` naming a column that has another type there.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        for (name, theirs) in &other.columns {
            let mine = self.entry(name, || ColumnSummary::new(theirs.dtype()));
            mine.merge(theirs).map_err(|error| error.within(format!("column '{name}'")))?;
        }
        self.rows = self.rows.saturating_add(other.rows);
        Ok(())
    }

    /// `{"rows", "columns": {name: ..}}` with each column as [`ColumnSummary::to_json`] gives it.
    pub fn to_json(&self) -> Json {
        let columns: serde_json::Map<String, Json> =
            self.columns.iter().map(|(name, summary)| (name.clone(), summary.to_json())).collect();
        json!({"rows": self.rows, "columns": columns})
    }

    /// The profile as a file: the magic `HRSTATS\0`, format 1, the rows and the number of columns as varints, then for each its
    /// name and its summary, each behind its length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(FORMAT);
        put_varint(&mut out, self.rows);
        put_varint(&mut out, self.columns.len() as u64);
        for (name, summary) in &self.columns {
            for part in [name.as_bytes(), &summary.to_bytes()] {
                put_varint(&mut out, part.len() as u64);
                out.extend(part);
            }
        }
        out
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// `corrupt_store` or `newer_format`.
    pub fn from_bytes(data: &[u8]) -> Result<Self> {
        let Some(data) = data.strip_prefix(MAGIC) else {
            return Err(Error::new(ErrorCode::CorruptStore, "this is no file of statistics", "restore the file"));
        };
        let mut reader = Reader::new(NAME, data, FORMAT)?;
        let (rows, length) = (reader.varint()?, reader.varint()?);
        let mut profile = Self { rows, columns: Vec::new() };
        for _ in 0..length {
            let name =
                std::str::from_utf8(read_part(&mut reader)?).map_err(|_| reader.corrupt("a name is not text"))?;
            let summary = ColumnSummary::from_bytes(read_part(&mut reader)?)?;
            if profile.column(name).is_some() {
                return Err(reader.corrupt("two columns have one name"));
            }
            profile.columns.push((name.to_owned(), summary));
        }
        reader.finish()?;
        Ok(profile)
    }
}

fn read_part<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let length = reader.varint()?;
    reader.take(usize::try_from(length).unwrap_or(usize::MAX))
}
