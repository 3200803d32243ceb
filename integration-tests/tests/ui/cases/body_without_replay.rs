//! The body of the request streams, and cannot be sent again.
//~ a retry layer cannot send the body `UnsyncBoxBody<bytes::Bytes, std::io::Error>` again
//~ for any other body that streams, wrap it: `ReplayBody::new(body)`

use std::io;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use tower::{Service, ServiceBuilder, service_fn};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

type Upload = UnsyncBoxBody<Bytes, io::Error>;

async fn send(_: Request<Upload>) -> Result<Response<()>, io::Error> {
    Ok(Response::new(()))
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let client =
        ServiceBuilder::new().layer(JitterRetryLayer::new(RetryPolicy::default())).service(service_fn(send));
    check::<Request<Upload>, _>(&client);
}
