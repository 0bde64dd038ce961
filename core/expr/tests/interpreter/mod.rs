//! The language, read from the tree for one row at a time, by the plainest means.

use headrace_types::{Batch, DType, ScalarType, Value as Cell};
use serde_json::Value;

pub(crate) const TIME_PARTS: [&str; 8] =
    ["year", "month", "day", "hour", "minute", "second", "day_of_week", "day_of_year"];
pub(crate) const FLOAT_UNARY: [&str; 12] =
    ["sin", "cos", "tan", "asin", "acos", "atan", "exp", "log", "log1p", "expm1", "sqrt", "radians"];

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum V {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Time(i64),
    String(String),
    Bytes(Vec<u8>),
}

pub(crate) fn dtype_of(kind: &str) -> &str {
    match kind {
        "int" => "int64",
        "float" => "float64",
        other => other,
    }
}

fn kind_of_dtype(dtype: &str) -> &'static str {
    match dtype {
        "bool" => "bool",
        "float32" | "float64" => "float",
        "timestamp" => "timestamp",
        "string" => "string",
        "bytes" => "bytes",
        _ => "int",
    }
}

/// The static type of an expression, which decides whether ints beside floats become floats.
fn kind(expr: &Value, batch: &Batch) -> &'static str {
    let args = || expr["args"].as_array().unwrap().iter().map(|arg| kind(arg, batch)).collect::<Vec<_>>();
    let numbers = |kinds: &[&'static str]| if kinds.contains(&"float") { "float" } else { kinds[0] };
    match expr["op"].as_str().unwrap() {
        "col" => kind_of_dtype(&batch.column(expr["name"].as_str().unwrap()).unwrap().dtype().to_string()),
        "lit" | "cast" => kind_of_dtype(expr["dtype"].as_str().unwrap()),
        "add" | "sub" | "mul" | "mod" | "min" | "max" | "clip" | "neg" | "abs" | "floor" | "ceil" | "round"
        | "fill_null" | "coalesce" => numbers(&args()),
        "if_else" => numbers(&args()[1..]),
        "and" | "or" | "not" | "is_null" | "eq" | "ne" | "lt" | "le" | "gt" | "ge" => "bool",
        op if TIME_PARTS.contains(&op) => "int",
        _ => "float",
    }
}

pub(crate) fn evaluate(expr: &Value, batch: &Batch, row: usize) -> V {
    let op = expr["op"].as_str().unwrap();
    match op {
        "col" => return read(batch.column(expr["name"].as_str().unwrap()).unwrap().value(row)),
        "lit" => return literal(expr),
        _ => {}
    }
    let args: Vec<V> = expr["args"].as_array().unwrap().iter().map(|arg| evaluate(arg, batch, row)).collect();
    let own_kind = kind(expr, batch);
    let as_own = |value: &V| match (value, own_kind) {
        (V::Int(v), "float") => V::Float(*v as f64),
        (value, _) => value.clone(),
    };
    match op {
        "is_null" => return V::Bool(args[0] == V::Null),
        "fill_null" | "coalesce" => {
            return args.iter().find(|arg| **arg != V::Null).map_or(V::Null, as_own);
        }
        "if_else" => {
            return match args[0] {
                V::Bool(true) => as_own(&args[1]),
                V::Bool(false) => as_own(&args[2]),
                _ => V::Null,
            };
        }
        "and" | "or" => {
            let deciding = V::Bool(op == "or");
            return if args.contains(&deciding) {
                deciding
            } else if args.contains(&V::Null) {
                V::Null
            } else {
                V::Bool(op == "and")
            };
        }
        _ => {}
    }
    if args.contains(&V::Null) {
        return V::Null;
    }
    match op {
        "cast" => cast(args[0].clone(), expr["dtype"].as_str().unwrap().parse().unwrap()),
        "not" => V::Bool(args[0] == V::Bool(false)),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => V::Bool(compare(op, &args[0], &args[1])),
        _ if TIME_PARTS.contains(&op) => V::Int(time_part(op, int(&args[0]))),
        "epoch_seconds" => V::Float(int(&args[0]) as f64 / 1e6),
        _ if own_kind == "int" => args[1..]
            .iter()
            .try_fold(
                if args.len() == 1 { int_unary(op, int(&args[0])) } else { Some(int(&args[0])) },
                |left, right| Some(left.and_then(|left| int_binary(op, left, int(right)))),
            )
            .flatten()
            .map_or(V::Null, V::Int),
        "clip" => {
            let low = float_binary("max", float(&args[0]), float(&args[1]));
            V::Float(float_binary("min", low, float(&args[2])))
        }
        _ if args.len() == 1 => V::Float(float_unary(op, float(&args[0]))),
        _ if own_kind == "float" && args.len() > 2 => fold(op, &args),
        _ => V::Float(float_binary(op, float(&args[0]), float(&args[1]))),
    }
}

/// From left to right, two at a time: ints stay ints until the first float.
fn fold(op: &str, args: &[V]) -> V {
    args[1..].iter().fold(args[0].clone(), |left, right| match (&left, right) {
        (V::Null, _) => V::Null,
        (V::Int(x), V::Int(y)) => int_binary(op, *x, *y).map_or(V::Null, V::Int),
        (x, y) => V::Float(float_binary(op, float(x), float(y))),
    })
}

fn read(cell: Cell) -> V {
    match cell {
        Cell::Null | Cell::List(_) => V::Null,
        Cell::Bool(v) => V::Bool(v),
        Cell::Int(v) => V::Int(v),
        Cell::UInt(v) => i64::try_from(v).map_or(V::Null, V::Int),
        Cell::Float32(v) => V::Float(v.into()),
        Cell::Float64(v) => V::Float(v),
        Cell::String(v) => V::String(v),
        Cell::Bytes(v) => V::Bytes(v),
        Cell::Timestamp(v) => V::Time(v),
    }
}

fn literal(expr: &Value) -> V {
    let value = &expr["value"];
    if value.is_null() {
        return V::Null;
    }
    match expr["dtype"].as_str().unwrap() {
        "bool" => V::Bool(value.as_bool().unwrap()),
        "float64" => V::Float(value.as_str().map_or_else(|| value.as_f64().unwrap(), |text| text.parse().unwrap())),
        "timestamp" => V::Time(value.as_i64().unwrap()),
        "string" => V::String(value.as_str().unwrap().into()),
        _ => V::Int(value.as_i64().unwrap()),
    }
}

fn int(value: &V) -> i64 {
    match value {
        V::Int(v) | V::Time(v) => *v,
        other => panic!("{other:?} is not an int"),
    }
}

fn float(value: &V) -> f64 {
    match value {
        V::Int(v) => *v as f64,
        V::Float(v) => *v,
        other => panic!("{other:?} is not a number"),
    }
}

fn compare(op: &str, x: &V, y: &V) -> bool {
    let order = match (x, y) {
        (V::Bool(x), V::Bool(y)) => x.partial_cmp(y),
        (V::Int(x), V::Int(y)) | (V::Time(x), V::Time(y)) => x.partial_cmp(y),
        (V::String(x), V::String(y)) => x.partial_cmp(y),
        (V::Bytes(x), V::Bytes(y)) => x.partial_cmp(y),
        _ => float(x).partial_cmp(&float(y)),
    };
    use std::cmp::Ordering::{Equal, Greater, Less};
    match op {
        "eq" => order == Some(Equal),
        "ne" => order != Some(Equal),
        "lt" => order == Some(Less),
        "le" => matches!(order, Some(Less | Equal)),
        "gt" => order == Some(Greater),
        _ => matches!(order, Some(Greater | Equal)),
    }
}

fn narrow(value: i128) -> Option<i64> {
    i64::try_from(value).ok()
}

fn int_unary(op: &str, x: i64) -> Option<i64> {
    match op {
        "neg" => narrow(-i128::from(x)),
        "abs" => narrow(i128::from(x).abs()),
        _ => Some(x), // floor, ceil, round
    }
}

fn int_binary(op: &str, x: i64, y: i64) -> Option<i64> {
    let (wide_x, wide_y) = (i128::from(x), i128::from(y));
    match op {
        "add" => narrow(wide_x + wide_y),
        "sub" => narrow(wide_x - wide_y),
        "mul" => narrow(wide_x * wide_y),
        "mod" if y == 0 => None,
        "mod" => narrow(((wide_x % wide_y) + wide_y) % wide_y),
        "min" => Some(x.min(y)),
        "max" => Some(x.max(y)),
        other => panic!("no int operation {other}"),
    }
}

fn float_unary(op: &str, x: f64) -> f64 {
    match op {
        "neg" => -x,
        "abs" => x.abs(),
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        "round" => x.round_ties_even(),
        "sqrt" => x.sqrt(),
        "radians" => x * 0.017_453_292_519_943_295,
        "sin" => libm::sin(x),
        "cos" => libm::cos(x),
        "tan" => libm::tan(x),
        "asin" => libm::asin(x),
        "acos" => libm::acos(x),
        "atan" => libm::atan(x),
        "exp" => libm::exp(x),
        "log" => libm::log(x),
        "log1p" => libm::log1p(x),
        "expm1" => libm::expm1(x),
        other => panic!("no float operation {other}"),
    }
}

fn float_binary(op: &str, x: f64, y: f64) -> f64 {
    match op {
        "add" => x + y,
        "sub" => x - y,
        "mul" => x * y,
        "div" => x / y,
        "pow" => libm::pow(x, y),
        "atan2" => libm::atan2(x, y),
        "mod" => {
            let remainder = x % y;
            if remainder == 0.0 {
                0.0f64.copysign(y)
            } else if (remainder < 0.0) != (y < 0.0) {
                remainder + y
            } else {
                remainder
            }
        }
        "min" | "max" if x.is_nan() || y.is_nan() => f64::NAN,
        "min" => {
            if y < x {
                y
            } else {
                x
            }
        }
        "max" => {
            if y > x {
                y
            } else {
                x
            }
        }
        other => panic!("no float operation {other}"),
    }
}

fn cast(value: V, dtype: DType) -> V {
    let DType::Scalar(scalar) = dtype else { panic!("no list") };
    match scalar {
        ScalarType::Bool | ScalarType::String | ScalarType::Bytes => value,
        ScalarType::Timestamp => V::Time(int(&value)),
        ScalarType::Float32 | ScalarType::Float64 => {
            let wide = if let V::Bool(v) = value { f64::from(u8::from(v)) } else { float(&value) };
            V::Float(if scalar == ScalarType::Float32 { f64::from(wide as f32) } else { wide })
        }
        _ => {
            let wide = match value {
                V::Bool(v) => Some(i128::from(v)),
                // Every finite float below 2^70 fits, and what is beyond fits no type.
                V::Float(v) if v.is_nan() || v.abs() > 1e21 => None,
                V::Float(v) => Some(v.trunc() as i128),
                other => Some(int(&other).into()),
            };
            let (low, high): (i128, i128) = match scalar {
                ScalarType::Int8 => (i8::MIN.into(), i8::MAX.into()),
                ScalarType::Int16 => (i16::MIN.into(), i16::MAX.into()),
                ScalarType::Int32 => (i32::MIN.into(), i32::MAX.into()),
                ScalarType::Int64 => (i64::MIN.into(), i64::MAX.into()),
                ScalarType::UInt8 => (0, u8::MAX.into()),
                ScalarType::UInt16 => (0, u16::MAX.into()),
                ScalarType::UInt32 => (0, u32::MAX.into()),
                _ => (0, i64::MAX.into()), // ints have 64 bits with a sign
            };
            wide.filter(|wide| (low..=high).contains(wide)).and_then(narrow).map_or(V::Null, V::Int)
        }
    }
}

/// Counts whole years and months from 1970 on.
fn time_part(part: &str, us: i64) -> i64 {
    let seconds = us.div_euclid(1_000_000);
    let mut days = seconds.div_euclid(86_400);
    let second = seconds.rem_euclid(86_400);
    match part {
        "hour" => return second / 3_600,
        "minute" => return second % 3_600 / 60,
        "second" => return second % 60,
        "day_of_week" => return (days + 3).rem_euclid(7),
        _ => {}
    }
    // 400 years have the same calendar, and 146,097 days.
    let mut year = 1970 + 400 * days.div_euclid(146_097);
    days = days.rem_euclid(146_097);
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let day_of_year = days + 1;
    let mut month = 1;
    for length in [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    match part {
        "year" => year,
        "month" => month,
        "day" => days + 1,
        _ => day_of_year,
    }
}

/// The value as a cell of an output column.
pub(crate) fn store(value: V, dtype: DType) -> Cell {
    let value = if value == V::Null { V::Null } else { cast(value, dtype) };
    let DType::Scalar(scalar) = dtype else { panic!("no list") };
    match (value, scalar) {
        (V::Null, _) => Cell::Null,
        (V::Bool(v), _) => Cell::Bool(v),
        (V::Float(v), ScalarType::Float32) => Cell::Float32(if v.is_nan() { f32::NAN } else { v as f32 }),
        (V::Float(v), _) => Cell::Float64(if v.is_nan() { f64::NAN } else { v }),
        (V::Int(v), ScalarType::UInt8 | ScalarType::UInt16 | ScalarType::UInt32 | ScalarType::UInt64) => {
            Cell::UInt(u64::try_from(v).unwrap())
        }
        (V::Int(v), _) => Cell::Int(v),
        (V::Time(v), _) => Cell::Timestamp(v),
        (V::String(v), _) => Cell::String(v),
        (V::Bytes(v), _) => Cell::Bytes(v),
    }
}
