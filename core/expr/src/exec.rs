//! Runs a program's instructions over a chunk of rows. One row is a chunk of length one, which is why both have the same bits.

use headrace_types::ColumnData;

use crate::column::{ColumnSlice, ColumnView};
use crate::kernels;
use crate::literal::Literal;
use crate::ops::{Comparison, Instruction, Logic, Register};
use crate::program::Code;
use crate::scratch::{Cells, Scratch, TextRef, Values};

pub(crate) fn run_chunk(code: &Code, inputs: &[ColumnView<'_>], start: usize, count: usize, scratch: &mut Scratch) {
    for (register, instruction) in code.instructions.iter().enumerate() {
        let (below, out) = scratch.split(register as Register);
        match *instruction {
            Instruction::Literal(_) => {} // filled when the scratch was made
            Instruction::Input(input) => load(&inputs[input as usize], input, start, count, out),
            _ => step(code, inputs, *instruction, count, below, out),
        }
    }
    for (output, &register) in scratch.outputs.iter_mut().zip(&code.output_registers) {
        let cells = &scratch.registers[register as usize];
        let valid = &cells.valid[..count];
        output.validity[start..start + count].copy_from_slice(valid);
        store(code, inputs, cells, start, count, &mut output.data);
    }
}

fn load(column: &ColumnView<'_>, input: u32, start: usize, count: usize, out: &mut Cells) {
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
        (Values::Text(cells), _) => {
            for (cell, row) in cells.iter_mut().zip(rows) {
                *cell = TextRef { source: input, row: row as u32 };
            }
        }
        _ => {}
    }
}

fn step(
    code: &Code,
    inputs: &[ColumnView<'_>],
    instruction: Instruction,
    count: usize,
    below: &[Cells],
    out: &mut Cells,
) {
    let valid = &mut out.valid[..count];
    let validity = |register: Register| &below[register as usize].valid[..count];
    match instruction {
        Instruction::Input(_) | Instruction::Literal(_) => {}
        Instruction::FloatUnary(op, x) => {
            valid.copy_from_slice(validity(x));
            kernels::float_unary(op, floats(below, x, count), floats_mut(&mut out.values, count));
        }
        Instruction::FloatBinary(op, x, y) => {
            both(validity(x), validity(y), valid);
            let (x, y) = (floats(below, x, count), floats(below, y, count));
            kernels::float_binary(op, x, y, floats_mut(&mut out.values, count));
        }
        Instruction::IntUnary(op, x) => {
            valid.copy_from_slice(validity(x));
            kernels::int_unary(op, ints(below, x, count), ints_mut(&mut out.values, count), valid);
        }
        Instruction::IntBinary(op, x, y) => {
            both(validity(x), validity(y), valid);
            let (x, y) = (ints(below, x, count), ints(below, y, count));
            kernels::int_binary(op, x, y, ints_mut(&mut out.values, count), valid);
        }
        Instruction::Compare(op, x, y) => {
            both(validity(x), validity(y), valid);
            compare(code, inputs, op, &below[x as usize], &below[y as usize], valid, &mut out.values);
        }
        Instruction::Logic(op, x, y) => logic(op, &below[x as usize], &below[y as usize], valid, &mut out.values),
        Instruction::Not(x) => {
            valid.copy_from_slice(validity(x));
            for (out, &x) in bools_mut(&mut out.values, count).iter_mut().zip(bools(below, x, count)) {
                *out = !x;
            }
        }
        Instruction::IsNull(x) => {
            valid.fill(true);
            for (out, &valid) in bools_mut(&mut out.values, count).iter_mut().zip(validity(x)) {
                *out = !valid;
            }
        }
        Instruction::Coalesce(x, y) => {
            for ((valid, &x), &y) in valid.iter_mut().zip(validity(x)).zip(validity(y)) {
                *valid = x | y;
            }
            choose(
                |row| validity(x)[row],
                &below[x as usize].values,
                &below[y as usize].values,
                count,
                &mut out.values,
            );
        }
        Instruction::IfElse(condition, yes, no) => {
            let is_true = bools(below, condition, count);
            for (row, valid) in valid.iter_mut().enumerate() {
                let chosen = if is_true[row] { validity(yes)[row] } else { validity(no)[row] };
                *valid = validity(condition)[row] & chosen;
            }
            choose(|row| is_true[row], &below[yes as usize].values, &below[no as usize].values, count, &mut out.values);
        }
        Instruction::TimePart(part, x) => {
            valid.copy_from_slice(validity(x));
            kernels::time_part(part, ints(below, x, count), ints_mut(&mut out.values, count));
        }
        Instruction::EpochSeconds(x) => {
            valid.copy_from_slice(validity(x));
            for (out, &x) in floats_mut(&mut out.values, count).iter_mut().zip(ints(below, x, count)) {
                *out = x as f64 / 1e6;
            }
        }
        Instruction::BoolToInt(x) => {
            valid.copy_from_slice(validity(x));
            for (out, &x) in ints_mut(&mut out.values, count).iter_mut().zip(bools(below, x, count)) {
                *out = i64::from(x);
            }
        }
        Instruction::IntToFloat(x) => {
            valid.copy_from_slice(validity(x));
            for (out, &x) in floats_mut(&mut out.values, count).iter_mut().zip(ints(below, x, count)) {
                *out = x as f64;
            }
        }
        Instruction::FloatToInt(x) => {
            valid.copy_from_slice(validity(x));
            kernels::float_to_int(floats(below, x, count), ints_mut(&mut out.values, count), valid);
        }
        Instruction::IntWithin(x, low, high) => {
            valid.copy_from_slice(validity(x));
            kernels::int_within(low, high, ints(below, x, count), ints_mut(&mut out.values, count), valid);
        }
    }
}

fn both(x: &[bool], y: &[bool], out: &mut [bool]) {
    for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
        *out = x & y;
    }
}

fn compare(
    code: &Code,
    inputs: &[ColumnView<'_>],
    op: Comparison,
    x: &Cells,
    y: &Cells,
    valid: &[bool],
    out: &mut Values,
) {
    let count = valid.len();
    let out = bools_mut(out, count);
    match (&x.values, &y.values) {
        (Values::Float(x), Values::Float(y)) => kernels::compare(op, &x[..count], &y[..count], out),
        (Values::Int(x), Values::Int(y)) => kernels::compare(op, &x[..count], &y[..count], out),
        (Values::Bool(x), Values::Bool(y)) => kernels::compare(op, &x[..count], &y[..count], out),
        (Values::Text(x), Values::Text(y)) => {
            for row in 0..count {
                // The reference of a null may point anywhere.
                out[row] =
                    valid[row] && kernels::compare_text(op, text(code, inputs, x[row]), text(code, inputs, y[row]));
            }
        }
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn logic(op: Logic, x: &Cells, y: &Cells, valid: &mut [bool], out: &mut Values) {
    let count = valid.len();
    let (Values::Bool(x_values), Values::Bool(y_values)) = (&x.values, &y.values) else {
        unreachable!("{WRONG_STORAGE}")
    };
    // One operand decides alone: false for `and`, true for `or`.
    let deciding = op == Logic::Or;
    for (row, out) in bools_mut(out, count).iter_mut().enumerate() {
        let x_decides = x.valid[row] & (x_values[row] == deciding);
        let y_decides = y.valid[row] & (y_values[row] == deciding);
        valid[row] = (x.valid[row] & y.valid[row]) | x_decides | y_decides;
        *out = (x_decides | y_decides) == deciding;
    }
}

fn choose(first: impl Fn(usize) -> bool, x: &Values, y: &Values, count: usize, out: &mut Values) {
    macro_rules! each {
        ($x:expr, $y:expr, $out:expr) => {
            for row in 0..count {
                $out[row] = if first(row) { $x[row] } else { $y[row] };
            }
        };
    }
    match (x, y, out) {
        (Values::Float(x), Values::Float(y), Values::Float(out)) => each!(x, y, out),
        (Values::Int(x), Values::Int(y), Values::Int(out)) => each!(x, y, out),
        (Values::Bool(x), Values::Bool(y), Values::Bool(out)) => each!(x, y, out),
        (Values::Text(x), Values::Text(y), Values::Text(out)) => each!(x, y, out),
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn text<'a>(code: &'a Code, inputs: &'a [ColumnView<'_>], at: TextRef) -> &'a [u8] {
    match inputs.get(at.source as usize) {
        Some(column) => column.data.text(at.row as usize),
        None => match &code.literals[at.row as usize] {
            Literal::Text(bytes) => bytes,
            _ => &[],
        },
    }
}

/// Writes a chunk of a register to an output column. The compiler has cast the register to the column's type, so narrowing is exact.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn store(code: &Code, inputs: &[ColumnView<'_>], cells: &Cells, start: usize, count: usize, out: &mut ColumnData) {
    let rows = start..start + count;
    let valid = &cells.valid[..count];
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
        (ColumnData::Float32(out), Values::Float(values)) => {
            narrow!(out, values, |v: f64| if v.is_nan() { f32::NAN } else { v as f32 })
        }
        (ColumnData::Float64(out), Values::Float(values)) => {
            narrow!(out, values, |v: f64| if v.is_nan() { f64::NAN } else { v })
        }
        (ColumnData::String(out), Values::Text(values)) => {
            for ((out, &at), &valid) in out[rows].iter_mut().zip(values).zip(valid) {
                out.clear();
                let bytes = if valid { text(code, inputs, at) } else { &[] };
                out.push_str(std::str::from_utf8(bytes).unwrap_or_default());
            }
        }
        (ColumnData::Bytes(out), Values::Text(values)) => {
            for ((out, &at), &valid) in out[rows].iter_mut().zip(values).zip(valid) {
                out.clear();
                out.extend_from_slice(if valid { text(code, inputs, at) } else { &[] });
            }
        }
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

const WRONG_STORAGE: &str = "the compiler gives each instruction registers of the storage that it works on";

fn floats(below: &[Cells], register: Register, count: usize) -> &[f64] {
    match &below[register as usize].values {
        Values::Float(cells) => &cells[..count],
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn ints(below: &[Cells], register: Register, count: usize) -> &[i64] {
    match &below[register as usize].values {
        Values::Int(cells) => &cells[..count],
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn bools(below: &[Cells], register: Register, count: usize) -> &[bool] {
    match &below[register as usize].values {
        Values::Bool(cells) => &cells[..count],
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn floats_mut(values: &mut Values, count: usize) -> &mut [f64] {
    match values {
        Values::Float(cells) => &mut cells[..count],
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn ints_mut(values: &mut Values, count: usize) -> &mut [i64] {
    match values {
        Values::Int(cells) => &mut cells[..count],
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn bools_mut(values: &mut Values, count: usize) -> &mut [bool] {
    match values {
        Values::Bool(cells) => &mut cells[..count],
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}
