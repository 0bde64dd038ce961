//! From JSON to typed instructions: one pass that checks types, inserts conversions and shares what is equal.

use std::collections::HashMap;
use std::sync::Arc;

use headrace_types::{DType, Error, ErrorCode, Field, Result, ScalarType};
use serde_json::{Map, Value};

use crate::kind::{Kind, int_range};
use crate::literal::{Literal, LiteralKey};
use crate::names::did_you_mean;
use crate::ops::{
    Comparison, FloatBinary, FloatUnary, Instruction, IntBinary, IntUnary, Logic, Register, Storage, TimePart,
};
use crate::program::{Code, Program};

/// The deepest nesting of an expression. The JSON parser stops at 128 levels and a node takes two, so this one is met first.
pub const DEPTH_MAX: usize = 48;
/// The largest number of instructions of a program.
pub const INSTRUCTIONS_MAX: usize = 8_192;

/// A register and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Typed {
    register: Register,
    kind: Kind,
}

/// Builds one program from the expressions of several places, which may know the same input by different names.
#[derive(Debug)]
pub struct ProgramBuilder {
    inputs: Vec<Field>,
    instructions: Vec<Instruction>,
    storages: Vec<Storage>,
    literals: Vec<Literal>,
    known: HashMap<Instruction, Register>,
    known_literals: HashMap<LiteralKey, Register>,
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
            known: HashMap::new(),
            known_literals: HashMap::new(),
            outputs: Vec::new(),
        }
    }

    /// Adds an output: the expression's value cast to the field's type. `columns` maps the expression's column names to inputs.
    ///
    /// # Errors
    /// `invalid_expression`, or `unknown_feature` for a column that `columns` does not have; the message names the field and the path
    /// to the faulty argument.
    pub fn output(&mut self, field: Field, expr: &Value, columns: &HashMap<&str, usize>) -> Result<()> {
        let place = format!("field '{}'", field.name);
        let value = self.expr(expr, columns, 1).map_err(|error| error.within(&place))?;
        let register = self.cast(value, field.dtype).map_err(|error| error.within(&place))?.register;
        self.outputs.push((field, register));
        Ok(())
    }

    /// The finished program.
    pub fn finish(self) -> Program {
        let (outputs, output_registers) = self.outputs.into_iter().unzip();
        Program::new(Arc::new(Code {
            inputs: self.inputs,
            instructions: self.instructions,
            storages: self.storages,
            literals: self.literals,
            outputs,
            output_registers,
        }))
    }

    fn expr(&mut self, expr: &Value, columns: &HashMap<&str, usize>, depth: usize) -> Result<Typed> {
        if depth > DEPTH_MAX {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the expression is nested deeper than {DEPTH_MAX} levels"),
                "give parts of it to fields of their own; add, mul, min, max, and, or, coalesce take many arguments",
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
            "col" => self.column(node, columns),
            "lit" => self.literal(node),
            _ => {
                let allowed: &[&str] = if op == "cast" { &["op", "args", "dtype"] } else { &["op", "args"] };
                only_members(node, op, allowed)?;
                let Some(args) = node.get("args").and_then(Value::as_array) else {
                    return Err(invalid(format!("'{op}' has no list 'args'"), "write {\"op\": ..., \"args\": [...]}"));
                };
                if !OPERATIONS.contains(&op) {
                    return Err(invalid(
                        format!("'{op}' is not an operation"),
                        did_you_mean(op, "operations", OPERATIONS),
                    ));
                }
                let mut values = Vec::with_capacity(args.len());
                for (index, arg) in args.iter().enumerate() {
                    let value = self.expr(arg, columns, depth + 1);
                    values.push(value.map_err(|error| error.within(format!("{op}(args[{index}])")))?);
                }
                self.operation(op, &values, node)
            }
        }
    }

    fn column(&mut self, node: &Map<String, Value>, columns: &HashMap<&str, usize>) -> Result<Typed> {
        only_members(node, "col", &["op", "name"])?;
        let Some(name) = node.get("name").and_then(Value::as_str) else {
            return Err(invalid("'col' has no 'name'", "write {\"op\": \"col\", \"name\": ...}"));
        };
        let Some(&index) = columns.get(name) else {
            return Err(Error::new(
                ErrorCode::UnknownFeature,
                format!("there is no input '{name}'"),
                did_you_mean(name, "inputs", columns.keys().copied()),
            ));
        };
        let kind = Kind::of(self.inputs[index].dtype);
        self.emit(Instruction::Input(index as u32), kind)
    }

    fn literal(&mut self, node: &Map<String, Value>) -> Result<Typed> {
        only_members(node, "lit", &["op", "dtype", "value"])?;
        let dtype = dtype_of(node, "lit")?;
        let kind = Kind::of(dtype);
        let value = node.get("value").ok_or_else(|| invalid("'lit' has no 'value'", "a null value is written null"))?;
        let literal = Literal::from_json(dtype, storage_of(kind), value)?;
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
        self.storages.push(storage_of(kind));
        self.known.insert(instruction, register);
        Ok(Typed { register, kind })
    }

    fn operation(&mut self, op: &str, args: &[Typed], node: &Map<String, Value>) -> Result<Typed> {
        if let Some(unary) = float_unary(op) {
            let x = self.float(op, args, 0, 1)?;
            return self.emit(Instruction::FloatUnary(unary, x.register), Kind::Float);
        }
        if let Some(part) = time_part(op) {
            let x = expect(op, args, 0, 1, "a timestamp", |kind| kind == Kind::Timestamp)?;
            return self.emit(Instruction::TimePart(part, x.register), Kind::Int);
        }
        if let Some(comparison) = comparison(op) {
            return self.compare(op, comparison, args);
        }
        match op {
            "add" | "mul" | "min" | "max" => self.fold(op, args, usize::MAX),
            "sub" | "mod" => self.fold(op, args, 2),
            "div" | "pow" | "atan2" => {
                let (x, y) = (self.float(op, args, 0, 2)?, self.float(op, args, 1, 2)?);
                self.pair(op, x, y)
            }
            "neg" | "abs" | "floor" | "ceil" | "round" => self.number_unary(op, args),
            "clip" => {
                count(op, args, 3, 3)?;
                let values = self.numbers(op, args)?;
                let low = self.pair("max", values[0], values[1])?;
                self.pair("min", low, values[2])
            }
            "and" | "or" | "not" => self.logic(op, args),
            "epoch_seconds" => {
                let x = expect(op, args, 0, 1, "a timestamp", |kind| kind == Kind::Timestamp)?;
                self.emit(Instruction::EpochSeconds(x.register), Kind::Float)
            }
            "cast" => {
                count(op, args, 1, 1)?;
                self.cast(args[0], dtype_of(node, "cast")?)
            }
            _ => self.choice(op, args),
        }
    }

    fn logic(&mut self, op: &str, args: &[Typed]) -> Result<Typed> {
        let (least, most) = if op == "not" { (1, 1) } else { (2, usize::MAX) };
        count(op, args, least, most)?;
        for index in 0..args.len() {
            expect(op, args, index, args.len(), "a bool", |kind| kind == Kind::Bool)?;
        }
        if op == "not" {
            return self.emit(Instruction::Not(args[0].register), Kind::Bool);
        }
        let logic = if op == "and" { Logic::And } else { Logic::Or };
        args[1..].iter().try_fold(args[0], |left, right| {
            self.emit(Instruction::Logic(logic, left.register, right.register), Kind::Bool)
        })
    }

    /// The operations that look at nulls and choose between values of one kind.
    fn choice(&mut self, op: &str, args: &[Typed]) -> Result<Typed> {
        match op {
            "is_null" => {
                count(op, args, 1, 1)?;
                self.emit(Instruction::IsNull(args[0].register), Kind::Bool)
            }
            "fill_null" | "coalesce" => {
                let (least, most) = if op == "fill_null" { (2, 2) } else { (1, usize::MAX) };
                count(op, args, least, most)?;
                let values = self.unify(op, args)?;
                values[1..].iter().try_fold(values[0], |left, right| {
                    self.emit(Instruction::Coalesce(left.register, right.register), left.kind)
                })
            }
            "if_else" => {
                let condition = expect(op, args, 0, 3, "a bool", |kind| kind == Kind::Bool)?;
                let values = self.unify(op, &args[1..])?;
                let (yes, no) = (values[0], values[1]);
                self.emit(Instruction::IfElse(condition.register, yes.register, no.register), yes.kind)
            }
            _ => Err(Error::internal(format!("the operation '{op}' is listed but not compiled"))),
        }
    }

    /// `op` from left to right over numbers, which are all ints or all floats before it begins.
    fn fold(&mut self, op: &str, args: &[Typed], args_max: usize) -> Result<Typed> {
        count(op, args, 2, args_max)?;
        let values = self.numbers(op, args)?;
        values[1..].iter().try_fold(values[0], |left, &right| self.pair(op, left, right))
    }

    /// Numbers of one kind: ints beside floats become floats.
    fn numbers(&mut self, op: &str, args: &[Typed]) -> Result<Vec<Typed>> {
        for index in 0..args.len() {
            expect(op, args, index, args.len(), "a number", Kind::is_number)?;
        }
        self.unify(op, args)
    }

    fn pair(&mut self, op: &str, left: Typed, right: Typed) -> Result<Typed> {
        let missing = || Error::internal(format!("no operation '{op}' of two {}s", left.kind));
        if left.kind == Kind::Int {
            let binary = int_binary(op).ok_or_else(missing)?;
            return self.emit(Instruction::IntBinary(binary, left.register, right.register), Kind::Int);
        }
        let binary = float_binary(op).ok_or_else(missing)?;
        self.emit(Instruction::FloatBinary(binary, left.register, right.register), Kind::Float)
    }

    fn number_unary(&mut self, op: &str, args: &[Typed]) -> Result<Typed> {
        let x = expect(op, args, 0, 1, "a number", Kind::is_number)?;
        match (op, x.kind) {
            ("neg", Kind::Int) => self.emit(Instruction::IntUnary(IntUnary::Neg, x.register), Kind::Int),
            ("abs", Kind::Int) => self.emit(Instruction::IntUnary(IntUnary::Abs, x.register), Kind::Int),
            (_, Kind::Int) => Ok(x),
            _ => {
                let unary = match op {
                    "neg" => FloatUnary::Neg,
                    "abs" => FloatUnary::Abs,
                    "floor" => FloatUnary::Floor,
                    "ceil" => FloatUnary::Ceil,
                    _ => FloatUnary::Round,
                };
                self.emit(Instruction::FloatUnary(unary, x.register), Kind::Float)
            }
        }
    }

    fn compare(&mut self, op: &str, comparison: Comparison, args: &[Typed]) -> Result<Typed> {
        let ordered = !matches!(comparison, Comparison::Eq | Comparison::Ne);
        for index in 0..2 {
            let expected = if ordered { "a number, timestamp, string or bytes" } else { "a value that is not a list" };
            expect(op, args, index, 2, expected, |kind| kind != Kind::List && !(ordered && kind == Kind::Bool))?;
        }
        let values = self.unify(op, args)?;
        self.emit(Instruction::Compare(comparison, values[0].register, values[1].register), Kind::Bool)
    }

    /// Brings all values to one kind: equal kinds stay, ints beside floats become floats.
    fn unify(&mut self, op: &str, args: &[Typed]) -> Result<Vec<Typed>> {
        let all_numbers = args.iter().all(|arg| arg.kind.is_number());
        if all_numbers && args.iter().any(|arg| arg.kind == Kind::Float) {
            return args.iter().map(|&arg| self.widened(arg)).collect();
        }
        if let Some(other) = args.iter().find(|arg| arg.kind != args[0].kind) {
            return Err(invalid(
                format!("{op}: {} and {} do not go together", args[0].kind, other.kind),
                "cast one of them, so that the types agree",
            ));
        }
        if args[0].kind == Kind::List {
            return Err(wrong_kind(op, 0, "a value that is not a list", Kind::List));
        }
        Ok(args.to_vec())
    }

    fn float(&mut self, op: &str, args: &[Typed], index: usize, args_count: usize) -> Result<Typed> {
        let x = expect(op, args, index, args_count, "a number", Kind::is_number)?;
        self.widened(x)
    }

    fn widened(&mut self, x: Typed) -> Result<Typed> {
        match x.kind {
            Kind::Int => self.emit(Instruction::IntToFloat(x.register), Kind::Float),
            _ => Ok(x),
        }
    }

    fn cast(&mut self, x: Typed, dtype: DType) -> Result<Typed> {
        let DType::Scalar(scalar) = dtype else { return Err(no_cast(x.kind, dtype)) };
        let target = Kind::of(dtype);
        match (x.kind, target) {
            (Kind::List, _) => Err(no_cast(x.kind, dtype)),
            (Kind::Int | Kind::Float | Kind::Bool, Kind::Float) => {
                let x =
                    if x.kind == Kind::Bool { self.emit(Instruction::BoolToInt(x.register), Kind::Int)? } else { x };
                let x = self.widened(x)?;
                if scalar == ScalarType::Float32 {
                    return self.emit(Instruction::FloatUnary(FloatUnary::ToFloat32, x.register), Kind::Float);
                }
                Ok(x)
            }
            (Kind::Int | Kind::Float | Kind::Bool | Kind::Timestamp, Kind::Int) => {
                let x = match x.kind {
                    Kind::Bool => self.emit(Instruction::BoolToInt(x.register), Kind::Int)?,
                    Kind::Float => self.emit(Instruction::FloatToInt(x.register), Kind::Int)?,
                    _ => Typed { register: x.register, kind: Kind::Int },
                };
                match int_range(scalar) {
                    None | Some((i64::MIN, i64::MAX)) => Ok(x),
                    Some((low, high)) => self.emit(Instruction::IntWithin(x.register, low, high), Kind::Int),
                }
            }
            (Kind::Int, Kind::Timestamp) => Ok(Typed { register: x.register, kind: Kind::Timestamp }),
            (from, to) if from == to => Ok(x),
            _ => Err(no_cast(x.kind, dtype)),
        }
    }
}

fn storage_of(kind: Kind) -> Storage {
    match kind {
        Kind::Bool => Storage::Bool,
        Kind::Int | Kind::Timestamp => Storage::Int,
        Kind::Float => Storage::Float,
        Kind::String | Kind::Bytes => Storage::Text,
        Kind::List => Storage::None,
    }
}

fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidExpression, message, hint)
}

fn wrong_kind(op: &str, index: usize, expected: &str, got: Kind) -> Error {
    let hint = match (expected, got) {
        ("a number", Kind::Bool) => "cast it to int64 or float64",
        ("a number", Kind::Timestamp) => "take epoch_seconds of it, a part such as hour, or cast it to int64",
        ("a bool", _) => "compare it with something",
        _ => "change the argument or cast it",
    };
    invalid(format!("{op}(args[{index}]): expected {expected}, got {got}"), hint)
}

fn no_cast(from: Kind, to: DType) -> Error {
    let hint = match to {
        DType::Scalar(ScalarType::Bool) => "compare it with something, such as ne 0",
        DType::List(_) => "an expression gives scalars",
        _ => "numbers and bools cast to numbers, int64 and timestamp to each other",
    };
    invalid(format!("cannot cast {from} to {to}"), hint)
}

fn count(op: &str, args: &[Typed], least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&args.len()) {
        return Ok(());
    }
    let expected = if least == most { least.to_string() } else { format!("at least {least}") };
    Err(invalid(format!("{op}: expected {expected} arguments, got {}", args.len()), "correct the number of arguments"))
}

fn expect(
    op: &str,
    args: &[Typed],
    index: usize,
    args_count: usize,
    expected: &str,
    accepts: impl Fn(Kind) -> bool,
) -> Result<Typed> {
    count(op, args, args_count, args_count)?;
    let arg = args[index];
    if accepts(arg.kind) { Ok(arg) } else { Err(wrong_kind(op, index, expected, arg.kind)) }
}

fn dtype_of(node: &Map<String, Value>, op: &str) -> Result<DType> {
    node.get("dtype")
        .and_then(Value::as_str)
        .ok_or_else(|| invalid(format!("'{op}' has no 'dtype'"), "name a type, such as float64"))?
        .parse()
}

fn only_members(node: &Map<String, Value>, op: &str, allowed: &[&str]) -> Result<()> {
    match node.keys().find(|key| !allowed.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(invalid(
            format!("'{op}' has an unknown member '{key}'"),
            format!("the members are {}", allowed.join(", ")),
        )),
    }
}

/// Every operation but `col` and `lit`.
const OPERATIONS: [&str; 50] = [
    "add",
    "sub",
    "mul",
    "div",
    "mod",
    "neg",
    "abs",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "and",
    "or",
    "not",
    "is_null",
    "fill_null",
    "coalesce",
    "if_else",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "atan2",
    "exp",
    "log",
    "log1p",
    "expm1",
    "sqrt",
    "pow",
    "floor",
    "ceil",
    "round",
    "min",
    "max",
    "clip",
    "radians",
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "day_of_week",
    "day_of_year",
    "epoch_seconds",
    "cast",
];

fn float_unary(op: &str) -> Option<FloatUnary> {
    Some(match op {
        "sin" => FloatUnary::Sin,
        "cos" => FloatUnary::Cos,
        "tan" => FloatUnary::Tan,
        "asin" => FloatUnary::Asin,
        "acos" => FloatUnary::Acos,
        "atan" => FloatUnary::Atan,
        "exp" => FloatUnary::Exp,
        "log" => FloatUnary::Log,
        "log1p" => FloatUnary::Log1p,
        "expm1" => FloatUnary::Expm1,
        "sqrt" => FloatUnary::Sqrt,
        "radians" => FloatUnary::Radians,
        _ => return None,
    })
}

fn float_binary(op: &str) -> Option<FloatBinary> {
    Some(match op {
        "add" => FloatBinary::Add,
        "sub" => FloatBinary::Sub,
        "mul" => FloatBinary::Mul,
        "div" => FloatBinary::Div,
        "mod" => FloatBinary::Mod,
        "pow" => FloatBinary::Pow,
        "atan2" => FloatBinary::Atan2,
        "min" => FloatBinary::Min,
        "max" => FloatBinary::Max,
        _ => return None,
    })
}

fn int_binary(op: &str) -> Option<IntBinary> {
    Some(match op {
        "add" => IntBinary::Add,
        "sub" => IntBinary::Sub,
        "mul" => IntBinary::Mul,
        "mod" => IntBinary::Mod,
        "min" => IntBinary::Min,
        "max" => IntBinary::Max,
        _ => return None,
    })
}

fn comparison(op: &str) -> Option<Comparison> {
    Some(match op {
        "eq" => Comparison::Eq,
        "ne" => Comparison::Ne,
        "lt" => Comparison::Lt,
        "le" => Comparison::Le,
        "gt" => Comparison::Gt,
        "ge" => Comparison::Ge,
        _ => return None,
    })
}

fn time_part(op: &str) -> Option<TimePart> {
    Some(match op {
        "year" => TimePart::Year,
        "month" => TimePart::Month,
        "day" => TimePart::Day,
        "hour" => TimePart::Hour,
        "minute" => TimePart::Minute,
        "second" => TimePart::Second,
        "day_of_week" => TimePart::DayOfWeek,
        "day_of_year" => TimePart::DayOfYear,
        _ => return None,
    })
}
