//! The number of allocations of each outcome, as in the table of `FaultClassifyLayer`.

use std::fmt;
use std::future::ready;

use allocation_counter::measure;
use http::{HeaderValue, Response};
use tower::{Layer, service_fn};
use tower_fault_classify::{BoxError, FaultClassifyLayer, Verdict, classify_response, rule_fn};

use crate::support::call::{now, send};

#[derive(Clone, Copy, Debug)]
struct Broken(#[allow(dead_code, reason = "boxing a type without a size does not allocate")] u64);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

/// Returns the number of allocations of `call`, after a first call on the same thread.
fn allocations<T>(mut call: impl FnMut() -> T) -> u64 {
    drop(call());
    let mut call = || drop(call());
    measure(&mut call).count_total
}

/// Returns the number of the layer's allocations for a response.
fn for_response(response: impl Fn() -> Response<()>) -> u64 {
    let alone = allocations(&response);
    let mut service = FaultClassifyLayer::new().layer(service_fn(|()| ready(Ok::<_, Broken>(response()))));
    let layered = allocations(|| now(send(&mut service, ())));
    layered - alone
}

fn with_status(status: u16) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status.try_into().unwrap();
    response
}

/// Returns a response with these headers and two headers that are not hints.
fn with_fields(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
    let mut response = with_status(status);
    for (name, value) in [("content-type", "application/json"), ("x-request-id", "7")].iter().chain(fields) {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    response
}

#[test]
fn allocations_classify_outcome_none() {
    let date = ("date", "Tue, 15 Nov 1994 08:12:31 GMT");
    for status in [200, 304, 404, 429, 503] {
        for fields in [
            &[][..],
            &[("retry-after", "3")],
            &[("retry-after", "Tue, 15 Nov 1994 08:12:34 GMT"), date],
            &[("retry-after-ms", "1500.5"), ("x-should-retry", "true")],
            &[("content-type", "application/grpc"), ("grpc-status", "14")],
        ] {
            let response = with_fields(status, fields);
            assert_eq!(allocations(|| classify_response(&response)), 0, "{response:?}");
        }
        let response = with_status(status);
        assert_eq!(allocations(|| classify_response(&response)), 0, "{response:?}");
    }
}

#[test]
fn allocations_success_none() {
    assert_eq!(for_response(|| with_status(200)), 0);
    assert_eq!(for_response(|| with_status(304)), 0);
    assert_eq!(for_response(|| with_fields(200, &[])), 0);
    assert_eq!(for_response(|| with_fields(200, &[("content-type", "application/grpc")])), 0);
    let mut service =
        FaultClassifyLayer::new().layer(service_fn(|request: u32| ready(Ok::<_, Broken>(request))));
    assert_eq!(allocations(|| now(send(&mut service, 7))), 0);
}

#[test]
fn allocations_fault_by_status_none() {
    for status in [404, 429, 500, 503] {
        assert_eq!(for_response(|| with_status(status)), 0, "{status}");
    }
    assert_eq!(for_response(|| with_fields(503, &[("content-type", "text/plain")])), 0);
}

#[test]
fn allocations_other_fault_three_with_empty_extensions_else_one() {
    let fields = [("retry-after", "3")];
    assert_eq!(for_response(|| with_fields(503, &fields)), 3);
    assert_eq!(for_response(|| with_status(504)), 3, "a timeout");
    let extended = || {
        let mut response = with_fields(503, &fields);
        response.extensions_mut().insert(7_u32);
        response
    };
    assert_eq!(for_response(extended), 1);
}

#[test]
fn allocations_503_classified_as_success_three() {
    let rule = rule_fn(|outcome: Result<&Response<()>, &Broken>| outcome.is_ok().then_some(Verdict::Success));
    let mut service = FaultClassifyLayer::new()
        .rule(rule)
        .layer(service_fn(|status| ready(Ok::<_, Broken>(with_status(status)))));
    assert_eq!(allocations(|| now(send(&mut service, 503))), 3);
    assert_eq!(allocations(|| now(send(&mut service, 200))), 0);
}

#[test]
fn allocations_typed_error_two() {
    let mut service = FaultClassifyLayer::new().layer(service_fn(|()| ready(Err::<(), _>(Broken(7)))));
    assert_eq!(allocations(|| now(send(&mut service, ()))), 2);
}

#[test]
fn allocations_boxed_error_one() {
    let mut service =
        FaultClassifyLayer::new().layer(service_fn(|()| ready(Err::<(), BoxError>(Box::new(Broken(7))))));
    assert_eq!(allocations(|| now(send(&mut service, ()))), 2, "one is the box of the service's own error");
}

#[test]
fn allocations_kept_error_none() {
    let mut service =
        FaultClassifyLayer::new().keep_errors().layer(service_fn(|()| ready(Err::<(), _>(Broken(7)))));
    assert_eq!(allocations(|| now(send(&mut service, ()))), 0);
}
