//! A rule before `errors_only`: the compiler's own text is enough.
//~ no method named `errors_only` found for struct `BreakerLayer<RuleFirst<
//~ `BreakerLayer<Auto<K>, R, B>`

use std::io;

use tower_breaker::{BreakerConfig, BreakerLayer, Verdict};

fn ignore(_: Result<&u32, &io::Error>) -> Option<Verdict> {
    None
}

fn main() {
    let _ = BreakerLayer::new(BreakerConfig::default()).rule(ignore).errors_only();
}
