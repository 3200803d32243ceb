//! `read_error_bodies` over a response without a body.
//~ the body of the response `String` cannot be read or replaced
//~ need an `http::Response<B>` whose `B` implements `http_body::Body`

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_fault_classify::body::{ErrorBodies, ErrorBody};
use tower_fault_classify::{FaultClassifyLayer, Verdict};

async fn shout(word: String) -> Result<String, io::Error> {
    Ok(word.to_uppercase())
}

fn keep_verdict(_: &ErrorBody<'_>) -> Option<Verdict> {
    None
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(keep_verdict));
    let service = ServiceBuilder::new().layer(layer).service(service_fn(shout));
    check::<String, _>(&service);
}
