//! A JSON-like document in little memory: an array of numbers is one vector, since a model file is mostly such arrays.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use headrace_types::{Error, ErrorCode, Result};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Document {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    /// An array of numbers (booleans count as 0 and 1, null among numbers as NaN), or an empty array.
    Numbers(Vec<f64>),
    List(Vec<Document>),
    Object(BTreeMap<String, Document>),
}

pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::CorruptModel, message, "export the model again from the library that trained it")
}

pub(crate) fn unsupported(message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(ErrorCode::UnsupportedModel, message, hint)
}

/// The whole number that a float holds, if it holds one that is not negative.
pub(crate) fn whole(number: f64) -> Option<usize> {
    // 2^53: beyond it a float64 no longer holds every whole number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    ((0.0..=9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0).then_some(number as usize)
}

impl Document {
    /// # Errors
    /// `corrupt_model` with the position of the first fault.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| corrupt(format!("not JSON: {error}")))
    }

    /// As [`from_json`](Self::from_json), of JSON that may also hold `NaN`, `Infinity` and `-Infinity`, as XGBoost writes
    /// them. An infinity becomes the largest float64, which is infinite as a float32.
    ///
    /// # Errors
    /// `corrupt_model` with the position of the first fault.
    pub(crate) fn from_json_of_floats(bytes: &[u8]) -> Result<Self> {
        Self::from_json(&without_words(bytes))
    }

    fn kind(&self) -> &'static str {
        match self {
            Document::Null => "null",
            Document::Bool(_) => "a boolean",
            Document::Number(_) => "a number",
            Document::Text(_) => "a string",
            Document::Numbers(_) | Document::List(_) => "an array",
            Document::Object(_) => "an object",
        }
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        corrupt(format!("'{key}' is {}, {wanted} was expected", self.kind()))
    }

    /// The value at a key of an object; `None` when the object lacks it or holds null there.
    pub(crate) fn find(&self, key: &str) -> Result<Option<&Document>> {
        match self {
            Document::Object(entries) => Ok(entries.get(key).filter(|value| **value != Document::Null)),
            other => Err(corrupt(format!("{} stands where an object with '{key}' was expected", other.kind()))),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Result<&Document> {
        self.find(key)?.ok_or_else(|| corrupt(format!("'{key}' is missing")))
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str> {
        match self.get(key)? {
            Document::Text(text) => Ok(text),
            other => Err(other.wrong(key, "a string")),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64> {
        match self.get(key)? {
            Document::Number(number) => Ok(*number),
            other => Err(other.wrong(key, "a number")),
        }
    }

    pub(crate) fn numbers(&self, key: &str) -> Result<&[f64]> {
        match self.get(key)? {
            Document::Numbers(numbers) => Ok(numbers),
            other => Err(other.wrong(key, "an array of numbers")),
        }
    }

    pub(crate) fn list(&self, key: &str) -> Result<&[Document]> {
        match self.get(key)? {
            Document::List(items) => Ok(items),
            Document::Numbers(numbers) if numbers.is_empty() => Ok(&[]),
            other => Err(other.wrong(key, "an array")),
        }
    }

    /// A count that is written as a string (as XGBoost does) or as a number.
    pub(crate) fn count(&self, key: &str) -> Result<usize> {
        match self.get(key)? {
            Document::Text(text) => text.parse().ok(),
            Document::Number(number) => whole(*number),
            _ => None,
        }
        .ok_or_else(|| corrupt(format!("'{key}' is not a count")))
    }
}

/// The text with JSON's own words in the place of those for floats that are no numbers.
fn without_words(bytes: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [(&[u8], &[u8]); 2] = [(b"NaN", b"null"), (b"Infinity", b"1.7976931348623157e308")];
    let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    if !WORDS.iter().any(|(word, _)| has(word)) {
        return Cow::Borrowed(bytes);
    }
    let mut text = Vec::with_capacity(bytes.len());
    let (mut at, mut in_string) = (0, false);
    while at < bytes.len() {
        let word = WORDS.iter().find(|(word, _)| !in_string && bytes[at..].starts_with(word));
        if let Some((word, number)) = word {
            text.extend_from_slice(number);
            at += word.len();
            continue;
        }
        if in_string && bytes[at] == b'\\' {
            text.push(bytes[at]);
            at += 1;
        } else if bytes[at] == b'"' {
            in_string = !in_string;
        }
        text.extend(bytes.get(at));
        at += 1;
    }
    Cow::Owned(text)
}

/// Collects an array: numbers stay packed until something else comes.
#[derive(Debug)]
pub(crate) enum ArrayBuilder {
    Numbers(Vec<f64>),
    List(Vec<Document>),
}

impl ArrayBuilder {
    pub(crate) fn new() -> Self {
        ArrayBuilder::Numbers(Vec::new())
    }

    pub(crate) fn push(&mut self, item: Document) {
        match (&mut *self, item) {
            (ArrayBuilder::Numbers(numbers), Document::Number(number)) => numbers.push(number),
            (ArrayBuilder::Numbers(numbers), Document::Bool(flag)) => numbers.push(f64::from(u8::from(flag))),
            (ArrayBuilder::Numbers(numbers), Document::Null) if !numbers.is_empty() => numbers.push(f64::NAN),
            (ArrayBuilder::Numbers(numbers), item) => {
                let mut items: Vec<_> = numbers.iter().map(|&number| Document::Number(number)).collect();
                items.push(item);
                *self = ArrayBuilder::List(items);
            }
            (ArrayBuilder::List(items), item) => items.push(item),
        }
    }

    pub(crate) fn finish(self) -> Document {
        match self {
            ArrayBuilder::Numbers(numbers) => Document::Numbers(numbers),
            ArrayBuilder::List(items) => Document::List(items),
        }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Document, E> {
        Ok(Document::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Document, E> {
        Ok(Document::Bool(value))
    }

    #[allow(clippy::cast_precision_loss)] // beyond 2^53 a number cannot be an index, and `whole` refuses it
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Document, E> {
        Ok(Document::Number(value as f64))
    }

    #[allow(clippy::cast_precision_loss)]
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Document, E> {
        Ok(Document::Number(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Document, E> {
        Ok(Document::Number(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Document, E> {
        Ok(Document::Text(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Document, A::Error> {
        let mut array = ArrayBuilder::new();
        while let Some(item) = sequence.next_element()? {
            array.push(item);
        }
        Ok(array.finish())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            entries.insert(key, value);
        }
        Ok(Document::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_packed_and_mixtures_kept() {
        let document =
            Document::from_json(br#"{"a": [1, 2.5, true], "b": [1, "x"], "c": [], "d": [[1]], "e": null}"#).unwrap();
        assert_eq!(document.numbers("a").unwrap(), [1.0, 2.5, 1.0]);
        assert_eq!(document.list("b").unwrap(), [Document::Number(1.0), Document::Text("x".into())]);
        assert!(document.numbers("c").unwrap().is_empty() && document.list("c").unwrap().is_empty());
        assert_eq!(document.list("d").unwrap(), [Document::Numbers(vec![1.0])]);
        assert_eq!(document.find("e").unwrap(), None);
    }

    #[test]
    fn words_for_floats_are_read_and_strings_left_alone() {
        let text = br#"{"a": [1, NaN, -Infinity], "NaN": "Infinity \" NaN", "b": NaN}"#;
        let document = Document::from_json_of_floats(text).unwrap();
        let numbers = document.numbers("a").unwrap();
        assert!(numbers[0] == 1.0 && numbers[1].is_nan() && numbers[2] == f64::MIN);
        assert_eq!(document.text("NaN").unwrap(), "Infinity \" NaN");
        assert_eq!(document.find("b").unwrap(), None);
        assert!(Document::from_json(text).is_err());
        assert!(Document::from_json_of_floats(br#"{"a": NaN, "b\"#).is_err());
    }

    #[test]
    fn what_is_missing_or_of_another_kind_is_named() {
        let document = Document::from_json(br#"{"a": {"b": "x"}}"#).unwrap();
        assert!(document.get("z").unwrap_err().message.contains("'z' is missing"));
        assert!(document.numbers("a").unwrap_err().message.contains("'a' is an object"));
        assert!(document.get("a").unwrap().count("b").unwrap_err().message.contains("'b' is not a count"));
        assert!(Document::from_json(b"[1").unwrap_err().message.contains("not JSON"));
        assert!(Document::from_json(&b"[".repeat(100_000)).is_err());
    }
}
