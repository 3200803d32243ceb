//! A fallback answers rejected calls, so that the layer has no errors.

use axum::Router;
use axum::routing::get;
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

fn main() {
    let breaker = BreakerLayer::new(BreakerConfig::default()).http_fallback();
    let retry = JitterRetryLayer::new(RetryPolicy::default());
    let _: Router = Router::new().route("/", get(async || "hello")).layer(breaker).layer(retry);
}
