//! An axum router needs layers without errors: the compiler's own text is enough.
//~ the trait bound `Infallible: From<BreakerError<Infallible>>` is not satisfied

use axum::Router;
use axum::routing::get;
use tower_breaker::{BreakerConfig, BreakerLayer};

fn main() {
    let breaker = BreakerLayer::new(BreakerConfig::default());
    let _: Router = Router::new().route("/", get(async || "hello")).layer(breaker);
}
