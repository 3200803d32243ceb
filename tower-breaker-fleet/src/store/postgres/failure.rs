//! The errors of the driver and of the server, with the next step for each.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use crate::store::{StoreError, StoreErrorKind};

/// The parts of the settings that the texts name. It has no password.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The host and port, or the folder of the Unix socket.
    pub(super) server: String,
    pub(super) user: String,
    pub(super) database: String,
    /// The schema that has the functions of the fleet.
    pub(super) schema: String,
}

impl Target {
    /// Returns the error of the store for an error of the driver.
    pub(super) fn failure(&self, error: Error) -> StoreError {
        let (kind, message) = match error.as_db_error() {
            Some(refusal) => self.refusal(refusal),
            None => self.no_answer(&error),
        };
        StoreError { kind, message, source: Some(Box::new(error)) }
    }

    /// Returns the error of a migration. Its privileges are those of an owner.
    pub(super) fn migration_failure(&self, error: Error) -> StoreError {
        let Self { server, user, database, schema } = self;
        let newer = error.as_db_error().filter(|refusal| refusal.message().contains(NEWER_SCHEMA));
        if let Some(refusal) = newer {
            let problem = refusal.message();
            return self.refused(&format!("{problem}; update tower-breaker-fleet, or set another schema"));
        }
        let refusal =
            error.as_db_error().filter(|refusal| *refusal.code() == SqlState::INSUFFICIENT_PRIVILEGE);
        let Some(refusal) = refusal else { return self.failure(error) };
        let message = format!(
            "PostgreSQL at {server}: {} (42501): the user `{user}` may not change the schema `{schema}`; run \
             `PostgresStore::migrate` as the owner of the database `{database}`, and grant this user what the \
             documentation of `PostgresStore` lists",
            refusal.message()
        );
        StoreError { kind: StoreErrorKind::Refused, message, source: Some(Box::new(error)) }
    }

    /// Returns the error for a connection that has ended without an error of its own.
    pub(super) fn closed(&self) -> StoreError {
        let message = format!("PostgreSQL at {} closed the connection; it may restart", self.server);
        StoreError { kind: StoreErrorKind::Unreachable, message, source: None }
    }

    /// Returns the error for an answer that no version of the functions gives.
    pub(super) fn invalid(&self, problem: impl std::fmt::Display) -> StoreError {
        let Self { server, schema, .. } = self;
        let message = format!(
            "PostgreSQL at {server} gave an invalid answer: {problem}; check the tables \
             `{schema}.breaker_*` for rows that something else has written"
        );
        StoreError { kind: StoreErrorKind::Invalid, message, source: None }
    }

    pub(super) fn refused(&self, problem: &str) -> StoreError {
        let message = format!("PostgreSQL at {}: {problem}", self.server);
        StoreError { kind: StoreErrorKind::Refused, message, source: None }
    }

    /// Classifies an error that the server, or a connection pooler before it, has sent.
    fn refusal(&self, error: &DbError) -> (StoreErrorKind, String) {
        let Self { server, user, database, schema } = self;
        let code = error.code();
        let text = error.message();
        let next = match code {
            _ if is_unencrypted(error) => format!("the server demands TLS; {}", super::tls::ENCRYPT),
            _ if is_wrong_login(error) => {
                format!("check the user `{user}` and its password in the URL, and pg_hba.conf")
            }
            _ if is_missing_database(error) => format!("check the database `{database}` in the URL"),
            &SqlState::INVALID_SCHEMA_NAME | &SqlState::UNDEFINED_FUNCTION | &SqlState::UNDEFINED_TABLE => {
                format!(
                    "the schema `{schema}` does not have the functions of the fleet; run `PostgresStore::migrate` \
                 or the SQL of `PostgresStore::SCHEMA` in the database `{database}`"
                )
            }
            &SqlState::INSUFFICIENT_PRIVILEGE => format!(
                "run `GRANT USAGE ON SCHEMA {0} TO {1}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {0} TO {1}`",
                quoted(schema),
                quoted(user)
            ),
            &SqlState::READ_ONLY_SQL_TRANSACTION => READ_ONLY.to_owned(),
            // Unlogged tables do not exist on a replica.
            &SqlState::FEATURE_NOT_SUPPORTED if text.contains("recovery") => READ_ONLY.to_owned(),
            &SqlState::DISK_FULL => "the disk is full; free space on the server".to_owned(),
            &SqlState::UNTRANSLATABLE_CHARACTER => {
                format!("create the database `{database}` with the encoding UTF8")
            }
            &SqlState::TOO_MANY_CONNECTIONS => {
                "raise `max_connections`, or connect through pgbouncer".to_owned()
            }
            &SqlState::LOCK_NOT_AVAILABLE => {
                "another process held the lock of the circuit for too long; the server is overloaded"
                    .to_owned()
            }
            &SqlState::QUERY_CANCELED if text.contains("statement timeout") => {
                format!("run `ALTER ROLE {} SET statement_timeout = 0`, or a longer time", quoted(user))
            }
            // The driver has no name for it.
            _ if code.code() == "57P05" => {
                format!("run `ALTER ROLE {} SET idle_session_timeout = 0`", quoted(user))
            }
            _ if may_pass(code) => "the agent tries again".to_owned(),
            // The functions do not fit the tables, or the rows.
            _ if ["22", "23", "42", "P0"].iter().any(|class| code.code().starts_with(class)) => {
                format!("the schema `{schema}` may have been changed; run `PostgresStore::migrate`")
            }
            _ => "look into the log of the server".to_owned(),
        };
        let kind = if may_pass(code) { StoreErrorKind::Unreachable } else { StoreErrorKind::Refused };
        (kind, format!("PostgreSQL at {server}: {text} ({}): {next}", code.code()))
    }

    /// Classifies an error of the driver. It has no public kind, only its text and its source.
    fn no_answer(&self, error: &Error) -> (StoreErrorKind, String) {
        let server = &self.server;
        let detail = error.source().map_or_else(String::new, |source| format!(": {source}"));
        let text = error.to_string();
        let io = error.source().is_some_and(<dyn std::error::Error>::is::<io::Error>);
        match text.as_str() {
            "error performing TLS handshake" if detail.contains("server does not support TLS") => (
                StoreErrorKind::Refused,
                format!(
                    "PostgreSQL at {server} does not support TLS; enable it in the server (`ssl = on`), or \
                     remove `sslmode` from the URL"
                ),
            ),
            "error performing TLS handshake" => (
                StoreErrorKind::Refused,
                format!(
                    "the TLS handshake with PostgreSQL at {server} failed{detail}; {}",
                    super::tls::ADVICE
                ),
            ),
            "authentication error" | "invalid configuration" => (
                StoreErrorKind::Refused,
                format!(
                    "cannot log in to PostgreSQL at {server}{detail}; check the user and the password in the URL"
                ),
            ),
            "unexpected message from server" | "error parsing response from server" => (
                StoreErrorKind::Invalid,
                format!(
                    "PostgreSQL at {server} gave an invalid answer{detail}; check that the URL names a PostgreSQL server"
                ),
            ),
            _ if error.is_closed()
                || io
                || text.starts_with("error connecting")
                || text.starts_with("timeout") =>
            {
                (
                    StoreErrorKind::Unreachable,
                    format!(
                        "cannot reach PostgreSQL at {server}: {text}{detail}; check that it runs and accepts connections"
                    ),
                )
            }
            _ => (StoreErrorKind::Invalid, format!("PostgreSQL at {server}: {text}{detail}")),
        }
    }
}

pub(super) const READ_ONLY: &str = "the server is a read-only replica, or `default_transaction_read_only` is on; \
     connect to the primary, for instance with several hosts and `target_session_attrs=read-write` in the URL";

/// What `schema.sql` says if a later version has created the schema.
pub(super) const NEWER_SCHEMA: &str = "the schema has version";

/// Whether a server or pgbouncer takes no connection without TLS.
fn is_unencrypted(error: &DbError) -> bool {
    let text = error.message();
    (*error.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION && text.ends_with("no encryption"))
        || (*error.code() == SqlState::PROTOCOL_VIOLATION && text.contains("SSL required"))
}

/// Whether the login is wrong. pgbouncer sends its refusals with the code of a protocol violation.
fn is_wrong_login(error: &DbError) -> bool {
    let code = error.code();
    let text = error.message();
    *code == SqlState::INVALID_PASSWORD
        || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        || (*code == SqlState::PROTOCOL_VIOLATION
            && ["authentication failed", "no such user"].iter().any(|part| text.contains(part)))
}

fn is_missing_database(error: &DbError) -> bool {
    *error.code() == SqlState::INVALID_CATALOG_NAME
        || (*error.code() == SqlState::PROTOCOL_VIOLATION && error.message().contains("no such database"))
}

/// Whether the same statement may succeed later without an operator.
fn may_pass(code: &SqlState) -> bool {
    // A pooler sends its refusals of users and databases as protocol violations.
    let needs_operator = [&SqlState::DISK_FULL, &SqlState::PROTOCOL_VIOLATION].contains(&code);
    // Connections, transactions, resources, and interventions of an administrator.
    let classes = ["08", "40", "53", "55", "57"];
    !needs_operator && classes.iter().any(|class| code.code().starts_with(class))
}

/// Returns an identifier of SQL.
pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
