//! The body of the request is wrapped.

use std::io;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use tower::{Service, ServiceBuilder, service_fn};
use tower_jitter_retry::{JitterRetryLayer, ReplayBody, RetryPolicy};

type Upload = UnsyncBoxBody<Bytes, io::Error>;

async fn send(_: Request<ReplayBody<Upload>>) -> Result<Response<()>, io::Error> {
    Ok(Response::new(()))
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let client =
        ServiceBuilder::new().layer(JitterRetryLayer::new(RetryPolicy::default())).service(service_fn(send));
    check::<Request<ReplayBody<Upload>>, _>(&client);
}
