//! The stack over a function, and its readiness.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, CircuitState, Clock};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{JitterRetryLayer, ReplayBody};

use super::policy;

/// Returns a breaker that opens after four failed attempts in a row. Its clock does not advance.
fn breaker() -> BreakerLayer {
    let config = BreakerConfig::builder()
        .name("function")
        .consecutive_failures(4)
        .consecutive_failures_span(Duration::ZERO)
        .count_failed_retries(true)
        .clock(Clock::manual().0);
    BreakerLayer::new(config.build().unwrap())
}

/// The function borrows from the test, so it is not `'static`, and its responses are not `Send`.
#[tokio::test]
async fn borrowing_function_works_as_inner_service() {
    let calls = AtomicUsize::new(0);
    let breaker = breaker();
    let circuit = breaker.circuit();
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(service_fn(async |request: Request<ReplayBody<Full<Bytes>>>| {
            let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
            let answer = std::rc::Rc::new(String::from_utf8(body.to_vec()).unwrap());
            match calls.fetch_add(1, Ordering::Relaxed) {
                0 => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                1 => {
                    let unavailable = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
                    Ok(unavailable.body(answer).unwrap())
                }
                2 => Ok(Response::new(answer)),
                _ => Err(io::ErrorKind::ConnectionReset.into()),
            }
        }));
    let put = || Request::put("/").body(ReplayBody::new(Full::from("thrice"))).unwrap();
    let response = stack.ready().await.unwrap().call(put()).await.unwrap();
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "thrice"));
    assert_eq!(calls.load(Ordering::Relaxed), 3);

    stack.ready().await.unwrap().call(put()).await.unwrap_err();
    let error = stack.ready().await.unwrap().call(put()).await.unwrap_err();
    assert!(matches!(error, BreakerError::Inner(_)), "of the attempt that opened the circuit");
    let error = stack.ready().await.unwrap().call(put()).await.unwrap_err();
    assert!(matches!(error, BreakerError::Rejected(_)), "the call is rejected");
    assert_eq!((circuit.status().state, calls.load(Ordering::Relaxed)), (CircuitState::Open, 7));
}

/// An open circuit does not wait for the concurrency limit below it.
#[tokio::test]
async fn open_circuit_over_full_client_is_ready_and_rejects() {
    let server = test_servers::Http::start().await;
    server.set_default(test_servers::Action::Hang);
    let breaker = breaker();
    let circuit = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .concurrency_limit(1)
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let get = || Request::get(server.url()).body(Full::default()).unwrap();
    let mut running = tokio_test::task::spawn(stack.clone().oneshot(get()));
    assert!(running.poll().is_pending());

    let mut waiting = stack.clone();
    let mut readiness = tokio_test::task::spawn(waiting.ready());
    assert!(readiness.poll().is_pending(), "the only permit is in use");
    circuit.trip().unwrap();
    assert!(readiness.is_woken());
    let std::task::Poll::Ready(Ok(ready)) = readiness.poll() else { panic!("an open circuit is ready") };
    let error = ready.call(get()).await.unwrap_err();
    assert!(matches!(error, BreakerError::Rejected(_)));
}
