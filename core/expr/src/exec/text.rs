//! Instructions over strings. A part of a string borrows its bytes; a new string goes to the chunk's pool.

use std::io::Write;

use headrace_types::{format_timestamp, timestamp_of_text};

use super::Frame;
use super::step::WRONG_INSTRUCTION;
use crate::cells::{Cells, LITERALS, Lists, TextRef, Values};
use crate::kernels::{calendar, text};
use crate::literal::Literal;
use crate::ops::{Comparison, Instruction, Register, TextTest};
use crate::program::Code;

/// The most parts that a string is split into; one of more parts gives null.
pub const LIST_ITEMS_MAX: usize = 4_096;

pub(super) fn literal(code: &Code, number: u32) -> TextRef {
    let length = match &code.literals[number as usize] {
        Literal::Text(bytes) => bytes.len() as u32,
        _ => 0,
    };
    TextRef { source: LITERALS, row: number, start: 0, length }
}

/// Instructions of one register, a string or what becomes one; the validity of the result is that of the argument so far.
pub(super) fn unary(instruction: Instruction, frame: &mut Frame<'_>, out: &mut Cells) {
    use Instruction as I;
    match instruction {
        I::Letters(letters, x) => build(frame, x, out, |text, buffer| text::letters(letters, text, buffer)),
        I::Strip(side, characters, x) => {
            let characters = frame.constant(characters).text();
            part(frame, x, out, |text| text::strip(side, characters, text));
        }
        I::TextLength(x) => parse(frame, x, &mut out.valid, out.values.ints_mut(), |text| Some(text::length(text))),
        I::Split(by, x) => split(frame, frame.constant(by).text(), x, out),
        I::ParseInt(x) => parse(frame, x, &mut out.valid, out.values.ints_mut(), text::parse_int),
        I::ParseFloat(x) => parse(frame, x, &mut out.valid, out.values.floats_mut(), text::parse_float),
        I::ParseBool(x) => parse(frame, x, &mut out.valid, out.values.bools_mut(), text::parse_bool),
        I::ParseTime(x) => parse(frame, x, &mut out.valid, out.values.ints_mut(), timestamp_of_text),
        I::BytesToText(x) => part(frame, x, out, |text| std::str::from_utf8(text).ok().map(|_| 0..text.len())),
        I::BoolToText(x) => {
            let x = frame.bools(x);
            write(frame, out, |row, buffer| buffer.extend_from_slice(if x[row] { b"true" } else { b"false" }));
        }
        I::IntToText(x) => {
            let x = frame.ints(x);
            write(frame, out, |row, buffer| write_int(x[row], buffer));
        }
        I::FloatToText(x) => {
            let x = frame.floats(x);
            write(frame, out, |row, buffer| text::write_float(x[row], buffer));
        }
        I::TimeToText(x) => {
            let x = frame.ints(x);
            for (valid, us) in out.valid.iter_mut().zip(x) {
                *valid &= is_writable(*us);
            }
            write(frame, out, |row, buffer| buffer.extend_from_slice(format_timestamp(x[row]).as_bytes()));
        }
        _ => unreachable!("{WRONG_INSTRUCTION}"),
    }
}

pub(super) fn write_int(x: i64, buffer: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(buffer, "{x}");
}

/// Whether a time has a year of four digits.
pub(super) fn is_writable(us: i64) -> bool {
    (0..=9999).contains(&calendar::year(us))
}

pub(super) fn ternary(instruction: Instruction, frame: &mut Frame<'_>, out: &mut Cells) {
    match instruction {
        Instruction::Replace(x, old, new) => {
            let (x, old, new) = (frame.texts(x), frame.texts(old), frame.texts(new));
            for row in 0..frame.count {
                let mut buffer = std::mem::take(&mut frame.pool.buffer);
                buffer.clear();
                if out.valid[row] {
                    text::replace(frame.text(x[row]), frame.text(old[row]), frame.text(new[row]), &mut buffer);
                    keep(frame, row, &buffer, out);
                }
                frame.pool.buffer = buffer;
            }
        }
        Instruction::Slice(x, start, length) => {
            let (starts, lengths) = (frame.ints(start), frame.ints(length));
            let texts = frame.texts(x);
            let values = out.values.texts_mut();
            for row in (0..frame.count).filter(|&row| out.valid[row]) {
                let range = text::slice(frame.text(texts[row]), starts[row], lengths[row]);
                values[row] = within(texts[row], range);
            }
        }
        _ => unreachable!("{WRONG_INSTRUCTION}"),
    }
}

pub(super) fn concat(frame: &mut Frame<'_>, x: Register, y: Register, out: &mut Cells) {
    let (x, y) = (frame.texts(x), frame.texts(y));
    for row in 0..frame.count {
        if out.valid[row] {
            let mut buffer = std::mem::take(&mut frame.pool.buffer);
            buffer.clear();
            buffer.extend_from_slice(frame.text(x[row]));
            buffer.extend_from_slice(frame.text(y[row]));
            keep(frame, row, &buffer, out);
            frame.pool.buffer = buffer;
        }
    }
}

pub(super) fn compare(
    op: Comparison,
    frame: &Frame<'_>,
    x: &[TextRef],
    y: &[TextRef],
    valid: &[bool],
    out: &mut [bool],
) {
    for (row, out) in out.iter_mut().enumerate() {
        // The reference of a null may point anywhere.
        *out = valid[row] && text::compare(op, frame.text(x[row]), frame.text(y[row]));
    }
}

pub(super) fn test(test: TextTest, frame: &Frame<'_>, x: Register, y: Register, valid: &[bool], out: &mut [bool]) {
    let (x, y) = (frame.texts(x), frame.texts(y));
    for (row, (out, &valid)) in out.iter_mut().zip(valid).enumerate() {
        *out = valid && text::test(test, frame.text(x[row]), frame.text(y[row]));
    }
}

/// Writes the string of each row that has a value.
fn write(frame: &mut Frame<'_>, out: &mut Cells, f: impl Fn(usize, &mut Vec<u8>)) {
    for row in 0..frame.count {
        if out.valid[row] {
            let mut buffer = std::mem::take(&mut frame.pool.buffer);
            buffer.clear();
            f(row, &mut buffer);
            keep(frame, row, &buffer, out);
            frame.pool.buffer = buffer;
        }
    }
}

fn keep(frame: &mut Frame<'_>, row: usize, text: &[u8], out: &mut Cells) {
    let kept = frame.pool.keep(text);
    out.valid[row] = kept.is_some();
    out.values.texts_mut()[row] = kept.unwrap_or_default();
}

/// A new string for each string.
fn build(frame: &mut Frame<'_>, x: Register, out: &mut Cells, f: impl Fn(&[u8], &mut Vec<u8>)) {
    let texts = frame.texts(x);
    let mut buffer = std::mem::take(&mut frame.pool.buffer);
    for (row, &at) in texts.iter().enumerate() {
        if out.valid[row] {
            buffer.clear();
            f(frame.text(at), &mut buffer);
            keep(frame, row, &buffer, out);
        }
    }
    frame.pool.buffer = buffer;
}

/// A part of each string, or null.
fn part(frame: &Frame<'_>, x: Register, out: &mut Cells, f: impl Fn(&[u8]) -> Option<std::ops::Range<usize>>) {
    let texts = frame.texts(x);
    let values = out.values.texts_mut();
    for (row, &at) in texts.iter().enumerate() {
        let range = if out.valid[row] { f(frame.text(at)) } else { None };
        out.valid[row] = range.is_some();
        values[row] = within(at, range.unwrap_or_default());
    }
}

pub(super) fn within(text: TextRef, range: std::ops::Range<usize>) -> TextRef {
    TextRef { start: text.start + range.start as u32, length: range.len() as u32, ..text }
}

/// A value of each string, or null.
fn parse<T: Default>(
    frame: &Frame<'_>,
    x: Register,
    valid: &mut [bool],
    out: &mut [T],
    f: impl Fn(&[u8]) -> Option<T>,
) {
    for (row, &at) in frame.texts(x).iter().enumerate() {
        let value = if valid[row] { f(frame.text(at)) } else { None };
        valid[row] = value.is_some();
        out[row] = value.unwrap_or_default();
    }
}

fn split(frame: &Frame<'_>, by: &[u8], x: Register, out: &mut Cells) {
    let Values::List(Lists { ranges, items }) = &mut out.values else { unreachable!("{WRONG_INSTRUCTION}") };
    items.clear();
    for (row, &at) in frame.texts(x).iter().enumerate() {
        let first = items.valid.len();
        if out.valid[row] {
            let Values::Text(parts) = &mut items.values else { unreachable!("{WRONG_INSTRUCTION}") };
            text::split(frame.text(at), by, LIST_ITEMS_MAX + 1, |part| parts.push(within(at, part)));
            if parts.len() - first > LIST_ITEMS_MAX {
                parts.truncate(first);
                out.valid[row] = false;
            }
            let count = parts.len();
            items.valid.resize(count, true);
        }
        ranges[row] = (first as u32, items.valid.len() as u32);
    }
}
