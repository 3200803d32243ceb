//! `docs/layer-order.md`: how outcomes are handled, and clients that retry by themselves.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioExecutor;
use integration_tests::{FrozenTime, TIMEOUT, retry_at_once};
use reqwest::Method;
use reqwest_middleware::ClientBuilder;
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use test_servers::{Action, Grpc, Http, Reason, Reply};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, advance};
use tower::retry::RetryLayer;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerError, BreakerLayer, Circuit, CircuitState};
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_error};
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

use super::{SECOND, circuit, client, request};

/// Two consecutive failures open the circuit. The response between two failures resets the count if
/// it is healthy, and does not if it is neutral.
#[tokio::test]
async fn success_resets_consecutive_failures_neutral_does_not() {
    let rows = [(200, true), (404, true), (401, true), (429, false), (408, false), (500, false)];
    for (between, resets) in rows {
        let server = Http::start().await;
        server.script([500, between, 500].map(Action::status));
        let layer = BreakerLayer::new(circuit().consecutive_failures(2).build().unwrap());
        let circuit = layer.circuit();
        let stack = ServiceBuilder::new().layer(layer).layer(FaultClassifyLayer::new()).service(client());
        for _ in 0..3 {
            let _ = stack.clone().oneshot(request(Method::POST, &server)).await;
        }
        let (state, calls) = if resets { (CircuitState::Closed, 3) } else { (CircuitState::Open, 0) };
        let status = circuit.status();
        assert_eq!((status.state, status.window.calls), (state, calls), "{between}");
    }
}

/// A POST that is shed was not sent, and is retried. A POST that times out may have been processed,
/// and is not retried.
#[tokio::test(start_paused = true)]
async fn post_shed_below_is_retried_post_timed_out_is_not() {
    let server = Http::start().await;
    server.script([Action::Hang]);
    let policy = RetryPolicy::builder()
        .initial_backoff(6 * SECOND)
        .backoff_multiplier(1.0)
        .jitter(Jitter::None)
        .build()
        .unwrap();
    let layer = BreakerLayer::new(circuit().build().unwrap());
    let circuit = layer.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .layer(layer)
        .layer(FaultClassifyLayer::new())
        .load_shed()
        .concurrency_limit(1)
        .timeout(10 * SECOND)
        .service(client());
    let first = tokio::spawn(stack.clone().oneshot(request(Method::POST, &server)));
    {
        let _frozen = FrozenTime::start();
        server.wait_for_requests(1).await;
    }
    let start = Instant::now();
    let second = stack.oneshot(request(Method::POST, &server));
    assert_eq!(second.await.unwrap().status(), 200);
    assert!(start.elapsed() >= 12 * SECOND, "the slot was taken immediately and after six seconds");
    assert_eq!(classify_error(&first.await.unwrap().unwrap_err()).kind(), Kind::Timeout);
    let window = circuit.status().window;
    assert_eq!((server.requests().len(), window.calls, window.failures, window.cancelled), (2, 2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn full_buffer_below_is_retried_and_not_counted() {
    let layer = BreakerLayer::new(circuit().build().unwrap());
    let circuit = layer.circuit();
    let sent = AtomicUsize::new(0);
    let policy = RetryPolicy::builder()
        .initial_backoff(SECOND)
        .backoff_multiplier(1.0)
        .jitter(Jitter::None)
        .build()
        .unwrap();
    // The test holds the only permit, so the buffer's worker waits with the first request.
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
    let held = std::sync::Arc::clone(&permits).acquire_owned().await.unwrap();
    let limited = tower::limit::ConcurrencyLimit::with_semaphore(
        service_fn(async |_: http::Request<()>| Ok::<_, io::Error>(http::Response::new(()))),
        permits,
    );
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .map_request(|request| {
            sent.fetch_add(1, Ordering::Relaxed);
            request
        })
        .layer(layer)
        .layer(FaultClassifyLayer::new())
        .load_shed()
        .buffer(1)
        .service(limited);
    let post = || http::Request::post("/").body(()).unwrap();
    let mut one = tokio_test::task::spawn(stack.clone().oneshot(post()));
    let mut two = tokio_test::task::spawn(stack.clone().oneshot(post()));
    let mut three = tokio_test::task::spawn(stack.clone().oneshot(post()));
    assert!(one.poll().is_pending());
    yield_now().await;
    assert!(two.poll().is_pending() && three.poll().is_pending());
    assert_eq!((sent.load(Ordering::Relaxed), circuit.status().window.calls), (3, 0));
    drop(held);
    for task in [one, two, three] {
        task.await.unwrap();
    }
    let window = circuit.status().window;
    assert_eq!((sent.load(Ordering::Relaxed), window.calls, window.failures), (4, 3, 0));
}

async fn call_three_times<S>(stack: S)
where
    S: Service<u32, Error: Into<BoxError>, Response: Send, Future: Send> + Clone + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let stack = stack.clone();
        tasks.spawn(async move { stack.oneshot(7).await.map(drop).map_err(Into::into) });
    }
    for answer in tasks.join_all().await {
        let answer: Result<(), BoxError> = answer;
        answer.unwrap();
    }
}

/// Three calls of 0.6 s share one slot, so the last call waits for 1.2 s. A call of 1 s or more is
/// slow.
#[tokio::test(start_paused = true)]
async fn wait_for_limit_is_not_slow_wait_in_buffer_is() {
    let slow = || circuit().slow_call_rate(SECOND, 1.0).build().unwrap();
    let service = || {
        service_fn(async |item: u32| {
            tokio::time::sleep(Duration::from_millis(600)).await;
            Ok::<_, io::Error>(item)
        })
    };
    let layer = BreakerLayer::new(slow());
    let circuit = layer.circuit();
    let start = Instant::now();
    call_three_times(ServiceBuilder::new().layer(layer).concurrency_limit(1).service(service())).await;
    assert_eq!((start.elapsed().as_millis(), circuit.status().window.slow), (1_800, 0));

    let layer = BreakerLayer::new(slow());
    let circuit = layer.circuit();
    call_three_times(ServiceBuilder::new().layer(layer).buffer(3).concurrency_limit(1).service(service()))
        .await;
    assert_eq!((circuit.status().window.calls, circuit.status().window.slow), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn wait_for_rate_limit_without_buffer_is_not_slow() {
    let layer = BreakerLayer::new(circuit().slow_call_rate(SECOND, 1.0).build().unwrap());
    let circuit = layer.circuit();
    let mut stack = ServiceBuilder::new()
        .layer(layer.without_clone())
        .rate_limit(1, 2 * SECOND)
        .service(service_fn(async |item: u32| Ok::<_, io::Error>(item)));
    let start = Instant::now();
    for _ in 0..3 {
        stack.ready().await.unwrap().call(7).await.unwrap();
    }
    assert_eq!((start.elapsed().as_secs(), circuit.status().window.slow), (4, 0));
}

/// tower's `Timeout` starts with the call, so it excludes the wait for readiness before the call.
#[tokio::test(start_paused = true)]
async fn timeout_excludes_first_readiness_wait_without_buffer() {
    let layer = BreakerLayer::new(circuit().build().unwrap());
    let stack = ServiceBuilder::new()
        .timeout(3 * SECOND)
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(layer)
        .layer(FaultClassifyLayer::new())
        .concurrency_limit(1)
        .service(service_fn(async |seconds: u32| {
            tokio::time::sleep(seconds * SECOND).await;
            Ok::<_, io::Error>(seconds)
        }));
    let start = Instant::now();
    let (first, second, third) =
        tokio::join!(stack.clone().oneshot(2), stack.clone().oneshot(2), stack.clone().oneshot(2));
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(start.elapsed().as_secs(), 6);

    // In a buffer the calls wait after the timeout has started.
    let stack = ServiceBuilder::new().timeout(3 * SECOND).buffer(8).service(stack.into_inner());
    let start = Instant::now();
    let (first, second, third) =
        tokio::join!(stack.clone().oneshot(2), stack.clone().oneshot(2), stack.clone().oneshot(2));
    assert!(first.is_ok() && second.is_err() && third.is_err());
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn half_open_probe_shed_below_frees_slot() {
    let layer = BreakerLayer::new(
        circuit().consecutive_failures(1).probes(1).successes_to_close(1).open_for(SECOND).build().unwrap(),
    );
    let circuit = layer.circuit();
    let stack = ServiceBuilder::new()
        .layer(layer)
        .layer(FaultClassifyLayer::new())
        .load_shed()
        .concurrency_limit(1)
        .service(service_fn(async |item: u32| match item {
            0 => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            item => {
                tokio::time::sleep(item * SECOND).await;
                Ok(item)
            }
        }));
    let mut holder = tokio_test::task::spawn(stack.clone().oneshot(60));
    assert!(holder.poll().is_pending());
    circuit.trip().unwrap();
    advance(2 * SECOND).await;
    for _ in 0..5 {
        let error = stack.clone().oneshot(1).await.unwrap_err();
        assert!(matches!(error, BreakerError::Inner(_)), "the probe slot is free: {error}");
    }
    assert_eq!(circuit.status().state, CircuitState::HalfOpen);
    drop(holder);
    stack.oneshot(1).await.unwrap();
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

/// A retried closure marks its retries, and tower's `RetryLayer` does not.
#[tokio::test]
async fn retries_of_closure_do_not_count_and_those_of_tower_retry_do() {
    let handle = Circuit::new(circuit().consecutive_failures(0).build().unwrap());
    let policy = retry_at_once().build().unwrap();
    let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
    policy.retry(async || handle.call(async { Err::<(), _>(reset()) }).await).await.unwrap_err();
    assert_eq!(handle.status().window.failures, 1);
    let blocking = || handle.call_blocking(|| Err::<(), _>(reset()));
    policy.retry_blocking(blocking).unwrap_err();
    assert_eq!(handle.status().window.failures, 2);

    let layer: BreakerLayer = BreakerLayer::with_circuit(handle.clone());
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(policy.for_tower()))
        .layer(layer)
        .service(service_fn(async |_: http::Request<String>| Err::<http::Response<()>, _>(reset())));
    stack.oneshot(http::Request::new(String::new())).await.unwrap_err();
    assert_eq!(handle.status().window.failures, 5);
}

/// A retry layer above a client that has reqwest-retry in its chain.
#[tokio::test]
async fn reqwest_retry_in_chain_multiplies_attempts() {
    for (inner_retries, requests) in [(0, 3), (2, 9)] {
        let server = Http::start().await;
        server.set_default(Action::status(503));
        let reqwest_retry = ExponentialBackoff::builder()
            .retry_bounds(Duration::ZERO, Duration::ZERO)
            .build_with_max_retries(inner_retries);
        let chain = ClientBuilder::new(client())
            .with(RetryTransientMiddleware::new_with_policy(reqwest_retry))
            .build();
        let stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
            .layer(BreakerLayer::new(circuit().consecutive_failures(0).build().unwrap()))
            .layer(FaultClassifyLayer::new())
            .service(chain);
        assert_eq!(stack.oneshot(request(Method::GET, &server)).await.unwrap().status(), 503);
        assert_eq!(server.requests().len(), requests);
    }
}

/// An HTTP/2 server refuses the stream. reqwest would send the request again; tonic and hyper-util
/// do not.
#[tokio::test]
async fn refused_stream_is_not_resent_by_tonic_or_hyper_util() {
    let server = Grpc::start().await;
    server.set_default(Reply::nothing().rst_stream(Reason::REFUSED_STREAM));
    let channel = tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    let mut echo = integration_tests::echo::echo_client::EchoClient::new(channel);
    echo.say(integration_tests::echo::Words::default()).await.unwrap_err();
    assert_eq!(server.requests().len(), 1);

    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    client.request(http::Request::get(server.url()).body(Full::default()).unwrap()).await.unwrap_err();
    assert_eq!(server.requests().len(), 2);
}

/// The `Retry-After` of a route is rounded up to seconds, so a client that waits for it finds the
/// circuit half-open.
#[tokio::test(start_paused = true)]
async fn client_waiting_for_retry_after_of_route_is_admitted() {
    let _frozen = FrozenTime::start();
    let calls = std::sync::Arc::new(AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&calls);
    let config = circuit().consecutive_failures(2).probes(1).successes_to_close(1);
    let layer = BreakerLayer::new(config.open_for(Duration::from_millis(7_300)).build().unwrap());
    let handle = layer.circuit();
    let router = Router::new()
        .route(
            "/",
            get(async move || match counter.fetch_add(1, Ordering::Relaxed) {
                0 => panic!("the handler panics"),
                1 => http::StatusCode::INTERNAL_SERVER_ERROR,
                _ => http::StatusCode::OK,
            }),
        )
        .layer(layer.http_fallback());
    let url = format!("http://{}/", integration_tests::serve(router).await);
    let plain = client();
    plain.get(&url).send().await.unwrap_err();
    assert_eq!(plain.get(&url).send().await.unwrap().status(), 500);
    assert_eq!(handle.status().state, CircuitState::Open, "a panic is a failure");

    let retries = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let delays = std::sync::Arc::clone(&retries);
    let policy =
        retry_at_once().on_retry(move |event| delays.lock().unwrap().push(event.delay)).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(plain.clone());
    let call = tokio::spawn(stack.oneshot(plain.get(&url).build().unwrap()));
    while retries.lock().unwrap().is_empty() {
        yield_now().await;
    }
    assert_eq!(*retries.lock().unwrap(), [8 * SECOND]);
    advance(8 * SECOND).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((handle.status().state, calls.load(Ordering::Relaxed)), (CircuitState::Closed, 3));
}
