//! Numbers out of the server's texts, by mysqld_exporter's rules, so that the same variable has the same value.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use lampad_proto::Number;

/// The value of a status variable, a system variable or a column; `None` where it does not read as a number.
///
/// ON and YES are 1; OFF, NO, DISABLED and Connecting (a replica's thread that does not run yet) are 0; Galera's Primary is
/// 1, its other cluster states are 0; points in time are seconds since 1970.
pub fn number(text: &str) -> Option<Number> {
    // Nearly all are numbers, and a counter of 64 bits is told to the last digit.
    if let Some(number) = Number::parse(text) {
        return Some(number);
    }
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("on") || is("yes") || is("primary") {
        return Some(Number::Float(1.0));
    }
    if is("off") || is("no") || is("disabled") || is("connecting") || is("non-primary") || is("disconnected") {
        return Some(Number::Float(0.0));
    }
    point_in_time(text).map(Number::Float)
}

/// `Jul 28 11:12:13 2034 GMT`, as OpenSSL writes, or `2034-07-28 11:12:13`; both as UTC.
fn point_in_time(text: &str) -> Option<f64> {
    // Most texts are no times; their length tells before the parser has to.
    if !(19..=25).contains(&text.len()) || text.bytes().filter(|byte| *byte == b':').count() != 2 {
        return None;
    }
    let civil = match text.strip_suffix(" GMT").or_else(|| text.strip_suffix(" UTC")) {
        Some(openssl) => DateTime::strptime("%b %e %H:%M:%S %Y", openssl).ok()?,
        None => DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?,
    };
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second() as f64)
}

/// The metric's part of a variable's name: lower case, everything but letters, digits and `_` replaced.
pub fn metric_name(variable: &str) -> String {
    variable.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_texts() {
        let table = [
            ("12", Some(12.0)),
            ("0.500000", Some(0.5)),
            ("-1", Some(-1.0)),
            ("ON", Some(1.0)),
            ("Yes", Some(1.0)),
            ("NO", Some(0.0)),
            ("OFF", Some(0.0)),
            ("DISABLED", Some(0.0)),
            ("Connecting", Some(0.0)),
            ("Primary", Some(1.0)),
            ("non-Primary", Some(0.0)),
            ("Disconnected", Some(0.0)),
            ("Jul 28 11:12:13 2034 GMT", Some(2037697933.0)),
            ("Jul  8 11:12:13 2034 GMT", Some(2035969933.0)),
            ("2034-07-28 11:12:13", Some(2037697933.0)),
            ("2034-07-28 11:12:99", None),
            ("", None),
            ("ROW", None),
            ("10.11.19-MariaDB", None),
            ("mysql-bin.000012", None),
            ("/var/lib/mysql/", None),
        ];
        for (text, expected) in table {
            assert_eq!(number(text), expected.map(Number::Float), "{text:?}");
        }
    }

    #[test]
    fn counters_of_64_bits_keep_their_last_digit() {
        for text in ["9007199254740993", "123456789012345679", "18446744073709551615", "-9223372036854775807"] {
            let Some(Number::Integer(value)) = number(text) else { panic!("{text}") };
            assert_eq!(value.to_string(), text);
        }
    }

    #[test]
    fn names() {
        assert_eq!(metric_name("Innodb_OS.log-written"), "innodb_os_log_written");
    }
}
