use crate::{ColumnData, Error, ErrorCode, Result};

/// A named, dense, row-major array: what the Open Inference Protocol carries. It has no nulls.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub data: ColumnData,
}

impl Tensor {
    /// # Errors
    /// `invalid_tensor` when the number of values is not the product of the shape.
    pub fn new(name: impl Into<String>, shape: Vec<usize>, data: ColumnData) -> Result<Self> {
        let name = name.into();
        let expected = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if expected != Some(data.len()) {
            return Err(Error::new(
                ErrorCode::InvalidTensor,
                format!("tensor '{name}' has {} values, its shape {shape:?} asks for another number", data.len()),
                "send as many values as the product of the shape",
            ));
        }
        Ok(Self { name, shape, data })
    }
}
