//! Random texts for the query parser: it never panics, and what it lays out it reads back as the same. `LAMPAD_FUZZ` sets how
//! many, `LAMPAD_SEED` repeats a run.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use lampad_collector::query::{Features, format, parse, parse_selector, tree};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Pieces of the language; texts are made of these, and then damaged.
const PIECES: &[&str] = &[
    "a",
    "b:c",
    "sum",
    "topk",
    "count_values",
    "rate",
    "abs",
    "histogram_quantiles",
    "info",
    "label_replace",
    "step",
    "start()",
    "min_of",
    "(",
    ")",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "[5m]",
    "[1h:5m]",
    "[5m:]",
    "{x=\"y\"}",
    "{x=~\"y|z\",}",
    "{\"a.b\"}",
    ",",
    ":",
    "=",
    "!=",
    "=~",
    "!~",
    "==",
    "<=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "@",
    "@ 1.5",
    "@ end()",
    "offset",
    "offset -5m",
    "offset (1m+step())",
    "anchored",
    "smoothed",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "fill",
    "fill_left(0)",
    "(x)",
    "()",
    "and",
    "or",
    "unless",
    "atan2",
    "5m",
    "1h30m",
    "5",
    "0x1F",
    "1_000",
    ".5",
    "1e3",
    "inf",
    "NaN",
    "\"s\"",
    "'\\xc5'",
    "`r`",
    "\"\\u00e4\"",
    "# c\n",
    " ",
    "\t",
    "\n",
    "ä",
    "\\",
    "\"",
];

/// Queries that are right, to be changed a little.
const WHOLE: &[&str] = &[
    "sum by (a, b) (rate(x_total{c=\"d\"}[5m] offset 1m)) / on (a) group_left (e) y",
    "histogram_quantile(0.9, sum by (le) (rate(x_bucket[2m:30s] @ end())))",
    "max_over_time(deriv(a[10m + step()])[1h:1m]) > bool -1 ^ 2",
    "label_replace({\"a.b\", c=~\"d.*\"}, \"x\", \"$1\", \"c\", \"(.*)\") unless ignoring (x) b",
    "rate(x_total[5m] anchored) + fill(0) rate(y_total smoothed [5m])",
    "count_values without () (\"v\", a) or vector(time() - 0x1F)",
];

fn text(rng: &mut StdRng) -> String {
    let mut text = if rng.random_bool(0.5) {
        (*WHOLE.choose(rng).unwrap()).to_owned()
    } else {
        let count = rng.random_range(1..12);
        (0..count).map(|_| *PIECES.choose(rng).unwrap()).collect::<Vec<_>>().join(if rng.random_bool(0.7) {
            " "
        } else {
            ""
        })
    };
    for _ in 0..rng.random_range(0..4) {
        let cut = |rng: &mut StdRng, text: &str| {
            let at = rng.random_range(0..=text.len());
            (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap()
        };
        let (from, to) = (cut(rng, &text), cut(rng, &text));
        match rng.random_range(0..3) {
            0 => text.replace_range(from.min(to)..from.max(to), ""),
            1 => text.insert_str(from, PIECES.choose(rng).unwrap()),
            _ => text.insert(from, char::from(rng.random_range(0x20..0x7f_u8))),
        }
    }
    text
}

#[test]
fn no_text_makes_the_parser_panic_and_layouts_are_read_back() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("LAMPAD_SEED").unwrap_or_else(|| rand::rng().random());
    let count = number("LAMPAD_FUZZ").unwrap_or(5_000);
    println!("LAMPAD_SEED={seed} LAMPAD_FUZZ={count}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut read = 0;
    for turn in 0..count {
        let text = text(&mut rng);
        let _ = parse_selector(&text);
        let _ = parse(&text, Features::default());
        if parse(&text, Features::ALL).is_err() {
            continue;
        }
        let context = format!("LAMPAD_SEED={seed}, text {turn}: {text:?}");
        read += 1;
        assert!(tree(&text).is_ok(), "{context}");
        let laid_out = format(&text).unwrap();
        // Infinity is written with its sign, as Prometheus does, which is read back as a sign of its own.
        if laid_out.contains("+Inf") {
            continue;
        }
        let again = format(&laid_out).unwrap_or_else(|error| panic!("{context}: laid out as {laid_out:?}: {error}"));
        assert_eq!(again, laid_out, "{context}");
    }
    println!("{read} of {count} are queries");
    assert!(read > count / 50);
}
