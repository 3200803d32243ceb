//! A circuit that counts calls at the end of their bodies, over real clients.

use std::time::Duration;

use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{channel, reqwest_client, words};
use reqwest::{Method, Request, Response};
use test_servers::{Action, Grpc, Reply};
use tonic::Code;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerLayer, Circuit, CircuitState, Rejection, test_util};
use tower_fault_classify::body::LlmErrors;

use super::server;

fn config() -> BreakerConfig {
    BreakerConfig::builder()
        .name("echo")
        .consecutive_failures(2)
        .consecutive_failures_span(Duration::ZERO)
        .build()
        .unwrap()
}

/// Makes two calls that get this reply. Returns the code of the second call, and the circuit.
async fn after_two(reply: Reply) -> (Code, Circuit) {
    let server = Grpc::start().await;
    server.script([reply.clone(), reply]);
    let breaker = BreakerLayer::new(config()).track_body();
    let circuit = breaker.circuit();
    let mut client = EchoClient::new(ServiceBuilder::new().layer(breaker).service(channel(&server.url())));
    let mut code = Code::Ok;
    for _ in 0..2 {
        code = client.say(words("hi")).await.map_or_else(|status| status.code(), |_| Code::Ok);
    }
    assert_eq!(server.remaining(), 0);
    (code, circuit)
}

#[tokio::test]
async fn unavailable_in_trailers_opens_circuit_client_error_does_not() {
    let (code, circuit) = after_two(Reply::message("x").status(14)).await;
    assert_eq!((code, circuit.status().state), (Code::Unavailable, CircuitState::Open));
    let (code, circuit) = after_two(Reply::message("x").status(3)).await;
    assert_eq!((code, circuit.status().state), (Code::InvalidArgument, CircuitState::Closed));
    assert_eq!(circuit.status().window.failures, 0);
    let (code, circuit) = after_two(Reply::ok("answer")).await;
    assert_eq!((code, circuit.status().window.calls), (Code::Ok, 2));
}

#[tokio::test]
async fn rejection_at_generated_client_is_unavailable() {
    let server = Grpc::start().await;
    let breaker = BreakerLayer::new(config());
    breaker.circuit().trip().unwrap();
    let stack = ServiceBuilder::new().layer(breaker.clone()).service(channel(&server.url()));
    let status = EchoClient::new(stack).say(words("hi")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let mut source = std::error::Error::source(&status);
    while let Some(error) = source.filter(|error| !error.is::<Rejection>()) {
        source = error.source();
    }
    let rejection = source.and_then(|error| error.downcast_ref::<Rejection>());
    assert_eq!(rejection.expect("the rejection is in the chain").circuit(), "echo");

    let stack = ServiceBuilder::new().layer(breaker.grpc_fallback()).service(channel(&server.url()));
    let status = EchoClient::new(stack).say(words("hi")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("circuit breaker `echo` is open"), "{status:?}");
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_some());
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn broken_body_over_reqwest_is_failure_complete_is_success() {
    let cut = Action::status(200).body("half").content_length(10).then_close();
    let server = server([Action::status(200).body("whole"), cut]).await;
    let breaker = BreakerLayer::new(config()).track_body();
    let circuit = breaker.circuit();
    let client = reqwest_client().build().unwrap();
    let mut stack = ServiceBuilder::new().layer(breaker).service(client);
    let mut get = async || -> Response {
        let request = Request::new(Method::GET, server.url().parse().unwrap());
        stack.ready().await.unwrap().call(request).await.unwrap()
    };
    let whole = get().await;
    assert_eq!(circuit.status().window.calls, 0, "the body has not been read");
    assert_eq!(whole.text().await.unwrap(), "whole");
    assert_eq!(circuit.status().window.calls, 1);
    get().await.text().await.unwrap_err();
    let window = circuit.status().window;
    assert_eq!((window.calls, window.failures), (2, 1));
}

/// The reader of an LLM's answer stops at its last event. The server keeps the stream open.
async fn state_after_probe(last_event: &str) -> CircuitState {
    let text = format!("data: {{}}\n\n{last_event}");
    let stream = Action::status(200).header("content-type", "text/event-stream").body(text);
    let server = server([stream.chunked_without_end()]).await;
    let circuit = Circuit::new(BreakerConfig::builder().successes_to_close(1).build().unwrap());
    test_util::half_open(&circuit, 0);
    let breaker = BreakerLayer::with_circuit(circuit.clone());
    let client = ServiceBuilder::new()
        .layer(breaker.track_body().inspect_llm_events(LlmErrors::new()))
        .service(reqwest_client().build().unwrap());

    let request = Request::new(Method::GET, server.url().parse().unwrap());
    let mut response: Response = client.oneshot(request).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(last_event.as_bytes()) {
        received.extend(response.chunk().await.unwrap().unwrap());
    }
    drop(response);
    circuit.status().state
}

#[tokio::test]
async fn probe_that_reads_last_event_of_llm_closes_circuit() {
    for last_event in ["data: [DONE]\n\n", "event: message_stop\ndata: {}\n\n"] {
        assert_eq!(state_after_probe(last_event).await, CircuitState::Closed, "{last_event}");
    }
    assert_eq!(state_after_probe("data: 1\n\n").await, CircuitState::HalfOpen);
}
