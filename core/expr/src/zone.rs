//! Time zones as tables of offsets, made once from the database that is compiled into the engine, so that every process has the same.

use headrace_types::{Error, ErrorCode, Result};
use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;

use crate::names::did_you_mean;

const US_PER_SECOND: i64 = 1_000_000;
/// The Gregorian calendar repeats after 400 years, weekdays included, and so do the rules of zones that are in force at the end.
const US_PER_400_YEARS: i64 = 146_097 * 86_400 * US_PER_SECOND;
/// 2500-01-01T00:00:00Z. Every rule that the database knows by its date is more than 400 years older.
const TABLE_END_US: i64 = 16_725_225_600 * US_PER_SECOND;

/// The clocks of a zone for every `i64` of microseconds.
#[derive(Debug)]
pub(crate) struct Zone {
    /// When an offset begins, in UTC; the first is that of all time before.
    starts_us: Box<[i64]>,
    /// Microseconds east of UTC.
    offsets_us: Box<[i64]>,
}

/// A stretch of UTC in which the offset is the same: both ends, the second exclusive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) from_us: i64,
    pub(crate) until_us: i64,
    pub(crate) offset_us: i64,
}

impl Stretch {
    /// Holds no time.
    pub(crate) const EMPTY: Self = Self { from_us: 0, until_us: 0, offset_us: 0 };

    pub(crate) fn holds(&self, us: i64) -> bool {
        self.from_us <= us && us < self.until_us
    }
}

impl Zone {
    /// # Errors
    /// `invalid_expression` for a name that is not in the IANA database.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let database = TimeZoneDatabase::bundled();
        let zone = database.get(name).map_err(|_| {
            let names: Vec<String> = database.available().map(|name| name.to_string()).collect();
            Error::new(
                ErrorCode::InvalidExpression,
                format!("there is no time zone '{name}'"),
                did_you_mean(name, "time zones", names.iter().map(String::as_str)),
            )
        })?;
        let first = zone.to_offset(Timestamp::MIN);
        let (mut starts_us, mut offsets_us) = (vec![i64::MIN], vec![i64::from(first.seconds()) * US_PER_SECOND]);
        for transition in zone.following(Timestamp::MIN) {
            let start_us = transition.timestamp().as_microsecond();
            if start_us >= TABLE_END_US {
                break;
            }
            let offset_us = i64::from(transition.offset().seconds()) * US_PER_SECOND;
            if offsets_us.last() != Some(&offset_us) {
                starts_us.push(start_us);
                offsets_us.push(offset_us);
            }
        }
        Ok(Self { starts_us: starts_us.into(), offsets_us: offsets_us.into() })
    }

    /// The stretch that a time lies in.
    pub(crate) fn stretch(&self, us: i64) -> Stretch {
        let shift_us = shift_into_table(us);
        let index = self.starts_us.partition_point(|&start| start <= us - shift_us) - 1;
        let end_us = self.starts_us.get(index + 1).map_or(TABLE_END_US, |&start| start.min(TABLE_END_US));
        // Across the table's end nothing is said about the next stretch, and none begins before this one's cycle.
        let from_us = if shift_us > 0 {
            self.starts_us[index].max(TABLE_END_US - US_PER_400_YEARS)
        } else {
            self.starts_us[index]
        };
        Stretch {
            from_us: from_us.saturating_add(shift_us),
            until_us: end_us.saturating_add(shift_us),
            offset_us: self.offsets_us[index],
        }
    }

    /// What the zone's clocks show at a UTC time; `None` where that is outside the `i64`s.
    pub(crate) fn local(&self, us: i64) -> Option<i64> {
        us.checked_add(self.stretch(us).offset_us)
    }

    /// The UTC time at which the clocks show a time: the first if they show it twice. A time that they jump over counts with the
    /// offset before the jump.
    pub(crate) fn utc(&self, local_us: i64) -> Option<i64> {
        let shift_us = shift_into_table(local_us);
        let wanted_us = local_us - shift_us;
        // The offset of a stretch counts from when both it and the one before have passed.
        let passed = self.starts_us.partition_point(|&start| start.saturating_add(MARGIN_US) <= wanted_us);
        let mut index = passed.saturating_sub(1);
        while let Some(&start_us) = self.starts_us.get(index + 1) {
            if wanted_us < start_us + self.offsets_us[index].max(self.offsets_us[index + 1]) {
                break;
            }
            index += 1;
        }
        local_us.checked_sub(self.offsets_us[index])
    }
}

/// More than any offset.
const MARGIN_US: i64 = 2 * 86_400 * US_PER_SECOND;

/// The whole cycles of 400 years to take off, so that a time lies before the end of the table.
fn shift_into_table(us: i64) -> i64 {
    if us < TABLE_END_US { 0 } else { ((us - TABLE_END_US) / US_PER_400_YEARS + 1) * US_PER_400_YEARS }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR_US: i64 = 3_600 * US_PER_SECOND;

    #[test]
    fn clocks_of_oslo() {
        let oslo = Zone::new("Europe/Oslo").unwrap();
        let winter = 1_357_021_800 * US_PER_SECOND; // 2013-01-01T06:30:00Z
        let summer = 1_372_660_200 * US_PER_SECOND; // 2013-07-01T06:30:00Z
        assert_eq!(oslo.local(winter), Some(winter + HOUR_US));
        assert_eq!(oslo.local(summer), Some(summer + 2 * HOUR_US));
        assert_eq!(oslo.utc(summer + 2 * HOUR_US), Some(summer));
        // 2013-03-31T01:00:00Z the clocks jump from 02:00 to 03:00; 2013-10-27T01:00:00Z they go back from 03:00 to 02:00.
        let (jump, back) = (1_364_691_600 * US_PER_SECOND, 1_382_835_600 * US_PER_SECOND);
        assert_eq!(oslo.utc(jump + HOUR_US + HOUR_US / 2), Some(jump + HOUR_US / 2));
        assert_eq!(oslo.utc(back + HOUR_US + HOUR_US / 2), Some(back - HOUR_US / 2));
    }

    #[test]
    fn every_time_has_an_offset_and_stretches_agree_with_it() {
        for name in ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"] {
            let zone = Zone::new(name).unwrap();
            for us in [i64::MIN, i64::MIN + 1, -1, 0, TABLE_END_US - 1, TABLE_END_US, TABLE_END_US * 10, i64::MAX] {
                let stretch = zone.stretch(us);
                assert!(stretch.holds(us) || us == i64::MAX, "{name} {us} {stretch:?}");
                assert_eq!(zone.stretch(stretch.from_us).offset_us, stretch.offset_us);
                zone.local(us);
                zone.utc(us);
            }
            let (now, later) = (1_372_660_200 * US_PER_SECOND, 1_372_660_200 * US_PER_SECOND + 5 * US_PER_400_YEARS);
            assert_eq!(zone.stretch(later).offset_us, zone.stretch(now + US_PER_400_YEARS).offset_us);
        }
    }

    #[test]
    fn an_unknown_zone_is_refused_with_a_suggestion() {
        let error = Zone::new("Europe/Olso").unwrap_err();
        assert!(error.hint.contains("Europe/Oslo"), "{}", error.hint);
    }
}
