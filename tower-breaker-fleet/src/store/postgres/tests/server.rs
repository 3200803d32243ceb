//! The server of the tests.

use std::sync::{Arc, Mutex, Weak};

use test_servers::{PgBouncer, Postgres};
use tokio_postgres::{Config, NoTls};

use crate::store::postgres::PostgresStore;
use crate::store::postgres::link::Link;

/// A server with the functions of a fleet, which tests that run at the same time share.
pub(super) struct Shared {
    url: String,
    server: Mutex<Postgres>,
}

impl Shared {
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn socket(&self) -> std::path::PathBuf {
        self.server.lock().unwrap().socket()
    }

    /// Returns the URL for another user.
    pub(super) fn url_as(&self, user: &str, password: &str) -> String {
        self.server.lock().unwrap().url_as(user, password)
    }

    /// Returns the URL of another database.
    pub(super) fn url_of(&self, database: &str) -> String {
        let server = self.url.strip_suffix("/postgres").expect("the URL ends with the database");
        format!("{server}/{database}")
    }

    /// Returns a store that polls.
    pub(super) fn polling(&self) -> PostgresStore {
        PostgresStore::open(&self.url).unwrap()
    }

    /// Returns a store that listens.
    pub(super) fn listening(&self) -> PostgresStore {
        self.polling().listen_at(&self.url).unwrap()
    }

    /// Returns a store with tables and functions of its own, which a test may change.
    pub(super) async fn with_schema(&self, schema: &str) -> PostgresStore {
        let store = self.listening().schema(schema);
        store.migrate().await.unwrap();
        store
    }

    pub(super) async fn admin(&self) -> Admin {
        Admin::connect(&self.url).await
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
    let started = migrated(&["max_connections=200", "track_functions=all"]).await;
    let started = Arc::new(Shared { url: started.url(), server: Mutex::new(started) });
    *server = Arc::downgrade(&started);
    started
}

/// The shared server behind PgBouncer in transaction mode.
pub(super) struct Pooled {
    url: String,
    // Ends before the server.
    _pooler: Mutex<PgBouncer>,
    pub(super) server: Arc<Shared>,
}

impl Pooled {
    /// Returns a store that polls through the pooler.
    pub(super) fn polling(&self) -> PostgresStore {
        PostgresStore::open(&self.url).unwrap()
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

/// Returns the shared pooler, which ends with the last test that uses it.
pub(super) async fn pooled() -> Arc<Pooled> {
    static POOLER: tokio::sync::Mutex<Weak<Pooled>> = tokio::sync::Mutex::const_new(Weak::new());
    let mut pooler = POOLER.lock().await;
    if let Some(pooler) = pooler.upgrade() {
        return pooler;
    }
    let server = shared().await;
    let started = PgBouncer::start(&server.server.lock().unwrap());
    let started = Arc::new(Pooled { url: started.url(), _pooler: Mutex::new(started), server });
    *pooler = Arc::downgrade(&started);
    started
}

/// Starts a server with the functions of a fleet.
pub(super) async fn migrated(settings: &[&str]) -> Postgres {
    let server = Postgres::start_with(settings);
    PostgresStore::open(&server.url()).unwrap().migrate().await.unwrap();
    server
}

/// A connection for statements of a test.
pub(super) struct Admin(Link);

impl Admin {
    pub(super) async fn connect(url: &str) -> Self {
        let config: Config = url.parse().unwrap();
        Self(Link::connect(&config, NoTls).await.unwrap())
    }

    pub(super) async fn run(&mut self, sql: &str) {
        self.0.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Returns the number that a statement returns.
    pub(super) async fn number(&mut self, sql: &str) -> i64 {
        let rows = self.0.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        rows[0].get(0)
    }
}
