//! A server of the admin page, in the test's process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tower_breaker::{BreakerConfig, Circuit, CircuitRegistry, CircuitState};
use tower_breaker_admin::{Admin, AdminBuilder, AuditEntry, User};

/// The token of `anna`, who is an operator.
pub(crate) const OPERATOR: &str = "token-of-anna-the-operator";
/// The token of `rob`, who is a reader.
pub(crate) const READER: &str = "token-of-rob-the-reader";

/// The circuits of a process and their admin, below `/breakers`.
pub(crate) struct Server {
    pub(crate) registry: CircuitRegistry,
    audit: Arc<Mutex<Vec<AuditEntry>>>,
    address: SocketAddr,
    task: AbortHandle,
}

impl Server {
    /// Starts a server with closed circuits of these names.
    pub(crate) async fn start(names: &[&'static str]) -> Self {
        Self::start_with(names, |admin| admin).await
    }

    /// Like [`start`](Self::start), with more settings.
    pub(crate) async fn start_with(
        names: &[&'static str],
        settings: impl FnOnce(AdminBuilder) -> AdminBuilder,
    ) -> Self {
        let registry = registry(names);
        let audit = Arc::new(Mutex::new(Vec::new()));
        let entries = Arc::clone(&audit);
        let admin = settings(builder(&registry)).on_audit(move |entry| {
            entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, admin.build().unwrap())).abort_handle();
        Self { registry, audit, address, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the page, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/breakers", self.address)
    }

    pub(crate) fn circuit(&self, name: &str) -> Circuit {
        self.registry.get(name).unwrap_or_else(|| panic!("there is no circuit {name:?}"))
    }

    pub(crate) fn state(&self, name: &str) -> CircuitState {
        self.circuit(name).status().state
    }

    /// Returns the audit since the last call.
    pub(crate) fn take_audit(&self) -> Vec<AuditEntry> {
        std::mem::take(&mut self.audit.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns a registry with closed circuits of these names.
pub(crate) fn registry(names: &[&'static str]) -> CircuitRegistry {
    let registry = CircuitRegistry::new(BreakerConfig::default());
    for &name in names {
        registry.circuit(name);
    }
    registry
}

/// Returns an admin with the users of the tests.
pub(crate) fn builder(registry: &CircuitRegistry) -> AdminBuilder {
    Admin::builder()
        .registry(registry)
        .bearer(OPERATOR, User::operator("anna"))
        .bearer(READER, User::reader("rob"))
}

/// Serves the admin below `/breakers` until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let router = Router::new().nest_service("/breakers", admin);
    axum::serve(listener, router).await.unwrap();
}
