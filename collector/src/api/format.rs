//! Which format a reader of `/metrics` or `/federate` wants.
//!
//! Source: the `Accept` header. The highest `q` wins, of equal ones the first; `*/*`, anything unknown, and no header at
//! all mean the text format 0.0.4.

use axum::http::{HeaderMap, HeaderValue, header};

use super::escape::Escaping;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' protobuf, the only one that carries native histograms.
    Protobuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    pub syntax: Syntax,
    pub escaping: Escaping,
}

impl Format {
    /// What readers get that ask for nothing.
    pub const TEXT: Self = Self { syntax: Syntax::Text, escaping: Escaping::Underscores };

    pub fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = accepted.flat_map(|value| value.split(','));
        let mut best = (Self::TEXT, 0.0);
        for (format, quality) in ranges.filter_map(read) {
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }

    pub fn content_type(self) -> HeaderValue {
        let syntax = match self.syntax {
            Syntax::Text => "text/plain; version=0.0.4; charset=utf-8",
            Syntax::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Syntax::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        };
        let text = format!("{syntax}; escaping={}", self.escaping.name());
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("text/plain"))
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
    let syntax = match (kind.to_ascii_lowercase().as_str(), of("version")) {
        // Readers of the draft 0.0.1 read 1.0 too, and say so by naming both.
        ("application/openmetrics-text", None | Some("1.0.0")) => Syntax::OpenMetrics,
        // 1.0.0 is 0.0.4 with names that may be quoted; `escaping` tells whether they are.
        ("text/plain", None | Some("0.0.4" | "1.0.0")) | ("text/*" | "*/*", _) => Syntax::Text,
        ("application/vnd.google.protobuf", _)
            if of("proto") == Some("io.prometheus.client.MetricFamily") && of("encoding") == Some("delimited") =>
        {
            Syntax::Protobuf
        }
        _ => return None,
    };
    let escaping = of("escaping").and_then(Escaping::read).unwrap_or_default();
    Some((Format { syntax, escaping }, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &str) -> (Syntax, Escaping) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let format = Format::wanted(&headers);
        (format.syntax, format.escaping)
    }

    #[test]
    fn the_best_of_what_is_accepted_is_served() {
        use Syntax::{OpenMetrics, Protobuf, Text};
        assert_eq!(Format::wanted(&HeaderMap::new()), Format::TEXT);
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding";
        for (accept, syntax) in [
            ("application/openmetrics-text", OpenMetrics),
            ("text/plain;q=0.5,application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.1", OpenMetrics),
            ("text/plain, application/openmetrics-text; version=1.0.0", Text),
            ("application/openmetrics-text; version=2.0.0, text/html", Text),
            ("application/openmetrics-text; q=no", Text),
            (&format!("{protobuf}=delimited;q=0.9,text/plain;q=0.8"), Protobuf),
            (&format!("{protobuf}=compact-text"), Text),
        ] {
            assert_eq!(wanted(accept), (syntax, Escaping::Underscores), "{accept}");
        }
    }

    #[test]
    fn readers_tell_which_names_they_know() {
        // What Prometheus 3 sends.
        let scraper = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                       text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2";
        assert_eq!(wanted(scraper), (Syntax::OpenMetrics, Escaping::AllowUtf8));
        assert_eq!(wanted("text/plain;escaping=dots").1, Escaping::Dots);
        assert_eq!(wanted("text/plain;escaping=bogus").1, Escaping::Underscores);
        assert_eq!(Format::TEXT.content_type(), "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    }
}
