//! The two clients: one as it is often written, one with the layers.

use std::time::Duration;

use reqwest::{Method, Request, Response, Url};
use tower::timeout::TimeoutLayer;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::telemetry::Transition;
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, ConfigError};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

use crate::load::{Client, End, count_try, tries};

/// How long both clients wait for an answer to one try.
const TRY_TIMEOUT: Duration = Duration::from_millis(250);

/// How often both clients send a request at most.
const TRIES: u32 = 3;

/// Tries again at once, whatever went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Naive {
    client: reqwest::Client,
    upstream: Url,
}

impl Naive {
    /// A client of `upstream`.
    pub(crate) fn new(upstream: Url) -> reqwest::Result<Self> {
        Ok(Self { client: direct()?, upstream })
    }
}

impl Client for Naive {
    async fn call(self) -> End {
        for _ in 0..TRIES {
            count_try();
            let answer = self.client.get(self.upstream.clone()).timeout(TRY_TIMEOUT).send().await;
            if let Ok(response) = answer
                && is_answer(response).await
            {
                return End::Answered;
            }
        }
        End::Failed
    }
}

/// Calls through the layers.
#[derive(Clone, Debug)]
pub(crate) struct Stack<S> {
    service: S,
    upstream: Url,
}

/// The same client with the layers around it, outermost first.
///
/// The numbers are those of a short demo with 200 requests a second. The defaults are made for
/// longer outages: a circuit stays open for 30 s.
pub(crate) fn stack(
    upstream: Url,
    on_transition: impl Fn(&Transition) + Send + Sync + 'static,
) -> Result<Stack<impl LayeredClient>, Box<dyn std::error::Error>> {
    let service = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_policy()?))
        .layer(BreakerLayer::new(breaker_config()?).on_transition(on_transition))
        .layer(FaultClassifyLayer::new())
        .layer(TimeoutLayer::new(TRY_TIMEOUT))
        .map_request(|request: Request| {
            count_try();
            request
        })
        .service(direct()?);
    Ok(Stack { service, upstream })
}

/// A caller who waits for a second at most: a `Retry-After` that is longer ends the call, and is
/// left to the circuit.
fn retry_policy() -> Result<RetryPolicy, ConfigError> {
    RetryPolicy::builder()
        .max_attempts(TRIES)
        .initial_backoff(Duration::from_millis(50))
        .max_elapsed(Duration::from_secs(1))
        .build()
}

/// A burst of failures of a shaky upstream is too short to open it, and so is their share.
fn breaker_config() -> Result<BreakerConfig, ConfigError> {
    BreakerConfig::builder()
        .name("upstream")
        .consecutive_failures(15)
        .failure_rate(0.5)
        .minimum_calls(100)
        .time_window(Duration::from_secs(2))
        .open_for(Duration::from_millis(250))
        .build()
}

/// What the layers come to around a `reqwest::Client`.
pub(crate) trait LayeredClient:
    Service<Request, Response = Response, Error = BreakerError<ClassifiedError>, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> LayeredClient for S where
    S: Service<Request, Response = Response, Error = BreakerError<ClassifiedError>, Future: Send>
        + Clone
        + Send
        + 'static
{
}

impl<S: LayeredClient> Client for Stack<S> {
    async fn call(self) -> End {
        match self.service.oneshot(Request::new(Method::GET, self.upstream)).await {
            Ok(response) => {
                if is_answer(response).await {
                    End::Answered
                } else {
                    End::Failed
                }
            }
            Err(BreakerError::Rejected(_)) if tries() == 0 => End::Rejected,
            Err(_) => End::Failed,
        }
    }
}

/// A client that does not ask the environment for a proxy.
fn direct() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().build()
}

/// Whether the upstream did as it was asked. The body is read, so that the connection can be used
/// again.
async fn is_answer(response: Response) -> bool {
    response.status().is_success() && response.bytes().await.is_ok()
}
