//! Times over slices, with and without zones.

use super::calendar;
use crate::ops::{TimePart, TimeUnit};
use crate::zone::{Stretch, Zone};

#[inline]
pub(crate) fn part(part: TimePart, x: &[i64], out: &mut [i64]) {
    macro_rules! each {
        ($f:expr) => {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = $f(x);
            }
        };
    }
    match part {
        TimePart::Year => each!(calendar::year),
        TimePart::Quarter => each!(calendar::quarter),
        TimePart::Month => each!(calendar::month),
        TimePart::Week => each!(calendar::week),
        TimePart::Day => each!(calendar::day),
        TimePart::Hour => each!(calendar::hour),
        TimePart::Minute => each!(calendar::minute),
        TimePart::Second => each!(calendar::second),
        TimePart::Microsecond => each!(calendar::microsecond),
        TimePart::DayOfWeek => each!(calendar::day_of_week),
        TimePart::DayOfYear => each!(calendar::day_of_year),
        TimePart::SecondOfDay => each!(calendar::seconds),
    }
}

/// What the clocks of a zone show. Rows often follow each other in time, so the stretch of the row before is tried first.
#[inline]
pub(crate) fn local(zone: &Zone, x: &[i64], out: &mut [i64], valid: &mut [bool]) {
    let mut stretch = Stretch::EMPTY;
    for ((out, valid), &us) in out.iter_mut().zip(valid).zip(x) {
        if !stretch.holds(us) {
            stretch = zone.stretch(us);
        }
        let local = us.checked_add(stretch.offset_us);
        *valid &= local.is_some();
        *out = local.unwrap_or(0);
    }
}

/// Cuts a time by the clocks of a zone. Days and longer begin when the clocks first show their midnight; seconds, minutes and hours
/// are cut with the offset that is in force.
#[inline]
pub(crate) fn truncate_local(unit: TimeUnit, zone: &Zone, us: i64) -> Option<i64> {
    let local = zone.local(us)?;
    let start = calendar::truncate(unit, local)?;
    match unit {
        TimeUnit::Second | TimeUnit::Minute | TimeUnit::Hour => us.checked_sub(local - start),
        _ => zone.utc(start),
    }
}
