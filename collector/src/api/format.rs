//! Which of the text formats a reader of `/metrics` or `/federate` wants.
//!
//! Source: the `Accept` header. The highest `q` wins, of equal ones the first; `*/*`, anything unknown, and no header at
//! all mean the text format 0.0.4. Prometheus' protobuf is not written: its readers name text as well.

use axum::http::{HeaderMap, HeaderValue, header};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    pub fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = accepted.flat_map(|value| value.split(','));
        let mut best = (Self::Text, 0.0);
        for (format, quality) in ranges.filter_map(read) {
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }

    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// One media range and its quality, if it is one that can be served.
fn read(range: &str) -> Option<(Format, f64)> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?;
    let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
    let of = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known.trim().eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().trim_matches('"'))
    };
    let quality = of("q").map_or(Some(1.0), |q| q.parse().ok())?;
    let format = match (kind.to_ascii_lowercase().as_str(), of("version")) {
        // Readers of the draft 0.0.1 read 1.0 too, and say so by naming both.
        ("application/openmetrics-text", None | Some("1.0.0")) => Format::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => Format::Text,
        _ => return None,
    };
    Some((format, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_what_is_accepted_is_served() {
        let wanted = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Format::wanted(&headers)
        };
        assert_eq!(Format::wanted(&HeaderMap::new()), Format::Text);
        assert_eq!(wanted("application/openmetrics-text"), Format::OpenMetrics);
        assert_eq!(
            wanted("text/plain;q=0.5,application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.1"),
            Format::OpenMetrics
        );
        assert_eq!(wanted("text/plain, application/openmetrics-text; version=1.0.0"), Format::Text);
        assert_eq!(wanted("application/openmetrics-text; version=2.0.0, text/html"), Format::Text);
        assert_eq!(wanted("application/openmetrics-text; q=no"), Format::Text);
    }
}
