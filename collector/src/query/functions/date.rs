//! Parts of a time given as seconds since 1970, in UTC, of the Gregorian calendar in both directions.

/// A day's place in the calendar.
struct Date {
    year: i64,
    /// 1 to 12.
    month: i64,
    /// 1 to 31.
    day: i64,
}

/// Furthest second in either direction, some 30 million years: doubles tell every second apart, and sums fit.
const FURTHEST: f64 = 1e15;

const DAY: i64 = 86_400;

/// The whole second; NaN is none, nor is what lies too far away.
fn whole(seconds: f64) -> Option<i64> {
    (seconds.abs() <= FURTHEST).then_some(seconds as i64)
}

fn of_second(seconds: f64, part: impl Fn(i64) -> i64) -> f64 {
    whole(seconds).map_or(f64::NAN, |second| part(second) as f64)
}

fn of_date(seconds: f64, part: impl Fn(Date) -> i64) -> f64 {
    of_second(seconds, |second| part(date(second.div_euclid(DAY))))
}

/// The date of a day counted from 1970. Years begin in March here, so that the day that leap years add is their last; 400 of
/// them have always the same number of days.
fn date(days: i64) -> Date {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    // The first of March of the year 0.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 31, 30, 31, 30, 31 days, over and over: 153 in five.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = year + era * 400;
    if month < 10 { Date { year, month: month + 3, day } } else { Date { year: year + 1, month: month - 9, day } }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && year % 100 != 0 || year % 400 == 0
}

fn length(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

pub fn day_of_month(seconds: f64) -> f64 {
    of_date(seconds, |date| date.day)
}

/// Sunday is 0.
pub fn day_of_week(seconds: f64) -> f64 {
    // 1970 began on a Thursday.
    of_second(seconds, |second| (second.div_euclid(DAY) + 4).rem_euclid(7))
}

pub fn day_of_year(seconds: f64) -> f64 {
    of_date(seconds, |date| (1..date.month).map(|month| length(date.year, month)).sum::<i64>() + date.day)
}

pub fn days_in_month(seconds: f64) -> f64 {
    of_date(seconds, |date| length(date.year, date.month))
}

pub fn hour(seconds: f64) -> f64 {
    of_second(seconds, |second| second.rem_euclid(DAY) / 3600)
}

pub fn minute(seconds: f64) -> f64 {
    of_second(seconds, |second| second.rem_euclid(3600) / 60)
}

pub fn month(seconds: f64) -> f64 {
    of_date(seconds, |date| date.month)
}

pub fn year(seconds: f64) -> f64 {
    of_date(seconds, |date| date.year)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a library of calendars, over the years that it has.
        #[test]
        fn parts_are_those_of_the_calendar(second in -377_000_000_000i64..253_000_000_000) {
            let time = jiff::Timestamp::from_second(second).unwrap().to_zoned(jiff::tz::TimeZone::UTC).datetime();
            let at = second as f64;
            prop_assert_eq!(year(at), f64::from(time.year()));
            prop_assert_eq!(month(at), f64::from(time.month()));
            prop_assert_eq!(day_of_month(at), f64::from(time.day()));
            prop_assert_eq!(day_of_year(at), f64::from(time.day_of_year()));
            prop_assert_eq!(day_of_week(at), f64::from(time.weekday().to_sunday_zero_offset()));
            prop_assert_eq!(days_in_month(at), f64::from(time.days_in_month()));
            prop_assert_eq!((hour(at), minute(at)), (f64::from(time.hour()), f64::from(time.minute())));
        }
    }

    #[test]
    fn years_have_as_many_digits_as_they_need() {
        assert_eq!((year(1e12), year(-1e13)), (33_658.0, -314_918.0));
        assert!(year(f64::NAN).is_nan() && year(f64::INFINITY).is_nan());
    }
}
