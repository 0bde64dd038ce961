//! Input columns into registers, widened.

use headrace_types::Value;

use crate::cells::{Cells, Lists, TextPool, TextRef, Values};
use crate::column::{ColumnSlice, ColumnView};

pub(super) fn load(
    column: &ColumnView<'_>,
    input: u32,
    start: usize,
    count: usize,
    out: &mut Cells,
    pool: &mut TextPool,
) {
    let rows = start..start + count;
    match column.validity {
        Some(validity) => out.valid[..count].copy_from_slice(&validity[rows.clone()]),
        None => out.valid[..count].fill(true),
    }
    macro_rules! widen {
        ($cells:ident, $values:expr, $convert:expr) => {
            for (cell, &value) in $cells.iter_mut().zip(&$values[rows]) {
                *cell = $convert(value);
            }
        };
    }
    match (&mut out.values, column.data) {
        (Values::Bool(cells), ColumnSlice::Bool(values)) => cells[..count].copy_from_slice(&values[rows]),
        (Values::Int(cells), ColumnSlice::Int8(values)) => widen!(cells, values, i64::from),
        (Values::Int(cells), ColumnSlice::Int16(values)) => widen!(cells, values, i64::from),
        (Values::Int(cells), ColumnSlice::Int32(values)) => widen!(cells, values, i64::from),
        (Values::Int(cells), ColumnSlice::UInt8(values)) => widen!(cells, values, i64::from),
        (Values::Int(cells), ColumnSlice::UInt16(values)) => widen!(cells, values, i64::from),
        (Values::Int(cells), ColumnSlice::UInt32(values)) => widen!(cells, values, i64::from),
        (Values::Int(cells), ColumnSlice::Int64(values) | ColumnSlice::Timestamp(values)) => {
            cells[..count].copy_from_slice(&values[rows]);
        }
        (Values::Int(cells), ColumnSlice::UInt64(values)) => {
            for ((cell, valid), &value) in cells.iter_mut().zip(&mut out.valid).zip(&values[rows]) {
                *valid &= i64::try_from(value).is_ok();
                *cell = i64::try_from(value).unwrap_or(0);
            }
        }
        (Values::Float(cells), ColumnSlice::Float32(values)) => widen!(cells, values, f64::from),
        (Values::Float(cells), ColumnSlice::Float64(values)) => cells[..count].copy_from_slice(&values[rows]),
        (Values::Text(cells), data) => {
            for ((cell, valid), row) in cells.iter_mut().zip(&mut out.valid).zip(rows) {
                let length = u32::try_from(data.text(row).len());
                *valid &= length.is_ok();
                *cell = TextRef { source: input, row: row as u32, start: 0, length: length.unwrap_or(0) };
            }
        }
        (Values::List(lists), ColumnSlice::List(_, values)) => load_lists(&values[rows], lists, &mut out.valid, pool),
        _ => {}
    }
}

fn load_lists(rows: &[Vec<Value>], lists: &mut Lists, valid: &mut [bool], pool: &mut TextPool) {
    lists.items.clear();
    for ((range, list), valid) in lists.ranges.iter_mut().zip(rows).zip(valid) {
        let start = lists.items.valid.len();
        if *valid {
            for item in list {
                let is_value = push(&mut lists.items.values, item, pool);
                lists.items.valid.push(is_value);
            }
        }
        *range = (start as u32, lists.items.valid.len() as u32);
    }
}

/// Appends an element, and says whether it is a value: not null, and one that the language can hold.
fn push(items: &mut Values, item: &Value, pool: &mut TextPool) -> bool {
    macro_rules! push {
        ($items:expr, $value:expr) => {{
            let value = $value;
            $items.push(value.unwrap_or_default());
            value.is_some()
        }};
    }
    match items {
        Values::Bool(items) => push!(items, if let Value::Bool(v) = item { Some(*v) } else { None }),
        Values::Int(items) => push!(
            items,
            match item {
                Value::Int(v) | Value::Timestamp(v) => Some(*v),
                Value::UInt(v) => i64::try_from(*v).ok(),
                _ => None,
            }
        ),
        Values::Float(items) => push!(
            items,
            match item {
                Value::Float32(v) => Some(f64::from(*v)),
                Value::Float64(v) => Some(*v),
                _ => None,
            }
        ),
        Values::Text(items) => push!(
            items,
            match item {
                Value::String(v) => pool.keep(v.as_bytes()),
                Value::Bytes(v) => pool.keep(v),
                _ => None,
            }
        ),
        Values::List(_) => false,
    }
}
