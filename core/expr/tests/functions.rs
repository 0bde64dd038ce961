//! Functions whose code the process brings: bound or not, for a row and for a batch.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use headrace_expr::{BatchFunction, ColumnView, FunctionCode, Program, Scratch};
use headrace_types::{Column, ColumnData, Error, ErrorCode, Field, Result, ScalarFunction, Value as Cell};
use serde_json::{Value, json};

#[derive(Debug)]
struct Half;

impl ScalarFunction for Half {
    fn call(&self, words: &[u64], valid: &[bool]) -> Option<u64> {
        let x = f64::from_bits(words[0]);
        let by = if valid[1] { words[1] as i64 } else { 2 };
        (by != 0).then(|| (x / by as f64).to_bits())
    }
}

#[derive(Debug)]
struct Lengths;

impl BatchFunction for Lengths {
    fn call(&self, arguments: Vec<Column>, rows: usize) -> Result<Column> {
        let ColumnData::String(texts) = &arguments[0].data else {
            return Err(Error::internal("not a text"));
        };
        if texts.iter().any(|text| text == "bad") {
            return Err(Error::new(ErrorCode::FunctionFailed, "bad text", "give another"));
        }
        let cells = (0..rows).map(|row| match arguments[0].value(row) {
            Cell::Null => Cell::Null,
            _ => Cell::String("x".repeat(texts[row].len())),
        });
        Column::from_values("string".parse()?, cells)
    }
}

fn col(name: &str) -> Value {
    json!({"op": "col", "name": name})
}

fn program() -> Program {
    let half = json!({
        "kind": "compiled", "name": "m:half", "digest": "d1", "source": "-", "constants": {}, "returns": "float64",
        "parameters": [{"name": "x", "dtype": "float64"}, {"name": "by", "dtype": "int64", "takes_null": true}],
    });
    let lengths = json!({"kind": "python", "name": "m:lengths", "digest": "d2", "returns": "string"});
    let fields = ["x", "by", "text"].into_iter().zip(["float64", "int64", "string"]);
    let inputs: Vec<Field> = fields.map(|(name, dtype)| Field::new(name, dtype.parse().unwrap())).collect();
    let outputs = [
        ("half", "float64", json!({"op": "call", "function": half, "args": [col("x"), col("by")]})),
        ("lengths", "string", json!({"op": "call", "function": lengths, "args": [col("text")]})),
    ];
    let outputs = outputs.map(|(name, dtype, expr)| (Field::new(name, dtype.parse().unwrap()), expr));
    Program::compile(&inputs, &outputs).unwrap()
}

fn columns(texts: [&str; 3]) -> [Column; 3] {
    [
        Column { data: ColumnData::Float64(vec![3.0, 5.0, 7.0]), validity: Some(vec![true, false, true]) },
        Column { data: ColumnData::Int64(vec![0, 4, 9]), validity: Some(vec![true, true, false]) },
        Column::new(ColumnData::String(texts.map(str::to_owned).to_vec())),
    ]
}

fn run(program: &Program, columns: &[Column], rows: std::ops::Range<usize>) -> Result<Vec<Vec<Cell>>> {
    let views: Vec<ColumnView<'_>> = columns.iter().map(ColumnView::from).collect();
    let mut scratch = Scratch::new();
    program.run_rows(&views, rows.clone(), &mut scratch)?;
    let outputs = scratch.outputs().iter().map(headrace_expr::Output::to_column);
    Ok(outputs.map(|column| (0..rows.len()).map(|row| column.value(row)).collect()).collect())
}

#[test]
fn functions_need_their_code_and_then_give_a_row_what_they_give_a_batch() {
    let (program, columns) = (program(), columns(["a", "", "ccc"]));
    let unbound = run(&program, &columns, 0..3).unwrap_err();
    assert_eq!((unbound.code, unbound.message.contains("m:half")), (ErrorCode::Unavailable, true));
    assert!(program.functions()[0].bind(FunctionCode::Batch(Arc::new(Lengths))).is_err());
    program.functions()[0].bind(FunctionCode::Scalar(Arc::new(Half))).unwrap();
    program.functions()[1].bind(FunctionCode::Batch(Arc::new(Lengths))).unwrap();
    assert!(program.functions().iter().all(|function| function.is_bound()));
    // A null where none is taken is null without a call; what the function does not answer is null too.
    let expected = [
        vec![Cell::Null, Cell::Null, Cell::Float64(3.5)],
        ["x", "", "xxx"].map(|text| Cell::String(text.into())).to_vec(),
    ];
    assert_eq!(run(&program, &columns, 0..3).unwrap(), expected);
    for row in 0..3 {
        let alone: Vec<Vec<Cell>> = expected.iter().map(|column| vec![column[row].clone()]).collect();
        assert_eq!(run(&program, &columns, row..row + 1).unwrap(), alone);
    }
    assert_eq!(run(&program, &columns, 2..4).unwrap_err().code, ErrorCode::InvalidArgument);
}

#[test]
fn what_a_function_refuses_is_the_error_of_the_run() {
    let program = program();
    program.functions()[0].bind(FunctionCode::Scalar(Arc::new(Half))).unwrap();
    program.functions()[1].bind(FunctionCode::Batch(Arc::new(Lengths))).unwrap();
    let error = run(&program, &columns(["a", "bad", "c"]), 0..3).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::FunctionFailed, "bad text"));
    assert!(run(&program, &columns(["a", "b", "c"]), 0..3).is_ok());
}
