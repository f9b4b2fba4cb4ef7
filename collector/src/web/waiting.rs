//! What is answered while the data directory is read: 503 with the progress, in the form that the asker expects.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Door;
use crate::store::{Progress, Segments};

/// Clients of the API get Prometheus' error form, people a sentence. A writer that sees `Retry-After` keeps its samples.
pub fn patience(progress: &Progress, path: &str) -> Response {
    let reason = format!("the collector is not ready: it is {progress}; come again in a moment");
    let (status, again) = (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]);
    match path.starts_with("/api/") {
        true => {
            let error = Json(json!({ "status": "error", "errorType": "unavailable", "error": reason }));
            (status, again, error).into_response()
        }
        false => (status, again, reason + "\n").into_response(),
    }
}

/// Prometheus' form: the first and the last segment of the log by number, and the one that is read.
pub async fn walreplay(State(door): State<Door>) -> Response {
    let (segments, state) = match (door.progress.segments(), door.pages.get()) {
        (None, _) => (Segments { all: 0, done: 0 }, "waiting"),
        (Some(segments), None) => (segments, "in progress"),
        (Some(segments), Some(_)) => (segments, "done"),
    };
    let data = json!({ "min": 0, "max": segments.all, "current": segments.done, "state": state });
    Json(json!({ "status": "success", "data": data })).into_response()
}
