//! Which calls are retried, after which delay, and with which remaining time.

use std::time::Duration;

use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{channel, echo_client, retry_at_once, words};
use test_servers::{Grpc, Reason, Reply};
use tokio::time::Instant;
use tonic::{Code, Request};
use tower::ServiceBuilder;
use tower_breaker::{BreakerConfig, Circuit, Mode};
use tower_jitter_retry::{Clock, Deadline, JitterRetryLayer, RetryPolicyBuilder, RetrySafety};

use super::all_listed;

const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Makes a call whose first request gets `reply`. Returns the number of requests and the delay
/// before the retry.
async fn requests_and_delay(policy: RetryPolicyBuilder, reply: Reply) -> (usize, Duration) {
    let server = Grpc::start().await;
    server.script([reply]);
    let policy = policy.clock(Clock::tokio()).build().unwrap();
    let stack = ServiceBuilder::new().layer(JitterRetryLayer::new(policy)).service(channel(&server.url()));
    // No other timer runs, so paused time advances only by the delay.
    let start = Instant::now();
    let answer = EchoClient::new(stack).say(words("a")).await;
    let requests = server.requests().len();
    assert_eq!(answer.is_ok(), requests == 2, "{answer:?}");
    (requests, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn pushback_replaces_backoff() {
    let ms = Duration::from_millis;
    let pushback = |code: u32, delay: &str| Reply::trailers_only(code).trailer(PUSHBACK, delay);
    assert_eq!(requests_and_delay(all_listed(), pushback(14, "20")).await, (2, ms(20)));
    assert_eq!(requests_and_delay(all_listed(), pushback(14, "60000")).await, (2, ms(60_000)));
    assert_eq!(
        requests_and_delay(all_listed(), pushback(14, "60001")).await,
        (1, ms(0)),
        "longer than max_retry_after"
    );
    assert_eq!(requests_and_delay(all_listed(), pushback(14, "-1")).await, (1, ms(0)));
    assert_eq!(
        requests_and_delay(retry_at_once(), pushback(14, "20")).await,
        (1, ms(0)),
        "the server may have processed the call"
    );
    assert_eq!(
        requests_and_delay(retry_at_once(), pushback(8, "30")).await,
        (2, ms(30)),
        "the server refused the call"
    );
    assert_eq!(
        requests_and_delay(all_listed(), pushback(13, "30")).await,
        (1, ms(0)),
        "this code is not retried"
    );
    let late = Reply::message("x").status(14).trailer(PUSHBACK, "20");
    assert_eq!(requests_and_delay(all_listed(), late).await, (1, ms(0)), "the response had begun");
    let backoff = all_listed().initial_backoff(ms(70));
    assert_eq!(requests_and_delay(backoff.clone(), Reply::trailers_only(14)).await, (2, ms(70)));
    assert_eq!(requests_and_delay(backoff, pushback(14, "20")).await, (2, ms(20)));
}

fn disabled_circuit() -> Circuit {
    Circuit::new(BreakerConfig::builder().mode(Mode::Disabled).build().unwrap())
}

/// Makes a call of each kind that always gets UNAVAILABLE. Returns the numbers of requests.
async fn request_counts(policy: RetryPolicyBuilder) -> [usize; 4] {
    let server = Grpc::start().await;
    server.set_default(Reply::trailers_only(14));
    let mut client = echo_client(&server.url(), policy, &disabled_circuit());
    assert_eq!(client.say(words("a")).await.unwrap_err().code(), Code::Unavailable);
    client.gather(tokio_stream::once(words("a"))).await.unwrap_err();
    client.spell(words("a")).await.unwrap_err();
    client.talk(tokio_stream::once(words("a"))).await.unwrap_err();
    let requests = server.requests();
    assert!(
        requests.iter().all(|request| request.body.ends_with(b"a")),
        "each request has the complete message"
    );
    ["Say", "Gather", "Spell", "Talk"].map(|method| {
        requests.iter().filter(|request| request.path == format!("/echo.Echo/{method}")).count()
    })
}

#[tokio::test]
async fn idempotent_method_is_listed_by_its_path() {
    assert_eq!(request_counts(retry_at_once()).await, [1, 1, 1, 1]);
    assert_eq!(
        request_counts(retry_at_once().idempotent_methods(["echo.Echo/Say", "echo.Echo/Talk"])).await,
        [3, 1, 1, 3]
    );
    assert_eq!(
        request_counts(retry_at_once().idempotent_methods(["echo.Echo/say", "echo.Other/*"])).await,
        [1, 1, 1, 1]
    );
    assert_eq!(request_counts(all_listed()).await, [3, 3, 3, 3]);
}

#[tokio::test]
async fn request_safety_overrides_method_list() {
    let server = Grpc::start().await;
    server.set_default(Reply::trailers_only(14));
    for (safety, policy, attempts) in
        [(RetrySafety::Always, retry_at_once(), 3), (RetrySafety::Never, all_listed(), 1)]
    {
        let before = server.requests().len();
        let mut request = Request::new(words("a"));
        request.extensions_mut().insert(safety);
        echo_client(&server.url(), policy, &disabled_circuit()).say(request).await.unwrap_err();
        assert_eq!(server.requests().len() - before, attempts, "{safety:?}");
    }
}

/// Makes a call whose attempts take ten seconds each and all fail. Returns the `grpc-timeout` of
/// each attempt.
async fn attempt_timeouts(request: Request<integration_tests::echo::Words>) -> Vec<Option<String>> {
    let server = Grpc::start().await;
    server.set_default(Reply::trailers_only(14));
    let (clock, clock_handle) = Clock::manual();
    let policy = all_listed().max_attempts(10).max_elapsed(None).clock(clock).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .map_response(move |response| {
            clock_handle.advance(Duration::from_secs(10));
            response
        })
        .service(channel(&server.url()));
    EchoClient::new(stack).say(request).await.unwrap_err();
    let timeout = |headers: &http::HeaderMap| headers.get("grpc-timeout")?.to_str().ok().map(str::to_owned);
    server.requests().iter().map(|request| timeout(&request.headers)).collect()
}

#[tokio::test]
async fn attempt_gets_remaining_time_and_none_starts_without() {
    let mut request = Request::new(words("a"));
    request.set_timeout(Duration::from_secs(25));
    let left = ["25000000u", "15000000u", "5000000u"].map(|left| Some(left.to_owned()));
    assert_eq!(attempt_timeouts(request).await, left);

    // The earlier of the two deadlines applies.
    let mut request = Request::new(words("a"));
    request.set_timeout(Duration::from_secs(45));
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(15)));
    assert_eq!(attempt_timeouts(request).await, ["15000000u", "5000000u"].map(|left| Some(left.to_owned())));

    let mut request = Request::new(words("a"));
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(15)));
    assert_eq!(
        attempt_timeouts(request).await,
        [None, None],
        "the deadline of the caller is not sent to the server"
    );
}

#[tokio::test]
async fn backoff_beyond_deadline_is_not_started() {
    let server = Grpc::start().await;
    server.set_default(Reply::trailers_only(14).trailer(PUSHBACK, "50000"));
    let mut client = echo_client(&server.url(), all_listed(), &disabled_circuit());
    let mut request = Request::new(words("a"));
    request.set_timeout(Duration::from_secs(40));
    let status = client.say(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.metadata().get(PUSHBACK).unwrap().as_bytes()),
        (Code::Unavailable, &b"50000"[..])
    );
    let mut request = Request::new(words("a"));
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(40)));
    assert_eq!(client.say(request).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn server_stream_with_head_received_is_not_retried() {
    let replies = [
        Reply::headers().status(14),
        Reply::message("x").status(14),
        Reply::message("x").rst_stream(Reason::REFUSED_STREAM),
        Reply::message("x").close_connection(),
        Reply::truncated_message("hello").status(14),
    ];
    for reply in replies {
        let server = Grpc::start().await;
        server.script([reply.clone()]);
        let mut client = echo_client(&server.url(), all_listed(), &disabled_circuit());
        let answer = client.spell(words("a")).await;
        let mut end = answer.map(tonic::Response::into_inner);
        while let Ok(stream) = &mut end {
            match stream.message().await {
                Ok(message) => assert!(message.is_some(), "{reply:?} is not a complete answer"),
                Err(status) => end = Err(status),
            }
        }
        assert_eq!(server.requests().len(), 1, "{reply:?}");
    }
}
