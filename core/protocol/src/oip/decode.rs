//! Infer requests to predict requests.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headrace_engine::{ColumnBuilder, Deployment, Explain, PredictRequest, Priority, RowError, Section, shortened};
use headrace_types::{Column, ColumnData, DType, Error, ErrorCode, Field, Result, ScalarType, element_count};
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::datatype::{Datatype, invalid, read_binary};
use super::plain::plain_message;
use super::tensors::{TensorInfer, raw_tensor, tensor_infer, tensor_of_column};
use super::{CONTRIBUTIONS_OUTPUT, FEATURES_INPUT, output_names};
use crate::json::{
    DIMENSIONS_MAX, ElementSeed, Fault, KeyHandler, Nested, Nesting, ObjectSeed, Optional, WRONG_VALUES_MAX, parse,
    skip, too_many_wrong,
};

/// Tensors that a request may list.
pub(crate) const TENSORS_MAX: usize = 4096;

/// An infer request, by the kind of model that it is for.
#[derive(Debug)]
pub enum Infer {
    Rows(InferRequest),
    Tensors(TensorInfer),
}

impl Infer {
    /// Notes when the request came, which its `timeout` counts from, and what the transport knows of its deadline: the earlier one counts.
    pub fn arrived(&mut self, at: Instant, deadline: Option<Instant>) {
        let (timeout, arrived, own) = match self {
            Infer::Rows(infer) => (infer.timeout, &mut infer.predict.arrived, &mut infer.predict.deadline),
            Infer::Tensors(infer) => (infer.timeout, &mut infer.request.arrived, &mut infer.request.deadline),
        };
        *arrived = Some(at);
        // A timeout beyond what the clock can tell is none.
        *own = timeout.and_then(|timeout| at.checked_add(timeout)).into_iter().chain(deadline).min();
    }

    /// The request's id, and what the transport took to read and decode it.
    pub fn id_and_decoded_in(&mut self) -> (&mut Option<String>, &mut Duration) {
        match self {
            Infer::Rows(infer) => (&mut infer.predict.id, &mut infer.predict.decoded_in),
            Infer::Tensors(infer) => (&mut infer.request.id, &mut infer.request.decoded_in),
        }
    }
}

/// An infer request to a model of rows: what to predict, and how to answer.
#[derive(Debug)]
pub struct InferRequest {
    pub predict: PredictRequest,
    /// How long the caller waits.
    pub timeout: Option<Duration>,
    pub(crate) outputs: Vec<RequestedOutput>,
}

#[derive(Debug, Clone)]
pub(crate) struct RequestedOutput {
    pub(crate) name: Cow<'static, str>,
    /// As a blob behind the JSON.
    pub(crate) binary: bool,
    /// The classification extension: answer the best N as `value:index:label`.
    pub(crate) classes: Option<usize>,
}

/// Reads an infer request. `header_bytes` is the value of `Inference-Header-Content-Length`: how much of the body is JSON, 0 for a
/// raw request that is one tensor and no JSON; without it all is JSON. Binary tensors for a model of tensors stay in the body's memory.
///
/// # Errors
/// `invalid_json`, or `invalid_tensor`, `invalid_argument`, `unknown_feature`, `type_mismatch` naming the tensor.
pub fn decode(deployment: &Deployment, header_bytes: Option<usize>, body: &Bytes) -> Result<Infer> {
    let Some(model) = deployment.tensor_model() else {
        return decode_infer(deployment, header_bytes, body).map(Infer::Rows);
    };
    if header_bytes == Some(0) {
        let input = raw_tensor(deployment.name(), model.signature(), body)?;
        return tensor_infer(deployment, None, vec![input], None, true).map(Infer::Tensors);
    }
    let (parsed, mut blobs) = message(header_bytes, body)?;
    let inputs = parsed.inputs.into_iter().map(|input| input.whole_tensor(body, &mut blobs));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    check_all_taken(blobs)?;
    let parameters = parsed.parameters;
    let mut infer = tensor_infer(deployment, parsed.id, inputs, parsed.outputs, parameters.is_binary_output())?;
    (infer.timeout, infer.request.priority) = (parameters.timeout(), parameters.priority()?);
    Ok(Infer::Tensors(infer))
}

/// As [`decode`], for a model of rows.
///
/// # Errors
/// As [`decode`].
pub fn decode_infer(deployment: &Deployment, header_bytes: Option<usize>, body: &[u8]) -> Result<InferRequest> {
    if header_bytes == Some(0) {
        return raw_request(deployment, body);
    }
    let (parsed, mut blobs) = message(header_bytes, body)?;
    let parameters = parsed.parameters;
    let priority = parameters.priority()?;
    let mut predict = PredictRequest { id: parsed.id, priority, ..PredictRequest::default() };
    for input in parsed.inputs {
        let tensor = input.tensor(&mut blobs)?;
        add_input(deployment, &mut predict, tensor)?;
    }
    check_all_taken(blobs)?;
    let outputs = requested(deployment, parsed.outputs, parameters.is_binary_output())?;
    Ok(InferRequest { timeout: parameters.timeout(), ..finish(predict, outputs)? })
}

/// The JSON of a body, and what is behind it.
fn message(header_bytes: Option<usize>, body: &[u8]) -> Result<(Message<'_>, &[u8])> {
    let header_bytes = header_bytes.unwrap_or(body.len());
    let Some((json, blobs)) = body.split_at_checked(header_bytes) else {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("Inference-Header-Content-Length is {header_bytes}, the body has {} bytes", body.len()),
            "give the number of JSON bytes at the start of the (decompressed) body",
        ));
    };
    let parsed = plain_message(json).map_or_else(|| any_message(json), Ok)?;
    Ok((parsed, blobs))
}

/// # Errors
/// What is wrong with the message.
pub(super) fn any_message(json: &[u8]) -> Result<Message<'_>> {
    let fault = Fault::default();
    let seed = ObjectSeed { what: "the request", fault: Some(&fault), each: Message::default() };
    parse(json, &fault, seed)
}

fn check_all_taken(blobs: &[u8]) -> Result<()> {
    if blobs.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidTensor,
        format!("{} bytes follow the last binary tensor", blobs.len()),
        "make the tensors' binary_data_size add up to the bytes behind the JSON",
    ))
}

/// Only a model with one input and one open dimension says what the bytes of a raw request are.
fn raw_request(deployment: &Deployment, body: &[u8]) -> Result<InferRequest> {
    let mut predict = PredictRequest::default();
    let keys = [deployment.entity_fields(), deployment.request_fields()].concat();
    if deployment.service().is_none() {
        let width = deployment.features().len().max(1);
        let data = read_binary(FEATURES_INPUT, Datatype::Fp64, body.len() / 8, body)?;
        add_input(deployment, &mut predict, Tensor::of(FEATURES_INPUT, vec![data.len() / width, width], data)?)?;
    } else if let [field] = keys.as_slice() {
        let datatype = Datatype::of(field.dtype).ok_or_else(|| invalid(&field.name, "has no raw form"))?;
        let data = match datatype.width_bytes() {
            Some(width) => read_binary(&field.name, datatype, body.len() / width, body)?,
            None => ColumnData::Bytes(vec![body.to_vec()]),
        };
        add_input(deployment, &mut predict, Tensor::of(&field.name, vec![data.len()], data)?)?;
    } else {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!(
                "Raw request must only have 1 input to be deduced but got {} inputs in '{}'",
                keys.len(),
                deployment.name()
            ),
            "send JSON with the inputs, and its length in Inference-Header-Content-Length",
        ));
    }
    finish(predict, requested(deployment, None, true)?)
}

pub(crate) fn finish(mut predict: PredictRequest, outputs: Vec<RequestedOutput>) -> Result<InferRequest> {
    predict.outputs = headrace_engine::Outputs::NONE;
    for output in &outputs {
        if output.name == CONTRIBUTIONS_OUTPUT {
            predict.explain = Some(Explain::default());
            continue;
        }
        predict.outputs =
            predict.outputs.with(&output.name).ok_or_else(|| Error::internal("an output without a name"))?;
    }
    for batch in [&mut predict.entities, &mut predict.request, &mut predict.features] {
        batch.rows = batch.columns.first().map_or(0, |(_, column)| column.len());
    }
    Ok(InferRequest { predict, timeout: None, outputs })
}

pub(crate) fn requested(
    deployment: &Deployment,
    asked: Option<Vec<AskedOutput>>,
    binary_output: bool,
) -> Result<Vec<RequestedOutput>> {
    let known = output_names(deployment);
    let all =
        || known.iter().map(|name| AskedOutput { name: Cow::Borrowed(*name), ..AskedOutput::default() }).collect();
    let asked: Vec<AskedOutput> = asked.filter(|asked| !asked.is_empty()).unwrap_or_else(all);
    let mut outputs: Vec<RequestedOutput> = Vec::with_capacity(asked.len());
    for output in asked {
        let problem = if !known.contains(&&*output.name) && output.name != CONTRIBUTIONS_OUTPUT {
            "is not an output"
        } else if outputs.iter().any(|other| other.name == output.name) {
            "is asked for twice"
        } else if output.classes.is_some() && (output.name != "scores" || deployment.classes().is_empty()) {
            "has no classification form; ask it of 'scores'"
        } else {
            outputs.push(RequestedOutput {
                binary: output.binary.unwrap_or(binary_output),
                name: output.name,
                classes: output.classes,
            });
            continue;
        };
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("output '{}' of model '{}' {problem}", output.name, deployment.name()),
            format!("its outputs are {}", known.join(", ")),
        ));
    }
    Ok(outputs)
}

/// A tensor whose values were read, from whatever transport.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) column: Column,
    /// Elements that do not fit the datatype, by their flat index.
    pub(crate) errors: Vec<RowError>,
}

impl Tensor {
    fn of(name: &str, shape: Vec<usize>, data: ColumnData) -> Result<Self> {
        let tensor = Self { name: name.to_owned(), shape, column: Column::new(data), errors: Vec::new() };
        tensor.checked()
    }

    pub(crate) fn checked(self) -> Result<Self> {
        let count = self.column.len();
        if element_count(&self.shape) != Some(count) {
            return Err(invalid(
                &self.name,
                format!("has {count} values, its shape {:?} asks for another number", self.shape),
            ));
        }
        Ok(self)
    }
}

/// Puts a tensor where its name says.
pub(crate) fn add_input(deployment: &Deployment, predict: &mut PredictRequest, tensor: Tensor) -> Result<()> {
    if tensor.name == FEATURES_INPUT && deployment.service().is_none() && !deployment.takes_text() {
        return add_matrix(deployment, predict, tensor);
    }
    let place = Section::ALL.into_iter().find_map(|section| {
        let field = deployment.fields(section).iter().find(|field| field.name == tensor.name)?;
        Some((section, field))
    });
    let Some((section, field)) = place else {
        return Err(Error::new(
            ErrorCode::UnknownFeature,
            format!("model '{}' has no input '{}'", deployment.name(), tensor.name),
            "GET the model's metadata for its inputs; a feature may be given by its name",
        ));
    };
    if !matches!(tensor.shape[..], [_] | [_, 1]) {
        return Err(invalid(&tensor.name, format!("has shape {:?}, expected [rows] or [rows, 1]", tensor.shape)));
    }
    if section == Section::Features && predict.matrix.is_some() {
        return Err(invalid(&tensor.name, format!("comes beside '{FEATURES_INPUT}', which holds all features")));
    }
    check_rows(deployment, &tensor)?;
    let column = fitted(tensor.column, field, &mut predict.row_errors)?;
    predict.row_errors.extend(tensor.errors);
    check_wrong(predict)?;
    let batch = match section {
        Section::Entities => &mut predict.entities,
        Section::Request => &mut predict.request,
        Section::Features => &mut predict.features,
    };
    batch.columns.push((field.name.clone(), column));
    Ok(())
}

/// Before the values become others, which takes memory of its own.
fn check_rows(deployment: &Deployment, tensor: &Tensor) -> Result<()> {
    let (rows, rows_max) = (tensor.shape.first().copied().unwrap_or(0), deployment.rows_max());
    if rows <= rows_max {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::TooLarge,
        format!("tensor '{}' has {rows} rows, the limit is {rows_max}", tensor.name),
        "split the request into several",
    ))
}

fn check_wrong(predict: &PredictRequest) -> Result<()> {
    if predict.row_errors.len() > WRONG_VALUES_MAX { Err(too_many_wrong(&predict.row_errors)) } else { Ok(()) }
}

fn add_matrix(deployment: &Deployment, predict: &mut PredictRequest, tensor: Tensor) -> Result<()> {
    let width = deployment.features().len();
    if predict.matrix.is_some() || !predict.features.columns.is_empty() {
        return Err(invalid(&tensor.name, "comes beside features that were given before"));
    }
    if tensor.shape.len() != 2 || tensor.shape[1] != width {
        return Err(invalid(&tensor.name, format!("has shape {:?}, expected [rows, {width}]", tensor.shape)));
    }
    check_rows(deployment, &tensor)?;
    let field = Field::new(FEATURES_INPUT, DType::FLOAT64);
    let mut errors = tensor.errors;
    let column = fitted(tensor.column, &field, &mut errors)?;
    predict.row_errors.extend(errors.into_iter().map(|found| RowError { row: found.row / width.max(1), ..found }));
    check_wrong(predict)?;
    let Column { data: ColumnData::Float64(mut values), validity } = column else {
        return Err(Error::internal("a tensor of numbers became something else"));
    };
    for (value, _) in values.iter_mut().zip(validity.iter().flatten()).filter(|(_, valid)| !**valid) {
        *value = f64::NAN;
    }
    predict.matrix = Some(values);
    Ok(())
}

/// The tensor's values in the field's type. Kinds that can never fit are the tensor's fault, single values their row's.
fn fitted(column: Column, field: &Field, row_errors: &mut Vec<RowError>) -> Result<Column> {
    let given = column.dtype();
    if given == field.dtype {
        return Ok(column);
    }
    let is_text = |dtype: DType| matches!(dtype.element(), ScalarType::String | ScalarType::Bytes);
    if field.dtype.is_list() || (is_text(given) != is_text(field.dtype) && field.dtype != DType::TIMESTAMP) {
        let expected = Datatype::of(field.dtype).map_or("no tensor", Datatype::name);
        return Err(invalid(&field.name, format!("holds {given} values, the model expects {expected}")));
    }
    let Column { data, validity } = column;
    let (column, errors) = match (data, field.dtype) {
        (ColumnData::Int64(values), DType::TIMESTAMP) => {
            (Column { data: ColumnData::Timestamp(values), validity }, Vec::new())
        }
        (ColumnData::Float32(values), DType::FLOAT64) => {
            (Column { data: ColumnData::Float64(values.into_iter().map(f64::from).collect()), validity }, Vec::new())
        }
        (data, dtype) => headrace_engine::coerce_column(&field.name, &Column { data, validity }, dtype),
    };
    row_errors.extend(errors);
    Ok(column)
}

/// The request as it stands in the JSON.
#[derive(Debug, Default)]
pub(super) struct Message<'de> {
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<Input<'de>>,
    pub(super) outputs: Option<Vec<AskedOutput>>,
    pub(super) parameters: Parameters,
}

impl<'de> KeyHandler<'de> for Message<'de> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = map.next_value()?,
            "parameters" => self.parameters = parameters(map)?,
            "inputs" => {
                let seed = Optional(ListSeed::<Input<'_>>::new("'inputs'", "an input"));
                self.inputs = map.next_value_seed(seed)?.unwrap_or_default();
            }
            "outputs" => {
                self.outputs = map.next_value_seed(Optional(ListSeed::<AskedOutput>::new("'outputs'", "an output")))?;
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A list of objects of one kind.
struct ListSeed<T> {
    what: &'static str,
    item: &'static str,
    items: Vec<T>,
}

impl<T> ListSeed<T> {
    fn new(what: &'static str, item: &'static str) -> Self {
        Self { what, item, items: Vec::new() }
    }
}

impl<'de, T: KeyHandler<'de> + Default> DeserializeSeed<'de> for ListSeed<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: KeyHandler<'de> + Default> Visitor<'de> for ListSeed<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list as {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let seed = || ObjectSeed { what: self.item, fault: None, each: T::default() };
        while let Some(item) = seq.next_element_seed(seed())? {
            self.items.push(item);
            if self.items.len() > TENSORS_MAX {
                return Err(de::Error::custom(format_args!("{} lists more than {TENSORS_MAX} tensors", self.what)));
            }
        }
        Ok(self.items)
    }
}

/// The parameters that mean something here. Others are read and left, as the protocol allows: strings, numbers and bools.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    pub(super) binary_data_size: Option<usize>,
    pub(super) binary_data: Option<bool>,
    pub(super) binary_data_output: Option<bool>,
    classification: Option<usize>,
    /// Microseconds; 0 is none.
    timeout_us: Option<u64>,
    priority: Option<u64>,
}

impl Parameters {
    fn is_binary_output(&self) -> bool {
        self.binary_data_output.unwrap_or(false)
    }

    /// # Errors
    /// `invalid_argument` for a level that is none.
    fn priority(&self) -> Result<Priority> {
        Priority::of_level(self.priority.unwrap_or(0))
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout_us.filter(|us| *us > 0).map(Duration::from_micros)
    }
}

impl<'de> KeyHandler<'de> for Parameters {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "binary_data_size" => self.binary_data_size = map.next_value()?,
            "binary_data" => self.binary_data = map.next_value()?,
            "binary_data_output" => self.binary_data_output = map.next_value()?,
            "classification" => self.classification = map.next_value()?,
            "timeout" => self.timeout_us = map.next_value()?,
            "priority" => self.priority = map.next_value()?,
            "shared_memory_region" if map.next_value::<Option<IgnoredAny>>()?.is_some() => {
                return Err(de::Error::custom("shared memory is not offered: send the data in the body"));
            }
            "shared_memory_region" => {}
            _ => {
                map.next_value::<Option<AnyParameter>>()?;
            }
        }
        Ok(())
    }
}

/// A parameter that is not read, which must be a string, a number or a bool all the same.
struct AnyParameter;

impl<'de> Deserialize<'de> for AnyParameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyParameter)
    }
}

impl Visitor<'_> for AnyParameter {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter that is a string, a number or a bool")
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
}

fn parameters<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Parameters, A::Error> {
    let seed = Optional(ObjectSeed { what: "'parameters'", fault: None, each: Parameters::default() });
    Ok(map.next_value_seed(seed)?.unwrap_or_default())
}

/// One entry of `outputs`.
#[derive(Debug, Default)]
pub(crate) struct AskedOutput {
    pub(crate) name: Cow<'static, str>,
    pub(crate) binary: Option<bool>,
    pub(crate) classes: Option<usize>,
}

impl<'de> KeyHandler<'de> for AskedOutput {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => self.name = map.next_value::<Option<String>>()?.unwrap_or_default().into(),
            "parameters" => {
                let parameters = parameters(map)?;
                self.binary = parameters.binary_data;
                self.classes = parameters.classification.filter(|count| *count > 0);
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// One entry of `inputs`, its keys in any order.
#[derive(Debug, Default)]
pub(super) struct Input<'de> {
    pub(super) name: String,
    pub(super) shape: Option<Vec<usize>>,
    pub(super) datatype: Option<Datatype>,
    pub(super) binary_bytes: Option<usize>,
    pub(super) data: Option<InputData<'de>>,
}

/// Tensor data as it stands in JSON.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) column: Column,
    pub(super) errors: Vec<RowError>,
    pub(super) nesting: Nesting,
}

#[derive(Debug)]
pub(super) enum InputData<'de> {
    Values(Box<Values>),
    /// Came before the datatype, so it could not be typed yet.
    Text(&'de RawValue),
}

impl InputData<'_> {
    pub(super) fn read(self, name: &str, datatype: Datatype) -> Result<Values> {
        match self {
            InputData::Values(values) => Ok(*values),
            InputData::Text(text) => parse(text.get().as_bytes(), &Fault::default(), TensorSeed { name, datatype }),
        }
    }
}

impl<'de> KeyHandler<'de> for Input<'de> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => self.name = map.next_value::<Option<String>>()?.unwrap_or_default(),
            "shape" => self.shape = map.next_value()?,
            "datatype" => {
                let name: Option<String> = map.next_value()?;
                self.datatype = name.map(|name| Datatype::from_name(&name)).transpose().map_err(de::Error::custom)?;
            }
            "parameters" => self.binary_bytes = parameters(map)?.binary_data_size,
            "data" => {
                self.data = match self.datatype {
                    Some(datatype) => {
                        let seed = Optional(TensorSeed { name: &self.name, datatype });
                        map.next_value_seed(seed)?.map(|values| InputData::Values(Box::new(values)))
                    }
                    None => map.next_value::<Option<&RawValue>>()?.map(InputData::Text),
                };
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl Input<'_> {
    /// The tensor as a model of tensors takes it, its data cut out of the body where it is binary.
    fn whole_tensor(mut self, body: &Bytes, blobs: &mut &[u8]) -> Result<headrace_types::Tensor> {
        if let (None, Some(bytes), Some(datatype)) = (&self.data, self.binary_bytes, self.datatype)
            && !self.name.is_empty()
        {
            let shape = self.shape.take().ok_or_else(|| invalid(&self.name, "has no shape"))?;
            let blob = take_blob(&self.name, bytes, blobs)?;
            return headrace_types::Tensor::new(self.name, datatype, shape, body.slice_ref(blob));
        }
        let datatype = self.datatype.ok_or_else(|| invalid(&self.name, "has no datatype"))?;
        let Tensor { name, shape, column, errors } = self.tensor(blobs)?;
        if let Some(wrong) = errors.first() {
            let what = format!("has a wrong value at place {}: {}", wrong.row, wrong.error.message);
            return Err(invalid(&name, what));
        }
        tensor_of_column(name, datatype, shape, &column)
    }

    /// The tensor, its data from the JSON or from the front of `blobs`.
    fn tensor(self, blobs: &mut &[u8]) -> Result<Tensor> {
        let name = self.name;
        let lacks = |what: &str| invalid(&name, format!("has no {what}"));
        if name.is_empty() {
            return Err(lacks("name"));
        }
        let datatype = self.datatype.ok_or_else(|| lacks("datatype"))?;
        let shape = self.shape.ok_or_else(|| lacks("shape"))?;
        if shape.len() > DIMENSIONS_MAX {
            return Err(invalid(&name, format!("has {} dimensions, the limit is {DIMENSIONS_MAX}", shape.len())));
        }
        let count = element_count(&shape).ok_or_else(|| invalid(&name, "has a shape without bounds"))?;
        let (column, errors) = match (self.data, self.binary_bytes) {
            (Some(_), Some(_)) => return Err(invalid(&name, "has both 'data' and 'binary_data_size'")),
            (None, None) => return Err(lacks("data")),
            (None, Some(bytes)) => {
                let blob = take_blob(&name, bytes, blobs)?;
                (Column::new(read_binary(&name, datatype, count, blob)?), Vec::new())
            }
            (Some(data), None) => {
                let values = data.read(&name, datatype)?;
                if !values.nesting.fits(&shape) {
                    return Err(invalid(&name, format!("has data that is not nested as its shape {shape:?} says")));
                }
                (values.column, values.errors)
            }
        };
        if !datatype.has_json_form() && self.binary_bytes.is_none() {
            return Err(invalid(
                &name,
                format!("is {}, which has no JSON form: send it as binary data", datatype.name()),
            ));
        }
        Tensor { name, shape, column, errors }.checked()
    }
}

/// The next bytes behind the JSON.
fn take_blob<'b>(name: &str, bytes: usize, blobs: &mut &'b [u8]) -> Result<&'b [u8]> {
    let (blob, rest) = blobs
        .split_at_checked(bytes)
        .ok_or_else(|| invalid(name, format!("asks for {bytes} binary bytes, {} are left", blobs.len())))?;
    *blobs = rest;
    Ok(blob)
}

/// Tensor data, flat or nested, as one column.
struct TensorSeed<'n> {
    name: &'n str,
    datatype: Datatype,
}

impl<'de> DeserializeSeed<'de> for TensorSeed<'_> {
    type Value = Values;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let dtype = match self.datatype {
            Datatype::Bytes => DType::STRING, // text in JSON must be UTF-8; other bytes need the binary form
            other => other.dtype(),
        };
        let mut builder = ColumnBuilder::new(self.name, dtype, 0);
        let mut nesting = Nesting::default();
        let nested = Some(Nested { nesting: &mut nesting, level: 0 });
        ElementSeed { builder: &mut builder, nested }.deserialize(deserializer)?;
        if nesting.lists == 0 {
            return Err(de::Error::custom(format_args!("the data of tensor '{}' is not a list", shortened(self.name))));
        }
        let (column, errors) = builder.finish();
        Ok(Values { column, errors, nesting })
    }
}
