//! A closure under `RetryPolicy::retry` returns a type that does not implement `Outcome`.
//~ a verdict cannot be read from the response `Rows`, because it does not implement `Outcome`
//~ write `impl Outcome for Rows {}`
//~ call `.errors_only()` on the layer, the policy or the circuit

use std::io;

use tower_jitter_retry::RetryPolicy;

struct Rows;

async fn query() -> Result<Rows, io::Error> {
    Ok(Rows)
}

fn main() {
    let _ = RetryPolicy::default().retry(query);
}
