//! Clients of the echo service.

use bytes::Bytes;
use http_body::Body as HttpBody;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::{BoxError, Service, ServiceBuilder};
use tower_breaker::{BreakerLayer, Circuit};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{JitterRetryLayer, RetryPolicyBuilder};

use crate::TIMEOUT;
use crate::echo::Words;
use crate::echo::echo_client::EchoClient;

/// Returns a message of the echo service.
pub fn words(text: &str) -> Words {
    Words { text: text.to_owned() }
}

/// Returns a channel that connects with the first call.
///
/// # Panics
///
/// Panics if the URL is invalid.
pub fn channel(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).expect("the URL is valid").connect_lazy()
}

/// Returns a generated client with all layers around a channel.
///
/// The circuit counts a call at the end of its response body.
///
/// # Panics
///
/// Panics if the URL or the policy is invalid.
pub fn echo_client(
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
        .layer(JitterRetryLayer::new(policy.build().expect("the policy is valid")))
        .layer(BreakerLayer::with_circuit(circuit.clone()).track_body())
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(channel(url));
    EchoClient::new(stack)
}
