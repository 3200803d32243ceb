//! Any request: no panic, no server error, and nothing is created.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::Full;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tower_breaker_admin::{Admin, User};

use super::harness::*;

/// Circuits, and an admin for which each request has a user. So no rate is exceeded.
fn start() -> (Circuits, Admin, Runtime) {
    let circuits = Circuits::new();
    let requests = AtomicU64::new(0);
    let builder = circuits.builder().authorize(move |_| {
        let user = requests.fetch_add(1, Ordering::Relaxed) % 1000;
        Some(User::operator(user.to_string()))
    });
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let admin = runtime.block_on(async { builder.build().unwrap() });
    (circuits, admin, runtime)
}

/// A part of a path: valid or not.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("circuits".to_owned()),
        Just("keys".to_owned()),
        Just("actions".to_owned()),
        prop::sample::select(vec![
            "search", "tenants", "acme", "trip", "config", "fleet", "audit", "api", "v1", "..", "."
        ])
        .prop_map(str::to_owned),
        any::<String>().prop_map(|text| encoded(&text)),
        "[!-~]{0,8}",
        "(%[0-9a-fA-F]{2}){1,4}",
        "%[ -~]{0,3}",
    ]
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    let below_api = (prop::collection::vec(segment(), 0..7), prop::option::of("[!-~]{0,40}"));
    let below_api = below_api.prop_map(|(segments, query)| {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("/api/v1/{}{query}", segments.join("/")).into_bytes()
    });
    prop_oneof![4 => below_api, 1 => prop::collection::vec(any::<u8>(), 0..60)]
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        4 => Just(Method::POST),
        4 => Just(Method::GET),
        1 => Just(Method::HEAD),
        1 => "[A-Z]{1,9}".prop_map(|name| Method::from_bytes(name.as_bytes()).unwrap()),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just("\"process\"".to_owned()),
        Just("\"fleet\"".to_owned()),
        any::<f64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "[\\[\\]{}\",:0-9a-z\\\\]{0,12}",
    ];
    let field = (prop::sample::select(vec!["reason", "scope", "for_seconds", "x"]), value);
    let object = prop::collection::vec(field, 0..5).prop_map(|fields| {
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        format!("{{{}}}", fields.join(", ")).into_bytes()
    });
    prop_oneof![object, prop::collection::vec(any::<u8>(), 0..200)]
}

fn header() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let names =
        vec!["if-match", "sec-fetch-site", "content-type", "last-event-id", "if-none-match", "authorization"];
    (prop::sample::select(names), prop::collection::vec(any::<u8>(), 0..20))
}

#[test]
fn no_request_is_a_server_error_or_creates_a_circuit() {
    let (circuits, admin, runtime) = start();
    let before = circuits.count();
    let config = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(target in target(), method in method(), body in body(), header in prop::option::of(header()))| {
        let Ok(uri) = Uri::try_from(target.clone()) else { return Ok(()) };
        let mut request = Request::builder().method(method).uri(uri).header("x-tower-breaker", "1");
        if header.as_ref().is_none_or(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/json");
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let Ok(request) = request.body(Full::new(Bytes::from(body))) else { return Ok(()) };
        let text = format!("{request:?}");
        let answer = runtime.block_on(async {
            tokio::time::advance(std::time::Duration::from_millis(100)).await;
            send(&admin, request).await
        });
        prop_assert!(answer.status.as_u16() < 500, "{} {:?}", text, answer);
        prop_assert_ne!(answer.status.as_u16(), 429);
        if answer.status.is_client_error() && !answer.body.is_empty() {
            answer.detail();
        }
        prop_assert_eq!(circuits.count(), before);
    });
}
