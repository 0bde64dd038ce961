//! Tables without the rows of some keys: what an erasure leaves in memory and in the next snapshot.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use headrace_cpu::{ImageMapper, RowTable, RowValues};
use headrace_types::{Error, ErrorCode, Field, Result, ScalarType};

use super::local::{LocalStore, LocalTable};
use super::windows::LocalWindows;

/// Bytes of a number in a key.
const WORD_BYTES: usize = 8;
/// Bytes of the length before a string in a key.
const LENGTH_BYTES: usize = 4;

impl LocalStore {
    /// The same rows in new tables, without those of some keys: nothing of what is left out is copied.
    ///
    /// `columns` are join keys; every table that has them all is made anew. `erased` holds, for each key, the canonical bytes of
    /// these columns' values, one after the other. Returns also how many keys each such table has lost.
    ///
    /// # Errors
    /// `corrupt_store` for a key that does not fit its columns; `store_full` when the address space is not to be had.
    pub fn without_keys(
        &self,
        columns: &[String],
        erased: &HashSet<Vec<u8>>,
    ) -> Result<(Self, BTreeMap<String, usize>)> {
        let mut removed = BTreeMap::new();
        let mut tables = Vec::with_capacity(self.tables.len());
        for old in &self.tables {
            let keys = &old.table.schema().keys;
            let found = columns.iter().map(|column| keys.iter().position(|key| key.name == *column));
            let Some(positions) = found.collect::<Option<Vec<_>>>().filter(|positions| !positions.is_empty()) else {
                tables.push(old.clone());
                continue;
            };
            let new = RowTable::create(old.table.schema().clone(), &self.options)?;
            let mut lost = HashSet::new();
            let mut is_erased = |key: &[u8]| {
                let is_erased = has_erased(keys, key, &positions, erased)?;
                if is_erased && !lost.contains(key) {
                    lost.insert(key.to_vec());
                }
                Ok(is_erased)
            };
            copy_others(&old.table, &new, &mut is_erased)?;
            let mut windows = Vec::with_capacity(old.windows.len());
            for of_view in &old.windows {
                let table = Arc::new(of_view.table.without(&mut is_erased)?);
                windows.push(LocalWindows { table, ..of_view.clone() });
            }
            removed.insert(old.name.clone(), lost.len());
            tables.push(LocalTable { name: old.name.clone(), table: Arc::new(new), windows });
        }
        Ok((Self { tables, options: self.options.clone(), is_read_only: self.is_read_only }, removed))
    }
}

/// Whether the parts of a key at some positions are those of an erased one.
fn has_erased(fields: &[Field], key: &[u8], positions: &[usize], erased: &HashSet<Vec<u8>>) -> Result<bool> {
    let parts = split_key(fields, key)?;
    let wanted: Vec<u8> = positions.iter().flat_map(|&position| parts[position]).copied().collect();
    Ok(erased.contains(&wanted))
}

fn copy_others(old: &RowTable, new: &RowTable, is_erased: &mut impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
    let schema = old.schema();
    let mappers: Vec<ImageMapper> =
        schema.views.iter().map(|view| ImageMapper::new(&view.fields, &view.fields)).collect();
    let mut writer = new.writer()?;
    let mut image = Vec::new();
    old.scan(|key, view, version, values| {
        if is_erased(key)? {
            return Ok(());
        }
        let values = match values {
            RowValues::Live(stored) => {
                image.clear();
                mappers[view].map(stored, &mut image)?;
                RowValues::Live(&image)
            }
            RowValues::Tombstone => RowValues::Tombstone,
        };
        writer.upsert(view, key, version, values).map(|_| ())
    })
}

/// The canonical bytes of each part of a key, lengths included.
fn split_key<'a>(fields: &[Field], key: &'a [u8]) -> Result<Vec<&'a [u8]>> {
    let mut rest = key;
    let mut parts = Vec::with_capacity(fields.len());
    for field in fields {
        let len = match field.dtype.element() {
            ScalarType::String | ScalarType::Bytes => rest
                .first_chunk::<LENGTH_BYTES>()
                .and_then(|length| LENGTH_BYTES.checked_add(u32::from_le_bytes(*length) as usize)),
            _ => Some(WORD_BYTES),
        };
        let (part, after) = len.and_then(|len| rest.split_at_checked(len)).ok_or_else(|| wrong_key(field))?;
        parts.push(part);
        rest = after;
    }
    Ok(parts)
}

fn wrong_key(field: &Field) -> Error {
    Error::new(
        ErrorCode::CorruptStore,
        format!("a key of the online table ends before its part '{}'", field.name),
        "restore the store from a backup, or materialize again",
    )
}

#[cfg(test)]
mod tests {
    use headrace_types::DType;

    use super::*;

    #[test]
    fn a_key_falls_into_its_parts() -> Result<()> {
        let field = |name: &str, element| Field { name: name.to_owned(), dtype: DType::Scalar(element) };
        let fields = [field("carrier", ScalarType::String), field("number", ScalarType::Int64)];
        let mut key = vec![2, 0, 0, 0, b'U', b'A'];
        key.extend_from_slice(&7_i64.to_le_bytes());
        let parts = split_key(&fields, &key)?;
        assert_eq!(parts, [&key[..6], &key[6..]]);
        for len in 0..key.len() {
            let code = split_key(&fields, &key[..len]).map_err(|error| error.code);
            assert_eq!(code, Err(ErrorCode::CorruptStore));
        }
        assert!(split_key(&fields, &[0xff; 12]).is_err(), "a length past the end");
        Ok(())
    }
}
