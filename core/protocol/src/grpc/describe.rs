//! What is asked seldom: messages made of the JSON that HTTP answers, by their descriptors, and the descriptors themselves.

use std::sync::LazyLock;

use headrace_types::{Error, Result};
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, FileDescriptor};
use serde_json::Value;

use super::wire::{Fields, put_bytes, put_nested, put_number, put_text};

/// All files of `proto/`.
static DESCRIPTORS: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..]).ok());

fn descriptors() -> Result<&'static DescriptorPool> {
    DESCRIPTORS.as_ref().ok_or_else(|| Error::internal("the descriptors of the messages cannot be read"))
}

/// Appends the message `name`, which has the members of a JSON object. Members that it does not have are left out.
///
/// # Errors
/// `internal`: the two shapes differ.
pub fn encode_json(out: &mut Vec<u8>, name: &str, json: &Value) -> Result<()> {
    let differs = |reason: &dyn std::fmt::Display| Error::internal(format!("no {name} of that JSON: {reason}"));
    let descriptor = descriptors()?.get_message_by_name(name).ok_or_else(|| differs(&"it is not defined"))?;
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message =
        DynamicMessage::deserialize_with_options(descriptor, json, &options).map_err(|error| differs(&error))?;
    message.encode(out).map_err(|error| differs(&error))
}

/// A message as JSON, for tests: names as they are defined, defaults left out.
///
/// # Errors
/// `internal`.
#[cfg(test)]
pub(super) fn decode_json(bytes: &[u8], name: &str) -> Result<Value> {
    let descriptor = descriptors()?.get_message_by_name(name).ok_or_else(|| Error::internal(name))?;
    let message = DynamicMessage::decode(descriptor, bytes).map_err(|error| Error::internal(error.to_string()))?;
    let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| Error::internal(error.to_string()))
}

/// Reads a message whose first two fields are text, such as a model's name and version.
///
/// # Errors
/// `invalid_argument` for what is none.
pub fn decode_texts<'a>(what: &'static str, bytes: &'a [u8]) -> Result<[&'a str; 2]> {
    let mut fields = Fields::of(what, bytes);
    let mut texts = ["", ""];
    while let Some((number, content)) = fields.next()? {
        if let Some(text) = texts.get_mut(number as usize - 1) {
            *text = fields.text(number, content)?;
        }
    }
    Ok(texts)
}

/// Reads a RepositoryIndexRequest: whether only models that are ready are asked for.
///
/// # Errors
/// `invalid_argument` for what is none.
pub fn decode_index_request(bytes: &[u8]) -> Result<bool> {
    let mut fields = Fields::of("RepositoryIndexRequest", bytes);
    let mut ready_only = false;
    while let Some((number, content)) = fields.next()? {
        if number == 2 {
            ready_only = fields.number(number, content)? != 0;
        }
    }
    Ok(ready_only)
}

/// Appends the ServerReflectionResponse to a ServerReflectionRequest, of either version: their messages are the same.
///
/// # Errors
/// `invalid_argument` for what is no such request.
pub fn encode_reflection(out: &mut Vec<u8>, request: &[u8]) -> Result<()> {
    let pool = descriptors()?;
    let mut fields = Fields::of("ServerReflectionRequest", request);
    let mut asked = None;
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => put_text(out, 1, fields.text(number, content)?),
            3 | 4 | 6 | 7 => asked = Some((number, fields.text(number, content)?)),
            5 => asked = Some((number, "")),
            _ => {}
        }
    }
    put_bytes(out, 2, request);
    match asked {
        Some((3, name)) => put_file(out, pool.get_file_by_name(name), name),
        Some((4, symbol)) => put_file(out, file_of(pool, symbol), symbol),
        Some((7, _)) => put_nested(out, 6, |out| {
            for service in pool.services() {
                put_nested(out, 1, |out| put_text(out, 1, service.full_name()));
            }
        }),
        _ => {
            put_reflection_error(out, 12, "only files, symbols and services can be asked for; there are no extensions")
        }
    }
    Ok(())
}

/// The file that defines a service, a method, a message, a field or an enumeration.
fn file_of(pool: &DescriptorPool, symbol: &str) -> Option<FileDescriptor> {
    let find = |name: &str| {
        let service = pool.get_service_by_name(name).map(|service| service.parent_file());
        let message = || pool.get_message_by_name(name).map(|message| message.parent_file());
        let enumeration = || pool.get_enum_by_name(name).map(|enumeration| enumeration.parent_file());
        service.or_else(message).or_else(enumeration)
    };
    find(symbol).or_else(|| find(symbol.rsplit_once('.')?.0))
}

/// A file behind those that it imports.
fn put_file(out: &mut Vec<u8>, file: Option<FileDescriptor>, asked: &str) {
    let Some(file) = file else {
        let asked: String = asked.chars().take(100).collect();
        return put_reflection_error(out, 5, &format!("there is no '{asked}'"));
    };
    put_nested(out, 4, |out| {
        put_bytes(out, 1, &file.encode_to_vec());
        file.dependencies().for_each(|imported| put_bytes(out, 1, &imported.encode_to_vec()));
    });
}

fn put_reflection_error(out: &mut Vec<u8>, code: u64, message: &str) {
    put_nested(out, 7, |out| {
        put_number(out, 1, code);
        put_text(out, 2, message);
    });
}

/// The methods that are defined, as `/package.Service/Method`.
///
/// # Errors
/// `internal`.
pub fn method_paths() -> Result<Vec<String>> {
    let services = descriptors()?.services();
    let paths = services.flat_map(|service| {
        let path = |method: prost_reflect::MethodDescriptor| format!("/{}/{}", service.full_name(), method.name());
        service.methods().map(path).collect::<Vec<_>>()
    });
    Ok(paths.collect())
}
