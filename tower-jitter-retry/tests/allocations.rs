//! What a call allocates: nothing.

mod support;

use std::future::{Ready, ready};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, Service, service_fn};
use tower_jitter_retry::{
    Budget, JitterRetryLayer, ReplayBody, RetryBody, RetryPolicy, RetryPolicyBuilder, remove_marker,
};

use support::{Broken, Calls, at_once, now, send};

/// What one call allocates, after a first one on the same thread.
fn allocations<S>(service: &mut S) -> u64
where
    S: Service<u32, Response = u32, Error = Broken>,
{
    let _ = now(send(service, 7));
    let allocated = measure(|| {
        let _ = now(send(service, 7));
    });
    allocated.count_total
}

fn succeeding(request: u32) -> Ready<Result<u32, Broken>> {
    ready(Ok(request))
}

fn failing(_: u32) -> Ready<Result<u32, Broken>> {
    ready(Err(Broken(0)))
}

#[test]
fn a_success_at_the_first_attempt_allocates_nothing() {
    let mut service = JitterRetryLayer::new(RetryPolicy::default()).layer(service_fn(succeeding));
    assert_eq!(now(send(&mut service, 7)), Ok(7));
    assert_eq!(allocations(&mut service), 0);
}

#[test]
fn a_retry_without_delay_allocates_nothing() {
    for budget in [None, Some(Budget::default())] {
        for seeded in [false, true] {
            let calls = Calls::default();
            let mut policy = at_once().max_attempts(20).budget(budget.clone());
            if seeded {
                policy = policy.seed(7);
            }
            let mut service =
                JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|request: u32| {
                    calls.next();
                    failing(request)
                }));
            assert_eq!(allocations(&mut service), 0);
            assert_eq!(calls.made(), 40, "it was retried");
        }
    }
}

#[test]
fn a_retry_that_the_budget_refuses_allocates_nothing() {
    let budget = Budget::builder().ratio(0.0).min_per_second(0).build().unwrap();
    let mut service =
        JitterRetryLayer::new(at_once().budget(budget).build().unwrap()).layer(service_fn(failing));
    assert_eq!(allocations(&mut service), 0);
}

#[test]
fn a_request_that_is_sent_once_allocates_nothing() {
    let mut service =
        JitterRetryLayer::new(at_once().max_attempts(1).build().unwrap()).layer(service_fn(failing));
    assert_eq!(allocations(&mut service), 0);
}

/// What a call with an HTTP request allocates that succeeds at once.
fn allocations_of<B: RetryBody + 'static>(policy: RetryPolicyBuilder, make: impl Fn() -> Request<B>) -> u64 {
    let mut service = JitterRetryLayer::new(policy.build().unwrap())
        .layer(service_fn(|_: Request<B>| ready(Ok::<_, Broken>(1_u32))));
    now(send(&mut service, make())).unwrap();
    let request = make();
    let allocated = measure(|| {
        now(send(&mut service, request)).unwrap();
    });
    allocated.count_total
}

/// Of the mark in empty extensions: their box, the map in it, and the mark.
const MARK: u64 = 3;

#[test]
fn an_http_request_costs_its_clone_the_mark_and_the_handle_of_its_stream() {
    let plain = || Request::new("the body");
    let with_headers =
        || Request::builder().header("x-one", "1").header("x-two", "2").body("the body").unwrap();
    let headers = measure(|| drop(with_headers().headers().clone())).count_total
        - measure(|| drop(with_headers())).count_total;
    let streaming = || Request::new(ReplayBody::new(Full::new(Bytes::from_static(b"the body"))));
    let unmarked = || at_once().marker(false);
    assert_eq!(allocations_of(unmarked(), plain), 0);
    assert_eq!(allocations_of(at_once(), plain), MARK);
    assert_eq!(allocations_of(unmarked(), with_headers), headers);
    assert_eq!(allocations_of(at_once(), with_headers), headers + MARK);
    assert_eq!(allocations_of(unmarked(), streaming), 1, "the handle; nothing is kept of what is not read");
    assert_eq!(allocations_of(at_once(), streaming), 1 + MARK);
    // Into extensions that are not empty, the mark alone.
    let extended = || {
        let mut request = plain();
        request.extensions_mut().insert(7_u8);
        request
    };
    let extensions = measure(|| drop(extended().extensions().clone())).count_total
        - measure(|| drop(extended())).count_total;
    assert_eq!(allocations_of(at_once(), extended), extensions + 1);
}

#[test]
fn an_http_request_that_is_sent_once_allocates_nothing() {
    let with_headers = || Request::builder().header("x-one", "1").body("the body").unwrap();
    assert_eq!(allocations_of(at_once().max_attempts(1), with_headers), 0);
    let marked = || {
        let mut request = with_headers();
        remove_marker(&mut request);
        request
    };
    assert_eq!(allocations_of(at_once().max_attempts(1), marked), 0);
}

#[test]
fn a_retry_through_the_quota_of_tokens_allocates_nothing() {
    for budget in [Budget::grpc().max_tokens(1_000).build().unwrap(), Budget::aws().build().unwrap()] {
        let policy = at_once().max_attempts(20).budget(budget).build().unwrap();
        let mut service = JitterRetryLayer::new(policy).layer(service_fn(failing));
        assert_eq!(allocations(&mut service), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_with_a_delay_allocates_nothing_either() {
    let policy = RetryPolicy::builder().budget(None::<Budget>).base(Duration::from_secs(1)).build().unwrap();
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(failing));
    let _ = send(&mut service, 7).await;
    let mut call = tokio_test::task::spawn(send(&mut service, 7));
    let allocated = measure(|| assert!(call.poll().is_pending()));
    assert_eq!(allocated.count_total, 0);
}
