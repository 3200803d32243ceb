//! The cost of a call through the retry, compared with a bare service and an uncontended lock.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_jitter_retry::{Budget, JitterRetryLayer, RetryPolicy};

#[path = "../../tower-breaker/benches/bare/mod.rs"]
mod bare;
#[path = "../../benches/measure.rs"]
mod measure;

use bare::{Bare, call};
use measure::{compare, scaling, variant};

fn http(_: Request<&'static str>) -> Ready<Result<Response<()>, Infallible>> {
    ready(Ok(Response::new(())))
}

fn send<S: Service<Request<&'static str>>>(service: &mut S) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = service.poll_ready(&mut cx).is_ready();
    let request =
        Request::builder().header("x-one", "1").header("x-two", "2").body("text").expect("it is valid");
    ready && matches!(pin!(service.call(request)).poll(&mut cx), Poll::Ready(Ok(_)))
}

fn main() {
    let layer = || JitterRetryLayer::new(RetryPolicy::default());
    let with = |budget: Option<Budget>| {
        JitterRetryLayer::new(RetryPolicy::builder().budget(budget).build().expect("it is valid"))
    };
    // Every call fails and is retried once, without a delay.
    let twice = |budget: Option<Budget>| {
        let policy = RetryPolicy::builder().max_attempts(2).initial_backoff(Duration::ZERO).budget(budget);
        JitterRetryLayer::new(policy.build().expect("it is valid"))
    };
    let endless = || Some(Budget::window().ratio(2.0).build().expect("it is valid"));
    let once = RetryPolicy::builder().max_attempts(1).budget(None).build().expect("it is valid");
    let quiet = RetryPolicy::builder().marker(false).build().expect("it is valid");

    let mut bare = Bare;
    let mut failing = Bare;
    let mut success = layer().layer(Bare);
    let mut unbounded = with(None).layer(Bare);
    let window = || with(Some(Budget::window().build().expect("it is valid")));
    let mut windowed = window().layer(Bare);
    let mut failed_once = JitterRetryLayer::new(once).layer(Bare);
    let mut retried = twice(None).layer(Bare);
    let mut retried_paid = twice(endless()).layer(Bare);
    let mut breaker = BreakerLayer::new(BreakerConfig::default()).layer(Bare);
    let mut both =
        ServiceBuilder::new().layer(layer()).layer(BreakerLayer::new(BreakerConfig::default())).service(Bare);
    let mut bare_http = service_fn(http);
    let mut plain_http = JitterRetryLayer::new(quiet).layer(service_fn(http));
    let mut marked_http = layer().layer(service_fn(http));

    compare(vec![
        variant("bare service", || call(&mut bare, false)),
        variant("success, no budget", || call(&mut unbounded, false)),
        variant("success, default budget", || call(&mut success, false)),
        variant("success, window budget", || call(&mut windowed, false)),
        variant("breaker alone, success", || call(&mut breaker, false)),
        variant("retry over breaker, success", || call(&mut both, false)),
        variant("bare service, failure", || call(&mut failing, true)),
        variant("failure, one attempt", || call(&mut failed_once, true)),
        variant("failure, a retry at once, no budget", || call(&mut retried, true)),
        variant("failure, a retry at once, paid", || call(&mut retried_paid, true)),
        variant("HTTP request, bare", || send(&mut bare_http)),
        variant("HTTP request, marker off", || send(&mut plain_http)),
        variant("HTTP request, marker on", || send(&mut marked_http)),
    ]);
    let bare = scaling("bare service", || {
        let mut service = Bare;
        move || {
            black_box(call(&mut service, false));
        }
    });
    for (name, layer) in [("success, default budget", layer()), ("success, window budget", window())] {
        let scaled = scaling(name, || {
            let mut service = layer.layer(Bare);
            move || {
                black_box(call(&mut service, false));
            }
        });
        println!("{:44} {:>9.2} of the bare service's scaling", "", scaled / bare);
    }
}
