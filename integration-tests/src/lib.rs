//! Helpers for the integration tests.

mod echo_client;
mod examples;
mod frozen_time;
mod upload;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use test_servers::install_ring;
use tokio::net::TcpListener;
use tower::filter::AsyncFilterLayer;
use tower::{BoxError, Service};
use tower_jitter_retry::{Jitter, RetryPolicy, RetryPolicyBuilder};

pub use self::echo_client::{channel, echo_client, words};
pub use self::examples::{example_command, output_of, run_example, text_of_example};
pub use self::frozen_time::FrozenTime;
pub use self::upload::{Frames, put, upload};

/// A timeout that is far longer than any exchange over loopback. No test waits for it.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a router on a loopback port that the system picks, until the runtime ends.
///
/// # Panics
///
/// Panics if loopback cannot be bound, or if the server fails.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound listener has an address");
    tokio::spawn(async move { axum::serve(listener, router).await.expect("the server runs") });
    address
}

/// Returns a policy of three attempts without a delay.
pub fn retry_at_once() -> RetryPolicyBuilder {
    RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None)
}

/// Returns the builder of a client that ignores the proxies of the environment and resends nothing
/// by itself.
///
/// It also ignores the certificates of the machine. Add a test's own with `tls_certs_merge`.
pub fn reqwest_client() -> reqwest::ClientBuilder {
    reqwest_with_own_retries().retry(reqwest::retry::never())
}

/// Returns the same builder with reqwest's own retries of requests that a server refused.
pub fn reqwest_with_own_retries() -> reqwest::ClientBuilder {
    install_ring();
    reqwest::Client::builder().no_proxy().tls_certs_only([])
}

/// Returns the builder of a client whose connector refuses `https`, as that of reqwest without TLS.
pub fn reqwest_without_tls() -> reqwest::ClientBuilder {
    let refuse = |destination| async {
        // The connector that reqwest uses without TLS.
        HttpConnector::new().call(Uri::from_static("https://127.0.0.1:9/")).await?;
        Ok::<_, BoxError>(destination)
    };
    reqwest_client().connector_layer(AsyncFilterLayer::new(refuse))
}

/// The gRPC client and server of `examples/tonic/proto/echo.proto`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "the code is generated")]
pub mod echo {
    tonic::include_proto!("echo");
}

/// Compiles and runs the code of the guides.
///
/// The build script adds a hidden line to blocks that create a client of reqwest. In the guide on
/// databases, it replaces the addresses by those of servers that the blocks start. The README's
/// program is the binary `readme`.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../docs/administration.md")]
    struct Administration;

    #[doc = include_str!(concat!(env!("OUT_DIR"), "/compile-errors.md"))]
    struct CompileErrors;

    #[doc = include_str!("../../docs/configuration.md")]
    struct Configuration;

    #[cfg(unix)]
    #[doc = include_str!(concat!(env!("OUT_DIR"), "/databases.md"))]
    struct Databases;

    #[doc = include_str!("../../docs/errors.md")]
    struct Errors;

    #[doc = include_str!(concat!(env!("OUT_DIR"), "/fallbacks.md"))]
    struct Fallbacks;

    #[doc = include_str!(concat!(env!("OUT_DIR"), "/getting-started.md"))]
    struct GettingStarted;

    #[doc = include_str!("../../docs/manual-control.md")]
    struct ManualControl;

    #[doc = include_str!("../../docs/migrating.md")]
    struct Migrating;

    #[doc = include_str!("../../docs/observability.md")]
    struct Observability;

    #[cfg(unix)]
    #[doc = include_str!("../../docs/sharing.md")]
    struct Sharing;

    #[doc = include_str!("../../docs/streaming.md")]
    struct Streaming;

    #[doc = include_str!("../../docs/testing.md")]
    struct Testing;
}
