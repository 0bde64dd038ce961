//! Operations that hold tables: boundaries, sets, maps; and hashes.

use ahash::AHashMap;
use headrace_types::{DType, Error, Result};
use serde_json::{Map, Value};

use super::check::{count, dtype_member, dtype_of, expect, invalid, list_member};
use super::{ProgramBuilder, Typed};
use crate::constant::{Constant, Keys, Table, TableValues, WALK_MAX};
use crate::kind::Kind;
use crate::literal::Literal;
use crate::ops::Instruction;

/// The most boundaries, keys or values that one operation holds.
const TABLE_ITEMS_MAX: usize = 65_536;

impl ProgramBuilder {
    pub(super) fn with_constants(&mut self, op: &str, args: &[Typed], node: &Map<String, Value>) -> Result<Typed> {
        match op {
            "bucketize" => {
                let x = self.float(op, args, 0, 1)?;
                let boundaries = list_member(node, op, "boundaries", TABLE_ITEMS_MAX)?;
                let written = format!("boundaries {}", Value::from(boundaries));
                let boundaries = self.constant(written, |_| Ok(Constant::Boundaries(ascending(boundaries)?)))?;
                self.emit(Instruction::Bucketize(boundaries, x.register), Kind::Int)
            }
            "hash" => self.hash(op, args, node),
            "is_in" => {
                count(op, args, 1, 1)?;
                let dtype = dtype_of(node, op)?;
                let (x, kind) = self.key(op, args[0], dtype)?;
                let values = list_member(node, op, "values", TABLE_ITEMS_MAX)?;
                let written = format!("set {kind} {dtype} {}", Value::from(values));
                let table = self.constant(written, |_| {
                    let keys = keys(op, kind, &literals(dtype, values)?)?;
                    Ok(Constant::Table(Table { keys, values: TableValues::None }))
                })?;
                self.emit(Instruction::IsIn(table, x.register), Kind::Bool)
            }
            _ => self.lookup(op, args, node),
        }
    }

    /// Hashes the values from left to right: each hash is the seed of the next.
    fn hash(&mut self, op: &str, args: &[Typed], node: &Map<String, Value>) -> Result<Typed> {
        count(op, args, 1, usize::MAX)?;
        let member = |name: &str, default: i64| match node.get(name) {
            None => Ok(default),
            Some(value) => value
                .as_i64()
                .filter(|value| *value >= 0)
                .ok_or_else(|| invalid(format!("'{op}' has the {name} {value}"), "give a whole number from 0 on")),
        };
        let buckets = u32::try_from(member("buckets", 1)?).ok().filter(|buckets| *buckets > 0);
        let Some(buckets) = buckets else {
            return Err(invalid(format!("'{op}' has 0 or too many buckets"), "give a number from 1 to 4294967295"));
        };
        let mut hash = self.literal_value(Literal::Int(member("seed", 0)?), Kind::Int)?;
        for index in 0..args.len() {
            let x = expect(op, args, index, args.len(), "a value that is not a list", |kind| !kind.is_list())?;
            hash = self.emit(Instruction::Hash(x.register, hash.register), Kind::Int)?;
        }
        if node.contains_key("buckets") {
            return self.emit(Instruction::HashBucket(buckets, hash.register), Kind::Int);
        }
        Ok(hash)
    }

    fn lookup(&mut self, op: &str, args: &[Typed], node: &Map<String, Value>) -> Result<Typed> {
        count(op, args, 1, 2)?;
        let (key_dtype, dtype) = (dtype_member(node, op, "key_dtype")?, dtype_of(node, op)?);
        let (x, key_kind) = self.key(op, args[0], key_dtype)?;
        if key_kind == Kind::Float {
            return Err(invalid(
                format!("{op}(args[0]): floats make poor keys"),
                "cast the key to an int or a string, or use bucketize",
            ));
        }
        let key_items = list_member(node, op, "keys", TABLE_ITEMS_MAX)?;
        let items = list_member(node, op, "values", TABLE_ITEMS_MAX)?;
        if key_items.len() != items.len() {
            return Err(invalid(
                format!("'{op}' has {} keys and {} values", key_items.len(), items.len()),
                "give one value for each key",
            ));
        }
        let default = match args.get(1) {
            Some(default) => *default,
            None => self.literal_value(Literal::Null, Kind::of(dtype))?,
        };
        let own = Typed { register: default.register, kind: Kind::of(dtype) };
        let kind = if own.kind == Kind::Int && default.kind == Kind::Float { Kind::Float } else { own.kind };
        let default = if kind == Kind::Float { self.widened(default)? } else { default };
        if default.kind != kind {
            return Err(invalid(
                format!("{op}: values of {} and a default of {} do not go together", own.kind, default.kind),
                "give the default the type of the values",
            ));
        }
        let written = format!("map {key_dtype} {dtype} {kind} {} {}", Value::from(key_items), Value::from(items));
        let table = self.constant(written, |builder| {
            let keys = keys(op, key_kind, &literals(key_dtype, key_items)?)?;
            let values = builder.table_values(op, kind, literals(dtype, items)?)?;
            Ok(Constant::Table(Table { keys, values }))
        })?;
        self.emit(Instruction::Lookup(table, x.register, default.register), kind)
    }

    fn table_values(&mut self, op: &str, kind: Kind, literals: Vec<Literal>) -> Result<TableValues> {
        let bools = |literal: &Literal| matches!(literal, Literal::Bool(true));
        Ok(match kind {
            Kind::Bool => TableValues::Bool(literals.iter().map(bools).collect()),
            Kind::Int | Kind::Timestamp => TableValues::Int(literals.iter().map(int_of).collect()),
            Kind::Float => TableValues::Float(literals.iter().map(float_of).collect()),
            Kind::String => {
                let first = self.literals.len() as u32;
                let numbers = (first..first + literals.len() as u32).collect();
                self.literals.extend(literals);
                TableValues::Text(numbers)
            }
            _ => return Err(invalid(format!("{op}: there are no constants of {kind}"), "use strings or numbers")),
        })
    }

    /// The value that is looked for, and the kind in which it is compared with keys of a type.
    fn key(&mut self, op: &str, x: Typed, dtype: DType) -> Result<(Typed, Kind)> {
        let keys = Kind::of(dtype);
        match (x.kind, keys) {
            (Kind::Float, Kind::Int | Kind::Float) => Ok((x, Kind::Float)),
            (Kind::Int, Kind::Float) => Ok((self.widened(x)?, Kind::Float)),
            (Kind::Int | Kind::Timestamp | Kind::String, keys) if x.kind == keys => Ok((x, keys)),
            (Kind::Bool, Kind::Bool) => Ok((self.emit(Instruction::BoolToInt(x.register), Kind::Int)?, Kind::Int)),
            (kind, keys) => Err(invalid(
                format!("{op}: {kind} and {keys} do not go together"),
                "cast the value to the type of the keys",
            )),
        }
    }
}

fn int_of(literal: &Literal) -> i64 {
    match literal {
        Literal::Int(value) => *value,
        Literal::Bool(value) => i64::from(*value),
        _ => 0,
    }
}

fn float_of(literal: &Literal) -> f64 {
    match literal {
        Literal::Int(value) => *value as f64,
        Literal::Float(value) => *value,
        _ => 0.0,
    }
}

/// Values of a type; none may be null.
fn literals(dtype: DType, items: &[Value]) -> Result<Vec<Literal>> {
    let literal = |(index, item): (usize, &Value)| match Literal::from_json(dtype, item) {
        Ok(Literal::Null) => Err(invalid(format!("item {index} is null"), "leave it out; null in gives null out")),
        other => other.map_err(|error| error.within(format!("item {index}"))),
    };
    items.iter().enumerate().map(literal).collect()
}

fn keys(op: &str, kind: Kind, literals: &[Literal]) -> Result<Keys> {
    let repeated = |index: usize| invalid(format!("'{op}' has the key {index} twice"), "give each key once");
    match kind {
        Kind::String => {
            let mut keys: AHashMap<Box<[u8]>, u32> = AHashMap::with_capacity(literals.len());
            for (index, literal) in literals.iter().enumerate() {
                let Literal::Text(text) = literal else { return Err(Error::internal("a key is no text")) };
                if keys.insert(text.clone(), index as u32).is_some() {
                    return Err(repeated(index));
                }
            }
            if keys.len() <= WALK_MAX {
                let mut few: Vec<(u32, Box<[u8]>)> = keys.into_iter().map(|(key, number)| (number, key)).collect();
                few.sort_unstable();
                return Ok(Keys::FewTexts(few.into_iter().map(|(_, key)| key).collect()));
            }
            Ok(Keys::Texts(keys))
        }
        Kind::Float => {
            let mut keys: Vec<f64> = literals.iter().map(float_of).filter(|key| !key.is_nan()).collect();
            keys.sort_by(f64::total_cmp);
            Ok(Keys::Floats(keys.into()))
        }
        _ => {
            let mut keys: Vec<(i64, u32)> = literals.iter().map(int_of).zip(0..).collect();
            keys.sort_unstable();
            match keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                Some(pair) => Err(repeated(pair[1].1 as usize)),
                None => Ok(Keys::Ints(keys.into())),
            }
        }
    }
}

fn ascending(items: &[Value]) -> Result<Box<[f64]>> {
    let boundaries: Vec<f64> = literals(DType::FLOAT64, items)?.iter().map(float_of).collect();
    if boundaries.is_empty() || !boundaries.is_sorted_by(|one, next| one < next) || boundaries[0].is_nan() {
        return Err(invalid(
            "the boundaries of 'bucketize' do not ascend",
            "give at least one, each larger than the one before, and no NaN",
        ));
    }
    Ok(boundaries.into())
}
