//! A reader of Universal Binary JSON (draft 12), as far as XGBoost writes it. Numbers are big-endian.
//!
//! ```text
//!   value   Z | T | F | i8 'i' | u8 'U' | i16 'I' | i32 'l' | i64 'L' | f32 'd' | f64 'D' | char 'C'
//!           'S' length bytes | '[' array | '{' object
//!   array   value* ']'  |  '#' length value{length}  |  '$' type '#' length payload{length}
//!   object  (length bytes value)* '}'  |  '#' length (length bytes value){length}
//!   length  a value of an integer type
//! ```
//! Memory stays in proportion to the input: nothing is reserved for a claimed length before that many bytes are seen to
//! be there.

use std::collections::BTreeMap;

use headrace_types::Result;

use crate::document::{ArrayBuilder, Document, corrupt};

/// Arrays and objects inside each other.
const DEPTH_MAX: u32 = 64;

/// # Errors
/// `corrupt_model` with the offset of the first fault.
pub(crate) fn read(bytes: &[u8]) -> Result<Document> {
    let mut reader = Reader { bytes, at: 0 };
    let read = reader.marker().and_then(|marker| reader.value(marker, 0));
    let document = read.map_err(|error| error.within(format!("UBJSON, byte {}", reader.at)))?;
    if reader.at != bytes.len() {
        return Err(corrupt(format!("UBJSON: {} bytes follow the end of the model", bytes.len() - reader.at)));
    }
    Ok(document)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest
            .get(..count)
            .ok_or_else(|| corrupt(format!("{count} bytes were expected, the file ends after {}", rest.len())))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// The next marker; `N` is padding that means nothing.
    fn marker(&mut self) -> Result<u8> {
        loop {
            match self.byte()? {
                b'N' => {}
                marker => return Ok(marker),
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn value(&mut self, marker: u8, depth: u32) -> Result<Document> {
        if depth > DEPTH_MAX {
            return Err(corrupt(format!("arrays and objects lie more than {DEPTH_MAX} deep")));
        }
        Ok(match marker {
            b'Z' => Document::Null,
            b'T' => Document::Bool(true),
            b'F' => Document::Bool(false),
            b'S' => Document::Text(self.string()?),
            b'[' => self.read_array(depth)?,
            b'{' => self.read_object(depth)?,
            marker => Document::Number(self.number(marker)?),
        })
    }

    #[allow(clippy::cast_precision_loss)] // beyond 2^53 a number cannot be an index, and `whole` refuses it
    fn number(&mut self, marker: u8) -> Result<f64> {
        Ok(match marker {
            b'i' => i8::from_be_bytes(self.array()?).into(),
            b'U' | b'C' => self.byte()?.into(),
            b'I' => i16::from_be_bytes(self.array()?).into(),
            b'l' => i32::from_be_bytes(self.array()?).into(),
            b'L' => i64::from_be_bytes(self.array()?) as f64,
            b'd' => f32::from_be_bytes(self.array()?).into(),
            b'D' => f64::from_be_bytes(self.array()?),
            other => return Err(corrupt(format!("0x{other:02x} is not the marker of a value"))),
        })
    }

    fn length(&mut self) -> Result<usize> {
        let length = match self.marker()? {
            b'i' => i8::from_be_bytes(self.array()?).into(),
            b'U' => self.byte()?.into(),
            b'I' => i16::from_be_bytes(self.array()?).into(),
            b'l' => i32::from_be_bytes(self.array()?).into(),
            b'L' => i64::from_be_bytes(self.array()?),
            other => return Err(corrupt(format!("0x{other:02x} is not the marker of a length"))),
        };
        usize::try_from(length).map_err(|_| corrupt(format!("{length} is not a length")))
    }

    fn string(&mut self) -> Result<String> {
        let length = self.length()?;
        let bytes = self.take(length)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn read_array(&mut self, depth: u32) -> Result<Document> {
        let mut array = ArrayBuilder::new();
        match self.peek() {
            Some(b'$') => {
                self.at += 1;
                let marker = self.byte()?;
                self.expect(b'#')?;
                let length = self.length()?;
                return Ok(Document::Numbers(self.typed(marker, length)?));
            }
            Some(b'#') => {
                self.at += 1;
                for _ in 0..self.length()? {
                    let marker = self.marker()?;
                    array.push(self.value(marker, depth + 1)?);
                }
            }
            _ => loop {
                match self.marker()? {
                    b']' => break,
                    marker => array.push(self.value(marker, depth + 1)?),
                }
            },
        }
        Ok(array.finish())
    }

    fn expect(&mut self, wanted: u8) -> Result<()> {
        match self.byte()? {
            found if found == wanted => Ok(()),
            found => Err(corrupt(format!("'{}' was expected, 0x{found:02x} found", char::from(wanted)))),
        }
    }

    fn typed(&mut self, marker: u8, length: usize) -> Result<Vec<f64>> {
        let size = match marker {
            b'i' | b'U' | b'C' => 1,
            b'I' => 2,
            b'l' | b'd' => 4,
            b'L' | b'D' => 8,
            other => return Err(corrupt(format!("0x{other:02x} is not the type of an array of numbers"))),
        };
        let available = self.bytes.len() - self.at;
        if length.checked_mul(size).is_none_or(|bytes| bytes > available) {
            return Err(corrupt(format!("an array claims {length} numbers, the file ends after {available} bytes")));
        }
        (0..length).map(|_| self.number(marker)).collect()
    }

    fn read_object(&mut self, depth: u32) -> Result<Document> {
        let mut entries = BTreeMap::new();
        match self.peek() {
            Some(b'$') => return Err(corrupt("an object with one type for all its values is not read")),
            Some(b'#') => {
                self.at += 1;
                for _ in 0..self.length()? {
                    self.entry(depth, &mut entries)?;
                }
            }
            _ => loop {
                match self.peek() {
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    Some(b'N') => self.at += 1,
                    _ => self.entry(depth, &mut entries)?,
                }
            },
        }
        Ok(Document::Object(entries))
    }

    fn entry(&mut self, depth: u32, entries: &mut BTreeMap<String, Document>) -> Result<()> {
        let key = self.string()?;
        let marker = self.marker()?;
        let value = self.value(marker, depth + 1)?;
        entries.insert(key, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_form_is_read() {
        let document =
            read(b"{U\x01a[$d#l\0\0\0\x02\x3f\xc0\0\0\xc0\0\0\0i\x01b[#U\x02TSU\x02hiU\x01c[Z]U\x01dI\x01\0}").unwrap();
        assert_eq!(document.numbers("a").unwrap(), [1.5, -2.0]);
        assert_eq!(document.list("b").unwrap(), [Document::Number(1.0), Document::Text("hi".into())]);
        assert_eq!(document.list("c").unwrap(), [Document::Null]);
        assert_eq!(document.count("d").unwrap(), 256);
    }

    #[test]
    fn faults_are_named_with_their_offset() {
        for (bytes, message) in [
            (&b""[..], "1 bytes were expected"),
            (b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff", "claims 9223372036854775807 numbers"),
            (b"[$T#L\x7f\xff\xff\xff\xff\xff\xff\xff", "0x54 is not the type"),
            (b"[#L\x7f\xff\xff\xff\xff\xff\xff\xffT", "the file ends after 0"),
            (b"SL\xff\xff\xff\xff\xff\xff\xff\xff", "-1 is not a length"),
            (b"TT", "1 bytes follow"),
            (b"?", "0x3f is not the marker"),
            (b"{U\x01a", "UBJSON, byte 4"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.message.contains(message), "{error}");
        }
        assert!(read(&b"[".repeat(1 << 20)).unwrap_err().message.contains("64 deep"));
    }
}
