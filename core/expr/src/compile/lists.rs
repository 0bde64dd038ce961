//! Functions of lists.

use headrace_types::{Error, Result};

use super::check::{count, expect, invalid, wrong_kind};
use super::{ProgramBuilder, Typed};
use crate::kind::Kind;
use crate::ops::{Instruction, ListReduction};

impl ProgramBuilder {
    pub(super) fn list(&mut self, op: &str, args: &[Typed]) -> Result<Typed> {
        let reduction = match op {
            "list_sum" => ListReduction::Sum,
            "list_mean" => ListReduction::Mean,
            "list_min" => ListReduction::Min,
            "list_max" => ListReduction::Max,
            _ => return self.list_other(op, args),
        };
        let numbers = |kind| matches!(kind, Kind::IntList | Kind::FloatList);
        let x = expect(op, args, 0, 1, "a list of numbers", numbers)?;
        let is_int = x.kind == Kind::IntList && reduction != ListReduction::Mean;
        let kind = if is_int { Kind::Int } else { Kind::Float };
        self.emit(Instruction::ListReduce(reduction, x.register), kind)
    }

    fn list_other(&mut self, op: &str, args: &[Typed]) -> Result<Typed> {
        let args_count = if op == "list_length" { 1 } else { 2 };
        count(op, args, args_count, args_count)?;
        let list = args[0];
        let Some(element) = list.kind.element() else {
            return Err(wrong_kind(op, 0, "a list", list.kind));
        };
        match op {
            "list_length" => self.emit(Instruction::ListLength(list.register), Kind::Int),
            "list_get" => {
                let index = expect(op, args, 1, 2, "an int", |kind| kind == Kind::Int)?;
                self.emit(Instruction::ListGet(list.register, index.register), element)
            }
            "list_contains" => {
                let value = if element == Kind::Float { self.widened(args[1])? } else { args[1] };
                if value.kind != element {
                    return Err(invalid(
                        format!("{op}: {} and {} do not go together", list.kind, value.kind),
                        "cast the value to the type of the list's elements",
                    ));
                }
                self.emit(Instruction::ListContains(list.register, value.register), Kind::Bool)
            }
            _ => Err(Error::internal(format!("the operation '{op}' is listed but not compiled"))),
        }
    }
}
