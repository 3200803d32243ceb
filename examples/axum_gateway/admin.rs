//! The operator's pages: status, readiness and maintenance. They have an address of their own, so
//! that remote clients cannot reach them.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tower_breaker::keyed::KeyedCircuit;
use tower_breaker::{ControlError, HumanDuration, Status};
use tower_jitter_retry::Budget;

use super::gateway::Gateway;
use super::reload::ReloadStatus;

#[derive(Clone)]
struct Admin {
    gateway: Gateway,
    reload: watch::Receiver<ReloadStatus>,
}

/// Returns the routes for the operator.
pub(crate) fn router(gateway: Gateway, reload: watch::Receiver<ReloadStatus>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/ready", get(ready))
        .route("/upstreams/{upstream}/force_open", post(force_open))
        .route("/upstreams/{upstream}/release", post(release))
        .route("/upstreams/{upstream}/probe_now", post(probe_now))
        .with_state(Admin { gateway, reload })
}

/// The status page.
#[derive(Serialize)]
struct StatusPage {
    reload: ReloadStatus,
    max_attempts: Option<u32>,
    /// How many retries the budget grants now.
    retries_available: Option<f64>,
    circuits: Vec<Status>,
}

async fn status(State(admin): State<Admin>) -> Json<StatusPage> {
    let policy = admin.gateway.retries.policy();
    Json(StatusPage {
        reload: admin.reload.borrow().clone(),
        max_attempts: policy.max_attempts(),
        retries_available: policy.budget().and_then(Budget::status).map(|budget| budget.available),
        circuits: admin.gateway.circuits.statuses(),
    })
}

/// Fails while requests to a required upstream cannot be forwarded.
async fn ready(State(Admin { gateway, .. }): State<Admin>) -> (StatusCode, String) {
    let mut status = StatusCode::OK;
    let mut open = Vec::new();
    let settings = gateway.settings.borrow();
    for (name, upstream) in &settings.upstreams {
        // `rejects_calls` returns false as soon as the open duration is over. The instance then
        // gets requests again, and one of them is the probe that can close the circuit.
        if gateway.circuits.get(name).is_some_and(|circuit| circuit.status().rejects_calls()) {
            open.push(name.as_str());
            if upstream.required {
                status = StatusCode::SERVICE_UNAVAILABLE;
            }
        }
    }
    (status, format!("open circuits: {}", open.join(" ")))
}

/// How long an upstream is out of service, such as `?for=10m`.
#[derive(Deserialize)]
struct Maintenance {
    r#for: HumanDuration,
}

/// Rejects all requests to an upstream. It ends by itself, so that it cannot be forgotten.
async fn force_open(
    State(admin): State<Admin>,
    Path(upstream): Path<String>,
    Query(maintenance): Query<Maintenance>,
) -> Result<Json<Status>, Refusal> {
    let circuit = circuit_of(&admin.gateway, upstream)?;
    circuit.force_open_for(maintenance.r#for.into()).map_err(|error| refusal(&error))?;
    Ok(Json(circuit.status()))
}

/// Ends the maintenance of an upstream.
async fn release(State(admin): State<Admin>, Path(upstream): Path<String>) -> Result<Json<Status>, Refusal> {
    let circuit = circuit_of(&admin.gateway, upstream)?;
    circuit.release();
    Ok(Json(circuit.status()))
}

/// Sends the next request to an upstream as a probe, although its open time is not over.
async fn probe_now(
    State(admin): State<Admin>,
    Path(upstream): Path<String>,
) -> Result<Json<Status>, Refusal> {
    let circuit = circuit_of(&admin.gateway, upstream)?;
    circuit.probe_now().map_err(|error| refusal(&error))?;
    Ok(Json(circuit.status()))
}

/// The response to an operation that was not done.
type Refusal = (StatusCode, String);

/// Returns the circuit of an upstream, also if no request was forwarded to it yet.
fn circuit_of(gateway: &Gateway, upstream: String) -> Result<KeyedCircuit<String>, Refusal> {
    if !gateway.settings.borrow().upstreams.contains_key(&upstream) {
        return Err((StatusCode::NOT_FOUND, format!("no upstream `{upstream}`")));
    }
    let full = || (StatusCode::SERVICE_UNAVAILABLE, "all circuits are in use".to_owned());
    gateway.circuits.get_or_insert(upstream).ok_or_else(full)
}

fn refusal(error: &ControlError) -> Refusal {
    let status = match error {
        ControlError::OutOfRange { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::CONFLICT,
    };
    (status, error.to_string())
}
