//! A closure under `RetryPolicy::errors_only` may return any type.

use std::io;

use tower_breaker::{BreakerConfig, Circuit};
use tower_jitter_retry::RetryPolicy;

struct Rows;

async fn query() -> Result<Rows, io::Error> {
    Ok(Rows)
}

async fn text() -> Result<Rows, String> {
    Ok(Rows)
}

async fn calls(circuit: Circuit) {
    let _ = RetryPolicy::default().errors_only().retry(query).await;
    let _ = circuit.call(query()).await;
    let _ = circuit.call(async { text().await.map_err(io::Error::other) }).await;
}

fn main() {
    drop(calls(Circuit::new(BreakerConfig::default())));
}
