//! The HTTP server.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Redirect;
use axum::routing::{MethodRouter, get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower_breaker::ConfigError;
use tower_breaker_admin::Admin;
use utoipa::{OpenApi, ToSchema};
use utoipa_swagger_ui::SwaggerUi;

use crate::api::{self, Problem};
use crate::audit::{Audit, AuditRecord};
use crate::auth::Users;
use crate::events::{self, Events};
use crate::manager::Manager;
use crate::openapi;

/// How long the server waits for the end of requests when it stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel's buffer for the responses of a connection, in bytes. The system's own limit is
/// megabytes, which a client that reads nothing would fill.
const SEND_BUFFER_BYTES: u32 = 256 * 1024;

/// How many connections wait until the server accepts them.
const BACKLOG: u32 = 1_024;

/// What the routes share.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

struct Inner {
    manager: Manager,
    users: Users,
    audit: Audit,
    events: Events,
    stopping: CancellationToken,
}

impl AppState {
    /// Creates the state of a server. It stops when `stopping` is cancelled.
    pub fn new(
        manager: Manager,
        users: Users,
        audit: Audit,
        events: Events,
        stopping: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner { manager, users, audit, events, stopping }))
    }

    pub(crate) fn manager(&self) -> &Manager {
        &self.0.manager
    }

    pub(crate) fn users(&self) -> &Users {
        &self.0.users
    }

    pub(crate) fn audit(&self) -> &Audit {
        &self.0.audit
    }

    pub(crate) fn events(&self) -> &Events {
        &self.0.events
    }
}

impl fmt::Debug for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppState").field("users", &self.0.users).finish_non_exhaustive()
    }
}

/// Whether the server can work, and which circuits are open.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    status: ReadinessStatus,
    /// The number of circuits that reject calls.
    open_circuits: usize,
    /// The agents whose circuits reject calls. It is left out if the request has no valid token.
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<Vec<String>>,
    /// Whether the last write to the store, or the last check of it, has succeeded. It is checked
    /// every 10 s. `null`: there is no store.
    store_reachable: Option<bool>,
    /// The number of agents whose last change is not written to the store.
    unwritten: usize,
}

/// Whether the server can work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ReadinessStatus {
    /// Everything works.
    Ready,
    /// The store cannot be reached. All requests are answered, and changes are written later.
    Degraded,
    /// The server is stopping.
    Stopping,
}

/// Whether the process runs
#[utoipa::path(
    get, path = "/health", tag = "server",
    responses((status = 200, description = "The process runs", body = BTreeMap<String, String>))
)]
pub(crate) async fn health() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "ok" }))
}

/// Whether the server can work, and which circuits are open
#[utoipa::path(
    get, path = "/ready", tag = "server",
    responses(
        (status = 200, description = "Requests are answered", body = Readiness),
        (status = 503, description = "The server is stopping", body = Readiness),
    )
)]
pub(crate) async fn ready(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> (StatusCode, Json<Readiness>) {
    let circuits = state.manager().registry().statuses();
    let open = circuits.iter().filter(|circuit| circuit.rejects_calls());
    let open: Vec<_> = open.map(|circuit| circuit.circuit.to_owned()).collect();
    let has_token = matches!(state.users().by_headers(&headers), Ok(Some(_)));
    let store = state.manager().store_status();
    let store_reachable = store.as_ref().map(|store| store.reachable);
    let (status, code) = if state.0.stopping.is_cancelled() {
        (ReadinessStatus::Stopping, StatusCode::SERVICE_UNAVAILABLE)
    } else if store_reachable == Some(false) {
        // Without the store, everything but the restart of this process works.
        (ReadinessStatus::Degraded, StatusCode::OK)
    } else {
        (ReadinessStatus::Ready, StatusCode::OK)
    };
    let readiness = Readiness {
        status,
        open_circuits: open.len(),
        open: has_token.then_some(open),
        store_reachable,
        unwritten: store.map_or(0, |store| store.pending),
    };
    (code, Json(readiness))
}

/// Returns all routes: the API, its documentation, and the administration page.
///
/// # Errors
///
/// Returns an error if the settings of the administration page are not valid.
///
/// # Panics
///
/// Panics outside of a tokio runtime.
pub fn router(state: AppState) -> Result<Router, ConfigError> {
    let audit = state.audit().clone();
    let admin = Admin::builder()
        .registry(state.manager().registry())
        .on_audit(move |entry| audit.write(&AuditRecord::from(entry)));
    let admin = state.users().admit_to(admin).build()?;
    let (stopping, streams) = (state.0.stopping.clone(), admin.clone());
    tokio::spawn(async move {
        stopping.cancelled().await;
        streams.close_streams();
    });
    let circuits = Router::new()
        .route("/", get(api::list))
        .route("/events", get(events::events))
        .route("/ws", get(events::websocket))
        .route("/{agent_id}", get(api::get))
        .route("/{agent_id}/action", post(api::act));
    let list: MethodRouter<AppState> = get(api::list);
    Ok(Router::new()
        .nest("/api/v1/circuits", circuits)
        // The prefix of a nested router has no slash at its end.
        .route("/api/v1/circuits/", list)
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/", get(async || Redirect::temporary("/docs/")))
        .merge(SwaggerUi::new("/docs").url(openapi::PATH, openapi::Document::openapi()))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .fallback(async || Problem::not_found())
        .with_state(state)
        .nest_service("/admin", admin))
}

/// Binds the address of a server.
///
/// # Errors
///
/// Returns an error if the address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves requests until the server stops. It then waits up to 5 s for the end of requests and
/// streams.
///
/// # Errors
///
/// Returns an error if the server fails.
pub async fn serve(listener: TcpListener, router: Router, state: AppState) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        // Without it, a small event waits until the client has confirmed the one before.
        let _ = connection.set_nodelay(true);
    });
    let stopping = &state.0.stopping;
    let server = axum::serve(listener, router).with_graceful_shutdown(stopping.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    let ended = async {
        let result = server.await;
        // axum does not wait for WebSockets, which end when the server stops.
        if stopping.is_cancelled() {
            state.events().left().await;
        }
        result
    };
    let cut_off = async {
        stopping.cancelled().await;
        sleep(STOP_TIMEOUT).await;
    };
    tokio::select! {
        result = ended => result.map_err(io::Error::other)?,
        () = cut_off => {
            tracing::warn!("requests did not end within {STOP_TIMEOUT:?}; they were cut off");
            Ok(())
        }
    }
}
