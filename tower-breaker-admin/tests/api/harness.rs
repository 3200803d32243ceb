//! An admin with circuits, and requests to it.

use std::hash::Hash;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig, Overflow};
use tower_breaker::{BreakerConfig, Circuit, CircuitRegistry, Mode};
use tower_breaker_admin::{Admin, AdminBuilder, AuditEntry, User};

pub(crate) const OPERATOR: &str = "operator-0123456789";
pub(crate) const READER: &str = "reader-0123456789ab";

/// A name that must be encoded, and that is no safe HTML.
pub(crate) const HOSTILE: &str = "a/b %2F<img src=x onerror=alert(1)>\u{202e}\u{2028}\"'&?#";

pub(crate) const API: &str = "/api/v1";

pub(crate) fn config(name: &'static str) -> BreakerConfig {
    BreakerConfig::builder().name(name).build().unwrap()
}

pub(crate) fn keyed<K: Eq + Hash + std::fmt::Debug>(name: &'static str) -> KeyedCircuits<K> {
    let config = KeyedConfig::builder(config(name)).max_keys(2).overflow(Overflow::Shared);
    KeyedCircuits::new(config.build().unwrap())
}

/// The circuits of an admin.
pub(crate) struct Circuits {
    pub(crate) registry: CircuitRegistry,
    /// `billing`, in no registry.
    pub(crate) billing: Circuit,
    /// `tenants`, with the keys `acme` and `HOSTILE`.
    pub(crate) tenants: KeyedCircuits<String>,
}

impl Circuits {
    /// The registry has `search`, `disabled` and `HOSTILE`.
    pub(crate) fn new() -> Self {
        let registry = CircuitRegistry::new(BreakerConfig::default());
        let disabled = BreakerConfig::builder().name("disabled").mode(Mode::Disabled);
        registry.configure(disabled.build().unwrap()).unwrap();
        for name in ["search", "disabled", HOSTILE] {
            registry.circuit(name);
        }
        let tenants = keyed("tenants");
        for key in ["acme", HOSTILE] {
            tenants.circuit(key);
        }
        Self { registry, billing: Circuit::new(config("billing")), tenants }
    }

    pub(crate) fn search(&self) -> Circuit {
        self.registry.get("search").unwrap()
    }

    pub(crate) fn builder(&self) -> AdminBuilder {
        Admin::builder()
            .registry(&self.registry)
            .circuit(&self.billing)
            .keyed(&self.tenants)
            .bearer(OPERATOR, User::operator("anna"))
            .bearer(READER, User::reader("ben"))
    }

    /// How many circuits there are. No request may change it.
    pub(crate) fn count(&self) -> usize {
        self.registry.circuits().len() + self.tenants.len()
    }
}

pub(crate) fn admin() -> (Circuits, Admin) {
    let circuits = Circuits::new();
    let admin = circuits.builder().build().unwrap();
    (circuits, admin)
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the `detail` of an error.
    pub(crate) fn detail(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["title"], self.status.canonical_reason().unwrap());
        assert_eq!(problem["type"], "about:blank");
        problem["detail"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn send<B: Body + Send + 'static>(admin: &Admin, request: Request<B>) -> Answer {
    let response = admin.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    // An event stream has no end.
    let is_stream = parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let body = if is_stream { Bytes::new() } else { body.collect().await.unwrap().to_bytes() };
    Answer { status: parts.status, headers: parts.headers, body }
}

/// A request of the operator, which can be changed.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let call = Self { method, path: path.into(), headers: Vec::new(), body: Bytes::new() };
        call.token(OPERATOR)
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// An action with a valid body in this process.
    pub(crate) fn act(path: impl Into<String>) -> Self {
        let order = json!({"reason": "test", "scope": "process"});
        Self::new(Method::POST, path)
            .header("x-tower-breaker", "1")
            .header("content-type", "application/json")
            .json(&order)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.without("authorization").header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        self.with_body(Full::new(self.body.clone()))
    }

    pub(crate) fn with_body<B>(&self, body: B) -> Request<B> {
        let request = Request::builder().method(self.method.clone()).uri(&self.path);
        let request = self.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        request.body(body).unwrap()
    }

    pub(crate) async fn send(&self, admin: &Admin) -> Answer {
        send(admin, self.request()).await
    }

    /// Sends the request, and returns the detail of the error with this status.
    pub(crate) async fn fail(&self, admin: &Admin, status: u16) -> String {
        let answer = self.send(admin).await;
        assert_eq!(answer.status, status, "{self:?}: {answer:?}");
        answer.detail()
    }

    /// Sends the request, and returns the JSON of the response, which is no error.
    pub(crate) async fn ok(&self, admin: &Admin) -> Value {
        let answer = self.send(admin).await;
        assert_eq!(answer.status, 200, "{self:?}: {answer:?}");
        answer.json()
    }
}

/// Encodes a name for a path.
pub(crate) fn encoded(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

pub(crate) fn action(circuit: &str, action: &str) -> String {
    format!("{API}/circuits/{}/actions/{action}", encoded(circuit))
}

pub(crate) fn key_action(circuit: &str, key: &str, action: &str) -> String {
    format!("{API}/circuits/{}/keys/{}/actions/{action}", encoded(circuit), encoded(key))
}

/// Returns the entries of the audit.
pub(crate) async fn audit(admin: &Admin) -> Vec<Value> {
    let audit = Call::get(format!("{API}/audit")).ok(admin).await;
    audit["entries"].as_array().unwrap().clone()
}

/// Returns the last entry of the audit.
pub(crate) async fn last_audit(admin: &Admin) -> Value {
    audit(admin).await.pop().expect("an attempt was made")
}

/// Collects the entries that an observer gets.
pub(crate) fn observed(
    builder: AdminBuilder,
) -> (AdminBuilder, std::sync::Arc<std::sync::Mutex<Vec<AuditEntry>>>) {
    let entries = std::sync::Arc::<std::sync::Mutex<Vec<AuditEntry>>>::default();
    let to = std::sync::Arc::clone(&entries);
    (builder.on_audit(move |entry| to.lock().unwrap().push(entry.clone())), entries)
}
