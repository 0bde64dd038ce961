//! ONNX models of tensors: whatever goes in and comes out of the file, and the golden tensors that must reproduce.

use headrace_onnx::{Session, ValueInfo, ValueType};
use headrace_types::{
    Datatype, Error, ErrorCode, Model, Objective, Result, Tensor, TensorInfo, TensorModel, TensorSignature, base64,
};
use serde::{Deserialize, Serialize};

use crate::document::{corrupt, unsupported};
use crate::onnx_file;
use crate::runtimes::OnnxRuntime;

/// Calls that one golden file may hold: they are replayed at every start.
const GOLDEN_CALLS_MAX: usize = 1_000;
/// By how much a float may differ, relative to the largest of its output: another processor sums in another order.
const GOLDEN_BOUND: f64 = 1e-5;
/// The same of floats of 16 bits, whose last place is coarser than that.
const GOLDEN_BOUND_16: f64 = 2e-2;

/// An ONNX model that takes and gives tensors.
#[derive(Debug)]
pub struct OnnxTensors {
    session: Session,
    signature: TensorSignature,
}

impl OnnxTensors {
    /// # Errors
    /// `unavailable` without the library; `corrupt_model` when the signature is not the file's, `unsupported_model` for what is no tensor.
    pub(crate) fn load(bytes: &[u8], signature: Option<&TensorSignature>, runtime: &OnnxRuntime) -> Result<Self> {
        onnx_file::check(bytes)?;
        let session = Session::new(&runtime.open()?, bytes)?;
        let of_file = TensorSignature {
            inputs: infos("input", session.inputs())?,
            outputs: infos("output", session.outputs())?,
            batch_max: 0,
        };
        let signature = signature.cloned().unwrap_or_else(|| of_file.clone());
        signature.check()?;
        check_same("input", &signature.inputs, &of_file.inputs)?;
        check_same("output", &signature.outputs, &of_file.outputs)?;
        Ok(Self { session, signature })
    }
}

impl TensorModel for OnnxTensors {
    fn signature(&self) -> &TensorSignature {
        &self.signature
    }

    fn run(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        self.session.run_tensors(inputs, outputs)
    }
}

/// It has no features and no margins: what asks a model of rows for them gets none.
impl Model for OnnxTensors {
    fn features_count(&self) -> usize {
        0
    }

    fn outputs_count(&self) -> usize {
        0
    }

    fn objective(&self) -> Objective {
        Objective::Identity
    }

    fn margins(&self, _features: &[f64], _rows: usize, _margins: &mut [f64]) -> Result<()> {
        Err(Error::new(
            ErrorCode::UnsupportedModel,
            "this model takes tensors, not rows of features",
            "ask it with infer",
        ))
    }

    fn scores(&self, _margins: &mut [f64]) {}
}

fn infos(side: &str, values: &[ValueInfo]) -> Result<Vec<TensorInfo>> {
    let info = |value: &ValueInfo| {
        let ValueType::Tensor { element, shape } = &value.value_type else {
            return Err(unsupported(format!("{side} '{}' is no tensor", value.name), "export it with tensors"));
        };
        let datatype = element.datatype().ok_or_else(|| {
            unsupported(format!("{side} '{}' is of {element}", value.name), "export it with numbers, bools or strings")
        })?;
        Ok(TensorInfo::new(&*value.name, datatype, shape.as_slice()))
    };
    values.iter().map(info).collect()
}

fn check_same(side: &str, told: &[TensorInfo], of_file: &[TensorInfo]) -> Result<()> {
    let told_of = |info: &TensorInfo| format!("{} {} {:?}", info.name, info.datatype, info.shape);
    let is_same = told.len() == of_file.len() && told.iter().zip(of_file).all(|(a, b)| told_of(a) == told_of(b));
    if is_same {
        return Ok(());
    }
    let list = |infos: &[TensorInfo]| infos.iter().map(told_of).collect::<Vec<_>>().join(", ");
    Err(corrupt(format!("the signature's {side}s are {}, those of the file {}", list(told), list(of_file))))
}

/// `golden.json` of a model of tensors: inputs with the outputs that the exporter's runtime gave them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenTensors {
    pub calls: Vec<GoldenCall>,
}

/// One call of the model: all its inputs, and all its outputs in the order of the signature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenCall {
    pub inputs: Vec<GoldenTensor>,
    pub outputs: Vec<GoldenTensor>,
}

/// A tensor whose data is base64 of the protocol's binary form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenTensor {
    pub name: String,
    pub datatype: Datatype,
    pub shape: Vec<usize>,
    pub data: String,
}

impl GoldenTensor {
    fn tensor(&self, info: &TensorInfo) -> Result<Tensor> {
        if self.name != info.name {
            return Err(corrupt(format!("golden tensor '{}' stands where '{}' belongs", self.name, info.name)));
        }
        let data = base64::decode(&self.data)
            .ok_or_else(|| corrupt(format!("the data of golden tensor '{}' is no base64", self.name)))?;
        let tensor = Tensor::new(&*self.name, self.datatype, self.shape.clone(), data.into());
        let tensor = tensor.map_err(|error| corrupt(error.message))?;
        info.check(&tensor).map_err(|error| corrupt(error.message))?;
        Ok(tensor)
    }
}

impl GoldenTensors {
    /// # Errors
    /// `corrupt_model` when it is not JSON of this shape.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))
    }

    /// Runs the calls and compares: floats within 1e-5 of the largest of their output (2e-2 of those of 16 bits), all else exactly.
    ///
    /// # Errors
    /// `golden_row_mismatch` naming call, output and place; `corrupt_model` when the tensors are not the model's.
    pub(crate) fn replay(&self, model: &dyn TensorModel) -> Result<()> {
        if self.calls.is_empty() || self.calls.len() > GOLDEN_CALLS_MAX {
            return Err(corrupt(format!(
                "there are {} golden calls; 1 to {GOLDEN_CALLS_MAX} are needed",
                self.calls.len()
            )));
        }
        let signature = model.signature();
        let places: Vec<usize> = (0..signature.outputs.len()).collect();
        for (index, call) in self.calls.iter().enumerate() {
            let inputs = tensors(&call.inputs, &signature.inputs)?;
            let expected = tensors(&call.outputs, &signature.outputs)?;
            let found = model.run(&inputs, &places)?;
            for (found, expected) in found.iter().zip(&expected) {
                if let Some(what) = difference(found, expected) {
                    return Err(Error::new(
                        ErrorCode::GoldenRowMismatch,
                        format!("golden call {index}, output '{}': {what}", expected.name()),
                        "export the model again, without random numbers in it",
                    ));
                }
            }
        }
        Ok(())
    }
}

fn tensors(golden: &[GoldenTensor], infos: &[TensorInfo]) -> Result<Vec<Tensor>> {
    if golden.len() != infos.len() {
        return Err(corrupt(format!("a golden call has {} tensors, the model {}", golden.len(), infos.len())));
    }
    golden.iter().zip(infos).map(|(golden, info)| golden.tensor(info)).collect()
}

/// What differs, if anything does.
fn difference(found: &Tensor, expected: &Tensor) -> Option<String> {
    if found.shape() != expected.shape() || found.datatype() != expected.datatype() {
        let told = |tensor: &Tensor| format!("{} {:?}", tensor.datatype(), tensor.shape());
        return Some(format!("it is {}, expected {}", told(found), told(expected)));
    }
    let (Some((found_floats, bound)), Some((expected_floats, _))) = (floats(found), floats(expected)) else {
        return (found.data() != expected.data()).then(|| "its elements differ".to_owned());
    };
    let finite = expected_floats.iter().filter(|value| value.is_finite());
    let tolerance = finite.fold(0.0, |largest: f64, value| largest.max(value.abs())) * bound;
    let pairs = found_floats.iter().zip(&expected_floats).enumerate();
    let agree = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance;
    let (place, (a, b)) = pairs.into_iter().find(|(_, (a, b))| !agree(**a, **b))?;
    Some(format!("element {place} is {a:?}, the exporter got {b:?}"))
}

/// The elements of a tensor of floats, and by how much they may differ.
fn floats(tensor: &Tensor) -> Option<(Vec<f64>, f64)> {
    let of_16 = |tensor: &Tensor, number: fn(u16) -> f64| {
        let numbers = tensor.numbers(|bytes| number(u16::from_le_bytes(bytes)))?.collect();
        Some((numbers, GOLDEN_BOUND_16))
    };
    match tensor.datatype() {
        Datatype::Fp32 => Some((tensor.numbers(|bytes| f64::from(f32::from_le_bytes(bytes)))?.collect(), GOLDEN_BOUND)),
        Datatype::Fp64 => Some((tensor.numbers(f64::from_le_bytes)?.collect(), GOLDEN_BOUND)),
        Datatype::Fp16 => of_16(tensor, |bits| f64::from(headrace_types::f32_of_f16(bits))),
        Datatype::Bf16 => of_16(tensor, |bits| f64::from(headrace_types::f32_of_bf16(bits))),
        _ => None,
    }
}
