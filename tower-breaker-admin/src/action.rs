//! Actions: how a request to change a circuit is checked, applied and audited.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut};
use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Request, StatusCode};
use http_body::Body;
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use tower_breaker::ControlError;

use crate::admin::Inner;
use crate::audit::{self, AuditEntry};
use crate::auth::{User, check_operator, check_page};
use crate::problem::Problem;
use crate::query::Query;
use crate::rate::{Admission, too_many};
use crate::read::unknown_path;
use crate::response::{Response, json};
use crate::route::{Circuit, Route, Segment};
use crate::service::check_target;
use crate::source::{FleetSource, Found, Handle, LocalAction, Named, with_record};
use crate::view::{View, epoch};

const MAX_BODY_BYTES: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 200;

/// The error in the audit of an attempt that was not completed.
const INTERRUPTED: &str = "the attempt was interrupted; read the circuit to see whether it was applied";

/// The shortest and the longest duration of an action, in seconds.
const MIN_SECONDS: f64 = 0.001;
const MAX_SECONDS: f64 = 365.0 * 24.0 * 3600.0;

/// The body of a request to apply an action.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    reason: String,
    scope: Scope,
    for_seconds: Option<f64>,
}

/// Where an action is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    Process,
    Fleet,
}

impl Scope {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Fleet => "fleet",
        }
    }
}

/// An attempt to change a circuit, as far as it is known.
///
/// It is audited when it is dropped: also if it panics, or if its runtime shuts down.
struct Attempt {
    admin: Arc<Inner>,
    entry: AuditEntry,
    /// Whether the audit keeps the entry.
    is_kept: bool,
}

/// What a request asks for.
#[derive(Debug)]
struct Order {
    scope: Scope,
    reason: String,
    lasts_for: Option<Duration>,
    expected_epoch: Option<u64>,
}

/// An action in the whole fleet.
#[cfg_attr(not(feature = "fleet"), allow(dead_code, reason = "there is no fleet"))]
#[derive(Debug)]
pub(crate) struct FleetOrder {
    pub(crate) action: LocalAction,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) lasts_for: Option<Duration>,
    pub(crate) expected_epoch: Option<u64>,
}

impl LocalAction {
    const ALL: [(&'static str, Self); 5] = [
        ("trip", Self::Trip),
        ("reset", Self::Reset),
        ("force_open", Self::ForceOpen),
        ("force_closed", Self::ForceClosed),
        ("release", Self::Release),
    ];

    const fn has_duration(self) -> bool {
        !matches!(self, Self::Reset | Self::Release)
    }
}

impl Inner {
    /// Applies an action, unless the request is refused, and audits the attempt.
    pub(crate) async fn attempt<B: Body>(self: Arc<Self>, request: Request<B>) -> Response {
        let (request, body) = request.into_parts();
        let Route::Action(circuit, action) = Route::of(request.uri.path()) else {
            return unknown_path().into_response();
        };
        let mut attempt = Attempt::new(Arc::clone(&self), circuit, action);
        let result = self.decide(&request, body, circuit, action, &mut attempt).await;
        let result = result.and_then(|view| json(&view));
        attempt.entry.error = result.as_ref().err().map(|problem| audit::text(&problem.detail));
        let response = result.unwrap_or_else(Problem::into_response);
        attempt.entry.status = response.status().as_u16();
        response
    }

    /// Checks a request, and applies its action. The order of the checks is part of the API.
    async fn decide<B: Body>(
        &self,
        request: &Parts,
        body: B,
        circuit: Circuit<'_>,
        action: Segment<'_>,
        attempt: &mut Attempt,
    ) -> Result<View, Problem> {
        let user = self.admit(request, attempt)?;
        check_operator(&user)?;
        check_page(&request.headers)?;
        check_target(request)?;
        check_content_type(&request.headers)?;
        let body = read_body(body).await?;
        let order = attempt.read_order(request, &body)?;
        let name = circuit.name.decode()?;
        let key = circuit.key.map(Segment::decode).transpose()?;
        let action = find_action(&action.decode()?)?;
        if order.lasts_for.is_some() && !action.has_duration() {
            return Err(Problem::bad_request("`for_seconds` is set; a reset and a release have no duration"));
        }
        let find = || self.controlled(&name, key.as_deref());
        match order.scope {
            Scope::Process => apply_here(&*find()?, action, &order, &self.sources.fleet, attempt),
            Scope::Fleet => self.apply_in_fleet(find, action, order, &user, attempt).await,
        }
    }

    /// Returns the user of an attempt, whose rate is limited.
    ///
    /// Attempts above the rate are not kept in the audit, except for the first of them. So they
    /// do not remove other entries. All attempts without a credential share one rate, and so do
    /// those that a page of another site may have sent: they use up the rate of no user.
    fn admit(&self, request: &Parts, attempt: &mut Attempt) -> Result<User, Problem> {
        let user = self.authorizer.user(request, false);
        if let Ok(user) = &user {
            attempt.entry.user = audit::text(user.name());
            attempt.entry.role = Some(user.role());
        }
        let is_of_user = user.is_ok() && check_page(&request.headers).is_ok();
        let name = user.as_ref().ok().filter(|_| is_of_user).map(User::name);
        let Admission::Refused { retry_after, is_first } = self.action_rates.admit(name, Instant::now())
        else {
            return user;
        };
        attempt.is_kept = is_of_user && is_first;
        if !is_of_user {
            // It is refused for another reason.
            return user;
        }
        user.and_then(|user| Err(too_many(&user, "actions", retry_after)))
    }

    /// Returns the circuit that an action changes.
    fn controlled(&self, name: &str, key: Option<&str>) -> Result<Arc<dyn Handle>, Problem> {
        match (self.named(name)?, key) {
            (_, Some(key)) => match self.key(name, key)? {
                Found { circuit, is_only: true } => Ok(circuit),
                // The user may mean another one than the first.
                Found { is_only: false, .. } => Err(Problem::conflict(format_args!(
                    "several keys of circuit `{name}` have the label `{key}`; give each its own `Debug` text"
                ))),
            },
            (Named::Single(circuit), None) => Ok(circuit),
            (Named::Keyed(_), None) => Err(Problem::not_found(format_args!(
                "circuit `{name}` has a circuit for each key; apply the action to a key"
            ))),
        }
    }

    /// Applies an action in all processes of the fleet.
    async fn apply_in_fleet(
        &self,
        find: impl Fn() -> Result<Arc<dyn Handle>, Problem>,
        action: LocalAction,
        order: Order,
        user: &User,
        attempt: &mut Attempt,
    ) -> Result<View, Problem> {
        let fleet = &self.sources.fleet;
        // The handle is dropped before the store is asked, because it prevents an eviction.
        let (name, mut view) = {
            let circuit = find()?;
            let Some(name) = circuit.fleet_name(fleet) else { return Err(fleet.not_shared()) };
            (name, View::of(&*circuit, fleet))
        };
        attempt.entry.epoch_before = Some(fleet.epoch(&name));
        let by = audit::text(user.name());
        let Order { reason, lasts_for, expected_epoch, .. } = order;
        let order = FleetOrder { action, by, reason, lasts_for, expected_epoch };
        let record = fleet.operate(&name, order).await?;
        attempt.entry.epoch_after = Some(record.epoch);
        if let Ok(circuit) = find() {
            view = View::of(&*circuit, fleet);
        }
        // The agent may not have applied the record yet.
        view.fleet = view.fleet.map(|view| with_record(view, record));
        Ok(view)
    }
}

/// Applies an action in this process.
fn apply_here(
    circuit: &dyn Handle,
    action: LocalAction,
    order: &Order,
    fleet: &FleetSource,
    attempt: &mut Attempt,
) -> Result<View, Problem> {
    let before = u64::from(epoch(&circuit.status()));
    attempt.entry.epoch_before = Some(before);
    if let Some(expected) = order.expected_epoch.filter(|expected| *expected != before) {
        return Err(Problem::conflict(format_args!(
            "the circuit is in epoch {before}, not in {expected}; read it again"
        )));
    }
    circuit.apply(action, order.lasts_for).map_err(|error| match error {
        ControlError::Unknown { .. } => Problem::not_found(error),
        ControlError::OutOfRange { .. } => Problem::bad_request(error),
        _ => Problem::conflict(error),
    })?;
    let view = View::of(circuit, fleet);
    attempt.entry.epoch_after = Some(view.epoch.into());
    Ok(view)
}

impl Attempt {
    fn new(admin: Arc<Inner>, circuit: Circuit<'_>, action: Segment<'_>) -> Self {
        let text = |segment: Segment<'_>| audit::text(&segment.decode_lossy());
        let entry = AuditEntry {
            id: 0,
            at: audit::now(),
            user: String::new(),
            role: None,
            circuit: text(circuit.name),
            key: circuit.key.map(text),
            action: text(action),
            scope: String::new(),
            reason: String::new(),
            lasts_for: None,
            status: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            error: Some(INTERRUPTED.to_owned()),
            epoch_before: None,
            epoch_after: None,
        };
        Self { admin, entry, is_kept: true }
    }

    /// Reads what the request asks for.
    fn read_order(&mut self, request: &Parts, body: &[u8]) -> Result<Order, Problem> {
        Query::parse(request.uri.query(), &[])?;
        let input: Input = serde_json::from_slice(body)
            .map_err(|error| Problem::bad_request(format_args!("the body is not valid: {error}")))?;
        let Input { reason, scope, for_seconds } = input;
        scope.as_str().clone_into(&mut self.entry.scope);
        self.entry.reason = audit::text(&reason);
        check_reason(&reason)?;
        let lasts_for = for_seconds.map(read_seconds).transpose()?;
        self.entry.lasts_for = lasts_for;
        Ok(Order { scope, reason, lasts_for, expected_epoch: expected_epoch(&request.headers)? })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.entry.at = audit::now();
        self.admin.audit.add(&mut self.entry, self.is_kept);
        if self.is_kept {
            self.admin.hub.publish_audit(&self.entry);
        }
    }
}

fn find_action(name: &str) -> Result<LocalAction, Problem> {
    LocalAction::ALL.into_iter().find_map(|(other, action)| (other == name).then_some(action)).ok_or_else(
        || {
            let names = LocalAction::ALL.map(|(name, _)| name).join("`, `");
            Problem::not_found(format_args!("no action is named `{name}`; allowed is `{names}`"))
        },
    )
}

fn check_reason(reason: &str) -> Result<(), Problem> {
    let length = reason.len();
    let is_allowed =
        length <= MAX_REASON_BYTES && !reason.trim().is_empty() && !reason.contains(char::is_control);
    if is_allowed {
        return Ok(());
    }
    Err(Problem::bad_request(format_args!(
        "`reason` has {length} bytes; allowed is a text of 1 to {MAX_REASON_BYTES} bytes without control characters"
    )))
}

fn read_seconds(seconds: f64) -> Result<Duration, Problem> {
    if (MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(Problem::bad_request(format_args!(
        "`for_seconds` is {seconds}; allowed is {MIN_SECONDS} to {MAX_SECONDS}"
    )))
}

/// Returns the epoch that the header `if-match` names. `None`: any epoch.
fn expected_epoch(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let (value, next) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    if next.is_none() && value == "*" {
        return Ok(None);
    }
    let text = value.to_str().ok().filter(|_| next.is_none());
    let quoted = text.and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
    // `parse` accepts a sign.
    let digits = quoted.filter(|epoch| epoch.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|epoch| epoch.parse().ok()) {
        Some(epoch) => Ok(Some(epoch)),
        None => Err(Problem::bad_request(format_args!(
            "`if-match` is {value:?}; allowed is `*`, or an epoch in quotes, such as `\"7\"`"
        ))),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    if essence.trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = "the body is not JSON; send `content-type: application/json`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

async fn read_body<B: Body>(body: B) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        let detail = format_args!("the body is too large; allowed is up to {MAX_BODY_BYTES} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut body = pin!(body);
    let read = async {
        let mut bytes = Vec::new();
        let mut left = MAX_BODY_BYTES;
        while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
            let frame = frame.map_err(|_| Problem::bad_request("the body ended early"))?;
            let Ok(data) = frame.into_data() else { break };
            // An empty frame is counted, too, so that their number is bounded.
            left = left.checked_sub(data.remaining().max(1)).ok_or_else(too_large)?;
            bytes.put(data);
        }
        Ok(bytes)
    };
    timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| {
        let detail = format_args!("the body did not arrive within {BODY_TIMEOUT:?}");
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
    })
}
