//! The layers under a generated gRPC client: one retries, one stops asking a server that is down,
//! and both leave the caller's own mistakes alone.
//!
//! `cargo run --release --example tonic`

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use echo::Words;
use echo::echo_client::EchoClient;
use echo::echo_server::{Echo, EchoServer};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tower::ServiceBuilder;
use tower_breaker::{BreakerConfig, BreakerLayer, Clock};
use tower_fault_classify::FaultClassifyLayer;
use tower_fault_classify::rules::GrpcOnly;
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

#[allow(unreachable_pub, clippy::pedantic, reason = "the code is generated")]
mod echo {
    tonic::include_proto!("echo");
}

/// How a server is: what it fails with next, and how often it was asked.
#[derive(Default)]
struct Mood {
    failures: VecDeque<Code>,
    asked: usize,
}

/// Says in capitals what it hears, if it is in the mood.
struct Shouter(Arc<Mutex<Mood>>);

#[tonic::async_trait]
impl Echo for Shouter {
    async fn say(&self, request: Request<Words>) -> Result<Response<Words>, Status> {
        let mut mood = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mood.asked += 1;
        match mood.failures.pop_front() {
            Some(code) => Err(Status::new(code, "not now")),
            None => Ok(Response::new(Words { text: request.into_inner().text.to_uppercase() })),
        }
    }
}

/// Starts a server on loopback, and leads a channel to it.
async fn shouter(mood: Arc<Mutex<Mood>>) -> Result<Channel, Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr()?))?;
    let server = Server::builder().add_service(EchoServer::new(Shouter(mood)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(endpoint.connect_lazy())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mood = Arc::<Mutex<Mood>>::default();
    let channel = shouter(Arc::clone(&mood)).await?;

    let retries = RetryPolicy::builder()
        .initial_backoff(Duration::from_millis(2))
        // gRPC sends all by POST: what may be called twice is said here.
        .idempotent_methods(["echo.Echo/Say"])
        .on_retry(|retry| println!("#   attempt {} failed: {}", retry.attempt, retry.fault.kind()))
        .build()?;
    // A program of yours has no need to set the clock: the example does not want to wait.
    let (clock, hand) = Clock::manual();
    let config = BreakerConfig::builder().name("echo").open_for(Duration::from_secs(10)).clock(clock);
    let breaker = BreakerLayer::new(config.build()?)
        .on_transition(|change| println!("#   {} -> {} ({})", change.from, change.to, change.reason));
    let circuit = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retries))
        .layer(breaker)
        // This stack carries gRPC alone: a proxy's HTML page is a failure, whatever its status.
        .layer(FaultClassifyLayer::new().rule(GrpcOnly))
        .timeout(Duration::from_secs(5))
        .service(channel);
    let mut client = EchoClient::new(stack);

    let mut say = async |what: &str, failures: &[Code]| {
        let before = {
            let mut mood = mood.lock().unwrap_or_else(PoisonError::into_inner);
            mood.failures = failures.iter().copied().collect();
            mood.asked
        };
        let answer = client.say(Words { text: what.to_owned() }).await;
        let asked = mood.lock().unwrap_or_else(PoisonError::into_inner).asked - before;
        let state = circuit.status().state;
        match answer {
            Ok(words) => println!("{what}: {} (asked: {asked}, circuit: {state})", words.into_inner().text),
            Err(status) => {
                let (code, text) = (status.code(), status.message());
                println!("{what}: {code:?}: {text} (asked: {asked}, circuit: {state})");
                if let Some(pushback) = status.metadata().get("grpc-retry-pushback-ms") {
                    println!("#   may come again in {} ms", pushback.to_str().unwrap_or("?"));
                }
            }
        }
    };

    say("hello", &[]).await;
    say("busy", &[Code::Unavailable, Code::Unavailable]).await;
    for _ in 0..6 {
        say("nonsense", &[Code::InvalidArgument]).await;
    }
    for _ in 0..3 {
        say("down", &[Code::Unavailable; 3]).await;
    }
    hand.advance(Duration::from_secs(10));
    for _ in 0..4 {
        say("back", &[]).await;
    }
    Ok(())
}
