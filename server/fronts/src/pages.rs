//! The pages for machines that look after the server: `/metrics`, `/health/live`, `/health/ready`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};

/// What the pages ask the server.
pub trait Probe: Send + Sync + 'static {
    /// Whether the server can serve calls now: `ok` or why not in the first line, how it stands in the others.
    ///
    /// # Errors
    /// The same when it can't.
    fn ready(&self) -> Result<String, String>;

    /// All metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// The pages, answering from `probe`.
pub fn router(probe: Arc<dyn Probe>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .fallback(nothing)
        .with_state(probe)
}

/// Prometheus' text exposition format, version 0.0.4.
async fn metrics(State(probe): State<Arc<dyn Probe>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], probe.metrics()).into_response()
}

/// The process answers: that is all there is to being alive.
async fn live() -> &'static str {
    "ok\n"
}

async fn ready(State(probe): State<Arc<dyn Probe>>) -> Response {
    match probe.ready() {
        Ok(text) => text.into_response(),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
    }
}

async fn nothing() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "there is no such page; see /metrics, /health/live, /health/ready and /discovery/prometheus\n",
    )
}
