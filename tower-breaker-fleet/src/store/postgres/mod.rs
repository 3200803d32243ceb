//! A store in PostgreSQL.

mod failure;
mod link;
mod session;
mod tls;
mod updates;
mod wire;

#[cfg(all(test, unix))]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tower_breaker::ConfigError;

use self::failure::{READ_ONLY, Target, quoted};
use self::link::Link;
use self::session::PostgresSession;
use self::tls::Tls;
use super::{Backend, Session, StoreError, StoreFuture};
use crate::error::FleetError;

/// The version of [`PostgresStore::SCHEMA`].
const VERSION: i32 = 2;

/// The schema of the database, unless [`PostgresStore::schema`] sets another one.
const DEFAULT_SCHEMA: &str = "tower_breaker";

/// The only statement of [`PostgresStore::SCHEMA`] that has the name of the schema.
const SCHEMA_STATEMENT: &str = "SET LOCAL breaker_setup.schema = 'tower_breaker';";

/// How long a connection is idle before TCP checks it. A firewall may drop it silently.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The time between checks, and the number of checks without an answer that end the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long a connection to one of several hosts may take.
///
/// A host that was lost answers nothing. The attempt of the agent ends after 1 s by default, and
/// must reach the next host before.
const CONNECT_TO_ONE: Duration = Duration::from_millis(250);

/// A store in PostgreSQL, directly or behind pgbouncer.
///
/// # Setup
///
/// The database needs some tables and functions: [`migrate`](Self::migrate) creates them, or run
/// [`SCHEMA`](Self::SCHEMA). They are in the schema `tower_breaker`, or in the one that
/// [`schema`](Self::schema) sets. Fleets with different schemas or namespaces share nothing.
///
/// A process executes only functions, and needs no privilege for a table:
///
/// ```sql
/// GRANT USAGE ON SCHEMA tower_breaker TO app;
/// GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tower_breaker TO app;
/// ```
///
/// The encoding of the database is UTF8, and its transactions are `read committed`, both of which
/// are the defaults. The store checks this when it connects.
///
/// # Updates
///
/// | URL | other processes see a decision | connections of a process |
/// |---|---|---|
/// | [`open`](Self::open) and [`listen_at`](Self::listen_at) | at once, with LISTEN | 2 |
/// | [`open`](Self::open) alone | within 1 s; within 0.1 s while a circuit of theirs has failures or is not closed | 1 |
///
/// Behind pgbouncer in transaction mode, LISTEN succeeds but receives nothing. So LISTEN has a
/// direct connection, and the store tests it with a notification. If none arrives within 1 s, the
/// store polls, and tries LISTEN again each minute.
///
/// # TLS
///
/// With the feature `postgres-tls`, a connection over TCP uses TLS if the server offers it. With
/// `sslmode=require` in the URL, it fails without TLS. The certificate is always verified.
/// The application chooses the cryptography: it installs a default crypto provider of rustls.
///
/// # Failures
///
/// - After a crash of the server the members and leases are lost, because their tables are not
///   logged. All decisions are kept. No vote is decided for one membership lifetime.
/// - All times are those of the server.
/// - A name with NUL, which PostgreSQL cannot store, is stored with U+FFFD instead.
#[derive(Clone)]
pub struct PostgresStore {
    settings: Arc<Settings>,
}

/// What all sessions of a store share.
struct Settings {
    config: Config,
    target: Target,
    tls: Tls,
    /// The configuration of the connection for LISTEN, and what to call it.
    direct: Option<(Config, Target)>,
    /// Whether the log has that LISTEN does not work.
    polls: AtomicBool,
}

impl PostgresStore {
    /// The tables and functions, as SQL for the schema `tower_breaker`. It may run again.
    ///
    /// For another schema, change the statement at its start that has the name of the schema.
    pub const SCHEMA: &'static str = include_str!("schema.sql");

    /// Returns a store in the database of a URL, such as
    /// `postgresql://app:password@db.example.com/breakers`.
    ///
    /// It connects later. The URL has the format of libpq, with the parameters that tokio-postgres
    /// knows. It may name several hosts, with `target_session_attrs=read-write` for the primary. A
    /// host that does not answer for 250 ms, or for `connect_timeout`, is skipped then.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid. The error has no part of the URL that may be a
    /// password.
    pub fn open(url: &str) -> Result<Self, FleetError> {
        let (config, target) = read_url("url", url, DEFAULT_SCHEMA)?;
        let (tls, polls) = (Tls::default(), AtomicBool::new(false));
        let settings = Settings { config, target, tls, direct: None, polls };
        Ok(Self { settings: Arc::new(settings) })
    }

    /// Receives updates with LISTEN on a connection of its own. The default is polling.
    ///
    /// The URL names the same database, and the server itself and not a pooler.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid.
    pub fn listen_at(self, direct_url: &str) -> Result<Self, FleetError> {
        let direct = read_url("listen_at", direct_url, &self.settings.target.schema)?;
        Ok(self.with(|settings| settings.direct = Some(direct)))
    }

    /// Sets the schema of the tables and functions. The default is `tower_breaker`.
    ///
    /// Any identifier of PostgreSQL works. The case of letters matters.
    pub fn schema(self, schema: &str) -> Self {
        self.with(|settings| {
            schema.clone_into(&mut settings.target.schema);
            if let Some((_, target)) = &mut settings.direct {
                schema.clone_into(&mut target.schema);
            }
        })
    }

    /// Sets the root certificates of the server: a file in the format PEM, such as the one of a
    /// provider of databases. The default are the certificates of the system.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, or has no certificate.
    #[cfg(feature = "postgres-tls")]
    pub fn root_certificates(self, file: impl AsRef<std::path::Path>) -> Result<Self, FleetError> {
        let file = file.as_ref();
        let tls = Tls::with_roots(file).map_err(|problem| {
            let value = format_args!("{}: {problem}", file.display());
            ConfigError::new("root_certificates", value, "a file with certificates in the format PEM")
        })?;
        Ok(self.with(|settings| settings.tls = tls))
    }

    /// Creates the schema, the tables and the functions, if the database does not have them.
    ///
    /// Several processes may call it at the same time. The role needs the privilege to create
    /// a schema, unless the schema exists and belongs to it. If the functions exist in this
    /// version, the method changes nothing, and needs only the privileges of a process.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not answer or refuses.
    ///
    /// # Cancellation
    ///
    /// The changes are one transaction: all are made, or none.
    pub async fn migrate(&self) -> Result<(), FleetError> {
        self.settings.migrate().await.map_err(FleetError::from)
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let Settings { config, target, tls, direct, .. } = &*self.settings;
        let mut settings = Settings {
            config: config.clone(),
            target: target.clone(),
            tls: tls.clone(),
            direct: direct.clone(),
            polls: AtomicBool::new(false),
        };
        change(&mut settings);
        Self { settings: Arc::new(settings) }
    }
}

impl Settings {
    async fn migrate(&self) -> Result<(), StoreError> {
        let target = &self.target;
        let mut link = self.tls.connect(&self.config, target).await?;
        if let Ok(VERSION) = self.version(&mut link).await {
            return Ok(());
        }
        let statement = SCHEMA_STATEMENT.replace(DEFAULT_SCHEMA, &target.schema.replace('\'', "''"));
        let sql = PostgresStore::SCHEMA.replacen(SCHEMA_STATEMENT, &statement, 1);
        link.run(&sql).await.map_err(|error| target.migration_failure(error))
    }

    /// Connects, and checks that the server lets a session work.
    async fn connect(&self) -> Result<Link, StoreError> {
        let target = &self.target;
        let mut link = self.tls.connect(&self.config, target).await?;
        let sql = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, \
                   current_setting('transaction_isolation'), current_setting('server_encoding')";
        let rows = link.query(sql, &[]).await.map_err(|error| target.failure(error))?;
        let row = rows.first().ok_or_else(|| target.invalid("the settings are missing"))?;
        let column = |error| target.invalid(error);
        let (is_read_only, isolation, encoding): (bool, &str, &str) = (
            row.try_get(0).map_err(column)?,
            row.try_get(1).map_err(column)?,
            row.try_get(2).map_err(column)?,
        );
        if is_read_only {
            return Err(target.refused(READ_ONLY));
        }
        // After it has waited for a lock, a stricter transaction would not read the latest record.
        if isolation != "read committed" {
            return Err(target.refused(&format!(
                "transactions are `{isolation}`; run `ALTER ROLE {} SET default_transaction_isolation = 'read committed'`",
                quoted(&target.user)
            )));
        }
        if encoding != "UTF8" {
            let database = &target.database;
            return Err(target.refused(&format!(
                "the encoding of the database `{database}` is {encoding}; create one with the encoding UTF8"
            )));
        }
        match self.version(&mut link).await? {
            VERSION => Ok(link),
            version if version < VERSION => Err(target.refused(&format!(
                "the schema `{}` has version {version}, and this process needs {VERSION}; run `PostgresStore::migrate`",
                target.schema
            ))),
            version => Err(target.refused(&format!(
                "the schema `{}` has version {version}, and this process knows only {VERSION}; \
                 update tower-breaker-fleet, or set another schema",
                target.schema
            ))),
        }
    }

    /// Returns the version of the functions in the database.
    async fn version(&self, link: &mut Link) -> Result<i32, StoreError> {
        let target = &self.target;
        let sql = format!("SELECT {}.breaker_version()", quoted(&target.schema));
        let rows = link.query(&sql, &[]).await.map_err(|error| target.failure(error))?;
        let version = rows.first().map(|row| row.try_get(0));
        version.and_then(Result::ok).ok_or_else(|| target.invalid("the version of the schema is missing"))
    }

    /// Connects for LISTEN.
    async fn connect_directly(&self) -> Result<Link, StoreError> {
        let config = self.direct.as_ref().map_or(&self.config, |(config, _)| config);
        self.tls.connect(config, self.direct_target()).await
    }

    /// Returns the target of the connection for LISTEN.
    fn direct_target(&self) -> &Target {
        self.direct.as_ref().map_or(&self.target, |(_, target)| target)
    }

    /// Logs why a session polls, once until LISTEN works again.
    fn polls_because(&self, error: &StoreError) {
        if !self.polls.swap(true, Ordering::Relaxed) {
            #[cfg(feature = "tracing")]
            tracing::warn!(target: "tower_breaker_fleet", reason = %error.message, "the store polls instead of LISTEN");
            #[cfg(not(feature = "tracing"))]
            let _ = error;
        }
    }

    fn listens(&self) {
        self.polls.store(false, Ordering::Relaxed);
    }
}

impl Backend for PostgresStore {
    fn connect<'a>(&'a self, namespace: &'a str) -> StoreFuture<'a, Box<dyn Session>> {
        Box::pin(async move {
            let link = self.settings.connect().await?;
            let session = PostgresSession::new(Arc::clone(&self.settings), namespace, link);
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direct = self.settings.direct.as_ref().map(|(_, target)| target);
        f.debug_struct("PostgresStore")
            .field("target", &self.settings.target)
            .field("listen_at", &direct)
            .finish()
    }
}

/// Reads a URL. The error and the target have no part of it that may be a password.
fn read_url(field: &'static str, url: &str, schema: &str) -> Result<(Config, Target), ConfigError> {
    let invalid = |problem: &str| {
        let allowed =
            "`postgresql://user:password@host:port/database` with parameters that tokio-postgres knows";
        ConfigError::new(field, format_args!("{problem}"), allowed)
    };
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(invalid("not a URL of PostgreSQL"));
    }
    let mut config: Config = url.parse().map_err(|error| invalid(&url_problem(&error)))?;
    let hosts: Vec<String> = config.get_hosts().iter().map(host_name).collect();
    if hosts.is_empty() {
        return Err(invalid("a URL without a host"));
    }
    // A password with `@` ends too early, and its rest would be shown as the host and the database.
    let before_parameters = url.split('?').next().unwrap_or_default();
    if before_parameters.matches('@').count() > 1 {
        return Err(invalid("a URL with `@` in its host, which is `%40` in a password"));
    }
    config.keepalives_idle(KEEPALIVE.min(config.get_keepalives_idle()));
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVE_RETRIES);
    }
    if hosts.len() > 1 && config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TO_ONE);
    }
    if config.get_application_name().is_none() {
        config.application_name("tower-breaker-fleet");
    }
    let user = config.get_user().unwrap_or("the user of the process").to_owned();
    let database = config.get_dbname().unwrap_or(&user).to_owned();
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    let server = hosts.join(",") + ":" + &ports.join(",");
    Ok((config, Target { server, user, database, schema: schema.to_owned() }))
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(folder) => folder.display().to_string(),
    }
}

/// Returns the problem of a URL without the parts that the driver quotes from it.
fn url_problem(error: &tokio_postgres::Error) -> String {
    let problem = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
    // Parameters of libpq. Any other name may be a part of a password.
    let files = ["sslcert", "sslkey", "sslcrl", "passfile", "service", "gssencmode"];
    match problem.strip_prefix("unknown option `").and_then(|rest| rest.strip_suffix('`')) {
        Some("sslrootcert") => {
            "a URL with the parameter `sslrootcert`; use `PostgresStore::root_certificates`".to_owned()
        }
        Some(option) if files.contains(&option) => format!("a URL with the parameter `{option}`"),
        Some(_) => "a URL with an unknown parameter; `?` is `%3F` in a password".to_owned(),
        None if problem == "invalid value for option `sslmode`" => {
            format!("a URL with an {problem}; `require` also verifies the certificate")
        }
        None if problem.starts_with("invalid value for option") => format!("a URL with an {problem}"),
        None => {
            "a URL that cannot be read; special characters of a password are `%` and two digits".to_owned()
        }
    }
}
