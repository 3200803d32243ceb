//! The gRPC rules: the list of methods, pushback, and responses that have begun.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::time::Instant;
use tower::{Layer, service_fn};
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable};
use tower_jitter_retry::{
    Budget, Clock, Jitter, JitterRetryLayer, RetryPolicy, RetryPolicyBuilder, RetrySafety,
};

use crate::support::{Calls, block_on, immediate, layer, request, send};

const UNAVAILABLE: Fault =
    Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote);

fn call(path: &str) -> Request<String> {
    let request = Request::post(path).header("content-type", "application/grpc");
    request.body(String::new()).unwrap()
}

/// Returns a response without a message.
fn trailers_only(code: &str) -> Response<String> {
    let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", code);
    response.body(String::new()).unwrap()
}

fn times_sent(policy: RetryPolicyBuilder, request: Request<String>, code: &'static str) -> usize {
    let calls = Calls::default();
    let mut service =
        JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|_: Request<String>| {
            calls.next();
            async move { Ok::<_, io::Error>(trailers_only(code)) }
        }));
    assert_eq!(block_on(send(&mut service, request)).unwrap().headers()["grpc-status"], code);
    calls.made()
}

#[test]
fn grpc_listed_method_is_sent_again() {
    let policy = || immediate().idempotent_methods(["shop.Orders/Get", "shop.Stock/*"]);
    for (path, expected) in
        [("/shop.Orders/Get", 3), ("/shop.Stock/Any", 3), ("/shop.Orders/Put", 1), ("/other.Orders/Get", 1)]
    {
        assert_eq!(times_sent(policy(), call(path), "14"), expected, "{path}");
        assert_eq!(times_sent(policy(), call(path), "5"), 1, "NOT_FOUND is permanent: {path}");
    }
    assert_eq!(times_sent(immediate(), call("/shop.Orders/Get"), "14"), 1, "the list is empty by default");
    let mut forbidden = call("/shop.Orders/Get");
    forbidden.extensions_mut().insert(RetrySafety::Never);
    assert_eq!(
        times_sent(policy(), forbidden, "14"),
        1,
        "the request's own setting takes precedence over the list"
    );
    let plain = Request::post("/shop.Orders/Get").body(String::new()).unwrap();
    assert_eq!(times_sent(policy(), plain, "14"), 1, "a POST to the same path is not a gRPC call");
}

/// A rule cannot make a response retryable that the caller may have read.
#[test]
fn grpc_committed_response_is_not_retried() {
    let rule = |outcome: Result<&Response<String>, &io::Error>| outcome.is_ok().then_some(UNAVAILABLE.into());
    for (answer, expected) in [
        (Response::builder().header("content-type", "application/grpc"), 1),
        (Response::builder().header("content-type", "application/grpc").header("grpc-status", "14"), 3),
        (Response::builder().header("content-type", "application/grpc").status(503), 3),
        (Response::builder().header("content-type", "text/plain"), 3),
    ] {
        let answer = answer.body(String::new()).unwrap();
        let calls = Calls::default();
        let layer = JitterRetryLayer::new(immediate().build().unwrap()).rule(rule);
        let mut service = layer.layer(service_fn(|_: Request<String>| {
            calls.next();
            let answer = answer.clone();
            async move { Ok::<_, io::Error>(answer) }
        }));
        block_on(send(&mut service, call("/shop.Orders/Put"))).unwrap();
        assert_eq!(calls.made(), expected, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pushback_restarts_backoff() {
    let sent = Mutex::new(Vec::new());
    let policy = RetryPolicy::builder()
        .budget(None::<Budget>)
        .clock(Clock::tokio())
        .jitter(Jitter::None)
        .max_attempts(7)
        .safety(RetrySafety::Always);
    let mut service =
        JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|_: Request<String>| {
            let mut sent = sent.lock().unwrap();
            sent.push(Instant::now());
            let mut answer = trailers_only("14");
            if sent.len() == 4 {
                answer.headers_mut().insert("grpc-retry-pushback-ms", 3_000.into());
            }
            async { Ok::<_, io::Error>(answer) }
        }));
    send(&mut service, call("/shop.Orders/Put")).await.unwrap();
    let sent = sent.lock().unwrap();
    let pauses: Vec<_> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [100, 200, 400, 3_000, 100, 200].map(Duration::from_millis));
}

#[tokio::test(start_paused = true)]
async fn pushback_of_zero_is_immediate() {
    let sent = Mutex::new(Vec::new());
    let policy = RetryPolicy::builder()
        .budget(None::<Budget>)
        .clock(Clock::tokio())
        .jitter(Jitter::None)
        .initial_backoff(Duration::from_secs(1))
        .max_attempts(4)
        .safety(RetrySafety::Always);
    let mut service =
        JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|_: Request<String>| {
            sent.lock().unwrap().push(Instant::now());
            let mut answer = trailers_only("14");
            answer.headers_mut().insert("grpc-retry-pushback-ms", 0.into());
            async { Ok::<_, io::Error>(answer) }
        }));
    send(&mut service, call("/shop.Orders/Put")).await.unwrap();
    let sent = sent.into_inner().unwrap();
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|at| *at == sent[0]), "{sent:?}");
}

/// `RetryInfo` is a minimum. Pushback replaces the backoff's delay, even by a shorter one.
#[tokio::test(start_paused = true)]
async fn pushback_shorter_than_the_backoff_is_exact() {
    let sent = Mutex::new(Vec::new());
    let policy = RetryPolicy::builder()
        .budget(None::<Budget>)
        .clock(Clock::tokio())
        .jitter(Jitter::None)
        .initial_backoff(Duration::from_secs(1))
        .max_attempts(3)
        .safety(RetrySafety::Always);
    let mut service =
        JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|_: Request<String>| {
            sent.lock().unwrap().push(Instant::now());
            let mut answer = trailers_only("14");
            answer.headers_mut().insert("grpc-retry-pushback-ms", 20.into());
            async { Ok::<_, io::Error>(answer) }
        }));
    send(&mut service, call("/shop.Orders/Put")).await.unwrap();
    let sent = sent.into_inner().unwrap();
    let pauses: Vec<_> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [20, 20].map(Duration::from_millis));
}

#[test]
fn pushback_negative_or_invalid_stops_retries() {
    for pushback in ["-1", "soon", "", "1.5"] {
        let calls = Calls::default();
        let policy = immediate().safety(RetrySafety::Always).build().unwrap();
        let mut service = JitterRetryLayer::new(policy).layer(service_fn(|_: Request<String>| {
            calls.next();
            let mut answer = trailers_only("14");
            answer.headers_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
            async { Ok::<_, io::Error>(answer) }
        }));
        block_on(send(&mut service, call("/shop.Orders/Put"))).unwrap();
        assert_eq!(calls.made(), 1, "{pushback:?}");
    }
}

#[test]
fn pushback_negative_with_safety_always_stops_retries() {
    let calls = Calls::default();
    let policy = immediate().safety(tower_jitter_retry::RetrySafety::Always);
    let mut service = layer(policy).layer(service_fn(|_: Request<String>| {
        calls.next();
        let answer =
            Response::builder().header("content-type", "application/grpc").header("grpc-status", "14");
        let answer = answer.header("grpc-retry-pushback-ms", "-1").body(()).unwrap();
        async { Ok::<_, io::Error>(answer) }
    }));
    block_on(send(&mut service, request(Method::POST))).unwrap();
    assert_eq!(calls.made(), 1);
}

/// The list also applies to the first retry.
#[test]
fn grpc_method_list_applies_from_first_retry() {
    let calls = Calls::default();
    let mut service =
        layer(immediate().idempotent_methods(["shop.Orders/Get"])).layer(service_fn(|_: Request<String>| {
            calls.next();
            let answer =
                Response::builder().header("content-type", "application/grpc").header("grpc-status", "14");
            async { Ok::<_, io::Error>(answer.body(()).unwrap()) }
        }));
    let call = |path: &str| {
        Request::post(path).header("content-type", "application/grpc").body(String::new()).unwrap()
    };
    block_on(send(&mut service, call("/shop.Orders/Put"))).unwrap();
    assert_eq!(calls.made(), 1);
    block_on(send(&mut service, call("/shop.Orders/Get"))).unwrap();
    assert_eq!(calls.made(), 1 + 3);
}
