//! Parameters of a request: from the URL, and from the body of a form.

use std::time::Duration;

use axum::Form;
use axum::extract::{FromRequest, Query, Request};
use axum::http::{Method, header};

use crate::query::{duration_text_ms, parse_selectors};
use crate::store::Matcher;

use super::reply::ApiError;

/// All parameters; those of the body come first, as in Go's `r.Form`.
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bad = |reason: String| ApiError::bad(format!("the parameters cannot be read: {reason}"));
        let Query(in_url) =
            Query::<Vec<(String, String)>>::try_from_uri(request.uri()).map_err(|error| bad(error.to_string()))?;
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
        let mut all = Vec::new();
        if matches!(*request.method(), Method::POST | Method::PUT) && is_form {
            let form = Form::<Vec<(String, String)>>::from_request(request, state).await;
            all = form.map_err(|error| bad(error.to_string()))?.0;
        }
        all.extend(in_url);
        Ok(Self(all))
    }
}

impl Params {
    /// The first value; an empty one counts as missing.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn time(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name).map(|text| time(text).map_err(|reason| invalid(name, &reason))).transpose()
    }

    pub fn required_time(&self, name: &str) -> Result<i64, ApiError> {
        time(self.get(name).unwrap_or_default()).map_err(|reason| invalid(name, &reason))
    }

    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let Some(ms) = self.get(name).map(|text| duration_ms(text).map_err(|r| invalid(name, &r))).transpose()? else {
            return Ok(None);
        };
        let ms = u64::try_from(ms).map_err(|_| invalid(name, "the duration must not be negative"))?;
        Ok(Some(Duration::from_millis(ms)))
    }

    /// Milliseconds, which may be negative.
    pub fn required_duration_ms(&self, name: &str) -> Result<i64, ApiError> {
        duration_ms(self.get(name).unwrap_or_default()).map_err(|reason| invalid(name, &reason))
    }

    /// How many results at most; 0 or none is no limit.
    pub fn limit(&self) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(None) };
        let limit: i64 = text.parse().map_err(|_| invalid("limit", &format!("{text:?} is not a whole number")))?;
        let limit = usize::try_from(limit).map_err(|_| invalid("limit", "limit must be non-negative"))?;
        Ok(Some(limit).filter(|limit| *limit > 0))
    }

    /// The selectors of `match[]`: series that meet any of the lists.
    pub async fn matchers(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let texts: Vec<String> = self.all("match[]").map(str::to_owned).collect();
        let is_short = texts.iter().map(String::len).sum::<usize>() <= QUICK_BYTES;
        // Patterns have a tilde before them.
        let is_quick = is_short && !texts.iter().any(|text| text.contains('~'));
        let parse = move || {
            let selectors = parse_selectors(texts.iter().map(String::as_str));
            selectors.map_err(|(_, error)| invalid("match[]", &error.to_string()))
        };
        if is_quick { parse() } else { away(parse).await }
    }
}

/// Selectors of so many bytes, without a pattern, are parsed in less time than it takes to wake another thread.
const QUICK_BYTES: usize = 256;

/// Parses where it holds nobody up: making patterns ready may take a while.
pub async fn away<T: Send + 'static>(
    parse: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let parsed = tokio::task::spawn_blocking(parse).await;
    parsed.map_err(|error| ApiError::internal(format!("the parser ended early: {error}")))?
}

/// `invalid parameter "step": ...`
pub fn invalid(name: &str, reason: &str) -> ApiError {
    ApiError::bad(format!("invalid parameter {name:?}: {reason}"))
}

/// Furthest time from 1970 in either direction, so that adding ranges to it cannot overflow.
const FURTHEST_MS: i64 = i64::MAX / 4;

/// Seconds since 1970 as a number, or RFC 3339. Milliseconds.
fn time(text: &str) -> Result<i64, String> {
    // Go's smallest and largest time, which clients send for "from the beginning" and "to the end".
    match text {
        "-292273086-05-16T16:47:06Z" => return Ok(-FURTHEST_MS),
        "292277025-08-18T07:12:54.999999999Z" => return Ok(FURTHEST_MS),
        _ => {}
    }
    let trouble = || format!("cannot parse {text:?} to a valid timestamp");
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        return if ms.is_nan() { Err(trouble()) } else { Ok((ms as i64).clamp(-FURTHEST_MS, FURTHEST_MS)) };
    }
    text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond).map_err(|_| trouble())
}

/// Seconds as a number, or `1h30m`. Milliseconds.
pub(super) fn duration_ms(text: &str) -> Result<i64, String> {
    let trouble = || format!("cannot parse {text:?} to a valid duration");
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        return if ms.abs() < FURTHEST_MS as f64 { Ok(ms as i64) } else { Err(trouble()) };
    }
    if text.is_empty() { Err(trouble()) } else { duration_text_ms(text).map_err(|_| trouble()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        assert_eq!(time("1.5"), Ok(1500));
        assert_eq!(time("1970-01-01T02:01:00.5+01:00"), Ok(3_660_500));
        assert!(time("bad").is_err() && time("NaN").is_err() && time("").is_err());
        assert_eq!(duration_ms("0.25"), Ok(250));
        assert_eq!(duration_ms("1h30m"), Ok(5_400_000));
        assert_eq!(duration_ms("5ms"), Ok(5));
        for bad in ["", "bad", "5m1h", "m5", "1.5h", "99999999999y"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }
}
