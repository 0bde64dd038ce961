//! ModelInfer: requests read in place into the same middle as over HTTP, and answers written straight to bytes.

use std::time::Duration;

use bytes::Bytes;
use headrace_engine::{Deployment, PredictRequest, PredictResponse, Priority, TensorResponse, shortened};
use headrace_types::{Column, ColumnData, Error, ErrorCode, Result, element_count};

use super::wire::{Field, Fields, Wire, broken, put_bytes, put_bytes_head, put_le_doubles, put_nested, put_text};
use super::wire::{put_doubles, put_varint};
use crate::json::{DIMENSIONS_MAX, ELEMENTS_MAX};
use crate::oip::datatype::{Datatype, invalid, read_binary, write_bytes_element};
use crate::oip::decode::{AskedOutput, TENSORS_MAX, Tensor, add_input, finish, requested};
use crate::oip::encode::{OutputTensor, check_any_answer, row_errors_text};
use crate::oip::tensors::{answered, tensor_infer, tensor_of_column};
use crate::oip::{Infer, InferRequest, TensorInfer};

/// A ModelInferRequest as it stands in its bytes: names are known, tensors are not read yet.
#[derive(Debug, Default)]
pub struct InferMessage<'a> {
    pub model_name: &'a str,
    pub model_version: &'a str,
    /// The parameter `timeout`, which is in microseconds.
    pub(crate) timeout: Option<Duration>,
    priority: Priority,
    id: &'a str,
    inputs: Vec<Input<'a>>,
    outputs: Vec<AskedOutput>,
    raw: Vec<&'a [u8]>,
}

#[derive(Debug, Default)]
struct Input<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: Vec<usize>,
    contents: Option<&'a [u8]>,
}

impl<'a> InferMessage<'a> {
    /// # Errors
    /// `invalid_argument` for what is no ModelInferRequest; `too_large` for too many tensors.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::of("ModelInferRequest", bytes);
        let mut message = Self::default();
        while let Some((number, content)) = fields.next()? {
            match number {
                1 => message.model_name = fields.text(number, content)?,
                2 => message.model_version = fields.text(number, content)?,
                3 => message.id = fields.text(number, content)?,
                4 => match parameter(fields.bytes(number, content)?)? {
                    ("timeout", Parameter::Number(us)) => {
                        message.timeout = Some(us).filter(|us| *us > 0).map(Duration::from_micros);
                    }
                    ("priority", Parameter::Number(level)) => message.priority = Priority::of_level(level)?,
                    _ => {}
                },
                5 => push(&mut message.inputs, input(fields.bytes(number, content)?)?)?,
                6 => push(&mut message.outputs, output(fields.bytes(number, content)?)?)?,
                7 => push(&mut message.raw, fields.bytes(number, content)?)?,
                _ => {}
            }
        }
        Ok(message)
    }
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<()> {
    if list.len() == TENSORS_MAX {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("the request lists more than {TENSORS_MAX} tensors"),
            "send features as one tensor, or split the request",
        ));
    }
    list.push(item);
    Ok(())
}

/// The values of parameters that mean something here.
enum Parameter {
    Number(u64),
    Other,
}

/// A map's entry: a key and an InferParameter. Negative numbers count as 0.
fn parameter(bytes: &[u8]) -> Result<(&str, Parameter)> {
    let mut fields = Fields::of("parameter", bytes);
    let (mut key, mut value) = ("", Parameter::Other);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => key = fields.text(number, content)?,
            2 => {
                let mut choice = Fields::of("InferParameter", fields.bytes(number, content)?);
                while let Some((number, content)) = choice.next()? {
                    value = match (number, content) {
                        (2, Wire::Varint(value)) => Parameter::Number(value.cast_signed().max(0).cast_unsigned()),
                        (5, Wire::Varint(value)) => Parameter::Number(value),
                        _ => Parameter::Other,
                    };
                }
            }
            _ => {}
        }
    }
    if key == "shared_memory_region" {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "shared memory is not offered",
            "send the data in raw_input_contents",
        ));
    }
    Ok((key, value))
}

fn input(bytes: &[u8]) -> Result<Input<'_>> {
    let mut fields = Fields::of("InferInputTensor", bytes);
    let mut input = Input::default();
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => input.name = fields.text(number, content)?,
            2 => input.datatype = fields.text(number, content)?,
            3 => fields.varints(number, content, |dimension| {
                let dimension = usize::try_from(dimension.cast_signed())
                    .map_err(|_| invalid(&shortened(input.name), "has a negative dimension"))?;
                if input.shape.len() == DIMENSIONS_MAX {
                    return Err(invalid(&shortened(input.name), format!("has more than {DIMENSIONS_MAX} dimensions")));
                }
                input.shape.push(dimension);
                Ok(())
            })?,
            4 => {
                parameter(fields.bytes(number, content)?)?;
            }
            5 if input.contents.is_some() => return Err(broken("InferInputTensor", "it has contents twice")),
            5 => input.contents = Some(fields.bytes(number, content)?),
            _ => {}
        }
    }
    Ok(input)
}

fn output(bytes: &[u8]) -> Result<AskedOutput> {
    let mut fields = Fields::of("InferRequestedOutputTensor", bytes);
    let mut output = AskedOutput::default();
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => output.name = fields.text(number, content)?.to_owned().into(),
            2 => {
                if let ("classification", Parameter::Number(count)) = parameter(fields.bytes(number, content)?)? {
                    output.classes = usize::try_from(count).ok().filter(|count| *count > 0);
                }
            }
            _ => {}
        }
    }
    Ok(output)
}

/// Reads a request to a model of any kind; `message` was parsed from `bytes`, whose memory the tensors for a model of tensors share. Such a
/// model always answers raw.
///
/// # Errors
/// As [`decode_infer`].
pub fn decode(deployment: &Deployment, message: InferMessage<'_>, bytes: &Bytes) -> Result<Infer> {
    if deployment.tensor_model().is_none() {
        return decode_infer(deployment, message).map(Infer::Rows);
    }
    let InferMessage { id, inputs, outputs, raw, priority, timeout, .. } = message;
    check_raw_count(&inputs, &raw)?;
    let mut blobs = raw.into_iter();
    let inputs = inputs.into_iter().map(|input| input.whole_tensor(blobs.next(), bytes));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let id = Some(id).filter(|id| !id.is_empty()).map(str::to_owned);
    let mut infer = tensor_infer(deployment, id, inputs, Some(outputs), true)?;
    (infer.timeout, infer.request.priority) = (timeout, priority);
    Ok(Infer::Tensors(infer))
}

fn check_raw_count(inputs: &[Input<'_>], raw: &[&[u8]]) -> Result<()> {
    if raw.is_empty() || raw.len() == inputs.len() {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!("{} inputs have {} raw_input_contents", inputs.len(), raw.len()),
        "send one for each input, in their order, or none and the inputs' contents instead",
    ))
}

/// Reads the tensors of a request by a model's signature. The answer is raw if the request was, or had no tensors, else typed.
///
/// # Errors
/// `invalid_tensor`, `invalid_argument`, `unknown_feature`, `type_mismatch` naming the tensor; `too_large`.
pub fn decode_infer(deployment: &Deployment, message: InferMessage<'_>) -> Result<InferRequest> {
    let InferMessage { id, inputs, outputs, raw, priority, timeout, .. } = message;
    let is_typed = raw.is_empty() && inputs.iter().any(|input| input.contents.is_some_and(|bytes| !bytes.is_empty()));
    check_raw_count(&inputs, &raw)?;
    let id = Some(id).filter(|id| !id.is_empty()).map(str::to_owned);
    let mut predict = PredictRequest { id, priority, ..PredictRequest::default() };
    let mut blobs = raw.into_iter();
    for input in inputs {
        let tensor = input.tensor(blobs.next())?;
        add_input(deployment, &mut predict, tensor)?;
    }
    let outputs = requested(deployment, Some(outputs), !is_typed)?;
    Ok(InferRequest { timeout, ..finish(predict, outputs)? })
}

impl Input<'_> {
    /// The tensor for a model of tensors.
    fn whole_tensor(self, raw: Option<&[u8]>, bytes: &Bytes) -> Result<headrace_types::Tensor> {
        let datatype = Datatype::from_name(self.datatype)?;
        if let (Some(raw), []) = (raw, self.contents.unwrap_or_default())
            && !self.name.is_empty()
        {
            return headrace_types::Tensor::new(self.name, datatype, self.shape, bytes.slice_ref(raw));
        }
        let Tensor { name, shape, column, .. } = self.tensor(raw)?;
        tensor_of_column(name, datatype, shape, &column)
    }

    fn tensor(self, raw: Option<&[u8]>) -> Result<Tensor> {
        let name = self.name;
        if name.is_empty() {
            return Err(invalid(name, "has no name"));
        }
        let datatype = Datatype::from_name(self.datatype)?;
        let count = element_count(&self.shape).ok_or_else(|| invalid(name, "has a shape without bounds"))?;
        let data = match (raw, self.contents.unwrap_or_default()) {
            (Some(raw), []) => read_binary(name, datatype, count, raw)?,
            (Some(_), _) => return Err(invalid(name, "has both raw_input_contents and contents")),
            (None, contents) => typed(name, datatype, count, contents)?,
        };
        Tensor { name: name.to_owned(), shape: self.shape, column: Column::new(data), errors: Vec::new() }.checked()
    }
}

/// The field of InferTensorContents that holds a datatype, and its name.
fn contents_field(datatype: Datatype) -> Option<(u32, &'static str)> {
    Some(match datatype {
        Datatype::Bool => (1, "bool_contents"),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => (2, "int_contents"),
        Datatype::Int64 => (3, "int64_contents"),
        Datatype::UInt8 | Datatype::UInt16 | Datatype::UInt32 => (4, "uint_contents"),
        Datatype::UInt64 => (5, "uint64_contents"),
        Datatype::Fp32 => (6, "fp32_contents"),
        Datatype::Fp64 => (7, "fp64_contents"),
        Datatype::Bytes => (8, "bytes_contents"),
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

/// Reads `count` elements of InferTensorContents.
fn typed(name: &str, datatype: Datatype, count: usize, contents: &[u8]) -> Result<ColumnData> {
    let Some((field, field_name)) = contents_field(datatype) else {
        return Err(invalid(
            name,
            format!("is {}, which has no typed contents: send it in raw_input_contents", datatype.name()),
        ));
    };
    if count > ELEMENTS_MAX {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("tensor '{name}' holds more than {ELEMENTS_MAX} typed values"),
            "send it in raw_input_contents, or split the request",
        ));
    }
    let mut fields = Fields::of("InferTensorContents", contents);
    // No element takes less than a byte.
    let mut data = ColumnData::with_capacity(datatype.dtype(), count.min(contents.len()));
    while let Some((number, content)) = fields.next()? {
        if number == field {
            read_elements(&mut data, &fields, (number, content), name, count)?;
        } else if number <= 8 {
            return Err(invalid(name, format!("is {}: its values stand in {field_name}", datatype.name())));
        }
    }
    Ok(data)
}

/// Appends what stands in one field, packed or alone. More than `count` elements are not read.
fn read_elements(
    data: &mut ColumnData,
    fields: &Fields<'_>,
    (number, content): Field<'_>,
    name: &str,
    count: usize,
) -> Result<()> {
    let too_many = || invalid(name, format!("has more values than the {count} of its shape"));
    macro_rules! varints {
        ($values:expr, $of:expr) => {
            fields.varints(number, content, |value| {
                if $values.len() == count {
                    return Err(too_many());
                }
                let converted = $of(value);
                $values.push(converted.map_err(|_| {
                    invalid(name, format!("has a value at {} that its datatype cannot hold", $values.len()))
                })?);
                Ok(())
            })
        };
    }
    macro_rules! fixed {
        ($values:expr, $type:ty, $alone:path) => {{
            let packed: &[u8] = match &content {
                $alone(bytes) => bytes,
                Wire::Bytes(bytes) => bytes,
                _ => return Err(fields.wrong_type(number)),
            };
            let (chunks, rest) = packed.as_chunks();
            if !rest.is_empty() {
                return Err(fields.wrong_type(number));
            }
            if $values.len() + chunks.len() > count {
                return Err(too_many());
            }
            $values.extend(chunks.iter().map(|bytes| <$type>::from_le_bytes(*bytes)));
            Ok(())
        }};
    }
    // An int32 comes as the 64 bits of its sign-extended value.
    #[allow(clippy::cast_possible_truncation)]
    let int32 = |value: u64| value as i32;
    #[allow(clippy::cast_possible_truncation)]
    let uint32 = |value: u64| value as u32;
    match data {
        ColumnData::Bool(values) => varints!(values, |value: u64| Ok::<_, ()>(value != 0)),
        ColumnData::Int8(values) => varints!(values, |value| i8::try_from(int32(value))),
        ColumnData::Int16(values) => varints!(values, |value| i16::try_from(int32(value))),
        ColumnData::Int32(values) => varints!(values, |value| Ok::<_, ()>(int32(value))),
        ColumnData::Int64(values) => varints!(values, |value: u64| Ok::<_, ()>(value.cast_signed())),
        ColumnData::UInt8(values) => varints!(values, |value| u8::try_from(uint32(value))),
        ColumnData::UInt16(values) => varints!(values, |value| u16::try_from(uint32(value))),
        ColumnData::UInt32(values) => varints!(values, |value| Ok::<_, ()>(uint32(value))),
        ColumnData::UInt64(values) => varints!(values, Ok::<_, ()>),
        ColumnData::Float32(values) => fixed!(values, f32, Wire::Fixed32),
        ColumnData::Float64(values) => fixed!(values, f64, Wire::Fixed64),
        ColumnData::Bytes(values) => {
            if values.len() == count {
                return Err(too_many());
            }
            values.push(fields.bytes(number, content)?.to_vec());
            Ok(())
        }
        _ => Err(Error::internal("a datatype without a column")),
    }
}

/// Appends the ModelInferResponse that answers `request`. Failed rows have an empty label and NaN scores, and are named in the
/// parameter `row_errors`.
///
/// # Errors
/// The first row's error when every row failed: this protocol has no status for a row.
pub fn encode_infer(
    out: &mut Vec<u8>,
    deployment: &Deployment,
    request: &InferRequest,
    response: &PredictResponse,
) -> Result<()> {
    check_any_answer(response)?;
    put_text(out, 1, deployment.name());
    put_decimal(out, 2, deployment.version());
    put_text(out, 3, request.predict.id.as_deref().unwrap_or_default());
    if !response.row_errors.is_empty() {
        put_nested(out, 4, |entry| {
            put_text(entry, 1, "row_errors");
            put_nested(entry, 2, |value| put_text(value, 3, &row_errors_text(response)));
        });
    }
    let mut raw = Vec::with_capacity(request.outputs.len());
    for output in &request.outputs {
        let tensor = OutputTensor::of(response, output)?;
        put_nested(out, 5, |out| {
            put_text(out, 1, &output.name);
            put_text(out, 2, tensor.datatype().name());
            put_nested(out, 3, |out| tensor.shape().iter().for_each(|dimension| put_varint(out, *dimension as u64)));
            if !output.binary {
                put_nested(out, 5, |out| put_typed(out, &tensor));
            }
        });
        if output.binary {
            raw.push(tensor);
        }
    }
    raw.iter().for_each(|tensor| put_raw(out, tensor));
    Ok(())
}

/// Writes the answer of a model of tensors.
///
/// # Errors
/// As [`oip::encode_tensors`](crate::oip::encode_tensors).
pub fn encode_tensors(
    out: &mut Vec<u8>,
    deployment: &Deployment,
    infer: &TensorInfer,
    response: &TensorResponse,
) -> Result<()> {
    put_text(out, 1, deployment.name());
    put_decimal(out, 2, deployment.version());
    put_text(out, 3, infer.request.id.as_deref().unwrap_or_default());
    let tensors = answered(deployment, infer, response)?;
    for tensor in &tensors {
        put_nested(out, 5, |out| {
            put_text(out, 1, tensor.name());
            put_text(out, 2, tensor.datatype().name());
            put_nested(out, 3, |out| tensor.shape().iter().for_each(|dimension| put_varint(out, *dimension as u64)));
        });
    }
    tensors.iter().for_each(|tensor| put_bytes(out, 6, tensor.data()));
    Ok(())
}

fn put_decimal(out: &mut Vec<u8>, number: u32, value: u32) {
    put_text(out, number, &value.to_string());
}

fn put_typed(out: &mut Vec<u8>, tensor: &OutputTensor<'_>) {
    match tensor {
        OutputTensor::Texts(texts, _) => texts.iter().for_each(|text| put_bytes(out, 8, text.as_bytes())),
        OutputTensor::Numbers(numbers, _) => put_doubles(out, 7, numbers),
    }
}

fn put_raw(out: &mut Vec<u8>, tensor: &OutputTensor<'_>) {
    match tensor {
        OutputTensor::Texts(texts, _) => {
            put_bytes_head(out, 6, texts.iter().map(|text| 4 + text.len()).sum());
            texts.iter().for_each(|text| write_bytes_element(out, text.as_bytes()));
        }
        OutputTensor::Numbers(numbers, _) => {
            put_bytes_head(out, 6, numbers.len() * 8);
            put_le_doubles(out, numbers);
        }
    }
}

/// A ModelStreamInferResponse around an answer, or an error's text.
pub fn encode_stream_reply(out: &mut Vec<u8>, answer: Result<&[u8], &Error>) {
    match answer {
        Ok(response) => put_bytes(out, 2, response),
        Err(error) => put_text(out, 1, &error.to_string()),
    }
}
