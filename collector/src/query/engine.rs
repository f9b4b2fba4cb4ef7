//! Runs queries within limits: a gate for how many at once, a budget for each, away from the async workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::{Budget, Labels, SelectError, Source};

use super::QueryError;
use super::exec::{Eval, Notes};
use super::parse::{OPENINGS_SHALLOW, openings, parse, with_room};
use super::plan::{Edges, Expr, Kind};
use super::value::{Points, Row, Steps, Value, is_absent, without_name};

/// What `--enable-feature` switches on, by Prometheus' names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// `promql-experimental-functions`
    pub experimental_functions: bool,
    /// `promql-delayed-name-removal`
    pub delayed_name_removal: bool,
    /// `promql-duration-expr`
    pub duration_expr: bool,
    /// `promql-extended-range-selectors`
    pub extended_range_selectors: bool,
    /// `promql-binop-fill-modifiers`
    pub binop_fill: bool,
    /// `type-and-unit-labels`: here only what `rate` says of series whose label `__type__` is no counter's.
    pub type_and_unit_labels: bool,
}

impl Features {
    /// Types are left out: with them `rate` has a remark on every series that carries no type, as most do.
    pub const ALL: Self = Self {
        experimental_functions: true,
        delayed_name_removal: true,
        duration_expr: true,
        extended_range_selectors: true,
        binop_fill: true,
        type_and_unit_labels: false,
    };

    /// Switches on by name, or `all`. False for a name that is not known here.
    pub fn enable(&mut self, name: &str) -> bool {
        match name {
            "all" => *self = Self::ALL,
            "promql-experimental-functions" => self.experimental_functions = true,
            "promql-delayed-name-removal" => self.delayed_name_removal = true,
            "promql-duration-expr" => self.duration_expr = true,
            "promql-extended-range-selectors" => self.extended_range_selectors = true,
            "promql-binop-fill-modifiers" => self.binop_fill = true,
            "type-and-unit-labels" => self.type_and_unit_labels = true,
            _ => return false,
        }
        true
    }
}

/// What one query may use.
#[derive(Debug, Clone)]
pub struct Limits {
    pub timeout: Duration,
    /// Samples that one query may load.
    pub samples: u64,
    /// Series that one query may select.
    pub series: u64,
    /// Bytes of samples and results of one query.
    pub bytes: u64,
    /// Queries that run at the same time; others wait up to their timeout.
    pub concurrency: usize,
    pub lookback: Duration,
    /// Step of subqueries that name none.
    pub subquery_step: Duration,
}

impl Default for Limits {
    /// Prometheus' defaults.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            samples: 50_000_000,
            series: 2_000_000,
            bytes: 2 << 30,
            concurrency: 20,
            lookback: Duration::from_secs(300),
            subquery_step: Duration::from_secs(60),
        }
    }
}

/// When a query is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Instant { at_ms: i64 },
    Range { start_ms: i64, end_ms: i64, step_ms: i64 },
}

impl Span {
    fn steps(self) -> Steps {
        match self {
            Self::Instant { at_ms } => Steps::instant(at_ms),
            Self::Range { start_ms, end_ms, step_ms } => Steps::range(start_ms, end_ms, step_ms),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Request {
    pub text: String,
    pub span: Span,
    pub timeout: Option<Duration>,
    pub lookback: Option<Duration>,
}

#[derive(Debug)]
pub enum Output {
    Scalar {
        at_ms: i64,
        value: f64,
    },
    Text {
        at_ms: i64,
        text: String,
    },
    /// Rows of one cell.
    Vector {
        at_ms: i64,
        rows: Vec<Row>,
    },
    /// Rows of one cell per step, sorted by labels.
    Matrix {
        steps: Steps,
        rows: Vec<Row>,
    },
    /// Stored samples, from an instant query for a range.
    Points(Vec<Points>),
}

#[derive(Debug)]
pub struct Answer {
    pub output: Output,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
    /// Seconds from parsing to the last cell, and seconds of waiting before it.
    pub seconds: f64,
    pub queued_seconds: f64,
    /// Samples looked at, one counted as often as a step looked at it.
    pub samples: u64,
    /// The query's place, held for as long as its result takes memory.
    pub place: Option<OwnedSemaphorePermit>,
}

/// Shared by all that evaluate; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    limits: Arc<Limits>,
    features: Features,
    gate: Arc<Semaphore>,
    /// Places of what is looked up without being evaluated, as many as of queries.
    lookups: Arc<Semaphore>,
}

/// A query that takes longer is logged with its text.
const SLOW: Duration = Duration::from_secs(5);

/// Cancels a query when whoever waits for it goes away.
struct CancelOnDrop(Arc<Budget>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Engine {
    pub fn new(limits: Limits, features: Features) -> Self {
        let gate = Arc::new(Semaphore::new(limits.concurrency.max(1)));
        let lookups = Arc::new(Semaphore::new(limits.concurrency.max(1)));
        Self { limits: Arc::new(limits), features, gate, lookups }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn features(&self) -> Features {
        self.features
    }

    fn budget(&self, deadline: Instant) -> Arc<Budget> {
        Arc::new(Budget::new(self.limits.samples, deadline).bounded(self.limits.series, self.limits.bytes))
    }

    /// Asks the store what needs no evaluation, as [`Self::query`] does: within the limits of a query, at a place of its own,
    /// and not for longer than somebody waits for it.
    pub async fn look_up<T: Send + 'static>(
        &self,
        source: Arc<dyn Source>,
        question: impl FnOnce(&dyn Source, &Budget) -> Result<T, SelectError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let budget = self.budget(Instant::now() + self.limits.timeout);
        let _guard = CancelOnDrop(budget.clone());
        let permit = place(&self.lookups, self.limits.timeout).await?;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            question(&*source, &budget)
        });
        let answer = task.await.map_err(|error| QueryError::Internal(format!("the lookup ended early: {error}")))?;
        Ok(answer?)
    }

    /// Waits for a place, then evaluates on a blocking thread. Dropping the future cancels the query.
    pub async fn query(&self, source: Arc<dyn Source>, request: Request) -> Result<Answer, QueryError> {
        let begin = Instant::now();
        let timeout = request.timeout.unwrap_or(self.limits.timeout).min(self.limits.timeout);
        let budget = self.budget(begin + timeout);
        let _guard = CancelOnDrop(budget.clone());
        let permit = place(&self.gate, timeout).await?;
        let queued_seconds = begin.elapsed().as_secs_f64();
        let engine = self.clone();
        let text = request.text.clone();
        let mut task = tokio::task::spawn_blocking(move || {
            let run = || {
                let expr = parse(&request.text, engine.features)?;
                engine.run(&*source, &expr, request.span, request.lookback, &budget)
            };
            let answer = if openings(&request.text) < OPENINGS_SHALLOW { run() } else { with_room(run)? };
            answer.map(|answer| Answer { place: Some(permit), ..answer })
        });
        let early = |error| QueryError::Internal(format!("evaluation ended early: {error}"));
        let answer = match tokio::time::timeout(SLOW, &mut task).await {
            Ok(answer) => answer.map_err(early)?,
            Err(_) => {
                // Told while it runs: should it never end, or take the collector with it, its text is in the log.
                tracing::warn!(query = text, queued_seconds, "a query runs for more than {SLOW:?}");
                let answer = task.await.map_err(early)?;
                let seconds = begin.elapsed().as_secs_f64();
                tracing::warn!(query = text, seconds, queued_seconds, ok = answer.is_ok(), "slow query");
                answer
            }
        };
        let mut answer = answer?;
        answer.queued_seconds = queued_seconds;
        Ok(answer)
    }

    /// Evaluates on this thread.
    pub fn run(
        &self,
        source: &dyn Source,
        expr: &Expr,
        span: Span,
        lookback: Option<Duration>,
        budget: &Budget,
    ) -> Result<Answer, QueryError> {
        let begin = Instant::now();
        let notes = Notes::default();
        let steps = span.steps();
        let lookback = lookback.unwrap_or(self.limits.lookback);
        let eval = Eval {
            source,
            budget,
            notes: &notes,
            start_ms: steps.start_ms,
            end_ms: match span {
                Span::Instant { at_ms } => at_ms,
                Span::Range { end_ms, .. } => end_ms,
            },
            interval_ms: match span {
                Span::Instant { .. } => 0,
                Span::Range { step_ms, .. } => step_ms,
            },
            lookback_ms: lookback.as_millis() as i64,
            subquery_step_ms: self.limits.subquery_step.as_millis() as i64,
            features: self.features,
        };
        let output = match span {
            Span::Instant { at_ms } => instant(&eval, expr, at_ms)?,
            Span::Range { .. } => range(&eval, expr, steps)?,
        };
        let samples = notes.samples();
        let (warnings, infos) = notes.into_lists();
        Ok(Answer {
            output,
            warnings,
            infos,
            seconds: begin.elapsed().as_secs_f64(),
            queued_seconds: 0.0,
            samples,
            place: None,
        })
    }
}

/// Waits for a place.
async fn place(places: &Arc<Semaphore>, timeout: Duration) -> Result<OwnedSemaphorePermit, QueryError> {
    match tokio::time::timeout(timeout, places.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(QueryError::Busy("the query engine is shutting down".to_owned())),
        Err(_) => Err(QueryError::TimedOut),
    }
}

fn instant(eval: &Eval<'_>, expr: &Expr, at_ms: i64) -> Result<Output, QueryError> {
    let steps = Steps::instant(at_ms);
    if expr.kind() == Kind::Matrix {
        let ranged = eval.ranged(expr, steps)?;
        let mut points = match ranged.edges {
            Edges::Plain => ranged.points,
            _ => eval.edged_points(ranged, eval.notes.at(expr.place()), at_ms),
        };
        points.retain(|points| !points.samples.is_empty() || !points.histograms.is_empty());
        for series in &mut points {
            if series.drop_name {
                series.labels = without_name(&series.labels);
            }
        }
        points.sort_by(|a, b| a.labels.cmp(&b.labels));
        return Ok(Output::Points(points));
    }
    Ok(match eval.eval(expr, steps)? {
        Value::Scalar(cells) => Output::Scalar { at_ms, value: cells[0] },
        Value::Text(text) => Output::Text { at_ms, text },
        Value::Rows(rows) => {
            let mut rows = finished(rows);
            rows.retain(|row| !is_absent(row.cells[0]));
            let rows = if expr.orders() { eval.merge(rows)? } else { sorted(eval, rows)? };
            Output::Vector { at_ms, rows }
        }
    })
}

fn range(eval: &Eval<'_>, expr: &Expr, steps: Steps) -> Result<Output, QueryError> {
    let kind = expr.kind();
    if matches!(kind, Kind::Matrix | Kind::Text) {
        let name = kind.name();
        return Err(QueryError::Bad(format!(
            "invalid expression type \"{name}\" for range query, must be Scalar or instant Vector"
        )));
    }
    let rows = match eval.eval(expr, steps)? {
        Value::Scalar(cells) => vec![Row::new(Labels::empty(), cells)],
        Value::Text(_) => Vec::new(),
        Value::Rows(rows) => {
            let mut rows = finished(rows);
            rows.retain(Row::has_any);
            sorted(eval, rows)?
        }
    };
    Ok(Output::Matrix { steps, rows })
}

/// Takes away the names whose removal was put off.
fn finished(mut rows: Vec<Row>) -> Vec<Row> {
    for row in rows.iter_mut().filter(|row| row.drop_name) {
        row.labels = without_name(&row.labels);
        row.drop_name = false;
    }
    rows
}

/// Sorts rows by their labels, and joins those of equal labels.
fn sorted(eval: &Eval<'_>, mut rows: Vec<Row>) -> Result<Vec<Row>, QueryError> {
    // They mostly come host by host, and such runs are found.
    rows.sort_by(|a, b| a.labels.cmp(&b.labels));
    let apart = rows.windows(2).all(|pair| pair[0].labels != pair[1].labels);
    if apart { Ok(rows) } else { eval.merge(rows) }
}
