//! Retries of a unary call over a tonic `Channel`, with a generated client.

use std::time::Duration;

use integration_tests::echo::Words;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{TIMEOUT, retry_at_once};
use test_servers::{Grpc, Reason, Reply};
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tower::ServiceBuilder;
use tower_jitter_retry::{JitterRetryLayer, RetryPolicyBuilder};

fn listed() -> RetryPolicyBuilder {
    retry_at_once().idempotent_methods(["echo.Echo/Say"])
}

/// Makes a call. Returns the answer or the code, and the number of requests.
async fn call_outcome(policy: RetryPolicyBuilder, replies: &[Reply]) -> (Result<String, Code>, usize) {
    let server = Grpc::start().await;
    server.script(replies.to_vec());
    let answer = say(&server, policy, Request::new(Words { text: "hello".to_owned() })).await;
    let requests = server.requests();
    assert!(
        requests.iter().all(|request| request.body.ends_with(b"hello")),
        "each request has the complete message"
    );
    (answer, requests.len())
}

async fn say(server: &Grpc, policy: RetryPolicyBuilder, request: Request<Words>) -> Result<String, Code> {
    let channel = Endpoint::from_shared(server.url()).unwrap().timeout(TIMEOUT).connect_lazy();
    let stack = ServiceBuilder::new().layer(JitterRetryLayer::new(policy.build().unwrap())).service(channel);
    let answer = EchoClient::new(stack).say(request).await;
    answer.map(|answer| answer.into_inner().text).map_err(|status| status.code())
}

#[tokio::test]
async fn server_failing_twice_gets_three_calls() {
    let unavailable = || Reply::trailers_only(14);
    let answer = call_outcome(listed(), &[unavailable(), unavailable(), Reply::ok("hi")]).await;
    assert_eq!(answer, (Ok("hi".to_owned()), 3));
    let answer = call_outcome(listed(), &[unavailable(), unavailable(), unavailable()]).await;
    assert_eq!(answer, (Err(Code::Unavailable), 3), "the last outcome");
}

#[tokio::test]
async fn unlisted_method_is_called_once_unless_unprocessed() {
    assert_eq!(call_outcome(retry_at_once(), &[Reply::trailers_only(14)]).await, (Err(Code::Unavailable), 1));
    let refused = Reply::nothing().rst_stream(Reason::REFUSED_STREAM);
    let (answer, request_count) = call_outcome(retry_at_once(), &[refused, Reply::ok("hi")]).await;
    assert_eq!((answer, request_count), (Ok("hi".to_owned()), 2));
}

#[tokio::test]
async fn begun_response_or_negative_pushback_ends_retries() {
    let begun = Reply::headers().status(14);
    assert_eq!(call_outcome(listed(), &[begun]).await, (Err(Code::Unavailable), 1));
    let stop = Reply::trailers_only(14).header("grpc-retry-pushback-ms", "-1");
    assert_eq!(call_outcome(listed(), &[stop]).await, (Err(Code::Unavailable), 1));
    let not_found = Reply::trailers_only(5);
    assert_eq!(call_outcome(listed(), &[not_found]).await, (Err(Code::NotFound), 1));
}

#[tokio::test]
async fn attempt_carries_previous_attempts_and_remaining_time() {
    let server = Grpc::start().await;
    server.script([Reply::trailers_only(14), Reply::trailers_only(14)]);
    let mut request = Request::new(Words { text: "hello".to_owned() });
    request.set_timeout(Duration::from_secs(25));
    assert_eq!(say(&server, listed(), request).await, Ok("ok".to_owned()));
    let header = |name: &str| -> Vec<_> {
        let values = server.requests().into_iter().map(|request| request.headers.get(name).cloned());
        values.map(|value| value.map(|value| value.to_str().unwrap().to_owned())).collect()
    };
    assert_eq!(header("grpc-previous-rpc-attempts"), [None, Some("1".to_owned()), Some("2".to_owned())]);
    let left: Vec<u64> = header("grpc-timeout")
        .into_iter()
        .map(|left| left.unwrap().strip_suffix('u').unwrap().parse().unwrap())
        .collect();
    assert!(left[0] == 25_000_000 && left[1] <= left[0] && left[2] <= left[1], "{left:?}");
}
