//! Lookups of values of any type into columns.

use headrace_types::{Column, ColumnData, DType, Error, ErrorCode, Result, ScalarType};

use super::gather::{NOT_FOUND, NULL_VALUE, PRESENT, unusable};
use super::image::{decode_var, scalar_from_word};
use super::key::KeysRef;
use super::plan::{Feature, GatherPlan};
use super::region::Window;
use super::schema::{VAR_BYTES_MAX, VAR_INLINE_BYTES, is_var, slot_bytes};
use super::store::RowTable;
use super::writer::word_of;

/// One value as it was read, to be decoded once it is known to be whole.
#[derive(Debug, Clone, Copy)]
struct Cell {
    status: u8,
    /// The value's bytes, or where they begin in `Cells::bytes`.
    word: u64,
    len: usize,
}

/// The values of one row, reused from row to row.
#[derive(Debug, Default)]
struct Cells {
    cells: Vec<Cell>,
    bytes: Vec<u8>,
    /// Strings of the columns' last content, whose memory is used again.
    spare: Vec<String>,
    /// A string or list pointed outside the region: torn, or, when the seqlock says it was not, damaged.
    is_damaged: bool,
}

impl RowTable {
    /// Looks keys up and writes each feature into `columns[position]`, which is emptied first and keeps its buffers; columns
    /// that are not the plan's are left alone. `status` is row-major `[keys, plan.width()]`.
    ///
    /// # Errors
    /// `length_mismatch` for a slice of another length; `corrupt_store` for a stored value that cannot be read.
    pub fn gather_columns(
        &self,
        plan: &GatherPlan,
        keys: KeysRef<'_>,
        now_us: i64,
        columns: &mut [Column],
        status: &mut [u8],
    ) -> Result<()> {
        self.check_plan(plan)?;
        keys.check()?;
        if columns.len() != plan.width || Some(status.len()) != keys.len().checked_mul(plan.width) {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!(
                    "{} columns and {} statuses were given for {} keys of {} features",
                    columns.len(),
                    status.len(),
                    keys.len(),
                    plan.width
                ),
                "give one column a feature, and one status a value",
            ));
        }
        let mut cells = Cells { cells: Vec::with_capacity(plan.features.len()), ..Cells::default() };
        for feature in &plan.features {
            clear(&mut columns[feature.position], feature.dtype, keys.len(), &mut cells.spare);
        }
        let mut outcome = Ok(());
        self.for_each_key(plan, keys, |row, shard, proposed, probe| {
            match probe {
                None => cells.set_missing(plan),
                Some(probe) => shard.read(|index| match self.row(index, proposed, &probe) {
                    Some(window) => cells.read(self, plan, window, now_us),
                    None => cells.set_missing(plan),
                }),
            }
            if outcome.is_ok() {
                let status = &mut status[row * plan.width..(row + 1) * plan.width];
                outcome = cells.push(plan, columns, status);
            }
        });
        outcome
    }
}

impl Cells {
    fn set_missing(&mut self, plan: &GatherPlan) {
        self.cells.clear();
        self.cells.resize(plan.features.len(), Cell { status: NOT_FOUND, word: 0, len: 0 });
        self.is_damaged = false;
    }

    fn read(&mut self, table: &RowTable, plan: &GatherPlan, window: Window<'_>, now_us: i64) {
        self.cells.clear();
        self.bytes.clear();
        self.is_damaged = false;
        for view in &plan.views {
            let why = unusable(view, window, now_us);
            for feature in &plan.features[view.features.clone()] {
                // SAFETY: offsets in a plan are those of its layout, which `check_plan` has found to be the table's.
                let is_null = unsafe { window.load(feature.null_offset) } & feature.null_bit != 0;
                let cell = match why {
                    Some(status) => Cell { status, word: 0, len: 0 },
                    None if is_null => Cell { status: NULL_VALUE, word: 0, len: 0 },
                    None => self.read_value(table, feature, window),
                };
                self.cells.push(cell);
            }
        }
    }

    fn read_value(&mut self, table: &RowTable, feature: &Feature, window: Window<'_>) -> Cell {
        let mut slot = [0u8; 16];
        // SAFETY: the value lies within a row of the table's layout, and takes at most the 16 bytes of `slot`.
        unsafe { window.copy_out(feature.offset, slot.as_mut_ptr(), slot_bytes(feature.dtype)) };
        if !is_var(feature.dtype) {
            return Cell { status: PRESENT, word: word_of(&slot[..8]), len: 0 };
        }
        let len = word_of(&slot[..4]) as usize;
        let start = self.bytes.len();
        if len <= VAR_INLINE_BYTES {
            self.bytes.extend_from_slice(&slot[4..4 + len]);
        } else {
            let offset = word_of(&slot[8..]) as usize;
            if len > VAR_BYTES_MAX || !table.region.contains(offset, len) {
                self.is_damaged = true;
            } else {
                self.bytes.resize(start + len, 0);
                table.region.copy_out(offset, &mut self.bytes[start..]);
            }
        }
        Cell { status: PRESENT, word: start as u64, len }
    }

    fn push(&mut self, plan: &GatherPlan, columns: &mut [Column], status: &mut [u8]) -> Result<()> {
        for (feature, cell) in plan.features.iter().zip(&self.cells) {
            let column = &mut columns[feature.position];
            status[feature.position] = cell.status;
            if cell.status != PRESENT {
                // Most columns have no null, and never need one for it.
                let rows = column.len();
                column.validity.get_or_insert_with(|| vec![true; rows]).push(false);
            } else if let Some(validity) = &mut column.validity {
                validity.push(true);
            }
            let is_pushed = if is_var(feature.dtype) {
                let start = cell.word as usize;
                let bytes = if self.is_damaged { None } else { self.bytes.get(start..start + cell.len) };
                if let (ColumnData::String(values), Some(bytes), PRESENT) = (&mut column.data, bytes, cell.status) {
                    push_text(values, bytes, &mut self.spare)
                } else {
                    push_var(&mut column.data, feature.dtype, bytes.filter(|_| cell.status == PRESENT), cell.status)
                }
            } else {
                push_scalar(&mut column.data, feature.dtype.element(), cell.word);
                true
            };
            if !is_pushed {
                let view = &plan.layout.schema.views[feature.view];
                return Err(Error::new(
                    ErrorCode::CorruptStore,
                    format!(
                        "the stored value of '{}' of view '{}' cannot be read",
                        view.fields[feature.field].name, view.name
                    ),
                    "restore the store from its log, or materialize again",
                ));
            }
        }
        Ok(())
    }
}

fn clear(column: &mut Column, dtype: DType, rows: usize, spare: &mut Vec<String>) {
    if let ColumnData::String(values) = &mut column.data {
        spare.append(values);
    }
    macro_rules! clear_each {
        ($($variant:ident),*) => {
            match &mut column.data {
                $(ColumnData::$variant(values) => values.clear(),)*
                ColumnData::List(_, values) => values.clear(),
            }
        };
    }
    if column.dtype() == dtype {
        clear_each!(
            Bool, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float32, Float64, String, Bytes, Timestamp
        );
    } else {
        column.data = ColumnData::with_capacity(dtype, rows);
    }
    column.validity = None;
}

fn push_scalar(data: &mut ColumnData, scalar: ScalarType, word: u64) {
    match data {
        ColumnData::Bool(v) => v.push(word & 0xff != 0),
        ColumnData::Int8(v) => v.push(word as i8),
        ColumnData::Int16(v) => v.push(word as i16),
        ColumnData::Int32(v) => v.push(word as i32),
        ColumnData::Int64(v) | ColumnData::Timestamp(v) => v.push(word as i64),
        ColumnData::UInt8(v) => v.push(word as u8),
        ColumnData::UInt16(v) => v.push(word as u16),
        ColumnData::UInt32(v) => v.push(word as u32),
        ColumnData::UInt64(v) => v.push(word),
        ColumnData::Float32(v) => v.push(f32::from_bits(word as u32)),
        ColumnData::Float64(v) => v.push(f64::from_bits(word)),
        // `clear` has given the column the feature's type, which is none of these.
        ColumnData::String(_) | ColumnData::Bytes(_) | ColumnData::List(..) => {
            debug_assert!(scalar_from_word(scalar, word).is_null());
        }
    }
}

/// False for bytes that are no text.
fn push_text(values: &mut Vec<String>, bytes: &[u8], spare: &mut Vec<String>) -> bool {
    let Ok(found) = std::str::from_utf8(bytes) else { return false };
    let mut text = spare.pop().unwrap_or_default();
    text.clear();
    text.push_str(found);
    values.push(text);
    true
}

/// False for bytes that are not a value of the type.
fn push_var(data: &mut ColumnData, dtype: DType, bytes: Option<&[u8]>, status: u8) -> bool {
    if status != PRESENT {
        return data.push(headrace_types::Value::Null).is_ok();
    }
    bytes.and_then(|bytes| decode_var(dtype, bytes)).is_some_and(|value| data.push(value).is_ok())
}
