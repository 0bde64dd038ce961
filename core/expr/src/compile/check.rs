//! Checks that every operation makes of its arguments and members.

use headrace_types::{DType, Error, ErrorCode, Result, ScalarType};
use serde_json::{Map, Value};

use super::Typed;
use crate::kind::Kind;

pub(super) fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidExpression, message, hint)
}

pub(super) fn wrong_kind(op: &str, index: usize, expected: &str, got: Kind) -> Error {
    let hint = match (expected, got) {
        ("a number", Kind::Bool) => "cast it to int64 or float64",
        ("a number", Kind::Timestamp) => "take epoch_seconds of it, a part such as hour, or cast it to int64",
        ("a bool", _) => "compare it with something",
        ("a string", _) => "cast it to string",
        ("a number", kind) if kind.is_list() => "take its sum, mean, min or max, or one element with get",
        _ => "change the argument or cast it",
    };
    invalid(format!("{op}(args[{index}]): expected {expected}, got {got}"), hint)
}

pub(super) fn no_cast(from: Kind, to: DType) -> Error {
    let hint = match (from, to) {
        (Kind::Int | Kind::Float, DType::Scalar(ScalarType::Bool)) => "compare it with something, such as ne 0",
        (_, DType::List(_)) => "a list is made by split, or comes from a column",
        (from, _) if from.is_list() => "take its length, sum, mean, min or max, or one element with get",
        (_, DType::Scalar(ScalarType::String)) | (Kind::String, _) => "write the cast into the expression",
        _ => "numbers and bools cast to numbers, int64 and timestamp to each other",
    };
    invalid(format!("cannot cast {from} to {to}"), hint)
}

pub(super) fn count(op: &str, args: &[Typed], least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&args.len()) {
        return Ok(());
    }
    let expected = match (least, most) {
        (least, most) if least == most => least.to_string(),
        (least, usize::MAX) => format!("at least {least}"),
        (least, most) => format!("{least} to {most}"),
    };
    Err(invalid(format!("{op}: expected {expected} arguments, got {}", args.len()), "correct the number of arguments"))
}

pub(super) fn expect(
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

pub(super) fn dtype_of(node: &Map<String, Value>, op: &str) -> Result<DType> {
    dtype_member(node, op, "dtype")
}

pub(super) fn dtype_member(node: &Map<String, Value>, op: &str, member: &str) -> Result<DType> {
    node.get(member)
        .and_then(Value::as_str)
        .ok_or_else(|| invalid(format!("'{op}' has no '{member}'"), "name a type, such as float64"))?
        .parse()
}

/// A list among the members, of `most` items at most.
pub(super) fn list_member<'a>(
    node: &'a Map<String, Value>,
    op: &str,
    member: &str,
    most: usize,
) -> Result<&'a [Value]> {
    let Some(items) = node.get(member).and_then(Value::as_array) else {
        return Err(invalid(format!("'{op}' has no list '{member}'"), format!("give {member} as a list")));
    };
    if items.len() > most {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("'{op}' has {} {member}, at most {most} are allowed", items.len()),
            "store them as features of an entity instead",
        ));
    }
    Ok(items)
}

pub(super) fn only_members(node: &Map<String, Value>, op: &str, allowed: &[&str]) -> Result<()> {
    match node.keys().find(|key| !allowed.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(invalid(
            format!("'{op}' has an unknown member '{key}'"),
            format!("the members are {}", allowed.join(", ")),
        )),
    }
}
