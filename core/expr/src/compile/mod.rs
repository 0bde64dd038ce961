//! From JSON to typed instructions: one pass that checks types, inserts conversions and shares what is equal.

mod calls;
mod casts;
mod check;
mod constants;
mod describe;
mod lists;
mod numbers;
mod operations;
mod strings;
mod times;

use std::collections::HashMap;
use std::sync::Arc;

use headrace_types::{Error, ErrorCode, Field, Result};
use serde_json::{Map, Value};

use self::check::{dtype_of, invalid, only_members};
use crate::constant::Constant;
use crate::exec::row_steps;
use crate::function::Function;
use crate::kind::Kind;
use crate::literal::{Literal, LiteralKey};
use crate::names::did_you_mean;
use crate::ops::{ConstantId, Instruction, Register, Storage};
use crate::program::{Call, Code, Program};
use crate::scratch::chunk_rows;

/// The deepest nesting of an expression. The JSON parser stops at 128 levels and a node takes two, so this one is met first.
/// A deeper expression is written as `steps`.
pub const DEPTH_MAX: usize = 48;
/// The largest number of instructions of a program.
pub const INSTRUCTIONS_MAX: usize = 8_192;

/// A register and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Typed {
    register: Register,
    kind: Kind,
}

/// What names in an expression stand for.
struct Scope<'a> {
    /// Columns by name, with the number of their input.
    columns: &'a HashMap<&'a str, usize>,
    /// The values of the steps before.
    steps: Vec<Typed>,
    /// Where the fault is: numbers of arguments, the innermost first.
    fault: Vec<usize>,
}

/// Builds one program from the expressions of several places, which may know the same input by different names.
#[derive(Debug)]
pub struct ProgramBuilder {
    inputs: Vec<Field>,
    instructions: Vec<Instruction>,
    storages: Vec<Storage>,
    literals: Vec<Literal>,
    constants: Vec<Constant>,
    functions: Vec<Arc<Function>>,
    calls: Vec<Call>,
    known: HashMap<Instruction, Register>,
    known_literals: HashMap<LiteralKey, Register>,
    /// Constants by what they were written as.
    known_constants: HashMap<String, ConstantId>,
    outputs: Vec<(Field, Register)>,
}

impl ProgramBuilder {
    /// Starts a program over these input columns, in this order.
    pub fn new(inputs: Vec<Field>) -> Self {
        Self {
            inputs,
            instructions: Vec::new(),
            storages: Vec::new(),
            literals: Vec::new(),
            constants: Vec::new(),
            functions: Vec::new(),
            calls: Vec::new(),
            known: HashMap::new(),
            known_literals: HashMap::new(),
            known_constants: HashMap::new(),
            outputs: Vec::new(),
        }
    }

    /// Adds an output: the expression's value cast to the field's type. `columns` maps the expression's column names to inputs.
    ///
    /// # Errors
    /// `invalid_expression`, or `unknown_feature` for a column that `columns` does not have; the message names the field and the path
    /// to the faulty argument, and shows the expression with the faulty part underlined.
    pub fn output(&mut self, field: Field, expr: &Value, columns: &HashMap<&str, usize>) -> Result<()> {
        let place = format!("field '{}'", field.name);
        let mut scope = Scope { columns, steps: Vec::new(), fault: Vec::new() };
        let value = self.root(expr, &mut scope).map_err(|error| {
            let mut error = error.within(&place);
            error.message.push_str(&describe::pointer(expr, scope.steps.len(), &scope.fault));
            error
        })?;
        let register = self.convert(value, field.dtype).map_err(|error| error.within(&place))?.register;
        self.outputs.push((field, register));
        Ok(())
    }

    /// Whether an output so far calls a function.
    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The finished program.
    pub fn finish(self) -> Program {
        let (outputs, output_registers) = self.outputs.into_iter().unzip();
        Program::new(Arc::new(Code {
            inputs: self.inputs,
            chunk_rows: chunk_rows(&self.instructions),
            row_steps: row_steps(&self.instructions, &self.storages, &self.calls, &self.functions),
            instructions: self.instructions,
            storages: self.storages,
            literals: self.literals,
            constants: self.constants,
            functions: self.functions,
            calls: self.calls,
            outputs,
            output_registers,
        }))
    }

    /// A whole expression: a node, or steps of which each may use those before and the last is the value.
    fn root(&mut self, expr: &Value, scope: &mut Scope<'_>) -> Result<Typed> {
        let Some(node) = expr.as_object().filter(|node| node.get("op").is_some_and(|op| op == "steps")) else {
            return self.expr(expr, scope, 1);
        };
        only_members(node, "steps", &["op", "steps"])?;
        let steps = node.get("steps").and_then(Value::as_array).filter(|steps| !steps.is_empty());
        let steps = steps.ok_or_else(|| invalid("'steps' has no list 'steps'", "give at least one step"))?;
        for step in steps {
            let place = scope.steps.len();
            let value = self.expr(step, scope, 1).map_err(|error| error.within(format!("step {place}")))?;
            scope.steps.push(value);
        }
        Ok(scope.steps[steps.len() - 1])
    }

    fn expr(&mut self, expr: &Value, scope: &mut Scope<'_>, depth: usize) -> Result<Typed> {
        if depth > DEPTH_MAX {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the expression is nested deeper than {DEPTH_MAX} levels"),
                "write it as steps, as headrace.Expr does, or give parts of it to fields of their own",
            ));
        }
        let Some(node) = expr.as_object() else {
            return Err(invalid(
                format!("expected an object with 'op', got {expr}"),
                "write {\"op\": ..., \"args\": [...]}",
            ));
        };
        let Some(op) = node.get("op").and_then(Value::as_str) else {
            return Err(invalid("a node has no 'op'", "write {\"op\": ..., \"args\": [...]}"));
        };
        match op {
            "col" => self.column(node, scope),
            "lit" => self.literal(node),
            "ref" => reference(node, scope),
            _ => {
                let members = operations::members(op).ok_or_else(|| {
                    let known = operations::OPERATIONS.iter().map(|(name, _)| *name);
                    invalid(format!("'{op}' is not an operation"), did_you_mean(op, "operations", known))
                })?;
                let allowed: Vec<&str> = ["op", "args"].iter().chain(members).copied().collect();
                only_members(node, op, &allowed)?;
                let Some(args) = node.get("args").and_then(Value::as_array) else {
                    return Err(invalid(format!("'{op}' has no list 'args'"), "write {\"op\": ..., \"args\": [...]}"));
                };
                let mut values = Vec::with_capacity(args.len());
                for (index, arg) in args.iter().enumerate() {
                    let value = self.expr(arg, scope, depth + 1);
                    values.push(value.map_err(|error| {
                        scope.fault.push(index);
                        error.within(format!("{op}(args[{index}])"))
                    })?);
                }
                self.operation(op, &values, node)
            }
        }
    }

    fn column(&mut self, node: &Map<String, Value>, scope: &Scope<'_>) -> Result<Typed> {
        only_members(node, "col", &["op", "name"])?;
        let Some(name) = node.get("name").and_then(Value::as_str) else {
            return Err(invalid("'col' has no 'name'", "write {\"op\": \"col\", \"name\": ...}"));
        };
        let Some(&index) = scope.columns.get(name) else {
            return Err(Error::new(
                ErrorCode::UnknownFeature,
                format!("there is no input '{name}'"),
                did_you_mean(name, "inputs", scope.columns.keys().copied()),
            ));
        };
        let kind = Kind::of(self.inputs[index].dtype);
        self.emit(Instruction::Input(index as u32), kind)
    }

    fn literal(&mut self, node: &Map<String, Value>) -> Result<Typed> {
        only_members(node, "lit", &["op", "dtype", "value"])?;
        let dtype = dtype_of(node, "lit")?;
        let value = node.get("value").ok_or_else(|| invalid("'lit' has no 'value'", "a null value is written null"))?;
        let literal = Literal::from_json(dtype, value)?;
        self.literal_value(literal, Kind::of(dtype))
    }

    fn literal_value(&mut self, literal: Literal, kind: Kind) -> Result<Typed> {
        let key = literal.key(kind);
        if let Some(&register) = self.known_literals.get(&key) {
            return Ok(Typed { register, kind });
        }
        let value = self.emit(Instruction::Literal(self.literals.len() as u32), kind)?;
        self.literals.push(literal);
        self.known_literals.insert(key, value.register);
        Ok(value)
    }

    /// Adds an instruction, or finds the equal one that is there.
    fn emit(&mut self, instruction: Instruction, kind: Kind) -> Result<Typed> {
        if let Some(&register) = self.known.get(&instruction) {
            return Ok(Typed { register, kind });
        }
        if self.instructions.len() >= INSTRUCTIONS_MAX {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the expressions need more than {INSTRUCTIONS_MAX} instructions"),
                "divide the on-demand features between services",
            ));
        }
        let register = self.instructions.len() as Register;
        self.instructions.push(instruction);
        self.storages.push(kind.storage());
        self.known.insert(instruction, register);
        Ok(Typed { register, kind })
    }

    /// Adds a constant, or finds the one that was written the same.
    fn constant(&mut self, written: String, make: impl FnOnce(&mut Self) -> Result<Constant>) -> Result<ConstantId> {
        if let Some(&id) = self.known_constants.get(&written) {
            return Ok(id);
        }
        let constant = make(self)?;
        let id = self.constants.len() as ConstantId;
        self.constants.push(constant);
        self.known_constants.insert(written, id);
        Ok(id)
    }
}

/// The value of an earlier step.
fn reference(node: &Map<String, Value>, scope: &Scope<'_>) -> Result<Typed> {
    only_members(node, "ref", &["op", "step"])?;
    let step = node.get("step").and_then(Value::as_u64).and_then(|step| usize::try_from(step).ok());
    step.and_then(|step| scope.steps.get(step)).copied().ok_or_else(|| {
        invalid("'ref' does not name an earlier step", "number the steps from 0, and refer to those before only")
    })
}
