//! Administration of the circuits of [`tower_breaker`]: an HTTP API and a live page.
//!
//! [`Admin`] is a tower service over [`http`] types. It shows each circuit with its state, its
//! failure rate, and the reason why it opened. Operators can trip, reset, force and release a
//! circuit, in one process or in a whole fleet.
//!
//! ```
//! use axum::Router;
//! use tower_breaker::{CircuitRegistry, ConfigError};
//! use tower_breaker_admin::{Admin, User};
//!
//! /// Serves the page at `/breakers` and the API below `/breakers/api/v1/`.
//! fn app(registry: &CircuitRegistry, token: &str) -> Result<Router, ConfigError> {
//!     let admin = Admin::builder()
//!         .registry(registry)
//!         .bearer(token, User::operator("anna"))
//!         .on_audit(|entry| println!("{}: {} of {}", entry.user, entry.action, entry.circuit))
//!         .build()?;
//!     Ok(Router::new().nest_service("/breakers", admin))
//! }
//! # let registry = CircuitRegistry::new(tower_breaker::BreakerConfig::default());
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! #     app(&registry, "0123456789abcdef").unwrap();
//! # });
//! ```
//!
//! It needs no framework. With hyper alone:
//!
//! ```
//! use std::io;
//!
//! use hyper::server::conn::http1;
//! use hyper_util::rt::TokioIo;
//! use hyper_util::service::TowerToHyperService;
//! use tokio::net::TcpListener;
//! use tower_breaker_admin::Admin;
//!
//! async fn serve(listener: TcpListener, admin: Admin) -> io::Result<()> {
//!     loop {
//!         let (connection, _) = listener.accept().await?;
//!         let service = TowerToHyperService::new(admin.clone());
//!         let connection = http1::Builder::new().serve_connection(TokioIo::new(connection), service);
//!         // An error ends only this connection.
//!         tokio::spawn(connection);
//!     }
//! }
//! # let _ = serve;
//! ```
//!
//! To serve it below a prefix without a router, remove the prefix from the path of each request:
//!
//! ```
//! use http::Request;
//!
//! /// Returns the request for the service. `None`: the path is not below `/breakers`.
//! fn below_breakers<B>(mut request: Request<B>) -> Option<Request<B>> {
//!     let path = request.uri().path_and_query()?.as_str();
//!     let rest = path.strip_prefix("/breakers")?;
//!     *request.uri_mut() = format!("/{}", rest.trim_start_matches('/')).parse().ok()?;
//!     Some(request)
//! }
//! # let uri = |path: &str| {
//! #     let request = Request::get(path).body(()).unwrap();
//! #     below_breakers(request).map(|request| request.uri().to_string())
//! # };
//! # assert_eq!(uri("/breakers/api/v1/circuits/a%2Fb?q=c").unwrap(), "/api/v1/circuits/a%2Fb?q=c");
//! # assert_eq!(uri("/breakers").unwrap(), "/");
//! # assert_eq!(uri("/other"), None);
//! ```
//!
//! # Circuits
//!
//! | method of the builder | adds |
//! |---|---|
//! | [`registry`](AdminBuilder::registry) | all circuits of a registry, also later ones |
//! | [`circuit`](AdminBuilder::circuit) | a circuit that is in no registry |
//! | `keyed` (feature `keyed`) | circuits by key |
//! | `fleet` (feature `fleet`) | the decisions of the fleet, and actions in all its processes |
//!
//! Each name must belong to one circuit. No request creates a circuit: an unknown name is an error.
//! A fleet adds no circuits: add those that it shares with the other methods.
//!
//! # Routes
//!
//! The service does not know the prefix below which it is nested. The router must remove the prefix
//! from the path, as `nest_service` of axum does.
//!
//! | route | answer |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /api/v1/circuits?state=&q=&after=&limit=&history=` | circuits, sorted by name |
//! | `GET /api/v1/circuits/{name}` | one circuit |
//! | `GET /api/v1/circuits/{name}/config` | its configuration |
//! | `GET /api/v1/circuits/{name}/keys?state=&q=&after=&limit=` | its keys, sorted by label |
//! | `GET /api/v1/circuits/{name}/keys/{key}`, `…/config` | the circuit of one key, and its configuration |
//! | `POST /api/v1/circuits/{name}/actions/{action}` | applies `trip`, `reset`, `force_open`, `force_closed` or `release` |
//! | `POST /api/v1/circuits/{name}/keys/{key}/actions/{action}` | the same for one key |
//! | `GET /api/v1/fleet?after=&limit=` | the decisions of the fleet |
//! | `GET /api/v1/audit?after=&limit=` | the last 200 attempts to change a circuit |
//! | `GET /api/v1/events` | server-sent events: what happens from now on, or after the event in `last-event-id` |
//! | `GET /api/v1/openapi.json` | the OpenAPI document, with all fields and status codes |
//!
//! Names and labels of keys are percent-encoded UTF-8. The names `.` and `..` cannot be used in
//! paths, because clients remove such segments. `state` is a list, such as `open,half_open`.
//!
//! A circuit has its state in this process in `local.state`, and the decision of the fleet in
//! `fleet.record`.
//!
//! An action has a reason, and may end by itself:
//!
//! ```sh
//! curl https://ops.example/breakers/api/v1/circuits/search/actions/force_open \
//!     -H "authorization: Bearer $TOKEN" -H 'x-tower-breaker: 1' -H 'content-type: application/json' \
//!     -d '{"reason": "the provider asked us to stop", "scope": "process", "for_seconds": 3600}'
//! ```
//!
//! With the header `if-match`, an action applies only in one epoch of the circuit. So it does not
//! undo a change that the user has not seen. The scope decides which epoch is compared:
//!
//! | scope | epoch | how it is compared |
//! |---|---|---|
//! | `process` | `epoch` | just before the action: a transition between the two is not noticed |
//! | `fleet` | `fleet.record.epoch`; 0 without a record | exactly, by the store |
//!
//! The scope `fleet` needs the feature `fleet`, and a circuit that this process shares.
//!
//! | status of an action | meaning |
//! |---|---|
//! | 200 | applied; the body is the circuit after the action |
//! | 409 | not applied: the circuit is forced or disabled, or has another epoch |
//! | other 4xx | not applied: the problem document in the body says why |
//! | 503 | the store of the fleet did not apply the action; after a timeout, it may still do so |
//!
//! # Users
//!
//! | method of the builder | admits |
//! |---|---|
//! | [`bearer`](AdminBuilder::bearer) | a user with a token |
//! | [`authorize`](AdminBuilder::authorize) | the user that a closure finds, for example in an extension that a layer has set |
//! | [`open_to_read`](AdminBuilder::open_to_read) | requests without a credential, to read |
//!
//! Without any of them, each request of the API is refused. A [reader](User::reader) only reads. An
//! [operator](User::operator) also applies actions.
//!
//! # Security
//!
//! - Serve it with TLS, because the token is sent with each request.
//! - Tokens are compared in constant time. They appear in no error, log, audit entry or `Debug`
//!   output.
//! - A page of another site cannot act: an action needs the header `x-tower-breaker` and a JSON
//!   body, and no response has CORS headers. There are no cookies.
//! - A content security policy admits only the page's own script and style. The page writes names
//!   and reasons as text.
//! - The input is limited: 4 KiB of path and of query, 16 KiB of body within 10 s, and 10 actions
//!   per second for each user, 20 at once.
//! - A user may send 100 reads per second, 1,000 at once. All requests without a credential share
//!   one rate. At most 1,024 event streams are open, and readers open at most 960 of them.
//! - Each attempt to change a circuit is in the audit, also a refused one. Attempts above the rate,
//!   and many without a credential, are only logged and passed to
//!   [`on_audit`](AdminBuilder::on_audit). Of the 200 entries in memory, at most 100 are refused
//!   attempts. So an attacker cannot remove the applied actions from it. An attempt that is
//!   interrupted, for example by the end of the runtime, is in the audit with the status 500.
//!   Control characters in its texts are replaced.
//!
//! # Shutdown
//!
//! A graceful shutdown waits for all responses. An event stream has no end, so call
//! [`close_streams`](Admin::close_streams) when the shutdown begins. With axum:
//!
//! ```
//! use std::io;
//!
//! use axum::Router;
//! use tokio::net::TcpListener;
//! use tower_breaker_admin::Admin;
//!
//! async fn serve<F>(listener: TcpListener, admin: Admin, signal: F) -> io::Result<()>
//! where
//!     F: Future<Output = ()> + Send + 'static,
//! {
//!     let app = Router::new().nest_service("/breakers", admin.clone());
//!     let shutdown = async move {
//!         signal.await;
//!         admin.close_streams();
//!     };
//!     axum::serve(listener, app).with_graceful_shutdown(shutdown).await
//! }
//! # let _ = serve::<std::future::Ready<()>>;
//! ```
//!
//! # Cost
//!
//! A call through a circuit costs nothing more: the circuits are read, and only their transitions
//! are observed. One task reads all circuits once per second for the history of the page, unless
//! [`without_history`](AdminBuilder::without_history) is set and no page is open. It ends with the
//! last [`Admin`].
//!
//! # Features
//!
//! No feature is enabled by default.
//!
//! | feature | adds |
//! |---|---|
//! | `keyed` | circuits by key |
//! | `fleet` | circuits that processes share with [`tower-breaker-fleet`] |
//! | `tracing` | the audit as log events with the target `tower_breaker_admin`: `INFO` for applied actions, `WARN` for refused attempts |
//!
//! # Minimum Rust version
//!
//! Rust 1.88.
//!
//! [`tower-breaker-fleet`]: https://docs.rs/tower-breaker-fleet

#![cfg_attr(docsrs, feature(doc_cfg))]

mod action;
mod admin;
mod audit;
mod auth;
mod body;
mod builder;
mod events;
mod page;
mod problem;
mod query;
mod rate;
mod read;
mod response;
mod route;
mod service;
mod source;
mod view;

pub use admin::Admin;
pub use audit::AuditEntry;
pub use auth::{Role, User};
pub use body::AdminBody;
pub use builder::AdminBuilder;
pub use service::AdminFuture;

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
