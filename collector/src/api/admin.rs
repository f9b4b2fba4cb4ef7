//! Prometheus' admin API: delete series, take them off the disk, take a snapshot. Mounted only where `--enable-admin-api` asks for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::store::{CopyDir, Store};

use super::params::{Params, invalid};
use super::reply::{ApiError, success};

/// Far enough to mean "always", near enough to add to.
const ALWAYS_MS: (i64, i64) = (i64::MIN / 4, i64::MAX / 4);

/// Longest time for taking what is deleted off the disk: all partitions that hold some of it are written anew.
const CLEAN_WITHIN: Duration = Duration::from_secs(3600);

#[derive(Clone)]
struct Admin {
    store: Arc<Store>,
    data_dir: PathBuf,
    /// One snapshot at a time: each reads all there is.
    snapshots: Arc<Semaphore>,
}

/// The paths under `/api/v1/admin/tsdb`.
pub fn admin_router(store: Arc<Store>, data_dir: PathBuf) -> Router {
    let admin = Admin { store, data_dir, snapshots: Arc::new(Semaphore::new(1)) };
    Router::new()
        .route("/api/v1/admin/tsdb/delete_series", post(delete_series).put(delete_series))
        .route("/api/v1/admin/tsdb/snapshot", post(snapshot).put(snapshot))
        .route("/api/v1/admin/tsdb/clean_tombstones", post(clean_tombstones).put(clean_tombstones))
        .with_state(admin)
}

async fn delete_series(State(admin): State<Admin>, params: Params) -> Result<StatusCode, ApiError> {
    let any_of = params.matchers().await?;
    if any_of.is_empty() {
        return Err(ApiError::bad("no match[] parameter provided"));
    }
    let from_ms = params.time("start")?.unwrap_or(ALWAYS_MS.0);
    let to_ms = params.time("end")?.unwrap_or(ALWAYS_MS.1);
    if to_ms < from_ms {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    let erased = tokio::task::spawn_blocking(move || admin.store.erase(&any_of, from_ms, to_ms)).await;
    let erased = erased.map_err(|error| ApiError::internal(format!("the deletion ended early: {error}")))?;
    let series = erased.map_err(|error| ApiError::unavailable(error.to_string()))?;
    tracing::info!(series, from_ms, to_ms, "samples are deleted, as the admin API was told");
    Ok(StatusCode::NO_CONTENT)
}

/// A backup in the data directory itself, under the name that is answered.
async fn snapshot(State(admin): State<Admin>) -> Result<Response, ApiError> {
    let Ok(permit) = admin.snapshots.clone().try_acquire_owned() else {
        return Err(ApiError::unavailable("another snapshot is being made; wait for its end"));
    };
    let name = format!("{}-{:016x}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), rand::random::<u64>());
    let dir = admin.data_dir.join("snapshots").join(&name);
    let made = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        let _permit = permit;
        let mut copy = CopyDir::new(&dir)?;
        let backed = admin.store.backup(&mut copy)?;
        copy.finish()?;
        tracing::info!(dir = %dir.display(), values = backed.values, missing = backed.missing, "a snapshot was made");
        Ok(())
    });
    let made = made.await.map_err(|error| ApiError::internal(format!("the snapshot ended early: {error}")))?;
    made.map_err(|error| ApiError::internal(format!("no snapshot was made: {error:#}")))?;
    Ok(success(json!({ "name": name })))
}

/// Takes what is deleted off the disk; ends when that is done.
async fn clean_tombstones(State(admin): State<Admin>) -> Result<StatusCode, ApiError> {
    let clean = tokio::task::spawn_blocking(move || admin.store.clean(CLEAN_WITHIN)).await;
    match clean.map_err(|error| ApiError::internal(format!("the cleaning ended early: {error}")))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::internal(
            "not all that is deleted could be taken off the disk, and it stays hidden; the collector's log says why",
        )),
    }
}
