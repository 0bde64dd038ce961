use std::fmt::Debug;

use crate::{Result, Tensor, TensorSignature};

/// A loaded model that turns named tensors into named tensors.
pub trait TensorModel: Send + Sync + Debug {
    fn signature(&self) -> &TensorSignature;

    /// As [`Model::waits`](crate::Model::waits).
    fn waits(&self) -> bool {
        false
    }

    /// As [`Model::takes_long`](crate::Model::takes_long).
    fn takes_long(&self) -> bool {
        false
    }

    /// Runs the model. `inputs` are all of the signature's, in its order, and checked against it; where there is a batch dimension it is
    /// the same in all of them. `outputs` are places in the signature's outputs, in the order of the answer.
    ///
    /// # Errors
    /// `invalid_tensor` naming an input whose values the model does not take; `model_failed`.
    fn run(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>>;
}
