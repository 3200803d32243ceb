//! A generated tonic client with retries, a circuit breaker and a timeout.
//!
//! The program shows:
//!
//! - a call that is retried after `UNAVAILABLE`, because its method is declared idempotent;
//! - `INVALID_ARGUMENT`, which is neither retried nor counted as a failure of the server;
//! - a circuit that opens, and its rejection as a [`Status`] with a pushback;
//! - a circuit that closes again after two successful probes.
//!
//! ```text
//! cargo run --example tonic
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use echo::Words;
use echo::echo_client::EchoClient;
use echo::echo_server::{Echo, EchoServer};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tower::timeout::{Timeout, TimeoutLayer};
use tower::{BoxError, ServiceBuilder};
use tower_breaker::body::OnBodyEnd;
use tower_breaker::fallback::ReturnError;
use tower_breaker::telemetry::Transition;
use tower_breaker::{Breaker, BreakerConfig, BreakerLayer, Circuit, Clock};
use tower_fault_classify::classifiers::{Auto, BoxedError, RuleFirst};
use tower_fault_classify::rules::GrpcOnly;
use tower_fault_classify::{FaultClassify, FaultClassifyLayer};
use tower_jitter_retry::{JitterRetry, JitterRetryLayer, RetryEvent, RetryPolicy};

#[allow(unreachable_pub, clippy::pedantic, reason = "the code is generated")]
mod echo {
    tonic::include_proto!("echo");
}

/// The time between two calls while the server is down.
const CALL_INTERVAL: Duration = Duration::from_millis(300);

/// The client with its layers. The type has a name, so that a struct can hold the client.
type LayeredClient = EchoClient<JitterRetry<Guarded<Classified<Timeout<Channel>>>>>;

/// The breaker with `track_body`.
type Guarded<S> = Breaker<S, Auto, ReturnError, OnBodyEnd>;

/// The classification with the rule for gRPC before the defaults. `BoxedError` is the error type of
/// tower's timeout.
type Classified<S> = FaultClassify<S, RuleFirst<GrpcOnly, Auto<BoxedError>>>;

/// Builds the client, and returns it with a handle to its circuit.
fn layered_client(channel: Channel, clock: Clock) -> Result<(LayeredClient, Circuit), BoxError> {
    let retry_policy = RetryPolicy::builder()
        // gRPC sends each call by POST, so the layer cannot see which calls are idempotent. Without
        // this list it does not retry a call that the server may have processed.
        .idempotent_methods(["echo.Echo/Say"])
        .on_retry(print_retry)
        .build()?;
    let breaker_config = BreakerConfig::builder()
        .name("echo")
        // Only the demo sets a clock, so that it does not have to wait. Leave this line out.
        .clock(clock)
        .build()?;
    let breaker = BreakerLayer::new(breaker_config)
        // A gRPC server may report its status in the trailers, at the end of the body.
        .track_body()
        .on_transition(print_transition);
    let circuit = breaker.circuit();

    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_policy))
        .layer(breaker)
        // All calls of this stack are gRPC. With this rule, the HTML page of a proxy is a failure
        // even if its status is 200.
        .layer(FaultClassifyLayer::new().rule(GrpcOnly))
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .service(channel);
    Ok((EchoClient::new(stack), circuit))
}

fn print_retry(retry: &RetryEvent) {
    println!("#   attempt {} failed: {}", retry.attempt, retry.fault.kind());
}

fn print_transition(transition: &Transition) {
    println!("#   {} -> {} ({})", transition.from, transition.to, transition.reason);
}

struct Demo {
    client: LayeredClient,
    circuit: Circuit,
    server: ScriptedEcho,
}

impl Demo {
    /// Makes one call, whose first requests fail with `failures`, and prints how it ended.
    async fn say(&mut self, text: &str, failures: &[Code]) {
        self.server.fail_next(failures);
        let requests_before = self.server.request_count();
        let result = self.client.say(Words { text: text.to_owned() }).await;
        let requests = self.server.request_count() - requests_before;

        let answer = match &result {
            Ok(response) => response.get_ref().text.clone(),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        let state = self.circuit.status().state;
        println!("{text}: {answer} (requests: {requests}, circuit: {state})");
        if let Err(status) = result {
            print_pushback(&status);
        }
    }
}

/// Prints the delay after which a rejected call may be made again, if a status has one.
fn print_pushback(status: &Status) {
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    if let Some(milliseconds) = pushback.and_then(|value| value.to_str().ok()) {
        println!("#   the call may be made again in {milliseconds} ms");
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = ScriptedEcho::default();
    let channel = start_server(server.clone()).await?;
    let (clock, clock_handle) = Clock::manual();
    let (client, circuit) = layered_client(channel, clock)?;
    let mut demo = Demo { client, circuit, server };

    demo.say("hello", &[]).await;
    // Three attempts are the default: the third succeeds.
    demo.say("busy", &[Code::Unavailable; 2]).await;
    // Five failures in a row open the circuit if they span a second. These six are the caller's
    // mistakes.
    for _ in 0..6 {
        demo.say("nonsense", &[Code::InvalidArgument]).await;
        clock_handle.advance(CALL_INTERVAL);
    }
    // The circuit does not count the failures of retries. The first attempt of the fifth call is
    // the fifth failure: the circuit opens, and rejects the retry and the sixth call.
    for _ in 0..6 {
        demo.say("down", &[Code::Unavailable; 3]).await;
        clock_handle.advance(CALL_INTERVAL);
    }
    // After the open time, the next calls are probes. Two successes close the circuit.
    clock_handle.advance(demo.circuit.status().retry_after.unwrap_or_default());
    for _ in 0..4 {
        demo.say("back", &[]).await;
    }
    Ok(())
}

/// A server that fails as the demo wants, and otherwise answers with the text in capitals.
#[derive(Clone, Default)]
struct ScriptedEcho(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    failures: VecDeque<Code>,
    request_count: usize,
}

impl ScriptedEcho {
    fn fail_next(&self, codes: &[Code]) {
        self.script().failures = codes.iter().copied().collect();
    }

    fn request_count(&self) -> usize {
        self.script().request_count
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Echo for ScriptedEcho {
    async fn say(&self, request: Request<Words>) -> Result<Response<Words>, Status> {
        let mut script = self.script();
        script.request_count += 1;
        match script.failures.pop_front() {
            Some(code) => Err(Status::new(code, "scripted failure")),
            None => Ok(Response::new(Words { text: request.into_inner().text.to_uppercase() })),
        }
    }
}

/// Starts the server on a loopback port, and returns a channel to it.
async fn start_server(echo: ScriptedEcho) -> Result<Channel, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr()?))?;
    let server = Server::builder().add_service(EchoServer::new(echo));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(endpoint.connect_lazy())
}
