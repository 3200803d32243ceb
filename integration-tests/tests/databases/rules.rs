//! The rule for each driver: it finds the code of the server's error, and reads the table.

use redis::{ErrorKind, RedisError};
use tower_fault_classify::tables::{redis_fault, sqlstate_fault};
use tower_fault_classify::{Retryable, Verdict};

pub(crate) fn tokio_postgres_rule<T>(outcome: Result<&T, &tokio_postgres::Error>) -> Option<Verdict> {
    let code = outcome.err()?.code()?;
    sqlstate_fault(code.code()).map(Verdict::Fault)
}

pub(crate) fn sqlx_rule<T>(outcome: Result<&T, &sqlx::Error>) -> Option<Verdict> {
    match outcome.err()? {
        sqlx::Error::Database(error) => sqlstate_fault(&error.code()?).map(Verdict::Fault),
        // The server answered: there is no such row.
        sqlx::Error::RowNotFound => Some(Verdict::Success),
        _ => None,
    }
}

pub(crate) fn redis_rule<T>(outcome: Result<&T, &RedisError>) -> Option<Verdict> {
    let error = outcome.err()?;
    // The driver drops the server's text if the password is wrong.
    if error.kind() == ErrorKind::AuthenticationFailed {
        return redis_fault("WRONGPASS").map(Verdict::Fault);
    }
    // If the server refused a command of a transaction, only that command's error has the cause.
    let errors = error.clone().into_server_errors()?;
    let (_, first) = errors.first()?;
    let text = format!("{} {}", first.code(), first.details().unwrap_or_default());
    redis_fault(&text).map(Verdict::Fault)
}

/// The rule of a service that sends pipelines without `MULTI`: some of the commands have run.
pub(crate) fn redis_pipeline_rule<T>(outcome: Result<&T, &RedisError>) -> Option<Verdict> {
    match redis_rule(outcome)? {
        Verdict::Fault(fault) if fault.retryable() == Retryable::Refused => {
            Some(Verdict::Fault(fault.with_retryable(Retryable::IfIdempotent)))
        }
        verdict => Some(verdict),
    }
}
