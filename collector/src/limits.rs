//! What one agent, one kind of writer, and all together may bring, so that no single server can hurt the collector (rule 14
//! of the design); and what a query may use.
//!
//! One table: each row is a key of `[limits]` in the file, a flag `--limit-...` and a variable `LAMPAD_LIMIT_...`. What is
//! over a limit is refused series by series, with a text for the person who reads it; the rest is stored.

use serde::Deserialize;

macro_rules! limits {
    ($($name:ident = $default:literal, $flag:literal, $env:literal, $help:literal;)*) => {
        /// Limits with their defaults. Each is far above what an ordinary server needs and far below what hurts.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Limits {
            $(#[doc = $help] pub $name: usize,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// The flags of the limits; what is not given is as the file says.
        #[derive(Debug, Clone, Default, clap::Args)]
        #[command(next_help_heading = "Limits, beyond which series are refused and the rest is stored")]
        pub struct LimitArgs {
            $(
                #[arg(long = $flag, env = $env, value_name = "N", value_parser = number,
                    help = format!("{} [default: {}]", $help, $default as usize))]
                pub $name: Option<usize>,
            )*
        }

        impl LimitArgs {
            /// The limits of the file with the flags laid over them. None may be zero: nothing at all would be taken.
            pub fn over(&self, file: Limits) -> Result<Limits, String> {
                $(
                    let $name = self.$name.unwrap_or(file.$name);
                    if $name == 0 {
                        return Err(format!("--{} is 0, and nothing would be taken; give at least 1", $flag));
                    }
                )*
                Ok(Limits { $($name,)* })
            }
        }

        impl Limits {
            /// Every limit with the name of its flag.
            pub fn list(&self) -> Vec<(&'static str, usize)> {
                vec![$(($flag, self.$name),)*]
            }
        }
    };
}

/// A number, as code and TOML write it: `_` may part the thousands.
fn number(text: &str) -> Result<usize, String> {
    let digits = text.replace('_', "");
    digits.parse().map_err(|error| format!("{error}; write a whole number, as 20000 or 20_000"))
}

limits! {
    agents = 20_000, "limit-agents", "LAMPAD_LIMIT_AGENTS",
        "Agents known at once";
    series = 20_000_000, "limit-series", "LAMPAD_LIMIT_SERIES",
        "Series known at all";
    series_per_agent = 100_000, "limit-series-per-agent", "LAMPAD_LIMIT_SERIES_PER_AGENT",
        "Live series of one agent";
    series_per_writer = 5_000_000, "limit-series-per-writer", "LAMPAD_LIMIT_SERIES_PER_WRITER",
        "Live series of all remote writers, and as many of all plain pushers";
    new_series_per_minute = 5_000_000, "limit-new-series-per-minute", "LAMPAD_LIMIT_NEW_SERIES_PER_MINUTE",
        "New series in a minute at all";
    new_series_per_agent = 20_000, "limit-new-series-per-agent", "LAMPAD_LIMIT_NEW_SERIES_PER_AGENT",
        "New series of one agent in a minute; what is over is asked for again a minute later";
    new_series_per_writer = 1_000_000, "limit-new-series-per-writer", "LAMPAD_LIMIT_NEW_SERIES_PER_WRITER",
        "New series of all remote writers in a minute, and as many of all plain pushers";
    groups_per_agent = 4_096, "limit-groups-per-agent", "LAMPAD_LIMIT_GROUPS_PER_AGENT",
        "Groups of one agent";
    groups_per_writer = 200_000, "limit-groups-per-writer", "LAMPAD_LIMIT_GROUPS_PER_WRITER",
        "Groups of all remote writers, one per job and instance, and as many of all plain pushers";
    labels_per_series = 64, "limit-labels-per-series", "LAMPAD_LIMIT_LABELS_PER_SERIES",
        "Labels of a series";
    label_name_bytes = 256, "limit-label-name-bytes", "LAMPAD_LIMIT_LABEL_NAME_BYTES",
        "Bytes of a label's name";
    label_value_bytes = 4_096, "limit-label-value-bytes", "LAMPAD_LIMIT_LABEL_VALUE_BYTES",
        "Bytes of a label's value or a metric's name";
    dictionary_bytes = 33_554_432, "limit-dictionary-bytes", "LAMPAD_LIMIT_DICTIONARY_BYTES",
        "Bytes of all names and labels of one lane of a stream";
    message_bytes = 16_777_216, "limit-message-bytes", "LAMPAD_LIMIT_MESSAGE_BYTES",
        "Unpacked bytes of a frame, or of anything else that comes by gRPC; a longer one ends its stream";
    request_bytes = 33_554_432, "limit-request-bytes", "LAMPAD_LIMIT_REQUEST_BYTES",
        "Unpacked bytes of a remote-write request; a longer one is answered 400";
    ticks_per_frame = 1_024, "limit-ticks-per-frame", "LAMPAD_LIMIT_TICKS_PER_FRAME",
        "Ticks of a frame";
    values_per_frame = 262_144, "limit-values-per-frame", "LAMPAD_LIMIT_VALUES_PER_FRAME",
        "Values of a frame";
    histogram_buckets = 4_096, "limit-histogram-buckets", "LAMPAD_LIMIT_HISTOGRAM_BUCKETS",
        "Buckets of a native histogram, and spans on each of its sides";
    queries = 20, "limit-queries", "LAMPAD_LIMIT_QUERIES",
        "Queries that run at once; others wait";
    query_seconds = 120, "limit-query-seconds", "LAMPAD_LIMIT_QUERY_SECONDS",
        "Seconds that a query may take, waiting included";
    query_series = 2_000_000, "limit-query-series", "LAMPAD_LIMIT_QUERY_SERIES",
        "Series that a query may select; one that crosses this or the next two ends with an error";
    query_samples = 50_000_000, "limit-query-samples", "LAMPAD_LIMIT_QUERY_SAMPLES",
        "Samples that a query may load";
    query_bytes = 2_147_483_648, "limit-query-bytes", "LAMPAD_LIMIT_QUERY_BYTES",
        "Bytes that samples and results of a query may take in memory";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_lie_over_the_file_and_zero_is_refused() {
        let file: Limits = toml::from_str("series = 7\nagents = 3").unwrap();
        let limits = LimitArgs { agents: Some(5), ..LimitArgs::default() }.over(file.clone()).unwrap();
        assert_eq!(limits, Limits { agents: 5, series: 7, ..Limits::default() });
        let refused = LimitArgs { labels_per_series: Some(0), ..LimitArgs::default() }.over(file).unwrap_err();
        assert!(refused.contains("--limit-labels-per-series is 0"), "{refused}");
    }

    #[test]
    fn thousands_may_be_parted() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            limits: LimitArgs,
        }
        let given = Command::try_parse_from(["x", "--limit-series", "20_000_000"]).unwrap();
        assert_eq!(given.limits.series, Some(20_000_000));
        let refused = Command::try_parse_from(["x", "--limit-series", "many"]).err().unwrap().to_string();
        assert!(refused.contains("as 20000 or 20_000"), "{refused}");
        let help = <Command as clap::CommandFactory>::command().render_long_help().to_string();
        assert!(help.contains("[default: 20000000]"), "{help}");
    }

    /// The three names of a setting say the same, so that one is guessed from the other.
    #[test]
    fn names_follow_from_each_other() {
        use clap::Args as _;
        let command = LimitArgs::augment_args(clap::Command::new("x"));
        for arg in command.get_arguments() {
            let key = arg.get_id().as_str();
            let flag = format!("limit-{}", key.replace('_', "-"));
            assert_eq!(arg.get_long(), Some(&*flag));
            let variable = format!("LAMPAD_LIMIT_{}", key.to_uppercase());
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(&*variable));
        }
    }
}
