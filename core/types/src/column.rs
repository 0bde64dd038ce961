use crate::{DType, Error, ErrorCode, Result, ScalarType, TimestampUs, Value};

/// The values of one column, without nulls; a null's place holds the type's zero.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnData {
    Bool(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    String(Vec<String>),
    Bytes(Vec<Vec<u8>>),
    Timestamp(Vec<TimestampUs>),
    /// Lists keep their element type beside the values.
    List(ScalarType, Vec<Vec<Value>>),
}

macro_rules! each_vec {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            ColumnData::Bool($v) => $body,
            ColumnData::Int8($v) => $body,
            ColumnData::Int16($v) => $body,
            ColumnData::Int32($v) => $body,
            ColumnData::Int64($v) => $body,
            ColumnData::UInt8($v) => $body,
            ColumnData::UInt16($v) => $body,
            ColumnData::UInt32($v) => $body,
            ColumnData::UInt64($v) => $body,
            ColumnData::Float32($v) => $body,
            ColumnData::Float64($v) => $body,
            ColumnData::String($v) => $body,
            ColumnData::Bytes($v) => $body,
            ColumnData::Timestamp($v) => $body,
            ColumnData::List(_, $v) => $body,
        }
    };
}

macro_rules! map_vec {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            ColumnData::Bool($v) => ColumnData::Bool($body),
            ColumnData::Int8($v) => ColumnData::Int8($body),
            ColumnData::Int16($v) => ColumnData::Int16($body),
            ColumnData::Int32($v) => ColumnData::Int32($body),
            ColumnData::Int64($v) => ColumnData::Int64($body),
            ColumnData::UInt8($v) => ColumnData::UInt8($body),
            ColumnData::UInt16($v) => ColumnData::UInt16($body),
            ColumnData::UInt32($v) => ColumnData::UInt32($body),
            ColumnData::UInt64($v) => ColumnData::UInt64($body),
            ColumnData::Float32($v) => ColumnData::Float32($body),
            ColumnData::Float64($v) => ColumnData::Float64($body),
            ColumnData::String($v) => ColumnData::String($body),
            ColumnData::Bytes($v) => ColumnData::Bytes($body),
            ColumnData::Timestamp($v) => ColumnData::Timestamp($body),
            ColumnData::List(element, $v) => ColumnData::List(*element, $body),
        }
    };
}

impl ColumnData {
    pub fn with_capacity(dtype: DType, rows: usize) -> Self {
        match dtype {
            DType::List(element) => ColumnData::List(element, Vec::with_capacity(rows)),
            DType::Scalar(scalar) => match scalar {
                ScalarType::Bool => ColumnData::Bool(Vec::with_capacity(rows)),
                ScalarType::Int8 => ColumnData::Int8(Vec::with_capacity(rows)),
                ScalarType::Int16 => ColumnData::Int16(Vec::with_capacity(rows)),
                ScalarType::Int32 => ColumnData::Int32(Vec::with_capacity(rows)),
                ScalarType::Int64 => ColumnData::Int64(Vec::with_capacity(rows)),
                ScalarType::UInt8 => ColumnData::UInt8(Vec::with_capacity(rows)),
                ScalarType::UInt16 => ColumnData::UInt16(Vec::with_capacity(rows)),
                ScalarType::UInt32 => ColumnData::UInt32(Vec::with_capacity(rows)),
                ScalarType::UInt64 => ColumnData::UInt64(Vec::with_capacity(rows)),
                ScalarType::Float32 => ColumnData::Float32(Vec::with_capacity(rows)),
                ScalarType::Float64 => ColumnData::Float64(Vec::with_capacity(rows)),
                ScalarType::String => ColumnData::String(Vec::with_capacity(rows)),
                ScalarType::Bytes => ColumnData::Bytes(Vec::with_capacity(rows)),
                ScalarType::Timestamp => ColumnData::Timestamp(Vec::with_capacity(rows)),
            },
        }
    }

    pub fn dtype(&self) -> DType {
        match self {
            ColumnData::Bool(_) => DType::Scalar(ScalarType::Bool),
            ColumnData::Int8(_) => DType::Scalar(ScalarType::Int8),
            ColumnData::Int16(_) => DType::Scalar(ScalarType::Int16),
            ColumnData::Int32(_) => DType::Scalar(ScalarType::Int32),
            ColumnData::Int64(_) => DType::Scalar(ScalarType::Int64),
            ColumnData::UInt8(_) => DType::Scalar(ScalarType::UInt8),
            ColumnData::UInt16(_) => DType::Scalar(ScalarType::UInt16),
            ColumnData::UInt32(_) => DType::Scalar(ScalarType::UInt32),
            ColumnData::UInt64(_) => DType::Scalar(ScalarType::UInt64),
            ColumnData::Float32(_) => DType::Scalar(ScalarType::Float32),
            ColumnData::Float64(_) => DType::Scalar(ScalarType::Float64),
            ColumnData::String(_) => DType::Scalar(ScalarType::String),
            ColumnData::Bytes(_) => DType::Scalar(ScalarType::Bytes),
            ColumnData::Timestamp(_) => DType::Scalar(ScalarType::Timestamp),
            ColumnData::List(element, _) => DType::List(*element),
        }
    }

    pub fn len(&self) -> usize {
        each_vec!(self, v => v.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a value; a null appends the type's zero.
    ///
    /// # Errors
    /// `type_mismatch` when the value does not fit the column's type; the column is unchanged then.
    pub fn push(&mut self, value: Value) -> Result<()> {
        if !value.fits(self.dtype()) {
            return Err(Error::new(
                ErrorCode::TypeMismatch,
                format!("value {value:?} is not a {}", self.dtype()),
                "send a value of that type, or null",
            ));
        }
        #[allow(clippy::cast_possible_truncation)] // `fits` has checked the range
        match (self, value) {
            (ColumnData::Bool(v), Value::Bool(x)) => v.push(x),
            (ColumnData::Int8(v), Value::Int(x)) => v.push(x as i8),
            (ColumnData::Int16(v), Value::Int(x)) => v.push(x as i16),
            (ColumnData::Int32(v), Value::Int(x)) => v.push(x as i32),
            (ColumnData::Int64(v), Value::Int(x)) => v.push(x),
            (ColumnData::UInt8(v), Value::UInt(x)) => v.push(x as u8),
            (ColumnData::UInt16(v), Value::UInt(x)) => v.push(x as u16),
            (ColumnData::UInt32(v), Value::UInt(x)) => v.push(x as u32),
            (ColumnData::UInt64(v), Value::UInt(x)) => v.push(x),
            (ColumnData::Float32(v), Value::Float32(x)) => v.push(x),
            (ColumnData::Float64(v), Value::Float64(x)) => v.push(x),
            (ColumnData::String(v), Value::String(x)) => v.push(x),
            (ColumnData::Bytes(v), Value::Bytes(x)) => v.push(x),
            (ColumnData::Timestamp(v), Value::Timestamp(x)) => v.push(x),
            (ColumnData::List(_, v), Value::List(x)) => v.push(x),
            (data, _) => each_vec!(data, v => v.push(Default::default())),
        }
        Ok(())
    }

    /// Removes all values, and keeps their memory.
    pub fn clear(&mut self) {
        each_vec!(self, v => v.clear());
    }

    /// Some rows, in the order given.
    #[must_use]
    #[allow(clippy::clone_on_copy)] // one body for all types
    pub fn take(&self, rows: &[usize]) -> Self {
        map_vec!(self, v => rows.iter().map(|&row| v[row].clone()).collect())
    }

    /// The value at a row that is not null.
    pub fn get(&self, row: usize) -> Value {
        match self {
            ColumnData::Bool(v) => Value::Bool(v[row]),
            ColumnData::Int8(v) => Value::Int(v[row].into()),
            ColumnData::Int16(v) => Value::Int(v[row].into()),
            ColumnData::Int32(v) => Value::Int(v[row].into()),
            ColumnData::Int64(v) => Value::Int(v[row]),
            ColumnData::UInt8(v) => Value::UInt(v[row].into()),
            ColumnData::UInt16(v) => Value::UInt(v[row].into()),
            ColumnData::UInt32(v) => Value::UInt(v[row].into()),
            ColumnData::UInt64(v) => Value::UInt(v[row]),
            ColumnData::Float32(v) => Value::Float32(v[row]),
            ColumnData::Float64(v) => Value::Float64(v[row]),
            ColumnData::String(v) => Value::String(v[row].clone()),
            ColumnData::Bytes(v) => Value::Bytes(v[row].clone()),
            ColumnData::Timestamp(v) => Value::Timestamp(v[row]),
            ColumnData::List(_, v) => Value::List(v[row].clone()),
        }
    }
}

/// A column with nulls. `validity` is absent when no value is null; otherwise `validity[row]` is true where there is a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub data: ColumnData,
    pub validity: Option<Vec<bool>>,
}

impl Column {
    pub fn new(data: ColumnData) -> Self {
        Self { data, validity: None }
    }

    /// # Errors
    /// `type_mismatch` naming the row of the first value that is not of the type.
    pub fn from_values(dtype: DType, values: impl IntoIterator<Item = Value>) -> Result<Self> {
        let values = values.into_iter();
        let mut column = Self::new(ColumnData::with_capacity(dtype, values.size_hint().0));
        for (row, value) in values.enumerate() {
            column.push(value).map_err(|error| error.within(format!("row {row}")))?;
        }
        Ok(column)
    }

    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Removes all rows and makes it a column of a type; one that was of this type keeps its memory.
    pub fn reset(&mut self, dtype: DType, rows: usize) {
        if self.dtype() == dtype {
            self.data.clear();
        } else {
            self.data = ColumnData::with_capacity(dtype, rows);
        }
        self.validity = None;
    }

    /// Appends a value or a null.
    ///
    /// # Errors
    /// `type_mismatch` when the value does not fit the column's type; the column is unchanged then.
    pub fn push(&mut self, value: Value) -> Result<()> {
        let (row, is_null) = (self.len(), value.is_null());
        self.data.push(value)?;
        if is_null {
            self.validity.get_or_insert_with(|| vec![true; row]).push(false);
        } else if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Some rows, in the order given.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Self {
        let validity = self.validity.as_ref().map(|validity| rows.iter().map(|&row| validity[row]).collect());
        Self { data: self.data.take(rows), validity }
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.validity.as_ref().is_some_and(|validity| !validity[row])
    }

    pub fn value(&self, row: usize) -> Value {
        if self.is_null(row) { Value::Null } else { self.data.get(row) }
    }
}

/// Named columns of equal length.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    pub rows: usize,
    pub columns: Vec<(String, Column)>,
}

impl Batch {
    /// # Errors
    /// `length_mismatch` naming the first column whose length differs from the first column's.
    pub fn new(columns: Vec<(String, Column)>) -> Result<Self> {
        let rows = columns.first().map_or(0, |(_, column)| column.len());
        if let Some((name, column)) = columns.iter().find(|(_, column)| column.len() != rows) {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("column '{name}' has {} rows, column '{}' has {rows}", column.len(), columns[0].0),
                "give every column the same number of rows",
            ));
        }
        Ok(Self { rows, columns })
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(column, _)| column == name).map(|(_, column)| column)
    }
}
