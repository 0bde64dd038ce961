//! Protobuf's wire format: fields read in place, without memory of their own, and fields written to a buffer.

use headrace_types::{Error, ErrorCode, Result};

/// What stands in a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// The fields of a message, in their order.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    /// What the message is, for errors.
    message: &'static str,
    rest: &'a [u8],
}

/// A field's number and content.
pub(super) type Field<'a> = (u32, Wire<'a>);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    /// The next field; `None` at the end.
    ///
    /// # Errors
    /// `invalid_argument` for what is not protobuf.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or_else(|| self.broken("a field's number is out of range"))?;
        let content = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed()?),
            2 => {
                let length = self.varint()?;
                let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
                let Some((bytes, rest)) = split else {
                    let left = self.rest.len();
                    return Err(self.broken(format_args!("field {number} has {length} bytes, {left} are left")));
                };
                self.rest = rest;
                Wire::Bytes(bytes)
            }
            5 => Wire::Fixed32(self.fixed()?),
            other => return Err(self.broken(format_args!("field {number} has the wire type {other}"))),
        };
        Ok(Some((number, content)))
    }

    fn varint(&mut self) -> Result<u64> {
        let (value, rest) = split_varint(self.rest).ok_or_else(|| self.broken("a number has no end"))?;
        self.rest = rest;
        Ok(value)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.broken("it ends within a number"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn broken(&self, what: impl std::fmt::Display) -> Error {
        broken(self.message, what)
    }

    /// # Errors
    /// `invalid_argument` when something else stands there.
    pub(super) fn bytes(&self, number: u32, content: Wire<'a>) -> Result<&'a [u8]> {
        match content {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong_type(number)),
        }
    }

    /// # Errors
    /// `invalid_argument` when something else stands there, or no UTF-8.
    pub(super) fn text(&self, number: u32, content: Wire<'a>) -> Result<&'a str> {
        let bytes = self.bytes(number, content)?;
        std::str::from_utf8(bytes).map_err(|_| self.broken(format_args!("field {number} is not UTF-8")))
    }

    /// # Errors
    /// `invalid_argument` when something else stands there.
    pub(super) fn number(&self, number: u32, content: Wire<'a>) -> Result<u64> {
        match content {
            Wire::Varint(value) => Ok(value),
            _ => Err(self.wrong_type(number)),
        }
    }

    /// # Errors
    /// `invalid_argument`.
    pub(super) fn wrong_type(&self, number: u32) -> Error {
        self.broken(format_args!("field {number} is not of its type"))
    }

    /// A repeated number, packed or alone, is given to `each`.
    ///
    /// # Errors
    /// `invalid_argument` for what is no such number; those of `each`.
    pub(super) fn varints(
        &self,
        number: u32,
        content: Wire<'a>,
        mut each: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        match content {
            Wire::Varint(value) => each(value),
            Wire::Bytes(mut packed) => {
                while !packed.is_empty() {
                    let (value, rest) = split_varint(packed).ok_or_else(|| self.wrong_type(number))?;
                    packed = rest;
                    each(value)?;
                }
                Ok(())
            }
            _ => Err(self.wrong_type(number)),
        }
    }
}

pub(super) fn broken(message: &str, what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("the message is not a {message}: {what}"),
        "send what core/protocol/proto defines, or ask the server's reflection for it",
    )
}

fn split_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    if let [byte, rest @ ..] = bytes
        && *byte < 0x80
    {
        return Some((u64::from(*byte), rest));
    }
    let mut value = 0u64;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        // The tenth byte holds one bit; as elsewhere, more of them are cut off.
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u64) {
    put_varint(out, u64::from(number) << 3 | wire_type);
}

/// A number, also where it is the default.
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_key(out, number, 0);
    put_varint(out, value);
}

/// A float64, also where it is the default.
pub(super) fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_key(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Text or bytes, also where they are empty.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_bytes_head(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// The beginning of a field of so many bytes.
pub(super) fn put_bytes_head(out: &mut Vec<u8>, number: u32, length: usize) {
    put_key(out, number, 2);
    put_varint(out, length as u64);
}

/// Text, left out where it is empty.
pub(super) fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
}

/// A message or a packed list; its length is put in front when it is known.
pub(super) fn put_nested(out: &mut Vec<u8>, number: u32, content: impl FnOnce(&mut Vec<u8>)) {
    put_key(out, number, 2);
    let begin = out.len();
    // Most are short: one byte of length.
    out.push(0);
    content(out);
    let length = out.len() - begin - 1;
    if length < 0x80 {
        out[begin] = length.to_le_bytes()[0];
        return;
    }
    let mut head = Vec::with_capacity(10);
    put_varint(&mut head, length as u64);
    out.splice(begin..=begin, head);
}

/// A list of float64, packed.
pub(super) fn put_doubles(out: &mut Vec<u8>, number: u32, values: &[f64]) {
    put_bytes_head(out, number, values.len() * 8);
    put_le_doubles(out, values);
}

/// Little-endian, one after the other.
pub(super) fn put_le_doubles(out: &mut Vec<u8>, values: &[f64]) {
    out.reserve(values.len() * 8);
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_come_back_as_they_were_put() {
        let mut out = Vec::new();
        put_number(&mut out, 1, u64::MAX);
        put_double(&mut out, 2, -0.5);
        put_text(&mut out, 3, "");
        put_nested(&mut out, 4, |out| put_text(out, 1, &"x".repeat(300)));
        put_doubles(&mut out, 1 << 20, &[1.0, 2.0]);
        let mut fields = Fields::of("test", &out);
        assert_eq!(fields.next().unwrap(), Some((1, Wire::Varint(u64::MAX))));
        assert_eq!(fields.next().unwrap(), Some((2, Wire::Fixed64((-0.5_f64).to_le_bytes()))));
        let (number, nested) = fields.next().unwrap().unwrap();
        let mut inner = Fields::of("inner", fields.bytes(number, nested).unwrap());
        let (number, text) = inner.next().unwrap().unwrap();
        assert_eq!(inner.text(number, text).unwrap().len(), 300);
        let (number, Wire::Bytes(packed)) = fields.next().unwrap().unwrap() else { panic!("no list") };
        assert_eq!((number, packed.len()), (1 << 20, 16));
        assert_eq!(fields.next().unwrap(), None);
    }

    #[test]
    fn what_is_not_protobuf_is_refused() {
        for (bytes, part) in [
            (&[0x00][..], "out of range"),
            (&[0x80], "no end"),
            (&[0x08], "no end"),
            (&[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], "no end"),
            (&[0x09, 1, 2, 3], "within a number"),
            (&[0x0d, 1], "within a number"),
            (&[0x0a, 0x05, 1], "5 bytes, 1 are left"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "are left"),
            (&[0x0b], "wire type 3"),
            (&[0x0f], "wire type 7"),
        ] {
            let error = Fields::of("test", bytes).next().unwrap_err();
            assert!(error.message.contains(part) && error.message.contains("a test"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_number_survives(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(split_varint(&out), Some((value, &[][..])));
        }

        #[test]
        fn random_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut fields = Fields::of("test", &bytes);
            while let Ok(Some((number, content))) = fields.next() {
                drop(fields.varints(number, content, |_| Ok(())));
            }
        }
    }
}
