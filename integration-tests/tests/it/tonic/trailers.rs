//! What the circuit counts from the head and the trailers of a response, and the rejection while it
//! is open, for all four kinds of calls.

use std::time::Duration;

use integration_tests::echo::Words;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{channel, echo_client, retry_at_once, words};
use test_servers::{Grpc, Reason, Reply};
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};
use tower::ServiceBuilder;
use tower_breaker::{BreakerConfig, BreakerLayer, Circuit, CircuitState, Clock, Reason as Why};
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_error};

use super::all_listed;

/// Returns a circuit that opens at the third failure in a row and stays open.
fn circuit() -> Circuit {
    let config = BreakerConfig::builder()
        .name("speaker")
        .consecutive_failures(3)
        .consecutive_failures_span(Duration::ZERO)
        .count_failed_retries(true)
        .open_for(Duration::from_secs(30))
        .open_jitter(0.0)
        .clock(Clock::manual().0);
    Circuit::new(config.build().unwrap())
}

/// Reads a stream to its end, and returns its code.
async fn stream_code(answer: Result<Response<Streaming<Words>>, Status>) -> Code {
    let mut answer = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status.code(),
    };
    loop {
        match answer.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

fn code(answer: Result<Response<Words>, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// Makes a call of each kind, and reads its response to the end.
macro_rules! all_kinds {
    ($client:expr) => {{
        let client = &mut $client;
        [
            code(client.say(words("a")).await),
            code(client.gather(tokio_stream::once(words("a"))).await),
            stream_code(client.spell(words("a")).await).await,
            stream_code(client.talk(tokio_stream::once(words("a"))).await).await,
        ]
    }};
}

/// Makes a call of each kind to a server that always sends `reply`. Returns the codes, the circuit
/// and the number of requests.
async fn answered(reply: Reply) -> ([Code; 4], Circuit, usize) {
    let (server, circuit) = (Grpc::start().await, circuit());
    server.set_default(reply);
    let codes = all_kinds!(echo_client(&server.url(), retry_at_once(), &circuit));
    (codes, circuit, server.requests().len())
}

#[tokio::test]
async fn unavailable_in_head_or_trailers_opens_circuit() {
    for reply in [
        Reply::trailers_only(14),
        Reply::headers().status(14),
        Reply::message("x").status(14),
        Reply::message("x").and_message("y").status(14),
        Reply::message("x").rst_stream(Reason::INTERNAL_ERROR),
    ] {
        let (codes, circuit, requests) = answered(reply.clone()).await;
        let status = circuit.status();
        assert_eq!((status.state, requests), (CircuitState::Open, 3), "{reply:?}: {codes:?}");
        assert_eq!(status.last_trip.unwrap().reason, Why::ConsecutiveFailures);
        assert_eq!(codes[3], Code::Unavailable, "the fourth call is rejected");
    }
}

#[tokio::test]
async fn client_error_in_head_or_trailers_keeps_circuit_closed() {
    for reply in [
        Reply::trailers_only(3),
        Reply::headers().status(3),
        Reply::message("x").status(3),
        Reply::message("x").and_message("y").status(3),
    ] {
        let (codes, circuit, requests) = answered(reply.clone()).await;
        assert_eq!((codes, requests), ([Code::InvalidArgument; 4], 4), "{reply:?}");
        let status = circuit.status();
        assert_eq!(status.state, CircuitState::Closed);
        assert_eq!((status.window.calls, status.window.failures), (4, 0), "{reply:?}");
    }
}

/// The code sent nothing about the health of the server, and the caller has not cancelled.
#[tokio::test]
async fn cancelled_code_from_server_is_neutral() {
    for reply in [Reply::trailers_only(1), Reply::headers().status(1), Reply::message("x").status(1)] {
        let (codes, circuit, _) = answered(reply.clone()).await;
        assert_eq!(codes, [Code::Cancelled; 4]);
        let window = circuit.status().window;
        assert_eq!((window.calls, window.failures, window.cancelled), (0, 0, 0), "{reply:?}");
    }
}

#[tokio::test]
async fn client_error_resets_consecutive_failures() {
    let (server, circuit) = (Grpc::start().await, circuit());
    let mut client = echo_client(&server.url(), retry_at_once(), &circuit);
    let failed = || Reply::message("x").status(14);
    server.script([failed(), failed(), Reply::message("x").status(3), failed()]);
    all_kinds!(client);
    assert_eq!((circuit.status().state, circuit.status().consecutive_failures), (CircuitState::Closed, 1));
}

/// The head is a success, and without `track_body` the breaker does not read the trailers.
#[tokio::test]
async fn trailers_count_only_with_track_body() {
    let (server, circuit) = (Grpc::start().await, circuit());
    let heads = ServiceBuilder::new()
        .layer(BreakerLayer::with_circuit(circuit.clone()))
        .layer(FaultClassifyLayer::new())
        .service(channel(&server.url()));
    server.set_default(Reply::message("x").status(14));
    assert_eq!(all_kinds!(EchoClient::new(heads)), [Code::Unavailable; 4]);
    assert_eq!(circuit.status().window.failures, 0);
}

#[tokio::test]
async fn stream_dropped_after_message_is_not_counted() {
    let (server, circuit) = (Grpc::start().await, circuit());
    server.set_default(Reply::message("x").status(14));
    let mut client = echo_client(&server.url(), retry_at_once(), &circuit);
    for _ in 0..3 {
        let mut answer = client.spell(words("a")).await.unwrap().into_inner();
        assert_eq!(answer.message().await.unwrap().unwrap().text, "x");
    }
    let window = circuit.status().window;
    assert_eq!((window.calls, window.failures, window.cancelled), (0, 0, 0));
}

fn assert_rejected(status: &Status, pushback: &str) {
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), pushback);
    assert_eq!(classify_error(status).kind(), Kind::Rejected);
}

#[tokio::test]
async fn rejection_is_unavailable_and_sends_nothing() {
    let (server, circuit) = (Grpc::start().await, circuit());
    let mut client = echo_client(&server.url(), all_listed(), &circuit);
    circuit.trip().unwrap();
    for pushback in ["30000", "-1"] {
        assert_rejected(&client.say(words("a")).await.unwrap_err(), pushback);
        assert_rejected(&client.gather(tokio_stream::once(words("a"))).await.unwrap_err(), pushback);
        assert_rejected(&client.spell(words("a")).await.unwrap_err(), pushback);
        assert_rejected(&client.talk(tokio_stream::once(words("a"))).await.unwrap_err(), pushback);
        circuit.force_open().unwrap();
    }
    assert_eq!(server.connections(), 0);

    let fallback = ServiceBuilder::new()
        .layer(BreakerLayer::with_circuit(circuit.clone()).track_body().grpc_fallback())
        .layer(FaultClassifyLayer::new().keep_errors())
        .service::<Channel>(channel(&server.url()));
    assert_eq!(all_kinds!(EchoClient::new(fallback)), [Code::Unavailable; 4]);
    assert_eq!(server.connections(), 0);
}
