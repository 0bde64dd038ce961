//! Values of source rows that may still be the answer.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use arrow_select::interleave::interleave;
use arrow_select::take::take;
use headrace_types::{DType, Error, ErrorCode, Field, Result};

use super::entities::check_rows;
use crate::arrow::arrow_type;

/// No row.
pub(super) const NO_PLACE: u32 = u32::MAX;

/// Rows of some columns, in pieces; a row's place counts through all of them.
pub(super) struct Held {
    fields: Vec<Field>,
    /// By field, then by piece.
    columns: Vec<Vec<ArrayRef>>,
    /// Which rows of each piece are tombstones; none where none is.
    deleted: Vec<Option<BooleanArray>>,
    /// The place of the first row of each piece.
    starts: Vec<u32>,
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// Places in the form in which columns are gathered.
enum Index {
    /// All rows are in one piece.
    One(UInt32Array),
    /// Piece and row; the piece after the last one is a null.
    Many(Vec<(usize, usize)>),
}

impl Held {
    pub(super) fn new(fields: Vec<Field>) -> Self {
        let columns = vec![Vec::new(); fields.len()];
        Self { fields, columns, deleted: Vec::new(), starts: Vec::new(), rows: 0, bytes: 0 }
    }

    /// Takes more rows: a plain array for each field.
    pub(super) fn push(&mut self, columns: Vec<ArrayRef>, deleted: Option<BooleanArray>, rows: usize) -> Result<()> {
        check_rows(self.rows + rows)?;
        self.starts.push(self.rows as u32);
        self.rows += rows;
        self.bytes += deleted.as_ref().map_or(0, Array::get_buffer_memory_size);
        self.deleted.push(deleted);
        for (held, column) in self.columns.iter_mut().zip(columns) {
            self.bytes += column.get_buffer_memory_size();
            held.push(column);
        }
        Ok(())
    }

    /// Forgets all rows but those that `keep` marks, and writes their new places there.
    ///
    /// `keep[place]` is 0 or 1 before; a kept row's new place after.
    pub(super) fn compact(&mut self, keep: &mut [u32]) -> Result<()> {
        let mut places = Vec::new();
        for (place, kept) in keep.iter_mut().enumerate() {
            if *kept != 0 {
                *kept = places.len() as u32;
                places.push(place as u32); // the number of rows is checked to fit
            }
        }
        let columns = self.gather(&places)?;
        let deleted = self.deleted.iter().any(Option::is_some).then(|| self.is_deleted(&places).into());
        *self = Self::new(std::mem::take(&mut self.fields));
        self.push(columns, deleted, places.len())
    }

    /// Whether the rows at some places are tombstones; no row is none.
    pub(super) fn is_deleted(&self, places: &[u32]) -> Vec<bool> {
        if self.deleted.iter().all(Option::is_none) {
            return vec![false; places.len()];
        }
        places
            .iter()
            .map(|&place| {
                place != NO_PLACE && {
                    let (piece, row) = self.locate(place);
                    self.deleted[piece].as_ref().is_some_and(|deleted| deleted.is_valid(row) && deleted.value(row))
                }
            })
            .collect()
    }

    /// The values at some places, a column for each field; null for no row.
    pub(super) fn gather(&self, places: &[u32]) -> Result<Vec<ArrayRef>> {
        let index = self.index(places);
        self.fields
            .iter()
            .zip(&self.columns)
            .map(|(field, pieces)| index.gather(pieces, field.dtype, places.len(), &field.name))
            .collect()
    }

    fn index(&self, places: &[u32]) -> Index {
        if self.starts.len() <= 1 {
            let nulls: NullBuffer = places.iter().map(|&place| place != NO_PLACE).collect();
            let rows: Vec<u32> = places.iter().map(|&place| if place == NO_PLACE { 0 } else { place }).collect();
            return Index::One(UInt32Array::new(rows.into(), Some(nulls)));
        }
        let nothing = (self.starts.len(), 0);
        Index::Many(places.iter().map(|&place| if place == NO_PLACE { nothing } else { self.locate(place) }).collect())
    }

    fn locate(&self, place: u32) -> (usize, usize) {
        let piece = self.starts.partition_point(|&start| start <= place) - 1;
        (piece, (place - self.starts[piece]) as usize)
    }
}

impl Index {
    fn gather(&self, pieces: &[ArrayRef], dtype: DType, rows: usize, name: &str) -> Result<ArrayRef> {
        let gathered = match (self, pieces) {
            (Self::One(_), []) => return Ok(new_null_array(&arrow_type(dtype), rows)),
            (Self::One(picked), pieces) => {
                check_length(pieces, picked.iter().flatten().map(|row| (0, row as usize)), name)?;
                take(&pieces[0], picked, None)
            }
            (Self::Many(index), pieces) => {
                let found = index.iter().copied().filter(|(piece, _)| *piece < pieces.len());
                check_length(pieces, found, name)?;
                let null = new_null_array(&arrow_type(dtype), 1);
                let pieces: Vec<&dyn Array> = pieces.iter().chain([&null]).map(AsRef::as_ref).collect();
                interleave(&pieces, index)
            }
        };
        gathered.map_err(|error| Error::internal(format!("column '{name}': {error}")))
    }
}

/// Offsets have 32 bits, so the size of strings and lists is looked at before they are copied.
fn check_length(pieces: &[ArrayRef], places: impl Iterator<Item = (usize, usize)>, name: &str) -> Result<()> {
    let offsets: Vec<&[i32]> = pieces
        .iter()
        .filter_map(|piece| match piece.data_type() {
            DataType::Utf8 => Some(&piece.as_string::<i32>().offsets()[..]),
            DataType::Binary => Some(&piece.as_binary::<i32>().offsets()[..]),
            DataType::List(_) => Some(&piece.as_list::<i32>().offsets()[..]),
            _ => None,
        })
        .collect();
    if offsets.is_empty() {
        return Ok(());
    }
    let length: i64 =
        places.map(|(piece, row)| i64::from(offsets[piece][row + 1]) - i64::from(offsets[piece][row])).sum();
    if i32::try_from(length).is_ok() {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::TooLarge,
        format!("column '{name}' would have {length} bytes or list items, the limit is {}", i32::MAX),
        "join a part of the entity rows at a time",
    ))
}
