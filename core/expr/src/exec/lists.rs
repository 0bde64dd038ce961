//! Instructions over lists.

use super::Frame;
use super::step::WRONG_INSTRUCTION;
use crate::cells::{Cells, Lists, Values, WRONG_STORAGE};
use crate::kernels::numbers;
use crate::ops::{Element, Instruction, ListReduction, Register};

/// Instructions of one list; the validity of the result is that of the list so far.
pub(super) fn unary(instruction: Instruction, frame: &Frame<'_>, out: &mut Cells) {
    match instruction {
        Instruction::ListReduce(op, x) => reduce(op, frame.lists(x), frame.count, out),
        Instruction::ListLength(x) => {
            let lists = frame.lists(x);
            for (row, out) in out.values.ints_mut()[..frame.count].iter_mut().enumerate() {
                *out = lists.range(row).len() as i64;
            }
        }
        Instruction::ListElements(change, x) => elements(change, frame.lists(x), out.values.lists_mut()),
        _ => unreachable!("{WRONG_INSTRUCTION}"),
    }
}

/// Nulls among the items are passed over; a list without values has the sum 0 and no mean, least or largest value.
fn reduce(op: ListReduction, lists: &Lists, count: usize, out: &mut Cells) {
    for row in 0..count {
        let range = lists.range(row);
        let known = range.clone().filter(|&item| lists.items.valid[item]);
        match (&lists.items.values, &mut out.values) {
            (Values::Int(items), Values::Int(out_values)) => {
                let mut known = known.map(|item| items[item]);
                let result = match op {
                    ListReduction::Sum => known.try_fold(0i64, i64::checked_add),
                    ListReduction::Min => known.min(),
                    _ => known.max(),
                };
                out.valid[row] &= result.is_some();
                out_values[row] = result.unwrap_or(0);
            }
            (Values::Int(items), Values::Float(out_values)) => {
                let result = reduce_floats(op, known.map(|item| items[item] as f64));
                out.valid[row] &= result.is_some();
                out_values[row] = result.unwrap_or(0.0);
            }
            (Values::Float(items), Values::Float(out_values)) => {
                let result = reduce_floats(op, known.map(|item| items[item]));
                out.valid[row] &= result.is_some();
                out_values[row] = result.unwrap_or(0.0);
            }
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }
}

/// Sums go from the first item to the last.
fn reduce_floats(op: ListReduction, items: impl Iterator<Item = f64>) -> Option<f64> {
    match op {
        ListReduction::Sum => Some(items.fold(0.0, |sum, item| sum + item)),
        ListReduction::Mean => {
            let (sum, count) = items.fold((0.0, 0u32), |(sum, count), item| (sum + item, count + 1));
            (count > 0).then(|| sum / f64::from(count))
        }
        ListReduction::Min => items.reduce(numbers::float_min),
        ListReduction::Max => items.reduce(numbers::float_max),
    }
}

fn elements(change: Element, from: &Lists, out: &mut Lists) {
    out.ranges.clone_from(&from.ranges);
    out.items.clear();
    out.items.valid.extend_from_slice(&from.items.valid);
    match (change, &from.items.values, &mut out.items.values) {
        (Element::IntToFloat, Values::Int(from), Values::Float(out)) => out.extend(from.iter().map(|&x| x as f64)),
        (Element::ToFloat32, Values::Float(from), Values::Float(out)) => {
            out.extend(from.iter().map(|&x| f64::from(x as f32)));
        }
        (Element::IntWithin(low, high), Values::Int(from), Values::Int(to)) => {
            to.extend_from_slice(from);
            for (valid, x) in out.items.valid.iter_mut().zip(from) {
                *valid &= (low..=high).contains(x);
            }
        }
        _ => unreachable!("{WRONG_STORAGE}"),
    }
}

pub(super) fn contains(frame: &Frame<'_>, list: Register, x: Register, out: &mut [bool]) {
    let lists = frame.lists(list);
    let valid = frame.valid(x);
    for row in 0..frame.count {
        let mut known = lists.range(row).filter(|&item| lists.items.valid[item]);
        out[row] = match (&lists.items.values, &frame.cells(x).values) {
            (Values::Bool(items), Values::Bool(x)) => known.any(|item| items[item] == x[row]),
            (Values::Int(items), Values::Int(x)) => known.any(|item| items[item] == x[row]),
            (Values::Float(items), Values::Float(x)) => known.any(|item| items[item] == x[row]),
            (Values::Text(items), Values::Text(x)) => {
                valid[row] && known.any(|item| frame.text(items[item]) == frame.text(x[row]))
            }
            _ => unreachable!("{WRONG_STORAGE}"),
        };
    }
}

/// The item at an index, from the end where it is negative; null outside the list.
pub(super) fn get(frame: &Frame<'_>, list: Register, index: Register, out: &mut Cells) {
    let (lists, indexes) = (frame.lists(list), frame.ints(index));
    for (row, &index) in indexes.iter().enumerate() {
        let range = lists.range(row);
        let place = if index < 0 { index.checked_add(range.len() as i64) } else { Some(index) };
        let place = place.and_then(|place| usize::try_from(place).ok()).filter(|place| *place < range.len());
        let item = place.map(|place| range.start + place).filter(|&item| lists.items.valid[item]);
        out.valid[row] &= item.is_some();
        let Some(item) = item else { continue };
        match (&lists.items.values, &mut out.values) {
            (Values::Bool(items), Values::Bool(out)) => out[row] = items[item],
            (Values::Int(items), Values::Int(out)) => out[row] = items[item],
            (Values::Float(items), Values::Float(out)) => out[row] = items[item],
            (Values::Text(items), Values::Text(out)) => out[row] = items[item],
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }
}
