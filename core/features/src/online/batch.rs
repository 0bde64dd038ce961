//! Reading and writing the bytes of a batch. Bytes from a log are not trusted.

use headrace_types::{Error, ErrorCode, Field, Result, RowVersion};
use serde::{Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"HRROWS\0\0";
const FORMAT_VERSION: u32 = 1;
const FRONT_BYTES: usize = 32;
const CRC_BYTES: usize = 4;

/// What a batch says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BatchHeader {
    pub(super) view: String,
    pub(super) keys: Vec<Field>,
    pub(super) fields: Vec<Field>,
    /// Of events for aggregates, the time at which they were taken in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) now_us: Option<i64>,
    /// Whether the view's aggregates are built anew from here on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) resets: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
fn is_false(value: &bool) -> bool {
    !value
}

/// The parts of a batch but for its images, before they are bytes.
#[derive(Debug, Default)]
pub(super) struct BatchParts {
    pub(super) event_ts: Vec<i64>,
    pub(super) created_ts: Vec<i64>,
    pub(super) tombstones: Vec<u8>,
    pub(super) key_offsets: Vec<u32>,
    pub(super) keys: Vec<u8>,
}

/// The end of a batch's bytes, where its images are appended.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) bytes: Vec<u8>,
    /// Where the first one begins.
    start: usize,
    offsets: Vec<u32>,
}

impl Images {
    /// Notes the ends of `rows` images of one length, of which the first begins at `start` of the bytes.
    ///
    /// # Errors
    /// `too_large` for over 4 GiB.
    pub(super) fn end_rows(&mut self, start: usize, rows: usize, row_bytes: usize) -> Result<()> {
        let first = start - self.start;
        offset(first + rows * row_bytes)?;
        self.offsets.extend((1..=rows).map(|row| (first + row * row_bytes) as u32));
        Ok(())
    }

    /// Notes that an image, or the place of a tombstone's, ends here.
    ///
    /// # Errors
    /// `too_large` for over 4 GiB.
    pub(super) fn end_row(&mut self) -> Result<()> {
        self.offsets.push(offset(self.bytes.len() - self.start)?);
        Ok(())
    }
}

/// An offset within a part of a batch.
///
/// # Errors
/// `too_large` for over 4 GiB.
pub(super) fn offset(len: usize) -> Result<u32> {
    u32::try_from(len)
        .map_err(|_| Error::new(ErrorCode::TooLarge, "a batch of rows takes over 4 GiB", "encode fewer rows at once"))
}

impl BatchParts {
    /// The bytes, to whose end `write_images` appends the images, each row's with its end noted. There are about `images_bytes`.
    pub(super) fn to_bytes(
        &self,
        header: &BatchHeader,
        first_sequence: u64,
        images_bytes: usize,
        write_images: impl FnOnce(&mut Images) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(header)
            .map_err(|error| Error::internal(format!("the header of a batch cannot be written: {error}")))?;
        let rows = self.event_ts.len();
        let mut out = Vec::with_capacity(images_bytes + self.keys.len() + 26 * rows + json.len() + 128);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&(json.len() as u32).to_le_bytes());
        out.extend_from_slice(&(rows as u64).to_le_bytes());
        out.extend_from_slice(&first_sequence.to_le_bytes());
        pad(&mut out, &json);
        self.event_ts.iter().for_each(|ts| out.extend_from_slice(&ts.to_le_bytes()));
        self.created_ts.iter().for_each(|ts| out.extend_from_slice(&ts.to_le_bytes()));
        pad(&mut out, &self.tombstones);
        self.key_offsets.iter().for_each(|offset| out.extend_from_slice(&offset.to_le_bytes()));
        pad(&mut out, &[]);
        // The offsets of the images are known when these are written; no copy of them is made beside the bytes.
        let offsets_at = out.len();
        out.resize((offsets_at + 4 * (rows + 1)).next_multiple_of(8), 0);
        pad(&mut out, &self.keys);
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        let mut images = Images { start: out.len(), bytes: out, offsets };
        write_images(&mut images)?;
        let Images { bytes: mut out, offsets, .. } = images;
        debug_assert_eq!(offsets.len(), rows + 1);
        for (place, offset) in out[offsets_at..].chunks_exact_mut(4).zip(&offsets) {
            place.copy_from_slice(&offset.to_le_bytes());
        }
        pad(&mut out, &[]);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        Ok(out)
    }
}

/// Appends a part and the zeros after it.
fn pad(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(part);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// A batch of encoded rows, checked as a whole and read in place.
#[derive(Debug)]
pub struct EncodedBatch<'a> {
    header: BatchHeader,
    first_sequence: u64,
    event_ts: &'a [u8],
    created_ts: &'a [u8],
    tombstones: &'a [u8],
    key_offsets: &'a [u8],
    image_offsets: &'a [u8],
    keys: &'a [u8],
    images: &'a [u8],
}

impl<'a> EncodedBatch<'a> {
    /// # Errors
    /// `corrupt_store` for bytes that are cut, changed or no batch; `newer_format` for a batch of a later headrace.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.part(8)? != MAGIC {
            return Err(corrupt("it does not begin as a batch does"));
        }
        let version = reader.u32()?;
        if version != FORMAT_VERSION {
            return Err(Error::new(
                ErrorCode::NewerFormat,
                format!("a batch of rows has format {version}, this headrace reads {FORMAT_VERSION}"),
                "read the log with the headrace that wrote it",
            ));
        }
        let content = bytes.len().checked_sub(CRC_BYTES).filter(|&content| content >= FRONT_BYTES);
        let Some((content, crc)) = content.map(|content| bytes.split_at(content)) else {
            return Err(corrupt("it is cut"));
        };
        if crc != crc32fast::hash(content).to_le_bytes() {
            return Err(corrupt("its checksum does not match"));
        }
        reader.bytes = content;
        let header_len = reader.u32()? as usize;
        let rows = usize::try_from(reader.u64()?).map_err(|_| corrupt("it is cut"))?;
        let first_sequence = reader.u64()?;
        let header = serde_json::from_slice(reader.part(header_len)?)
            .map_err(|error| corrupt(&format!("its header cannot be read: {error}")))?;
        let words = |width: usize, count: usize| count.checked_mul(width).ok_or_else(|| corrupt("it is cut"));
        let event_ts = reader.part(words(8, rows)?)?;
        let created_ts = reader.part(words(8, rows)?)?;
        let tombstones = reader.part(rows)?;
        let key_offsets = reader.part(words(4, rows + 1)?)?;
        let image_offsets = reader.part(words(4, rows + 1)?)?;
        let keys = reader.part(last_offset(key_offsets)?)?;
        let images = reader.part(last_offset(image_offsets)?)?;
        if reader.at != content.len() {
            return Err(corrupt("there is more in it than its rows"));
        }
        Ok(Self { header, first_sequence, event_ts, created_ts, tombstones, key_offsets, image_offsets, keys, images })
    }

    /// The name of the view.
    pub fn view(&self) -> &str {
        &self.header.view
    }

    /// The join keys as they were when the batch was encoded.
    pub fn keys(&self) -> &[Field] {
        &self.header.keys
    }

    /// The fields as they were when the batch was encoded.
    pub fn fields(&self) -> &[Field] {
        &self.header.fields
    }

    /// When the rows were taken in, where that matters.
    pub(super) fn now_us(&self) -> Option<i64> {
        self.header.now_us
    }

    /// Whether what the view has aggregated so far is to be forgotten first.
    pub(super) fn resets(&self) -> bool {
        self.header.resets
    }

    /// The sequence number of the first row.
    pub(super) fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.tombstones.len()
    }

    /// The version of a row.
    pub fn version(&self, row: usize) -> RowVersion {
        RowVersion {
            event_ts: i64::from_le_bytes(array(self.event_ts, 8 * row)),
            created_ts: i64::from_le_bytes(array(self.created_ts, 8 * row)),
            sequence: self.first_sequence.wrapping_add(row as u64),
        }
    }

    /// Whether the row deletes its key.
    pub fn is_tombstone(&self, row: usize) -> bool {
        self.tombstones[row] != 0
    }

    /// The canonical key of a row.
    ///
    /// # Errors
    /// `corrupt_store` where the offsets run backwards.
    pub fn key(&self, row: usize) -> Result<&'a [u8]> {
        slice(self.keys, self.key_offsets, row)
    }

    /// The image of a row; empty for a tombstone.
    ///
    /// # Errors
    /// `corrupt_store` where the offsets run backwards.
    pub fn image(&self, row: usize) -> Result<&'a [u8]> {
        slice(self.images, self.image_offsets, row)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn last_offset(offsets: &[u8]) -> Result<usize> {
    let at = offsets.len().checked_sub(4).ok_or_else(|| corrupt("it is cut"))?;
    Ok(u32::from_le_bytes(array(offsets, at)) as usize)
}

fn slice<'a>(data: &'a [u8], offsets: &[u8], row: usize) -> Result<&'a [u8]> {
    let start = u32::from_le_bytes(array(offsets, 4 * row)) as usize;
    let end = u32::from_le_bytes(array(offsets, 4 * row + 4)) as usize;
    data.get(start..end).ok_or_else(|| corrupt("its offsets run backwards"))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A part, and past the zeros after it.
    fn part(&mut self, len: usize) -> Result<&'a [u8]> {
        let start = self.at;
        let end = start.checked_add(len).and_then(|end| end.checked_next_multiple_of(8));
        match end.filter(|&end| end <= self.bytes.len()) {
            Some(end) => {
                self.at = end;
                Ok(&self.bytes[start..start + len])
            }
            None => Err(corrupt("it is cut")),
        }
    }

    fn u32(&mut self) -> Result<u32> {
        match self.bytes.get(self.at..self.at + 4) {
            Some(bytes) => {
                self.at += 4;
                Ok(u32::from_le_bytes(array(bytes, 0)))
            }
            None => Err(corrupt("it is cut")),
        }
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(array(self.part(8)?, 0)))
    }
}

fn corrupt(what: &str) -> Error {
    Error::new(
        ErrorCode::CorruptStore,
        format!("a batch of encoded rows is damaged: {what}"),
        "restore the log from a copy, or materialize again",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use headrace_types::DType;

    use super::*;

    fn bytes() -> Vec<u8> {
        let header = BatchHeader {
            now_us: None,
            resets: false,
            view: "weather".into(),
            keys: vec![Field::new("origin", DType::STRING)],
            fields: vec![Field::new("temp", DType::FLOAT64)],
        };
        let parts = BatchParts {
            event_ts: vec![1, 2],
            created_ts: vec![3, 4],
            tombstones: vec![0, 1],
            key_offsets: vec![0, 3, 4],
            keys: b"abcd".to_vec(),
        };
        let write_images = |images: &mut Images| {
            images.bytes.extend_from_slice(b"image");
            images.end_row()?;
            images.end_row()
        };
        parts.to_bytes(&header, 7, 5, write_images).unwrap()
    }

    #[test]
    fn a_batch_survives_its_bytes() {
        let bytes = bytes();
        let batch = EncodedBatch::decode(&bytes).unwrap();
        assert_eq!((batch.view(), batch.rows()), ("weather", 2));
        assert_eq!(batch.version(1), RowVersion { event_ts: 2, created_ts: 4, sequence: 8 });
        assert_eq!((batch.key(0).unwrap(), batch.key(1).unwrap()), (&b"abc"[..], &b"d"[..]));
        assert_eq!((batch.image(0).unwrap(), batch.image(1).unwrap()), (&b"image"[..], &b""[..]));
        assert!(batch.is_tombstone(1) && !batch.is_tombstone(0));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let bytes = bytes();
        for len in 0..bytes.len() {
            assert!(EncodedBatch::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(EncodedBatch::decode(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn forged_bytes_with_a_right_checksum_do_no_harm() {
        let bytes = bytes();
        let content = bytes.len() - CRC_BYTES;
        for at in 16..content {
            for value in [0, 1, 0x7f, 0xff] {
                let mut forged = bytes[..content].to_vec();
                forged[at] = value;
                let crc = crc32fast::hash(&forged);
                forged.extend_from_slice(&crc.to_le_bytes());
                if let Ok(batch) = EncodedBatch::decode(&forged) {
                    for row in 0..batch.rows() {
                        let _ = (batch.version(row), batch.key(row), batch.image(row));
                    }
                }
            }
        }
    }
}
