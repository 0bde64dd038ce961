//! Which operations there are, and who compiles them.

use headrace_types::{Error, Result};
use serde_json::{Map, Value};

use super::check::{count, dtype_of, expect};
use super::{ProgramBuilder, Typed};
use crate::kind::Kind;
use crate::ops::{Instruction, Logic};

/// Every operation but `col`, `lit`, `ref` and `steps`, with the members that it has besides `op` and `args`.
pub(super) const OPERATIONS: &[(&str, &[&str])] = &[
    ("add", &[]),
    ("sub", &[]),
    ("mul", &[]),
    ("div", &[]),
    ("mod", &[]),
    ("neg", &[]),
    ("abs", &[]),
    ("eq", &[]),
    ("ne", &[]),
    ("lt", &[]),
    ("le", &[]),
    ("gt", &[]),
    ("ge", &[]),
    ("and", &[]),
    ("or", &[]),
    ("not", &[]),
    ("is_null", &[]),
    ("fill_null", &[]),
    ("coalesce", &[]),
    ("if_else", &[]),
    ("sin", &[]),
    ("cos", &[]),
    ("tan", &[]),
    ("asin", &[]),
    ("acos", &[]),
    ("atan", &[]),
    ("atan2", &[]),
    ("exp", &[]),
    ("log", &[]),
    ("log1p", &[]),
    ("expm1", &[]),
    ("sqrt", &[]),
    ("pow", &[]),
    ("floor", &[]),
    ("ceil", &[]),
    ("round", &[]),
    ("min", &[]),
    ("max", &[]),
    ("clip", &[]),
    ("radians", &[]),
    ("haversine", &[]),
    ("bucketize", &["boundaries"]),
    ("hash", &["seed", "buckets"]),
    ("is_in", &["dtype", "values"]),
    ("lookup", &["key_dtype", "keys", "dtype", "values"]),
    ("year", &["zone"]),
    ("quarter", &["zone"]),
    ("month", &["zone"]),
    ("week", &["zone"]),
    ("day", &["zone"]),
    ("hour", &["zone"]),
    ("minute", &["zone"]),
    ("second", &["zone"]),
    ("microsecond", &["zone"]),
    ("day_of_week", &["zone"]),
    ("day_of_year", &["zone"]),
    ("second_of_day", &["zone"]),
    ("truncate", &["unit", "zone"]),
    ("epoch_seconds", &[]),
    ("cast", &["dtype"]),
    ("lower", &[]),
    ("upper", &[]),
    ("strip", &["characters"]),
    ("strip_start", &["characters"]),
    ("strip_end", &["characters"]),
    ("length", &[]),
    ("contains", &[]),
    ("starts_with", &[]),
    ("ends_with", &[]),
    ("replace", &[]),
    ("slice", &[]),
    ("concat", &[]),
    ("split", &["by"]),
    ("list_sum", &[]),
    ("list_mean", &[]),
    ("list_min", &[]),
    ("list_max", &[]),
    ("list_length", &[]),
    ("list_contains", &[]),
    ("list_get", &[]),
    ("call", &["function"]),
];

pub(super) fn members(op: &str) -> Option<&'static [&'static str]> {
    OPERATIONS.iter().find(|(name, _)| *name == op).map(|(_, members)| *members)
}

impl ProgramBuilder {
    pub(super) fn operation(&mut self, op: &str, args: &[Typed], node: &Map<String, Value>) -> Result<Typed> {
        match op {
            "cast" => {
                count(op, args, 1, 1)?;
                self.cast(args[0], dtype_of(node, "cast")?)
            }
            "call" => self.call(args, node),
            "and" | "or" | "not" => self.logic(op, args),
            "is_null" | "fill_null" | "coalesce" | "if_else" => self.choice(op, args),
            "eq" | "ne" | "lt" | "le" | "gt" | "ge" => self.compare(op, args),
            "bucketize" | "hash" | "is_in" | "lookup" => self.with_constants(op, args, node),
            _ if op.starts_with("list_") => self.list(op, args),
            _ if members(op).is_some_and(|members| members.contains(&"zone")) || op == "epoch_seconds" => {
                self.time(op, args, node)
            }
            "lower" | "upper" | "strip" | "strip_start" | "strip_end" | "length" | "contains" | "starts_with"
            | "ends_with" | "replace" | "slice" | "concat" | "split" => self.string(op, args, node),
            _ => self.number(op, args),
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
}
