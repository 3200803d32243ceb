//! A generated tonic client with TLS, retries, a circuit breaker and a timeout.
//!
//! The program shows:
//!
//! - a call that is retried after `UNAVAILABLE`, because its method is declared idempotent;
//! - a deadline, before which the delay that the server asks for does not fit: no retry;
//! - a stream that breaks and a stream that stalls, which the circuit counts as failures;
//! - `INVALID_ARGUMENT`, which is neither retried nor counted as a failure of the server;
//! - a circuit that opens, and its rejection as a [`Status`] with a pushback;
//! - a circuit that closes again after two successful probes;
//! - a server whose certificate the client does not trust: no retry.
//!
//! ```text
//! cargo run --example tonic
//! ```

mod server;

use std::time::Duration;

use echo::Words;
use echo::echo_client::EchoClient;
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tower::timeout::{Timeout, TimeoutLayer};
use tower::{BoxError, ServiceBuilder};
use tower_breaker::body::OnBodyEnd;
use tower_breaker::fallback::GrpcUnavailable;
use tower_breaker::telemetry::{Failure, NoLastFailure, Transition};
use tower_breaker::{Breaker, BreakerConfig, BreakerLayer, Circuit, Clock};
use tower_fault_classify::body::{IdleLimit, NoInspector};
use tower_fault_classify::classifiers::{Auto, BoxedError, RuleFirst, TypedError};
use tower_fault_classify::rules::GrpcOnly;
use tower_fault_classify::{FaultClassify, FaultClassifyLayer, classify_error};
use tower_jitter_retry::{JitterRetry, JitterRetryLayer, RetryEvent, RetryPolicy};

use crate::server::{Ending, ScriptedEcho, busy_for, failure, start_server};

#[allow(unreachable_pub, clippy::pedantic, reason = "the code is generated")]
mod echo {
    tonic::include_proto!("echo");
}

/// The time limit of one attempt, until the head of its response.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time after which a stream without a message counts as a failure. The demo's is short.
const IDLE_LIMIT: Duration = Duration::from_millis(100);

/// The time for which the program waits for the next message of a stream.
const PATIENCE: Duration = Duration::from_millis(500);

/// The time between two calls while the server is down.
const CALL_INTERVAL: Duration = Duration::from_millis(300);

/// The client with its layers. The type has a name, so that a struct can hold the client.
type LayeredClient = EchoClient<JitterRetry<Guarded<Classified<Timeout<Channel>>>>>;

/// The breaker with `track_body`, `idle_limit` and `grpc_fallback`.
type Guarded<S> =
    Breaker<S, Auto, GrpcUnavailable, OnBodyEnd<NoInspector, TypedError, NoLastFailure, IdleLimit>>;

/// The classification with the rule for gRPC before the defaults. `BoxedError` is the error type of
/// tower's timeout.
type Classified<S> = FaultClassify<S, RuleFirst<GrpcOnly, Auto<BoxedError>>>;

/// Returns a channel that connects at its first call. The feature `tls-ring` of tonic does the TLS.
fn tls_channel(url: &str, tls: ClientTlsConfig) -> Result<Channel, BoxError> {
    Ok(Endpoint::from_shared(url.to_owned())?.tls_config(tls)?.connect_lazy())
}

/// Trusts one certificate. For public servers, enable the feature `tls-webpki-roots` or
/// `tls-native-roots` of tonic and use `with_enabled_roots`.
fn trust(certificate: Certificate) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(certificate)
}

/// Builds the client, and returns it with a handle to its circuit.
fn layered_client(channel: Channel, clock: Clock) -> Result<(LayeredClient, Circuit), BoxError> {
    let retry_policy = RetryPolicy::builder()
        // gRPC sends each call by POST, so the layer cannot see which calls are idempotent. Without
        // this list it does not retry a call that the server may have processed.
        .idempotent_methods(["echo.Echo/Say", "echo.Echo/Spell"])
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
        .idle_limit(IDLE_LIMIT)
        // A rejection is a `Status`, and the breaker has no error type of its own.
        .grpc_fallback()
        .on_failure(print_failure)
        .on_transition(print_transition);
    let circuit = breaker.circuit();

    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_policy))
        .layer(breaker)
        // All calls of this stack are gRPC. With this rule, the HTML page of a proxy is a failure
        // even if its status is 200.
        .layer(FaultClassifyLayer::new().rule(GrpcOnly))
        .layer(TimeoutLayer::new(ATTEMPT_TIMEOUT))
        .service(channel);
    Ok((EchoClient::new(stack), circuit))
}

fn print_retry(retry: &RetryEvent) {
    println!("#   attempt {} failed: {}", retry.attempt, retry.fault.kind());
}

fn print_failure(failure: &Failure) {
    println!("#   the circuit counts a failure: {}", failure.fault.kind());
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
    async fn say(&mut self, request: Request<Words>, failures: &[Status]) {
        let text = request.get_ref().text.clone();
        self.server.fail_next(failures);
        let requests_before = self.server.request_count();
        let result = self.client.say(request).await;
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

    /// Receives the letters of `text` as a stream, and prints how the stream ended.
    async fn spell(&mut self, text: &str, failures: &[Status], ending: Ending) -> Result<(), Status> {
        self.server.fail_next(failures);
        self.server.end_streams(ending);
        let requests_before = self.server.request_count();
        let mut letters = self.client.spell(words(text)).await?.into_inner();

        let mut received = String::new();
        let end = loop {
            match timeout(PATIENCE, letters.message()).await {
                Ok(Ok(Some(letter))) => received.push_str(&letter.text),
                Ok(Ok(None)) => break "complete".to_owned(),
                Ok(Err(status)) => break format!("{:?}: {}", status.code(), status.message()),
                // The breaker has counted the stream. To give it up is the caller's decision.
                Err(_) => break "no message in time".to_owned(),
            }
        };
        let requests = self.server.request_count() - requests_before;
        println!("{text}: {received}, {end} (requests: {requests})");
        Ok(())
    }
}

/// Prints the delay after which a call may be made again, if the server or the breaker sent one.
fn print_pushback(status: &Status) {
    if let Some(delay) = classify_error(status).retry_after() {
        println!("#   the call may be made again in {} ms", delay.as_millis());
    }
}

fn unavailable(count: usize) -> Vec<Status> {
    vec![failure(Code::Unavailable); count]
}

fn words(text: &str) -> Request<Words> {
    Request::new(Words { text: text.to_owned() })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = ScriptedEcho::default();
    let (url, certificate) = start_server(server.clone()).await?;
    let (clock, clock_handle) = Clock::manual();
    let channel = tls_channel(&url, trust(certificate))?;
    let (client, circuit) = layered_client(channel, clock)?;
    let mut demo = Demo { client, circuit, server: server.clone() };

    demo.say(words("hello"), &[]).await;
    // Three attempts are the default: the third succeeds.
    demo.say(words("busy"), &unavailable(2)).await;
    // The deadline is sent as `grpc-timeout`. A retry after ten seconds would come too late.
    let mut urgent = words("urgent");
    urgent.set_timeout(Duration::from_secs(5));
    demo.say(urgent, &[busy_for(Duration::from_secs(10))]).await;

    // A stream is retried before the head of its response, and not after it.
    demo.spell("cat", &unavailable(1), Ending::Complete).await?;
    demo.spell("dog", &[], Ending::Broken).await?;
    demo.spell("owl", &[], Ending::Stalled).await?;

    // Five failures in a row open the circuit if they span a second. These six are the caller's
    // mistakes.
    for _ in 0..6 {
        demo.say(words("nonsense"), &[failure(Code::InvalidArgument)]).await;
        clock_handle.advance(CALL_INTERVAL);
    }
    // The circuit does not count the failures of retries. The first attempt of the fifth call is
    // the fifth failure: the circuit opens, and rejects the retry and the sixth call.
    for _ in 0..6 {
        demo.say(words("down"), &unavailable(3)).await;
        clock_handle.advance(CALL_INTERVAL);
    }
    // After the open time, the next calls are probes. Two successes close the circuit.
    clock_handle.advance(demo.circuit.status().retry_after.unwrap_or_default());
    for _ in 0..4 {
        demo.say(words("back"), &[]).await;
    }

    // This client trusts no certificate. Another attempt would not change that.
    let channel = tls_channel(&url, ClientTlsConfig::new())?;
    let (client, circuit) = layered_client(channel, clock)?;
    let mut stranger = Demo { client, circuit, server };
    stranger.say(words("stranger"), &[]).await;
    Ok(())
}
