//! A `BreakerLayer` that no stack uses: its error markers stay unknown.
//~ type annotations needed for `BreakerLayer<Auto<_>, ReturnError<_>>`

use tower_breaker::{BreakerConfig, BreakerLayer};

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default());
    let circuit = layer.circuit();
    println!("{}", circuit.status().circuit);
}
