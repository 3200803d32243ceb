//! What a call allocates: nothing.

mod support;

use std::future::{Ready, ready};
use std::time::Duration;

use allocation_counter::measure;
use http::Request;
use tower::{Layer, Service, service_fn};
use tower_jitter_retry::{Budget, JitterRetryLayer, RetryPolicy};

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

/// Its headers are empty, so that keeping it costs nothing.
#[test]
fn an_http_request_without_headers_is_kept_without_allocating() {
    let mut service = JitterRetryLayer::new(RetryPolicy::default())
        .layer(service_fn(|request: Request<&'static str>| ready(Ok::<_, Broken>(request.body().len()))));
    now(send(&mut service, Request::new("the body"))).unwrap();
    let request = Request::new("the body");
    let allocated = measure(|| {
        now(send(&mut service, request)).unwrap();
    });
    assert_eq!(allocated.count_total, 0);
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
