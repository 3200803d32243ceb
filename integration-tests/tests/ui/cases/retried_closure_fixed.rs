//! A closure under `errors_only` may return any type. A closure that changes a variable returns an
//! async block.

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
    let _ = circuit.errors_only().call(query()).await;
    let _ = circuit.errors_only().call(async { text().await.map_err(io::Error::other) }).await;
    let mut attempts = 0;
    let attempt = || {
        attempts += 1;
        let number = attempts;
        async move { Ok::<u32, io::Error>(number) }
    };
    let _ = RetryPolicy::default().retry(attempt).await;
}

fn main() {
    drop(calls(Circuit::new(BreakerConfig::default())));
}
