//! Parts of times, by the clocks of a zone or in UTC.

use headrace_types::{Error, Result};
use serde_json::{Map, Value};

use super::check::{expect, invalid};
use super::{ProgramBuilder, Typed};
use crate::constant::Constant;
use crate::kind::Kind;
use crate::names::did_you_mean;
use crate::ops::{ConstantId, Instruction, TimePart, TimeUnit};
use crate::zone::Zone;

const UNITS: [(&str, TimeUnit); 8] = [
    ("second", TimeUnit::Second),
    ("minute", TimeUnit::Minute),
    ("hour", TimeUnit::Hour),
    ("day", TimeUnit::Day),
    ("week", TimeUnit::Week),
    ("month", TimeUnit::Month),
    ("quarter", TimeUnit::Quarter),
    ("year", TimeUnit::Year),
];

impl ProgramBuilder {
    pub(super) fn time(&mut self, op: &str, args: &[Typed], node: &Map<String, Value>) -> Result<Typed> {
        let x = expect(op, args, 0, 1, "a timestamp", |kind| kind == Kind::Timestamp)?;
        if op == "epoch_seconds" {
            return self.emit(Instruction::EpochSeconds(x.register), Kind::Float);
        }
        let zone = self.zone(op, node)?;
        if op == "truncate" {
            let unit = unit(node)?;
            let instruction = match zone {
                None => Instruction::Truncate(unit, x.register),
                Some(zone) => Instruction::TruncateLocal(unit, zone, x.register),
            };
            return self.emit(instruction, Kind::Timestamp);
        }
        let part = time_part(op).ok_or_else(|| Error::internal(format!("'{op}' is no part of a time")))?;
        let time = match zone {
            None => x,
            Some(zone) => self.emit(Instruction::LocalTime(zone, x.register), Kind::Timestamp)?,
        };
        self.emit(Instruction::TimePart(part, time.register), Kind::Int)
    }

    /// The zone among the members; none for UTC, whose clocks need no table.
    fn zone(&mut self, op: &str, node: &Map<String, Value>) -> Result<Option<ConstantId>> {
        let Some(zone) = node.get("zone") else { return Ok(None) };
        let Some(name) = zone.as_str() else {
            return Err(invalid(format!("'{op}' has the zone {zone}"), "name a zone, such as \"Europe/Oslo\""));
        };
        if name == "UTC" {
            return Ok(None);
        }
        self.constant(format!("zone {name}"), |_| Ok(Constant::Zone(Zone::new(name)?))).map(Some)
    }
}

fn unit(node: &Map<String, Value>) -> Result<TimeUnit> {
    let name = node.get("unit").and_then(Value::as_str).unwrap_or_default();
    UNITS.iter().find(|(known, _)| *known == name).map(|(_, unit)| *unit).ok_or_else(|| {
        let known = UNITS.iter().map(|(known, _)| *known);
        invalid(format!("'truncate' has no unit '{name}'"), did_you_mean(name, "units", known))
    })
}

fn time_part(op: &str) -> Option<TimePart> {
    Some(match op {
        "year" => TimePart::Year,
        "quarter" => TimePart::Quarter,
        "month" => TimePart::Month,
        "week" => TimePart::Week,
        "day" => TimePart::Day,
        "hour" => TimePart::Hour,
        "minute" => TimePart::Minute,
        "second" => TimePart::Second,
        "microsecond" => TimePart::Microsecond,
        "day_of_week" => TimePart::DayOfWeek,
        "day_of_year" => TimePart::DayOfYear,
        "second_of_day" => TimePart::SecondOfDay,
        _ => return None,
    })
}
