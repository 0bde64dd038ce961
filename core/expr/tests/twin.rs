//! The compiled program against an interpreter that walks the tree for each row: same bits, in a batch and row by row.
#![allow(clippy::unwrap_used)]

mod interpreter;

use std::collections::BTreeMap;

use headrace_expr::{ColumnView, Program, Scratch};
use headrace_types::{Batch, Column, DType, Field, Value as Cell};
use interpreter::{V, evaluate, store};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use serde_json::{Value, json};

const KINDS: [&str; 6] = ["int", "float", "bool", "timestamp", "string", "bytes"];

fn fields() -> Vec<Field> {
    [
        ("a", "int8"),
        ("b", "int64"),
        ("c", "uint64"),
        ("d", "float32"),
        ("e", "float64"),
        ("f", "bool"),
        ("t", "timestamp"),
        ("s", "string"),
        ("y", "bytes"),
    ]
    .map(|(name, dtype)| Field::new(name, dtype.parse().unwrap()))
    .to_vec()
}

fn an_int() -> impl Strategy<Value = i64> {
    prop_oneof![-5i64..6, any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(1 << 53)]
}

fn a_float() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-5i32..6).prop_map(|v| f64::from(v) / 2.0),
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        Just(9.3e18),
    ]
}

fn cell(dtype: &str) -> BoxedStrategy<Cell> {
    let value = match dtype {
        "int8" => any::<i8>().prop_map(|v| Cell::Int(v.into())).boxed(),
        "int64" => an_int().prop_map(Cell::Int).boxed(),
        "uint64" => prop_oneof![(0u64..5), any::<u64>()].prop_map(Cell::UInt).boxed(),
        "float32" => prop_oneof![any::<f32>(), (-3i8..4).prop_map(f32::from)].prop_map(Cell::Float32).boxed(),
        "float64" => a_float().prop_map(Cell::Float64).boxed(),
        "bool" => any::<bool>().prop_map(Cell::Bool).boxed(),
        "timestamp" => {
            prop_oneof![-200_000_000_000_000_000i64..200_000_000_000_000_000, 0i64..3].prop_map(Cell::Timestamp).boxed()
        }
        "string" => "[ab\u{e9}]{0,3}".prop_map(Cell::String).boxed(),
        _ => prop::collection::vec(0u8..3, 0..3).prop_map(Cell::Bytes).boxed(),
    };
    prop_oneof![1 => Just(Cell::Null), 4 => value].boxed()
}

fn batch() -> impl Strategy<Value = Batch> {
    (1usize..5, any::<bool>()).prop_flat_map(|(rows, long)| {
        // Longer than a chunk now and then, by repeating the rows.
        let repeats = if long { 150 } else { 1 };
        fields()
            .into_iter()
            .map(|field| {
                prop::collection::vec(cell(&field.dtype.to_string()), rows)
                    .prop_map(move |cells| (field.clone(), cells))
            })
            .collect::<Vec<_>>()
            .prop_map(move |columns| {
                let columns = columns.into_iter().map(|(field, cells)| {
                    let cells = cells.iter().cycle().take(cells.len() * repeats).cloned();
                    (field.name, Column::from_values(field.dtype, cells).unwrap())
                });
                Batch::new(columns.collect()).unwrap()
            })
    })
}

fn call(op: &str, args: Vec<Value>) -> Value {
    json!({"op": op, "args": args})
}

fn leaf(kind: &'static str) -> BoxedStrategy<Value> {
    let columns: &[&str] = match kind {
        "int" => &["a", "b", "c"],
        "float" => &["d", "e"],
        "bool" => &["f"],
        "timestamp" => &["t"],
        "string" => &["s"],
        _ => &["y"],
    };
    let column = select(columns.to_vec()).prop_map(|name| json!({"op": "col", "name": name}));
    let null = Just(json!({"op": "lit", "dtype": interpreter::dtype_of(kind), "value": null}));
    let literal = match kind {
        "int" => an_int().prop_map(|v| json!({"op": "lit", "dtype": "int64", "value": v})).boxed(),
        "float" => a_float().prop_map(|v| json!({"op": "lit", "dtype": "float64", "value": float_json(v)})).boxed(),
        "bool" => any::<bool>().prop_map(|v| json!({"op": "lit", "dtype": "bool", "value": v})).boxed(),
        "timestamp" => any::<i32>().prop_map(|v| json!({"op": "lit", "dtype": "timestamp", "value": v})).boxed(),
        "string" => "[ab]{0,2}".prop_map(|v| json!({"op": "lit", "dtype": "string", "value": v})).boxed(),
        _ => null.clone().boxed(),
    };
    prop_oneof![6 => column, 3 => literal, 1 => null].boxed()
}

fn float_json(value: f64) -> Value {
    if value.is_nan() {
        json!("nan")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "inf" } else { "-inf" })
    } else {
        json!(value)
    }
}

/// Expressions of each kind up to a depth; a level is made from the one below, whose strategies it shares.
struct Level(BTreeMap<&'static str, BoxedStrategy<Value>>);

impl Level {
    fn leaves() -> Self {
        Self(KINDS.into_iter().map(|kind| (kind, leaf(kind))).collect())
    }

    fn of_depth(depth: usize) -> Self {
        (0..depth).fold(Self::leaves(), |below, _| {
            Self(KINDS.into_iter().map(|kind| (kind, below.operations(kind))).collect())
        })
    }

    fn of(&self, kind: &str) -> BoxedStrategy<Value> {
        self.0[kind].clone()
    }

    fn number(&self) -> BoxedStrategy<Value> {
        prop_oneof![self.of("int"), self.of("float")].boxed()
    }

    /// Expressions one level deeper.
    fn operations(&self, kind: &'static str) -> BoxedStrategy<Value> {
        let same = self.of(kind);
        let choice = (self.of("bool"), same.clone(), same.clone()).prop_map(|(c, a, b)| call("if_else", vec![c, a, b]));
        let filled = (select(vec!["fill_null", "coalesce"]), same.clone(), same.clone())
            .prop_map(|(op, a, b)| call(op, vec![a, b]));
        let special = match kind {
            "int" => self.ints(),
            "float" => self.floats(),
            "bool" => self.bools(),
            "timestamp" => self.of("int").prop_map(|a| cast("timestamp", a)).boxed(),
            _ => same,
        };
        prop_oneof![2 => leaf(kind), 1 => choice, 1 => filled, 4 => special].boxed()
    }

    fn ints(&self) -> BoxedStrategy<Value> {
        let same = self.of("int");
        let convertible = prop_oneof![self.number(), self.of("bool"), self.of("timestamp")];
        prop_oneof![
            (select(vec!["add", "sub", "mul", "mod", "min", "max"]), same.clone(), same.clone())
                .prop_map(|(op, a, b)| call(op, vec![a, b])),
            (select(vec!["neg", "abs", "floor", "ceil", "round"]), same).prop_map(|(op, a)| call(op, vec![a])),
            (select(interpreter::TIME_PARTS.to_vec()), self.of("timestamp")).prop_map(|(op, a)| call(op, vec![a])),
            (select(vec!["int8", "uint8", "int16", "uint32", "int64", "uint64"]), convertible)
                .prop_map(|(dtype, a)| cast(dtype, a)),
        ]
        .boxed()
    }

    fn floats(&self) -> BoxedStrategy<Value> {
        let (same, number) = (self.of("float"), self.number());
        prop_oneof![
            (select(vec!["add", "sub", "mul", "mod", "min", "max"]), same.clone(), number.clone())
                .prop_map(|(op, a, b)| call(op, vec![a, b])),
            (select(vec!["add", "mul", "min", "max"]), same.clone(), number.clone(), number.clone())
                .prop_map(|(op, a, b, c)| call(op, vec![b, c, a])),
            (select(vec!["div", "pow", "atan2"]), number.clone(), number.clone())
                .prop_map(|(op, a, b)| call(op, vec![a, b])),
            (select(interpreter::FLOAT_UNARY.to_vec()), number.clone()).prop_map(|(op, a)| call(op, vec![a])),
            (select(vec!["neg", "abs", "floor", "ceil", "round"]), same.clone()).prop_map(|(op, a)| call(op, vec![a])),
            (same, number.clone(), number.clone()).prop_map(|(a, b, c)| call("clip", vec![a, b, c])),
            self.of("timestamp").prop_map(|a| call("epoch_seconds", vec![a])),
            (select(vec!["float32", "float64"]), prop_oneof![number, self.of("bool")])
                .prop_map(|(dtype, a)| cast(dtype, a)),
        ]
        .boxed()
    }

    fn bools(&self) -> BoxedStrategy<Value> {
        const COMPARISONS: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
        let (same, number) = (self.of("bool"), self.number());
        let any = Union::new(KINDS.map(|kind| self.of(kind)));
        let pair = Union::new(["timestamp", "string", "bytes"].map(|kind| (self.of(kind), self.of(kind)).boxed()));
        prop_oneof![
            (select(vec!["and", "or"]), prop::collection::vec(same.clone(), 2..4))
                .prop_map(|(op, args)| call(op, args)),
            same.prop_map(|a| call("not", vec![a])),
            any.prop_map(|a| call("is_null", vec![a])),
            (select(COMPARISONS.to_vec()), number.clone(), number).prop_map(|(op, a, b)| call(op, vec![a, b])),
            (select(COMPARISONS.to_vec()), pair).prop_map(|(op, (a, b))| call(op, vec![a, b])),
        ]
        .boxed()
    }
}

fn cast(dtype: &str, arg: Value) -> Value {
    json!({"op": "cast", "dtype": dtype, "args": [arg]})
}

fn outputs() -> impl Strategy<Value = Vec<(Field, Value)>> {
    let dtypes = |kind| match kind {
        "int" => vec!["int8", "int32", "int64", "uint16", "uint64", "float32", "float64"],
        "float" => vec!["float32", "float64", "int64", "uint8"],
        "bool" => vec!["bool", "int8", "float64"],
        "timestamp" => vec!["timestamp", "int64"],
        "string" => vec!["string"],
        _ => vec!["bytes"],
    };
    let level = Level::of_depth(3);
    let one = Union::new(KINDS.map(|kind| (select(dtypes(kind)), level.of(kind)).boxed()));
    prop::collection::vec(one, 1..5).prop_map(|outputs| {
        let field = |(index, (dtype, expr)): (usize, (&str, Value))| {
            (Field::new(format!("o{index}"), dtype.parse::<DType>().unwrap()), expr)
        };
        outputs.into_iter().enumerate().map(field).collect()
    })
}

/// Bits, so that -0 is not 0 and NaN is NaN.
fn bits(cell: &Cell) -> String {
    match cell {
        Cell::Float32(v) => format!("f32 {:08x}", v.to_bits()),
        Cell::Float64(v) => format!("f64 {:016x}", v.to_bits()),
        other => format!("{other:?}"),
    }
}

fn views(batch: &Batch) -> Vec<ColumnView<'_>> {
    batch.columns.iter().map(|(_, column)| ColumnView::from(column)).collect()
}

fn one_row(batch: &Batch, row: usize) -> Batch {
    let column = |(name, column): &(String, Column)| {
        (name.clone(), Column::from_values(column.dtype(), [column.value(row)]).unwrap())
    };
    Batch::new(batch.columns.iter().map(column).collect()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn batch_row_and_interpreter_agree(batch in batch(), outputs in outputs()) {
        let program = Program::compile(&fields(), &outputs).unwrap();
        let mut scratch = Scratch::new();
        program.run(&views(&batch), batch.rows, &mut scratch).unwrap();
        let whole: Vec<Column> = scratch.outputs().iter().map(headrace_expr::Output::to_column).collect();
        for row in 0..batch.rows.min(300) {
            let single = one_row(&batch, row);
            program.run(&views(&single), 1, &mut scratch).unwrap();
            for (index, (field, expr)) in outputs.iter().enumerate() {
                let expected = store(evaluate(expr, &batch, row), field.dtype);
                prop_assert_eq!(bits(&whole[index].value(row)), bits(&expected), "batch, row {}: {}", row, expr);
                let alone = scratch.outputs()[index].to_column().value(0);
                prop_assert_eq!(bits(&alone), bits(&expected), "alone, row {}: {}", row, expr);
            }
        }
    }
}

#[test]
fn the_interpreter_knows_null_from_nan() {
    let batch = Batch::new(vec![(
        "e".into(),
        Column::from_values("float64".parse().unwrap(), [Cell::Float64(f64::NAN)]).unwrap(),
    )])
    .unwrap();
    let is_null = call("is_null", vec![json!({"op": "col", "name": "e"})]);
    assert_eq!(evaluate(&is_null, &batch, 0), V::Bool(false));
}
