//! Infer requests in the form that nearly all have, read in one pass over the bytes: flat lists of numbers, or binary tensors, text without
//! escapes, each key once. Everything else, and everything wrong, is left to the reader in `decode`, which reads all that this one reads to
//! the same message.

use headrace_types::{Column, ColumnData};

use super::datatype::Datatype;
use super::decode::{AskedOutput, Input, InputData, Message, Parameters, TENSORS_MAX, Values};
use crate::json::{DIMENSIONS_MAX, ELEMENTS_MAX, Nesting};
use crate::numbers::{after_spaces, flat_numbers, narrowed, whole};

/// The message, or none where it is not that plain.
pub(super) fn plain_message(json: &[u8]) -> Option<Message<'_>> {
    let mut reader = Reader { rest: after_spaces(json) };
    let (mut message, mut seen) = (Message::default(), Seen::default());
    reader.object(|reader, key| {
        match key {
            "id" => message.id = Some(reader.text()?.to_owned()),
            "inputs" => reader.list(TENSORS_MAX, |reader| {
                message.inputs.push(reader.input()?);
                Some(())
            })?,
            "outputs" => {
                let mut outputs = Vec::new();
                reader.list(TENSORS_MAX, |reader| {
                    outputs.push(reader.output()?);
                    Some(())
                })?;
                message.outputs = Some(outputs);
            }
            "parameters" => message.parameters = reader.parameters()?,
            _ => return None,
        }
        seen.once(["id", "inputs", "outputs", "parameters"], key)
    })?;
    reader.rest.is_empty().then_some(message)
}

/// Which of an object's keys have come.
#[derive(Default)]
struct Seen(u32);

impl Seen {
    /// None for a key that comes again.
    fn once<const N: usize>(&mut self, keys: [&str; N], key: &str) -> Option<()> {
        let bit = 1 << keys.iter().position(|known| *known == key)?;
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new.then_some(())
    }
}

/// What is not read yet; never begins with a space.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = after_spaces(self.rest.strip_prefix(&[byte])?);
        Some(())
    }

    fn takes(&mut self, byte: u8) -> bool {
        self.take(byte).is_some()
    }

    fn word(&mut self, word: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(word.as_bytes()) else { return false };
        self.rest = after_spaces(rest);
        true
    }

    fn text(&mut self) -> Option<&'a str> {
        let rest = self.rest.strip_prefix(b"\"")?;
        let bytes = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
        let (text, rest) = rest.split_at(bytes);
        self.rest = after_spaces(rest.strip_prefix(b"\"")?);
        std::str::from_utf8(text).ok()
    }

    /// A whole number of few digits.
    fn count(&mut self) -> Option<usize> {
        const DIGITS_MAX: usize = 15;
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (text, rest) = self.rest.split_at(digits);
        let is_number = (1..=DIGITS_MAX).contains(&digits) && (digits == 1 || text[0] != b'0');
        // A fraction or an exponent may follow, which is for others to read.
        if !is_number || matches!(rest.first(), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        self.rest = after_spaces(rest);
        Some(text.iter().fold(0, |count, digit| count * 10 + usize::from(digit - b'0')))
    }

    fn bool(&mut self) -> Option<bool> {
        if self.word("true") { Some(true) } else { self.word("false").then_some(false) }
    }

    fn object(&mut self, mut each: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.takes(b'}') {
            return Some(());
        }
        loop {
            let key = self.text()?;
            self.take(b':')?;
            each(self, key)?;
            if !self.takes(b',') {
                return self.take(b'}');
            }
        }
    }

    fn list(&mut self, items_max: usize, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.takes(b']') {
            return Some(());
        }
        for _ in 0..items_max {
            each(self)?;
            if !self.takes(b',') {
                return self.take(b']');
            }
        }
        None
    }

    fn input(&mut self) -> Option<Input<'a>> {
        let (mut input, mut seen, mut numbers) = (Input::default(), Seen::default(), None);
        self.object(|reader, key| {
            match key {
                "name" => reader.text()?.clone_into(&mut input.name),
                "shape" => input.shape = Some(reader.shape()?),
                "datatype" => input.datatype = Some(Datatype::from_name(reader.text()?).ok()?),
                "parameters" => input.binary_bytes = reader.parameters()?.binary_data_size,
                "data" => {
                    let (found, rest) = flat_numbers(reader.rest, ELEMENTS_MAX)?;
                    (numbers, reader.rest) = (Some(found), after_spaces(rest));
                }
                _ => return None,
            }
            seen.once(["name", "shape", "datatype", "parameters", "data"], key)
        })?;
        if let Some(numbers) = numbers {
            let nesting = Nesting::flat(numbers.len());
            let data = match input.datatype? {
                Datatype::Fp64 => ColumnData::Float64(numbers),
                Datatype::Fp32 => ColumnData::Float32(narrowed(&numbers)?),
                Datatype::Int64 => ColumnData::Int64(whole(&numbers)?),
                _ => return None,
            };
            let values = Values { column: Column::new(data), errors: Vec::new(), nesting };
            input.data = Some(InputData::Values(Box::new(values)));
        }
        Some(input)
    }

    fn shape(&mut self) -> Option<Vec<usize>> {
        let mut shape = Vec::with_capacity(2);
        self.list(DIMENSIONS_MAX, |reader| {
            shape.push(reader.count()?);
            Some(())
        })?;
        Some(shape)
    }

    fn output(&mut self) -> Option<AskedOutput> {
        let (mut output, mut seen) = (AskedOutput::default(), Seen::default());
        self.object(|reader, key| {
            match key {
                "name" => output.name = reader.text()?.to_owned().into(),
                "parameters" => output.binary = reader.parameters()?.binary_data,
                _ => return None,
            }
            seen.once(["name", "parameters"], key)
        })?;
        Some(output)
    }

    fn parameters(&mut self) -> Option<Parameters> {
        let (mut parameters, mut seen) = (Parameters::default(), Seen::default());
        self.object(|reader, key| {
            match key {
                "binary_data_size" => parameters.binary_data_size = Some(reader.count()?),
                "binary_data" => parameters.binary_data = Some(reader.bool()?),
                "binary_data_output" => parameters.binary_data_output = Some(reader.bool()?),
                _ => return None,
            }
            seen.once(["binary_data_size", "binary_data", "binary_data_output"], key)
        })?;
        Some(parameters)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;
    use crate::oip::decode::any_message;

    fn told(message: Message<'_>) -> String {
        let Message { id, inputs, outputs, parameters } = message;
        let tensors = inputs.into_iter().map(|input| {
            let Input { name, shape, datatype, binary_bytes, data } = input;
            let values = data.map(|data| data.read(&name, datatype.unwrap()));
            format!("{name} {shape:?} {datatype:?} {binary_bytes:?} {values:?}")
        });
        format!("{id:?} {:?} {outputs:?} {parameters:?}", tensors.collect::<Vec<_>>())
    }

    #[test]
    fn what_clients_send_is_plain() {
        for text in [
            r#"{"inputs":[{"name":"features","shape":[1,2],"datatype":"FP32","data":[1.5,-2]}]}"#,
            r#" { "id" : "7" , "inputs" : [ { "data" : [ 1 , 2 ] , "name" : "a" , "shape" : [ 2 ] , "datatype" : "INT64" } ] } "#,
            r#"{"inputs":[{"name":"a","shape":[2],"datatype":"FP64","parameters":{"binary_data_size":16}}],"outputs":
                [{"name":"scores","parameters":{"binary_data":true}},{"name":"label"}],"parameters":{"binary_data_output":false}}"#,
            r#"{"inputs":[]}"#,
            "{}",
        ] {
            let plain = plain_message(text.as_bytes()).map(told);
            assert_eq!(plain, Some(told(any_message(text.as_bytes()).unwrap())), "{text}");
        }
    }

    #[test]
    fn what_is_unusual_or_wrong_is_left_to_the_other_reader() {
        let long = format!(r#"{{"inputs":[{}]}}"#, vec!["{}"; TENSORS_MAX + 1].join(","));
        for text in [
            "",
            "[]",
            "{",
            "{} {}",
            r#"{"id":7}"#,
            r#"{"id":"a\u0062"}"#,
            r#"{"id":"a","id":"b"}"#,
            r#"{"more":1}"#,
            r#"{"inputs":null}"#,
            r#"{"inputs":[{}],}"#,
            r#"{"parameters":{"timeout":5}}"#,
            r#"{"inputs":[{"shape":[1.0]}]}"#,
            r#"{"inputs":[{"shape":[01]}]}"#,
            r#"{"inputs":[{"data":[1]}]}"#,
            r#"{"inputs":[{"datatype":"FP9"}]}"#,
            r#"{"inputs":[{"datatype":"INT64","data":[1.5]}]}"#,
            r#"{"inputs":[{"datatype":"FP32","data":[1e39]}]}"#,
            r#"{"inputs":[{"datatype":"BYTES","data":["a"]}]}"#,
            r#"{"inputs":[{"datatype":"FP64","data":[[1]]}]}"#,
            r#"{"inputs":[{"datatype":"FP64","data":[null]}]}"#,
            r#"{"inputs":[{"name":"a","name":"a"}]}"#,
            &long,
        ] {
            assert!(plain_message(text.as_bytes()).is_none(), "{text:.100}");
        }
        assert!(plain_message(b"{\"id\":\"\xff\"}").is_none());
    }

    const PIECES: &[&str] = &[
        "\"a\"",
        "\"id\"",
        "\"name\"",
        "\"shape\"",
        "\"datatype\"",
        "\"data\"",
        "\"parameters\"",
        "\"FP32\"",
        "\"INT64\"",
        "\"binary_data_size\"",
        "\"binary_data\"",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "1",
        "-0",
        "0.1",
        "2.5e3",
        "007",
        "true",
        "null",
        " ",
        "\n",
        "\\",
        "\"",
        "[[1,2],[3,4]]",
        "[1,2]",
        "16777217",
        "9007199254740993",
        "1e39",
        "\u{e9}",
    ];

    proptest! {
        /// A message, changed at some places: whatever the fast reader takes, the other one reads likewise.
        #[test]
        fn it_reads_what_the_other_reader_reads(
            datatype in select(vec!["FP32", "FP64", "INT64", "INT32", "BOOL"]),
            data in prop::collection::vec(any::<f32>().prop_filter("JSON has no others", |number| number.is_finite()), 0..4),
            order in Just(["name", "shape", "datatype", "data"]).prop_shuffle(),
            changes in prop::collection::vec((any::<Index>(), 0usize..3, select(PIECES)), 0..3),
        ) {
            let members = order.map(|key| match key {
                "name" => r#""name":"a""#.to_owned(),
                "shape" => format!(r#""shape":[{}]"#, data.len()),
                "datatype" => format!(r#""datatype":"{datatype}""#),
                _ => format!(r#""data":{}"#, serde_json::to_string(&data).unwrap()),
            });
            let mut text = format!(r#"{{"id":"7","inputs":[{{{}}}],"parameters":{{"binary_data_output":true}}}}"#, members.join(","));
            for (place, removed, piece) in changes {
                let place = text.floor_char_boundary(place.index(text.len()));
                let end = text.floor_char_boundary((place + removed).min(text.len()));
                text.replace_range(place..end.max(place), piece);
            }
            if let Some(plain) = plain_message(text.as_bytes()) {
                let any = any_message(text.as_bytes()).map(told);
                prop_assert_eq!(any.ok(), Some(told(plain)), "{}", text);
            }
        }
    }
}
