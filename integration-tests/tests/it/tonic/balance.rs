//! A load balancer over several servers. Each endpoint has a circuit that is not ready while open.

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{FrozenTime, TIMEOUT, channel, words};
use test_servers::{Grpc, RefusedPort, Reply};
use tokio::task::yield_now;
use tokio::time::advance;
use tonic::Code;
use tonic::body::Body;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PendingRequests};
use tower::util::rng::HasherRng;
use tower::{BoxError, Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer, Clock};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::JitterRetryLayer;

use super::all_listed;

const OPEN_FOR: Duration = Duration::from_secs(10);
/// A little longer than the open duration, because a circuit rounds its deadlines up.
const AFTER_OPEN: Duration = Duration::from_millis(10_010);

/// Returns a balancer over a channel to each URL. Its choices are the same in every run.
///
/// A circuit opens at the first failure and closes at the first success.
fn balance(
    urls: impl IntoIterator<Item = String>,
) -> impl Service<
    http::Request<Body>,
    Response = http::Response<impl HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static>,
    Error = BoxError,
    Future: Send,
> + Send {
    let endpoint = |url: String| {
        let config = BreakerConfig::builder()
            .consecutive_failures(1)
            .consecutive_failures_span(Duration::ZERO)
            .open_for(OPEN_FOR)
            .open_jitter(0.0)
            .successes_to_close(1)
            .clock(Clock::tokio())
            .build()
            .unwrap();
        let stack = ServiceBuilder::new()
            .layer(BreakerLayer::new(config).not_ready_when_open())
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .service(channel(&url));
        PendingRequests::new(stack, CompleteOnResponse::default())
    };
    let endpoints: Vec<_> = urls.into_iter().map(endpoint).collect();
    let rng = HasherRng::with_hasher(BuildHasherDefault::<DefaultHasher>::default());
    Balance::from_rng(ServiceList::new::<http::Request<Body>>(endpoints), rng)
}

async fn servers<const N: usize>() -> [Grpc; N] {
    let mut servers = Vec::new();
    for _ in 0..N {
        servers.push(Grpc::start().await);
    }
    servers.try_into().unwrap()
}

fn request_counts<const N: usize>(servers: &[Grpc; N]) -> [usize; N] {
    servers.each_ref().map(|server| server.requests().len())
}

#[tokio::test(start_paused = true)]
async fn failing_endpoint_is_skipped_until_open_duration_ends() {
    let _frozen = FrozenTime::start();
    let servers = servers::<3>().await;
    let mut client = EchoClient::new(balance(servers.each_ref().map(Grpc::url)));
    servers[0].set_default(Reply::trailers_only(14));
    let mut failed = 0;
    for _ in 0..60 {
        if let Err(status) = client.say(words("a")).await {
            assert_eq!(status.code(), Code::Unavailable);
            failed += 1;
        }
    }
    let [failing, others @ ..] = request_counts(&servers);
    assert_eq!((failed, failing, others[0] + others[1]), (1, 1, 59));
    assert!(others[0] > 10 && others[1] > 10, "{others:?}");

    // The probe fails, and the balancer skips the endpoint again.
    advance(AFTER_OPEN).await;
    for _ in 0..60 {
        failed += usize::from(client.say(words("a")).await.is_err());
    }
    assert_eq!((failed, request_counts(&servers)[0]), (2, 2));

    servers[0].set_default(Reply::ok("ok"));
    advance(AFTER_OPEN).await;
    for _ in 0..60 {
        client.say(words("a")).await.unwrap();
    }
    let [recovered, others @ ..] = request_counts(&servers);
    assert!(recovered > 2 + 10, "{recovered}");
    assert_eq!(recovered + others[0] + others[1], 180);
}

#[tokio::test(start_paused = true)]
async fn dead_endpoint_under_retry_layer_fails_no_call() {
    let _frozen = FrozenTime::start();
    let (servers, refused) = (servers::<2>().await, RefusedPort::bind());
    let policy = all_listed().build().unwrap();
    let stack = ServiceBuilder::new().layer(JitterRetryLayer::new(policy)).buffer(16).service(balance([
        refused.url(),
        servers[0].url(),
        servers[1].url(),
    ]));
    servers[1].script([Reply::trailers_only(14)]);
    let mut client = EchoClient::new(stack);
    for _ in 0..40 {
        client.say(words("a")).await.unwrap();
    }
    let [healthy, flaky] = request_counts(&servers);
    assert_eq!((healthy, flaky), (40, 1));
    advance(AFTER_OPEN).await;
    for _ in 0..40 {
        client.say(words("a")).await.unwrap();
    }
    let [healthy, flaky] = request_counts(&servers);
    assert!(flaky > 10, "{flaky}");
    assert_eq!(healthy + flaky, 81);
}

#[tokio::test(start_paused = true)]
async fn balancer_with_all_circuits_open_waits() {
    let _frozen = FrozenTime::start();
    let servers = servers::<2>().await;
    let mut client = EchoClient::new(balance(servers.each_ref().map(Grpc::url)));
    for server in &servers {
        server.script([Reply::trailers_only(14)]);
    }
    for _ in 0..2 {
        assert_eq!(client.say(words("a")).await.unwrap_err().code(), Code::Unavailable);
    }
    let mut call = pin!(client.say(words("a")));
    for _ in 0..100 {
        tokio::select! {
            biased;
            answer = &mut call => panic!("{answer:?}"),
            () = yield_now() => {}
        }
    }
    advance(AFTER_OPEN).await;
    call.await.unwrap();
    let [one, other] = request_counts(&servers);
    assert!(one + other == 3 && one.min(other) == 1, "{one}, {other}");
}

#[tokio::test(start_paused = true)]
async fn balancer_under_load_shed_with_all_open_fails_fast() {
    let _frozen = FrozenTime::start();
    let servers = servers::<2>().await;
    let shed = ServiceBuilder::new().load_shed().service(balance(servers.each_ref().map(Grpc::url)));
    let mut client = EchoClient::new(shed);
    for server in &servers {
        server.script([Reply::trailers_only(14)]);
    }
    for _ in 0..2 {
        assert_eq!(client.say(words("a")).await.unwrap_err().code(), Code::Unavailable);
    }
    for _ in 0..10 {
        let status = client.say(words("a")).await.unwrap_err();
        // tonic maps the error to this code and drops the error.
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    assert_eq!(request_counts(&servers), [1, 1]);
    advance(AFTER_OPEN).await;
    for _ in 0..10 {
        client.say(words("a")).await.unwrap();
    }
    let [one, other] = request_counts(&servers);
    assert_eq!(one + other, 12);
}
