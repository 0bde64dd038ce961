//! Predict responses to infer responses.

use headrace_engine::{Deployment, NO_LABEL, PredictResponse};
use headrace_types::{Error, Result};

use super::CONTRIBUTIONS_OUTPUT;
use super::datatype::{Datatype, write_bytes_element};
use super::decode::{InferRequest, RequestedOutput};
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
    let mut json = Vec::with_capacity(256);
    let mut blobs = Vec::new();
    json.extend_from_slice(b"{\"model_name\":");
    write(&mut json, deployment.name());
    json.extend_from_slice(b",\"model_version\":\"");
    write(&mut json, &deployment.version());
    json.push(b'"');
    if let Some(id) = &request.predict.id {
        json.extend_from_slice(b",\"id\":");
        write(&mut json, id);
    }
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
    json.extend_from_slice(b"]}");
    let has_binary = request.outputs.iter().any(|output| output.binary);
    let header_bytes = has_binary.then_some(json.len());
    json.append(&mut blobs);
    Ok(InferResponse { body: json, header_bytes })
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
        Ok(match (output.name.as_str(), output.classes) {
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

fn write_output(json: &mut Vec<u8>, blobs: &mut Vec<u8>, output: &RequestedOutput, tensor: &OutputTensor<'_>) {
    json.extend_from_slice(b"{\"name\":");
    write(json, &*output.name);
    json.extend_from_slice(b",\"datatype\":");
    write(json, tensor.datatype().name());
    json.extend_from_slice(b",\"shape\":");
    write(json, tensor.shape());
    if output.binary {
        let before = blobs.len();
        match tensor {
            OutputTensor::Texts(texts, _) => texts.iter().for_each(|text| write_bytes_element(blobs, text.as_bytes())),
            OutputTensor::Numbers(numbers, _) => blobs.extend(numbers.iter().flat_map(|number| number.to_le_bytes())),
        }
        json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        write(json, &(blobs.len() - before));
        json.push(b'}');
    } else {
        json.extend_from_slice(b",\"data\":");
        match tensor {
            OutputTensor::Texts(texts, _) => write(json, texts),
            OutputTensor::Numbers(numbers, _) => write(json, numbers),
        }
    }
    json.push(b'}');
}
