//! The soak over a function, without sockets and streaming bodies.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use test_servers::RecordedRequest;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::BreakerLayer;
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::JitterRetryLayer;

use crate::load::{AttemptOutcome, Ledger, Order, check, number, run};
use crate::{TIMEOUT, circuit, policy};

/// Answers a call. One call in five gets one of six failures, in turn.
///
/// It records the call, except if the number of the call is one that cannot be reached.
fn answer(record: &Mutex<Vec<RecordedRequest>>, request: Request<Bytes>) -> io::Result<Response<Bytes>> {
    let (head, body) = request.into_parts();
    let order = Order::new(number(head.uri.path()));
    if !order.is_reachable() {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let echo = [head.uri.path().as_bytes(), b"\n", &*body].concat();
    let (method, path) = (head.method, head.uri.path().to_owned());
    let mut record = record.lock().unwrap();
    record.push(RecordedRequest { connection: 0, method, path, headers: HeaderMap::new(), body });
    let fault = |status| Response::builder().status(status).body(Bytes::new()).map_err(io::Error::other);
    match record.len() % 30 {
        5 => fault(StatusCode::SERVICE_UNAVAILABLE),
        10 => fault(StatusCode::INTERNAL_SERVER_ERROR),
        15 => fault(StatusCode::TOO_MANY_REQUESTS),
        20 => Err(io::ErrorKind::ConnectionReset.into()),
        25 => Err(io::ErrorKind::TimedOut.into()),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(Response::new(echo.into())),
    }
}

fn attempt_outcome(result: &io::Result<Response<Bytes>>) -> AttemptOutcome {
    match result {
        Ok(response) => AttemptOutcome::from_status(response.status()),
        Err(error) => AttemptOutcome::without_response(error.kind() == io::ErrorKind::ConnectionRefused),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_over_function_add_up() {
    let (ledger, breaker) = (Ledger::default(), BreakerLayer::new(circuit()));
    let (handle, requests) = (breaker.circuit(), Arc::new(Mutex::new(Vec::new())));
    let record = Arc::clone(&requests);
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(ledger.layer(|request: &Request<Bytes>| number(request.uri().path()), attempt_outcome))
        .service(service_fn(move |request| {
            let record = Arc::clone(&record);
            async move {
                // Lets calls overlap.
                tokio::task::yield_now().await;
                answer(&record, request)
            }
        }));
    let outcomes = run(move |order| {
        let stack = stack.clone();
        async move {
            let request = Request::builder().method(&order.method).uri(&order.path).body(order.body)?;
            let response = stack.oneshot(request).await?;
            Ok((response.status().as_u16(), response.into_body()))
        }
    })
    .await;
    check(&outcomes, &ledger, handle.status().window, &requests.lock().unwrap(), 0);
}
