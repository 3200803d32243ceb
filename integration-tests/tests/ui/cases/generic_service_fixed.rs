//! A generic service with the bounds.

use http::{Request, Response};
use tower::{Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_fault_classify::Outcome;

fn check<Request, S: Service<Request>>(_: &S) {}

fn guard<S>(service: S)
where
    S: Service<Request<()>> + Clone,
    S::Response: Outcome,
    S::Error: std::error::Error + 'static,
{
    let service = ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service);
    check::<Request<()>, _>(&service);
}

fn main() {
    guard(tower::service_fn(async |_: Request<()>| Ok::<_, std::io::Error>(Response::new(()))));
}
