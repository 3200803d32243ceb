//! `Circuit::call` gets a closure in place of a future: the compiler's own text is enough.
//~ is not a future

use std::io;

use tower_breaker::{BreakerConfig, Circuit};

async fn call(circuit: Circuit) {
    let _ = circuit.call(async || Ok::<_, io::Error>(7)).await;
}

fn main() {
    drop(call(Circuit::new(BreakerConfig::default())));
}
