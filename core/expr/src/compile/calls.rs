//! Calls of functions that are written in Python.

use std::sync::Arc;

use headrace_types::{DType, Result};
use serde_json::{Map, Value};

use super::check::{count, dtype_member, invalid, only_members, wrong_kind};
use super::{ProgramBuilder, Typed};
use crate::function::{Function, FunctionKind, FunctionSpec, Parameter, is_scalar};
use crate::kind::Kind;
use crate::ops::{Instruction, Register};
use crate::program::Call;

/// The largest number of arguments of a call.
const ARGUMENTS_MAX: usize = 64;

impl ProgramBuilder {
    /// `{"op": "call", "function": {..}, "args": [..]}`
    pub(super) fn call(&mut self, args: &[Typed], node: &Map<String, Value>) -> Result<Typed> {
        let written = node.get("function").unwrap_or(&Value::Null);
        let number = self.function(written)?;
        let function = Arc::clone(&self.functions[number]);
        let spec = &function.spec;
        let mut registers: Vec<Register> = Vec::with_capacity(args.len());
        match spec.kind {
            FunctionKind::Compiled => {
                count(&spec.name, args, spec.parameters.len(), spec.parameters.len())?;
                for (index, (arg, parameter)) in args.iter().zip(&spec.parameters).enumerate() {
                    let (fits, expected) = match parameter.dtype {
                        DType::BOOL => (arg.kind == Kind::Bool, "a bool"),
                        DType::INT64 => (matches!(arg.kind, Kind::Int | Kind::Timestamp | Kind::Bool), "an int"),
                        _ => (matches!(arg.kind, Kind::Int | Kind::Float | Kind::Bool), "a number"),
                    };
                    if !fits {
                        return Err(wrong_kind(&spec.name, index, expected, arg.kind));
                    }
                    registers.push(self.convert(*arg, parameter.dtype)?.register);
                }
            }
            FunctionKind::Python => {
                count(&spec.name, args, 1, ARGUMENTS_MAX)?;
                registers.extend(args.iter().map(|arg| arg.register));
            }
        }
        let kinds = args.iter().map(|arg| arg.kind).collect();
        let call = Call { function: number, arguments: registers, kinds };
        let id = match self.calls.iter().position(|known| *known == call) {
            Some(known) => known,
            None => {
                self.calls.push(call);
                self.calls.len() - 1
            }
        };
        self.emit(Instruction::Call(id as u32), Kind::of(spec.returns))
    }

    /// The number of a function, added when it is new.
    fn function(&mut self, written: &Value) -> Result<usize> {
        if let Some(known) = self.functions.iter().position(|function| function.spec.json == *written) {
            return Ok(known);
        }
        let spec = spec(written)?;
        self.functions.push(Arc::new(Function::new(spec)));
        Ok(self.functions.len() - 1)
    }
}

fn spec(written: &Value) -> Result<FunctionSpec> {
    let Some(node) = written.as_object() else {
        return Err(invalid(
            "'call' has no 'function'",
            "decorate the function with scalar_function or python_function",
        ));
    };
    let text = |member: &str| {
        let text = node.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| invalid(format!("the function of a 'call' has no '{member}'"), "write it as a text"))
    };
    let kind = match text("kind")? {
        "compiled" => FunctionKind::Compiled,
        "python" => FunctionKind::Python,
        other => return Err(invalid(format!("there is no function of kind '{other}'"), "use compiled or python")),
    };
    let allowed: &[&str] = match kind {
        FunctionKind::Compiled => &["kind", "name", "digest", "parameters", "returns", "source", "constants"],
        FunctionKind::Python => &["kind", "name", "digest", "returns"],
    };
    only_members(node, "function", allowed)?;
    let name = text("name")?.to_owned();
    let returns = dtype_member(node, "function", "returns")?;
    let mut parameters = Vec::new();
    if kind == FunctionKind::Compiled {
        text("source")?;
        let listed = node.get("parameters").and_then(Value::as_array).filter(|listed| !listed.is_empty());
        let listed =
            listed.ok_or_else(|| invalid(format!("function '{name}' has no parameters"), "give it at least one"))?;
        for parameter in listed {
            let members =
                parameter.as_object().ok_or_else(|| invalid("a parameter is no object", "write its dtype"))?;
            only_members(members, "parameters", &["name", "dtype", "takes_null"])?;
            let dtype = dtype_member(members, "parameters", "dtype")?;
            let takes_null = members.get("takes_null").and_then(Value::as_bool).unwrap_or(false);
            parameters.push(Parameter { dtype, takes_null });
        }
        let types = parameters.iter().map(|parameter| parameter.dtype).chain([returns]);
        if let Some(dtype) = types.into_iter().find(|dtype| !is_scalar(*dtype)) {
            return Err(invalid(
                format!("function '{name}' takes or gives a {dtype}"),
                "a compiled function works with int64, float64 and bool",
            ));
        }
        if parameters.len() > ARGUMENTS_MAX {
            return Err(invalid(format!("function '{name}' has over {ARGUMENTS_MAX} parameters"), "divide it"));
        }
    }
    Ok(FunctionSpec { name, digest: text("digest")?.to_owned(), kind, parameters, returns, json: written.clone() })
}
