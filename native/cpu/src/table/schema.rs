//! What a table holds, and where in a row each value lies.

use headrace_types::{DType, Error, ErrorCode, Field, Result, ScalarType};
use serde::{Deserialize, Serialize};

/// The ordered join keys of a table and the views that share them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    pub keys: Vec<Field>,
    pub views: Vec<ViewSchema>,
}

/// The stored fields of one feature view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewSchema {
    pub name: String,
    pub fields: Vec<Field>,
}

/// Largest row of a table: prefetching and copying under a seqlock are made for rows of up to a few kilobytes.
pub const ROW_BYTES_MAX: usize = 1 << 20;

/// Bytes of a slot of a string, bytes or list value: u32 length, then 12 bytes inline, or 4 unused and a u64 offset.
pub(super) const VAR_SLOT_BYTES: usize = 16;
/// Where the live bits begin, behind the key's slot.
const FLAGS_OFFSET: usize = 16;
/// Longest value that lies in its slot.
pub(super) const VAR_INLINE_BYTES: usize = 12;
/// Longest string, bytes or list value, so that a torn length cannot ask a reader for gigabytes.
pub const VAR_BYTES_MAX: usize = 16 << 20;

/// Bytes that a value takes in a row.
pub(super) fn slot_bytes(dtype: DType) -> usize {
    match dtype {
        DType::Scalar(scalar) => scalar.width_bytes().unwrap_or(VAR_SLOT_BYTES),
        DType::List(_) => VAR_SLOT_BYTES,
    }
}

/// Whether values of the type have no fixed width.
pub(super) fn is_var(dtype: DType) -> bool {
    dtype.is_list() || matches!(dtype.element(), ScalarType::String | ScalarType::Bytes)
}

/// The layout of rows that this headrace writes. Rows of format 1 can be read where they lie.
pub(super) const FORMAT_VERSION: u64 = 2;

/// Byte offsets within a row, all derived from the schema and the format.
///
/// ```text
/// hot, read by lookups      key slot 16 | live and known bits | event_ts per view | values, packed in view and field order | null bits
/// cold, read by writers     created_ts and sequence per view
/// ```
/// In format 1 the known bits were words of their own at the end, and each view's null bits began at a word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) format: u64,
    pub(super) schema: TableSchema,
    pub(super) views: Vec<ViewLayout>,
    pub(super) event_ts_offset: usize,
    pub(super) versions_offset: usize,
    /// Bytes from one row to the next, a multiple of 64.
    pub(super) row_bytes: usize,
}

/// One bit of a row: the offset of its word, and the bit in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowBit {
    pub(super) offset: usize,
    pub(super) mask: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ViewLayout {
    /// Set while the row is there and no tombstone.
    pub(super) live: RowBit,
    /// Set once there was a row or a tombstone.
    pub(super) known: RowBit,
    pub(super) values_offset: usize,
    pub(super) values_bytes: usize,
    /// The first null bit, counted in bits from the start of the row.
    pub(super) nulls_at: usize,
    pub(super) fields: Vec<FieldLayout>,
    /// Positions in `fields` of the values without a fixed width.
    pub(super) var_fields: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FieldLayout {
    pub(super) dtype: DType,
    /// Offset of the value within the view's values.
    pub(super) offset: usize,
}

impl RowBit {
    /// Bit `at` of the words from `offset` on.
    fn new(offset: usize, at: usize) -> Self {
        Self { offset: offset + at / 64 * 8, mask: 1 << (at % 64) }
    }
}

impl ViewLayout {
    fn new(schema: &ViewSchema) -> Self {
        let mut offset = 0;
        let fields: Vec<FieldLayout> = schema
            .fields
            .iter()
            .map(|field| {
                let layout = FieldLayout { dtype: field.dtype, offset };
                offset += slot_bytes(field.dtype);
                layout
            })
            .collect();
        let var_fields = (0..fields.len()).filter(|&i| is_var(fields[i].dtype)).collect();
        let none = RowBit::new(0, 0);
        Self { live: none, known: none, values_offset: 0, values_bytes: offset, nulls_at: 0, fields, var_fields }
    }

    pub(super) fn null_bit(&self, field: usize) -> RowBit {
        RowBit::new(0, self.nulls_at + field)
    }

    /// Bytes of the null bits of an image: whole words, whatever they take in a row.
    pub(super) fn image_nulls_bytes(&self) -> usize {
        words_bytes(self.fields.len())
    }
}

/// Words of one bit for each of `count`.
fn words_bytes(count: usize) -> usize {
    8 * count.div_ceil(64)
}

impl Layout {
    pub(super) fn new(schema: TableSchema) -> Result<Self> {
        Self::of_format(schema, FORMAT_VERSION)
    }

    pub(super) fn of_format(schema: TableSchema, format: u64) -> Result<Self> {
        check_names(&schema)?;
        for key in &schema.keys {
            if key.dtype.is_list() || matches!(key.dtype.element(), ScalarType::Float32 | ScalarType::Float64) {
                return Err(Error::new(
                    ErrorCode::InvalidDefinition,
                    format!("join key '{}' is a {}", key.name, key.dtype),
                    "use an integer, bool, timestamp, string or bytes key",
                ));
            }
        }
        let is_packed = format >= 2;
        let mut views: Vec<ViewLayout> = schema.views.iter().map(ViewLayout::new).collect();
        // A word of format 2 has 32 live bits below and the known bits of the same views above.
        let flag_bytes = if is_packed { words_bytes(2 * views.len()) } else { words_bytes(views.len()) };
        let event_ts_offset = FLAGS_OFFSET + flag_bytes;
        let mut offset = event_ts_offset + 8 * views.len();
        for view in &mut views {
            view.values_offset = offset;
            offset += view.values_bytes;
        }
        let mut bits = 8 * offset.next_multiple_of(8);
        for view in &mut views {
            bits = if is_packed { bits } else { bits.next_multiple_of(64) };
            view.nulls_at = bits;
            bits += view.fields.len();
        }
        let versions_offset = bits.div_ceil(64) * 8;
        let versions_end = versions_offset + 16 * views.len();
        for (i, view) in views.iter_mut().enumerate() {
            (view.live, view.known) = if is_packed {
                let at = i / 32 * 64 + i % 32;
                (RowBit::new(FLAGS_OFFSET, at), RowBit::new(FLAGS_OFFSET, at + 32))
            } else {
                (RowBit::new(FLAGS_OFFSET, i), RowBit::new(versions_end, i))
            };
        }
        let end = if is_packed { versions_end } else { versions_end + flag_bytes };
        let row_bytes = end.next_multiple_of(64);
        if row_bytes > ROW_BYTES_MAX {
            return Err(Error::new(
                ErrorCode::InvalidDefinition,
                format!("a row of the table keyed by [{}] would take {row_bytes} bytes", key_names(&schema)),
                format!("keep a row within {ROW_BYTES_MAX} bytes: give some views another entity"),
            ));
        }
        Ok(Self { format, schema, views, event_ts_offset, versions_offset, row_bytes })
    }

    pub(super) fn view_name(&self, view: usize) -> &str {
        &self.schema.views[view].name
    }
}

fn key_names(schema: &TableSchema) -> String {
    schema.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn check_names(schema: &TableSchema) -> Result<()> {
    let mut places = vec![("join key", schema.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>())];
    places.push(("view", schema.views.iter().map(|view| view.name.as_str()).collect()));
    for view in &schema.views {
        places.push(("field", view.fields.iter().map(|field| field.name.as_str()).collect()));
    }
    for (kind, mut names) in places {
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::new(
                ErrorCode::NameClash,
                format!("the online table keyed by [{}] has two of the {kind} '{}'", key_names(schema), pair[0]),
                "give each its own name",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn schema(views: usize, fields: usize) -> TableSchema {
        TableSchema {
            keys: vec![Field::new("id", DType::INT64)],
            views: (0..views)
                .map(|v| ViewSchema {
                    name: format!("v{v}"),
                    fields: (0..fields).map(|f| Field::new(format!("f{f}"), DType::FLOAT32)).collect(),
                })
                .collect(),
        }
    }

    #[test]
    fn five_views_have_a_header_of_one_cache_line() {
        let layout = Layout::new(schema(5, 50)).unwrap();
        assert_eq!(layout.views[0].values_offset, 64);
        assert_eq!(layout.views[1].values_offset, 264);
        assert_eq!(layout.row_bytes % 64, 0);
    }

    #[test]
    fn views_are_not_limited_to_one_word() {
        let layout = Layout::new(schema(200, 2)).unwrap();
        assert_eq!(layout.event_ts_offset, 16 + 7 * 8);
        assert_eq!(layout.views[199].live, RowBit { offset: 16 + 6 * 8, mask: 1 << 7 });
        assert_eq!(layout.views[199].known, RowBit { offset: 16 + 6 * 8, mask: 1 << 39 });
    }

    /// Bytes of a row that hold no value: what a table costs beside its raw bytes.
    #[test]
    fn null_bits_of_all_views_share_words() {
        assert_eq!(Layout::new(schema(1, 50)).unwrap().row_bytes, 256);
        assert_eq!(Layout::new(schema(1, 250)).unwrap().row_bytes, 1088);
        assert_eq!(Layout::new(schema(25, 10)).unwrap().row_bytes, 1664);
        assert_eq!(Layout::of_format(schema(25, 10), 1).unwrap().row_bytes, 1856);
    }

    #[test]
    fn no_two_parts_of_a_row_overlap() {
        for format in [1, FORMAT_VERSION] {
            for (views, fields) in [(1, 1), (3, 70), (33, 1), (65, 5), (130, 0)] {
                let layout = Layout::of_format(schema(views, fields), format).unwrap();
                let mut used = vec![false; 8 * layout.row_bytes];
                let mut take = |first: usize, count: usize| {
                    for bit in &mut used[first..first + count] {
                        assert!(!std::mem::replace(bit, true), "{views} views of {fields}, format {format}");
                    }
                };
                take(0, 128);
                take(8 * layout.event_ts_offset, 64 * views);
                take(8 * layout.versions_offset, 128 * views);
                for view in &layout.views {
                    take(8 * view.values_offset, 8 * view.values_bytes);
                    let nulls = (0..fields).map(|field| view.null_bit(field));
                    for bit in [view.live, view.known].into_iter().chain(nulls) {
                        take(8 * bit.offset + bit.mask.trailing_zeros() as usize, 1);
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_too_wide_a_float_key_and_a_double_name_are_refused() {
        assert_eq!(Layout::new(schema(1, 300_000)).unwrap_err().code, ErrorCode::InvalidDefinition);
        let mut float_key = schema(1, 1);
        float_key.keys[0].dtype = DType::FLOAT64;
        assert_eq!(Layout::new(float_key).unwrap_err().code, ErrorCode::InvalidDefinition);
        let mut twice = schema(2, 1);
        twice.views[1].name = "v0".into();
        assert_eq!(Layout::new(twice).unwrap_err().code, ErrorCode::NameClash);
    }
}
