//! The routes of the API.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse, Response};
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tower_breaker_admin::{Role, User};
use utoipa::ToSchema;

use crate::audit::AuditRecord;
use crate::auth::Reader;
use crate::manager::ManagerError;
use crate::server::AppState;
use crate::stats::AgentStatus;

/// The longest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// How long a client has time to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 500;

/// The longest text of a request that the audit keeps, in characters.
const MAX_AUDIT_CHARS: usize = MAX_REASON_BYTES;

/// An error of the API.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    #[serde(skip)]
    status: StatusCode,
    /// The problem and, if there is one, the next step.
    #[schema(example = "Unknown action: x")]
    detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Display) -> Self {
        Self { status, detail: detail.to_string() }
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "Not authenticated: send `authorization: Bearer TOKEN` with a valid token";
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(crate) fn forbidden(user: &User) -> Self {
        let detail = format_args!("`{}` is a reader; an action needs an operator", user.name());
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(crate) fn invalid(detail: impl Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found")
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
    }

    fn unknown_agent(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format_args!("Unknown agent: {id}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// The name of an agent in a path.
pub(crate) struct AgentId(String);

impl FromRequestParts<AppState> for AgentId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        // An identifier that no agent can have is unknown, too.
        path.map(|Path(id)| Self(id)).map_err(|rejection| Problem::invalid(rejection.body_text()))
    }
}

/// An order of an operator.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ActionRequest {
    /// `open`, `close` or `reset`.
    #[schema(example = "open")]
    action: String,
    /// Why, for the audit: at most 500 bytes.
    #[serde(default)]
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// The result of an action.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActionResponse {
    status: ActionStatus,
    agent_id: String,
}

/// What was done.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ActionStatus {
    Opened,
    Closed,
    Reset,
}

/// List the circuits of all agents
#[utoipa::path(
    get, path = "/", tag = "circuits", security(("bearer" = [])),
    responses(
        (status = 200, description = "The circuits, by agent", body = BTreeMap<String, AgentStatus>),
        (status = 401, description = "The token is missing or not valid", body = Problem),
    )
)]
pub(crate) async fn list(_: Reader, State(state): State<AppState>) -> Json<BTreeMap<String, AgentStatus>> {
    Json(state.manager().statuses())
}

/// Get the circuit of an agent
#[utoipa::path(
    get, path = "/{agent_id}", tag = "circuits", security(("bearer" = [])),
    params(("agent_id" = String, Path, description = "1 to 128 of `A-Z a-z 0-9 . _ -`")),
    responses(
        (status = 200, description = "The circuit", body = AgentStatus),
        (status = 401, description = "The token is missing or not valid", body = Problem),
        (status = 404, description = "The agent is unknown", body = Problem),
        (status = 422, description = "The path is not valid", body = Problem),
    )
)]
pub(crate) async fn get(
    _: Reader,
    State(state): State<AppState>,
    AgentId(id): AgentId,
) -> Result<Json<AgentStatus>, Problem> {
    state.manager().status(&id).map(Json).ok_or_else(|| Problem::unknown_agent(&id))
}

/// Open, close or reset the circuit of an agent
///
/// - `open`: the circuit rejects calls, and recovers by itself after its cooldown.
/// - `close`: the circuit admits calls and counts again from zero.
/// - `reset`: also the statistics start again.
#[utoipa::path(
    post, path = "/{agent_id}/action", tag = "circuits", security(("bearer" = [])),
    params(("agent_id" = String, Path, description = "1 to 128 of `A-Z a-z 0-9 . _ -`")),
    request_body = ActionRequest,
    responses(
        (status = 200, description = "The action was applied", body = ActionResponse),
        (status = 400, description = "The action is unknown", body = Problem),
        (status = 401, description = "The token is missing or not valid", body = Problem),
        (status = 403, description = "The user is a reader", body = Problem),
        (status = 404, description = "The agent is unknown", body = Problem),
        (status = 408, description = "The body did not arrive in time", body = Problem),
        (status = 409, description = "A manual override of the administration page is in force", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 422, description = "The path or the body is not valid", body = Problem),
    )
)]
pub(crate) async fn act(
    State(state): State<AppState>,
    id: Result<AgentId, Problem>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ActionResponse>, Problem> {
    let id = id.map(|AgentId(id)| id);
    let mut record = AuditRecord::of_request(id.as_deref().map(cut).unwrap_or_default());
    let result = try_act(&state, id, &headers, body, &mut record).await;
    if let Err(problem) = &result {
        record.status = problem.status.as_u16();
        record.error = Some(cut(&problem.detail));
    }
    state.audit().write(&record);
    result.map(Json)
}

async fn try_act(
    state: &AppState,
    id: Result<String, Problem>,
    headers: &HeaderMap,
    body: Body,
    record: &mut AuditRecord,
) -> Result<ActionResponse, Problem> {
    // Before anything else, so that a request without rights learns nothing.
    let user = state.users().by_headers(headers)?.ok_or_else(Problem::unauthorized)?;
    record.set_user(user);
    if user.role() != Role::Operator {
        return Err(Problem::forbidden(user));
    }
    let id = id?;
    if state.manager().get(&id).is_none() {
        return Err(Problem::unknown_agent(&id));
    }
    let request = read_body(body).await?;
    record.action = Some(cut(&request.action));
    record.reason = request.reason.as_deref().map(cut);
    check_reason(request.reason.as_deref())?;
    let status = apply(state, &id, &request.action)?;
    Ok(ActionResponse { status, agent_id: id })
}

fn apply(state: &AppState, id: &str, action: &str) -> Result<ActionStatus, Problem> {
    let manager = state.manager();
    let (result, status) = match action {
        "open" => (manager.force_open(id), ActionStatus::Opened),
        "close" => (manager.force_close(id), ActionStatus::Closed),
        "reset" => (manager.reset(id), ActionStatus::Reset),
        _ => return Err(Problem::new(StatusCode::BAD_REQUEST, format_args!("Unknown action: {action}"))),
    };
    result.map(|()| status).map_err(|error| match error {
        ManagerError::Unknown { .. } => Problem::unknown_agent(id),
        error => Problem::new(StatusCode::CONFLICT, error),
    })
}

async fn read_body(body: Body) -> Result<ActionRequest, Problem> {
    let bytes = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let detail = format_args!("the body is cut off, or has more than {MAX_BODY_BYTES} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        Err(_) => {
            let detail = format_args!("the body did not arrive within {BODY_TIMEOUT:?}");
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
        }
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::invalid(format_args!("the body is not valid: {error}")))
}

fn check_reason(reason: Option<&str>) -> Result<(), Problem> {
    let length = reason.map_or(0, str::len);
    if length <= MAX_REASON_BYTES {
        return Ok(());
    }
    let detail = format_args!("`reason` has {length} bytes; allowed is up to {MAX_REASON_BYTES}");
    Err(Problem::invalid(detail))
}

/// Returns the beginning of a text for the audit.
fn cut(text: &str) -> String {
    text.chars().take(MAX_AUDIT_CHARS).collect()
}
