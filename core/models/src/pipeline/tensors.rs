use headrace_types::Result;
use safetensors::{Dtype, SafeTensors};

use crate::document::corrupt;

/// The key of the file's `__metadata__` that holds the description.
const DESCRIPTION_KEY: &str = "headrace.pipeline";

/// A safetensors file whose header was checked: tensors fill it without a hole or an overlap, each as long as its shape
/// and type say.
pub(super) struct Tensors<'a> {
    file: SafeTensors<'a>,
    pub(super) description: String,
}

impl<'a> Tensors<'a> {
    /// # Errors
    /// `corrupt_model` when the file breaks the format's rules or lacks the description.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let broken = |error: safetensors::SafeTensorError| corrupt(format!("not a safetensors file: {error}"));
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let description = metadata.metadata().as_ref().and_then(|entries| entries.get(DESCRIPTION_KEY)).cloned();
        let description = description.ok_or_else(|| corrupt(format!("its metadata lack '{DESCRIPTION_KEY}'")))?;
        Ok(Self { file: SafeTensors::deserialize(bytes).map_err(broken)?, description })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_ok()
    }

    /// The shape and the little-endian bytes of a tensor of this type and of so many dimensions.
    fn tensor(&self, name: &str, dtype: Dtype, dimensions: usize) -> Result<(Vec<usize>, &'a [u8])> {
        let tensor = self.file.tensor(name).map_err(|_| corrupt(format!("the tensor '{name}' is missing")))?;
        if tensor.dtype() != dtype || tensor.shape().len() != dimensions {
            let (have, shape) = (tensor.dtype(), tensor.shape());
            let message =
                format!("'{name}' is {have:?} of shape {shape:?}, {dtype:?} of {dimensions} dimensions was expected");
            return Err(corrupt(message));
        }
        Ok((tensor.shape().to_vec(), tensor.data()))
    }

    pub(super) fn floats(&self, name: &str) -> Result<Vec<f64>> {
        let (_, bytes) = self.tensor(name, Dtype::F64, 1)?;
        Ok(elements(bytes, f64::from_le_bytes))
    }

    /// Rows and columns, and the values row by row.
    pub(super) fn matrix(&self, name: &str) -> Result<(usize, usize, Vec<f64>)> {
        let (shape, bytes) = self.tensor(name, Dtype::F64, 2)?;
        Ok((shape[0], shape[1], elements(bytes, f64::from_le_bytes)))
    }

    pub(super) fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let (_, bytes) = self.tensor(name, Dtype::I64, 1)?;
        Ok(elements(bytes, i64::from_le_bytes))
    }

    /// Rows and columns, and the values row by row.
    pub(super) fn words(&self, name: &str) -> Result<(usize, usize, Vec<u32>)> {
        let (shape, bytes) = self.tensor(name, Dtype::U32, 2)?;
        Ok((shape[0], shape[1], elements(bytes, u32::from_le_bytes)))
    }

    pub(super) fn flags(&self, name: &str) -> Result<&'a [u8]> {
        Ok(self.tensor(name, Dtype::U8, 1)?.1)
    }
}

fn elements<T, const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> T) -> Vec<T> {
    let chunks = bytes.chunks_exact(N);
    chunks.map(|chunk| element(chunk.try_into().expect("a chunk has N bytes"))).collect()
}
