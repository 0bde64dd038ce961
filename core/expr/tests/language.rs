//! What the language promises, case by case, and how it refuses.
#![allow(clippy::unwrap_used)]

use headrace_expr::{ColumnSlice, ColumnView, DEPTH_MAX, INSTRUCTIONS_MAX, Program, Scratch};
use headrace_types::{DType, ErrorCode, Field, Value as Cell};
use serde_json::{Value, json};

fn dtype(text: &str) -> DType {
    text.parse().unwrap()
}

fn col(name: &str) -> Value {
    json!({"op": "col", "name": name})
}

fn call(op: &str, args: Value) -> Value {
    json!({"op": op, "args": args})
}

fn inputs() -> Vec<Field> {
    vec![
        Field::new("x", dtype("float64")),
        Field::new("n", dtype("int64")),
        Field::new("city", dtype("string")),
        Field::new("when", dtype("timestamp")),
        Field::new("flag", dtype("bool")),
        Field::new("tags", dtype("list<string>")),
    ]
}

fn compile(output: &str, expr: Value) -> headrace_types::Result<Program> {
    Program::compile(&inputs(), &[(Field::new("out", dtype(output)), expr)])
}

/// The value for x = 2.5, n = 7, city = "oslo", when = 2013-01-01T06:30:00Z (a Tuesday), flag = true, tags = a list.
fn value(output: &str, expr: Value) -> Cell {
    let (x, n, when, flag) = ([2.5], [7], [1_357_021_800_000_000], [true]);
    let tags = [vec![Cell::String("a".into()), Cell::Null, Cell::String("b".into())]];
    let slices = [
        ColumnSlice::Float64(&x),
        ColumnSlice::Int64(&n),
        ColumnSlice::Str(&["oslo"]),
        ColumnSlice::Timestamp(&when),
        ColumnSlice::Bool(&flag),
        ColumnSlice::List(headrace_types::ScalarType::String, &tags),
    ];
    let columns = slices.map(|data| ColumnView { data, validity: None });
    let mut scratch = Scratch::new();
    compile(output, expr).unwrap().run(&columns, 1, &mut scratch).unwrap();
    scratch.outputs()[0].to_column().value(0)
}

#[test]
fn numbers() {
    assert_eq!(value("float64", call("add", json!([col("x"), col("n")]))), Cell::Float64(9.5));
    assert_eq!(value("int64", call("mul", json!([col("n"), col("n"), col("n")]))), Cell::Int(343));
    assert_eq!(
        value("float64", call("div", json!([col("n"), {"op": "lit", "dtype": "int64", "value": 0}]))),
        Cell::Float64(f64::INFINITY)
    );
    assert_eq!(
        value(
            "int64",
            call("mod", json!([call("neg", json!([col("n")])), {"op": "lit", "dtype": "int64", "value": 5}]))
        ),
        Cell::Int(3)
    );
    assert_eq!(value("int64", call("mod", json!([col("n"), {"op": "lit", "dtype": "int64", "value": 0}]))), Cell::Null);
    assert_eq!(
        value("int64", call("add", json!([col("n"), {"op": "lit", "dtype": "int64", "value": i64::MAX}]))),
        Cell::Null
    );
    assert_eq!(value("float64", call("round", json!([col("x")]))), Cell::Float64(2.0));
    assert_eq!(value("uint8", call("neg", json!([col("n")]))), Cell::Null);
    assert_eq!(
        value(
            "float64",
            call(
                "clip",
                json!([col("x"), {"op": "lit", "dtype": "int64", "value": 3}, {"op": "lit", "dtype": "int64", "value": 9}])
            )
        ),
        Cell::Float64(3.0)
    );
}

#[test]
fn times() {
    for (part, expected) in [
        ("year", 2013),
        ("month", 1),
        ("day", 1),
        ("hour", 6),
        ("minute", 30),
        ("second", 0),
        ("day_of_week", 1),
        ("day_of_year", 1),
    ] {
        assert_eq!(value("int64", call(part, json!([col("when")]))), Cell::Int(expected), "{part}");
    }
    assert_eq!(value("float64", call("epoch_seconds", json!([col("when")]))), Cell::Float64(1_357_021_800.0));
}

#[test]
fn text_and_choices() {
    let is_oslo = call("eq", json!([col("city"), {"op": "lit", "dtype": "string", "value": "oslo"}]));
    let shout = call("if_else", json!([is_oslo, {"op": "lit", "dtype": "string", "value": "OSLO"}, col("city")]));
    assert_eq!(value("string", shout), Cell::String("OSLO".into()));
    assert_eq!(value("bool", call("is_null", json!([col("tags")]))), Cell::Bool(false));
    let unknown = json!({"op": "lit", "dtype": "bool", "value": null});
    assert_eq!(value("bool", call("or", json!([unknown, col("flag")]))), Cell::Bool(true));
    assert_eq!(value("bool", call("and", json!([unknown, col("flag")]))), Cell::Null);
}

/// The first line of the message, without the expression that is shown below it.
fn refused(output: &str, expr: Value) -> String {
    let error = compile(output, expr).unwrap_err();
    assert_ne!(error.hint, "");
    error.message.lines().next().unwrap().to_owned()
}

#[test]
fn a_wrong_type_is_named_with_its_path() {
    assert_eq!(
        refused("float64", call("sin", json!([col("city")]))),
        "field 'out': sin(args[0]): expected a number, got string"
    );
    let nested = call("add", json!([col("x"), call("hour", json!([col("n")]))]));
    assert_eq!(refused("float64", nested), "field 'out': add(args[1]): hour(args[0]): expected a timestamp, got int");
    assert_eq!(refused("string", col("x")), "field 'out': cannot cast float to string");
    let mixed = call("coalesce", json!([col("x"), col("city")]));
    assert_eq!(refused("float64", mixed), "field 'out': coalesce: float and string do not go together");
    assert_eq!(
        refused("float64", call("not", json!([col("n")]))),
        "field 'out': not(args[0]): expected a bool, got int"
    );
    assert_eq!(refused("string", col("tags")), "field 'out': cannot cast list of string to string");
}

#[test]
fn unknown_names_are_refused_with_suggestions() {
    let error = compile("float64", call("sine", json!([col("x")]))).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            ErrorCode::InvalidExpression,
            "field 'out': 'sine' is not an operation\n    sine(col(\"x\"))\n    ^^^^^^^^^^^^^^"
        )
    );
    assert!(error.hint.contains("'sin'"), "{}", error.hint);
    let error = compile("float64", col("wehn")).unwrap_err();
    assert_eq!((error.code, error.hint.as_str()), (ErrorCode::UnknownFeature, "did you mean 'when'?"));
}

#[test]
fn malformed_nodes_are_refused() {
    for expr in [
        json!(1),
        json!({}),
        json!({"op": "add"}),
        json!({"op": "add", "args": [col("x")]}),
        json!({"op": "sub", "args": [col("x"), col("x"), col("x")]}),
        json!({"op": "coalesce", "args": []}),
        json!({"op": "sin", "args": []}),
        json!({"op": "is_null", "args": [col("x"), col("x")]}),
        json!({"op": "if_else", "args": [col("flag"), col("x")]}),
        json!({"op": "sin", "args": [col("x")], "extra": 1}),
        json!({"op": "col"}),
        json!({"op": "lit", "dtype": "float64"}),
        json!({"op": "lit", "dtype": "float65", "value": 1.0}),
        json!({"op": "lit", "dtype": "int8", "value": 300}),
        json!({"op": "lit", "dtype": "int64", "value": 1.5}),
        json!({"op": "lit", "dtype": "float64", "value": "infinity"}),
        json!({"op": "lit", "dtype": "bytes", "value": "AA=="}),
        json!({"op": "lit", "dtype": "list<int64>", "value": []}),
        json!({"op": "cast", "dtype": "bool", "args": [col("when")]}),
        json!({"op": "hour", "zone": "Mars/Olympus", "args": [col("when")]}),
        json!({"op": "truncate", "unit": "fortnight", "args": [col("when")]}),
        json!({"op": "split", "by": "", "args": [col("city")]}),
        json!({"op": "bucketize", "boundaries": [2, 1], "args": [col("x")]}),
        json!({"op": "bucketize", "boundaries": [], "args": [col("x")]}),
        json!({"op": "hash", "buckets": 0, "args": [col("x")]}),
        json!({"op": "is_in", "dtype": "string", "values": [1], "args": [col("city")]}),
        json!({"op": "lookup", "key_dtype": "string", "keys": ["a"], "dtype": "int64", "values": [], "args": [col("city")]}),
        json!({"op": "lookup", "key_dtype": "string", "keys": ["a", "a"], "dtype": "int64", "values": [1, 2], "args": [col("city")]}),
        json!({"op": "list_contains", "args": [col("tags"), col("x")]}),
        json!({"op": "steps", "steps": []}),
        json!({"op": "steps", "steps": [{"op": "ref", "step": 0}]}),
        json!({"op": "ref", "step": 0}),
        json!({"op": "cast", "args": [col("x")]}),
        json!({"op": "lt", "args": [col("flag"), col("flag")]}),
        json!({"op": "eq", "args": [col("tags"), col("tags")]}),
    ] {
        refused("float64", expr);
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| (1..depth).fold(col("x"), |expr, _| call("sin", json!([expr])));
    assert!(compile("float64", nested(DEPTH_MAX)).is_ok());
    assert_eq!(compile("float64", nested(DEPTH_MAX + 1)).unwrap_err().code, ErrorCode::TooLarge);
    let wide: Vec<Value> = (0..INSTRUCTIONS_MAX).map(|n| json!({"op": "lit", "dtype": "int64", "value": n})).collect();
    assert_eq!(compile("int64", call("add", json!(wide))).unwrap_err().code, ErrorCode::TooLarge);
}

#[test]
fn equal_parts_are_computed_once() {
    let angle = call("mul", json!([col("x"), {"op": "lit", "dtype": "float64", "value": 0.5}]));
    let outputs = [("sin", "sin"), ("cos", "cos"), ("again", "sin")]
        .map(|(name, op)| (Field::new(name, dtype("float64")), call(op, json!([angle]))));
    let program = Program::compile(&inputs(), &outputs).unwrap();
    assert_eq!(program.instructions_count(), 5); // x, 0.5, mul, sin, cos
}

#[test]
fn wrong_columns_are_refused_at_the_run() {
    let program = compile("float64", col("x")).unwrap();
    let error = program.run(&[], 1, &mut Scratch::new()).unwrap_err();
    assert_eq!(error.code, ErrorCode::LengthMismatch);
    let program = Program::compile(&inputs()[..1], &[(Field::new("out", dtype("float64")), col("x"))]).unwrap();
    let run = |data, rows, validity| program.run(&[ColumnView { data, validity }], rows, &mut Scratch::new());
    assert_eq!(run(ColumnSlice::Float32(&[1.0]), 1, None).unwrap_err().code, ErrorCode::TypeMismatch);
    assert_eq!(run(ColumnSlice::Float64(&[1.0]), 2, None).unwrap_err().code, ErrorCode::LengthMismatch);
    assert_eq!(run(ColumnSlice::Float64(&[1.0]), 1, Some(&[])).unwrap_err().code, ErrorCode::LengthMismatch);
    assert!(run(ColumnSlice::Float64(&[]), 0, None).is_ok());
}

#[test]
fn one_scratch_serves_programs_and_sizes_in_turn() {
    let (first, second) = (compile("float64", col("x")).unwrap(), compile("int64", col("n")).unwrap());
    let mut scratch = Scratch::new();
    for rows in [1usize, 700, 3] {
        let (x, n) = (vec![1.5; rows], vec![4i64; rows]);
        let (text, times, flags) = (vec!["a"; rows], vec![0i64; rows], vec![true; rows]);
        let tags = vec![Vec::new(); rows];
        let columns = [
            ColumnSlice::Float64(&x),
            ColumnSlice::Int64(&n),
            ColumnSlice::Str(&text),
            ColumnSlice::Timestamp(&times),
            ColumnSlice::Bool(&flags),
            ColumnSlice::List(headrace_types::ScalarType::String, &tags),
        ]
        .map(|data| ColumnView { data, validity: None });
        first.run(&columns, rows, &mut scratch).unwrap();
        assert_eq!((scratch.outputs()[0].validity.len(), scratch.outputs()[0].number(rows - 1)), (rows, 1.5));
        second.run(&columns, rows, &mut scratch).unwrap();
        assert_eq!((scratch.outputs()[0].validity.len(), scratch.outputs()[0].number(rows - 1)), (rows, 4.0));
    }
}

#[test]
fn lists_and_their_items() {
    assert_eq!(value("int64", call("list_length", json!([col("tags")]))), Cell::Int(3));
    let at = |index: i64| call("list_get", json!([col("tags"), {"op": "lit", "dtype": "int64", "value": index}]));
    assert_eq!(value("string", at(0)), Cell::String("a".into()));
    assert_eq!(value("string", at(-1)), Cell::String("b".into()));
    assert_eq!(value("string", at(1)), Cell::Null);
    assert_eq!(value("string", at(3)), Cell::Null);
    let parts = json!({"op": "split", "by": "l", "args": [col("city")]});
    assert_eq!(value("list<string>", parts), Cell::List(vec![Cell::String("os".into()), Cell::String("o".into())]));
}

#[test]
fn an_error_points_at_the_part_that_is_wrong() {
    let expr = call("add", json!([col("x"), call("hour", json!([col("n")]))]));
    let error = compile("float64", expr).unwrap_err();
    assert!(
        error.message.ends_with("\n    (col(\"x\") + hour(col(\"n\")))\n                ^^^^^^^^^^^^^^"),
        "{}",
        error.message
    );
}

#[test]
fn an_error_in_a_long_expression_shows_its_surroundings() {
    let long: Vec<Value> =
        (0..200).map(|n| if n == 150 { call("sin", json!([col("city")])) } else { col("x") }).collect();
    let error = compile("float64", call("add", json!(long))).unwrap_err();
    let lines: Vec<&str> = error.message.lines().collect();
    let (begin, width) = (lines[2].find('^').unwrap(), lines[2].matches('^').count());
    assert_eq!(&lines[1][begin..begin + width], "sin(col(\"city\"))");
}

#[test]
fn steps_go_as_deep_as_instructions_allow() {
    let mut steps = vec![col("x")];
    steps.extend((0..5_000).map(|step| call("add", json!([{"op": "ref", "step": step}, col("n")]))));
    assert_eq!(value("float64", json!({"op": "steps", "steps": steps})), Cell::Float64(35_002.5));
}

#[test]
fn strings_that_grow_without_bound_are_null() {
    let twice = |step: usize| json!([{"op": "ref", "step": step}, {"op": "ref", "step": step}]);
    let mut steps = vec![col("city")];
    steps.extend((0..40).map(|step| call("concat", twice(step))));
    assert_eq!(value("string", json!({"op": "steps", "steps": steps})), Cell::Null);
    let kept = json!({"op": "steps", "steps": steps[..15]});
    assert_eq!(value("string", kept), Cell::String("oslo".repeat(1 << 14)));
}
