//! The value of a call through a `Circuit` does not implement `Outcome`.
//~ a verdict cannot be read from the response `Rows`, because it does not implement `Outcome`
//~ call `.errors_only()`

use std::io;

use tower_breaker::{BreakerConfig, Circuit};

struct Rows;

async fn query() -> Result<Rows, io::Error> {
    Ok(Rows)
}

async fn call(circuit: Circuit) {
    let _ = circuit.call(query()).await;
}

fn main() {
    drop(call(Circuit::new(BreakerConfig::default())));
}
