//! The models that Triton's example clients ask: `simple`, `simple_string` and `simple_identity`.

use std::sync::Arc;

use headrace_types::{Datatype, Result, Task, Tensor, TensorInfo, TensorModel, TensorSignature, invalid_tensor};

use crate::deployment::ModelSpec;
use crate::engine::Engine;

/// Rows of a batch, as in Triton's repository of examples.
const BATCH_MAX: usize = 8;
const PLATFORM: &str = "headrace_fixture";

impl Engine {
    /// Adds version 1 of each fixture model.
    ///
    /// # Errors
    /// As [`Engine::add_model`].
    pub fn add_fixtures(&self) -> Result<()> {
        let models: [(&str, Arc<dyn TensorModel>); 3] = [
            ("simple", Arc::new(SumAndDifference::new(Datatype::Int32))),
            ("simple_string", Arc::new(SumAndDifference::new(Datatype::Bytes))),
            ("simple_identity", Arc::new(Identity::new())),
        ];
        for (name, model) in models {
            self.add_model(ModelSpec::of_tensors(name, 1, Task::Tensors, PLATFORM, model))?;
        }
        Ok(())
    }
}

/// OUTPUT0 is the sum of INPUT0 and INPUT1, OUTPUT1 their difference: of INT32, or of BYTES that hold whole numbers as text.
#[derive(Debug)]
struct SumAndDifference {
    signature: TensorSignature,
}

impl SumAndDifference {
    fn new(datatype: Datatype) -> Self {
        let named = |name: &str| TensorInfo::new(name, datatype, [-1, 16]);
        let signature = TensorSignature {
            inputs: vec![named("INPUT0"), named("INPUT1")],
            outputs: vec![named("OUTPUT0"), named("OUTPUT1")],
            batch_max: BATCH_MAX,
        };
        Self { signature }
    }
}

impl TensorModel for SumAndDifference {
    fn signature(&self) -> &TensorSignature {
        &self.signature
    }

    fn run(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        let (left, right) = (numbers(&inputs[0])?, numbers(&inputs[1])?);
        let tensor = |place: usize| {
            let info = &self.signature.outputs[place];
            let pairs = left.iter().zip(&right);
            let results = pairs.map(|(a, b)| if place == 0 { a.wrapping_add(*b) } else { a.wrapping_sub(*b) });
            let shape = inputs[0].shape().to_vec();
            if info.datatype == Datatype::Bytes {
                return Tensor::of_bytes(&*info.name, shape, results.map(|number| number.to_string()));
            }
            let data: Vec<u8> = results.flat_map(i32::to_le_bytes).collect();
            Tensor::new(&*info.name, info.datatype, shape, data.into())
        };
        outputs.iter().map(|place| tensor(*place)).collect()
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<i32>> {
    if let Some(numbers) = tensor.numbers(i32::from_le_bytes) {
        return Ok(numbers.collect());
    }
    let number = |element: &[u8]| std::str::from_utf8(element).ok()?.parse().ok();
    let numbers: Option<Vec<i32>> = tensor.bytes_elements().map(number).collect();
    numbers.ok_or_else(|| invalid_tensor(tensor.name(), "holds a text that is not a whole number of 32 bits"))
}

/// OUTPUT0 is INPUT0.
#[derive(Debug)]
struct Identity {
    signature: TensorSignature,
}

impl Identity {
    fn new() -> Self {
        let named = |name: &str| vec![TensorInfo::new(name, Datatype::Bytes, [-1, -1])];
        Self { signature: TensorSignature { inputs: named("INPUT0"), outputs: named("OUTPUT0"), batch_max: BATCH_MAX } }
    }
}

impl TensorModel for Identity {
    fn signature(&self) -> &TensorSignature {
        &self.signature
    }

    fn run(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        let info = &self.signature.outputs[0];
        outputs.iter().map(|_| inputs[0].renamed(&*info.name, inputs[0].shape().to_vec())).collect()
    }
}
