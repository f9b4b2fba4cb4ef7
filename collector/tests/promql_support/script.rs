//! Scripts of `load` and `eval` in the syntax of Prometheus' own tests: read, run, and judged.
//!
//! Every instant case is asked a second time as the middle step of a range query: both must agree.

use std::time::{Duration, Instant};

use lampad_collector::query::{
    Answer, Cell as Got, Engine, Features, Histogram as Counted, Limits, Output, Points, QueryError, Request, Span,
    parse,
};
use lampad_collector::store::{Budget, Label, Labels, METRIC_NAME};

use super::histogram::{self, Shape};
use super::memory::Memory;
use super::nhcb;

/// How a case came out.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Passed,
    Failed(String),
}

pub struct Case {
    pub line: usize,
    pub query: String,
    pub verdict: Verdict,
}

#[derive(Default, Debug)]
struct Expected {
    fails: bool,
    fail_text: Option<Text>,
    ordered: bool,
    warn: Option<bool>,
    info: Option<bool>,
    /// Remarks that must be there: `expect warn msg: ...`.
    remarks: Vec<Text>,
    text: Option<String>,
    /// `expect range vector from .. to .. step ..`: when the samples of a range lie.
    times: Option<Vec<i64>>,
    rows: Rows,
    scalar: Option<f64>,
}

/// A text that is given whole, or as a regex.
#[derive(Debug)]
struct Text {
    text: String,
    is_regex: bool,
}

impl Text {
    /// After `msg:` or `regex:`.
    fn read(line: &str) -> Option<Self> {
        let msg = line.split_once("msg:").map(|(_, text)| (text, false));
        let (text, is_regex) = msg.or_else(|| line.split_once("regex:").map(|(_, text)| (text, true)))?;
        Some(Self { text: text.trim().to_owned(), is_regex })
    }

    fn is(&self, got: &str) -> bool {
        match self.is_regex {
            true => regex::Regex::new(&self.text).unwrap().is_match(got),
            false => got == self.text,
        }
    }
}

pub fn run(script: &str) -> Vec<Case> {
    let lines: Vec<(usize, &str)> = script
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.starts_with('#'))
        .collect();
    let mut memory = Memory::default();
    let mut cases = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let (number, line) = lines[at];
        at += 1;
        let block: Vec<&str> =
            lines[at..].iter().map(|(_, line)| *line).take_while(|line| !starts_block(line)).collect();
        if line == "clear" {
            memory = Memory::default();
        } else if line.starts_with("load") {
            let step_ms = duration_ms(line.split_whitespace().last().unwrap_or("1m"));
            block.iter().for_each(|line| load(&mut memory, line, step_ms));
            memory.sort();
            if line.starts_with("load_with_nhcb ") {
                nhcb::add(&mut memory, &block.iter().map(|line| read_series(line).0).collect::<Vec<_>>());
                memory.sort();
            }
            at += block.len();
        } else if line.starts_with("eval") {
            let expected = read_expected(line, &block);
            let (query, verdict) = judge(line, &expected, &memory);
            cases.push(Case { line: number, query, verdict });
            at += block.len();
        }
    }
    cases
}

fn starts_block(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    word.is_empty() || ["clear", "load", "load_with_nhcb"].contains(&word) || word.starts_with("eval")
}

fn load(memory: &mut Memory, line: &str, step_ms: i64) {
    let (labels, rest) = read_series(line);
    let mut at_ms = 0;
    for cell in cells(rest) {
        match cell {
            Cell::Float(value) => memory.push(&labels, at_ms, value),
            Cell::Histogram(shape) => memory.push_histogram(&labels, at_ms, shape.stored()),
            Cell::Nothing => {}
        }
        at_ms += step_ms;
    }
}

enum Cell {
    Float(f64),
    Histogram(Shape),
    Nothing,
}

/// `1 2 _ stale 0+10x3 1x2 {{..}}x4`
fn cells(text: &str) -> Vec<Cell> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if rest.starts_with("{{") {
            let end = end_of_histogram(rest);
            out.extend(histogram::series(&rest[..end]).into_iter().map(Cell::Histogram));
            rest = rest[end..].trim_start();
            continue;
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let word = rest[..end].split('@').next().unwrap_or_default();
        rest = rest[end..].trim_start();
        if let Some(times) = word.strip_prefix('_') {
            let times = times.strip_prefix('x').and_then(|times| times.parse().ok()).unwrap_or(1);
            (0..times).for_each(|_: usize| out.push(Cell::Nothing));
        } else if word == "stale" {
            out.push(Cell::Float(lampad_proto::stale()));
        } else if let Some((series, times)) = word.split_once('x').filter(|(_, times)| times.parse::<usize>().is_ok()) {
            let times: usize = times.parse().unwrap();
            let sign = series[1..].rfind(['+', '-']).map(|at| at + 1).filter(|at| !series[..*at].ends_with('e'));
            let (first, step) = match sign {
                Some(at) => (number(&series[..at]), number(&series[at..])),
                None => (number(series), 0.0),
            };
            let mut value = first;
            for _ in 0..=times {
                out.push(Cell::Float(value));
                value += step;
            }
        } else {
            out.push(Cell::Float(number(word)));
        }
    }
    out
}

/// Where `{{..}}`, `{{..}}x5` or `{{..}}+{{..}}x5` ends.
fn end_of_histogram(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            c if c.is_whitespace() && depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

fn number(text: &str) -> f64 {
    match text.trim_start_matches('+') {
        "NaN" => f64::NAN,
        "Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        hex if hex.starts_with("0x") => i64::from_str_radix(&hex[2..], 16).unwrap() as f64,
        other => other.parse().unwrap_or_else(|_| panic!("{other:?} is no number")),
    }
}

/// `name{a="b"} rest`
fn read_series(line: &str) -> (Labels, &str) {
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace()).unwrap_or(line.len());
    let mut labels = Vec::new();
    if name_end > 0 {
        labels.push(label(METRIC_NAME, &line[..name_end]));
    }
    let rest = &line[name_end..];
    let Some(mut rest) = rest.strip_prefix('{') else { return (Labels::new(labels), rest) };
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if let Some(rest) = rest.strip_prefix('}') {
            return (Labels::new(labels), rest);
        }
        let (name, after) = if rest.starts_with(['"', '\'', '`']) {
            quoted(rest)
        } else {
            let end = rest.find(['=', ' ']).unwrap();
            (rest[..end].to_owned(), &rest[end..])
        };
        match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let (value, after) = quoted(value.trim_start());
                labels.push(label(&name, &value));
                rest = after;
            }
            None => {
                labels.push(label(METRIC_NAME, &name));
                rest = after;
            }
        }
    }
}

fn label(name: &str, value: &str) -> Label {
    Label { name: name.into(), value: value.into() }
}

fn quoted(text: &str) -> (String, &str) {
    let quote = text.chars().next().unwrap();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            c if c == quote => {
                let bytes = lampad_collector::query::unquoted(&text[..=at]).unwrap();
                return (String::from_utf8_lossy(&bytes).into_owned(), &text[at + 1..]);
            }
            _ => {}
        }
    }
    panic!("no end of string in {text:?}");
}

/// `1h30m`, `10s53ms`, or plain seconds.
fn duration_ms(text: &str) -> i64 {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds * 1000.0).round() as i64;
    }
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap();
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| at + digits);
        let unit = match &rest[digits..unit_end] {
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            "d" => 8.64e7,
            "w" => 6.048e8,
            "y" => 3.1536e10,
            other => panic!("unknown unit {other:?}"),
        };
        total += rest[..digits].parse::<f64>().unwrap() * unit;
        rest = &rest[unit_end..];
    }
    if negative { -total as i64 } else { total as i64 }
}

fn read_expected(eval: &str, block: &[&str]) -> Expected {
    let mut expected = Expected {
        fails: eval.starts_with("eval_fail"),
        ordered: eval.starts_with("eval_ordered"),
        warn: eval.starts_with("eval_warn").then_some(true),
        info: eval.starts_with("eval_info").then_some(true),
        ..Expected::default()
    };
    for line in block {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["expect", "fail", ..] => {
                expected.fails = true;
                expected.fail_text = Text::read(line);
            }
            ["expect", "ordered", ..] => expected.ordered = true,
            ["expect", "warn", ..] => {
                expected.warn = Some(true);
                expected.remarks.extend(Text::read(line));
            }
            ["expect", "info", ..] => {
                expected.info = Some(true);
                expected.remarks.extend(Text::read(line));
            }
            ["expect", "range", "vector", "from", start, "to", end, "step", step] => {
                let (start, end, step) = (duration_ms(start), duration_ms(end), duration_ms(step));
                expected.times = Some((0..).map(|at| start + at * step).take_while(|at| *at <= end).collect());
            }
            ["expect", "no_warn", ..] => expected.warn = Some(false),
            ["expect", "no_info", ..] => expected.info = Some(false),
            ["expect", "string", ..] => {
                let text = line["expect string".len()..].trim();
                expected.text = Some(quoted(text).0);
            }
            ["expect", ..] => {}
            [one] if !line.contains('{') && one.parse::<f64>().is_ok() => expected.scalar = Some(number(one)),
            [one] if ["NaN", "+Inf", "-Inf", "Inf"].contains(one) => expected.scalar = Some(number(one)),
            _ => {
                let (labels, rest) = read_series(line);
                let row = cells(rest).into_iter().map(|cell| match cell {
                    Cell::Float(value) if lampad_proto::is_stale(value) => None,
                    Cell::Float(value) => Some(Got::Float(value)),
                    Cell::Histogram(shape) => Some(Got::Histogram(Counted::new(&shape.stored()).compact().into())),
                    Cell::Nothing => None,
                });
                let row = row.collect();
                expected.rows.push((labels, row));
            }
        }
    }
    expected
}

fn judge(eval: &str, expected: &Expected, memory: &Memory) -> (String, Verdict) {
    let rest = eval.split_once(' ').unwrap().1.trim();
    if let Some(rest) = rest.strip_prefix("instant at ").or_else(|| rest.strip_prefix("instant ")) {
        let (at, query) = rest.trim().split_once(char::is_whitespace).unwrap();
        let at_ms = duration_ms(at);
        let verdict = compare(query, Span::Instant { at_ms }, expected, memory);
        // These tell of the query's span, which is another one then.
        let of_span = ["start()", "end()", "step()", "range()"].iter().any(|function| query.contains(function));
        if verdict != Verdict::Passed || of_span || expected.ordered || expected.fails || expected.text.is_some() {
            return (query.to_owned(), verdict);
        }
        let around = Span::Range { start_ms: at_ms - 60_000, end_ms: at_ms + 60_000, step_ms: 60_000 };
        (query.to_owned(), compare_middle(query, around, expected, memory))
    } else {
        let words: Vec<&str> = rest.splitn(8, char::is_whitespace).collect();
        let [_, "from", start, "to", end, "step", step, query] = words.as_slice() else {
            return (rest.to_owned(), Verdict::Failed(format!("cannot read {eval:?}")));
        };
        let span = Span::Range { start_ms: duration_ms(start), end_ms: duration_ms(end), step_ms: duration_ms(step) };
        ((*query).to_owned(), compare(query, span, expected, memory))
    }
}

fn ask(query: &str, span: Span, memory: &Memory) -> Result<Answer, QueryError> {
    let engine = Engine::new(Limits::default(), Features::ALL);
    let request = Request { text: query.to_owned(), span, timeout: None, lookback: None };
    let budget = Budget::new(50_000_000, Instant::now() + Duration::from_secs(60));
    let expr = parse(&request.text, engine.features())?;
    engine.run(memory, &expr, span, None, &budget)
}

fn failed(error: &QueryError) -> Verdict {
    Verdict::Failed(error.to_string())
}

type Rows = Vec<(Labels, Vec<Option<Got>>)>;

fn rows_of(answer: &Answer) -> Rows {
    match &answer.output {
        Output::Vector { rows, .. } | Output::Matrix { rows, .. } => {
            let cells = |row: &lampad_collector::query::Row| (0..row.cells.len()).map(|step| row.cell(step)).collect();
            rows.iter().map(|row| (row.labels.clone(), cells(row))).collect()
        }
        Output::Points(points) => {
            let values = |points: &Points| {
                let floats = points.samples.iter().map(|s| (s.timestamp_ms, Some(Got::Float(s.value))));
                let histograms = points.histograms.iter().map(|(at, h)| (*at, Some(Got::Histogram(h.clone()))));
                let mut all: Vec<_> = floats.chain(histograms).collect();
                all.sort_by_key(|(at_ms, _)| *at_ms);
                all.into_iter().map(|(_, cell)| cell).collect()
            };
            points.iter().map(|points| (points.labels.clone(), values(points))).collect()
        }
        Output::Scalar { value, .. } => vec![(Labels::empty(), vec![Some(Got::Float(*value))])],
        Output::Text { .. } => Vec::new(),
    }
}

fn times_of(points: &Points) -> Vec<i64> {
    let floats = points.samples.iter().map(|sample| sample.timestamp_ms);
    floats.chain(points.histograms.iter().map(|(at_ms, _)| *at_ms)).collect()
}

fn compare(query: &str, span: Span, expected: &Expected, memory: &Memory) -> Verdict {
    let answer = match ask(query, span, memory) {
        Ok(answer) => answer,
        Err(error) if expected.fails => {
            let known = expected.fail_text.as_ref().is_none_or(|text| text.is(&error.to_string()));
            return if known { Verdict::Passed } else { failed(&error) };
        }
        Err(error) => return failed(&error),
    };
    if expected.fails {
        return Verdict::Failed("should fail, and did not".to_owned());
    }
    for (kind, wanted, got) in [("warnings", expected.warn, &answer.warnings), ("infos", expected.info, &answer.infos)]
    {
        if wanted.is_some_and(|wanted| wanted == got.is_empty()) {
            return Verdict::Failed(format!("{kind}: {got:?}"));
        }
    }
    let remarks = || answer.warnings.iter().chain(&answer.infos);
    if let Some(missing) = expected.remarks.iter().find(|wanted| !remarks().any(|got| wanted.is(got))) {
        return Verdict::Failed(format!("lacks {missing:?} among {:?}", remarks().collect::<Vec<_>>()));
    }
    if let (Some(times), Output::Points(points)) = (&expected.times, &answer.output) {
        let late = |points: &Points| times_of(points).into_iter().find(|at_ms| !times.contains(at_ms));
        if let Some(at_ms) = points.iter().find_map(late) {
            return Verdict::Failed(format!("a sample at {at_ms}, expected at {times:?}"));
        }
    }
    if let (Some(text), Output::Text { text: got, .. }) = (&expected.text, &answer.output) {
        return if text == got { Verdict::Passed } else { Verdict::Failed(format!("got {got:?}")) };
    }
    let wanted = match expected.scalar {
        Some(number) => vec![(Labels::empty(), vec![Some(Got::Float(number))])],
        None => expected.rows.clone(),
    };
    same(wanted, rows_of(&answer), expected.ordered)
}

/// The middle of three steps must be what the instant query gave.
fn compare_middle(query: &str, span: Span, expected: &Expected, memory: &Memory) -> Verdict {
    match ask(query, span, memory) {
        Ok(answer) => {
            let middle = rows_of(&answer).into_iter().map(|(labels, cells)| (labels, vec![cells[1].clone()]));
            let got = middle.filter(|(_, cells)| cells[0].is_some()).collect();
            let wanted = match expected.scalar {
                Some(number) => vec![(Labels::empty(), vec![Some(Got::Float(number))])],
                None => expected.rows.clone(),
            };
            match same(wanted, got, false) {
                Verdict::Failed(reason) => Verdict::Failed(format!("as a range query: {reason}")),
                other => other,
            }
        }
        // Ranges cannot be asked as range queries.
        Err(QueryError::Bad(_)) => Verdict::Passed,
        Err(error) => failed(&error),
    }
}

fn same(mut wanted: Rows, mut got: Rows, ordered: bool) -> Verdict {
    if !ordered {
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        got.sort_by(|a, b| a.0.cmp(&b.0));
    }
    let trimmed = |cells: &[Option<Got>]| {
        let end = cells.iter().rposition(Option::is_some).map_or(0, |at| at + 1);
        cells[..end].to_vec()
    };
    let equal = wanted.len() == got.len()
        && wanted.iter().zip(&got).all(|(wanted, got)| {
            let (a, b) = (trimmed(&wanted.1), trimmed(&got.1));
            wanted.0 == got.0 && a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| alike(a, b))
        });
    if equal { Verdict::Passed } else { Verdict::Failed(format!("wanted {wanted:?}, got {got:?}")) }
}

fn alike(a: &Option<Got>, b: &Option<Got>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(Got::Float(a)), Some(Got::Float(b))) => close(*a, *b),
        (Some(Got::Histogram(a)), Some(Got::Histogram(b))) => histogram::alike(a, b),
        _ => false,
    }
}

pub fn close(a: f64, b: f64) -> bool {
    let near = (a - b).abs() <= 1e-6 * (a.abs() + b.abs()).min(f64::MAX);
    (a.is_nan() && b.is_nan()) || a == b || near
}
