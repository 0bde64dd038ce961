//! Parts of a UTC time in the proleptic Gregorian calendar, for every `i64` of microseconds.

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

/// Year, month (1-12) and day (1-31). Counts years from March, so that the leap day is the last of a year, in eras of 400 years.
fn civil(us: i64) -> (i64, i64, i64) {
    let days = day_number(us) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
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
    const DAYS_BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let (year, month, day) = civil(us);
    let leap_day = i64::from(month > 2 && is_leap(year));
    DAYS_BEFORE_MONTH[usize::try_from(month - 1).expect("a month is 1 to 12")] + leap_day + day
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
