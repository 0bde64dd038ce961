//! Functions of strings.

use headrace_types::{Error, Result};
use serde_json::{Map, Value};

use super::check::{count, expect, invalid, wrong_kind};
use super::{ProgramBuilder, Typed};
use crate::constant::Constant;
use crate::kind::Kind;
use crate::literal::Literal;
use crate::ops::{ConstantId, Instruction, Letters, Side, TextTest};

impl ProgramBuilder {
    pub(super) fn string(&mut self, op: &str, args: &[Typed], node: &Map<String, Value>) -> Result<Typed> {
        let text = |index, args_count| expect(op, args, index, args_count, "a string", |kind| kind == Kind::String);
        match op {
            "lower" | "upper" => {
                let letters = if op == "lower" { Letters::Lower } else { Letters::Upper };
                let x = text(0, 1)?;
                self.emit(Instruction::Letters(letters, x.register), Kind::String)
            }
            "strip" | "strip_start" | "strip_end" => {
                let x = text(0, 1)?;
                let side = match op {
                    "strip" => Side::Both,
                    "strip_start" => Side::Start,
                    _ => Side::End,
                };
                let characters = self.text_member(op, node, "characters", Some(""))?;
                self.emit(Instruction::Strip(side, characters, x.register), Kind::String)
            }
            "length" => {
                let x = text(0, 1)?;
                self.emit(Instruction::TextLength(x.register), Kind::Int)
            }
            "contains" | "starts_with" | "ends_with" => {
                let (x, part) = (text(0, 2)?, text(1, 2)?);
                let test = match op {
                    "contains" => TextTest::Contains,
                    "starts_with" => TextTest::StartsWith,
                    _ => TextTest::EndsWith,
                };
                self.emit(Instruction::TextTest(test, x.register, part.register), Kind::Bool)
            }
            "replace" => {
                let (x, old, new) = (text(0, 3)?, text(1, 3)?, text(2, 3)?);
                self.emit(Instruction::Replace(x.register, old.register, new.register), Kind::String)
            }
            "slice" => self.slice(op, args),
            "concat" => {
                count(op, args, 1, usize::MAX)?;
                for index in 0..args.len() {
                    text(index, args.len())?;
                }
                args[1..].iter().try_fold(args[0], |left, right| {
                    self.emit(Instruction::Concat(left.register, right.register), Kind::String)
                })
            }
            "split" => {
                let x = text(0, 1)?;
                let by = self.text_member(op, node, "by", None)?;
                self.emit(Instruction::Split(by, x.register), Kind::StringList)
            }
            _ => Err(Error::internal(format!("the operation '{op}' is listed but not compiled"))),
        }
    }

    /// Text, first character, and how many (all, if that is left out).
    fn slice(&mut self, op: &str, args: &[Typed]) -> Result<Typed> {
        count(op, args, 2, 3)?;
        let x = expect(op, args, 0, args.len(), "a string", |kind| kind == Kind::String)?;
        for (index, arg) in args.iter().enumerate().skip(1) {
            if arg.kind != Kind::Int {
                return Err(wrong_kind(op, index, "an int", arg.kind));
            }
        }
        let length = match args.get(2) {
            Some(length) => *length,
            None => self.literal_value(Literal::Int(i64::MAX), Kind::Int)?,
        };
        self.emit(Instruction::Slice(x.register, args[1].register, length.register), Kind::String)
    }

    /// A text among the members; without a default it must be there and not empty.
    fn text_member(
        &mut self,
        op: &str,
        node: &Map<String, Value>,
        member: &str,
        default: Option<&str>,
    ) -> Result<ConstantId> {
        let text = match (node.get(member), default) {
            (None, Some(default)) => Some(default),
            (value, _) => value.and_then(Value::as_str).filter(|text| !text.is_empty()),
        };
        let text = text.ok_or_else(|| {
            invalid(format!("'{op}' has no text '{member}'"), format!("give {member} as a text that is not empty"))
        })?;
        self.constant(format!("text {text}"), |_| Ok(Constant::Text(text.as_bytes().into())))
    }
}
