//! Where the columns of a batch and its scores lie in the shared memory: Arrow's layout, computed alike here and in model_worker.py.

use std::sync::atomic::Ordering::Relaxed;

use crate::memory::SharedMemory;

/// What every column begins at a multiple of.
const ALIGNMENT: usize = 64;
/// What a batch may take at most, whatever the settings say: a mebibyte for each of a million columns.
const BYTES_MAX: usize = 1 << 40;
/// Rows that are turned from rows to columns at a time: their features stay in the first cache.
const TILE_ROWS: usize = 64;

/// The type of a column; a whole number may be null, a float is NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
}

impl ColumnType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ColumnType::Bool => "bool",
            ColumnType::Int8 => "int8",
            ColumnType::Int16 => "int16",
            ColumnType::Int32 => "int32",
            ColumnType::Int64 => "int64",
            ColumnType::UInt8 => "uint8",
            ColumnType::UInt16 => "uint16",
            ColumnType::UInt32 => "uint32",
            ColumnType::UInt64 => "uint64",
            ColumnType::Float32 => "float32",
            ColumnType::Float64 => "float64",
        }
    }

    fn is_float(self) -> bool {
        matches!(self, ColumnType::Float32 | ColumnType::Float64)
    }

    fn values_bytes(self, rows: usize) -> usize {
        let width = match self {
            ColumnType::Bool => return rows.div_ceil(8),
            ColumnType::Int8 | ColumnType::UInt8 => 1,
            ColumnType::Int16 | ColumnType::UInt16 => 2,
            ColumnType::Int32 | ColumnType::UInt32 | ColumnType::Float32 => 4,
            ColumnType::Int64 | ColumnType::UInt64 | ColumnType::Float64 => 8,
        };
        rows * width
    }
}

fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

/// The places of a batch of so many rows.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Of each column: where its values begin, and where its validity does (the same place for a float, which has none).
    columns: Vec<(usize, usize)>,
    pub(crate) scores: usize,
    pub(crate) bytes: usize,
}

impl Layout {
    pub(crate) fn new(columns: &[(String, ColumnType)], outputs_count: usize, rows: usize) -> Self {
        let mut place = 0;
        let mut places = Vec::with_capacity(columns.len());
        for (_, column) in columns {
            let validity = place + aligned(column.values_bytes(rows));
            places.push(if column.is_float() { (place, place) } else { (place, validity) });
            place = if column.is_float() { validity } else { validity + aligned(rows.div_ceil(8)) };
        }
        Self { columns: places, scores: place, bytes: place + aligned(rows * outputs_count * 8) }
    }

    /// The most rows that fit into `bytes`, and that a message can count.
    pub(crate) fn rows_max(columns: &[(String, ColumnType)], outputs_count: usize, bytes: usize) -> usize {
        let bytes = bytes.min(BYTES_MAX);
        // A row takes its scores at least, so that no size below overflows.
        let (mut low, mut high) = (0, (bytes / 8 / outputs_count.max(1)).min(u32::MAX as usize));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if Self::new(columns, outputs_count, middle).bytes <= bytes { low = middle } else { high = middle - 1 }
        }
        low
    }

    /// Writes row-major features as columns. Returns a bit for each column, set where it holds nulls.
    pub(crate) fn write(
        &self,
        columns: &[(String, ColumnType)],
        features: &[f64],
        rows: usize,
        memory: &SharedMemory,
    ) -> Vec<u8> {
        let mut has_nulls = vec![0u8; columns.len().div_ceil(8)];
        for first in (0..rows).step_by(TILE_ROWS) {
            let tile_rows = TILE_ROWS.min(rows - first);
            let tile = &features[first * columns.len()..][..tile_rows * columns.len()];
            for (index, ((_, column), place)) in columns.iter().zip(&self.columns).enumerate() {
                let values = tile[index..].iter().step_by(columns.len()).copied();
                let nulls = write_tile(*column, *place, first, values, memory);
                has_nulls[index / 8] |= u8::from(nulls) << (index % 8);
            }
        }
        has_nulls
    }
}

/// Writes some values of a column from row `first` on, a multiple of 64; true when one of them is null.
fn write_tile(
    column: ColumnType,
    (values_at, validity_at): (usize, usize),
    first: usize,
    values: impl ExactSizeIterator<Item = f64>,
    memory: &SharedMemory,
) -> bool {
    let count = values.len();
    let mut valid = 0u64;
    // A value that the type cannot hold is null; whole numbers come from float64, which holds them up to 2^53.
    macro_rules! whole {
        ($type:ty, $words:ident, $bits:ty) => {{
            let words = memory.$words(values_at + first * size_of::<$type>(), count);
            for (row, (value, word)) in values.zip(words).enumerate() {
                let number = value as $type;
                valid |= u64::from(number as f64 == value) << row;
                word.store(number as $bits, Relaxed);
            }
        }};
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, clippy::float_cmp)]
    match column {
        ColumnType::Float64 => {
            let words = memory.words_u64(values_at + first * 8, count);
            values.zip(words).for_each(|(value, word)| word.store(value.to_bits(), Relaxed));
            return false;
        }
        ColumnType::Float32 => {
            let words = memory.words_u32(values_at + first * 4, count);
            values.zip(words).for_each(|(value, word)| word.store((value as f32).to_bits(), Relaxed));
            return false;
        }
        ColumnType::Bool => {
            let mut bits = 0u64;
            for (row, value) in values.enumerate() {
                valid |= u64::from(value == 0.0 || value == 1.0) << row;
                bits |= u64::from(value == 1.0) << row;
            }
            memory.words_u64(values_at + first / 8, 1)[0].store(bits, Relaxed);
        }
        ColumnType::Int8 => whole!(i8, words_u8, u8),
        ColumnType::Int16 => whole!(i16, words_u16, u16),
        ColumnType::Int32 => whole!(i32, words_u32, u32),
        ColumnType::Int64 => whole!(i64, words_u64, u64),
        ColumnType::UInt8 => whole!(u8, words_u8, u8),
        ColumnType::UInt16 => whole!(u16, words_u16, u16),
        ColumnType::UInt32 => whole!(u32, words_u32, u32),
        ColumnType::UInt64 => whole!(u64, words_u64, u64),
    }
    memory.words_u64(validity_at + first / 8, 1)[0].store(valid, Relaxed);
    valid.count_ones() as usize != count
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn word(memory: &SharedMemory, offset: usize) -> u64 {
        memory.words_u64(offset, 1)[0].load(Relaxed)
    }

    fn columns(types: &[ColumnType]) -> Vec<(String, ColumnType)> {
        types.iter().enumerate().map(|(index, column)| (format!("c{index}"), *column)).collect()
    }

    #[test]
    fn as_many_rows_as_fit() {
        let columns = columns(&[ColumnType::Float64, ColumnType::Int32, ColumnType::Bool]);
        let rows = Layout::rows_max(&columns, 2, 1 << 20);
        assert!(Layout::new(&columns, 2, rows).bytes <= 1 << 20 && Layout::new(&columns, 2, rows + 1).bytes > 1 << 20);
        assert_eq!(Layout::rows_max(&columns, 2, 63), 0);
        assert!(Layout::new(&columns, 2, Layout::rows_max(&columns, 2, usize::MAX)).bytes <= BYTES_MAX);
    }

    #[test]
    fn values_and_nulls_lie_where_arrow_has_them() {
        let columns = columns(&[ColumnType::Float32, ColumnType::Int16, ColumnType::Bool]);
        let rows = 130;
        let layout = Layout::new(&columns, 1, rows);
        let memory = SharedMemory::new(layout.bytes).unwrap();
        #[allow(clippy::cast_precision_loss)]
        let mut features: Vec<f64> =
            (0..rows).flat_map(|row| [row as f64 / 2.0, row as f64, f64::from(row % 3 == 0)]).collect();
        let none = layout.write(&columns, &features, rows, &memory);
        assert_eq!(none, [0]);
        features[129 * 3 + 1] = 0.5;
        assert_eq!(layout.write(&columns, &features, rows, &memory), [0b010]);
        assert_eq!(f32::from_bits(word(&memory, 8 * 64) as u32), 64.0);
        let (values, validity) = layout.columns[1];
        assert_eq!(word(&memory, values + 2 * 128) & 0xffff, 128);
        assert_eq!(word(&memory, validity + 16), 0b01);
        assert_eq!(word(&memory, layout.columns[2].0 + 16), 0b10);
    }
}
