//! `GET /metrics`: the current value of every series, streamed.
//!
//! The store is walked on a thread of its own, which waits for the reader between pieces: a slow reader costs a thread and
//! a few pieces, never memory for the whole, and one that stops reading is let go.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, future, stream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::Web;
use super::exposition::Exposition;
use super::families::Families;
use crate::api::{Format, Syntax};
use crate::query;
use crate::store::Matcher;
use crate::telemetry::Telemetry;

/// Readers at once; more are asked to come again.
pub const SCRAPES_MAX: usize = 8;

/// Pieces on their way to a reader.
const PIECES_MAX: usize = 4;

/// Longest wait for a reader to take a piece.
const PIECE_WITHIN: Duration = Duration::from_secs(10);

pub async fn metrics(
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    let format = Format::wanted(&headers);
    // Away from the async workers: making patterns ready may take a while.
    let any_of = match tokio::task::spawn_blocking(move || selectors(&parameters)).await {
        Ok(Ok(any_of)) => any_of,
        Ok(Err(text)) => return (StatusCode::BAD_REQUEST, text).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    let Ok(place) = web.scrapes.clone().try_acquire_owned() else {
        let text = format!("{SCRAPES_MAX} readers of /metrics are served already; come again in a moment\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let (pieces, body) = mpsc::channel::<Bytes>(PIECES_MAX);
    let whole = Arc::new(AtomicBool::new(false));
    let told = whole.clone();
    tokio::task::spawn_blocking(move || {
        let is_whole = write(&web, format, &any_of, &pieces, place);
        told.store(is_whole, Ordering::SeqCst);
    });
    // A page that merely ended would be taken for all there is, and the rest of the series for ended.
    let end = stream::once(future::lazy(move |_| whole.load(Ordering::SeqCst)));
    let end = end.filter(|whole| future::ready(!whole)).map(|_| Err(io::Error::other("the page was not finished")));
    let body = Body::from_stream(ReceiverStream::new(body).map(Ok).chain(end));
    ([(header::CONTENT_TYPE, format.content_type())], body).into_response()
}

/// Says whether all of the page is on its way.
fn write(
    web: &Web,
    format: Format,
    any_of: &[Vec<Matcher>],
    pieces: &mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
) -> bool {
    let _running = Running::new(&web.telemetry);
    let runtime = Handle::current();
    let taken = Cell::new(true);
    let mut send = |piece: Bytes| {
        let sent = runtime.block_on(pieces.send_timeout(piece, PIECE_WITHIN));
        taken.set(sent.inspect_err(|_| web.telemetry.scrapes_aborted.one()).is_ok());
        taken.get()
    };
    let metas = web.source.metadata(None);
    if format.syntax == Syntax::Protobuf {
        let mut families = Families::new(format.escaping, metas, &mut send);
        web.source.latest(any_of, &mut |name, series| families.write(name, series));
        families.finish();
        return taken.get();
    }
    let mut exposition = Exposition::new(format, metas, &mut send);
    web.source.latest(any_of, &mut |name, series| exposition.write(name, series));
    exposition.finish();
    taken.get()
}

/// Counts a scrape while it runs.
struct Running<'a>(&'a Telemetry);

impl<'a> Running<'a> {
    fn new(telemetry: &'a Telemetry) -> Self {
        telemetry.scrapes.add(1);
        Self(telemetry)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.scrapes.add(-1);
    }
}

/// The lists of matchers of all `match[]`. Other parameters are for nobody here: Prometheus sends what its `params` say.
fn selectors(parameters: &[(String, String)]) -> Result<Vec<Vec<Matcher>>, String> {
    let texts = parameters.iter().filter(|(name, _)| name == "match[]").map(|(_, value)| value.as_str());
    query::parse_selectors(texts).map_err(|(text, error)| format!("match[]={text}: {error}\n"))
}
