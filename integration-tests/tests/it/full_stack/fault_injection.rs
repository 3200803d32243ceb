//! Injected faults, as each client and server has them.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{TIMEOUT, channel, reqwest_client, retry_at_once, words};
use tokio::task::JoinSet;
use tonic::Code;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, CircuitState, Clock, Kind};
use tower_fault_classify::test_util::{FaultInjectionLayer, Injection};
use tower_fault_classify::{BoxError, FaultClassifyLayer, classify_error};
use tower_jitter_retry::{JitterRetryLayer, Retried};

use super::{Upstream, policy};
use crate::tonic::echo_service::TestServer;

fn two_503() -> [Injection; 2] {
    [Injection::status(503), Injection::status(503)]
}

#[tokio::test]
async fn hyper_util_retries_injected_503_and_refused_connection() {
    let upstream = Upstream::start().await;
    let faults = FaultInjectionLayer::new()
        .script([Injection::status(503), Injection::io_error(io::ErrorKind::ConnectionRefused)]);
    let handle = faults.handle();
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(faults)
        .service(client);
    let request = Request::get(upstream.url(200)).body(Empty::new()).unwrap();
    let response = stack.oneshot(request).await.unwrap();
    assert_eq!(response.extensions().get::<Retried>().unwrap().attempts, 3);
    assert_eq!((response.status().as_u16(), upstream.requests()), (200, 1));
    assert_eq!((handle.counts().passed, handle.counts().injected), (1, 2));
}

#[tokio::test]
async fn reqwest_post_is_retried_after_injected_429() {
    let upstream = Upstream::start().await;
    let throttled = Injection::kind(Kind::Throttled).retry_after(Duration::ZERO);
    let faults = FaultInjectionLayer::new().inject(throttled).max_injections(2);
    // A POST is retried after a 429 only if the response has the URL of the request.
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(faults)
        .service(reqwest_client().build().unwrap());
    let request = reqwest::Request::new(http::Method::POST, upstream.url(200).parse().unwrap());
    let response = stack.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.requests()), (200, 1));
}

#[tokio::test]
async fn reqwest_body_breaks_and_breaker_records_it() {
    let url = format!("http://{}", integration_tests::serve(Router::new().route("/", get("hello"))).await);
    let breaker = BreakerLayer::new(BreakerConfig::default()).track_body();
    let circuit = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(FaultInjectionLayer::new().inject(Injection::pass().break_body(2)))
        .service(reqwest_client().build().unwrap());
    let request = reqwest::Request::new(http::Method::GET, url.parse().unwrap());
    let response = stack.oneshot(request).await.unwrap();
    let error = response.bytes().await.unwrap_err();
    assert_eq!(classify_error(&error).kind(), Kind::Transient);
    assert_eq!(circuit.status().window.failures, 1);
}

#[tokio::test]
async fn breaker_opens_at_rate_one_and_closes_after_disable() {
    let (clock, time) = Clock::manual();
    let config = BreakerConfig::builder()
        .consecutive_failures(3)
        .consecutive_failures_span(Duration::ZERO)
        .open_for(Duration::from_secs(30))
        .open_jitter(0.0)
        .successes_to_close(1)
        .clock(clock);
    let breaker = BreakerLayer::new(config.build().unwrap());
    let circuit = breaker.circuit();
    let faults = FaultInjectionLayer::new().inject(Injection::kind(Kind::Unavailable)).rate(1.0);
    let handle = faults.handle();
    let mut stack = ServiceBuilder::new()
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .layer(faults)
        .service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));

    for _ in 0..3 {
        assert_eq!(stack.ready().await.unwrap().call(Request::new(())).await.unwrap().status(), 503);
    }
    let error = stack.ready().await.unwrap().call(Request::new(())).await.unwrap_err();
    assert!(matches!(error, BreakerError::Rejected(_)));
    assert_eq!(handle.counts().injected, 3);

    handle.disable();
    time.advance(Duration::from_secs(30));
    assert_eq!(stack.ready().await.unwrap().call(Request::new(())).await.unwrap().status(), 200);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn hanging_call_ends_at_timeout_and_frees_concurrency_limit() {
    let inner = service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
    let mut stack = ServiceBuilder::new()
        .timeout(Duration::from_secs(2))
        .layer(FaultInjectionLayer::new().script([Injection::hang()]))
        .concurrency_limit(1)
        .service(inner);
    let hanging = stack.ready().await.unwrap().call(Request::new(()));
    // The limit of one admits a second call, because the first one did not reach it.
    assert_eq!(stack.ready().await.unwrap().call(Request::new(())).await.unwrap().status(), 200);
    let error = hanging.await.unwrap_err();
    assert_eq!(classify_error(&*error).kind(), Kind::Timeout);
}

#[tokio::test]
async fn axum_route_with_injected_status_stays_infallible() {
    let faults = FaultInjectionLayer::typed::<Infallible>().script([
        Injection::response(|| Response::builder().status(502).body("bad gateway").unwrap()),
        Injection::pass().break_body(2),
        Injection::pass().truncate_body(2),
    ]);
    let router = Router::new().route("/", get("hello")).layer(faults);
    let url = format!("http://{}", integration_tests::serve(router).await);
    let client = reqwest_client().build().unwrap();
    let get = async || {
        let response = client.get(&url).send().await?;
        Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
    };
    assert_eq!(get().await.unwrap(), (502, "bad gateway".to_owned()));
    // The server has announced five bytes. It closes the connection when the body breaks.
    get().await.unwrap_err();
    assert_eq!(get().await.unwrap(), (200, "he".to_owned()));
    assert_eq!(get().await.unwrap(), (200, "hello".to_owned()));
}

#[tokio::test]
async fn tonic_server_and_channel_return_injected_statuses() {
    let on_server = FaultInjectionLayer::typed::<Infallible>()
        .script([Injection::grpc_status(8, "ä 100 %"), Injection::pass().truncate_body(7)]);
    let server = TestServer::layered(on_server).await;
    let mut plain = EchoClient::new(channel(&server.url));
    let exhausted = plain.say(words("a")).await.unwrap_err();
    assert_eq!((exhausted.code(), exhausted.message()), (Code::ResourceExhausted, "ä 100 %"));
    plain.say(words("a")).await.expect_err("the response has no status");

    let retry = retry_at_once().idempotent_methods(["echo.Echo/Say"]).build().unwrap();
    let on_client = FaultInjectionLayer::new()
        .script([Injection::grpc_status(14, "down"), Injection::grpc_status(14, "down")]);
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .layer(on_client)
        .service(channel(&server.url));
    let answer = EchoClient::new(stack).say(words("a")).await.unwrap();
    assert_eq!(answer.into_inner().text, "A");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_of_thousand_tasks_are_exact() {
    let faults = FaultInjectionLayer::new()
        .script(two_503())
        .inject(Injection::status(500))
        .every_nth(3)
        .max_injections(150);
    let handle = faults.handle();
    let service = ServiceBuilder::new()
        .layer(faults)
        .timeout(TIMEOUT)
        .service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let service = service.clone();
        tasks.spawn(async move {
            let response = service.oneshot(Request::new(())).await.unwrap();
            let status = response.status().as_u16();
            response.into_body().collect().await.unwrap();
            status
        });
    }
    let statuses = tasks.join_all().await;
    let of = |status: u16| statuses.iter().filter(|other| **other == status).count();
    assert_eq!([of(503), of(500), of(200)], [2, 150, 848]);
    assert_eq!((handle.counts().passed, handle.counts().injected), (848, 152));
}
