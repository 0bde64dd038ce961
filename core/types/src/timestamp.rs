//! RFC 3339 text to microseconds UTC and back: requests and expressions may read a time from text, and answers always write it.

use crate::{Error, ErrorCode, Result, TimestampUs};

const US_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Parses `2013-01-31T10:00:00Z`, with an offset instead of `Z`, a space instead of `T`, a fraction of any length (cut to
/// microseconds), or a date alone. A time without a zone is UTC.
///
/// # Errors
/// `type_mismatch` quoting the text.
pub fn parse_timestamp(text: &str) -> Result<TimestampUs> {
    timestamp_of_text(text.as_bytes()).ok_or_else(|| {
        Error::new(
            ErrorCode::TypeMismatch,
            format!("'{}' is not a timestamp", text.chars().take(40).collect::<String>()),
            "send RFC 3339 text such as 2013-01-31T10:00:00Z",
        )
    })
}

/// As [`parse_timestamp`], without an error to say what was wrong.
pub fn timestamp_of_text(text: &[u8]) -> Option<TimestampUs> {
    let mut reader = Reader { rest: text };
    let year = i64::from(reader.digits(4)?);
    reader.expect(b'-')?;
    let month = reader.digits(2)?;
    reader.expect(b'-')?;
    let day = reader.digits(2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let day_us = days_from_civil(year, month, day).checked_mul(SECONDS_PER_DAY * US_PER_SECOND)?;
    if reader.rest.is_empty() {
        return Some(day_us);
    }
    if !matches!(reader.next()?, b'T' | b't' | b' ') {
        return None;
    }
    let hour = reader.digits(2)?;
    reader.expect(b':')?;
    let minute = reader.digits(2)?;
    let second = if reader.rest.first() == Some(&b':') {
        reader.expect(b':')?;
        reader.digits(2)?
    } else {
        0
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction_us = reader.fraction()?;
    let offset_s = reader.zone()?;
    let clock_s = i64::from(hour * 3600 + minute * 60 + second) - offset_s;
    day_us.checked_add(clock_s * US_PER_SECOND)?.checked_add(fraction_us)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let mut number = 0;
        for _ in 0..count {
            let digit = self.next()?;
            if !digit.is_ascii_digit() {
                return None;
            }
            number = number * 10 + u32::from(digit - b'0');
        }
        Some(number)
    }

    fn fraction(&mut self) -> Option<i64> {
        if self.rest.first() != Some(&b'.') {
            return Some(0);
        }
        self.expect(b'.')?;
        let (mut us, mut unit, mut count) = (0, 100_000, 0);
        while let Some(digit) = self.rest.first().filter(|byte| byte.is_ascii_digit()) {
            us += i64::from(digit - b'0') * unit;
            unit /= 10;
            count += 1;
            self.rest = &self.rest[1..];
        }
        (count > 0).then_some(us)
    }

    /// Seconds east of UTC.
    fn zone(&mut self) -> Option<i64> {
        let sign = match self.rest.first() {
            None => return Some(0),
            Some(b'Z' | b'z') => {
                self.rest = &self.rest[1..];
                return self.rest.is_empty().then_some(0);
            }
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => return None,
        };
        self.rest = &self.rest[1..];
        let hour = self.digits(2)?;
        if self.rest.first() == Some(&b':') {
            self.expect(b':')?;
        }
        let minute = self.digits(2)?;
        (self.rest.is_empty() && hour < 24 && minute < 60).then(|| sign * i64::from(hour * 3600 + minute * 60))
    }
}

/// RFC 3339 in UTC with as many fraction digits (0, 3 or 6) as the value needs.
pub fn format_timestamp(us: TimestampUs) -> String {
    let seconds = us.div_euclid(US_PER_SECOND);
    let fraction = us.rem_euclid(US_PER_SECOND);
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
    let clock = seconds.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let fraction = match fraction {
        0 => String::new(),
        us if us % 1000 == 0 => format!(".{:03}", us / 1000),
        us => format!(".{us:06}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted in 400-year eras that begin in March.
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month (1-12) and day (1-31) of a number of days since 1970-01-01, as [`days_from_civil`] counts them.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_same_moment_in_every_accepted_form() {
        let expected = 1_359_626_400_000_000;
        for text in [
            "2013-01-31T10:00:00Z",
            "2013-01-31t10:00:00z",
            "2013-01-31 10:00:00",
            "2013-01-31T10:00",
            "2013-01-31T10:00:00.000000000Z",
            "2013-01-31T05:00:00-05:00",
            "2013-01-31T15:30:00+0530",
        ] {
            assert_eq!(parse_timestamp(text).unwrap(), expected, "{text}");
        }
        assert_eq!(parse_timestamp("1970-01-01").unwrap(), 0);
        assert_eq!(parse_timestamp("1969-12-31T23:59:59.999999Z").unwrap(), -1);
    }

    #[test]
    fn anything_else_is_refused_and_quoted() {
        for text in [
            "",
            "now",
            "2013",
            "2013-13-01",
            "2013-02-29",
            "2013-01-00",
            "2013-01-31T24:00:00Z",
            "2013-01-31T10:60:00Z",
            "2013-01-31T10:00:00.Z",
            "2013-01-31T10:00:00Zx",
            "2013-01-31T10:00:00+25:00",
            "2013-01-31T10:00:00é",
            "2013-01-31X10:00:00Z",
        ] {
            let error = parse_timestamp(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::TypeMismatch, "{text}");
            assert!(error.message.contains(text), "{text}");
        }
    }

    #[test]
    fn text_survives_a_round_trip() {
        for us in [
            0,
            -1,
            1,
            1_000,
            1_359_626_400_000_000,
            951_782_400_000_000,
            -62_135_596_800_000_000,
            253_402_300_799_999_999,
        ] {
            assert_eq!(parse_timestamp(&format_timestamp(us)).unwrap(), us);
        }
        assert_eq!(format_timestamp(1_500_000), "1970-01-01T00:00:01.500Z");
        assert_eq!(format_timestamp(951_782_400_000_000), "2000-02-29T00:00:00Z");
    }
}
