//! What an ONNX file must satisfy before ONNX Runtime sees its bytes: the parts of the protobuf that decide about memory, other files
//! and recursion are read here, in safe code.
//!
//! It is no validation of the graph: operators, types and shapes are the library's.

use headrace_types::Result;

use crate::document::{corrupt, unsupported};

/// Nodes of all graphs together.
const NODES_MAX: usize = 1_000_000;
/// Graphs within graphs (`If`, `Loop`, `Scan`).
const NESTING_MAX: usize = 8;
/// Characters of a name that a message keeps.
const NAME_CHARS_MAX: usize = 80;

/// # Errors
/// `corrupt_model` for bytes that are no sound protobuf of a model, and for tensors whose shape is not that of their data;
/// `unsupported_model` for data in other files, and functions of the model's own.
pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    let mut reader = Checker { nodes: 0 };
    let (mut graphs, mut opsets, mut has_version) = (0, 0, false);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Number(_)) => has_version = true,
            (7, Value::Bytes(graph)) => {
                graphs += 1;
                reader.graph(graph, 0)?;
            }
            (8, Value::Bytes(_)) => opsets += 1,
            (20, Value::Bytes(_)) => {
                return Err(unsupported("it holds training information", "export it for inference"));
            }
            (25, Value::Bytes(_)) => {
                return Err(unsupported(
                    "it holds functions of its own",
                    "write them into the graph with onnx.inliner.inline_local_functions",
                ));
            }
            _ => {}
        }
    }
    if graphs != 1 || opsets == 0 || !has_version {
        return Err(corrupt("it is no ONNX model: version, operator sets or graph are missing"));
    }
    Ok(())
}

struct Checker {
    nodes: usize,
}

impl Checker {
    fn graph(&mut self, bytes: &[u8], depth: usize) -> Result<()> {
        if depth > NESTING_MAX {
            return Err(unsupported(format!("its graphs are nested deeper than {NESTING_MAX}"), "export it simpler"));
        }
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(node)) => {
                    self.nodes += 1;
                    if self.nodes > NODES_MAX {
                        return Err(unsupported(format!("it has more than {NODES_MAX} nodes"), "export it smaller"));
                    }
                    self.node(node, depth)?;
                }
                (5, Value::Bytes(initializer)) => tensor(initializer)?,
                (15, Value::Bytes(_)) => return Err(sparse()),
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, bytes: &[u8], depth: usize) -> Result<()> {
        for field in Fields(bytes) {
            if let (5, Value::Bytes(attribute)) = field? {
                for field in Fields(attribute) {
                    match field? {
                        (5 | 10, Value::Bytes(bytes)) => tensor(bytes)?,
                        (6 | 11, Value::Bytes(graph)) => self.graph(graph, depth + 1)?,
                        (22 | 23, Value::Bytes(_)) => return Err(sparse()),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

fn sparse() -> headrace_types::Error {
    unsupported("it holds sparse tensors", "export it with dense ones")
}

/// A tensor's data is in the file, and as long as its dimensions say.
fn tensor(bytes: &[u8]) -> Result<()> {
    let (mut name, mut product, mut data_type, mut raw, mut typed_bytes) = (&b""[..], 1u64, 0, None, 0u64);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Number(size)) => product = multiplied(product, size)?,
            (1, Value::Bytes(packed)) => {
                let mut rest = packed;
                while !rest.is_empty() {
                    product = multiplied(product, varint(&mut rest)?)?;
                }
            }
            (2, Value::Number(number)) => data_type = number,
            (8, Value::Bytes(bytes)) => name = bytes,
            (9, Value::Bytes(bytes)) => raw = Some(bytes.len() as u64),
            (4 | 5 | 7 | 10 | 11, Value::Bytes(packed)) => typed_bytes += packed.len() as u64,
            // One value, or one string that may be empty.
            (4..=7 | 10 | 11, _) => typed_bytes += 1,
            (13, _) => return Err(external(name)),
            (14, Value::Number(place)) if place != 0 => return Err(external(name)),
            _ => {}
        }
    }
    let width = match data_type {
        2 | 3 | 9 | 17..=20 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        7 | 11 | 13 | 14 => 8,
        15 => 16,
        _ => 0,
    };
    let fits = match raw {
        Some(length) if width > 0 => product.checked_mul(width) == Some(length),
        Some(length) => product <= length.saturating_mul(8),
        None => product <= typed_bytes,
    };
    if fits {
        return Ok(());
    }
    Err(corrupt(format!("tensor '{}' has {product} elements by its dimensions, and not that much data", shown(name))))
}

fn multiplied(product: u64, size: u64) -> Result<u64> {
    product.checked_mul(size).ok_or_else(|| corrupt("a tensor has more elements than can be counted"))
}

fn external(name: &[u8]) -> headrace_types::Error {
    unsupported(
        format!("tensor '{}' is in another file", shown(name)),
        "save the model in one file: onnx.save(model, path, save_as_external_data=False)",
    )
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(NAME_CHARS_MAX).collect::<String>().escape_debug().to_string()
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order in which they stand; ends after the first that is broken.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Value<'a>)> {
    let key = varint(rest)?;
    // Longer keys are cut off by some readers, which then see another field than this one.
    if key > u32::MAX.into() {
        return Err(corrupt("a field has a number that is too large"));
    }
    let number = key >> 3;
    let value = match key & 7 {
        _ if number == 0 => return Err(corrupt("a field has the number 0")),
        0 => Value::Number(varint(rest)?),
        1 => Value::Bytes(taken(rest, 8)?),
        2 => {
            let length = varint(rest)?;
            Value::Bytes(taken(rest, length)?)
        }
        5 => Value::Bytes(taken(rest, 4)?),
        other => return Err(corrupt(format!("field {number} has the wire type {other}"))),
    };
    Ok((number, value))
}

fn taken<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) = split.ok_or_else(|| corrupt("it is cut short"))?;
    *rest = left;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first().ok_or_else(|| corrupt("it is cut short"))?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(corrupt("a number is longer than ten bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(field: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        assert!(length < 128, "a short field");
        [&[field << 3 | 2, length], bytes].concat()
    }

    fn model(graph: &[u8]) -> Vec<u8> {
        [&[8, 10][..], &text(8, &[]), &text(7, graph)].concat()
    }

    fn refusal(bytes: &[u8]) -> String {
        check(bytes).err().map(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn data_in_other_files_is_refused_before_any_file_is_opened() {
        let location = [text(1, b"location"), text(2, b"../../etc/passwd")].concat();
        let tensor = [text(8, b"weights"), text(13, &location)].concat();
        assert_eq!(refusal(&model(&text(5, &tensor))), "tensor 'weights' is in another file");
        let in_node = text(1, &text(5, &text(5, &[text(8, b"c"), vec![14 << 3, 1]].concat())));
        assert_eq!(refusal(&model(&in_node)), "tensor 'c' is in another file");
    }

    #[test]
    fn a_tensor_is_as_long_as_its_dimensions_say() {
        let of = |dimensions: &[u8], data: &[u8]| model(&text(5, &[dimensions, &[2 << 3, 1], &text(9, data)].concat()));
        assert_eq!(refusal(&of(&[8, 2], &[0; 8])), "");
        assert!(refusal(&of(&[8, 3], &[0; 8])).contains("3 elements"));
        let huge = [8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 8, 127, 8, 127, 8, 127];
        assert!(refusal(&of(&huge, &[0; 8])).contains("counted"));
    }

    #[test]
    fn broken_and_other_bytes_are_refused() {
        for bytes in [&b""[..], b"hello", &[8, 10], &[0xff; 40], &[7 << 3 | 2, 100, 1], &[3]] {
            assert_ne!(refusal(bytes), "", "{bytes:?}");
        }
        let mut graph = Vec::new();
        for _ in 0..=NESTING_MAX {
            graph = text(1, &text(5, &text(6, &graph)));
        }
        assert!(refusal(&model(&graph)).contains("nested"));
        assert!(refusal(&[model(&[]), vec![0xca, 0x01, 0]].concat()).contains("functions"));
    }
}
