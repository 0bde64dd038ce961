//! Predict responses to infer responses.

use headrace_engine::{Deployment, NO_LABEL, PredictResponse, TensorResponse};
use headrace_types::{Error, ErrorCode, Result, Tensor};

use super::CONTRIBUTIONS_OUTPUT;
use super::datatype::{Datatype, write_bytes_element};
use super::decode::{InferRequest, RequestedOutput};
use super::tensors::{TensorInfer, answered};
use crate::json::{separate, write};

/// An encoded answer.
#[derive(Debug)]
pub struct InferResponse {
    pub body: Vec<u8>,
    /// How much of the body is JSON, when binary tensors follow: the response header `Inference-Header-Content-Length`.
    pub header_bytes: Option<usize>,
}

/// Writes the answer to `request`. Failed rows have an empty label and NaN scores, and are named in the parameter `row_errors`.
///
/// # Errors
/// The first row's error when every row failed: this protocol has no status for a row.
pub fn encode_infer(
    deployment: &Deployment,
    request: &InferRequest,
    response: &PredictResponse,
) -> Result<InferResponse> {
    check_any_answer(response)?;
    let mut json = head(deployment, request.predict.id.as_deref());
    let mut blobs = Vec::new();
    if !response.row_errors.is_empty() {
        json.extend_from_slice(b",\"parameters\":{\"row_errors\":");
        write(&mut json, &row_errors_text(response));
        json.push(b'}');
    }
    json.extend_from_slice(b",\"outputs\":[");
    for (index, output) in request.outputs.iter().enumerate() {
        separate(&mut json, index);
        write_output(&mut json, &mut blobs, output, &OutputTensor::of(response, output)?);
    }
    Ok(ended(json, blobs, request.outputs.iter().any(|output| output.binary)))
}

/// Writes the answer of a model of tensors.
///
/// # Errors
/// `invalid_argument` for an output that has no JSON form, naming it.
pub fn encode_tensors(
    deployment: &Deployment,
    infer: &TensorInfer,
    response: &TensorResponse,
) -> Result<InferResponse> {
    let mut json = head(deployment, infer.request.id.as_deref());
    let tensors = answered(deployment, infer, response)?;
    let mut blobs = Vec::with_capacity(
        tensors
            .iter()
            .zip(&infer.outputs)
            .filter(|(_, output)| output.binary)
            .map(|(tensor, _)| tensor.data().len())
            .sum(),
    );
    json.extend_from_slice(b",\"outputs\":[");
    for (index, (tensor, output)) in tensors.iter().zip(&infer.outputs).enumerate() {
        separate(&mut json, index);
        write_head(&mut json, tensor.name(), tensor.datatype().name(), tensor.shape());
        if output.binary {
            blobs.extend_from_slice(tensor.data());
            write_size(&mut json, tensor.data().len());
        } else {
            json.extend_from_slice(b",\"data\":");
            write_elements(&mut json, tensor)?;
        }
        json.push(b'}');
    }
    Ok(ended(json, blobs, infer.outputs.iter().any(|output| output.binary)))
}

/// An answer up to its outputs. The id is the caller's; without one there is none.
fn head(deployment: &Deployment, id: Option<&str>) -> Vec<u8> {
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{\"model_name\":");
    write(&mut json, deployment.name());
    json.extend_from_slice(b",\"model_version\":\"");
    write(&mut json, &deployment.version());
    json.push(b'"');
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        json.extend_from_slice(b",\"id\":");
        write(&mut json, id);
    }
    json
}

fn ended(mut json: Vec<u8>, mut blobs: Vec<u8>, has_binary: bool) -> InferResponse {
    json.extend_from_slice(b"]}");
    let header_bytes = has_binary.then_some(json.len());
    json.append(&mut blobs);
    InferResponse { body: json, header_bytes }
}

/// The elements as a flat list; a float that is not finite is `null`.
fn write_elements(json: &mut Vec<u8>, tensor: &Tensor) -> Result<()> {
    let no_form = |what: &str| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("output '{}' {what}", tensor.name()),
            "ask for it as binary data: \"parameters\": {\"binary_data\": true}",
        )
    };
    json.push(b'[');
    macro_rules! numbers {
        ($($datatype:ident: $type:ty),*) => {
            match tensor.datatype() {
                $(Datatype::$datatype => {
                    for (index, number) in tensor.numbers(<$type>::from_le_bytes).into_iter().flatten().enumerate() {
                        separate(json, index);
                        write(json, &number);
                    }
                })*
                Datatype::Bool => {
                    for (index, byte) in tensor.data().iter().enumerate() {
                        separate(json, index);
                        write(json, &(*byte == 1));
                    }
                }
                Datatype::Bytes => {
                    for (index, element) in tensor.bytes_elements().enumerate() {
                        let text = std::str::from_utf8(element).map_err(|_| no_form("holds bytes that are not UTF-8"))?;
                        separate(json, index);
                        write(json, text);
                    }
                }
                Datatype::Fp16 | Datatype::Bf16 => return Err(no_form("is of 16-bit floats, which have no JSON form")),
            }
        };
    }
    numbers!(UInt8: u8, UInt16: u16, UInt32: u32, UInt64: u64, Int8: i8, Int16: i16, Int32: i32, Int64: i64, Fp32: f32, Fp64: f64);
    json.push(b']');
    Ok(())
}

/// # Errors
/// The first row's error when every row failed.
pub(crate) fn check_any_answer(response: &PredictResponse) -> Result<()> {
    match response.row_errors.first() {
        Some(first) if response.row_errors.len() == response.rows => Err(Error::clone(&first.error)),
        _ => Ok(()),
    }
}

/// The parameter's text: a JSON object, because a parameter is a string, a number or a bool.
pub(crate) fn row_errors_text(response: &PredictResponse) -> String {
    let mut text = Vec::from(b"{");
    for (index, found) in response.row_errors.iter().enumerate() {
        separate(&mut text, index);
        write(&mut text, &found.row.to_string());
        text.push(b':');
        write(&mut text, &found.error.to_string());
    }
    text.push(b'}');
    String::from_utf8(text).unwrap_or_default()
}

pub(crate) enum OutputTensor<'a> {
    Texts(Vec<String>, Vec<usize>),
    Numbers(&'a [f64], Vec<usize>),
}

impl<'a> OutputTensor<'a> {
    pub(crate) fn of(response: &'a PredictResponse, output: &RequestedOutput) -> Result<Self> {
        let rows = response.rows;
        Ok(match (&*output.name, output.classes) {
            ("scores", Some(count)) => {
                let count = count.min(response.scores_count());
                OutputTensor::Texts(best_classes(response, count), vec![rows, count])
            }
            ("scores", None) => OutputTensor::Numbers(&response.scores, vec![rows, response.scores_count()]),
            ("value", _) => OutputTensor::Numbers(&response.scores, vec![rows]),
            ("margin", _) => OutputTensor::Numbers(&response.margins, vec![rows, response.margins_count]),
            ("label", _) => {
                let name = |label: &u32| if *label == NO_LABEL { None } else { response.classes.get(*label as usize) };
                let labels = response.labels.iter().map(|label| name(label).cloned().unwrap_or_default());
                OutputTensor::Texts(labels.collect(), vec![rows])
            }
            (CONTRIBUTIONS_OUTPUT, _) => {
                let values = response.contributions.len() / (rows * response.margins_count).max(1);
                let shape = if response.margins_count == 1 {
                    vec![rows, values]
                } else {
                    vec![rows, response.margins_count, values]
                };
                OutputTensor::Numbers(&response.contributions, shape)
            }
            (other, _) => return Err(Error::internal(format!("no tensor for the output '{other}'"))),
        })
    }
}

impl OutputTensor<'_> {
    pub(crate) fn datatype(&self) -> Datatype {
        match self {
            OutputTensor::Texts(..) => Datatype::Bytes,
            OutputTensor::Numbers(..) => Datatype::Fp64,
        }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        let (OutputTensor::Texts(_, shape) | OutputTensor::Numbers(_, shape)) = self;
        shape
    }
}

/// The classification extension: `value:index:label` of each row's best classes, best first.
fn best_classes(response: &PredictResponse, count: usize) -> Vec<String> {
    let width = response.scores_count();
    let mut texts = Vec::with_capacity(response.rows * count);
    for scores in response.scores.chunks_exact(width) {
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        for &class in order.iter().take(count) {
            let label = response.classes.get(class).map_or("", String::as_str);
            texts.push(format!("{}:{class}:{label}", scores[class]));
        }
    }
    texts
}

/// An output's members before its data.
fn write_head(json: &mut Vec<u8>, name: &str, datatype: &str, shape: &[usize]) {
    json.extend_from_slice(b"{\"name\":");
    write(json, name);
    json.extend_from_slice(b",\"datatype\":");
    write(json, datatype);
    json.extend_from_slice(b",\"shape\":");
    write(json, shape);
}

fn write_size(json: &mut Vec<u8>, bytes: usize) {
    json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
    write(json, &bytes);
    json.push(b'}');
}

fn write_output(json: &mut Vec<u8>, blobs: &mut Vec<u8>, output: &RequestedOutput, tensor: &OutputTensor<'_>) {
    write_head(json, &output.name, tensor.datatype().name(), tensor.shape());
    if output.binary {
        let before = blobs.len();
        match tensor {
            OutputTensor::Texts(texts, _) => texts.iter().for_each(|text| write_bytes_element(blobs, text.as_bytes())),
            OutputTensor::Numbers(numbers, _) => blobs.extend(numbers.iter().flat_map(|number| number.to_le_bytes())),
        }
        write_size(json, blobs.len() - before);
    } else {
        json.extend_from_slice(b",\"data\":");
        match tensor {
            OutputTensor::Texts(texts, _) => write(json, texts),
            OutputTensor::Numbers(numbers, _) => write(json, numbers),
        }
    }
    json.push(b'}');
}
