//! The live events: changes of circuits and of the health of agents, over a WebSocket or as
//! server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tower_breaker::CircuitState;
use tower_breaker::telemetry::Transition;
use utoipa::ToSchema;

use crate::api::Problem;
use crate::auth::{Reader, Users};
use crate::health::Health;
use crate::manager::Manager;
use crate::server::AppState;
use crate::stats::CircuitStats;

/// How many events are kept for a slow client.
const KEPT: usize = 256;

/// How many clients may be connected.
const MAX_CLIENTS: u32 = 1_000;

/// How many clients may be connected that have not sent their token.
const MAX_WAITING: u32 = 200;

/// The largest message of a client, in bytes. It contains a token.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// The largest amount of unsent messages of a client, in bytes.
const MAX_UNSENT_BYTES: usize = 64 * 1024;

/// How long a client has time to send its token.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take to confirm that its WebSocket is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// After this number of pings without an answer, the connection is closed.
const UNANSWERED_PINGS: u32 = 2;

/// A message to the clients.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum EventMessage {
    /// The first message of a connection. All events after it are sent.
    Subscribed {},
    /// The state of a circuit or the health of its agent has changed.
    CircuitState(CircuitStateEvent),
    /// The client was too slow: the oldest events were not sent. Read the current states.
    Missed(MissedEvent),
}

/// A change of a circuit, or of the health of its agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CircuitStateEvent {
    /// The agent.
    pub agent_id: String,
    /// The state of the circuit after the change.
    #[schema(value_type = String, example = "half_open")]
    pub state: CircuitState,
    /// The statistics of the circuit when the event was sent.
    pub stats: CircuitStats,
    /// The new health of the agent. It is left out if the event is a change of the circuit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// How many events a slow client has missed.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct MissedEvent {
    /// The number of events.
    pub count: u64,
}

/// The first message of a client that has sent no `authorization` header.
#[expect(missing_debug_implementations, reason = "it would show the token")]
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenMessage {
    /// The token of the user.
    token: String,
}

/// Sends events to all clients.
#[derive(Clone, Debug)]
pub struct Events {
    sender: Sender<Encoded>,
    clients: Arc<Semaphore>,
    /// The places of clients without a token. They must not take those of users.
    waiting: Arc<Semaphore>,
    ping: Duration,
    stopping: CancellationToken,
}

/// A message, encoded once for all clients.
#[derive(Clone, Debug)]
struct Encoded {
    kind: &'static str,
    json: Utf8Bytes,
}

impl EventMessage {
    fn encode(&self) -> Encoded {
        let kind = match self {
            Self::Subscribed {} => "subscribed",
            Self::CircuitState(_) => "circuit_state",
            Self::Missed(_) => "missed",
        };
        let json = serde_json::to_string(self).expect("the keys are texts");
        Encoded { kind, json: json.into() }
    }
}

impl Events {
    /// Creates a channel without clients. `ping` is the time between two pings of a WebSocket.
    pub fn new(ping: Duration, stopping: CancellationToken) -> Self {
        Self {
            sender: Sender::new(KEPT),
            clients: Arc::new(Semaphore::new(MAX_CLIENTS as usize)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING as usize)),
            ping,
            stopping,
        }
    }

    /// Sends a message to all clients. It never waits for a client.
    pub fn send(&self, message: &EventMessage) {
        // An error says that there is no client.
        let _ = self.sender.send(message.encode());
    }

    /// Sends an event for a new health of an agent. A circuit that does not exist has no event.
    pub fn send_health(&self, manager: &Manager, agent_id: &str, health: Health) {
        if let Some(state) = manager.get_state(agent_id) {
            self.send_state(manager, agent_id, state, Some(health));
        }
    }

    fn send_state(&self, manager: &Manager, agent_id: &str, state: CircuitState, health: Option<Health>) {
        if let Some(stats) = manager.stats(agent_id) {
            let event = CircuitStateEvent { agent_id: agent_id.to_owned(), state, stats, health };
            self.send(&EventMessage::CircuitState(event));
        }
    }

    /// Sends an event for each transition of a circuit, until the server stops.
    pub fn forward(&self, manager: &Manager) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (events, manager) = (self.clone(), manager.clone());
        // Before the future is polled, so that no transition is missed.
        let mut transitions = manager.registry().transitions();
        async move {
            let stopping = events.stopping.clone();
            while let Some(Some(next)) = stopping.run_until_cancelled(transitions.next()).await {
                match next {
                    Ok(Transition { circuit, to, .. }) => events.send_state(&manager, circuit, to, None),
                    Err(missed) => {
                        events.send(&EventMessage::Missed(MissedEvent { count: missed.transitions() }));
                    }
                }
            }
        }
    }

    /// Waits until all clients have left.
    pub(crate) async fn left(&self) {
        // An error would say that the semaphore is closed, which it never is.
        let _ = self.waiting.acquire_many(MAX_WAITING).await;
        let _ = self.clients.acquire_many(MAX_CLIENTS).await;
    }

    fn subscribe(&self) -> Result<Subscription, Problem> {
        let place = place(&self.clients, MAX_CLIENTS)?;
        Ok(Subscription { receiver: self.sender.subscribe(), is_new: true, _place: place })
    }
}

/// Takes one of the places of clients.
fn place(places: &Arc<Semaphore>, number: u32) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        let detail = format!("{number} clients are connected; try again later");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })
}

/// The events of one client.
struct Subscription {
    receiver: Receiver<Encoded>,
    is_new: bool,
    _place: OwnedSemaphorePermit,
}

impl Subscription {
    /// Returns the next message. `None`: the server stops.
    ///
    /// Cancelling the future loses no message.
    async fn next(&mut self) -> Option<Encoded> {
        if self.is_new {
            self.is_new = false;
            return Some(EventMessage::Subscribed {}.encode());
        }
        match self.receiver.recv().await {
            Ok(message) => Some(message),
            Err(RecvError::Lagged(count)) => Some(EventMessage::Missed(MissedEvent { count }).encode()),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Send the live events as server-sent events
///
/// The name of an event is the `type` of its message. A browser's `EventSource` cannot send a
/// token: use `fetch`, or the WebSocket.
#[utoipa::path(
    get, path = "/events", tag = "circuits", security(("bearer" = [])),
    responses(
        (status = 200, description = "A stream that does not end", body = EventMessage, content_type = "text/event-stream"),
        (status = 401, description = "The token is missing or not valid", body = Problem),
        (status = 503, description = "Too many clients are connected", body = Problem),
    )
)]
pub(crate) async fn events(_: Reader, State(state): State<AppState>) -> Result<Response, Problem> {
    let events = state.events();
    let stream = server_sent(events.subscribe()?).take_until(events.stopping.clone().cancelled_owned());
    let sse = Sse::new(stream).keep_alive(KeepAlive::new().interval(events.ping));
    // Proxies must not collect events.
    Ok(([(HeaderName::from_static("x-accel-buffering"), "no")], sse).into_response())
}

fn server_sent(subscription: Subscription) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    unfold(subscription, async |mut subscription| {
        let message = subscription.next().await?;
        let event = Event::default().event(message.kind).data(message.json.as_str());
        Some((Ok(event), subscription))
    })
}

/// Send the live events over a WebSocket
///
/// A client that cannot set the header `authorization` sends `{"token": "…"}` as its first message,
/// within 5 s. It sends no other messages.
#[utoipa::path(
    get, path = "/ws", tag = "circuits", security(("bearer" = [])),
    responses(
        (status = 101, description = "Messages with the schema `EventMessage`"),
        (status = 401, description = "The token is not valid", body = Problem),
        (status = 422, description = "The request does not open a WebSocket", body = Problem),
        (status = 503, description = "Too many clients are connected", body = Problem),
    )
)]
pub(crate) async fn websocket(
    State(state): State<AppState>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let has_token = state.users().by_headers(&headers)?.is_some();
    let upgrade = upgrade.map_err(|rejection| {
        if has_token { Problem::invalid(rejection.body_text()) } else { Problem::unauthorized() }
    })?;
    let events = state.events().clone();
    let admission = if has_token {
        Admission::User(events.subscribe()?)
    } else {
        Admission::Waiting { _place: place(&events.waiting, MAX_WAITING)? }
    };
    let client = Client { users: state.users().clone(), events };
    let upgrade = upgrade
        .max_frame_size(MAX_MESSAGE_BYTES)
        .max_message_size(MAX_MESSAGE_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_UNSENT_BYTES);
    Ok(upgrade.on_upgrade(move |socket| client.run(socket, admission)))
}

/// A connected WebSocket.
struct Client {
    users: Users,
    events: Events,
}

/// Whether a client has sent a token.
enum Admission {
    User(Subscription),
    Waiting { _place: OwnedSemaphorePermit },
}

/// Why the server closes a WebSocket: the code and the text that the client receives.
struct Closed(u16, &'static str);

const NO_TOKEN: Closed = Closed(close_code::POLICY, "the first message is not a valid token");
const UNEXPECTED: Closed = Closed(close_code::POLICY, "this stream accepts no messages");
const NO_PONG: Closed = Closed(close_code::POLICY, "the pings were not answered");
const TOO_MANY: Closed = Closed(close_code::AGAIN, "too many clients are connected; try again later");
const STOPPING: Closed = Closed(close_code::AWAY, "the server stops");

impl Client {
    /// Serves the client until the connection ends. The admission is kept until then, because a
    /// server that stops waits for it.
    async fn run(self, mut socket: WebSocket, mut admission: Admission) {
        // `None`: the connection has ended, or the client reads nothing.
        if let Some(Closed(code, reason)) = self.serve(&mut socket, &mut admission).await {
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            let sent = timeout(self.events.ping, socket.send(close)).await;
            if matches!(sent, Ok(Ok(()))) {
                // Data that arrives after the end of the connection would reset it, and the client
                // might not see why it was closed.
                let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
                let _ = timeout(CLOSE_TIMEOUT, answered).await;
            }
        }
    }

    /// Returns the events of a user. They begin after the client has sent its token.
    async fn admit(&self, socket: &mut WebSocket) -> Result<Subscription, Closed> {
        match self.events.stopping.run_until_cancelled(self.receives_token(socket)).await {
            None => Err(STOPPING),
            Some(false) => Err(NO_TOKEN),
            Some(true) => self.events.subscribe().map_err(|_| TOO_MANY),
        }
    }

    /// Sends the events. Returns why the server closes the connection.
    async fn serve(&self, socket: &mut WebSocket, admission: &mut Admission) -> Option<Closed> {
        if let Admission::Waiting { .. } = admission {
            match self.admit(socket).await {
                Ok(subscription) => *admission = Admission::User(subscription),
                Err(closed) => return Some(closed),
            }
        }
        let Admission::User(subscription) = admission else { return None };
        let Events { ping, stopping, .. } = &self.events;
        let mut pings = interval(*ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_received = Instant::now();
        loop {
            let message = tokio::select! {
                // Answers to pings come first, so that they count after a send that took long.
                biased;
                () = stopping.cancelled() => return Some(STOPPING),
                received = socket.recv() => match received? {
                    Ok(Message::Ping(_) | Message::Pong(_)) => {
                        last_received = Instant::now();
                        continue;
                    }
                    Ok(Message::Text(_) | Message::Binary(_)) => return Some(UNEXPECTED),
                    Ok(Message::Close(_)) | Err(_) => return None,
                },
                _ = pings.tick() => {
                    if last_received.elapsed() > *ping * (UNANSWERED_PINGS + 1) {
                        return Some(NO_PONG);
                    }
                    Message::Ping(axum::body::Bytes::new())
                }
                event = subscription.next() => Message::Text(event?.json),
            };
            // A client that reads nothing holds up only itself. It also answers no ping.
            let limit = *ping * UNANSWERED_PINGS;
            match timeout(limit, stopping.run_until_cancelled(socket.send(message))).await {
                Ok(Some(Ok(()))) => {}
                Ok(None) => return Some(STOPPING),
                Ok(Some(Err(_))) | Err(_) => return None,
            }
        }
    }

    /// Returns whether the first message is the token of a user.
    async fn receives_token(&self, socket: &mut WebSocket) -> bool {
        let first = async {
            loop {
                match socket.recv().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Text(text))) => return Some(text),
                    _ => return None,
                }
            }
        };
        let Ok(Some(text)) = timeout(TOKEN_TIMEOUT, first).await else { return false };
        let message: Result<TokenMessage, _> = serde_json::from_str(&text);
        message.is_ok_and(|message| self.users.by_token(message.token.as_bytes()).is_some())
    }
}
