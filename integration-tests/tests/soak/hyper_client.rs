//! The soak over hyper-util's legacy client, with streaming bodies.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::BreakerLayer;
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{JitterRetryLayer, ReplayBody};

use crate::load::{AttemptOutcome, Ledger, Upstream, number, run};
use crate::{TIMEOUT, circuit, policy};

pub(crate) fn attempt_outcome(result: &Result<Response<Incoming>, Error>) -> AttemptOutcome {
    match result {
        Ok(response) => AttemptOutcome::from_status(response.status()),
        Err(error) => AttemptOutcome::without_response(error.is_connect()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_over_hyper_util_add_up() {
    let (upstream, ledger, breaker) =
        (Upstream::start().await, Ledger::default(), BreakerLayer::new(circuit()));
    let handle = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(ledger.layer(|request: &Request<_>| number(request.uri().path()), attempt_outcome))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let base = upstream.base();
    let outcomes = run(move |order| {
        let (stack, base) = (stack.clone(), base.clone());
        async move {
            let frames: Vec<_> = order.body.chunks(1_000).map(Bytes::copy_from_slice).collect();
            let frames = frames.into_iter().map(|data| Ok::<_, Infallible>(Frame::data(data)));
            let body = ReplayBody::new(StreamBody::new(tokio_stream::iter(frames)));
            let request =
                Request::builder().method(&order.method).uri(base(&order) + &order.path).body(body)?;
            let response = stack.oneshot(request).await?;
            let status = response.status().as_u16();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        }
    })
    .await;
    upstream.check(&outcomes, &ledger, handle.status().window);
}
