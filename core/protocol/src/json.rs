//! Reading JSON straight into typed columns: no tree of values, no second pass, and every bound checked on the way.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use headrace_engine::{ColumnBuilder, RowError, mismatch, shortened};
use headrace_types::{Column, ColumnData, DType, Error, ErrorCode, Field, Result, ScalarType};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use headrace_types::base64;

use crate::numbers::{flat_numbers, narrowed};

/// Values that one column or tensor of a request may hold.
pub const ELEMENTS_MAX: usize = 16 << 20;
/// Values that the lists of one column may have together: each takes more memory than the two bytes that it may have in JSON.
pub(crate) const LIST_VALUES_MAX: usize = 1 << 20;
/// Values of a request that may be wrong, each failing its row; with more of them the request fails as a whole.
pub(crate) const WRONG_VALUES_MAX: usize = 100_000;
/// Keys that one object of a request may have.
pub(crate) const KEYS_MAX: usize = 1 << 16;

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
            Error::new(
                ErrorCode::InvalidArgument,
                misfit(&error.to_string()),
                "compare the body with the protocol's example",
            )
        } else {
            Error::new(ErrorCode::InvalidJson, format!("the body is not JSON: {error}"), "correct it at that position")
        }
    })
}

/// Serde's words for a value of the wrong kind, in those of JSON: what was sent, and what is expected.
fn misfit(text: &str) -> String {
    let told = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    let Some((found, expected)) = told.and_then(|told| told.rsplit_once(", expected ")) else {
        return text.to_owned();
    };
    let quoted = |kind: &str| found.strip_prefix(kind).map(|value| value.trim_matches('`').to_owned());
    let found = match found {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        _ => quoted("integer ")
            .or_else(|| quoted("floating point "))
            .map(|number| format!("the number {number}"))
            .or_else(|| quoted("boolean "))
            .or_else(|| found.strip_prefix("string ").map(|text| format!("the text {}", shortened(text))))
            .unwrap_or_else(|| found.to_owned()),
    };
    // The position of the body itself says nothing.
    let expected = expected.strip_suffix(" at line 1 column 0").unwrap_or(expected);
    let expected = match expected.strip_prefix("usize") {
        Some(place) => format!("a whole number, not negative{place}"),
        None => expected.to_owned(),
    };
    format!("{found} was sent, expected {expected}")
}

/// A member that may be null, which means the same as leaving it out.
pub(crate) struct Optional<S>(pub(crate) S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// An object whose keys are handled one by one; a key may come once.
pub(crate) struct ObjectSeed<'f, F> {
    pub(crate) what: &'static str,
    /// Where a doubled key is reported with its code; without it the error is a plain one of serde.
    pub(crate) fault: Option<&'f Fault>,
    pub(crate) each: F,
}

/// Lists and objects within each other, in members that nothing reads too.
pub(crate) const DEPTH_MAX: usize = 100;

/// Reads a value that nothing needs, and checks how deep it is nested.
///
/// # Errors
/// When it is nested deeper than [`DEPTH_MAX`].
pub(crate) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    let text = map.next_value::<&RawValue>()?.get();
    let (mut depth, mut bytes) = (0usize, text.bytes());
    // The text has been parsed: quotes are in pairs and brackets too.
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                    if byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(de::Error::custom(format_args!("the JSON is nested deeper than {DEPTH_MAX}")));
        }
    }
    Ok(())
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
        write!(f, "an object as {}", self.what)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<F, A::Error> {
        let mut seen = SeenKeys::default();
        while let Some(key) = map.next_key_seed(KeySeed)? {
            if !seen.is_new(key.clone()) {
                let message = format!("{} has the key '{}' twice", self.what, shortened(&key));
                return Err(self.refused(Error::new(ErrorCode::InvalidArgument, message, "give each key once")));
            }
            if seen.len() > KEYS_MAX {
                let message = format!("{} has more than {KEYS_MAX} keys", self.what);
                return Err(self.refused(Error::new(ErrorCode::TooLarge, message, "send only the keys that are read")));
            }
            self.each.key(&key, &mut map)?;
        }
        Ok(self.each)
    }
}

impl<F> ObjectSeed<'_, F> {
    fn refused<E: de::Error>(&self, error: Error) -> E {
        match self.fault {
            Some(fault) => fault.raise(error),
            None => E::custom(error.message),
        }
    }
}

/// The keys of an object so far: compared while they are few, in a set where a client sends many, with the standard hasher because it
/// chooses their text too.
#[derive(Default)]
struct SeenKeys<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> SeenKeys<'de> {
    const FEW: usize = 16;

    /// Whether the key had not come before.
    fn is_new(&mut self, key: Cow<'de, str>) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        if self.few.len() < Self::FEW {
            self.few.push(key);
            return true;
        }
        self.many.insert(key)
    }

    fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Cow<'de, str>;

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
    /// Values that the list may have.
    pub(crate) rows_max: usize,
    /// Wrong values that it may have.
    pub(crate) wrong_max: usize,
}

impl<'de> DeserializeSeed<'de> for ColumnSeed<'_> {
    type Value = (Column, Vec<RowError>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if !matches!(self.field.dtype, DType::FLOAT32 | DType::FLOAT64) {
            return deserializer.deserialize_any(ColumnVisitor(self));
        }
        let json = <&RawValue>::deserialize(deserializer)?;
        if let Some(data) = float_data(json, self.field.dtype, self.rows_max) {
            return Ok((Column::new(data), Vec::new()));
        }
        let fault = self.fault;
        parse(json.get().as_bytes(), fault, ColumnVisitor(self)).map_err(|error| fault.raise(error))
    }
}

/// The numbers of a flat list, where all of them fit the type; see [`flat_numbers`].
pub(crate) fn float_data(json: &RawValue, dtype: DType, items_max: usize) -> Option<ColumnData> {
    let (numbers, _) = flat_numbers(json.get().as_bytes(), items_max)?;
    if dtype == DType::FLOAT32 {
        narrowed(&numbers).map(ColumnData::Float32)
    } else {
        Some(ColumnData::Float64(numbers))
    }
}

/// Reads a list value by value.
struct ColumnVisitor<'a>(ColumnSeed<'a>);

impl<'de> DeserializeSeed<'de> for ColumnVisitor<'_> {
    type Value = (Column, Vec<RowError>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl ColumnSeed<'_> {
    /// A column of lists, whose values are counted together.
    fn lists<'de, A: SeqAccess<'de>>(&self, mut seq: A) -> Result<(Column, Vec<RowError>), A::Error> {
        let mut builder = ColumnBuilder::new(&*self.field.name, self.field.dtype, 0);
        let mut values_left = LIST_VALUES_MAX;
        while seq.next_element_seed(ElementSeed { builder: &mut builder, nested: None })?.is_some() {
            let left = values_left.checked_sub(builder.last_list_len());
            values_left = left.ok_or_else(|| self.fault.raise::<A::Error>(too_many_values(&self.field.name)))?;
            if builder.len() > self.rows_max {
                return Err(self.fault.raise(too_many_rows(&self.field.name, self.rows_max)));
            }
            if builder.errors_count() > self.wrong_max {
                return Err(self.fault.raise(too_many_wrong(&builder.finish().1)));
            }
        }
        Ok(builder.finish())
    }

    fn not_a_list<E: de::Error>(&self) -> E {
        let name = &self.field.name;
        self.fault.raise(Error::new(
            ErrorCode::TypeMismatch,
            format!("column '{name}' is not a list"),
            format!("send a list of {} values, one for each row", self.field.dtype),
        ))
    }
}

impl<'de> Visitor<'de> for ColumnVisitor<'_> {
    type Value = (Column, Vec<RowError>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} values", self.0.field.dtype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        if self.0.field.dtype.is_list() {
            return self.0.lists(seq);
        }
        let mut builder = ColumnBuilder::new(&*self.0.field.name, self.0.field.dtype, 0);
        while seq.next_element_seed(ElementSeed { builder: &mut builder, nested: None })?.is_some() {
            if builder.len() > self.0.rows_max {
                return Err(self.0.fault.raise(too_many_rows(&self.0.field.name, self.0.rows_max)));
            }
            if builder.errors_count() > self.0.wrong_max {
                return Err(self.0.fault.raise(too_many_wrong(&builder.finish().1)));
            }
        }
        Ok(builder.finish())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.0.not_a_list())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(self.0.not_a_list())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Err(self.0.not_a_list())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Err(self.0.not_a_list())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Err(self.0.not_a_list())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(self.0.not_a_list())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Err(self.0.not_a_list())
    }
}

pub(crate) fn too_many_values(name: &str) -> Error {
    Error::new(
        ErrorCode::TooLarge,
        format!("the lists of column '{name}' have more than {LIST_VALUES_MAX} values together"),
        "split the request into several",
    )
}

fn too_many_rows(name: &str, rows_max: usize) -> Error {
    Error::new(
        ErrorCode::TooLarge,
        format!("column '{name}' has more than {rows_max} rows, the limit"),
        "split the request into several",
    )
}

/// The error for a request with more wrong values than are answered one by one.
pub(crate) fn too_many_wrong(errors: &[RowError]) -> Error {
    let code = errors.first().map_or(ErrorCode::TypeMismatch, |first| first.error.code);
    let first = errors.first().map(|first| first.error.message.as_str()).unwrap_or_default();
    Error::new(
        code,
        format!("more than {WRONG_VALUES_MAX} values of the request are wrong; the first: {first}"),
        "send the types of the model's signature",
    )
}

/// One value into a column. A value of the wrong kind spoils its row, it does not end the parse.
pub(crate) struct ElementSeed<'b> {
    pub(crate) builder: &'b mut ColumnBuilder,
    /// For a tensor, whose data may be nested by its shape: the lists around this value. Their values come out flat.
    pub(crate) nested: Option<Nested<'b>>,
}

/// The place of a value in nested data.
pub(crate) struct Nested<'b> {
    pub(crate) nesting: &'b mut Nesting,
    /// Lists around the value.
    pub(crate) level: usize,
}

/// Levels of lists that the data of a tensor may have: as many as its shape has dimensions.
pub(crate) use headrace_types::DIMENSIONS_MAX;

/// How the lists of nested data lie in each other.
#[derive(Debug, Default)]
pub(crate) struct Nesting {
    /// Lists that have begun.
    pub(crate) lists: usize,
    /// The items of the lists at each level; `None` below the deepest list.
    lengths: [Option<usize>; DIMENSIONS_MAX],
    /// Lists around each value.
    value_level: Option<usize>,
    is_ragged: bool,
}

impl Nesting {
    /// Of one list.
    pub(crate) fn flat(items: usize) -> Self {
        let mut nesting = Self { lists: 1, value_level: (items > 0).then_some(1), ..Self::default() };
        nesting.lengths[0] = Some(items);
        nesting
    }

    /// Whether the data may have that shape: as one flat list, or nested exactly as the shape says.
    pub(crate) fn fits(&self, shape: &[usize]) -> bool {
        let lengths: Vec<usize> = self.lengths.iter().map_while(|length| *length).collect();
        lengths.len() == 1
            || (!self.is_ragged && self.value_level.is_none_or(|level| level == lengths.len()) && lengths == shape)
    }

    fn value_at(&mut self, level: usize) {
        self.is_ragged |= *self.value_level.get_or_insert(level) != level;
    }

    fn list_at(&mut self, level: usize, items: usize) {
        self.is_ragged |= *self.lengths[level].get_or_insert(items) != items;
    }
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
        f.write_str(&headrace_engine::with_article(self.builder.dtype()))
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
        if self.builder.dtype() == DType::TIMESTAMP {
            self.builder.push_error(number_for_time(value));
        } else {
            self.builder.push_i64(value);
        }
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        if self.builder.dtype() == DType::TIMESTAMP {
            self.builder.push_error(number_for_time(value));
        } else {
            self.builder.push_u64(value);
        }
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        if self.builder.dtype() == DType::TIMESTAMP {
            self.builder.push_error(number_for_time(value));
        } else {
            self.builder.push_f64(value);
        }
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
        if let Some(Nested { nesting, level }) = self.nested {
            if level == DIMENSIONS_MAX {
                return Err(de::Error::custom("the data is nested deeper than any shape"));
            }
            nesting.lists += 1;
            let mut items = 0;
            loop {
                let lists = nesting.lists;
                let nested = Some(Nested { nesting: &mut *nesting, level: level + 1 });
                if seq.next_element_seed(ElementSeed { builder: &mut *builder, nested })?.is_none() {
                    break;
                }
                items += 1;
                if nesting.lists == lists {
                    nesting.value_at(level + 1);
                }
                if builder.len() > ELEMENTS_MAX {
                    return Err(de::Error::custom(format_args!("a tensor holds more than {ELEMENTS_MAX} values")));
                }
                if builder.errors_count() > WRONG_VALUES_MAX {
                    let message = format!("more than {WRONG_VALUES_MAX} values of a tensor do not fit its datatype");
                    return Err(de::Error::custom(message));
                }
            }
            nesting.list_at(level, items);
            return Ok(());
        }
        let DType::List(element) = builder.dtype() else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            builder.push_error(mismatch("a list", builder.dtype()));
            return Ok(());
        };
        let mut elements = ColumnBuilder::new("", DType::Scalar(element), seq.size_hint().unwrap_or(0));
        while seq.next_element_seed(ElementSeed { builder: &mut elements, nested: None })?.is_some() {
            if elements.len() > LIST_VALUES_MAX {
                let message = format!("a list holds more than {LIST_VALUES_MAX} values");
                elements.push_error(Error::new(ErrorCode::TooLarge, message, "send shorter lists"));
            }
            // One wrong element is enough to say why; the rest is read, and not kept.
            if elements.errors_count() > 0 {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
        }
        let (column, mut errors) = elements.finish();
        match errors.pop() {
            Some(wrong) => builder.push_error(Error::clone(&wrong.error)),
            None => {
                builder.push_value(headrace_types::Value::List((0..column.len()).map(|i| column.value(i)).collect()))
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.builder.push_error(mismatch("an object", self.builder.dtype()));
        Ok(())
    }
}

/// Seconds, milliseconds and microseconds are all in use, and a wrong guess would be a silent one.
fn number_for_time(value: impl fmt::Display) -> Error {
    Error::new(
        ErrorCode::TypeMismatch,
        format!("the number {value} is not a timestamp"),
        "send RFC 3339 text such as 2013-01-31T10:00:00Z: a number does not say its unit",
    )
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
