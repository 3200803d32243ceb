//! With their features, the types of the clients pass all layers.

use std::io;

use http::{Request, Response};
use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

fn check<Request, S: Service<Request>>(_: &S) {}

fn reqwest() {
    let client = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .layer(BreakerLayer::new(BreakerConfig::default()))
        .layer(FaultClassifyLayer::new())
        .service(reqwest::Client::new());
    check::<reqwest::Request, _>(&client);
}

fn body<B>()
where
    B: tower_jitter_retry::replay::RetryBody,
{
    let client = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .service(service_fn(async |_: Request<B>| Ok::<_, io::Error>(Response::new(()))));
    check::<Request<B>, _>(&client);
}

fn main() {
    reqwest();
    body::<axum::body::Body>();
    body::<tonic::body::Body>();
    body::<reqwest::Body>();
}
