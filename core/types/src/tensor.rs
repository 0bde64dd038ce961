use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Datatype, Error, ErrorCode, Result};

/// Dimensions that a tensor may have.
pub const DIMENSIONS_MAX: usize = 8;

/// A named, dense, row-major array: what the Open Inference Protocol carries. It has no nulls.
///
/// Its data is in the protocol's binary form, little-endian without padding, a BYTES element behind its length in 4 bytes, and is shared:
/// a tensor cut out of a request points into the request's bytes. It may lie at any address, so who needs aligned numbers copies them
/// where it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    name: String,
    datatype: Datatype,
    shape: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// # Errors
    /// `invalid_tensor` when the data does not hold exactly as many elements as the shape says, or a BOOL is neither 0 nor 1.
    pub fn new(name: impl Into<String>, datatype: Datatype, shape: Vec<usize>, data: Bytes) -> Result<Self> {
        let name = name.into();
        if shape.len() > DIMENSIONS_MAX {
            let what = format!("has {} dimensions, the limit is {DIMENSIONS_MAX}", shape.len());
            return Err(invalid_tensor(&name, what));
        }
        let count =
            element_count(&shape).ok_or_else(|| invalid_tensor(&name, format!("has the boundless shape {shape:?}")))?;
        check_data(&name, datatype, count, &data)?;
        Ok(Self { name, datatype, shape, data })
    }

    /// A tensor of BYTES elements.
    ///
    /// # Errors
    /// `invalid_tensor` when there are more or fewer than the shape says, or one has 4 GiB or more.
    pub fn of_bytes<B: AsRef<[u8]>>(
        name: impl Into<String>,
        shape: Vec<usize>,
        elements: impl IntoIterator<Item = B>,
    ) -> Result<Self> {
        let name = name.into();
        let mut data = Vec::new();
        for element in elements {
            push_bytes_element(&mut data, element.as_ref())
                .map_err(|bytes| invalid_tensor(&name, format!("has an element of {bytes} bytes")))?;
        }
        Self::new(name, Datatype::Bytes, shape, data.into())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in the protocol's binary form.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements as numbers of `N` bytes each, if the datatype has that width: `tensor.numbers(f32::from_le_bytes)`.
    pub fn numbers<const N: usize, T>(&self, number: impl Fn([u8; N]) -> T) -> Option<impl Iterator<Item = T>> {
        (self.datatype.width_bytes() == Some(N))
            .then(|| self.data.as_chunks().0.iter().map(move |chunk| number(*chunk)))
    }

    /// The elements of BYTES; none of other datatypes.
    pub fn bytes_elements(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = if self.datatype == Datatype::Bytes { &self.data[..] } else { &[] };
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (element, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(element)
        })
    }

    /// The same data under another name and shape.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn renamed(&self, name: impl Into<String>, shape: Vec<usize>) -> Result<Self> {
        Self::new(name, self.datatype, shape, self.data.clone())
    }
}

/// The product of the dimensions; `None` where it overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    // A zero dimension does not make the others harmless: whoever multiplies them in another order overflows.
    let nonzero = shape.iter().filter(|dim| **dim > 0).try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
    Some(if shape.contains(&0) { 0 } else { nonzero })
}

/// Appends one BYTES element behind its length.
///
/// # Errors
/// Its length, when 4 bytes do not hold it.
pub fn push_bytes_element(data: &mut Vec<u8>, element: &[u8]) -> Result<(), usize> {
    let length = u32::try_from(element.len()).map_err(|_| element.len())?;
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(element);
    Ok(())
}

fn check_data(name: &str, datatype: Datatype, count: usize, data: &[u8]) -> Result<()> {
    let Some(width) = datatype.width_bytes() else { return check_bytes_elements(name, count, data) };
    if count.checked_mul(width) != Some(data.len()) {
        let needed = count.saturating_mul(width);
        let what = format!("has {} bytes, {count} elements of {datatype} need {needed}", data.len());
        return Err(invalid_tensor(name, what));
    }
    match data.iter().find(|byte| **byte > 1) {
        Some(byte) if datatype == Datatype::Bool => {
            Err(invalid_tensor(name, format!("holds the byte {byte}, a BOOL is 0 or 1")))
        }
        _ => Ok(()),
    }
}

fn check_bytes_elements(name: &str, count: usize, data: &[u8]) -> Result<()> {
    let (mut rest, mut found) = (data, 0usize);
    while found < count {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { break };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((_, after)) = after.split_at_checked(length) else {
            let what = format!("says that element {found} has {length} bytes, {} are left", after.len());
            return Err(invalid_tensor(name, what));
        };
        (rest, found) = (after, found + 1);
    }
    if found == count && rest.is_empty() {
        return Ok(());
    }
    Err(invalid_tensor(name, format!("does not hold exactly {count} BYTES elements in its {} bytes", data.len())))
}

/// An error about one tensor.
pub fn invalid_tensor(name: &str, what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::InvalidTensor,
        format!("tensor '{name}' {what}"),
        "correct shape, datatype or data of that tensor",
    )
}

/// An input or output of a tensor model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorInfo {
    pub name: String,
    pub datatype: Datatype,
    /// -1 for a dimension of any size. The batch dimension, where there is one, is the first, and -1.
    pub shape: Vec<i64>,
    /// Names for the places of the last dimension, which the classification extension tells; empty where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

impl TensorInfo {
    pub fn new(name: impl Into<String>, datatype: Datatype, shape: impl Into<Vec<i64>>) -> Self {
        Self { name: name.into(), datatype, shape: shape.into(), labels: Vec::new() }
    }

    /// # Errors
    /// `invalid_tensor` when the tensor has another datatype or does not fit the shape.
    pub fn check(&self, tensor: &Tensor) -> Result<()> {
        if tensor.datatype != self.datatype {
            let what = format!("is {}, the model takes {}", tensor.datatype, self.datatype);
            return Err(invalid_tensor(&self.name, what));
        }
        let fits = tensor.shape.len() == self.shape.len()
            && self.shape.iter().zip(&tensor.shape).all(|(&any, &dim)| any == -1 || usize::try_from(any) == Ok(dim));
        if fits {
            return Ok(());
        }
        Err(invalid_tensor(&self.name, format!("has shape {:?}, the model takes {:?}", tensor.shape, self.shape)))
    }
}

/// What goes into a tensor model and what comes out of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSignature {
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
    /// Rows that one call may have, in the first dimension of every input and output; 0 where there is no such dimension.
    #[serde(default)]
    pub batch_max: usize,
}

/// Inputs or outputs that a model may list.
const TENSORS_MAX: usize = 4096;

impl TensorSignature {
    /// # Errors
    /// `unsupported_model` when a name is empty or comes twice, a shape is no shape, or the batch dimension is not there.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| {
            Err(Error::new(ErrorCode::UnsupportedModel, what, "correct the signature, or export the model anew"))
        };
        for (side, infos) in [("input", &self.inputs), ("output", &self.outputs)] {
            if infos.is_empty() || infos.len() > TENSORS_MAX {
                return refuse(format!("the model has {} {side}s, 1 to {TENSORS_MAX} are possible", infos.len()));
            }
            let mut names = std::collections::HashSet::new();
            for info in infos {
                let name = &info.name;
                if name.is_empty() || !names.insert(name) {
                    return refuse(format!("{side} '{name}' has no name, or another one's"));
                }
                if info.shape.len() > DIMENSIONS_MAX || info.shape.iter().any(|dim| *dim < -1 || *dim == 0) {
                    return refuse(format!("{side} '{name}' has the impossible shape {:?}", info.shape));
                }
                if self.batch_max > 0 && info.shape.first() != Some(&-1) {
                    return refuse(format!(
                        "{side} '{name}' has shape {:?}, its first dimension is no batch",
                        info.shape
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(datatype: Datatype, shape: &[usize], data: &'static [u8]) -> String {
        Tensor::new("t", datatype, shape.to_vec(), Bytes::from_static(data)).unwrap_err().message
    }

    #[test]
    fn data_holds_what_the_shape_says() {
        let tensor = Tensor::new("t", Datatype::Int16, vec![2, 1], Bytes::from_static(&[1, 0, 255, 255])).unwrap();
        assert_eq!(tensor.numbers(i16::from_le_bytes).unwrap().collect::<Vec<_>>(), [1, -1]);
        assert!(tensor.numbers(i32::from_le_bytes).is_none());
        assert!(refused(Datatype::Int16, &[3], &[0; 4]).contains("has 4 bytes, 3 elements of INT16 need 6"));
        assert!(refused(Datatype::Bool, &[2], &[1, 2]).contains("the byte 2"));
        assert!(refused(Datatype::Int8, &[usize::MAX, 2], &[]).contains("boundless"));
        assert!(refused(Datatype::Int8, &[0, usize::MAX, 2], &[]).contains("boundless"));
        assert!(refused(Datatype::Int8, &[1; 9], &[0]).contains("9 dimensions"));
        assert!(Tensor::new("t", Datatype::Fp64, vec![3, 0], Bytes::new()).is_ok());
    }

    #[test]
    fn bytes_elements_are_read_back_and_damage_is_named() {
        let elements = [&b"a"[..], b"", b"\xff\0"];
        let tensor = Tensor::of_bytes("t", vec![3], elements).unwrap();
        assert_eq!(tensor.bytes_elements().collect::<Vec<_>>(), elements);
        assert!(Tensor::of_bytes("t", vec![2], elements).is_err());
        assert!(refused(Datatype::Bytes, &[1], &[9, 0, 0, 0, 1]).contains("element 0 has 9 bytes, 1 are left"));
        assert!(refused(Datatype::Bytes, &[usize::MAX], &[0; 8]).contains("exactly"));
    }

    #[test]
    fn a_signature_is_checked_and_checks() {
        let info = TensorInfo::new("x", Datatype::Fp32, [-1, 2]);
        let signature = TensorSignature { inputs: vec![info.clone()], outputs: vec![info.clone()], batch_max: 8 };
        assert!(signature.check().is_ok());
        let doubled = TensorSignature { inputs: vec![info.clone(), info.clone()], ..signature.clone() };
        assert_eq!(doubled.check().unwrap_err().code, ErrorCode::UnsupportedModel);
        let fixed = TensorSignature { outputs: vec![TensorInfo::new("y", Datatype::Fp32, [3])], ..signature };
        assert!(fixed.check().unwrap_err().message.contains("no batch"));
        let fits = |shape: &[usize]| {
            let data = vec![0; 4 * element_count(shape).unwrap()];
            info.check(&Tensor::new("x", Datatype::Fp32, shape.to_vec(), data.into()).unwrap()).is_ok()
        };
        assert!(fits(&[5, 2]) && !fits(&[5, 3]) && !fits(&[2]));
    }
}
