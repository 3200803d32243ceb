//! The layers over tonic: all four kinds of calls under a generated client, a balancer's endpoints, and a server that sheds.

mod balance;
mod calls;
mod replays;
mod retries;
mod server;
mod soak;
mod speaker;
mod trailers;

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use integration_tests::echo::Words;
use integration_tests::echo::echo_client::EchoClient;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::{BoxError, Service, ServiceBuilder};
use tower_breaker::{BreakerLayer, Circuit};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy, RetryPolicyBuilder};

/// Far more than anything over loopback takes: no test waits for it.
const TIMEOUT: Duration = Duration::from_secs(30);

fn words(text: &str) -> Words {
    Words { text: text.to_owned() }
}

fn channel(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).unwrap().connect_lazy()
}

/// Three attempts without a delay, of any method.
fn all_listed() -> RetryPolicyBuilder {
    at_once().idempotent_methods(["echo.Echo/*"])
}

/// Three attempts without a delay.
fn at_once() -> RetryPolicyBuilder {
    RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None)
}

/// A generated client over all layers over a channel. The circuit hears the end of the answers.
fn client(
    url: &str,
    policy: RetryPolicyBuilder,
    circuit: &Circuit,
) -> EchoClient<
    impl Service<
        http::Request<Body>,
        Response = http::Response<
            impl HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static + use<>,
        >,
        Error: Into<BoxError>,
        Future: Send,
    >
    + Clone
    + Send
    + 'static
    + use<>,
> {
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy.build().unwrap()))
        .layer(BreakerLayer::with_circuit(circuit.clone()).track_body())
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(channel(url));
    EchoClient::new(stack)
}

/// Keeps paused time where it is while a test waits for a socket. Tokio moves it on by itself as soon as all tasks wait, but not while a
/// blocking task runs: this one runs until it is dropped.
struct Standstill {
    _end: mpsc::Sender<()>,
}

impl Standstill {
    fn begin() -> Self {
        let (end, ended) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || ended.recv().expect_err("nothing is sent"));
        Self { _end: end }
    }
}
