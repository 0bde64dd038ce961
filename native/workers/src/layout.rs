//! Where the columns of a batch and its scores lie in the shared memory: Arrow's layout, computed alike here and in model_worker.py.

use crate::memory::SharedMemory;

/// What every column begins at a multiple of.
const ALIGNMENT: usize = 64;
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

    /// The most rows that fit into `bytes`.
    pub(crate) fn rows_max(columns: &[(String, ColumnType)], outputs_count: usize, bytes: usize) -> usize {
        let (mut low, mut high) = (0, bytes);
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
    values: impl Iterator<Item = f64>,
    memory: &SharedMemory,
) -> bool {
    // A value that the type cannot hold is null; whole numbers come from float64, which holds them up to 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let (mut valid, mut bits) = (0u64, 0u64);
    let mut count = 0;
    macro_rules! whole {
        ($type:ty, $store:ident, $bits:ty) => {
            for (row, value) in values.enumerate() {
                let number = value as $type;
                let is_held = number as f64 == value;
                valid |= u64::from(is_held) << row;
                memory.$store(values_at + (first + row) * size_of::<$type>(), number as $bits);
                count = row + 1;
            }
        };
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, clippy::float_cmp)]
    match column {
        ColumnType::Float64 => {
            values
                .enumerate()
                .for_each(|(row, value)| memory.store_u64(values_at + (first + row) * 8, value.to_bits()));
            return false;
        }
        ColumnType::Float32 => {
            let narrow = |value: f64| (value as f32).to_bits();
            values.enumerate().for_each(|(row, value)| memory.store_u32(values_at + (first + row) * 4, narrow(value)));
            return false;
        }
        ColumnType::Bool => {
            for (row, value) in values.enumerate() {
                valid |= u64::from(value == 0.0 || value == 1.0) << row;
                bits |= u64::from(value == 1.0) << row;
                count = row + 1;
            }
            memory.store_u64(values_at + first / 8, bits);
        }
        ColumnType::Int8 => whole!(i8, store_u8, u8),
        ColumnType::Int16 => whole!(i16, store_u16, u16),
        ColumnType::Int32 => whole!(i32, store_u32, u32),
        ColumnType::Int64 => whole!(i64, store_u64, u64),
        ColumnType::UInt8 => whole!(u8, store_u8, u8),
        ColumnType::UInt16 => whole!(u16, store_u16, u16),
        ColumnType::UInt32 => whole!(u32, store_u32, u32),
        ColumnType::UInt64 => whole!(u64, store_u64, u64),
    }
    memory.store_u64(validity_at + first / 8, valid);
    valid.count_ones() as usize != count
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn columns(types: &[ColumnType]) -> Vec<(String, ColumnType)> {
        types.iter().enumerate().map(|(index, column)| (format!("c{index}"), *column)).collect()
    }

    #[test]
    fn as_many_rows_as_fit() {
        let columns = columns(&[ColumnType::Float64, ColumnType::Int32, ColumnType::Bool]);
        let rows = Layout::rows_max(&columns, 2, 1 << 20);
        assert!(Layout::new(&columns, 2, rows).bytes <= 1 << 20 && Layout::new(&columns, 2, rows + 1).bytes > 1 << 20);
        assert_eq!(Layout::rows_max(&columns, 2, 63), 0);
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
        assert_eq!(f32::from_bits(memory.load_u64(8 * 64) as u32), 64.0);
        let (values, validity) = layout.columns[1];
        assert_eq!(memory.load_u64(values + 2 * 128) & 0xffff, 128);
        assert_eq!(memory.load_u64(validity + 16), 0b01);
        assert_eq!(memory.load_u64(layout.columns[2].0 + 16), 0b10);
    }
}
