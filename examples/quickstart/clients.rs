//! The two clients: a naive one, and the same client with the layers around it.

use std::time::Duration;

use reqwest::{Method, Request, Response, Url};
use tower::timeout::{Timeout, TimeoutLayer};
use tower::util::MapRequest;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_breaker::telemetry::Transition;
use tower_breaker::{Breaker, BreakerConfig, BreakerError, BreakerLayer, ConfigError};
use tower_fault_classify::{FaultClassify, FaultClassifyLayer};
use tower_jitter_retry::{JitterRetry, JitterRetryLayer, RetryPolicy};

use crate::load::{Client, Outcome, count_request, requests_sent};

/// The timeout of one attempt, for both clients.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(250);

/// The maximum number of attempts for one call of the naive client. It is the default of the retry
/// layer, so both clients have it.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// A client that retries every error immediately.
///
/// It makes up to [`MAX_ATTEMPTS`] attempts without a delay, each with [`ATTEMPT_TIMEOUT`]. It
/// ignores `Retry-After`, and it does not learn from the failures of other calls.
#[derive(Clone, Debug)]
pub(crate) struct Naive {
    client: reqwest::Client,
    url: Url,
}

impl Naive {
    /// Creates a client of the server at `url`.
    pub(crate) fn new(url: Url) -> reqwest::Result<Self> {
        Ok(Self { client: reqwest_client()?, url })
    }
}

impl Client for Naive {
    async fn call(self) -> Outcome {
        for _ in 0..MAX_ATTEMPTS {
            count_request();
            let request = self.client.get(self.url.clone()).timeout(ATTEMPT_TIMEOUT);
            if let Ok(response) = request.send().await
                && is_answer(response).await
            {
                return Outcome::Answered;
            }
        }
        Outcome::Failed
    }
}

/// The same client with the layers around it.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    service: LayeredClient,
    url: Url,
}

/// The layers, outermost first. `MapRequest` only counts requests for the report.
type LayeredClient =
    JitterRetry<Breaker<FaultClassify<Timeout<MapRequest<reqwest::Client, fn(Request) -> Request>>>>>;

impl Stack {
    /// Creates a client of the server at `url`.
    pub(crate) fn new(
        url: Url,
        on_transition: impl Fn(&Transition) + Send + Sync + 'static,
    ) -> Result<Self, BoxError> {
        let service = ServiceBuilder::new()
            // Outermost: the breaker sees each attempt, and rejects attempts while it is open.
            .layer(JitterRetryLayer::new(RetryPolicy::default()))
            .layer(BreakerLayer::new(breaker_config()?).on_transition(on_transition))
            // Classifies each outcome once. The two layers above read the verdict.
            .layer(FaultClassifyLayer::new())
            // Innermost: the limit applies to each attempt, and a timeout is classified.
            .layer(TimeoutLayer::new(ATTEMPT_TIMEOUT))
            .map_request(counted as fn(Request) -> Request)
            .service(reqwest_client()?);
        Ok(Self { service, url })
    }
}

/// The breaker settings of the demo: the defaults, except for the open time.
///
/// The default of 3 to 4.5 s suits longer outages. In the demo, the outage and the shaky phase
/// together take 7 s, and nearly every third probe of the shaky phase fails. Each failed probe
/// opens the circuit again.
pub(crate) fn breaker_config() -> Result<BreakerConfig, ConfigError> {
    BreakerConfig::builder().name("demo").open_for(Duration::from_millis(200)).build()
}

impl Client for Stack {
    async fn call(self) -> Outcome {
        let request = Request::new(Method::GET, self.url);
        match self.service.oneshot(request).await {
            Ok(response) => {
                if is_answer(response).await {
                    Outcome::Answered
                } else {
                    Outcome::Failed
                }
            }
            // If the circuit opens between two attempts, the call has sent a request: it failed.
            Err(BreakerError::Rejected(_)) if requests_sent() == 0 => Outcome::Rejected,
            Err(_) => Outcome::Failed,
        }
    }
}

/// Counts a request on its way to the server.
fn counted(request: Request) -> Request {
    count_request();
    request
}

/// Builds the HTTP client of both. A proxy from the environment would distort the figures. Without
/// TLS, the client needs no root certificates.
fn reqwest_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build()
}

/// Returns whether the response is a success with a complete body. A body that was read to its end
/// frees the connection for the next request.
async fn is_answer(response: Response) -> bool {
    response.status().is_success() && response.bytes().await.is_ok()
}
