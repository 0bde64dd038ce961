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

/// Byte offsets within a row, all derived from the schema.
///
/// ```text
/// hot, read by lookups      key slot 16 | live bits | event_ts per view | values, packed in view and field order | null bits per view
/// cold, read by writers     created_ts and sequence per view | known bits
/// ```
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) schema: TableSchema,
    pub(super) views: Vec<ViewLayout>,
    /// Words of one bit per view.
    pub(super) view_words: usize,
    pub(super) live_offset: usize,
    pub(super) event_ts_offset: usize,
    pub(super) versions_offset: usize,
    pub(super) known_offset: usize,
    /// Bytes from one row to the next, a multiple of 64.
    pub(super) row_bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ViewLayout {
    pub(super) values_offset: usize,
    pub(super) values_bytes: usize,
    pub(super) nulls_offset: usize,
    pub(super) null_words: usize,
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
        let null_words = fields.len().div_ceil(64);
        Self { values_offset: 0, values_bytes: offset, nulls_offset: 0, null_words, fields, var_fields }
    }
}

impl Layout {
    pub(super) fn new(schema: TableSchema) -> Result<Self> {
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
        let view_words = schema.views.len().div_ceil(64);
        let live_offset = 16;
        let event_ts_offset = live_offset + 8 * view_words;
        let mut views: Vec<ViewLayout> = schema.views.iter().map(ViewLayout::new).collect();
        let mut offset = event_ts_offset + 8 * views.len();
        for view in &mut views {
            view.values_offset = offset;
            offset += view.values_bytes;
        }
        offset = offset.next_multiple_of(8);
        for view in &mut views {
            view.nulls_offset = offset;
            offset += 8 * view.null_words;
        }
        let versions_offset = offset;
        let known_offset = versions_offset + 16 * views.len();
        let row_bytes = (known_offset + 8 * view_words).next_multiple_of(64);
        if row_bytes > ROW_BYTES_MAX {
            return Err(Error::new(
                ErrorCode::InvalidDefinition,
                format!("a row of the table keyed by [{}] would take {row_bytes} bytes", key_names(&schema)),
                format!("keep a row within {ROW_BYTES_MAX} bytes: give some views another entity"),
            ));
        }
        Ok(Self { schema, views, view_words, live_offset, event_ts_offset, versions_offset, known_offset, row_bytes })
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
        assert_eq!(layout.view_words, 4);
        assert_eq!(layout.event_ts_offset, 16 + 32);
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
