//! Reading JSON straight into typed columns: no tree of values, no second pass, and every bound checked on the way.

use std::cell::RefCell;
use std::fmt;

use headrace_engine::{ColumnBuilder, RowError};
use headrace_types::{Column, DType, Error, ErrorCode, Field, Result, ScalarType};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::base64;

/// Values that one column or tensor of a request may hold.
pub const ELEMENTS_MAX: usize = 16 << 20;

/// Where a visitor leaves an error of ours while serde unwinds with one of its own.
#[derive(Debug, Default)]
pub(crate) struct Fault(RefCell<Option<Error>>);

impl Fault {
    pub(crate) fn raise<E: de::Error>(&self, error: Error) -> E {
        let text = error.message.clone();
        self.0.borrow_mut().get_or_insert(error);
        E::custom(text)
    }
}

/// Parses a whole text with a seed; nothing may follow the value.
///
/// # Errors
/// What the seed raised, or `invalid_json` with the position, or `invalid_argument` when the JSON is sound but not what was expected.
pub(crate) fn parse<'de, S: DeserializeSeed<'de>>(json: &'de [u8], fault: &Fault, seed: S) -> Result<S::Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let parsed = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| {
        if let Some(raised) = fault.0.borrow_mut().take() {
            return raised;
        }
        if error.is_data() {
            Error::new(ErrorCode::InvalidArgument, error.to_string(), "compare the body with the protocol's example")
        } else {
            Error::new(ErrorCode::InvalidJson, format!("the body is not JSON: {error}"), "correct it at that position")
        }
    })
}

/// An object whose keys are handled one by one; a key may come once.
pub(crate) struct ObjectSeed<'f, F> {
    pub(crate) what: &'static str,
    /// Where a doubled key is reported with its code; without it the error is a plain one of serde.
    pub(crate) fault: Option<&'f Fault>,
    pub(crate) each: F,
}

/// Reads the values of an object's keys; each call must read exactly one value.
pub(crate) trait KeyHandler<'de> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

impl<'de, F: KeyHandler<'de>> DeserializeSeed<'de> for ObjectSeed<'_, F> {
    type Value = F;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<F, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: KeyHandler<'de>> Visitor<'de> for ObjectSeed<'_, F> {
    type Value = F;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, an object", self.what)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<F, A::Error> {
        let mut seen: Vec<String> = Vec::new();
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let key: &str = &key;
            if seen.iter().any(|name| name == key) {
                let message = format!("{} has the key '{key}' twice", self.what);
                let error = Error::new(ErrorCode::InvalidArgument, message, "give each key once");
                return Err(match self.fault {
                    Some(fault) => fault.raise(error),
                    None => de::Error::custom(error.message),
                });
            }
            seen.push(key.to_owned());
            self.each.key(key, &mut map)?;
        }
        Ok(self.each)
    }
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = std::borrow::Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = std::borrow::Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(text.into())
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(text.to_owned().into())
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A list of values as one column of a field's type.
pub(crate) struct ColumnSeed<'a> {
    pub(crate) field: &'a Field,
    pub(crate) fault: &'a Fault,
}

impl<'de> DeserializeSeed<'de> for ColumnSeed<'_> {
    type Value = (Column, Vec<RowError>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl ColumnSeed<'_> {
    fn not_a_list<E: de::Error>(&self) -> E {
        let name = &self.field.name;
        self.fault.raise(Error::new(
            ErrorCode::TypeMismatch,
            format!("column '{name}' is not a list"),
            format!("send a list of {} values, one for each row", self.field.dtype),
        ))
    }
}

impl<'de> Visitor<'de> for ColumnSeed<'_> {
    type Value = (Column, Vec<RowError>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} values", self.field.dtype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut builder = ColumnBuilder::new(&*self.field.name, self.field.dtype, seq.size_hint().unwrap_or(0));
        while seq.next_element_seed(ElementSeed { builder: &mut builder, flatten: None })?.is_some() {
            if builder.len() > ELEMENTS_MAX {
                return Err(self.fault.raise(too_many(&self.field.name)));
            }
        }
        Ok(builder.finish())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.not_a_list())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(self.not_a_list())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Err(self.not_a_list())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Err(self.not_a_list())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Err(self.not_a_list())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(self.not_a_list())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Err(self.not_a_list())
    }
}

pub(crate) fn too_many(name: &str) -> Error {
    Error::new(
        ErrorCode::TooLarge,
        format!("'{name}' holds more than {ELEMENTS_MAX} values"),
        "split the request into several",
    )
}

/// One value into a column. A value of the wrong kind spoils its row, it does not end the parse.
pub(crate) struct ElementSeed<'b> {
    pub(crate) builder: &'b mut ColumnBuilder,
    /// For a tensor, whose data may be nested by its shape: how many levels of lists may follow; their values come out flat.
    pub(crate) flatten: Option<u8>,
}

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ElementSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.builder.dtype())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.builder.push_null();
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.builder.push_bool(value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.builder.push_i64(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.builder.push_u64(value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.builder.push_f64(value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        if self.builder.dtype() != DType::BYTES {
            self.builder.push_str(value);
        } else if let Some(bytes) = base64::decode(value) {
            self.builder.push_bytes(&bytes);
        } else {
            self.builder.push_error(Error::new(
                ErrorCode::TypeMismatch,
                "the text is not base64",
                "send bytes in standard base64 with padding",
            ));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let builder = self.builder;
        if let Some(levels) = self.flatten {
            let Some(levels) = levels.checked_sub(1) else {
                return Err(de::Error::custom("the data is nested deeper than any shape"));
            };
            while seq.next_element_seed(ElementSeed { builder: &mut *builder, flatten: Some(levels) })?.is_some() {
                if builder.len() > ELEMENTS_MAX {
                    return Err(de::Error::custom(format_args!("a tensor holds more than {ELEMENTS_MAX} values")));
                }
            }
            return Ok(());
        }
        let DType::List(element) = builder.dtype() else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            builder.push_error(wrong_kind("a list", builder.dtype()));
            return Ok(());
        };
        let mut elements = ColumnBuilder::new("", DType::Scalar(element), seq.size_hint().unwrap_or(0));
        while seq.next_element_seed(ElementSeed { builder: &mut elements, flatten: None })?.is_some() {}
        let (column, mut errors) = elements.finish();
        match errors.pop() {
            Some(first) => builder.push_error(first.error),
            None => {
                builder.push_value(headrace_types::Value::List((0..column.len()).map(|i| column.value(i)).collect()))
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.builder.push_error(wrong_kind("an object", self.builder.dtype()));
        Ok(())
    }
}

fn wrong_kind(kind: &str, dtype: DType) -> Error {
    Error::new(ErrorCode::TypeMismatch, format!("{kind} is not a {dtype}"), format!("send a {dtype}"))
}

/// Writes one value of a column: a null and a float that is not finite are `null`, bytes are base64, a timestamp is RFC 3339.
pub(crate) fn write_value(out: &mut Vec<u8>, column: &Column, row: usize) {
    use headrace_types::ColumnData as D;
    if column.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match &column.data {
        D::Bool(v) => write(out, &v[row]),
        D::Int8(v) => write(out, &v[row]),
        D::Int16(v) => write(out, &v[row]),
        D::Int32(v) => write(out, &v[row]),
        D::Int64(v) => write(out, &v[row]),
        D::UInt8(v) => write(out, &v[row]),
        D::UInt16(v) => write(out, &v[row]),
        D::UInt32(v) => write(out, &v[row]),
        D::UInt64(v) => write(out, &v[row]),
        D::Float32(v) => write(out, &v[row]),
        D::Float64(v) => write(out, &v[row]),
        D::String(v) => write(out, &v[row]),
        D::Bytes(v) => write(out, &base64::encode(&v[row])),
        D::Timestamp(v) => write(out, &headrace_types::format_timestamp(v[row])),
        D::List(element, v) => write_list(out, *element, &v[row]),
    }
}

fn write_list(out: &mut Vec<u8>, element: ScalarType, items: &[headrace_types::Value]) {
    out.push(b'[');
    if let Ok(column) = Column::from_values(DType::Scalar(element), items.iter().cloned()) {
        for index in 0..column.len() {
            separate(out, index);
            write_value(out, &column, index);
        }
    }
    out.push(b']');
}

/// A comma before every item but the first.
pub(crate) fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// Writes a scalar or a string. Writing into memory cannot fail, and no such value is unwritable.
pub(crate) fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}
