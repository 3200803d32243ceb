//! A generic service without bounds on its response and its error.
//~ cannot classify a `Result<<S as Service<http::Request<()>>>::Response
//~ a generic function needs the bounds `S::Response: Outcome` and `S::Error: std::error::Error

use http::{Request, Response};
use tower::{Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};

fn check<Request, S: Service<Request>>(_: &S) {}

fn guard<S>(service: S)
where
    S: Service<Request<()>> + Clone,
{
    let service = ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service);
    check::<Request<()>, _>(&service);
}

fn main() {
    guard(tower::service_fn(async |_: Request<()>| Ok::<_, std::io::Error>(Response::new(()))));
}
