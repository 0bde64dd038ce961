//! One row on a short way: the instructions of a chunk and the kernels of a chunk, over registers of one word each.
//!
//! A kernel gets slices of length one, so that a row has the bits of a chunk by construction; what is left out is the walking of
//! vectors. An instruction whose argument is null gives null without being computed.
#![allow(clippy::cast_possible_truncation)]

use std::sync::Arc;

use headrace_types::{ColumnData, Result, format_timestamp, timestamp_of_text};

use super::step::WRONG_INSTRUCTION;
use super::{call, choose, text};
use crate::cells::{RowCell, RowCells, TextPool, TextRef, WRONG_STORAGE};
use crate::column::{ColumnSlice, ColumnView};
use crate::constant::{Constant, TableValues};
use crate::function::{Function, FunctionKind};
use crate::kernels::{calendar, hash, numbers, text as text_kernels, time};
use crate::ops::{Comparison, ConstantId, Instruction, Register, Storage};
use crate::program::{Call, Code};
use crate::scratch::{Output, Scratch};

/// The instructions of a program that are computed for a row, with their registers; none if it has no row form, because it has lists
/// or calls Python. Literals were filled in when the scratch was made.
pub(crate) fn row_steps(
    instructions: &[Instruction],
    storages: &[Storage],
    calls: &[Call],
    functions: &[Arc<Function>],
) -> Vec<(Register, Instruction)> {
    let is_list = |storage: &Storage| {
        matches!(storage, Storage::BoolList | Storage::IntList | Storage::FloatList | Storage::TextList)
    };
    let is_python = |call: &Call| functions[call.function].spec.kind == FunctionKind::Python;
    if storages.iter().any(is_list) || calls.iter().any(is_python) {
        return Vec::new();
    }
    let steps = instructions.iter().enumerate().map(|(register, instruction)| (register as Register, *instruction));
    steps.filter(|(_, instruction)| !matches!(instruction, Instruction::Literal(_))).collect()
}

/// Computes one row of the inputs into the first row of the outputs.
pub(crate) fn run_row(code: &Code, inputs: &[ColumnView<'_>], row: usize, scratch: &mut Scratch) -> Result<()> {
    scratch.pool.clear();
    let RowCells { cells, texts } = &mut scratch.row;
    let mut run = Row { code, inputs, row, cells, texts, pool: &mut scratch.pool };
    for &(register, instruction) in &code.row_steps {
        let at = register as usize;
        run.cells[at] = match instruction {
            Instruction::Call(id) => run.call(&code.calls[id as usize])?,
            _ => run.step(instruction, at),
        };
    }
    for (output, &register) in scratch.outputs.iter_mut().zip(&code.output_registers) {
        run.store(register as usize, output);
    }
    Ok(())
}

struct Row<'a> {
    code: &'a Code,
    inputs: &'a [ColumnView<'a>],
    /// The row of the inputs.
    row: usize,
    cells: &'a mut [RowCell],
    texts: &'a mut [TextRef],
    pool: &'a mut TextPool,
}

const NULL: RowCell = RowCell { valid: false, word: 0 };

#[inline]
fn int(value: i64) -> RowCell {
    RowCell { valid: true, word: value as u64 }
}

#[inline]
fn float(value: f64) -> RowCell {
    RowCell { valid: true, word: value.to_bits() }
}

#[inline]
fn bool(value: bool) -> RowCell {
    RowCell { valid: true, word: value.into() }
}

fn optional(value: Option<i64>) -> RowCell {
    value.map_or(NULL, int)
}

/// The value that a kernel writes to the only place.
#[inline]
fn float_of(kernel: impl FnOnce(&mut [f64])) -> RowCell {
    let mut out = [0.0];
    kernel(&mut out);
    float(out[0])
}

#[inline]
fn bool_of(kernel: impl FnOnce(&mut [bool])) -> RowCell {
    let mut out = [false];
    kernel(&mut out);
    bool(out[0])
}

#[inline]
fn int_of(kernel: impl FnOnce(&mut [i64], &mut [bool])) -> RowCell {
    let (mut out, mut valid) = ([0], [true]);
    kernel(&mut out, &mut valid);
    RowCell { valid: valid[0], word: out[0] as u64 }
}

impl Row<'_> {
    /// One match over all instructions, in the caller's loop: a second one costs as much as most instructions do.
    #[inline(always)]
    fn step(&mut self, instruction: Instruction, at: usize) -> RowCell {
        use Instruction as I;
        match instruction {
            I::Input(input) => self.load(input, at),
            I::IsNull(x) => bool(!self.valid(x)),
            I::Logic(op, x, y) => {
                let (valid, value) = choose::kleene(op, (self.valid(x), self.bool(x)), (self.valid(y), self.bool(y)));
                RowCell { valid, word: value.into() }
            }
            I::Coalesce(x, y) => self.copy(if self.valid(x) { x } else { y }, at),
            I::IfElse(condition, ..) if !self.valid(condition) => NULL,
            I::IfElse(condition, yes, no) => self.copy(if self.bool(condition) { yes } else { no }, at),

            I::FloatUnary(op, x) => self.one(x, |row| float_of(|out| numbers::float_unary(op, &[row.float(x)], out))),
            I::IntUnary(op, x) => {
                self.one(x, |row| int_of(|out, valid| numbers::int_unary(op, &[row.int(x)], out, valid)))
            }
            I::FloatBinary(op, x, y) => {
                let (a, b) = ([self.float(x)], [self.float(y)]);
                self.two(x, y, |_| float_of(|out| numbers::float_binary(op, &a, &b, out)))
            }
            I::IntBinary(op, x, y) => {
                let (a, b) = ([self.int(x)], [self.int(y)]);
                self.two(x, y, |_| int_of(|out, valid| numbers::int_binary(op, &a, &b, out, valid)))
            }
            I::Compare(op, x, y) => self.two(x, y, |row| row.compare(op, x, y)),
            I::Not(x) => self.one(x, |row| bool(!row.bool(x))),
            I::Haversine(points) => {
                if !points.iter().all(|&point| self.valid(point)) {
                    return NULL;
                }
                let [a, b, c, d] = points.map(|point| [self.float(point)]);
                float_of(|out| numbers::haversine([&a, &b, &c, &d], out))
            }

            I::LocalTime(zone, x) => self.one(x, |row| optional(row.constant(zone).zone().local(row.int(x)))),
            I::TimePart(part, x) => self.one(x, |row| int_of(|out, _| time::part(part, &[row.int(x)], out))),
            I::Truncate(unit, x) => self.one(x, |row| optional(calendar::truncate(unit, row.int(x)))),
            I::TruncateLocal(unit, zone, x) => {
                self.one(x, |row| optional(time::truncate_local(unit, row.constant(zone).zone(), row.int(x))))
            }
            I::EpochSeconds(x) => self.one(x, |row| float(row.int(x) as f64 / 1e6)),

            I::BoolToInt(x) => self.one(x, |row| int(row.bool(x).into())),
            I::IntToFloat(x) => self.one(x, |row| float(row.int(x) as f64)),
            I::FloatToInt(x) => {
                self.one(x, |row| int_of(|out, valid| numbers::float_to_int(&[row.float(x)], out, valid)))
            }
            I::IntWithin(x, low, high) => {
                self.one(x, |row| int_of(|out, valid| numbers::int_within(low, high, &[row.int(x)], out, valid)))
            }
            I::IntToBool(x) => self.one(x, |row| bool(row.int(x) != 0)),
            I::FloatToBool(x) => self.one(x, |row| bool(row.float(x) != 0.0)),
            I::ParseInt(x) => self.one(x, |row| optional(text_kernels::parse_int(row.text(x)))),
            I::ParseFloat(x) => self.one(x, |row| text_kernels::parse_float(row.text(x)).map_or(NULL, float)),
            I::ParseBool(x) => self.one(x, |row| text_kernels::parse_bool(row.text(x)).map_or(NULL, bool)),
            I::ParseTime(x) => self.one(x, |row| optional(timestamp_of_text(row.text(x)))),
            I::TextLength(x) => self.one(x, |row| int(text_kernels::length(row.text(x)))),
            I::Bucketize(boundaries, x) => self.one(x, |row| {
                let boundaries = row.constant(boundaries).boundaries();
                int_of(|out, valid| numbers::bucketize(boundaries, &[row.float(x)], out, valid))
            }),
            I::HashBucket(buckets, x) => self.one(x, |row| int(hash::bucket(row.int(x), buckets))),
            I::IsIn(table, x) => self.one(x, |row| row.is_in(table, x)),
            I::Hash(x, seed) => self.two(x, seed, |row| row.hash(x, seed)),
            I::TextTest(test, x, y) => self.two(x, y, |row| bool(text_kernels::test(test, row.text(x), row.text(y)))),
            I::Lookup(table, x, default) => self.one(x, |row| row.lookup(table, x, default, at)),

            I::Letters(_, x)
            | I::Strip(_, _, x)
            | I::BoolToText(x)
            | I::IntToText(x)
            | I::FloatToText(x)
            | I::TimeToText(x)
            | I::BytesToText(x) => self.one(x, |row| row.text_unary(&instruction, at)),
            I::Concat(x, y) => self.two(x, y, |row| row.concat(x, y, at)),
            I::Replace(x, y, z) | I::Slice(x, y, z) => {
                let all = self.valid(x) & self.valid(y) & self.valid(z);
                if all { self.text_ternary(&instruction, at) } else { NULL }
            }
            I::Literal(_)
            | I::Call(_)
            | I::Split(..)
            | I::ListReduce(..)
            | I::ListLength(_)
            | I::ListContains(..)
            | I::ListGet(..)
            | I::ListElements(..) => unreachable!("{WRONG_INSTRUCTION}"),
        }
    }

    #[inline(always)]
    fn one(&mut self, x: Register, value: impl FnOnce(&mut Self) -> RowCell) -> RowCell {
        if self.valid(x) { value(self) } else { NULL }
    }

    #[inline(always)]
    fn two(&mut self, x: Register, y: Register, value: impl FnOnce(&mut Self) -> RowCell) -> RowCell {
        if self.valid(x) & self.valid(y) { value(self) } else { NULL }
    }

    #[inline]
    fn valid(&self, register: Register) -> bool {
        self.cells[register as usize].valid
    }

    #[inline]
    fn bool(&self, register: Register) -> bool {
        self.cells[register as usize].word != 0
    }

    #[inline]
    fn int(&self, register: Register) -> i64 {
        self.cells[register as usize].word as i64
    }

    #[inline]
    fn float(&self, register: Register) -> f64 {
        f64::from_bits(self.cells[register as usize].word)
    }

    fn text(&self, register: Register) -> &[u8] {
        self.pool.text(self.code, self.inputs, self.texts[register as usize])
    }

    fn storage(&self, register: Register) -> Storage {
        self.code.storages[register as usize]
    }

    fn constant(&self, id: ConstantId) -> &Constant {
        &self.code.constants[id as usize]
    }

    fn copy(&mut self, from: Register, at: usize) -> RowCell {
        if self.storage(from) == Storage::Text {
            self.texts[at] = self.texts[from as usize];
        }
        self.cells[from as usize]
    }

    /// A value of an input column, widened.
    #[inline]
    fn load(&mut self, input: u32, at: usize) -> RowCell {
        let (column, row) = (&self.inputs[input as usize], self.row);
        if column.validity.is_some_and(|validity| !validity[row]) {
            return NULL;
        }
        match column.data {
            ColumnSlice::Bool(values) => bool(values[row]),
            ColumnSlice::Int8(values) => int(values[row].into()),
            ColumnSlice::Int16(values) => int(values[row].into()),
            ColumnSlice::Int32(values) => int(values[row].into()),
            ColumnSlice::Int64(values) | ColumnSlice::Timestamp(values) => int(values[row]),
            ColumnSlice::UInt8(values) => int(values[row].into()),
            ColumnSlice::UInt16(values) => int(values[row].into()),
            ColumnSlice::UInt32(values) => int(values[row].into()),
            ColumnSlice::UInt64(values) => optional(i64::try_from(values[row]).ok()),
            ColumnSlice::Float32(values) => float(values[row].into()),
            ColumnSlice::Float64(values) => float(values[row]),
            data => match u32::try_from(data.text(row).len()) {
                Ok(length) => self.put(Some(TextRef { source: input, row: row as u32, start: 0, length }), at),
                Err(_) => NULL,
            },
        }
    }

    #[inline]
    fn compare(&self, op: Comparison, x: Register, y: Register) -> RowCell {
        bool_of(|out| match self.storage(x) {
            Storage::Float => numbers::compare(op, &[self.float(x)], &[self.float(y)], out),
            Storage::Int => numbers::compare(op, &[self.int(x)], &[self.int(y)], out),
            Storage::Bool => numbers::compare(op, &[self.bool(x)], &[self.bool(y)], out),
            _ => out[0] = text_kernels::compare(op, self.text(x), self.text(y)),
        })
    }

    fn hash(&self, x: Register, seed: Register) -> RowCell {
        let seeds = [self.int(seed)];
        int_of(|out, _| match self.storage(x) {
            Storage::Bool => hash::bools(&[self.bool(x)], &seeds, out),
            Storage::Int => hash::ints(&[self.int(x)], &seeds, out),
            Storage::Float => hash::floats(&[self.float(x)], &seeds, out),
            _ => out[0] = hash::bytes(self.text(x), seeds[0]),
        })
    }

    fn is_in(&self, table: ConstantId, x: Register) -> RowCell {
        let keys = &self.constant(table).table().keys;
        bool(match self.storage(x) {
            Storage::Int => keys.find_int(self.int(x)).is_some(),
            Storage::Float => keys.has_float(self.float(x)),
            _ => keys.find_text(self.text(x)).is_some(),
        })
    }

    fn concat(&mut self, x: Register, y: Register, at: usize) -> RowCell {
        self.build(at, |row, buffer| {
            buffer.extend_from_slice(row.text(x));
            buffer.extend_from_slice(row.text(y));
        })
    }

    fn text_unary(&mut self, instruction: &Instruction, at: usize) -> RowCell {
        use Instruction as I;
        match *instruction {
            I::Letters(letters, x) => self.build(at, |row, buffer| text_kernels::letters(letters, row.text(x), buffer)),
            I::Strip(side, characters, x) => {
                let range = text_kernels::strip(side, self.constant(characters).text(), self.text(x));
                self.put(range.map(|range| text::within(self.texts[x as usize], range)), at)
            }
            I::BytesToText(x) => {
                let text = std::str::from_utf8(self.text(x)).is_ok().then(|| self.texts[x as usize]);
                self.put(text, at)
            }
            I::BoolToText(x) => {
                self.build(at, |row, buffer| buffer.extend_from_slice(if row.bool(x) { b"true" } else { b"false" }))
            }
            I::IntToText(x) => self.build(at, |row, buffer| text::write_int(row.int(x), buffer)),
            I::FloatToText(x) => self.build(at, |row, buffer| text_kernels::write_float(row.float(x), buffer)),
            I::TimeToText(x) => {
                let us = self.int(x);
                if !text::is_writable(us) {
                    return NULL;
                }
                self.build(at, |_, buffer| buffer.extend_from_slice(format_timestamp(us).as_bytes()))
            }
            _ => unreachable!("{WRONG_INSTRUCTION}"),
        }
    }

    fn text_ternary(&mut self, instruction: &Instruction, at: usize) -> RowCell {
        match *instruction {
            Instruction::Replace(x, old, new) => self.build(at, |row, buffer| {
                text_kernels::replace(row.text(x), row.text(old), row.text(new), buffer);
            }),
            Instruction::Slice(x, start, length) => {
                let range = text_kernels::slice(self.text(x), self.int(start), self.int(length));
                self.put(Some(text::within(self.texts[x as usize], range)), at)
            }
            _ => unreachable!("{WRONG_INSTRUCTION}"),
        }
    }

    fn lookup(&mut self, table: ConstantId, x: Register, default: Register, at: usize) -> RowCell {
        let table = self.constant(table).table();
        let found = match self.storage(x) {
            Storage::Int => table.keys.find_int(self.int(x)),
            _ => table.keys.find_text(self.text(x)),
        };
        let Some(number) = found.map(|number| number as usize) else { return self.copy(default, at) };
        match &table.values {
            TableValues::Bool(values) => bool(values[number]),
            TableValues::Int(values) => int(values[number]),
            TableValues::Float(values) => float(values[number]),
            TableValues::Text(values) => {
                let literal = text::literal(self.code, values[number]);
                self.put(Some(literal), at)
            }
            TableValues::None => unreachable!("{WRONG_STORAGE}"),
        }
    }

    fn call(&self, call: &Call) -> Result<RowCell> {
        let mut words: Vec<u64> = Vec::with_capacity(call.arguments.len());
        let mut valid = Vec::with_capacity(call.arguments.len());
        for &argument in &call.arguments {
            words.push(self.cells[argument as usize].word);
            valid.push(self.valid(argument));
        }
        let result = call::scalar(&self.code.functions[call.function], &mut words, &valid)?;
        Ok(result.map_or(NULL, |word| RowCell { valid: true, word }))
    }

    fn put(&mut self, text: Option<TextRef>, at: usize) -> RowCell {
        self.texts[at] = text.unwrap_or_default();
        RowCell { valid: text.is_some(), word: 0 }
    }

    /// A new string.
    fn build(&mut self, at: usize, write: impl FnOnce(&Self, &mut Vec<u8>)) -> RowCell {
        let mut buffer = std::mem::take(&mut self.pool.buffer);
        buffer.clear();
        write(self, &mut buffer);
        let kept = self.pool.keep(&buffer);
        self.pool.buffer = buffer;
        self.put(kept, at)
    }

    /// Writes a register to an output. The compiler has cast it to the output's type, so narrowing is exact.
    fn store(&self, register: usize, output: &mut Output) {
        let cell = self.cells[register];
        output.validity[0] = cell.valid;
        let number = if cell.valid { cell.word as i64 } else { 0 };
        let real = if cell.valid { f64::from_bits(cell.word) } else { 0.0 };
        let text = || if cell.valid { self.text(register as Register) } else { &[] };
        #[allow(clippy::cast_sign_loss)]
        match &mut output.data {
            ColumnData::Bool(out) => out[0] = number != 0,
            ColumnData::Int8(out) => out[0] = number as i8,
            ColumnData::Int16(out) => out[0] = number as i16,
            ColumnData::Int32(out) => out[0] = number as i32,
            ColumnData::Int64(out) | ColumnData::Timestamp(out) => out[0] = number,
            ColumnData::UInt8(out) => out[0] = number as u8,
            ColumnData::UInt16(out) => out[0] = number as u16,
            ColumnData::UInt32(out) => out[0] = number as u32,
            ColumnData::UInt64(out) => out[0] = number as u64,
            ColumnData::Float32(out) => out[0] = super::store::narrowed(real),
            ColumnData::Float64(out) => out[0] = super::store::one_nan(real),
            ColumnData::String(out) => {
                out[0].clear();
                out[0].push_str(std::str::from_utf8(text()).unwrap_or_default());
            }
            ColumnData::Bytes(out) => {
                out[0].clear();
                out[0].extend_from_slice(text());
            }
            ColumnData::List(..) => unreachable!("{WRONG_STORAGE}"),
        }
    }
}
