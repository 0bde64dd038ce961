//! Conversions: those that a field or an operation makes by itself, and `cast`, which makes all.

use headrace_types::{DType, Result, ScalarType};

use super::check::no_cast;
use super::{ProgramBuilder, Typed};
use crate::kind::{Kind, int_range};
use crate::ops::{Element, FloatUnary, Instruction};

impl ProgramBuilder {
    /// The conversion to a field's type, which never reads or writes text: numbers and bools to numbers, ints and timestamps to each
    /// other, lists to lists.
    pub(super) fn convert(&mut self, x: Typed, dtype: DType) -> Result<Typed> {
        let target = Kind::of(dtype);
        match (x.kind, target) {
            (from, to) if from.is_list() || to.is_list() => self.convert_list(x, dtype),
            (Kind::Int | Kind::Float | Kind::Bool, Kind::Float) => {
                let x = self.as_int(x)?;
                let x = self.widened(x)?;
                if dtype == DType::FLOAT32 {
                    return self.emit(Instruction::FloatUnary(FloatUnary::ToFloat32, x.register), Kind::Float);
                }
                Ok(x)
            }
            (Kind::Int | Kind::Float | Kind::Bool | Kind::Timestamp, Kind::Int) => {
                let x = match x.kind {
                    Kind::Float => self.emit(Instruction::FloatToInt(x.register), Kind::Int)?,
                    _ => self.as_int(x)?,
                };
                match int_range(dtype.element()) {
                    None | Some((i64::MIN, i64::MAX)) => Ok(x),
                    Some((low, high)) => self.emit(Instruction::IntWithin(x.register, low, high), Kind::Int),
                }
            }
            (Kind::Int, Kind::Timestamp) => Ok(Typed { register: x.register, kind: Kind::Timestamp }),
            (from, to) if from == to => Ok(x),
            _ => Err(no_cast(x.kind, dtype)),
        }
    }

    /// A bool as 0 or 1, a timestamp as microseconds; others stay.
    fn as_int(&mut self, x: Typed) -> Result<Typed> {
        match x.kind {
            Kind::Bool => self.emit(Instruction::BoolToInt(x.register), Kind::Int),
            Kind::Timestamp => Ok(Typed { register: x.register, kind: Kind::Int }),
            _ => Ok(x),
        }
    }

    fn convert_list(&mut self, x: Typed, dtype: DType) -> Result<Typed> {
        let target = Kind::of(dtype);
        let change = match (x.kind, target, dtype.element()) {
            (Kind::IntList, Kind::FloatList, ScalarType::Float64) => Element::IntToFloat,
            (Kind::IntList, Kind::FloatList, _) => {
                let floats = self.emit(Instruction::ListElements(Element::IntToFloat, x.register), Kind::FloatList)?;
                return self.emit(Instruction::ListElements(Element::ToFloat32, floats.register), Kind::FloatList);
            }
            (Kind::FloatList, Kind::FloatList, ScalarType::Float32) => Element::ToFloat32,
            (Kind::IntList, Kind::IntList, element) if element != ScalarType::Int64 => {
                let (low, high) = int_range(element).unwrap_or((i64::MIN, i64::MAX));
                Element::IntWithin(low, high)
            }
            (from, to, _) if from == to => return Ok(x),
            _ => return Err(no_cast(x.kind, dtype)),
        };
        self.emit(Instruction::ListElements(change, x.register), target)
    }

    /// The conversion that an expression asks for: also from and to text, to bool, and between timestamps and floats.
    pub(super) fn cast(&mut self, x: Typed, dtype: DType) -> Result<Typed> {
        let parsed = |instruction: Instruction, kind| (instruction, kind);
        let (instruction, kind) = match (x.kind, Kind::of(dtype)) {
            (Kind::String, Kind::Bool) => parsed(Instruction::ParseBool(x.register), Kind::Bool),
            (Kind::String, Kind::Int) => parsed(Instruction::ParseInt(x.register), Kind::Int),
            (Kind::String, Kind::Float) => parsed(Instruction::ParseFloat(x.register), Kind::Float),
            (Kind::String, Kind::Timestamp) => parsed(Instruction::ParseTime(x.register), Kind::Timestamp),
            (Kind::String, Kind::Bytes) => return Ok(Typed { register: x.register, kind: Kind::Bytes }),
            (Kind::Bytes, Kind::String) => parsed(Instruction::BytesToText(x.register), Kind::String),
            (Kind::Bool, Kind::String) => parsed(Instruction::BoolToText(x.register), Kind::String),
            (Kind::Int, Kind::String) => parsed(Instruction::IntToText(x.register), Kind::String),
            (Kind::Float, Kind::String) => parsed(Instruction::FloatToText(x.register), Kind::String),
            (Kind::Timestamp, Kind::String) => parsed(Instruction::TimeToText(x.register), Kind::String),
            (Kind::Int, Kind::Bool) => parsed(Instruction::IntToBool(x.register), Kind::Bool),
            (Kind::Float, Kind::Bool) => parsed(Instruction::FloatToBool(x.register), Kind::Bool),
            (Kind::Float, Kind::Timestamp) => parsed(Instruction::FloatToInt(x.register), Kind::Timestamp),
            (Kind::Timestamp, Kind::Float) => {
                let int = self.as_int(x)?;
                return self.convert(int, dtype);
            }
            _ => return self.convert(x, dtype),
        };
        let value = self.emit(instruction, kind)?;
        self.convert(value, dtype)
    }
}
