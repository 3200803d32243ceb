//! A rule reads a response whose type it does not name: the compiler's own text is enough.
//~ type annotations needed for `Result<_, _>`
//~ consider giving this closure parameter an explicit type

use tower_breaker::{BreakerConfig, BreakerLayer, Verdict};

fn main() {
    let _ = BreakerLayer::new(BreakerConfig::default()).rule(|outcome| match outcome {
        Ok(response) if response.status() == 404 => Some(Verdict::Success),
        _ => None,
    });
}
