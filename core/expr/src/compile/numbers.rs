//! Arithmetic, functions of numbers, comparisons.

use headrace_types::{Error, Result};

use super::check::{count, expect, invalid, wrong_kind};
use super::{ProgramBuilder, Typed};
use crate::kind::Kind;
use crate::ops::{Comparison, FloatBinary, FloatUnary, Instruction, IntBinary, IntUnary};

impl ProgramBuilder {
    pub(super) fn number(&mut self, op: &str, args: &[Typed]) -> Result<Typed> {
        if let Some(unary) = float_unary(op) {
            let x = self.float(op, args, 0, 1)?;
            return self.emit(Instruction::FloatUnary(unary, x.register), Kind::Float);
        }
        match op {
            "add" | "mul" | "min" | "max" => self.fold(op, args, usize::MAX),
            "sub" | "mod" => self.fold(op, args, 2),
            "div" | "pow" | "atan2" => {
                let (x, y) = (self.float(op, args, 0, 2)?, self.float(op, args, 1, 2)?);
                self.same_numbers(op, x, y)
            }
            "neg" | "abs" | "floor" | "ceil" | "round" => self.number_unary(op, args),
            "clip" => {
                count(op, args, 3, 3)?;
                let values = self.numbers(op, args)?;
                let low = self.same_numbers("max", values[0], values[1])?;
                self.same_numbers("min", low, values[2])
            }
            "haversine" => {
                let mut points = [0; 4];
                for (index, point) in points.iter_mut().enumerate() {
                    *point = self.float(op, args, index, 4)?.register;
                }
                self.emit(Instruction::Haversine(points), Kind::Float)
            }
            _ => Err(Error::internal(format!("the operation '{op}' is listed but not compiled"))),
        }
    }

    /// `op` from left to right, two values at a time.
    fn fold(&mut self, op: &str, args: &[Typed], args_max: usize) -> Result<Typed> {
        count(op, args, 2, args_max)?;
        let mut left = args[0];
        for (index, &right) in args.iter().enumerate().skip(1) {
            left = self.pair(op, &[left, right], index)?;
        }
        Ok(left)
    }

    /// Two values, the second of which is the argument `index`: numbers; strings to join; a time and microseconds.
    fn pair(&mut self, op: &str, pair: &[Typed; 2], index: usize) -> Result<Typed> {
        let [x, y] = *pair;
        let ints = |binary| Instruction::IntBinary(binary, x.register, y.register);
        match (op, x.kind, y.kind) {
            ("add", Kind::String, Kind::String) => {
                return self.emit(Instruction::Concat(x.register, y.register), Kind::String);
            }
            ("add", Kind::Timestamp, Kind::Int) | ("add", Kind::Int, Kind::Timestamp) => {
                return self.emit(ints(IntBinary::Add), Kind::Timestamp);
            }
            ("sub", Kind::Timestamp, Kind::Int) => return self.emit(ints(IntBinary::Sub), Kind::Timestamp),
            ("sub", Kind::Timestamp, Kind::Timestamp) => return self.emit(ints(IntBinary::Sub), Kind::Int),
            _ => {}
        }
        if !x.kind.is_number() {
            return Err(wrong_kind(op, index - 1, "a number", x.kind));
        }
        if !y.kind.is_number() {
            return Err(wrong_kind(op, index, "a number", y.kind));
        }
        let values = self.unify(op, pair)?;
        self.same_numbers(op, values[0], values[1])
    }

    /// Numbers of one kind: ints beside floats become floats.
    fn numbers(&mut self, op: &str, args: &[Typed]) -> Result<Vec<Typed>> {
        for index in 0..args.len() {
            expect(op, args, index, args.len(), "a number", Kind::is_number)?;
        }
        self.unify(op, args)
    }

    fn same_numbers(&mut self, op: &str, left: Typed, right: Typed) -> Result<Typed> {
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

    pub(super) fn compare(&mut self, op: &str, args: &[Typed]) -> Result<Typed> {
        let comparison = comparison(op).ok_or_else(|| Error::internal(format!("'{op}' is no comparison")))?;
        let ordered = !matches!(comparison, Comparison::Eq | Comparison::Ne);
        for index in 0..2 {
            let expected = if ordered { "a number, timestamp, string or bytes" } else { "a value that is not a list" };
            expect(op, args, index, 2, expected, |kind| !(kind.is_list() || ordered && kind == Kind::Bool))?;
        }
        let values = self.unify(op, args)?;
        self.emit(Instruction::Compare(comparison, values[0].register, values[1].register), Kind::Bool)
    }

    /// Brings all values to one kind: equal kinds stay, ints beside floats become floats.
    pub(super) fn unify(&mut self, op: &str, args: &[Typed]) -> Result<Vec<Typed>> {
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
        Ok(args.to_vec())
    }

    pub(super) fn float(&mut self, op: &str, args: &[Typed], index: usize, args_count: usize) -> Result<Typed> {
        let x = expect(op, args, index, args_count, "a number", Kind::is_number)?;
        self.widened(x)
    }

    pub(super) fn widened(&mut self, x: Typed) -> Result<Typed> {
        match x.kind {
            Kind::Int => self.emit(Instruction::IntToFloat(x.register), Kind::Float),
            _ => Ok(x),
        }
    }
}

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
