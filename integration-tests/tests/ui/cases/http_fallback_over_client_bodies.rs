//! The ready-made answers fit the bodies of clients, and keep the type of `reqwest::Response`.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::Full;
use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::fallback::FallbackBody;
use tower_breaker::{BreakerConfig, BreakerLayer};

type Body = http_body_util::combinators::BoxBody<bytes::Bytes, Infallible>;

async fn found(_: Request<Full<bytes::Bytes>>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::default()))
}

fn check<Request, Response, S: Service<Request, Response = Response>>(_: &S) {}

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default()).http_fallback();
    let service = ServiceBuilder::new().layer(layer).service(service_fn(found));
    check::<Request<_>, Response<FallbackBody<Body>>, _>(&service);

    let layer = BreakerLayer::new(BreakerConfig::default()).track_body().http_fallback();
    let client = ServiceBuilder::new().layer(layer).service(reqwest::Client::new());
    check::<reqwest::Request, reqwest::Response, _>(&client);
}
