//! The image of one view's values: what a writer hands to the table, and what the log holds.
//!
//! ```text
//! null bits    u64 words, bit i is field i
//! values       packed in field order, little endian; a null float is NaN, any other null is zero
//!              a string, bytes or list has 16 bytes: u32 length, u32 zero, u64 offset into the bytes below
//! bytes        of the strings, bytes and lists
//! ```
//! A list's bytes are: u32 count, null bits in ceil(count / 8) bytes, then each item: its width, or u32 length and bytes.

use headrace_types::{DType, Error, ErrorCode, Field, Result, ScalarType, Value};

use super::schema::{VAR_SLOT_BYTES, is_var, slot_bytes};

/// A row's values for one view, as an upsert takes them.
#[derive(Debug, Clone, Copy)]
pub enum RowValues<'a> {
    /// An image made by [`ImageLayout`] of the view's fields.
    Live(&'a [u8]),
    /// The row is deleted as of its version.
    Tombstone,
}

/// Where the values of a list of fields lie in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayout {
    fields: Vec<Field>,
    offsets: Vec<usize>,
    /// Positions of the fields without a fixed width.
    var_fields: Vec<usize>,
    nulls_bytes: usize,
    fixed_bytes: usize,
}

impl ImageLayout {
    pub fn new(fields: &[Field]) -> Self {
        let nulls_bytes = fields.len().div_ceil(64) * 8;
        let mut fixed_bytes = nulls_bytes;
        let offsets = fields
            .iter()
            .map(|field| {
                let offset = fixed_bytes;
                fixed_bytes += slot_bytes(field.dtype);
                offset
            })
            .collect();
        let var_fields = (0..fields.len()).filter(|&field| is_var(fields[field].dtype)).collect();
        Self { fields: fields.to_vec(), offsets, var_fields, nulls_bytes, fixed_bytes }
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Bytes of the null bits.
    pub fn nulls_bytes(&self) -> usize {
        self.nulls_bytes
    }

    /// Bytes of an image before the bytes of its strings and lists.
    pub fn fixed_bytes(&self) -> usize {
        self.fixed_bytes
    }

    /// Where a field's value begins in an image.
    pub fn value_offset(&self, field: usize) -> usize {
        self.offsets[field]
    }

    /// Marks a field null and gives its value the null's bytes.
    pub fn set_null(&self, image: &mut [u8], field: usize) {
        image[field / 8] |= 1 << (field % 8);
        let at = self.offsets[field];
        match self.fields[field].dtype {
            DType::FLOAT32 => image[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes()),
            DType::FLOAT64 => image[at..at + 8].copy_from_slice(&f64::NAN.to_le_bytes()),
            dtype => image[at..at + slot_bytes(dtype)].fill(0),
        }
    }

    pub fn is_null(&self, image: &[u8], field: usize) -> bool {
        image[field / 8] & 1 << (field % 8) != 0
    }

    /// Appends the bytes of a string, bytes or list to the image that begins at `start` of `out`, and points its slot to them.
    ///
    /// # Errors
    /// `too_large` for a value of 4 GiB or more.
    pub fn push_var(&self, out: &mut Vec<u8>, start: usize, field: usize, bytes: &[u8]) -> Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| {
            let name = &self.fields[field].name;
            Error::new(ErrorCode::TooLarge, format!("a value of '{name}' takes over 4 GiB"), "store a shorter value")
        })?;
        let offset = (out.len() - start - self.fixed_bytes) as u64;
        let at = start + self.offsets[field];
        out[at..at + 4].copy_from_slice(&len.to_le_bytes());
        out[at + 4..at + 8].fill(0);
        out[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(bytes);
        Ok(())
    }

    /// The bytes of a string, bytes or list.
    ///
    /// # Errors
    /// `corrupt_store` when the slot points outside the image.
    pub fn var<'a>(&self, image: &'a [u8], field: usize) -> Result<&'a [u8]> {
        let slot = &image[self.offsets[field]..self.offsets[field] + VAR_SLOT_BYTES];
        let len = u64::from(u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]]));
        let mut offset = [0; 8];
        offset.copy_from_slice(&slot[8..]);
        let start = u64::from_le_bytes(offset).saturating_add(self.fixed_bytes as u64);
        let end = start.saturating_add(len);
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) if end <= image.len() => Ok(&image[start..end]),
            _ => Err(corrupt(&self.fields[field], "points outside its row")),
        }
    }

    /// Appends the image of some values.
    ///
    /// # Errors
    /// `length_mismatch` for another number of values; `type_mismatch` naming the field whose value is not of its type.
    pub fn encode(&self, values: &[Value], out: &mut Vec<u8>) -> Result<()> {
        if values.len() != self.fields.len() {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("a row of {} values was given for {} fields", values.len(), self.fields.len()),
                "give one value (or null) for each field of the view",
            ));
        }
        let start = out.len();
        out.resize(start + self.fixed_bytes, 0);
        for (i, value) in values.iter().enumerate() {
            let field = &self.fields[i];
            if !value.fits(field.dtype) {
                out.truncate(start);
                return Err(Error::new(
                    ErrorCode::TypeMismatch,
                    format!("field '{}' is a {}, {value:?} was given", field.name, field.dtype),
                    format!("give a {} or null", field.dtype),
                ));
            }
            if value.is_null() {
                self.set_null(&mut out[start..], i);
            } else if is_var(field.dtype) {
                let mut bytes = Vec::new();
                encode_var(field.dtype, value, &mut bytes);
                self.push_var(out, start, i, &bytes)?;
            } else {
                let at = start + self.offsets[i];
                put_scalar(field.dtype.element(), value, &mut out[at..at + slot_bytes(field.dtype)]);
            }
        }
        Ok(())
    }

    /// The values of an image.
    ///
    /// # Errors
    /// `corrupt_store` when the image is not one of this layout.
    pub fn decode(&self, image: &[u8]) -> Result<Vec<Value>> {
        self.check(image)?;
        (0..self.fields.len()).map(|field| self.value(image, field)).collect()
    }

    /// One value of an image that has been checked.
    ///
    /// # Errors
    /// `corrupt_store` when it cannot be read.
    pub fn value(&self, image: &[u8], field: usize) -> Result<Value> {
        let dtype = self.fields[field].dtype;
        if self.is_null(image, field) {
            Ok(Value::Null)
        } else if is_var(dtype) {
            decode_var(dtype, self.var(image, field)?).ok_or_else(|| corrupt(&self.fields[field], "cannot be read"))
        } else {
            let at = self.offsets[field];
            Ok(get_scalar(dtype.element(), &image[at..at + slot_bytes(dtype)]))
        }
    }

    /// Whether the image is one of this layout: long enough, its strings within it and well formed.
    ///
    /// # Errors
    /// `corrupt_store` naming the field.
    pub fn check(&self, image: &[u8]) -> Result<()> {
        if image.len() < self.fixed_bytes {
            return Err(Error::new(
                ErrorCode::CorruptStore,
                format!("a row of {} bytes was given, its fields take at least {}", image.len(), self.fixed_bytes),
                "encode the row with the fields of its view",
            ));
        }
        for &i in &self.var_fields {
            let field = &self.fields[i];
            if !self.is_null(image, i) {
                let bytes = self.var(image, i)?;
                if !is_well_formed(field.dtype, bytes) {
                    return Err(corrupt(field, "cannot be read"));
                }
            }
        }
        Ok(())
    }
}

/// Rewrites images of one list of fields for another: by name, and null where the name or the type is new.
#[derive(Debug)]
pub struct ImageMapper {
    from: ImageLayout,
    to: ImageLayout,
    /// For each field of `to`, its position in `from`.
    sources: Vec<Option<usize>>,
}

impl ImageMapper {
    pub fn new(from: &[Field], to: &[Field]) -> Self {
        let sources = to.iter().map(|field| from.iter().position(|old| old == field)).collect();
        Self { from: ImageLayout::new(from), to: ImageLayout::new(to), sources }
    }

    /// Whether images need no rewriting.
    pub fn is_identity(&self) -> bool {
        self.from == self.to
    }

    /// Whether the image is one of the old fields.
    ///
    /// # Errors
    /// `corrupt_store` naming the field.
    pub fn check(&self, image: &[u8]) -> Result<()> {
        self.from.check(image)
    }

    /// Appends the rewritten image.
    ///
    /// # Errors
    /// `corrupt_store` when the image is not one of the old fields.
    pub fn map(&self, image: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.from.check(image)?;
        let start = out.len();
        out.resize(start + self.to.fixed_bytes, 0);
        for (i, &source) in self.sources.iter().enumerate() {
            let dtype = self.to.fields[i].dtype;
            match source {
                Some(source) if !self.from.is_null(image, source) => {
                    if is_var(dtype) {
                        self.to.push_var(out, start, i, self.from.var(image, source)?)?;
                    } else {
                        let (from, at) = (self.from.offsets[source], start + self.to.offsets[i]);
                        let width = slot_bytes(dtype);
                        out[at..at + width].copy_from_slice(&image[from..from + width]);
                    }
                }
                _ => self.to.set_null(&mut out[start..], i),
            }
        }
        Ok(())
    }
}

/// Appends the bytes of a string, bytes or list value.
pub fn encode_var(dtype: DType, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => out.extend_from_slice(text.as_bytes()),
        Value::Bytes(bytes) => out.extend_from_slice(bytes),
        Value::List(items) => {
            out.extend_from_slice(&(items.len() as u32).to_le_bytes());
            let nulls = out.len();
            out.resize(nulls + items.len().div_ceil(8), 0);
            for (i, item) in items.iter().enumerate() {
                if item.is_null() {
                    out[nulls + i / 8] |= 1 << (i % 8);
                }
                put_item(dtype.element(), item, out);
            }
        }
        _ => {}
    }
}

fn put_item(element: ScalarType, item: &Value, out: &mut Vec<u8>) {
    if let Some(width) = element.width_bytes() {
        let at = out.len();
        out.resize(at + width, 0);
        put_scalar(element, item, &mut out[at..]);
        return;
    }
    let bytes: &[u8] = match item {
        Value::String(text) => text.as_bytes(),
        Value::Bytes(bytes) => bytes,
        _ => &[],
    };
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The value of a string's, bytes' or list's bytes; `None` when they are malformed.
pub(super) fn decode_var(dtype: DType, bytes: &[u8]) -> Option<Value> {
    match dtype {
        DType::Scalar(ScalarType::String) => Some(Value::String(std::str::from_utf8(bytes).ok()?.to_owned())),
        DType::Scalar(_) => Some(Value::Bytes(bytes.to_vec())),
        DType::List(element) => {
            let mut items = Vec::new();
            visit_list(element, bytes, |item| items.push(item))?;
            Some(Value::List(items))
        }
    }
}

fn is_well_formed(dtype: DType, bytes: &[u8]) -> bool {
    match dtype {
        DType::Scalar(ScalarType::String) => std::str::from_utf8(bytes).is_ok(),
        DType::Scalar(_) => true,
        DType::List(element) => visit_list(element, bytes, |_| {}).is_some(),
    }
}

fn visit_list(element: ScalarType, bytes: &[u8], mut visit: impl FnMut(Value)) -> Option<()> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (nulls, mut rest) = rest.split_at_checked(count.div_ceil(8))?;
    for i in 0..count {
        let len = match element.width_bytes() {
            Some(width) => width,
            None => {
                let (len, after) = rest.split_first_chunk::<4>()?;
                rest = after;
                u32::from_le_bytes(*len) as usize
            }
        };
        let (item, after) = rest.split_at_checked(len)?;
        rest = after;
        let is_null = nulls[i / 8] & 1 << (i % 8) != 0;
        visit(match element {
            _ if is_null => Value::Null,
            ScalarType::String => Value::String(std::str::from_utf8(item).ok()?.to_owned()),
            ScalarType::Bytes => Value::Bytes(item.to_vec()),
            scalar => get_scalar(scalar, item),
        });
    }
    rest.is_empty().then_some(())
}

fn put_scalar(scalar: ScalarType, value: &Value, out: &mut [u8]) {
    let word = match *value {
        Value::Bool(v) => u64::from(v),
        Value::Int(v) | Value::Timestamp(v) => v as u64,
        Value::UInt(v) => v,
        Value::Float32(v) => u64::from(v.to_bits()),
        Value::Float64(v) => v.to_bits(),
        _ if scalar == ScalarType::Float32 => u64::from(f32::NAN.to_bits()),
        _ if scalar == ScalarType::Float64 => f64::NAN.to_bits(),
        _ => 0,
    };
    let width = out.len();
    out.copy_from_slice(&word.to_le_bytes()[..width]);
}

/// The value of a scalar's bytes, of its width.
pub(super) fn get_scalar(scalar: ScalarType, bytes: &[u8]) -> Value {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    scalar_from_word(scalar, u64::from_le_bytes(word))
}

/// The value in the low bytes of a word.
pub(super) fn scalar_from_word(scalar: ScalarType, word: u64) -> Value {
    match scalar {
        ScalarType::Bool => Value::Bool(word & 0xff != 0),
        ScalarType::Int8 => Value::Int(i64::from(word as i8)),
        ScalarType::Int16 => Value::Int(i64::from(word as i16)),
        ScalarType::Int32 => Value::Int(i64::from(word as i32)),
        ScalarType::Int64 => Value::Int(word as i64),
        ScalarType::UInt8 => Value::UInt(u64::from(word as u8)),
        ScalarType::UInt16 => Value::UInt(u64::from(word as u16)),
        ScalarType::UInt32 => Value::UInt(u64::from(word as u32)),
        ScalarType::UInt64 => Value::UInt(word),
        ScalarType::Float32 => Value::Float32(f32::from_bits(word as u32)),
        ScalarType::Float64 => Value::Float64(f64::from_bits(word)),
        ScalarType::Timestamp => Value::Timestamp(word as i64),
        ScalarType::String | ScalarType::Bytes => Value::Null,
    }
}

fn corrupt(field: &Field, what: &str) -> Error {
    Error::new(
        ErrorCode::CorruptStore,
        format!("the stored value of '{}' {what}", field.name),
        "restore the store from its log, or materialize again",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields() -> Vec<Field> {
        vec![
            Field::new("a", DType::FLOAT32),
            Field::new("s", DType::STRING),
            Field::new("l", DType::List(ScalarType::String)),
            Field::new("i", DType::Scalar(ScalarType::Int16)),
            Field::new("x", DType::List(ScalarType::Float64)),
        ]
    }

    fn values() -> Vec<Value> {
        vec![
            Value::Float32(1.5),
            Value::String("a string longer than a slot".into()),
            Value::List(vec![Value::String("é".into()), Value::Null, Value::String(String::new())]),
            Value::Int(-3),
            Value::List(vec![Value::Null, Value::Float64(2.0)]),
        ]
    }

    #[test]
    fn values_survive_their_image() {
        let layout = ImageLayout::new(&fields());
        let nulls = vec![Value::Null; 5];
        for row in [values(), nulls] {
            let mut image = Vec::new();
            layout.encode(&row, &mut image).unwrap();
            assert_eq!(layout.decode(&image).unwrap(), row);
        }
    }

    #[test]
    fn a_mapper_goes_by_name_and_type() {
        let to = vec![
            Field::new("i", DType::Scalar(ScalarType::Int16)),
            Field::new("new", DType::FLOAT64),
            Field::new("a", DType::FLOAT64),
            Field::new("l", DType::List(ScalarType::String)),
        ];
        let (mut image, mut mapped) = (Vec::new(), Vec::new());
        ImageLayout::new(&fields()).encode(&values(), &mut image).unwrap();
        ImageMapper::new(&fields(), &to).map(&image, &mut mapped).unwrap();
        let found = ImageLayout::new(&to).decode(&mapped).unwrap();
        assert_eq!(found, vec![values()[3].clone(), Value::Null, Value::Null, values()[2].clone()]);
    }

    #[test]
    fn a_cut_or_changed_image_is_refused_or_still_an_image() {
        let layout = ImageLayout::new(&fields());
        let mut image = Vec::new();
        layout.encode(&values(), &mut image).unwrap();
        for len in 0..image.len() {
            assert!(layout.check(&image[..len]).is_err(), "cut at {len}");
        }
        for bit in 0..image.len() * 8 {
            let mut changed = image.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if layout.check(&changed).is_ok() {
                layout.decode(&changed).unwrap();
            }
        }
    }
}
