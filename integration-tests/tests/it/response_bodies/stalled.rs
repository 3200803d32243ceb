//! Servers that stop in the middle of a response, over real clients. The idle limit makes the
//! stream a failure, and the reader still waits.
//!
//! Tokio's clock is paused. It does not advance until the head and the first data have arrived.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{FrozenTime, channel, reqwest_client, words};
use test_servers::{Action, Grpc, Http, Reply};
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerLayer, Circuit, CircuitState, Clock, Kind};
use tower_fault_classify::FaultClassifyLayer;
use tower_fault_classify::body::{ErrorBodies, LlmErrors};

use super::server;

const LIMIT: Duration = Duration::from_secs(5);
const LONGER: Duration = Duration::from_secs(60);

/// Returns a circuit that opens at the first failure.
fn circuit() -> Circuit {
    let config = BreakerConfig::builder().consecutive_failures(1).clock(Clock::manual().0);
    Circuit::new(config.build().unwrap())
}

async fn stalling_server() -> Http {
    server([Action::status(200).body("half").content_length(10)]).await
}

fn assert_opened_by_stall(circuit: &Circuit) {
    let status = circuit.status();
    assert_eq!(status.state, CircuitState::Open);
    assert_eq!(status.last_trip.unwrap().fault.unwrap().kind(), Kind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn stalled_body_over_reqwest_is_failure() {
    let frozen = FrozenTime::start();
    let (server, circuit) = (stalling_server().await, circuit());
    let client = reqwest_client().build().unwrap();
    let request = client.get(server.url()).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(BreakerLayer::with_circuit(circuit.clone()).track_body().idle_limit(LIMIT))
        .service(client);
    let mut response: reqwest::Response = stack.oneshot(request).await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
    assert_eq!(circuit.status().state, CircuitState::Closed);
    drop(frozen);
    timeout(LONGER, response.chunk()).await.expect_err("the reader still waits");
    assert_opened_by_stall(&circuit);
}

#[tokio::test(start_paused = true)]
async fn stalled_body_over_hyper_util_is_failure() {
    let frozen = FrozenTime::start();
    let (server, circuit) = (stalling_server().await, circuit());
    let stack = ServiceBuilder::new()
        .layer(BreakerLayer::with_circuit(circuit.clone()).track_body().idle_limit(LIMIT).http_fallback())
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());
    let request = Request::get(server.url()).body(Empty::new()).unwrap();
    let mut body = stack.oneshot(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    assert_eq!(circuit.status().state, CircuitState::Closed);
    drop(frozen);
    timeout(LONGER, body.frame()).await.map(|_| ()).expect_err("the reader still waits");
    assert_opened_by_stall(&circuit);
}

#[tokio::test(start_paused = true)]
async fn stalled_stream_over_tonic_is_failure() {
    let frozen = FrozenTime::start();
    let (server, circuit) = (Grpc::start().await, circuit());
    server.script([Reply::message("a").hang()]);
    let stack = ServiceBuilder::new()
        .layer(BreakerLayer::with_circuit(circuit.clone()).track_body().idle_limit(LIMIT))
        .service(channel(&server.url()));
    let mut words_of_server = EchoClient::new(stack).spell(words("a")).await.unwrap().into_inner();
    assert_eq!(words_of_server.message().await.unwrap().unwrap().text, "a");
    assert_eq!(circuit.status().state, CircuitState::Closed);
    drop(frozen);
    timeout(LONGER, words_of_server.message()).await.map(|_| ()).expect_err("the reader still waits");
    assert_opened_by_stall(&circuit);
}

#[tokio::test(start_paused = true)]
async fn probe_without_first_event_frees_slot_and_reopens() {
    let frozen = FrozenTime::start();
    let stalls = Action::status(200).header("content-type", "text/event-stream").body(": ping\n\n");
    let server = server([stalls.content_length(100)]).await;
    let config = BreakerConfig::builder().probes(1).clock(Clock::manual().0).build().unwrap();
    let circuit = Circuit::new(config);
    circuit.trip().unwrap();
    circuit.probe_now().unwrap();
    let bodies = ErrorBodies::new(LlmErrors::new()).first_event_timeout(LIMIT);
    let client = reqwest_client().build().unwrap();
    let request = client.get(server.url()).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(BreakerLayer::with_circuit(circuit.clone()).track_body())
        .layer(FaultClassifyLayer::new().read_error_bodies(bodies))
        .service(client);
    let call = tokio::spawn(stack.oneshot(request));
    while server.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(circuit.status().half_open.unwrap().running_probes, 1);
    drop(frozen);
    let mut response: reqwest::Response = call.await.unwrap().unwrap();
    assert_opened_by_stall(&circuit);
    // The body of the failed probe holds no slot, and can still be read.
    circuit.probe_now().unwrap();
    let _probe = circuit.try_acquire().expect("the slot is free");
    assert_eq!(response.chunk().await.unwrap().unwrap(), ": ping\n\n");
}
