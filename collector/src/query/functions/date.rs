//! Parts of a time given as seconds since 1970, in UTC. NaN for what is no time of the years -9999 to 9999.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

fn with(seconds: f64, part: impl Fn(DateTime) -> f64) -> f64 {
    if !seconds.is_finite() {
        return f64::NAN;
    }
    match jiff::Timestamp::from_second(seconds as i64) {
        Ok(time) => part(time.to_zoned(TimeZone::UTC).datetime()),
        Err(_) => f64::NAN,
    }
}

pub fn day_of_month(seconds: f64) -> f64 {
    with(seconds, |time| f64::from(time.day()))
}

/// Sunday is 0.
pub fn day_of_week(seconds: f64) -> f64 {
    with(seconds, |time| f64::from(time.weekday().to_sunday_zero_offset()))
}

pub fn day_of_year(seconds: f64) -> f64 {
    with(seconds, |time| f64::from(time.day_of_year()))
}

pub fn days_in_month(seconds: f64) -> f64 {
    with(seconds, |time| f64::from(time.days_in_month()))
}

pub fn hour(seconds: f64) -> f64 {
    with(seconds, |time| f64::from(time.hour()))
}

pub fn minute(seconds: f64) -> f64 {
    with(seconds, |time| f64::from(time.minute()))
}

pub fn month(seconds: f64) -> f64 {
    with(seconds, |time| f64::from(time.month()))
}

pub fn year(seconds: f64) -> f64 {
    with(seconds, |time| f64::from(time.year()))
}
