//! The gateway: forwards requests to the upstreams, through a circuit for each of them.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, Version, header, uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tower::timeout::TimeoutLayer;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits};
use tower_breaker::telemetry::{Failure, Transition};
use tower_breaker::{BreakerError, ConfigError};
use tower_fault_classify::upload::{UploadBody, UploadLayer};
use tower_fault_classify::{ClassifiedError, ErrorChain, FaultClassifyLayer, Kind, classify_error};
use tower_jitter_retry::{JitterRetryLayer, PolicyHandle};

use super::settings::Settings;

/// The client for the upstreams. Clones share connections, circuits and retry budget.
/// It is boxed because the type of its key function cannot be written.
type UpstreamClient = BoxCloneSyncService<Request, http::Response<Incoming>, BreakerError<ClassifiedError>>;

/// The gateway. Clones share everything.
#[derive(Clone)]
pub(crate) struct Gateway {
    client: UpstreamClient,
    pub(crate) circuits: KeyedCircuits<String>,
    pub(crate) retries: PolicyHandle,
    pub(crate) settings: watch::Sender<Settings>,
}

impl Gateway {
    pub(crate) fn new(settings: Settings) -> Self {
        let circuits = KeyedCircuits::new(settings.breaker.clone());
        circuits.on_transition(log_transition);
        circuits.on_failure(log_failure);
        let retries = PolicyHandle::new(settings.retry.clone());
        let client = upstream_client(&settings, &circuits, &retries);
        Self { client, circuits, retries, settings: watch::Sender::new(settings) }
    }

    /// Applies new settings to the running gateway. Open circuits, the tokens of the retry budget
    /// and running requests stay.
    ///
    /// If it returns an error, nothing has changed.
    pub(crate) fn apply(&self, settings: Settings) -> Result<(), ConfigError> {
        self.circuits.reconfigure(settings.breaker.clone())?;
        self.retries.reconfigure(settings.retry.clone());
        let current = settings.upstreams.clone();
        let replaced = self.settings.send_replace(settings);
        for (name, former) in replaced.upstreams {
            match current.get(&name) {
                None => {
                    self.circuits.remove(&name);
                }
                // The new address is another server, whose calls have not failed. While the
                // operator forces the circuit, `reset` fails: the maintenance does not end.
                Some(upstream) if upstream.address != former.address => {
                    if let Some(circuit) = self.circuits.get(&name) {
                        let _ = circuit.reset();
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Returns the routes for remote clients.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/{upstream}", any(forward))
            .route("/{upstream}/{*path}", any(forward))
            .with_state(self.clone())
    }
}

/// Returns the client that uses these circuits and this policy.
fn upstream_client(
    settings: &Settings,
    circuits: &KeyedCircuits<String>,
    retries: &PolicyHandle,
) -> UpstreamClient {
    let breaker = KeyedBreakerLayer::with_circuits_by_ref(circuits.clone(), upstream_name)
        .keep_last_failure_by(|request: &http::Request<UploadBody<Body>>| request.uri().clone());
    let client = ServiceBuilder::new()
        .layer(JitterRetryLayer::with_handle(retries.clone()))
        // Outside the breaker: a timeout is not a failure of the upstream if the upload of a remote
        // client stalls.
        .layer(UploadLayer::new())
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .layer(TimeoutLayer::new(settings.attempt_timeout.into()))
        .service(Client::builder(TokioExecutor::new()).build_http());
    BoxCloneSyncService::new(client)
}

/// The name of the upstream, as an extension of a forwarded request.
#[derive(Clone)]
struct UpstreamName(String);

/// Returns the key of a request's circuit.
fn upstream_name(request: &http::Request<UploadBody<Body>>) -> &str {
    request.extensions().get().map_or("", |UpstreamName(name)| name)
}

async fn forward(State(gateway): State<Gateway>, mut request: Request) -> Response {
    // The borrow ends before the request is sent, so that it does not delay a reload.
    let target = target(&gateway.settings.borrow(), request.uri());
    let Some((name, uri)) = target else {
        return StatusCode::NOT_FOUND.into_response();
    };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    // The client adds the `Host` of the new URI.
    request.headers_mut().remove(header::HOST);
    remove_connection_headers(request.headers_mut());
    request.extensions_mut().insert(UpstreamName(name.clone()));

    match gateway.client.oneshot(request).await {
        Ok(mut response) => {
            remove_connection_headers(response.headers_mut());
            response.map(Body::new)
        }
        // A 503 with `Retry-After`.
        Err(BreakerError::Rejected(rejection)) => rejection.into_response(),
        Err(error) => {
            eprintln!("cannot forward a request to {name}: {}", ErrorChain(&error));
            let status = match classify_error(&error).kind() {
                Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            status.into_response()
        }
    }
}

/// Returns the name of the upstream, and the URI to forward to: `/prices/7` of the gateway is `/7`
/// of the upstream `prices`.
fn target(settings: &Settings, uri: &Uri) -> Option<(String, Uri)> {
    let path_and_query = uri.path_and_query()?.as_str().strip_prefix('/')?;
    let end = path_and_query.find(['/', '?']).unwrap_or(path_and_query.len());
    let (name, rest) = path_and_query.split_at(end);
    let address = settings.upstreams.get(name)?.address.0.clone();
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let uri = uri::Builder::new().scheme("http").authority(address).path_and_query(format!("{slash}{rest}"));
    Some((name.to_owned(), uri.build().ok()?))
}

/// The headers that belong to one connection, so that a proxy does not forward them (RFC 9110,
/// section 7.6.1).
const CONNECTION_HEADERS: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the headers of the connection, and those that `Connection` names.
fn remove_connection_headers(headers: &mut HeaderMap) {
    let mut names = CONNECTION_HEADERS.to_vec();
    for value in headers.get_all(header::CONNECTION) {
        let listed = value.to_str().unwrap_or_default().split(',');
        names.extend(listed.filter_map(|name| name.trim().parse::<HeaderName>().ok()));
    }
    for name in names {
        headers.remove(name);
    }
}

fn log_transition(transition: &Transition) {
    let Transition { key, from, to, reason, .. } = transition;
    println!("# {}: {from} -> {to} ({reason})", key.as_deref().unwrap_or("?"));
}

fn log_failure(failure: &Failure) {
    let Failure { key, fault, consecutive_failures, .. } = failure;
    println!("# {}: {fault}, {consecutive_failures} in a row", key.as_deref().unwrap_or("?"));
}
