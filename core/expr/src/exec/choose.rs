//! Instructions that look at nulls: logic of three values, and the choice between two registers.

use super::Frame;
use crate::cells::{Cells, Lists, Values, WRONG_STORAGE};
use crate::ops::{Logic, Register};

pub(super) fn logic(op: Logic, x: &Cells, y: &Cells, count: usize, out: &mut Cells) {
    let (x_values, y_values) = (&x.values.bools()[..count], &y.values.bools()[..count]);
    let (x_valid, y_valid) = (&x.valid[..count], &y.valid[..count]);
    let (valid, out) = (&mut out.valid[..count], &mut out.values.bools_mut()[..count]);
    for row in 0..count {
        (valid[row], out[row]) = kleene(op, (x_valid[row], x_values[row]), (y_valid[row], y_values[row]));
    }
}

/// `and` or `or` of two values that may be null, each as (is known, is true); so is the result.
#[inline]
pub(super) fn kleene(op: Logic, x: (bool, bool), y: (bool, bool)) -> (bool, bool) {
    // One operand decides alone: false for `and`, true for `or`.
    let deciding = op == Logic::Or;
    let x_decides = x.0 & (x.1 == deciding);
    let y_decides = y.0 & (y.1 == deciding);
    ((x.0 & y.0) | x_decides | y_decides, (x_decides | y_decides) == deciding)
}

pub(super) fn coalesce(frame: &Frame<'_>, x: Register, y: Register, out: &mut Cells) {
    let (x_valid, y_valid) = (frame.valid(x), frame.valid(y));
    for ((valid, &x), &y) in out.valid.iter_mut().zip(x_valid).zip(y_valid) {
        *valid = x | y;
    }
    choose(x_valid, frame.cells(x), frame.cells(y), &mut out.values);
}

pub(super) fn if_else(frame: &Frame<'_>, condition: Register, yes: Register, no: Register, out: &mut Cells) {
    let (is_true, known) = (frame.bools(condition), frame.valid(condition));
    let (yes_valid, no_valid) = (frame.valid(yes), frame.valid(no));
    let valid = &mut out.valid[..frame.count];
    for row in 0..frame.count {
        valid[row] = known[row] & ((is_true[row] & yes_valid[row]) | (!is_true[row] & no_valid[row]));
    }
    choose(is_true, frame.cells(yes), frame.cells(no), &mut out.values);
}

/// Takes each row's value from `x` where `first` is true, from `y` elsewhere.
fn choose(first: &[bool], x: &Cells, y: &Cells, out: &mut Values) {
    macro_rules! each {
        ($x:expr, $y:expr, $out:expr) => {
            for (((out, &first), &x), &y) in $out.iter_mut().zip(first).zip($x).zip($y) {
                *out = if first { x } else { y };
            }
        };
    }
    match (&x.values, &y.values, out) {
        (Values::Float(x), Values::Float(y), Values::Float(out)) => each!(x, y, out),
        (Values::Int(x), Values::Int(y), Values::Int(out)) => each!(x, y, out),
        (Values::Bool(x), Values::Bool(y), Values::Bool(out)) => each!(x, y, out),
        (Values::Text(x), Values::Text(y), Values::Text(out)) => each!(x, y, out),
        (Values::List(x_lists), Values::List(y_lists), Values::List(out)) => {
            out.items.clear();
            for (row, &first) in first.iter().enumerate() {
                let (from, valid) = if first { (x_lists, x.valid[row]) } else { (y_lists, y.valid[row]) };
                let start = out.items.valid.len() as u32;
                if valid {
                    append(from, row, out);
                }
                out.ranges[row] = (start, out.items.valid.len() as u32);
            }
        }
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

fn append(from: &Lists, row: usize, out: &mut Lists) {
    let range = from.range(row);
    out.items.valid.extend_from_slice(&from.items.valid[range.clone()]);
    match (&from.items.values, &mut out.items.values) {
        (Values::Float(from), Values::Float(out)) => out.extend_from_slice(&from[range]),
        (Values::Int(from), Values::Int(out)) => out.extend_from_slice(&from[range]),
        (Values::Bool(from), Values::Bool(out)) => out.extend_from_slice(&from[range]),
        (Values::Text(from), Values::Text(out)) => out.extend_from_slice(&from[range]),
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}
