//! An expression as one would write it, with a line under the part that an error is about.

use std::fmt::Write;

use serde_json::Value;

/// Characters of an expression that an error shows.
const SHOWN_MAX: usize = 96;
/// Nodes deeper than this are left out of the text.
const DEPTH_SHOWN_MAX: usize = 64;

/// Two lines to put behind a message: the expression, or the step of it, and a mark under the part at `fault`, which lists argument
/// numbers, the innermost first. Empty when there is nothing to point into.
pub(super) fn pointer(expr: &Value, step: usize, fault: &[usize]) -> String {
    let expr = match expr.get("steps").and_then(Value::as_array) {
        Some(steps) => steps.get(step).unwrap_or(&Value::Null),
        None => expr,
    };
    if expr.get("op").is_none() {
        return String::new();
    }
    let path: Vec<usize> = fault.iter().rev().copied().collect();
    let mut text = Text::default();
    text.write(expr, Some(&path), 0);
    let characters: Vec<char> = text.shown.chars().collect();
    let begin = text.shown[..text.begin].chars().count();
    let end = begin + text.shown[text.begin..text.end].chars().count();
    // The window begins a little before the mark when the whole does not fit.
    let from = if characters.len() <= SHOWN_MAX { 0 } else { begin.saturating_sub(SHOWN_MAX / 4) };
    let to = characters.len().min(from + SHOWN_MAX);
    let shown: String = characters[from..to].iter().collect();
    let (before, after) = (if from > 0 { ".." } else { "" }, if to < characters.len() { ".." } else { "" });
    let width = end.min(to).saturating_sub(begin).max(1);
    format!("\n    {before}{shown}{after}\n    {}{}", " ".repeat(before.len() + begin - from), "^".repeat(width))
}

#[derive(Default)]
struct Text {
    shown: String,
    /// Bytes of the marked part.
    begin: usize,
    end: usize,
}

impl Text {
    /// Writes a node; `path` leads from it to the marked one, and is absent where that lies elsewhere.
    fn write(&mut self, node: &Value, path: Option<&[usize]>, depth: usize) {
        let begin = self.shown.len();
        let op = node.get("op").and_then(Value::as_str).unwrap_or("?");
        match op {
            _ if depth > DEPTH_SHOWN_MAX => self.shown.push_str(".."),
            "col" => self.put(format_args!("col({})", node.get("name").unwrap_or(&Value::Null))),
            "lit" => self.put(format_args!("{}", node.get("value").unwrap_or(&Value::Null))),
            "ref" => self.put(format_args!("step{}", node.get("step").unwrap_or(&Value::Null))),
            _ => self.write_call(op, node, path, depth),
        }
        if path.is_some_and(<[usize]>::is_empty) {
            (self.begin, self.end) = (begin, self.shown.len());
        }
    }

    fn write_call(&mut self, op: &str, node: &Value, path: Option<&[usize]>, depth: usize) {
        let args = node.get("args").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let sign = infix(op).filter(|_| args.len() >= 2);
        if sign.is_none() {
            let function = node.get("function").and_then(|function| function.get("name")).and_then(Value::as_str);
            self.shown.push_str(function.map_or(op, |name| name.rsplit(':').next().unwrap_or(name)));
        }
        self.shown.push('(');
        for (index, arg) in args.iter().enumerate() {
            if index > 0 {
                self.put(format_args!("{}", sign.unwrap_or(", ")));
            }
            let inner = path.and_then(|path| path.split_first()).filter(|(first, _)| **first == index);
            self.write(arg, inner.map(|(_, rest)| rest), depth + 1);
        }
        if let Some(dtype) = node.get("dtype").and_then(Value::as_str).filter(|_| op == "cast") {
            self.put(format_args!(", \"{dtype}\""));
        }
        self.shown.push(')');
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.shown.write_fmt(text);
    }
}

fn infix(op: &str) -> Option<&'static str> {
    Some(match op {
        "add" => " + ",
        "sub" => " - ",
        "mul" => " * ",
        "div" => " / ",
        "mod" => " % ",
        "pow" => " ** ",
        "and" => " & ",
        "or" => " | ",
        "eq" => " == ",
        "ne" => " != ",
        "lt" => " < ",
        "le" => " <= ",
        "gt" => " > ",
        "ge" => " >= ",
        _ => return None,
    })
}
