//! Models of tensors: from the tensors of any transport to the engine's request, and from its answer to the tensors that were asked for.

use std::cmp::Ordering;
use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use headrace_engine::{Deployment, TensorRequest, TensorResponse};
use headrace_types::{
    Column, ColumnData, Error, ErrorCode, Result, Tensor, TensorInfo, TensorSignature, invalid_tensor,
};

use super::datatype::{Datatype, f32_of_bf16, f32_of_f16};
use super::decode::{AskedOutput, RequestedOutput};

/// An infer request to a model of tensors: what to run, and how to answer.
#[derive(Debug)]
pub struct TensorInfer {
    pub request: TensorRequest,
    /// How long the caller waits.
    pub timeout: Option<Duration>,
    /// In the order of the answer.
    pub(crate) outputs: Vec<RequestedOutput>,
}

/// The request of some tensors. Without `asked` all outputs are; `binary_output` is what is meant where an output does not say. What the
/// engine checks is not checked here.
///
/// # Errors
/// `invalid_argument` of a classification that an output cannot have.
pub(crate) fn tensor_infer(
    deployment: &Deployment,
    id: Option<String>,
    inputs: Vec<Tensor>,
    asked: Option<Vec<AskedOutput>>,
    binary_output: bool,
) -> Result<TensorInfer> {
    let model = deployment.tensor_model().ok_or_else(|| Error::internal("tensors for a model of rows"))?;
    let all = || {
        let names = model.signature().outputs.iter().map(|info| info.name.clone());
        names.map(|name| AskedOutput { name: name.into(), ..AskedOutput::default() }).collect()
    };
    let asked: Vec<AskedOutput> = asked.filter(|asked| !asked.is_empty()).unwrap_or_else(all);
    let outputs: Vec<RequestedOutput> = asked
        .into_iter()
        .map(|output| RequestedOutput {
            binary: output.binary.unwrap_or(binary_output),
            name: output.name,
            classes: output.classes,
        })
        .collect();
    for output in outputs.iter().filter(|output| output.classes.is_some()) {
        let info = model.signature().outputs.iter().find(|info| info.name == output.name);
        if info.is_some_and(|info| matches!(info.datatype, Datatype::Bytes | Datatype::Bool)) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("output '{}' of model '{}' has no classification form", output.name, deployment.name()),
                "ask it of an output of numbers",
            ));
        }
    }
    let names = outputs.iter().map(|output| output.name.to_string()).collect();
    let request = TensorRequest { id, inputs, outputs: names, ..TensorRequest::default() };
    Ok(TensorInfer { request, timeout: None, outputs })
}

/// The tensors of an answer in the form that was asked for: classes where an output asked for them.
///
/// # Errors
/// `internal`, an output is missing.
pub(crate) fn answered(deployment: &Deployment, infer: &TensorInfer, response: &TensorResponse) -> Result<Vec<Tensor>> {
    let signature = deployment.tensor_model().ok_or_else(|| Error::internal("tensors of a model of rows"))?.signature();
    if response.outputs.len() != infer.outputs.len() {
        return Err(Error::internal("an answer with another number of outputs"));
    }
    let outputs = infer.outputs.iter().zip(&response.outputs);
    outputs
        .map(|(output, tensor)| match output.classes {
            None => Ok(tensor.clone()),
            Some(count) => {
                let info = signature.outputs.iter().find(|info| info.name == output.name);
                let labels = info.map_or(&[][..], |info| &info.labels);
                best_places(tensor, signature.batch_max > 0, count, labels)
            }
        })
        .collect()
}

/// The classification extension: `value:index[:label]` of the largest elements, best first; of each row where there is a batch.
fn best_places(tensor: &Tensor, is_batch: bool, count: usize, labels: &[String]) -> Result<Tensor> {
    let rows = if is_batch { tensor.shape().first().copied().unwrap_or(1) } else { 1 };
    let width = tensor.count() / rows.max(1);
    let count = count.min(width);
    macro_rules! best {
        ($($datatype:ident: $type:ty),*) => {
            match tensor.datatype() {
                $(Datatype::$datatype => {
                    best_of(tensor.numbers(<$type>::from_le_bytes).into_iter().flatten().collect(), width, count, labels)
                })*
                Datatype::Fp16 => {
                    let number = |bytes| f32_of_f16(u16::from_le_bytes(bytes));
                    best_of(tensor.numbers(number).into_iter().flatten().collect(), width, count, labels)
                }
                Datatype::Bf16 => {
                    let number = |bytes| f32_of_bf16(u16::from_le_bytes(bytes));
                    best_of(tensor.numbers(number).into_iter().flatten().collect(), width, count, labels)
                }
                Datatype::Bool | Datatype::Bytes => return Err(Error::internal("classes of what is no number")),
            }
        };
    }
    let texts = best!(
        UInt8: u8, UInt16: u16, UInt32: u32, UInt64: u64, Int8: i8, Int16: i16, Int32: i32, Int64: i64, Fp32: f32, Fp64: f64
    );
    Tensor::of_bytes(tensor.name(), if is_batch { vec![rows, count] } else { vec![count] }, texts)
}

fn best_of<T: PartialOrd + Copy + Display>(
    numbers: Vec<T>,
    width: usize,
    count: usize,
    labels: &[String],
) -> Vec<String> {
    // Whatever is not equal to itself, NaN, is the last; equal numbers stay in their order.
    let is_nan = |number: &T| number.partial_cmp(number).is_none();
    let descending = |a: &T, b: &T| b.partial_cmp(a).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)));
    let mut texts = Vec::new();
    for row in numbers.chunks_exact(width.max(1)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| -> Ordering { descending(&row[*a], &row[*b]) });
        for &place in order.iter().take(count) {
            let label = labels.get(place).map_or(String::new(), |label| format!(":{label}"));
            texts.push(format!("{}:{place}{label}", row[place]));
        }
    }
    texts
}

/// A raw request: the bytes of the only input, whose shape follows from their number. A BYTES input gets one element.
///
/// # Errors
/// `invalid_argument` when the model has several inputs, or an input with several free dimensions beside the batch.
pub(crate) fn raw_tensor(model: &str, signature: &TensorSignature, body: &Bytes) -> Result<Tensor> {
    let refuse = |what: String| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("a raw request to model '{model}': {what}"),
            "send JSON with the inputs, and its length in Inference-Header-Content-Length",
        )
    };
    let [info] = &signature.inputs[..] else {
        let count = signature.inputs.len();
        return Err(refuse(format!("Raw request must only have 1 input to be deduced but got {count} inputs")));
    };
    let mut dims = info.shape.clone();
    if signature.batch_max > 0 {
        dims[0] = 1;
    }
    let Some(width) = info.datatype.width_bytes() else {
        if dims.iter().any(|dim| *dim > 1) {
            return Err(refuse(format!("input '{}' has more than one element", info.name)));
        }
        return Tensor::of_bytes(&*info.name, vec![1; dims.len()], [body]);
    };
    let free = dims.iter().filter(|dim| **dim == -1).count();
    if free > 1 {
        return Err(refuse(format!("input '{}' has {free} free dimensions", info.name)));
    }
    let fixed = dims.iter().filter_map(|dim| usize::try_from(*dim).ok());
    let row = fixed.fold(width, usize::saturating_mul).max(1);
    let shape = dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(body.len() / row)).collect();
    Tensor::new(&*info.name, info.datatype, shape, body.clone())
}

/// The values of a column as a tensor; there may be no nulls.
///
/// # Errors
/// `invalid_tensor`.
pub(crate) fn tensor_of_column(name: String, datatype: Datatype, shape: Vec<usize>, column: &Column) -> Result<Tensor> {
    if let Some(place) = column.validity.as_ref().and_then(|valid| valid.iter().position(|valid| !valid)) {
        return Err(invalid_tensor(&name, format!("has null at place {place}; a tensor has no nulls")));
    }
    macro_rules! data {
        ($values:expr) => {
            $values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()
        };
    }
    let data = match &column.data {
        ColumnData::String(texts) => return Tensor::of_bytes(name, shape, texts),
        ColumnData::Bytes(elements) => return Tensor::of_bytes(name, shape, elements),
        ColumnData::Bool(v) => v.iter().map(|value| u8::from(*value)).collect(),
        ColumnData::UInt8(v) => v.clone(),
        ColumnData::UInt16(v) => data!(v),
        ColumnData::UInt32(v) => data!(v),
        ColumnData::UInt64(v) => data!(v),
        ColumnData::Int8(v) => data!(v),
        ColumnData::Int16(v) => data!(v),
        ColumnData::Int32(v) => data!(v),
        ColumnData::Int64(v) | ColumnData::Timestamp(v) => data!(v),
        ColumnData::Float32(v) => data!(v),
        ColumnData::Float64(v) => data!(v),
        ColumnData::List(..) => return Err(invalid_tensor(&name, "holds lists")),
    };
    Tensor::new(name, datatype, shape, data.into())
}

/// What metadata lists of a model of tensors.
pub(crate) fn infos(deployment: &Deployment) -> Option<(&[TensorInfo], &[TensorInfo])> {
    let signature = deployment.tensor_model()?.signature();
    Some((&signature.inputs, &signature.outputs))
}
