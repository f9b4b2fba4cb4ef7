//! `GET /api/v1/live?query=`: the result of a query now, and again whenever samples that it selects arrive, as server-sent
//! events.
//!
//! Shape:  `event: result` with the body that `/api/v1/query` would give; `event: end` with `{"reason": ".."}` when the
//!         collector ends the stream. A query is asked at most once per `interval` (250ms, at least 100ms).
//! Source: the store's log tells that something arrived; the newest samples of the query's selectors tell whether it
//!         concerns the query. What only time changes (`rate` over an idle counter) is not pushed.
//! Limits: [`LIVE_MAX`] streams, [`WAITING_MAX`] results per reader on their way, [`RESULT_BYTES_MAX`] each. A reader that
//!         does not take them is let go, and told why.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::query::{self, Expr, QueryError, Request, Span};
use crate::store::{Budget, Matcher, Select, SelectError, Source};

use super::params::{Params, away, invalid};
use super::query::now_ms;
use super::reply::ApiError;
use super::result;
use super::series::ask;
use super::state::ApiState;

/// Streams at once: each evaluates its query up to four times per second.
pub const LIVE_MAX: usize = 64;
/// Results on their way to one reader.
const WAITING_MAX: usize = 4;
/// Bytes of one result. A live query is for a screen, not for an export.
const RESULT_BYTES_MAX: usize = 4 << 20;
const INTERVAL: Duration = Duration::from_millis(250);
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// So often it is looked whether something arrived even if the log does not move, as when the disk hangs.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Keeps proxies from closing a quiet stream.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

pub async fn live(State(state): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let text = params.get("query").unwrap_or_default().to_owned();
    let watched = {
        let (text, features) = (text.clone(), state.engine.features());
        away(move || Ok(watched(&query::parse(&text, features)?))).await?
    };
    let interval = params.duration("interval")?.unwrap_or(INTERVAL);
    if interval < INTERVAL_MIN {
        return Err(invalid("interval", "a live query is asked every 100ms at most"));
    }
    let limit = params.limit()?;
    let Ok(place) = state.live.clone().try_acquire_owned() else {
        return Err(ApiError::unavailable(format!(
            "{LIVE_MAX} live queries are running already; end one or come again"
        )));
    };
    let (results, taken) = mpsc::channel(WAITING_MAX);
    let reason: Arc<OnceLock<String>> = Arc::default();
    let live = Live { state, text, watched, interval, limit, results };
    tokio::spawn({
        let reason = reason.clone();
        async move {
            // Held for as long as anything is asked for the reader: whoever comes and goes piles up nothing.
            let _place = place;
            let ended = live.run().await;
            let _ = reason.set(ended);
        }
    });
    let last = stream::once(async move { end(&reason) });
    let events = ReceiverStream::new(taken).chain(last).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

fn end(reason: &OnceLock<String>) -> Event {
    let reason = reason.get().map_or("the collector ended the stream", String::as_str);
    Event::default().event("end").data(serde_json::json!({ "reason": reason }).to_string())
}

/// What a query selects, and how far it looks back.
type Watched = Vec<Vec<Matcher>>;

fn watched(expr: &Expr) -> Watched {
    let mut all = Vec::new();
    expr.each_selector(&mut |selector| all.push(selector.matchers.clone()));
    all
}

struct Live {
    state: ApiState,
    text: String,
    watched: Watched,
    interval: Duration,
    limit: Option<usize>,
    results: mpsc::Sender<Event>,
}

impl Live {
    /// Pushes results until the reader is gone, and drops then what is being asked; gives the reason for the end.
    async fn run(self) -> String {
        tokio::select! {
            () = self.results.closed() => String::new(),
            reason = self.push() => reason,
        }
    }

    async fn push(&self) -> String {
        let mut arrivals = self.state.arrivals.clone();
        let mut known = None;
        loop {
            let newest = match self.newest().await {
                Ok(newest) => newest,
                Err(error) => return error.message().to_owned(),
            };
            if known != Some(newest) {
                known = Some(newest);
                let text = match self.result().await {
                    Ok(text) => text,
                    Err(QueryError::Busy(_) | QueryError::TimedOut) => {
                        return "the collector is busy; open the stream again".into();
                    }
                    Err(error) => return error.to_string(),
                };
                if text.len() > RESULT_BYTES_MAX {
                    return format!("a result has {} bytes, {RESULT_BYTES_MAX} are pushed; aggregate more", text.len());
                }
                match self.results.try_send(Event::default().event("result").data(text)) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        return format!(
                            "the reader takes no results, {WAITING_MAX} are waiting; read faster or ask for less"
                        );
                    }
                    Err(mpsc::error::TrySendError::Closed(_)) => return String::new(),
                }
            }
            tokio::time::sleep(self.interval).await;
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                // Without a log there is nobody to tell; then only the clock does.
                Ok(()) = arrivals.changed() => {}
            }
        }
    }

    /// A number that changes when samples arrive that the query selects.
    async fn newest(&self) -> Result<u64, ApiError> {
        let lookback = self.state.engine.limits().lookback;
        let watched = self.watched.clone();
        ask(&self.state, move |source, budget| {
            let to_ms = now_ms() + AHEAD_MS;
            let select = Select::Last { from_ms: to_ms - AHEAD_MS - lookback.as_millis() as i64, to_ms };
            newest(source, &watched, select, budget)
        })
        .await
    }

    async fn result(&self) -> Result<String, QueryError> {
        let span = Span::Instant { at_ms: now_ms() };
        let request = Request { text: self.text.clone(), span, timeout: None, lookback: None };
        let answer = self.state.engine.query(self.state.source.clone(), request).await?;
        Ok(result::text(answer, self.limit))
    }
}

/// Clocks of writers may be so far ahead.
const AHEAD_MS: i64 = 10 * 60 * 1000;

fn newest(source: &dyn Source, watched: &Watched, select: Select, budget: &Budget) -> Result<u64, SelectError> {
    let mut sum: u64 = 0;
    for matchers in watched {
        for series in source.select(matchers, select, budget)? {
            let float = series.floats.last().map(|sample| (sample.timestamp_ms, sample.value.to_bits()));
            let histogram = series.histograms.last().map(|(at_ms, histogram)| (*at_ms, histogram.sum.to_bits()));
            let (at_ms, bits) = float.max(histogram).unwrap_or_default();
            // Order does not matter: the store gives none. A series that ends changes the sum too.
            let mixed = (at_ms as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bits.rotate_left(17);
            sum = sum.wrapping_add(mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1);
        }
    }
    Ok(sum)
}
