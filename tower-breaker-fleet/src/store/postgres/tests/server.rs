//! The server of the tests.

use std::sync::{Arc, Mutex, Weak};

use test_servers::Postgres;

use crate::store::postgres::PostgresStore;

/// A server with the functions of a fleet, which tests that run at the same time share.
pub(super) struct Shared {
    url: String,
    /// A server is not `Sync`.
    _server: Mutex<Postgres>,
}

impl Shared {
    /// Returns a store that listens.
    pub(super) fn store(&self) -> PostgresStore {
        PostgresStore::open(&self.url).unwrap().listen_at(&self.url).unwrap()
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

/// Returns the shared server. It ends with the last test that uses it: a server in a `static` would
/// outlive the tests.
pub(super) async fn shared() -> Arc<Shared> {
    static SERVER: tokio::sync::Mutex<Weak<Shared>> = tokio::sync::Mutex::const_new(Weak::new());
    let mut server = SERVER.lock().await;
    if let Some(server) = server.upgrade() {
        return server;
    }
    let started = migrated(&["max_connections=200"]).await;
    let started = Arc::new(Shared { url: started.url(), _server: Mutex::new(started) });
    *server = Arc::downgrade(&started);
    started
}

/// Starts a server with the functions of a fleet.
pub(super) async fn migrated(settings: &[&str]) -> Postgres {
    let server = Postgres::start_with(settings);
    PostgresStore::open(&server.url()).unwrap().migrate().await.unwrap();
    server
}
