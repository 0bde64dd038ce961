use serde::{Deserialize, Serialize};

use crate::DType;

/// A named, typed value: a feature, a join key, a request field or a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    pub dtype: DType,
}

impl Field {
    pub fn new(name: impl Into<String>, dtype: DType) -> Self {
        Self { name: name.into(), dtype }
    }
}

/// An ordered list of fields with distinct names.
pub type Schema = Vec<Field>;
