use std::sync::Arc;

use headrace_types::{Column, ColumnData};

use crate::cells::{Cells, RowCells, TextPool};
use crate::ops::{Instruction, Register};
use crate::program::Code;

/// Rows computed at a time: registers of a few kilobytes stay in the nearest caches.
pub(crate) const CHUNK_ROWS: usize = 256;

/// Values of one chunk that may need memory of their own: with `TEXT_BYTES_MAX` and `LIST_ITEMS_MAX` this bounds a scratch.
const BUILT_VALUES_MAX: usize = 4_096;

/// One output column of a run.
#[derive(Debug)]
pub struct Output {
    /// The values; the place of a null holds the type's zero, and every NaN is the same NaN.
    pub data: ColumnData,
    /// True where there is a value.
    pub validity: Vec<bool>,
}

impl Output {
    /// Whether the row's value is null.
    pub fn is_null(&self, row: usize) -> bool {
        !self.validity[row]
    }

    /// The row's value as a model's input: a null is NaN, a bool 0 or 1, an int the nearest float. NaN for the other types.
    pub fn number(&self, row: usize) -> f64 {
        if !self.validity[row] {
            return f64::NAN;
        }
        match &self.data {
            ColumnData::Bool(v) => f64::from(u8::from(v[row])),
            ColumnData::Int8(v) => v[row].into(),
            ColumnData::Int16(v) => v[row].into(),
            ColumnData::Int32(v) => v[row].into(),
            ColumnData::Int64(v) => v[row] as f64,
            ColumnData::UInt8(v) => v[row].into(),
            ColumnData::UInt16(v) => v[row].into(),
            ColumnData::UInt32(v) => v[row].into(),
            ColumnData::UInt64(v) => v[row] as f64,
            ColumnData::Float32(v) => v[row].into(),
            ColumnData::Float64(v) => v[row],
            _ => f64::NAN,
        }
    }

    /// An owned copy.
    pub fn to_column(&self) -> Column {
        let has_null = self.validity.iter().any(|valid| !valid);
        Column { data: self.data.clone(), validity: has_null.then(|| self.validity.clone()) }
    }
}

/// The working memory of a run. Keep one per thread and program: it then allocates only when a run has more rows than any before.
#[derive(Debug, Default)]
pub struct Scratch {
    code: Option<Arc<Code>>,
    rows_max: usize,
    /// Rows of the last run.
    rows: usize,
    pub(crate) registers: Vec<Cells>,
    /// The registers of a run of one row.
    pub(crate) row: RowCells,
    pub(crate) pool: TextPool,
    pub(crate) outputs: Vec<Output>,
}

impl Scratch {
    /// An empty scratch that fits any program.
    pub fn new() -> Self {
        Self::default()
    }

    /// The results of the last run, in the order of the program's outputs.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Takes the results of the last run out.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        self.code = None; // the next run makes new ones
        std::mem::take(&mut self.outputs)
    }

    /// Makes room for a run of so many rows, and says how many of them are computed at a time.
    pub(crate) fn prepare(&mut self, code: &Arc<Code>, rows: usize) -> usize {
        let is_same = self.code.as_ref().is_some_and(|own| Arc::ptr_eq(own, code));
        if is_same && rows == self.rows {
            return code.chunk_rows;
        }
        self.rows = rows;
        let rows_chunk = rows.min(code.chunk_rows);
        if !is_same || rows_chunk > self.rows_max {
            self.registers = code.storages.iter().map(|&storage| Cells::new(storage, rows_chunk)).collect();
            for (instruction, cells) in code.instructions.iter().zip(&mut self.registers) {
                if let Instruction::Literal(number) = *instruction {
                    cells.fill(&code.literals[number as usize], number);
                }
            }
            self.rows_max = rows_chunk;
        }
        if !is_same {
            self.row = RowCells::new(code);
            let output =
                |dtype| Output { data: ColumnData::with_capacity(dtype, rows), validity: Vec::with_capacity(rows) };
            self.outputs = code.outputs.iter().map(|field| output(field.dtype)).collect();
            self.code = Some(Arc::clone(code));
        }
        for output in &mut self.outputs {
            output.validity.resize(rows, false);
            resize(&mut output.data, rows);
        }
        code.chunk_rows
    }

    /// The register that an instruction writes, those below it, which it reads, and the memory for new text.
    pub(crate) fn split(&mut self, register: Register) -> (&[Cells], &mut Cells, &mut TextPool) {
        let (below, rest) = self.registers.split_at_mut(register as usize);
        (below, &mut rest[0], &mut self.pool)
    }
}

/// How many rows a program computes at a time.
pub(crate) fn chunk_rows(instructions: &[Instruction]) -> usize {
    let builders = instructions.iter().filter(|instruction| instruction.builds()).count();
    (BUILT_VALUES_MAX / builders.max(1)).clamp(1, CHUNK_ROWS)
}

pub(crate) fn resize(data: &mut ColumnData, rows: usize) {
    match data {
        ColumnData::Bool(v) => v.resize(rows, false),
        ColumnData::Int8(v) => v.resize(rows, 0),
        ColumnData::Int16(v) => v.resize(rows, 0),
        ColumnData::Int32(v) => v.resize(rows, 0),
        ColumnData::Int64(v) | ColumnData::Timestamp(v) => v.resize(rows, 0),
        ColumnData::UInt8(v) => v.resize(rows, 0),
        ColumnData::UInt16(v) => v.resize(rows, 0),
        ColumnData::UInt32(v) => v.resize(rows, 0),
        ColumnData::UInt64(v) => v.resize(rows, 0),
        ColumnData::Float32(v) => v.resize(rows, 0.0),
        ColumnData::Float64(v) => v.resize(rows, 0.0),
        ColumnData::String(v) => v.resize_with(rows, String::new),
        ColumnData::Bytes(v) => v.resize_with(rows, Vec::new),
        ColumnData::List(_, v) => v.resize_with(rows, Vec::new),
    }
}
