//! Prometheus' HTTP API, the half that reads: queries, series and labels, status, federation.
//!
//! [`router`] holds the paths; the server, `/metrics`, targets and the status page are mounted beside it.

mod admin;
mod escape;
mod federate;
mod format;
mod json;
mod listing;
mod live;
mod params;
pub mod protobuf;
mod query;
mod reply;
mod result;
mod series;
mod state;
mod status;
mod stream;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::compression::CompressionLayer;

pub use admin::admin_router;
pub use escape::{Escaping, is_plain};
pub use format::{Format, Syntax};
pub use live::LIVE_MAX;
pub use state::{ApiState, BuildInfo, Settings, Told};

/// The read API under `/api/v1` and `/federate`.
pub fn router(state: ApiState) -> Router {
    let api = Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(query::exemplars).post(query::exemplars))
        .route("/live", get(live::live))
        .route("/format_query", get(query::format).post(query::format))
        .route("/parse_query", get(query::parse).post(query::parse))
        .route("/series", get(series::series).post(series::series))
        .route("/labels", get(series::labels).post(series::labels))
        .route("/label/{name}/values", get(series::values))
        .route("/metadata", get(series::metadata))
        .route("/targets/metadata", get(series::target_metadata))
        .route("/rules", get(status::rules))
        .route("/alerts", get(status::alerts))
        .route("/alertmanagers", get(status::alertmanagers))
        .route("/status/buildinfo", get(status::buildinfo))
        .route("/status/config", get(status::config))
        .route("/status/flags", get(status::flags))
        .route("/status/runtimeinfo", get(status::runtimeinfo))
        .route("/status/tsdb", get(status::tsdb))
        .route("/admin/tsdb/{action}", post(status::admin).put(status::admin))
        .route("/otlp/v1/metrics", post(status::otlp))
        .layer(middleware::from_fn(cors));
    Router::new()
        .nest("/api/v1", api)
        .route("/federate", get(federate::federate))
        .layer(CompressionLayer::new())
        .with_state(state)
}

/// Lets pages of any origin read, as Prometheus does by default; answers preflights.
async fn cors(request: Request, next: Next) -> Response {
    let from_page = request.headers().contains_key(header::ORIGIN);
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    if from_page {
        let headers = response.headers_mut();
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}
