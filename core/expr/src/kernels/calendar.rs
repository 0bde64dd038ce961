//! Parts of a time without a zone in the proleptic Gregorian calendar, for every `i64` of microseconds.

use headrace_types::civil_from_days;

use crate::ops::TimeUnit;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// 1970-01-01 was a Thursday; Monday is 0.
const WEEKDAY_OF_EPOCH: i64 = 3;

fn day_number(us: i64) -> i64 {
    us.div_euclid(MICROS_PER_DAY)
}

fn second_of_day(us: i64) -> i64 {
    us.rem_euclid(MICROS_PER_DAY) / MICROS_PER_SECOND
}

fn civil(us: i64) -> (i64, i64, i64) {
    civil_from_days(day_number(us))
}

fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

pub(crate) fn year(us: i64) -> i64 {
    civil(us).0
}

pub(crate) fn month(us: i64) -> i64 {
    civil(us).1
}

pub(crate) fn day(us: i64) -> i64 {
    civil(us).2
}

pub(crate) fn hour(us: i64) -> i64 {
    second_of_day(us) / 3_600
}

pub(crate) fn minute(us: i64) -> i64 {
    second_of_day(us) / 60 % 60
}

pub(crate) fn second(us: i64) -> i64 {
    second_of_day(us) % 60
}

pub(crate) fn day_of_week(us: i64) -> i64 {
    (day_number(us) + WEEKDAY_OF_EPOCH).rem_euclid(7)
}

pub(crate) fn day_of_year(us: i64) -> i64 {
    let (year, month, day) = civil(us);
    day_in_year(year, month, day)
}

fn day_in_year(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_day = i64::from(month > 2 && is_leap(year));
    DAYS_BEFORE_MONTH[usize::try_from(month - 1).expect("a month is 1 to 12")] + leap_day + day
}

pub(crate) fn quarter(us: i64) -> i64 {
    (month(us) + 2) / 3
}

pub(crate) fn microsecond(us: i64) -> i64 {
    us.rem_euclid(MICROS_PER_SECOND)
}

pub(crate) fn seconds(us: i64) -> i64 {
    second_of_day(us)
}

/// The week of ISO 8601: a week belongs to the year of its Thursday.
pub(crate) fn week(us: i64) -> i64 {
    let thursday = day_number(us) - day_of_week(us) + 3;
    let (year, month, day) = civil_from_days(thursday);
    (day_in_year(year, month, day) - 1) / 7 + 1
}

/// The begin of the second, minute, ... that a time lies in; weeks begin on Monday. `None` where it is before the `i64`s.
pub(crate) fn truncate(unit: TimeUnit, us: i64) -> Option<i64> {
    let floor = |width: i64| us.checked_sub(us.rem_euclid(width));
    match unit {
        TimeUnit::Second => floor(MICROS_PER_SECOND),
        TimeUnit::Minute => floor(60 * MICROS_PER_SECOND),
        TimeUnit::Hour => floor(3_600 * MICROS_PER_SECOND),
        TimeUnit::Day => floor(MICROS_PER_DAY),
        _ => {
            let (year, month, day) = civil(us);
            let days_back = match unit {
                TimeUnit::Week => day_of_week(us),
                TimeUnit::Month => day - 1,
                TimeUnit::Quarter => day_in_year(year, month, day) - day_in_year(year, (month - 1) / 3 * 3 + 1, 1),
                _ => day_in_year(year, month, day) - 1,
            };
            (day_number(us) - days_back).checked_mul(MICROS_PER_DAY)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(us: i64) -> [i64; 8] {
        [year(us), month(us), day(us), hour(us), minute(us), second(us), day_of_week(us), day_of_year(us)]
    }

    #[test]
    fn known_times() {
        assert_eq!(parts(0), [1970, 1, 1, 0, 0, 0, 3, 1]);
        assert_eq!(parts(-1), [1969, 12, 31, 23, 59, 59, 2, 365]);
        // 2000-02-29T12:34:56.789Z, a Tuesday
        assert_eq!(parts(951_827_696_789_000), [2000, 2, 29, 12, 34, 56, 1, 60]);
        // 2013-12-31T23:59:59Z, a Tuesday
        assert_eq!(parts(1_388_534_399_000_000), [2013, 12, 31, 23, 59, 59, 1, 365]);
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        assert_eq!(year(i64::MAX), 294_247);
        assert_eq!(year(i64::MIN), -290_308);
        assert_eq!(day_of_year(i64::MAX), 10);
    }

    #[test]
    fn days_follow_each_other() {
        let mut before = civil(-400 * 366 * MICROS_PER_DAY);
        for number in -400 * 366 + 1..400 * 366 {
            let us = number * MICROS_PER_DAY;
            let now = civil(us);
            let next_day = now.0 == before.0 && now.1 == before.1 && now.2 == before.2 + 1;
            let next_month = now.2 == 1 && (now.1 == before.1 % 12 + 1);
            assert!(next_day || next_month, "{before:?} then {now:?}");
            before = now;
        }
    }
}
