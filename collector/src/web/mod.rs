//! The HTTP server: what is answered before the data is read, who may ask, and where each page lies.

mod exposition;
mod families;
mod lenient;
mod page;
mod scrape;
mod targets;
mod waiting;

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use crate::auth::Access;
use crate::fleet::Registry;
use crate::store::{Progress, Source};
use crate::telemetry::Telemetry;

pub use lenient::Lenient;

/// Longest time for a client to send its request's head.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// What the pages read.
pub struct Web {
    source: Arc<dyn Source>,
    registry: Arc<Registry>,
    telemetry: Arc<Telemetry>,
    scrapes: Arc<Semaphore>,
}

impl Web {
    pub fn new(source: Arc<dyn Source>, registry: Arc<Registry>, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let scrapes = Arc::new(Semaphore::new(scrape::SCRAPES_MAX));
        Arc::new(Self { source, registry, telemetry, scrapes })
    }
}

/// All pages; `api` are those of queries.
pub fn pages(web: Arc<Web>, api: Router) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/metrics", get(scrape::metrics))
        .route("/api/v1/targets", get(targets::targets))
        .with_state(web)
        .merge(api)
}

/// The pages once there are any: the server answers from the first moment, the data takes its time.
#[derive(Clone)]
pub struct Door {
    pages: Arc<OnceLock<Router>>,
    access: Arc<Access>,
    telemetry: Arc<Telemetry>,
    progress: Progress,
}

impl Door {
    pub fn new(access: Arc<Access>, telemetry: Arc<Telemetry>, progress: Progress) -> Self {
        Self { pages: Arc::default(), access, telemetry, progress }
    }

    /// From now on the pages are served, and `/-/ready` says so.
    pub fn open(&self, pages: Router) {
        // Only the first call counts: a second set of pages would have a store of its own.
        let _ = self.pages.set(pages);
    }

    /// The whole server.
    pub fn router(self) -> Router {
        let guarded = Router::new()
            .route("/api/v1/status/walreplay", get(waiting::walreplay))
            .fallback(page_or_patience)
            .layer(middleware::from_fn_with_state(self.clone(), check_token))
            .with_state(self.clone());
        Router::new()
            // Without a token, as probes have none.
            .route("/-/healthy", get(|| async { "The collector is healthy.\n" }))
            .route("/-/ready", get(ready))
            .with_state(self)
            .merge(guarded)
            .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
            .layer(CatchPanicLayer::custom(broken))
    }
}

async fn ready(State(door): State<Door>) -> Response {
    match door.pages.get() {
        Some(_) => "The collector is ready.\n".into_response(),
        None => waiting::patience(&door.progress, "/-/ready"),
    }
}

async fn page_or_patience(State(door): State<Door>, request: Request) -> Response {
    match door.pages.get() {
        Some(pages) => pages.clone().oneshot(request).await.into_response(),
        None => waiting::patience(&door.progress, request.uri().path()),
    }
}

async fn check_token(State(door): State<Door>, request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    if door.access.permits(token) {
        return next.run(request).await;
    }
    door.telemetry.unauthorised.one();
    let text = "Send the collector's token: Authorization: Bearer TOKEN\n";
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], text).into_response()
}

fn broken(_: Box<dyn Any + Send + 'static>) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "The collector could not answer this; its log has more.\n").into_response()
}

#[cfg(test)]
mod tests;
