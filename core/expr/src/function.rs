//! Functions that are not of the language: their code comes from the process that runs the program, through the trait below and [`ScalarFunction`].

use std::sync::{Arc, OnceLock};

use headrace_types::{Column, DType, Error, ErrorCode, Result, ScalarFunction, ScalarType};
use serde_json::Value;

/// A function of some rows' columns, whose code is another language's. Each row of the result depends on that row alone.
pub trait BatchFunction: std::fmt::Debug + Send + Sync {
    /// A column of the declared type with one value for each row.
    ///
    /// # Errors
    /// What the function itself found wrong: it becomes the error of the run.
    fn call(&self, arguments: Vec<Column>, rows: usize) -> Result<Column>;
}

/// The code of a function in this process.
#[derive(Debug, Clone)]
pub enum FunctionCode {
    /// Called for each row.
    Scalar(Arc<dyn ScalarFunction>),
    /// Called for some rows at a time.
    Batch(Arc<dyn BatchFunction>),
}

/// How a function is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    /// As native code that the plan's source is compiled to.
    Compiled,
    /// By the Python interpreter.
    Python,
}

/// A parameter of a compiled function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// `int64`, `float64` or `bool`.
    pub dtype: DType,
    /// Whether the function is called for a null; without this, null in gives null out.
    pub takes_null: bool,
}

/// What a plan says of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionSpec {
    /// Module and qualified name, with a colon between.
    pub name: String,
    /// Names its code: `sha256:<hex>`.
    pub digest: String,
    /// How it is run.
    pub kind: FunctionKind,
    /// The parameters of a compiled function; a Python function takes what it is given.
    pub parameters: Vec<Parameter>,
    /// The type of its value.
    pub returns: DType,
    /// The definition as the plan has it.
    pub json: Value,
}

/// A function of a program, and its code once this process has brought it.
#[derive(Debug)]
pub struct Function {
    /// What the plan says.
    pub spec: FunctionSpec,
    code: OnceLock<FunctionCode>,
}

impl Function {
    pub(crate) fn new(spec: FunctionSpec) -> Self {
        Self { spec, code: OnceLock::new() }
    }

    /// Whether its code is there.
    pub fn is_bound(&self) -> bool {
        self.code.get().is_some()
    }

    /// Gives it its code; a second time changes nothing.
    ///
    /// # Errors
    /// `internal` for code of the other kind.
    pub fn bind(&self, code: FunctionCode) -> Result<()> {
        let fits = matches!(
            (self.spec.kind, &code),
            (FunctionKind::Compiled, FunctionCode::Scalar(_)) | (FunctionKind::Python, FunctionCode::Batch(_))
        );
        if !fits {
            return Err(Error::internal(format!("function '{}' got the code of another kind", self.spec.name)));
        }
        self.code.get_or_init(|| code);
        Ok(())
    }

    /// # Errors
    /// `unavailable` when this process has not brought its code.
    pub(crate) fn code(&self) -> Result<&FunctionCode> {
        self.code.get().ok_or_else(|| {
            Error::new(
                ErrorCode::Unavailable,
                format!("function '{}' is not loaded in this process", self.spec.name),
                "open the project with headrace.FeatureStore, which loads the functions of its plan",
            )
        })
    }
}

/// Whether a compiled function can take or give this type.
pub(crate) fn is_scalar(dtype: DType) -> bool {
    matches!(dtype, DType::Scalar(ScalarType::Int64 | ScalarType::Float64 | ScalarType::Bool))
}
