//! Compares the cost of classifying an outcome with the classifiers of tower-http and
//! reqwest-retry.
//!
//! A bare service and an uncontended lock are measured for comparison.

use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::io;
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use reqwest_retry::{DefaultRetryableStrategy, RetryableStrategy};
use tower::{Layer, Service};
use tower_fault_classify::{FaultClassifyLayer, classify_response};
use tower_http::classify::{
    ClassifyResponse, GrpcErrorsAsFailures, MakeClassifier, ServerErrorsAsFailures, SharedClassifier,
};

#[path = "../../benches/measure.rs"]
mod measure;

use measure::{Variant, compare, variant};

type Fields = &'static [(&'static str, &'static str)];

/// The headers of a JSON API behind nginx, in nginx's order.
const JSON: Fields = &[
    ("server", "nginx"),
    ("date", "Tue, 15 Nov 1994 08:12:31 GMT"),
    ("content-type", "application/json"),
    ("content-length", "512"),
    ("vary", "accept-encoding"),
    ("cache-control", "no-cache"),
    ("x-request-id", "8a2b6c54-8f3d-4a0e-9d5e-3b1f6a7c9e21"),
];
const RETRY_AFTER: Fields = &[("retry-after", "3")];
const GRPC: Fields = &[("content-type", "application/grpc"), ("date", "Tue, 15 Nov 1994 08:12:31 GMT")];
const UNAVAILABLE: Fields = &[("grpc-status", "14"), ("grpc-message", "down")];

/// Responses by name, status and headers.
const HTTP: &[(&str, u16, &[Fields])] = &[
    ("200", 200, &[]),
    ("200, 7 headers", 200, &[JSON]),
    ("503", 503, &[]),
    ("503, 7 headers", 503, &[JSON]),
    ("404", 404, &[]),
    ("404, 7 headers", 404, &[JSON]),
    ("429, Retry-After", 429, &[RETRY_AFTER]),
    ("429, Retry-After, 7 headers", 429, &[JSON, RETRY_AFTER]),
];
const OVER_GRPC: &[(&str, u16, &[Fields])] =
    &[("gRPC 200", 200, &[GRPC]), ("gRPC UNAVAILABLE in the head", 200, &[GRPC, UNAVAILABLE])];

fn response(status: u16, fields: &[Fields]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = fields.iter().copied().flatten().copied().map(field).collect::<HeaderMap>();
    response
}

fn field((name, value): (&'static str, &'static str)) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

/// Creates a variant with a name that is leaked.
fn named<'a, T>(response: &str, classifier: &str, call: impl FnMut() -> T + 'a) -> Variant<'a> {
    variant(format!("{response}: {classifier}").leak(), call)
}

/// Creates a variant for a classifier of tower-http.
fn theirs<C>(name: &str, classifier: C, response: Response<()>) -> Variant<'static>
where
    C: ClassifyResponse + Clone + 'static,
{
    let (shared, request) = (SharedClassifier::new(classifier), Request::new(()));
    named(name, "tower-http", move || {
        black_box(&shared).make_classifier(&request).classify_response(black_box(&response))
    })
}

/// Adds our classifier and tower-http's on an `http::Response`, and ours and reqwest-retry's on a
/// `reqwest::Response`.
fn over_http(variants: &mut Vec<Variant<'_>>) {
    for &(name, status, fields) in HTTP {
        let plain = || response(status, fields);
        let ours = plain();
        variants.push(named(name, "ours", move || classify_response(black_box(&ours))));
        variants.push(theirs(name, ServerErrorsAsFailures::new(), plain()));

        let of_reqwest = || reqwest::Response::from(plain().map(|()| ""));
        let ours = of_reqwest();
        variants.push(named(name, "ours on reqwest", move || classify_response(black_box(&ours))));
        let result = Ok(of_reqwest());
        variants
            .push(named(name, "reqwest-retry", move || DefaultRetryableStrategy.handle(black_box(&result))));
    }
}

/// Adds the classifiers of gRPC responses, which are recognised by their head.
fn over_grpc(variants: &mut Vec<Variant<'_>>) {
    for &(name, status, fields) in OVER_GRPC {
        let ours = response(status, fields);
        variants.push(named(name, "ours", move || classify_response(black_box(&ours))));
        variants.push(theirs(name, GrpcErrorsAsFailures::new(), response(status, fields)));
    }
}

/// A service that returns its request as the outcome, so that no response is created.
struct Bare;

type CallResult = Result<Response<()>, io::Error>;

impl Service<CallResult> for Bare {
    type Response = Response<()>;
    type Error = io::Error;
    type Future = Ready<CallResult>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, result: CallResult) -> Self::Future {
        ready(black_box(result))
    }
}

/// Makes a call and keeps the response for the next call, without its extensions.
fn call<S>(service: &mut S, kept: &mut Option<Response<()>>) -> bool
where
    S: Service<CallResult, Response = Response<()>>,
{
    let result = kept.take().ok_or_else(|| io::ErrorKind::TimedOut.into());
    let mut cx = Context::from_waker(Waker::noop());
    let ready = service.poll_ready(&mut cx).is_ready();
    if let Poll::Ready(Ok(mut response)) = pin!(service.call(result)).poll(&mut cx) {
        drop(mem::take(response.extensions_mut()));
        *kept = Some(response);
    }
    ready
}

/// Adds calls through the layer and calls without it.
fn layered(variants: &mut Vec<Variant<'_>>) {
    let outcomes = [("200, 7 headers", Some(200)), ("503, 7 headers", Some(503)), ("an io::Error", None)];
    for (name, status) in outcomes {
        let mut kept = status.map(|status| response(status, &[JSON]));
        let mut alone = kept.clone();
        variants.push(named(name, "bare service", move || call(&mut Bare, &mut alone)));
        let mut service = FaultClassifyLayer::new().layer(Bare);
        variants.push(named(name, "layer", move || call(&mut service, &mut kept)));
    }
}

fn main() {
    let mut variants = Vec::new();
    over_http(&mut variants);
    over_grpc(&mut variants);
    layered(&mut variants);
    compare(variants);
}
