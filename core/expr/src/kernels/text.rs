//! Strings, one at a time. All that comes in is UTF-8, as strings are; ASCII is worked on as bytes.

use std::ops::Range;

use memchr::memmem;

use crate::ops::{Comparison, Letters, Side, TextTest};

/// The bytes as a string; an empty one if they were none, which no string is.
fn string(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap_or_default()
}

/// Lower or upper case by the rules of Unicode, whatever the language; the length may change.
pub(crate) fn letters(letters: Letters, text: &[u8], out: &mut Vec<u8>) {
    if text.is_ascii() {
        out.extend_from_slice(text);
        match letters {
            Letters::Lower => out.make_ascii_lowercase(),
            Letters::Upper => out.make_ascii_uppercase(),
        }
        return;
    }
    let changed = match letters {
        Letters::Lower => string(text).to_lowercase(),
        Letters::Upper => string(text).to_uppercase(),
    };
    out.extend_from_slice(changed.as_bytes());
}

/// What is left without the characters, or without white space, at the ends.
pub(crate) fn strip(side: Side, characters: &[u8], text: &[u8]) -> Option<Range<usize>> {
    if characters.is_empty()
        && let Some(range) = strip_ascii(side, text)
    {
        return Some(range);
    }
    let (text, characters) = (string(text), string(characters));
    let goes = |c: char| if characters.is_empty() { c.is_whitespace() } else { characters.contains(c) };
    let end = if side == Side::Start { text.len() } else { text.trim_end_matches(goes).len() };
    let start = if side == Side::End { 0 } else { end - text[..end].trim_start_matches(goes).len() };
    Some(start..end)
}

/// [`strip`] of white space, as long as only ASCII is met at the ends.
fn strip_ascii(side: Side, text: &[u8]) -> Option<Range<usize>> {
    let is_space = |byte: u8| matches!(byte, b'\t'..=b'\r' | b' ');
    let (mut start, mut end) = (0, text.len());
    if side != Side::Start {
        while end > 0 && is_space(text[end - 1]) {
            end -= 1;
        }
    }
    if side != Side::End {
        while start < end && is_space(text[start]) {
            start += 1;
        }
    }
    let ends = text.get(start).into_iter().chain(end.checked_sub(1).map(|last| &text[last]));
    ends.fold(true, |ascii, byte| ascii & byte.is_ascii()).then_some(start..end)
}

/// The number of characters (Unicode scalar values).
pub(crate) fn length(text: &[u8]) -> i64 {
    // A character has one byte that does not continue another.
    text.iter().filter(|byte| (**byte & 0xc0) != 0x80).count() as i64
}

pub(crate) fn compare(op: Comparison, x: &[u8], y: &[u8]) -> bool {
    match op {
        Comparison::Eq => x == y,
        Comparison::Ne => x != y,
        Comparison::Lt => x < y,
        Comparison::Le => x <= y,
        Comparison::Gt => x > y,
        Comparison::Ge => x >= y,
    }
}

pub(crate) fn test(test: TextTest, text: &[u8], part: &[u8]) -> bool {
    match test {
        TextTest::Contains => memmem::find(text, part).is_some(),
        TextTest::StartsWith => text.starts_with(part),
        TextTest::EndsWith => text.ends_with(part),
    }
}

/// Puts `new` in the place of every `old`, from the left; an empty `old` stands before every character and at the end.
pub(crate) fn replace(text: &[u8], old: &[u8], new: &[u8], out: &mut Vec<u8>) {
    // One byte more than is kept says that it was too long, and ends the work.
    let is_full = |out: &Vec<u8>| out.len() > crate::cells::TEXT_BYTES_MAX;
    if old.is_empty() {
        for character in string(text).chars() {
            if is_full(out) {
                return;
            }
            out.extend_from_slice(new);
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.extend_from_slice(new);
        return;
    }
    let mut rest = 0;
    for found in memmem::find_iter(text, old) {
        if is_full(out) {
            return;
        }
        out.extend_from_slice(&text[rest..found]);
        out.extend_from_slice(new);
        rest = found + old.len();
    }
    out.extend_from_slice(&text[rest..]);
}

/// Characters from `start` on, at most `length` of them; a negative start counts from the end, and may lie before the string.
pub(crate) fn slice(text: &[u8], start: i64, length: i64) -> Range<usize> {
    let count = self::length(text);
    let first = if start < 0 { count.saturating_add(start) } else { start };
    let last = first.saturating_add(length.max(0)).clamp(0, count);
    let first = first.clamp(0, last);
    if text.is_ascii() {
        return first as usize..last as usize;
    }
    let mut starts = string(text).char_indices().map(|(at, _)| at).chain([text.len()]);
    let from = starts.nth(first as usize).unwrap_or(text.len());
    let to = if last == first { from } else { starts.nth((last - first - 1) as usize).unwrap_or(text.len()) };
    from..to
}

/// The parts between separators, `most` at the most.
pub(crate) fn split(text: &[u8], by: &[u8], most: usize, mut part: impl FnMut(Range<usize>)) {
    let mut rest = 0;
    for found in memmem::find_iter(text, by).take(most - 1) {
        part(rest..found);
        rest = found + by.len();
    }
    part(rest..text.len());
}

/// Decimal digits with or without a sign; null outside 64 bits.
pub(crate) fn parse_int(text: &[u8]) -> Option<i64> {
    string(text).parse().ok()
}

/// A decimal number with or without sign, point and exponent, or nan, inf, infinity in any case.
pub(crate) fn parse_float(text: &[u8]) -> Option<f64> {
    string(text).parse().ok()
}

/// `true` or `false` in any case.
pub(crate) fn parse_bool(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"true") { Some(true) } else { text.eq_ignore_ascii_case(b"false").then_some(false) }
}

/// The shortest decimal number that reads back as the same float: 1.0, 0.0001, 1e-5, 1e16, nan, inf, -inf.
pub(crate) fn write_float(x: f64, out: &mut Vec<u8>) {
    use std::io::Write;
    if x.is_nan() {
        out.extend_from_slice(b"nan");
    } else {
        // Writing to memory does not fail.
        let _ = write!(out, "{x:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sliced(text: &str, start: i64, length: i64) -> &str {
        &text[slice(text.as_bytes(), start, length)]
    }

    #[test]
    fn slices_count_characters() {
        assert_eq!(sliced("hello", 1, 3), "ell");
        assert_eq!(sliced("hello", -3, 2), "ll");
        assert_eq!(sliced("hello", -9, 5), "h");
        assert_eq!(sliced("hello", 9, 5), "");
        assert_eq!(sliced("h\u{e9}llo", 1, 2), "\u{e9}l");
        assert_eq!(sliced("h\u{e9}llo", 1, i64::MAX), "\u{e9}llo");
        assert_eq!(sliced("h\u{e9}llo", i64::MIN, 5), "");
        assert_eq!(sliced("hello", 2, -1), "");
    }

    #[test]
    fn white_space_is_that_of_unicode() {
        let stripped = |side, text: &'static str| &text[strip(side, b"", text.as_bytes()).unwrap_or_default()];
        for text in [" \t\r\n", "", "\u{2003}", " \u{2003} \u{a0}"] {
            assert_eq!(stripped(Side::Both, text), "");
        }
        assert_eq!(stripped(Side::Both, " \u{2003}a b\u{e9} "), "a b\u{e9}");
        assert_eq!(stripped(Side::Start, " a "), "a ");
        assert_eq!(stripped(Side::End, " a\u{2003}"), " a");
    }

    #[test]
    fn floats_read_back() {
        for (x, expected) in [(1.0, "1.0"), (1e16, "1e16"), (1e-5, "1e-5"), (0.0001, "0.0001"), (f64::INFINITY, "inf")]
        {
            let mut text = Vec::new();
            write_float(x, &mut text);
            assert_eq!(string(&text), expected);
            assert_eq!(parse_float(&text), Some(x));
        }
    }
}
