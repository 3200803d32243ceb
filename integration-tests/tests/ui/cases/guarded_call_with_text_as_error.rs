//! The error of a call through a `Circuit` does not implement `Error`.
//~ `String` is neither a `'static` type that implements `std::error::Error` nor a box of one
//~ implement `std::error::Error` for it, or convert it

use tower_breaker::{BreakerConfig, Circuit};

async fn query() -> Result<u32, String> {
    Err("no such row".to_owned())
}

async fn call(circuit: Circuit) {
    let _ = circuit.call(query()).await;
}

fn main() {
    drop(call(Circuit::new(BreakerConfig::default())));
}
