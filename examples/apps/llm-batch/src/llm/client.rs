//! The stack of layers, and the circuits of the models.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use reqwest::{Client, Request, Url};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tower::timeout::TimeoutLayer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, BreakerError, Clock};
use tower_fault_classify::body::{ErrorBodies, LlmErrors};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_jitter_retry::request::RequestExt;
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy, RetrySafety};

use super::key::ApiKey;
use super::outcome::{is_rejected, llm_error};
use super::read::read_reply;
use super::{Ask, Complete, api};
use crate::config::{JobConfig, LlmConfig, ProcessingConfig};
use crate::errors::{CircuitOpenError, LlmError};

/// The name of the circuits in rejections.
const CIRCUIT: &str = "llm";

/// The longest time to open a connection. It is part of the time of an attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest delay that a server may ask for. A longer one ends the attempts of a call.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// The name of a model: the key of its circuit.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Model(Arc<str>);

impl Model {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Model {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// The label of the circuit in rejections.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client of the LLM API. Clones share the connections and the circuits.
#[derive(Clone, Debug)]
pub struct LlmClient {
    retry: JitterRetryLayer,
    /// Makes one attempt.
    attempts: BoxCloneSyncService<Request, String, BreakerError<ClassifiedError>>,
    circuits: KeyedCircuits<Model>,
    url: Url,
    config: LlmConfig,
}

impl LlmClient {
    /// Creates a client from the settings of a job.
    ///
    /// # Errors
    ///
    /// Fails if `base_url` is not an address, or if a setting is out of its range.
    pub fn new(config: &JobConfig, key: ApiKey) -> Result<Self, ClientError> {
        let JobConfig { processing, llm } = config;
        let url = url(llm)?;
        let client = http_client(llm, &key, &url).map_err(ClientError::invalid)?;
        let circuits = circuits().map_err(ClientError::invalid)?;
        let retry = retry_policy(processing).map_err(ClientError::invalid)?;
        let (api, model) = (llm.api, Model::from(&*llm.model));
        let attempts = ServiceBuilder::new()
            .layer(BoxCloneSyncService::layer())
            .layer(
                KeyedBreakerLayer::with_circuits(circuits.clone(), move |_: &Request| model.clone())
                    .key_from_extension()
                    // The progress shows it while items wait.
                    .keep_last_failure("attempt"),
            )
            // Classifies timeouts, and errors of the connection.
            .layer(FaultClassifyLayer::new())
            .layer(TimeoutLayer::new(llm.timeout))
            .and_then(move |response| {
                let key = key.clone();
                async move { read_reply(api, &key, response).await }
            })
            // Classifies responses, by the code in their bodies.
            .layer(FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(LlmErrors::new())))
            .service(client);
        Ok(Self { retry: JitterRetryLayer::new(retry), attempts, circuits, url, config: llm.clone() })
    }

    /// Returns the circuits of the models.
    pub fn circuits(&self) -> KeyedCircuits<Model> {
        self.circuits.clone()
    }

    fn model(&self, name: Option<&str>) -> Model {
        name.unwrap_or(&self.config.model).into()
    }

    fn request(&self, model: &Model, ask: &Ask) -> Request {
        let mut request = Request::new(Method::POST, self.url.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(api::body(&self.config, model.as_str(), ask).to_string().into());
        request.with_extension(model.clone())
    }

    /// Makes a call. `running` is locked during each of its attempts.
    async fn call(&self, ask: &Ask, running: Arc<Mutex<()>>) -> Result<String, LlmError> {
        let model = self.model(ask.model.as_deref());
        let attempts = self.attempts.clone();
        let service = self.retry.layer(service_fn(move |request| {
            let (attempts, running) = (attempts.clone(), Arc::clone(&running));
            async move {
                let _running = running.lock_owned().await;
                attempts.oneshot(request).await
            }
        }));
        match service.oneshot(self.request(&model, ask)).await {
            Ok(reply) => Ok(reply),
            Err(error) if is_rejected(&error) => Err(LlmError::CircuitOpen(self.circuit_open(&model))),
            Err(error) => Err(llm_error(error)),
        }
    }

    fn circuit_open(&self, model: &Model) -> CircuitOpenError {
        let last_failure = self.circuits.circuit(model).status().last_failure;
        CircuitOpenError {
            model: model.as_str().to_owned(),
            last_failure: last_failure.map(|failure| failure.message),
        }
    }
}

impl Complete for LlmClient {
    async fn complete(&self, ask: &Ask) -> Result<String, LlmError> {
        self.call(ask, Arc::default()).await
    }

    async fn complete_unless_stopped(
        &self,
        ask: &Ask,
        stopped: &CancellationToken,
    ) -> Option<Result<String, LlmError>> {
        let running = Arc::new(Mutex::new(()));
        let stopped_between_attempts = async {
            stopped.cancelled().await;
            drop(running.lock().await);
        };
        tokio::select! {
            // The outcome of the attempt that has just ended takes precedence.
            biased;
            outcome = self.call(ask, Arc::clone(&running)) => Some(outcome),
            () = stopped_between_attempts => None,
        }
    }

    async fn ready(&self, model: Option<&str>) {
        self.circuits.circuit(&self.model(model)).ready().await;
    }
}

fn url(config: &LlmConfig) -> Result<Url, ClientError> {
    let base = config.base_url.as_deref().unwrap_or(config.api.base_url());
    let mut url = match Url::parse(base) {
        Ok(url) if is_server(&url) => url,
        _ => return Err(ClientError::BaseUrl(base.to_owned())),
    };
    let path = format!("{}{}", url.path().trim_end_matches('/'), config.api.path());
    url.set_path(&path);
    Ok(url)
}

fn is_server(url: &Url) -> bool {
    let has_user = !url.username().is_empty() || url.password().is_some();
    matches!(url.scheme(), "http" | "https") && !has_user
}

fn http_client(config: &LlmConfig, key: &ApiKey, url: &Url) -> reqwest::Result<Client> {
    // It fails if the program has installed a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .default_headers(config.api.headers(key))
        .connect_timeout(CONNECT_TIMEOUT)
        // A redirect would send the key to another server.
        .redirect(reqwest::redirect::Policy::none())
        // The stack retries.
        .retry(reqwest::retry::never());
    // A proxy does not reach the loopback addresses of this machine.
    if is_loopback(url) { client.no_proxy().build() } else { client.build() }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn circuits() -> Result<KeyedCircuits<Model>, tower_breaker::ConfigError> {
    let each = BreakerConfig::builder()
        .name(CIRCUIT)
        // A job makes few calls, so each attempt counts.
        .count_failed_retries(true)
        // Soon longer than the delay before the next attempt of a probe that failed. That attempt
        // is then rejected, so that its item waits and does not fail.
        .open_backoff(2.0, Duration::from_secs(30))
        .clock(Clock::tokio())
        .build()?;
    Ok(KeyedCircuits::new(KeyedConfig::builder(each).build()?))
}

/// Returns the policy of retries: the formula of tenacity's `wait_exponential_jitter`.
///
/// # Errors
///
/// Fails if a setting is out of its range.
pub fn retry_policy(config: &ProcessingConfig) -> Result<RetryPolicy, tower_jitter_retry::ConfigError> {
    RetryPolicy::builder()
        .max_attempts(config.max_retries)
        .initial_backoff(config.retry_delay)
        .max_backoff(Duration::from_secs(60))
        .jitter(Jitter::TenacityAdditive(Duration::from_secs(5)))
        .max_retry_after(MAX_RETRY_AFTER)
        .follows_redirects(false)
        // A prompt has no effect but its price, so its POST may be sent again.
        .safety(RetrySafety::Always)
        // The number of attempts is the only limit.
        .max_elapsed(None)
        .budget(None)
        .build()
}

/// Why a client cannot be created.
#[derive(Debug)]
pub enum ClientError {
    /// The `base_url` is not the address of an HTTP server.
    BaseUrl(String),
    /// Another setting is invalid.
    Invalid(BoxError),
}

impl ClientError {
    fn invalid(source: impl Into<BoxError>) -> Self {
        Self::Invalid(source.into())
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BaseUrl(url) => {
                write!(
                    f,
                    "`base_url` is `{url}`; it must be an address with http:// or https:// and without user and password, such as http://localhost:8000/v1"
                )
            }
            Self::Invalid(_) => f.write_str("the client of the API cannot be created"),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::BaseUrl(_) => None,
            Self::Invalid(source) => Some(&**source),
        }
    }
}
