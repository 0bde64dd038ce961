//! Registers into output columns. The compiler has cast each register to the column's type, so narrowing is exact.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::ops::Range;

use headrace_types::{ColumnData, ScalarType, Value};

use crate::cells::{Cells, Lists, TextRef, Values, WRONG_STORAGE};

pub(super) fn store<'a>(cells: &Cells, rows: Range<usize>, text: &impl Fn(TextRef) -> &'a [u8], out: &mut ColumnData) {
    let valid = &cells.valid[..rows.len()];
    macro_rules! narrow {
        ($out:expr, $values:expr, $convert:expr) => {
            for ((out, &value), &valid) in $out[rows].iter_mut().zip($values).zip(valid) {
                *out = if valid { $convert(value) } else { Default::default() };
            }
        };
    }
    match (out, &cells.values) {
        (ColumnData::Bool(out), Values::Bool(values)) => narrow!(out, values, |v: bool| v),
        (ColumnData::Int8(out), Values::Int(values)) => narrow!(out, values, |v: i64| v as i8),
        (ColumnData::Int16(out), Values::Int(values)) => narrow!(out, values, |v: i64| v as i16),
        (ColumnData::Int32(out), Values::Int(values)) => narrow!(out, values, |v: i64| v as i32),
        (ColumnData::Int64(out) | ColumnData::Timestamp(out), Values::Int(values)) => narrow!(out, values, |v: i64| v),
        (ColumnData::UInt8(out), Values::Int(values)) => narrow!(out, values, |v: i64| v as u8),
        (ColumnData::UInt16(out), Values::Int(values)) => narrow!(out, values, |v: i64| v as u16),
        (ColumnData::UInt32(out), Values::Int(values)) => narrow!(out, values, |v: i64| v as u32),
        (ColumnData::UInt64(out), Values::Int(values)) => narrow!(out, values, |v: i64| v as u64),
        (ColumnData::Float32(out), Values::Float(values)) => narrow!(out, values, narrowed),
        (ColumnData::Float64(out), Values::Float(values)) => narrow!(out, values, one_nan),
        (ColumnData::String(out), Values::Text(values)) => {
            for ((out, &at), &valid) in out[rows].iter_mut().zip(values).zip(valid) {
                out.clear();
                let bytes = if valid { text(at) } else { &[] };
                out.push_str(std::str::from_utf8(bytes).unwrap_or_default());
            }
        }
        (ColumnData::Bytes(out), Values::Text(values)) => {
            for ((out, &at), &valid) in out[rows].iter_mut().zip(values).zip(valid) {
                out.clear();
                out.extend_from_slice(if valid { text(at) } else { &[] });
            }
        }
        (ColumnData::List(element, out), Values::List(lists)) => {
            for (row, out) in out[rows].iter_mut().enumerate() {
                out.clear();
                if valid[row] {
                    out.extend(lists.range(row).map(|item| element_of(*element, lists, item, text)));
                }
            }
        }
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

pub(super) fn narrowed(value: f64) -> f32 {
    if value.is_nan() { f32::NAN } else { value as f32 }
}

pub(super) fn one_nan(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}

fn element_of<'a>(element: ScalarType, lists: &Lists, item: usize, text: &impl Fn(TextRef) -> &'a [u8]) -> Value {
    if !lists.items.valid[item] {
        return Value::Null;
    }
    match &lists.items.values {
        Values::Bool(items) => Value::Bool(items[item]),
        Values::Int(items) => match element {
            ScalarType::Timestamp => Value::Timestamp(items[item]),
            ScalarType::UInt8 | ScalarType::UInt16 | ScalarType::UInt32 | ScalarType::UInt64 => {
                Value::UInt(items[item] as u64)
            }
            _ => Value::Int(items[item]),
        },
        Values::Float(items) if element == ScalarType::Float32 => Value::Float32(narrowed(items[item])),
        Values::Float(items) => Value::Float64(one_nan(items[item])),
        Values::Text(items) if element == ScalarType::String => {
            Value::String(String::from_utf8_lossy(text(items[item])).into_owned())
        }
        Values::Text(items) => Value::Bytes(text(items[item]).to_vec()),
        Values::List(_) => Value::Null,
    }
}
