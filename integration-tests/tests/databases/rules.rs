//! The rule for each driver: it finds the code of the server's error, and reads the table.

use redis::{ErrorKind, RedisError};
use tower_fault_classify::Verdict;
use tower_fault_classify::tables::{redis_fault, sqlstate_fault};

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
    let text = format!("{} {}", error.code()?, error.detail().unwrap_or_default());
    redis_fault(&text).map(Verdict::Fault)
}
