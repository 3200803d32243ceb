//! A server that sheds load: its circuit answers while its handlers fail.

use std::time::Duration;

use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{FrozenTime, channel, words};
use tokio::sync::mpsc;
use tokio::time::advance;
use tonic::{Code, Status};
use tower::ServiceBuilder;
use tower_breaker::{BreakerConfig, BreakerLayer, Circuit, CircuitState, Clock, ManualClock};
use tower_fault_classify::Health;
use tower_jitter_retry::JitterRetryLayer;

use super::all_listed;
use super::echo_service::{Failure, TestServer};

const OPEN_FOR: Duration = Duration::from_secs(30);

/// Returns a circuit that opens at the second failure in a row, and the handle of its clock.
fn circuit() -> (Circuit, ManualClock) {
    let (clock, clock_handle) = Clock::manual();
    let config = BreakerConfig::builder()
        .name("server")
        .consecutive_failures(2)
        .consecutive_failures_span(Duration::ZERO)
        .open_for(OPEN_FOR)
        .open_jitter(0.0)
        .successes_to_close(1)
        .clock(clock);
    (Circuit::new(config.build().unwrap()), clock_handle)
}

fn unavailable() -> Failure {
    Failure::before_answer(Status::unavailable("the database is down"))
}

fn assert_shed(status: &Status, pushback: &str) {
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("circuit breaker `server` is"), "{status:?}");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), pushback, "{status:?}");
}

#[tokio::test]
async fn server_with_failing_handlers_sheds_with_pushback() {
    let (circuit, clock_handle) = circuit();
    let mut server = TestServer::layered(BreakerLayer::with_circuit(circuit.clone()).grpc_fallback()).await;
    let mut client = EchoClient::new(channel(&server.url));
    server.fail((0..3).map(|_| Failure::before_answer(Status::invalid_argument("no text"))));
    for _ in 0..3 {
        assert_eq!(client.say(words("a")).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
    server.fail([unavailable(), unavailable()]);
    assert_eq!(client.say(words("a")).await.unwrap_err().message(), "the database is down");
    assert_eq!(client.spell(words("a")).await.unwrap_err().message(), "the database is down");
    assert_eq!(server.take_events().len(), 10);

    // Each connection has its own service. All services share the circuit.
    let mut other = EchoClient::new(channel(&server.url));
    for client in [&mut client, &mut other] {
        assert_shed(&client.say(words("a")).await.unwrap_err(), "30000");
        assert_shed(&client.gather(tokio_stream::once(words("a"))).await.unwrap_err(), "30000");
        assert_shed(&client.spell(words("a")).await.unwrap_err(), "30000");
        assert_shed(&client.talk(tokio_stream::once(words("a"))).await.unwrap_err(), "30000");
    }
    clock_handle.advance(Duration::from_millis(29_500));
    assert_shed(&client.say(words("a")).await.unwrap_err(), "500");
    assert_eq!(server.take_events(), [""; 0]);

    clock_handle.advance(Duration::from_millis(500));
    assert_eq!(client.say(words("a")).await.unwrap().into_inner().text, "A");
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn client_retrying_after_pushback_is_admitted() {
    let _frozen = FrozenTime::start();
    let (circuit, clock_handle) = circuit();
    let mut server = TestServer::layered(BreakerLayer::with_circuit(circuit.clone()).grpc_fallback()).await;
    circuit.trip().unwrap();
    let (delay_sender, mut delays) = mpsc::unbounded_channel();
    let policy =
        all_listed().clock(Clock::tokio()).on_retry(move |retry| delay_sender.send(retry.delay).unwrap());
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy.build().unwrap()))
        .service(channel(&server.url));
    let mut client = EchoClient::new(stack);
    let call = client.say(words("a"));
    let clock = async {
        assert_eq!(delays.recv().await, Some(OPEN_FOR));
        clock_handle.advance(OPEN_FOR);
        advance(OPEN_FOR).await;
    };
    let (answer, ()) = tokio::join!(call, clock);
    assert_eq!(answer.unwrap().into_inner().text, "A");
    delays.try_recv().expect_err("the call is retried once, after the pushback");
    assert_eq!(server.take_events(), ["say", "a"]);
}

#[tokio::test]
async fn forced_open_server_is_not_retried_by_client() {
    let (circuit, _) = circuit();
    let server = TestServer::layered(BreakerLayer::with_circuit(circuit.clone()).grpc_fallback()).await;
    circuit.force_open().unwrap();
    let (delay_sender, mut delays) = mpsc::unbounded_channel();
    let policy = all_listed().on_retry(move |retry| delay_sender.send(retry.delay).unwrap()).build().unwrap();
    let stack = ServiceBuilder::new().layer(JitterRetryLayer::new(policy)).service(channel(&server.url));
    assert_shed(&EchoClient::new(stack).say(words("a")).await.unwrap_err(), "-1");
    delays.try_recv().expect_err("the call is not retried");
}

#[tokio::test]
async fn stream_trailers_count_only_with_track_body() {
    let late_failure =
        || Failure { received: 0, sent: 1, status: Status::unavailable("the database is down") };
    let (on_head, _) = circuit();
    let server = TestServer::layered(BreakerLayer::with_circuit(on_head.clone()).grpc_fallback()).await;
    fail_late(&server, [late_failure(), late_failure()]).await;
    assert_eq!(on_head.status().state, CircuitState::Closed);

    let (on_body, _) = circuit();
    let layer = BreakerLayer::with_circuit(on_body.clone()).track_body().grpc_fallback();
    let server = TestServer::layered(layer).await;
    fail_late(&server, [late_failure(), late_failure()]).await;
    assert_eq!(on_body.status().state, CircuitState::Open);
    assert_eq!(
        on_body.status().last_trip.unwrap().fault.map(|fault| fault.health()),
        Some(Health::Unhealthy)
    );
    assert_shed(&EchoClient::new(channel(&server.url)).say(words("a")).await.unwrap_err(), "30000");
}

/// Makes a streaming call for each failure, and reads the stream until it fails.
async fn fail_late<const N: usize>(server: &TestServer, failures: [Failure; N]) {
    server.fail(failures);
    server.letter_permits.add_permits(N);
    let mut client = EchoClient::new(channel(&server.url));
    for _ in 0..N {
        let mut answer = client.spell(words("ab")).await.unwrap().into_inner();
        assert_eq!(answer.message().await.unwrap().unwrap().text, "a");
        assert_eq!(answer.message().await.unwrap_err().code(), Code::Unavailable);
    }
}
