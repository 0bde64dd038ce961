use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use headrace_types::{Error, ErrorCode, Field, Result};
use serde_json::Value;

use crate::column::ColumnView;
use crate::compile::ProgramBuilder;
use crate::constant::Constant;
use crate::exec;
use crate::function::Function;
use crate::kind::Kind;
use crate::literal::Literal;
use crate::ops::{Instruction, Register, Storage};
use crate::scratch::Scratch;

/// A compiled program's parts. Immutable, shared by the program's clones and by the scratches made for it.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) inputs: Vec<Field>,
    pub(crate) instructions: Vec<Instruction>,
    /// How each register is stored.
    pub(crate) storages: Vec<Storage>,
    pub(crate) literals: Vec<Literal>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) functions: Vec<Arc<Function>>,
    pub(crate) calls: Vec<Call>,
    /// What a single row takes, if it goes the short way.
    pub(crate) row_steps: Vec<(Register, Instruction)>,
    /// Rows computed at a time.
    pub(crate) chunk_rows: usize,
    pub(crate) outputs: Vec<Field>,
    pub(crate) output_registers: Vec<Register>,
}

/// The call of a function.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    /// Its number among the program's functions.
    pub(crate) function: usize,
    pub(crate) arguments: Vec<Register>,
    pub(crate) kinds: Vec<Kind>,
}

/// Compiled expressions: some input columns in, some output columns out. Cheap to clone, free to share between threads.
#[derive(Debug, Clone)]
pub struct Program {
    code: Arc<Code>,
}

impl Program {
    pub(crate) fn new(code: Arc<Code>) -> Self {
        Self { code }
    }

    /// Compiles expressions whose column names are the names of `inputs`. See [`ProgramBuilder`] for inputs with other names.
    ///
    /// # Errors
    /// As [`ProgramBuilder::output`].
    pub fn compile(inputs: &[Field], outputs: &[(Field, Value)]) -> Result<Self> {
        let columns: HashMap<&str, usize> = inputs.iter().enumerate().map(|(i, f)| (f.name.as_str(), i)).collect();
        let mut builder = ProgramBuilder::new(inputs.to_vec());
        for (field, expr) in outputs {
            builder.output(field.clone(), expr, &columns)?;
        }
        Ok(builder.finish())
    }

    /// The columns that [`Program::run`] takes, in order.
    pub fn inputs(&self) -> &[Field] {
        &self.code.inputs
    }

    /// The columns that [`Program::run`] makes, in order.
    pub fn outputs(&self) -> &[Field] {
        &self.code.outputs
    }

    /// The number of instructions, for reports.
    pub fn instructions_count(&self) -> usize {
        self.code.instructions.len()
    }

    /// The functions that it calls. They need their code before it runs.
    pub fn functions(&self) -> &[Arc<Function>] {
        &self.code.functions
    }

    /// Computes the outputs of `rows` rows; read them with [`Scratch::outputs`].
    ///
    /// A scratch that has served the same program with as many rows before is reused without an allocation (a string output keeps
    /// its buffers).
    ///
    /// # Errors
    /// `length_mismatch` or `type_mismatch` when the inputs are not the program's inputs; `unavailable` when a function has no code;
    /// what a Python function raised.
    pub fn run(&self, inputs: &[ColumnView<'_>], rows: usize, scratch: &mut Scratch) -> Result<()> {
        self.check(inputs, rows)?;
        self.run_checked(inputs, 0..rows, scratch)
    }

    /// As [`Program::run`], of some of the rows of longer columns, without cutting them first.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_rows(&self, inputs: &[ColumnView<'_>], rows: Range<usize>, scratch: &mut Scratch) -> Result<()> {
        let rows_there = inputs.first().map_or(rows.end, |input| input.data.len());
        if rows.start > rows.end || rows.end > rows_there {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("rows {} to {} are not all among {rows_there}", rows.start, rows.end),
                "ask for rows that are there",
            ));
        }
        self.check(inputs, rows_there)?;
        self.run_checked(inputs, rows, scratch)
    }

    fn run_checked(&self, inputs: &[ColumnView<'_>], rows: Range<usize>, scratch: &mut Scratch) -> Result<()> {
        let chunk_rows = scratch.prepare(&self.code, rows.len());
        if rows.len() == 1 && !self.code.row_steps.is_empty() {
            return exec::run_row(&self.code, inputs, rows.start, scratch);
        }
        for start in rows.clone().step_by(chunk_rows) {
            let chunk = start..rows.end.min(start + chunk_rows);
            exec::run_chunk(&self.code, inputs, chunk, start - rows.start, scratch)?;
        }
        Ok(())
    }

    fn check(&self, inputs: &[ColumnView<'_>], rows: usize) -> Result<()> {
        if inputs.len() != self.code.inputs.len() {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("the expressions take {} columns, got {}", self.code.inputs.len(), inputs.len()),
                "give one column for each input, in order",
            ));
        }
        for (field, column) in self.code.inputs.iter().zip(inputs) {
            let dtype = column.data.dtype();
            if dtype != field.dtype {
                return Err(Error::new(
                    ErrorCode::TypeMismatch,
                    format!("input '{}' is {}, got {dtype}", field.name, field.dtype),
                    "give a column of the input's type",
                ));
            }
            let validity_rows = column.validity.map_or(rows, <[bool]>::len);
            if column.data.len() != rows || validity_rows != rows || u32::try_from(rows).is_err() {
                return Err(Error::new(
                    ErrorCode::LengthMismatch,
                    format!("input '{}' has {} rows, expected {rows}", field.name, column.data.len()),
                    "give every column the same number of rows, at most 4294967295",
                ));
            }
        }
        Ok(())
    }
}
