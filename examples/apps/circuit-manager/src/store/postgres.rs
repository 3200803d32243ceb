//! The store in a table of PostgreSQL.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::types::{FromSqlOwned, Json, ToSql, Type, WrongType};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tower_breaker::CircuitState;
use tower_fault_classify::ErrorChain;

use super::{Row, StoreError, write_of};

/// Creates the table, and does nothing if it exists. It needs no privilege to create tables then.
const MIGRATION: &str = "
    DO $$ BEGIN
        IF to_regclass('circuit_breaker_state') IS NULL THEN
            CREATE TABLE IF NOT EXISTS circuit_breaker_state (
                agent_id text PRIMARY KEY,
                state text NOT NULL,
                failure_count bigint NOT NULL,
                success_count bigint NOT NULL,
                last_failure_at timestamptz,
                last_state_change_at timestamptz NOT NULL,
                metadata jsonb NOT NULL
            );
        END IF;
    END $$";

const LOAD: &str = "
    SELECT agent_id, state, failure_count, success_count, last_failure_at, last_state_change_at, metadata
    FROM circuit_breaker_state ORDER BY agent_id COLLATE \"C\"";

/// The condition compares JSON values, so that no value is an error. A value that is not the number
/// of a write of this program is smaller than all numbers: see [`Row::write`].
const UPSERT: &str = "
    INSERT INTO circuit_breaker_state
        (agent_id, state, failure_count, success_count, last_failure_at, last_state_change_at, metadata)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (agent_id) DO UPDATE SET
        state = EXCLUDED.state,
        failure_count = EXCLUDED.failure_count,
        success_count = EXCLUDED.success_count,
        last_failure_at = EXCLUDED.last_failure_at,
        last_state_change_at = EXCLUDED.last_state_change_at,
        metadata = EXCLUDED.metadata
    WHERE circuit_breaker_state.metadata -> 'write' IS NULL
        OR jsonb_typeof(circuit_breaker_state.metadata -> 'write') <> 'number'
        OR circuit_breaker_state.metadata -> 'write' >= '4611686018427387904'
        OR circuit_breaker_state.metadata -> 'write' <= coalesce(EXCLUDED.metadata -> 'write', '0')";

/// The rows in the table `circuit_breaker_state` of a database.
///
/// It has one connection, and connects again after a failure. It uses TLS as the URL says, except
/// on a Unix socket.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    client: Mutex<Option<Client>>,
    /// Reading the roots of the system takes some milliseconds.
    tls: OnceLock<Tls>,
}

#[derive(Clone)]
struct Tls(MakeRustlsConnect);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl PostgresStore {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        let mut config: Config = url.parse().map_err(StoreError::Url)?;
        if config.get_application_name().is_none() {
            config.application_name("circuit-manager");
        }
        let inner = Inner { config, client: Mutex::default(), tls: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        self.execute_batch(MIGRATION).await
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        self.execute_batch("").await
    }

    async fn execute_batch(&self, statements: &str) -> Result<(), StoreError> {
        let (mut kept, client) = self.client().await?;
        client.batch_execute(statements).await.map_err(StoreError::Postgres)?;
        *kept = Some(client);
        Ok(())
    }

    pub(super) async fn load(&self) -> Result<Vec<Row>, StoreError> {
        Ok(self.load_with_last_write().await?.0)
    }

    /// Returns the rows that can be used, and the largest number of a write of all rows.
    pub(super) async fn load_with_last_write(&self) -> Result<(Vec<Row>, u64), StoreError> {
        let (mut kept, client) = self.client().await?;
        let rows = client.query_typed(LOAD, &[]).await.map_err(StoreError::Postgres)?;
        *kept = Some(client);
        let mut usable = Vec::with_capacity(rows.len());
        let mut last_write = 0;
        for from in &rows {
            match row(from) {
                Ok(row) => {
                    last_write = last_write.max(row.write());
                    usable.push(row);
                }
                Err(error @ StoreError::Row { .. }) => {
                    tracing::warn!("{error}; its circuit starts closed");
                    // The next write must replace this row, too.
                    let metadata = from.try_get("metadata").ok();
                    last_write = last_write.max(metadata.map_or(0, |Json(metadata)| write_of(&metadata)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((usable, last_write))
    }

    pub(super) async fn upsert(&self, rows: &[Row]) -> Result<(), StoreError> {
        let ids: Vec<_> = rows.iter().map(|row| row.agent_id.as_str()).collect();
        let states: Vec<_> = rows.iter().map(|row| row.state.as_str()).collect();
        let failures: Vec<_> = rows.iter().map(|row| count(row.failure_count)).collect();
        let successes: Vec<_> = rows.iter().map(|row| count(row.success_count)).collect();
        let last_failures: Vec<_> = rows.iter().map(|row| row.last_failure_at).collect();
        let last_changes: Vec<_> = rows.iter().map(|row| row.last_state_change_at).collect();
        let metadata: Vec<_> = rows.iter().map(|row| Json(&row.metadata)).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
            (&ids, Type::TEXT_ARRAY),
            (&states, Type::TEXT_ARRAY),
            (&failures, Type::INT8_ARRAY),
            (&successes, Type::INT8_ARRAY),
            (&last_failures, Type::TIMESTAMPTZ_ARRAY),
            (&last_changes, Type::TIMESTAMPTZ_ARRAY),
            (&metadata, Type::JSONB_ARRAY),
        ];
        let (mut kept, client) = self.client().await?;
        client.execute_typed(UPSERT, &parameters).await.map_err(StoreError::Postgres)?;
        *kept = Some(client);
        Ok(())
    }

    /// Takes the connection, and connects first if there is none.
    ///
    /// It is put back only after a statement that has succeeded. If the future of a statement is
    /// dropped, its answer would be read by the next statement.
    async fn client(&self) -> Result<(MutexGuard<'_, Option<Client>>, Client), StoreError> {
        let mut kept = self.inner.client.lock().await;
        let client = match kept.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await?,
        };
        Ok((kept, client))
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let config = &self.inner.config;
        let is_local = config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)));
        if is_local || config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = config.connect(NoTls).await.map_err(StoreError::Postgres)?;
            // Its error is also that of the statement that waits for an answer.
            tokio::spawn(connection);
            return Ok(client);
        }
        let connector = if let Some(Tls(connector)) = self.inner.tls.get() {
            connector.clone()
        } else {
            let connector = connector()?;
            self.inner.tls.get_or_init(|| Tls(connector)).0.clone()
        };
        let (client, connection) = config.connect(connector).await.map_err(StoreError::Postgres)?;
        tokio::spawn(connection);
        Ok(client)
    }
}

fn connector() -> Result<MakeRustlsConnect, StoreError> {
    match MakeRustlsConnect::with_native_certs() {
        Ok((connector, _unreadable)) => Ok(connector),
        Err(errors) => {
            let problem = format!(
                "the system has no root certificates ({errors:?}); install them, or set \
                 `sslmode=disable` in the URL"
            );
            Err(StoreError::Tls { problem })
        }
    }
}

/// Reads a row of the table, which any program may have written.
fn row(row: &tokio_postgres::Row) -> Result<Row, StoreError> {
    let agent_id: String = row.try_get("agent_id").map_err(StoreError::Postgres)?;
    let value = Columns { row, agent_id: &agent_id };
    let state: String = value.get("state")?;
    let state = serde_json::from_value::<CircuitState>(Value::String(state))
        .map_err(|error| StoreError::Row { agent_id: agent_id.clone(), problem: error.to_string() })?;
    Ok(Row {
        state,
        failure_count: value.get::<i64>("failure_count")?.try_into().unwrap_or(0),
        success_count: value.get::<i64>("success_count")?.try_into().unwrap_or(0),
        last_failure_at: value.get("last_failure_at")?,
        last_state_change_at: value.get("last_state_change_at")?,
        metadata: value.get::<Json<Value>>("metadata")?.0,
        agent_id,
    })
}

/// The columns of a row.
struct Columns<'a> {
    row: &'a tokio_postgres::Row,
    agent_id: &'a str,
}

impl Columns<'_> {
    fn get<T: FromSqlOwned>(&self, column: &str) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|error| {
            // A column of another type is a problem of the table. Other values are of this row.
            if error.source().is_none_or(<dyn Error>::is::<WrongType>) {
                return StoreError::Column { column: column.to_owned(), source: error };
            }
            StoreError::Row {
                agent_id: self.agent_id.to_owned(),
                problem: format!("`{column}`: {}", ErrorChain(&error)),
            }
        })
    }
}

/// Returns a count as a `bigint`.
fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
