//! A call to the API: its attempts, each through the breaker.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::{Client, Request, Url};
use serde_json::json;
use tower::timeout::TimeoutLayer;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use tower_fault_classify::body::{ErrorBodies, LlmErrors};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_jitter_retry::{RetryPolicy, RetrySafety};

use super::address::{without_query, without_secrets};
use super::error::{ClientError, LlmError};
use super::key::ApiKey;
use super::read::read_reply;
use crate::breaker::CircuitBreaker;

/// The longest time to open a connection. It is part of the time of an attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of a client.
#[derive(Clone, PartialEq)]
pub struct LlmConfig {
    /// The address of the API, with `/v1`.
    pub base_url: String,
    /// The key of the API.
    pub key: ApiKey,
    /// The model.
    pub model: String,
    /// Whether replies are streamed.
    pub stream: bool,
    /// The longest time of an attempt, until its reply is complete.
    pub timeout: Duration,
    /// The attempts of a call.
    pub max_attempts: u32,
    /// The longest delay that the API may ask for. A longer one ends the attempts of a call.
    pub max_retry_after: Duration,
}

impl fmt::Debug for LlmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query of the address can contain a key.
        f.debug_struct("LlmConfig")
            .field("base_url", &without_secrets(&self.base_url))
            .field("model", &self.model)
            .field("stream", &self.stream)
            .field("timeout", &self.timeout)
            .field("max_attempts", &self.max_attempts)
            .field("max_retry_after", &self.max_retry_after)
            .finish_non_exhaustive()
    }
}

/// A client of the API. Each attempt of a call runs through the breaker.
#[derive(Clone)]
pub struct LlmClient {
    breaker: CircuitBreaker,
    retry: RetryPolicy,
    /// Makes one attempt.
    attempts: BoxCloneSyncService<Request, String, ClassifiedError>,
    url: Url,
    config: LlmConfig,
}

impl LlmClient {
    /// Creates a client.
    ///
    /// # Errors
    ///
    /// Returns an error if `base_url` is not the address of an HTTP server, or if a setting is out
    /// of its range.
    pub fn new(config: LlmConfig, breaker: CircuitBreaker) -> Result<Self, ClientError> {
        let url = url(&config)?;
        let client = http_client(&config, &url).map_err(ClientError::invalid)?;
        let retry = retry_policy(&config).map_err(ClientError::invalid)?;
        let key = config.key.clone();
        let attempts = ServiceBuilder::new()
            .layer(BoxCloneSyncService::layer())
            // Classifies timeouts, and errors of the connection.
            .layer(FaultClassifyLayer::new())
            .layer(TimeoutLayer::new(config.timeout))
            .and_then(move |response| {
                let key = key.clone();
                async move { read_reply(&key, response).await }
            })
            // Classifies responses, by the code in their bodies.
            .layer(FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(LlmErrors::new())))
            .map_err(without_query)
            .service(client);
        Ok(Self { breaker, retry, attempts, url, config })
    }

    /// Returns the text of the reply.
    ///
    /// An attempt counts in the circuit as [`tower_fault_classify`] says: errors of the server,
    /// timeouts and broken connections are failures. A rate limit and a quota that is used up say
    /// nothing about the health of the API, and are not counted. An error of the request, such as a
    /// wrong key, is an answer of a healthy API.
    ///
    /// # Errors
    ///
    /// Returns the error of the last attempt, or the rejection of the first one.
    pub async fn complete(&self, prompt: &str) -> Result<String, LlmError> {
        let circuit = self.breaker.circuit().clone();
        let retry = self.retry.errors_only();
        // No delay before an attempt that the breaker would reject.
        let retry = retry.retry_while(move || !circuit.status().rejects_calls());
        retry.retry(|| self.attempt(prompt)).await
    }

    async fn attempt(&self, prompt: &str) -> Result<String, LlmError> {
        let (attempts, request) = (self.attempts.clone(), self.request(prompt));
        let attempt = async { attempts.oneshot(request).await.map_err(LlmError::Failed) };
        self.breaker.call_classified(LlmError::verdict, attempt).await
    }

    fn request(&self, prompt: &str) -> Request {
        let mut request = Request::new(Method::POST, self.url.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = json!({
            "model": self.config.model,
            "messages": [{ "role": "user", "content": prompt }],
            "stream": self.config.stream,
        });
        *request.body_mut() = Some(body.to_string().into());
        request
    }
}

impl fmt::Debug for LlmClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlmClient")
            .field("breaker", &self.breaker)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn url(config: &LlmConfig) -> Result<Url, ClientError> {
    let base = &config.base_url;
    let mut url = match Url::parse(base) {
        Ok(url) if is_server(&url) => url,
        _ => return Err(ClientError::BaseUrl(without_secrets(base))),
    };
    let path = format!("{}/chat/completions", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn is_server(url: &Url) -> bool {
    let has_user = !url.username().is_empty() || url.password().is_some();
    matches!(url.scheme(), "http" | "https") && !has_user
}

fn http_client(config: &LlmConfig, url: &Url) -> reqwest::Result<Client> {
    // It fails if the program has installed a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let headers: HeaderMap = config.key.header().map(|value| (AUTHORIZATION, value)).into_iter().collect();
    let client = Client::builder()
        .default_headers(headers)
        .connect_timeout(CONNECT_TIMEOUT)
        // A redirect would send the key to another server.
        .redirect(reqwest::redirect::Policy::none())
        // The policy retries.
        .retry(reqwest::retry::never());
    // A proxy does not reach the loopback addresses of this machine.
    if is_loopback(url) { client.no_proxy().build() } else { client.build() }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn retry_policy(config: &LlmConfig) -> Result<RetryPolicy, tower_jitter_retry::ConfigError> {
    RetryPolicy::builder()
        .max_attempts(config.max_attempts)
        .max_retry_after(config.max_retry_after)
        // A prompt has no effect but its price, so its POST may be sent again.
        .safety(RetrySafety::Always)
        // The number of attempts is the only limit.
        .max_elapsed(None)
        .budget(None)
        .build()
}
