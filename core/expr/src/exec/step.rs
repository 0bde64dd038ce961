//! One instruction over the rows of a chunk.

use super::{Frame, choose, lists, text};
use crate::cells::{Cells, Values, WRONG_STORAGE};
use crate::constant::TableValues;
use crate::kernels::{calendar, hash, numbers, time};
use crate::ops::{ConstantId, Instruction, Register};

/// Writes `out[row] = f(x[row])`, with the validity of `x`.
macro_rules! map {
    ($x:expr, $out:expr, $f:expr) => {
        for (out, &x) in $out.iter_mut().zip($x) {
            *out = $f(x);
        }
    };
}

pub(super) fn step(instruction: Instruction, frame: &mut Frame<'_>, out: &mut Cells) {
    use Instruction as I;
    match instruction {
        I::Input(_) | I::Literal(_) | I::Call(_) => {}
        I::IsNull(x) => is_null(frame, x, out),
        I::Logic(op, x, y) => choose::logic(op, frame.cells(x), frame.cells(y), frame.count, out),
        I::Coalesce(x, y) => choose::coalesce(frame, x, y, out),
        I::IfElse(condition, yes, no) => choose::if_else(frame, condition, yes, no, out),
        I::FloatBinary(_, x, y)
        | I::IntBinary(_, x, y)
        | I::Compare(_, x, y)
        | I::Hash(x, y)
        | I::TextTest(_, x, y)
        | I::Concat(x, y)
        | I::ListContains(x, y)
        | I::ListGet(x, y) => {
            both(frame.valid(x), frame.valid(y), &mut out.valid);
            binary(instruction, frame, out);
        }
        I::Haversine([a, b, c, d]) => {
            both(frame.valid(a), frame.valid(b), &mut out.valid);
            also(frame.valid(c), &mut out.valid);
            also(frame.valid(d), &mut out.valid);
            let points = [a, b, c, d].map(|register| frame.floats(register));
            numbers::haversine(points, &mut out.values.floats_mut()[..frame.count]);
        }
        I::Replace(x, y, z) | I::Slice(x, y, z) => {
            both(frame.valid(x), frame.valid(y), &mut out.valid);
            also(frame.valid(z), &mut out.valid);
            text::ternary(instruction, frame, out);
        }
        I::Lookup(table, x, default) => lookup(frame, table, x, default, out),
        I::ListReduce(_, x) | I::ListLength(x) | I::ListElements(_, x) => {
            out.valid[..frame.count].copy_from_slice(frame.valid(x));
            lists::unary(instruction, frame, out);
        }
        I::Letters(_, x)
        | I::Strip(_, _, x)
        | I::TextLength(x)
        | I::Split(_, x)
        | I::ParseInt(x)
        | I::ParseFloat(x)
        | I::ParseBool(x)
        | I::ParseTime(x)
        | I::BoolToText(x)
        | I::IntToText(x)
        | I::FloatToText(x)
        | I::TimeToText(x)
        | I::BytesToText(x) => {
            out.valid[..frame.count].copy_from_slice(frame.valid(x));
            text::unary(instruction, frame, out);
        }
        I::FloatUnary(_, x)
        | I::IntUnary(_, x)
        | I::Not(x)
        | I::LocalTime(_, x)
        | I::TimePart(_, x)
        | I::Truncate(_, x)
        | I::TruncateLocal(_, _, x)
        | I::EpochSeconds(x)
        | I::BoolToInt(x)
        | I::IntToFloat(x)
        | I::FloatToInt(x)
        | I::IntWithin(x, _, _)
        | I::IntToBool(x)
        | I::FloatToBool(x)
        | I::Bucketize(_, x)
        | I::HashBucket(_, x)
        | I::IsIn(_, x) => {
            out.valid[..frame.count].copy_from_slice(frame.valid(x));
            unary(instruction, frame, out);
        }
    }
}

fn both(x: &[bool], y: &[bool], out: &mut [bool]) {
    for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
        *out = x & y;
    }
}

fn also(x: &[bool], out: &mut [bool]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out &= x;
    }
}

fn is_null(frame: &Frame<'_>, x: Register, out: &mut Cells) {
    out.valid[..frame.count].fill(true);
    map!(frame.valid(x), out.values.bools_mut(), |valid: bool| !valid);
}

/// Instructions of one register; the validity of the result is that of the argument so far.
fn unary(instruction: Instruction, frame: &Frame<'_>, out: &mut Cells) {
    use Instruction as I;
    let count = frame.count;
    let (valid, values) = (&mut out.valid[..count], &mut out.values);
    match instruction {
        I::FloatUnary(op, x) => numbers::float_unary(op, frame.floats(x), &mut values.floats_mut()[..count]),
        I::IntUnary(op, x) => numbers::int_unary(op, frame.ints(x), &mut values.ints_mut()[..count], valid),
        I::Not(x) => map!(frame.bools(x), values.bools_mut(), |x: bool| !x),
        I::LocalTime(zone, x) => time::local(frame.constant(zone).zone(), frame.ints(x), values.ints_mut(), valid),
        I::TimePart(part, x) => time::part(part, frame.ints(x), values.ints_mut()),
        I::Truncate(unit, x) => {
            numbers::int_checked(frame.ints(x), values.ints_mut(), valid, |us| calendar::truncate(unit, us))
        }
        I::TruncateLocal(unit, zone, x) => {
            let zone = frame.constant(zone).zone();
            numbers::int_checked(frame.ints(x), values.ints_mut(), valid, |us| time::truncate_local(unit, zone, us));
        }
        I::EpochSeconds(x) => map!(frame.ints(x), values.floats_mut(), |us: i64| us as f64 / 1e6),
        I::BoolToInt(x) => map!(frame.bools(x), values.ints_mut(), i64::from),
        I::IntToFloat(x) => map!(frame.ints(x), values.floats_mut(), |x: i64| x as f64),
        I::FloatToInt(x) => numbers::float_to_int(frame.floats(x), values.ints_mut(), valid),
        I::IntWithin(x, low, high) => numbers::int_within(low, high, frame.ints(x), values.ints_mut(), valid),
        I::IntToBool(x) => map!(frame.ints(x), values.bools_mut(), |x: i64| x != 0),
        I::FloatToBool(x) => map!(frame.floats(x), values.bools_mut(), |x: f64| x != 0.0),
        I::Bucketize(boundaries, x) => {
            numbers::bucketize(frame.constant(boundaries).boundaries(), frame.floats(x), values.ints_mut(), valid);
        }
        I::HashBucket(buckets, x) => {
            map!(frame.ints(x), values.ints_mut(), |x: i64| hash::bucket(x, buckets))
        }
        I::IsIn(table, x) => is_in(frame, table, x, values.bools_mut()),
        _ => unreachable!("{WRONG_INSTRUCTION}"),
    }
}

/// Instructions of two registers; the validity of the result is that of both arguments so far.
fn binary(instruction: Instruction, frame: &mut Frame<'_>, out: &mut Cells) {
    use Instruction as I;
    let count = frame.count;
    let (valid, values) = (&mut out.valid[..count], &mut out.values);
    match instruction {
        I::FloatBinary(op, x, y) => {
            numbers::float_binary(op, frame.floats(x), frame.floats(y), &mut values.floats_mut()[..count]);
        }
        I::IntBinary(op, x, y) => {
            numbers::int_binary(op, frame.ints(x), frame.ints(y), &mut values.ints_mut()[..count], valid);
        }
        I::Compare(op, x, y) => {
            let out = &mut values.bools_mut()[..count];
            match (&frame.cells(x).values, &frame.cells(y).values) {
                (Values::Float(x), Values::Float(y)) => numbers::compare(op, x, y, out),
                (Values::Int(x), Values::Int(y)) => numbers::compare(op, x, y, out),
                (Values::Bool(x), Values::Bool(y)) => numbers::compare(op, x, y, out),
                (Values::Text(x), Values::Text(y)) => text::compare(op, frame, x, y, valid, out),
                _ => unreachable!("{WRONG_STORAGE}"),
            }
        }
        I::Hash(x, seed) => {
            let (seeds, out) = (frame.ints(seed), &mut values.ints_mut()[..count]);
            match &frame.cells(x).values {
                Values::Bool(x) => hash::bools(x, seeds, out),
                Values::Int(x) => hash::ints(x, seeds, out),
                Values::Float(x) => hash::floats(x, seeds, out),
                Values::Text(x) => {
                    for row in (0..count).filter(|&row| valid[row]) {
                        out[row] = hash::bytes(frame.text(x[row]), seeds[row]);
                    }
                }
                Values::List(_) => unreachable!("{WRONG_STORAGE}"),
            }
        }
        I::TextTest(test, x, y) => text::test(test, frame, x, y, valid, values.bools_mut()),
        I::Concat(x, y) => text::concat(frame, x, y, out),
        I::ListContains(list, x) => lists::contains(frame, list, x, values.bools_mut()),
        I::ListGet(list, index) => lists::get(frame, list, index, out),
        _ => unreachable!("{WRONG_INSTRUCTION}"),
    }
}

fn is_in(frame: &Frame<'_>, table: ConstantId, x: Register, out: &mut [bool]) {
    let keys = &frame.constant(table).table().keys;
    match &frame.cells(x).values {
        Values::Int(_) => map!(frame.ints(x), out, |x: i64| keys.find_int(x).is_some()),
        Values::Float(_) => map!(frame.floats(x), out, |x: f64| keys.has_float(x)),
        Values::Text(_) => {
            for (row, (&at, &valid)) in frame.texts(x).iter().zip(frame.valid(x)).enumerate() {
                out[row] = valid && keys.find_text(frame.text(at)).is_some();
            }
        }
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn lookup(frame: &Frame<'_>, table: ConstantId, x: Register, default: Register, out: &mut Cells) {
    let table = frame.constant(table).table();
    let (known, default_valid) = (frame.valid(x), frame.valid(default));
    for row in 0..frame.count {
        let found = match &frame.cells(x).values {
            Values::Int(x) => table.keys.find_int(x[row]),
            Values::Text(x) if known[row] => table.keys.find_text(frame.text(x[row])),
            _ => None,
        };
        out.valid[row] = known[row] & (found.is_some() | default_valid[row]);
        let number = found.map(|number| number as usize);
        match (&mut out.values, &table.values, &frame.cells(default).values) {
            (Values::Bool(out), TableValues::Bool(found), Values::Bool(default)) => {
                out[row] = number.map_or(default[row], |number| found[number]);
            }
            (Values::Int(out), TableValues::Int(found), Values::Int(default)) => {
                out[row] = number.map_or(default[row], |number| found[number]);
            }
            (Values::Float(out), TableValues::Float(found), Values::Float(default)) => {
                out[row] = number.map_or(default[row], |number| found[number]);
            }
            (Values::Text(out), TableValues::Text(found), Values::Text(default)) => {
                out[row] = number.map_or(default[row], |number| text::literal(frame.code, found[number]));
            }
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }
}

pub(super) const WRONG_INSTRUCTION: &str = "an instruction goes to the function of its sort";
