//! Reading and writing the bytes of a sketch. What is read is hostile: every length and number is checked where it is used.

use headrace_types::{Error, ErrorCode, Result};

/// What a reader of bytes finds wrong, for the sketch `what`.
pub(crate) fn corrupt(what: &str, reason: &str) -> Error {
    Error::new(
        ErrorCode::CorruptStore,
        format!("the bytes of a {what} are damaged: {reason}"),
        "restore the file that held them",
    )
}

/// Seven bits a byte, the lowest first; the top bit says that another byte follows.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes values from the front of a slice.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks the version byte in front.
    pub(crate) fn new(what: &'static str, data: &'a [u8], version: u8) -> Result<Self> {
        let (found, rest) = data.split_first().ok_or_else(|| corrupt(what, "there are none"))?;
        if *found != version {
            let (found, newest) = (*found, version);
            return Err(if found > version {
                Error::new(
                    ErrorCode::NewerFormat,
                    format!("the bytes of a {what} have format {found}, and this version reads up to {newest}"),
                    "use a newer headrace",
                )
            } else {
                corrupt(what, "the format number is wrong")
            });
        }
        Ok(Self { what, rest })
    }

    pub(crate) fn corrupt(&self, reason: &str) -> Error {
        corrupt(self.what, reason)
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(bytes).ok_or_else(|| self.corrupt("they end too early"))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn word(&mut self) -> Result<u64> {
        let mut word = [0; 8];
        word.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(word))
    }

    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a number is too long"))
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn finish(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("something follows their end")) }
    }
}
