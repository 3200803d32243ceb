//! Rules over a typed and over a boxed error.

use std::io;

use tower::{BoxError, Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer, Verdict};
use tower_fault_classify::rule_fn;

async fn typed(_: u32) -> Result<u32, io::Error> {
    Ok(7)
}

async fn boxed(_: u32) -> Result<u32, BoxError> {
    Ok(7)
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default())
        .rule(|outcome: Result<&u32, &io::Error>| outcome.is_ok().then_some(Verdict::Success));
    let service = ServiceBuilder::new().layer(layer).service(service_fn(typed));
    check::<u32, _>(&service);

    let layer = BreakerLayer::new(BreakerConfig::default())
        .rule(rule_fn(|outcome: Result<&u32, &BoxError>| outcome.is_ok().then_some(Verdict::Success)));
    let service = ServiceBuilder::new().layer(layer).service(service_fn(boxed));
    check::<u32, _>(&service);

    let layer = BreakerLayer::new(BreakerConfig::default())
        .rule(rule_fn(|outcome| outcome.is_ok().then_some(Verdict::Success)));
    let service = ServiceBuilder::new().layer(layer).service(service_fn(typed));
    check::<u32, _>(&service);
}
