//! `clone_requests()` clones the body. Everything else of an HTTP request has the same effect as
//! without it.

use std::io::{self, ErrorKind};
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderName, Method, Request, Response};
use tower::{Layer, ServiceBuilder, service_fn};
use tower_jitter_retry::request::Attempt;
use tower_jitter_retry::{Deadline, JitterRetryLayer, RequestInfo, RetryPolicyBuilder, RetrySafety};

use crate::support::{Broken, Calls, block_on, immediate, response, send};

/// A body that does not implement `RetryBody`.
#[derive(Clone, Debug, PartialEq)]
struct Form(String);

fn form(method: Method) -> Request<Form> {
    Request::builder().method(method).uri("/orders/42").body(Form("a=b".to_owned())).unwrap()
}

/// Returns the requests that are sent if every response has this status. With 0, every connection
/// is refused.
fn sent(policy: RetryPolicyBuilder, request: Request<Form>, status: u16) -> Vec<Request<Form>> {
    let sent = Mutex::new(Vec::new());
    let layer = JitterRetryLayer::new(policy.build().unwrap()).clone_requests();
    let mut service = layer.layer(service_fn(|request: Request<Form>| {
        sent.lock().unwrap().push(request);
        async move { answer(status) }
    }));
    let _ = block_on(send(&mut service, request));
    sent.into_inner().unwrap()
}

fn answer(status: u16) -> io::Result<Response<String>> {
    if status == 0 { Err(ErrorKind::ConnectionRefused.into()) } else { Ok(response(status)) }
}

#[test]
fn cloned_post_possibly_processed_is_sent_once() {
    for status in [408, 500, 502, 503, 504] {
        for method in [Method::POST, Method::PATCH] {
            assert_eq!(sent(immediate(), form(method.clone()), status).len(), 1, "{method} {status}");
        }
        assert_eq!(sent(immediate(), form(Method::GET), status).len(), 3, "{status}");
    }
    for status in [0, 421, 425, 429, 529] {
        assert_eq!(sent(immediate(), form(Method::POST), status).len(), 3, "{status}");
    }
}

#[test]
fn cloned_request_keeps_safety_and_idempotency_key() {
    for (safety, key, expected) in [
        (None, None, 1),
        (None, Some("1"), 3),
        (None, Some(" "), 1),
        (Some(RetrySafety::Always), None, 3),
        (Some(RetrySafety::ByMethod), Some("1"), 1),
        (Some(RetrySafety::Never), Some("1"), 1),
    ] {
        let mut request = form(Method::POST);
        if let Some(safety) = safety {
            request.extensions_mut().insert(safety);
        }
        if let Some(key) = key {
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        }
        assert_eq!(sent(immediate(), request, 503).len(), expected, "{safety:?} {key:?}");
    }
    let mut get = form(Method::GET);
    get.extensions_mut().insert(RetrySafety::Never);
    assert_eq!(sent(immediate(), get, 0).len(), 1);
}

#[test]
fn cloned_request_keeps_its_deadline() {
    for timeout in [None, Some("0n")] {
        let mut get = form(Method::GET);
        match timeout {
            None => drop(get.extensions_mut().insert(Deadline::within(Duration::ZERO))),
            Some(timeout) => drop(get.headers_mut().insert("grpc-timeout", timeout.parse().unwrap())),
        }
        assert_eq!(sent(immediate(), get, 503).len(), 1, "{timeout:?}");
    }
}

#[test]
fn cloned_grpc_call_with_listed_method_is_sent_again() {
    let call = |path: &str| {
        let mut call = form(Method::POST);
        *call.uri_mut() = path.parse().unwrap();
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        call
    };
    let policy = || immediate().idempotent_methods(["shop.Orders/Get"]);
    assert_eq!(sent(policy(), call("/shop.Orders/Put"), 503).len(), 1);
    let attempts = sent(policy(), call("/shop.Orders/Get"), 503);
    let previous: Vec<_> =
        attempts.iter().map(|sent| sent.headers().get("grpc-previous-rpc-attempts").cloned()).collect();
    assert_eq!(previous, [None, Some(1.into()), Some(2.into())]);
}

#[test]
fn cloned_request_is_marked_and_nested_layers_do_not_multiply() {
    let header = HeaderName::from_static("x-attempt");
    let attempts = sent(immediate().marker_header(header), form(Method::GET), 503);
    let numbers: Vec<_> = attempts.iter().map(|sent| sent.headers()["x-attempt"].clone()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    assert!(attempts.iter().all(|sent| Attempt::of(sent.extensions()).is_some()));
    assert!(attempts.iter().all(|sent| *sent.body() == Form("a=b".to_owned())));

    let calls = Calls::default();
    let layer = || JitterRetryLayer::new(immediate().build().unwrap()).clone_requests();
    let mut service =
        ServiceBuilder::new().layer(layer()).layer(layer()).service(service_fn(|_: Request<Form>| {
            calls.next();
            async { answer(503) }
        }));
    block_on(send(&mut service, form(Method::GET))).unwrap();
    assert_eq!(calls.made(), 3);
}

#[cfg(feature = "tower-retry")]
#[test]
fn cloned_request_under_tower_policy_keeps_every_check() {
    let calls = Calls::default();
    let policy = immediate().build().unwrap().for_tower().clone_requests();
    let mut service = tower::retry::RetryLayer::new(policy).layer(service_fn(|_: Request<Form>| {
        calls.next();
        async { answer(503) }
    }));
    let mut never = form(Method::GET);
    never.extensions_mut().insert(RetrySafety::Never);
    for (request, expected) in [(form(Method::POST), 1), (form(Method::GET), 3), (never, 1)] {
        let before = calls.made();
        block_on(send(&mut service, request)).unwrap();
        assert_eq!(calls.made() - before, expected);
    }
}

/// A request type with its own idempotency.
#[derive(Clone)]
struct Command {
    reads: bool,
}

impl RequestInfo for Command {
    fn is_idempotent(&self) -> bool {
        self.reads
    }
}

#[test]
fn custom_request_type_decides_idempotency() {
    for (reads, expected) in [(true, 3), (false, 1)] {
        let calls = Calls::default();
        let layer = JitterRetryLayer::new(immediate().build().unwrap()).clone_requests();
        let mut service = layer.layer(service_fn(|_: Command| {
            let call = calls.next();
            async move { Err::<(), _>(Broken(call)) }
        }));
        block_on(send(&mut service, Command { reads })).unwrap_err();
        assert_eq!(calls.made(), expected);
    }
}

/// An `Option` of an HTTP request follows the rules of HTTP.
#[test]
fn optional_post_is_sent_once() {
    for (request, expected) in [(Some(form(Method::POST)), 1), (Some(form(Method::GET)), 3), (None, 3)] {
        let calls = Calls::default();
        let layer = JitterRetryLayer::new(immediate().build().unwrap()).clone_requests();
        let mut service = layer.layer(service_fn(|_: Option<Request<Form>>| {
            calls.next();
            async { answer(503) }
        }));
        block_on(send(&mut service, request)).unwrap();
        assert_eq!(calls.made(), expected);
    }
}
