//! Requests of reqwest through a retry: around a client of reqwest-middleware, and in its chain.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Extensions, HeaderValue, Method, StatusCode};
use reqwest::{Client, Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Next};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use tokio::runtime::Builder;
use tower::{Layer, Service};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

use crate::bare::FailsTwice;
use crate::call::{Same, awaited, raw};
use crate::variant::{Calls, Expect, Variants};
use crate::{OURS, OURS_IN_CHAIN};

const REQWEST_BARE: &str = "reqwest, bare client";
const SUCCESS: &str = "reqwest, success";
const TWO_RETRIES: &str = "reqwest, two retries";
const REQWEST_RETRY: &str = "reqwest-retry";

static URL: LazyLock<Url> =
    LazyLock::new(|| Url::parse("https://api.example.com/v1/search?q=rust").expect("the URL is valid"));

pub(crate) fn add(variants: &mut Variants) {
    variants.bare = REQWEST_BARE;
    add_row(variants, REQWEST_BARE, "", || shared(client().with(succeed).build()));
    ours(variants);
    reqwest_retry(variants);
}

fn ours(variants: &mut Variants) {
    let around = || {
        let layer = JitterRetryLayer::new(RetryPolicy::default());
        let client = client().with(succeed).build();
        move || layer.layer(client.clone())
    };
    add_row(variants, SUCCESS, OURS, around);
    let in_chain = || {
        let retry = TowerMiddleware::new(JitterRetryLayer::new(RetryPolicy::default()));
        shared(client().with(retry).with(succeed).build())
    };
    add_row(variants, SUCCESS, OURS_IN_CHAIN, in_chain);
    let around = || {
        let layer = JitterRetryLayer::new(retry_at_once());
        let client = client().with(fail_twice).build();
        move || layer.layer(client.clone())
    };
    add_row(variants, TWO_RETRIES, OURS, around);
    let in_chain = || {
        let retry = TowerMiddleware::new(JitterRetryLayer::new(retry_at_once()));
        shared(client().with(retry).with(fail_twice).build())
    };
    add_row(variants, TWO_RETRIES, OURS_IN_CHAIN, in_chain);
}

fn retry_at_once() -> RetryPolicy {
    let policy = RetryPolicy::builder().initial_backoff(Duration::ZERO).budget(None);
    policy.build().expect("the policy is valid")
}

fn reqwest_retry(variants: &mut Variants) {
    let success = || {
        let policy = ExponentialBackoff::builder().build_with_max_retries(3);
        let retry = RetryTransientMiddleware::new_with_policy(policy);
        shared(client().with(retry).with(succeed).build())
    };
    add_row(variants, SUCCESS, REQWEST_RETRY, success);
    let two_retries = || {
        let policy = ExponentialBackoff::builder().retry_bounds(Duration::ZERO, Duration::ZERO);
        let retry = RetryTransientMiddleware::new_with_policy(policy.build_with_max_retries(3));
        shared(client().with(retry).with(fail_twice).build())
    };
    add_row(variants, TWO_RETRIES, REQWEST_RETRY, two_retries);
}

/// Adds both styles of a row. `set_up` creates the client and returns a function that clones it.
fn add_row<S, M>(
    variants: &mut Variants,
    row: &'static str,
    subject: &'static str,
    set_up: impl Fn() -> M + Copy + 'static,
) where
    S: Service<Request> + 'static,
    M: Fn() -> S + Send + Sync + 'static,
{
    variants.add_calls(
        row,
        subject,
        Expect::Success,
        set_up,
        |service| in_runtime(raw(service, request, Same)),
        |service| in_runtime(awaited(service, request, Same)),
    );
}

/// Makes the calls within a runtime of tokio, which reqwest-retry needs for its delays.
///
/// The clock of the runtime is paused at the start of its timer. So a delay of zero is over when it
/// is polled first. With a running clock, it would end at the next tick, up to 1 ms later.
fn in_runtime(mut calls: Calls) -> Calls {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs no resources");
    Box::new(move |number| {
        let _context = runtime.enter();
        calls(number)
    })
}

fn client() -> ClientBuilder {
    ClientBuilder::new(Client::new())
}

fn shared(client: ClientWithMiddleware) -> impl Fn() -> ClientWithMiddleware {
    move || client.clone()
}

fn request(_: u32) -> Request {
    let mut request = Request::new(Method::GET, URL.clone());
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("benchmarks/1.0"));
    request
}

type Answer<'a> = Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'a>>;

/// A middleware that answers 200 in place of the client.
fn succeed<'a>(_: Request, _: &'a mut Extensions, _: Next<'a>) -> Answer<'a> {
    answer(StatusCode::OK)
}

/// A middleware that answers twice 503 and then 200 in place of the client.
fn fail_twice<'a>(_: Request, _: &'a mut Extensions, _: Next<'a>) -> Answer<'a> {
    answer(if FailsTwice::next_fails() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
}

fn answer<'a>(status: StatusCode) -> Answer<'a> {
    let response = http::Response::builder()
        .status(status)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .url(URL.clone())
        .body(r#"{"found":[1,2,3]}"#);
    Box::pin(ready(Ok(response.expect("the response is valid").into())))
}
