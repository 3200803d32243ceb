//! The table of PostgreSQL's SQLSTATE codes.

use crate::fault::Fault;
use crate::fault::Health::{Healthy, Neutral, Unhealthy};
use crate::fault::Kind::{
    Auth, Client, Conflict, Overloaded, Protocol, Quota, Server, Timeout, Transient, Unavailable,
};
use crate::fault::Origin::{Caller, Remote, Transport};
use crate::fault::Retryable::{IfIdempotent, Never, Refused};
use crate::table::row::{CodeRow, code_row as row};

/// The rows (PostgreSQL, Appendix A, "PostgreSQL Error Codes"), ordered by code.
///
/// The row of a code takes precedence over the row of its class.
pub(crate) const ROWS: &[CodeRow] = &[
    row(
        &["03", "09", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24", "25", "26", "27"],
        Client,
        Never,
        Healthy,
        Caller,
        "the statement, its data or the state of the session is wrong; 23: a constraint is violated",
    ),
    row(
        &["2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "42", "44", "54", "P0"],
        Client,
        Never,
        Healthy,
        Caller,
        "the statement or a routine that it calls is wrong; P0: a PL/pgSQL function raised the error",
    ),
    row(
        &["08"],
        Transient,
        IfIdempotent,
        Unhealthy,
        Transport,
        "the connection broke; 08007: the outcome of the transaction is not known",
    ),
    row(
        &["08001"],
        Unavailable,
        IfIdempotent,
        Neutral,
        Remote,
        "`sqlclient_unable_to_establish_sqlconnection`: the server is the client of another one, as with `dblink` and `postgres_fdw`",
    ),
    row(
        &["08004"],
        Unavailable,
        Refused,
        Unhealthy,
        Transport,
        "`sqlserver_rejected_establishment_of_sqlconnection`: nothing ran",
    ),
    row(
        &["08P01"],
        Unavailable,
        IfIdempotent,
        Unhealthy,
        Remote,
        "`protocol_violation`; PgBouncer reports its own failures with it, such as `query_wait_timeout`",
    ),
    row(&["0A"], Protocol, Never, Neutral, Remote, "`feature_not_supported`: like HTTP's 501"),
    row(
        &["25006"],
        Unavailable,
        Refused,
        Neutral,
        Remote,
        "`read_only_sql_transaction`: the write reached a standby; like HTTP's 421",
    ),
    row(
        &["25P03"],
        Timeout,
        Refused,
        Neutral,
        Caller,
        "`idle_in_transaction_session_timeout`: the transaction was rolled back, because the caller was idle",
    ),
    row(
        &["25P04"],
        Timeout,
        IfIdempotent,
        Neutral,
        Remote,
        "`transaction_timeout`: the caller or the server was slow",
    ),
    row(&["28"], Auth, Never, Healthy, Caller, "wrong password, or the role does not exist"),
    row(
        &["40"],
        Conflict,
        Refused,
        Healthy,
        Remote,
        "rolled back: serialization failure (40001), deadlock (40P01); PostgreSQL, §13.5: retry the whole transaction",
    ),
    row(
        &["40002"],
        Client,
        Never,
        Healthy,
        Caller,
        "`transaction_integrity_constraint_violation`: like class 23",
    ),
    row(
        &["40003"],
        Transient,
        IfIdempotent,
        Unhealthy,
        Remote,
        "`statement_completion_unknown`: the statement may have been committed",
    ),
    row(&["42501"], Auth, Never, Healthy, Caller, "`insufficient_privilege`"),
    row(&["53"], Overloaded, IfIdempotent, Unhealthy, Remote, "insufficient resources, such as memory"),
    row(&["53100"], Server, Never, Unhealthy, Remote, "`disk_full`: like HTTP's 507"),
    row(
        &["53300"],
        Overloaded,
        Refused,
        Unhealthy,
        Remote,
        "`too_many_connections`: the session did not start, so nothing ran",
    ),
    row(
        &["53400"],
        Quota,
        Never,
        Neutral,
        Remote,
        "`configuration_limit_exceeded`, such as `temp_file_limit`: a wait does not help",
    ),
    row(&["55"], Conflict, Never, Healthy, Remote, "the object is not in the required state"),
    row(
        &["55006", "55P03"],
        Conflict,
        Refused,
        Healthy,
        Remote,
        "`object_in_use`, `lock_not_available`: another session uses the object, and the statement was rolled back",
    ),
    row(
        &["57", "57P01", "57P02"],
        Unavailable,
        IfIdempotent,
        Unhealthy,
        Remote,
        "operator intervention; the server shuts down or has crashed",
    ),
    row(&["57014"], Timeout, IfIdempotent, Unhealthy, Remote, "`query_canceled`, as by `statement_timeout`"),
    row(
        &["57P03"],
        Unavailable,
        Refused,
        Unhealthy,
        Remote,
        "`cannot_connect_now`: the server starts, recovers or shuts down, so nothing ran",
    ),
    row(&["57P04"], Client, Never, Healthy, Caller, "`database_dropped`"),
    row(
        &["57P05"],
        Transient,
        Refused,
        Neutral,
        Remote,
        "`idle_session_timeout`: the session ended before it received the statement",
    ),
    row(&["58", "XX"], Server, IfIdempotent, Unhealthy, Remote, "system error, internal error"),
    row(
        &["58P01", "58P02"],
        Server,
        Never,
        Neutral,
        Remote,
        "`undefined_file`, `duplicate_file`: a file of the server, or one that the statement names",
    ),
    row(
        &["72"],
        Conflict,
        Refused,
        Healthy,
        Remote,
        "`snapshot_too_old`, until PostgreSQL 16: a new transaction has a new snapshot",
    ),
    row(&["F0", "XX001", "XX002"], Server, Never, Unhealthy, Remote, "configuration error, corrupted data"),
    row(
        &["HV"],
        Server,
        Never,
        Neutral,
        Remote,
        "a foreign-data wrapper failed: about another server, or the definition of a foreign table",
    ),
];

/// Returns the fault of a PostgreSQL error, by its SQLSTATE code.
///
/// The code has five characters, as `tokio_postgres::error::SqlState::code` and
/// `sqlx::error::DatabaseError::code` return it. The row of the code decides, otherwise the row of
/// its class, which is the first two characters. [The table](crate::tables#sqlstate-codes-of-postgresql)
/// lists both.
///
/// Returns `None` for:
///
/// - the classes 00, 01 and 02: a success, a warning, and no data;
/// - a class that the table does not list, such as one that a function of the application raises;
/// - a text that is not a code.
///
/// A fault describes the whole transaction. After a serialization failure (40001) or a deadlock
/// (40P01) the transaction was rolled back, so it may be sent again, and only as a whole. Put the
/// layers around the transaction, and not around one of its statements.
///
/// ```
/// use tower_fault_classify::tables::sqlstate_fault;
/// use tower_fault_classify::{Health, Kind, Retryable};
///
/// let unique_violation = sqlstate_fault("23505").unwrap();
/// assert_eq!(unique_violation.kind(), Kind::Client);
/// assert_eq!(unique_violation.health(), Health::Healthy);
///
/// let deadlock = sqlstate_fault("40P01").unwrap();
/// assert_eq!(deadlock.retryable(), Retryable::Refused);
/// ```
///
/// As a rule, with any driver that returns the code:
///
/// ```
/// # mod driver {
/// #     #[derive(Debug)]
/// #     pub struct Error;
/// #     impl std::fmt::Display for Error {
/// #         fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("error") }
/// #     }
/// #     impl std::error::Error for Error {}
/// #     impl Error { pub fn code(&self) -> Option<&str> { Some("53300") } }
/// # }
/// use tower_fault_classify::tables::sqlstate_fault;
/// use tower_fault_classify::{FaultClassifyLayer, Verdict};
///
/// let layer = FaultClassifyLayer::new().rule(|outcome: Result<&u64, &driver::Error>| {
///     let code = outcome.err()?.code()?;
///     sqlstate_fault(code).map(Verdict::Fault)
/// });
/// # let service = tower::ServiceBuilder::new()
/// #     .layer(layer)
/// #     .service(tower::service_fn(async |_: ()| Ok::<u64, driver::Error>(1)));
/// # fn check<Request, S: tower::Service<Request>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
pub fn sqlstate_fault(code: &str) -> Option<Fault> {
    let class = code.get(..2).filter(|_| code.len() == 5)?;
    let fault = |code| ROWS.iter().find(|row| row.codes.contains(&code)).map(|row| row.fault);
    fault(code).or_else(|| fault(class))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Kind, Origin, Retryable};

    /// The expected verdicts, written a second time. A class is tested by a code without a row.
    const EXPECTED: &[(&[&str], Kind, Retryable, Health, Origin)] = &[
        (
            &[
                "03000", "09000", "0B000", "0F001", "0LP01", "0P000", "0Z002", "10608", "20000", "21000",
                "22001", "22012", "23502", "23503", "23505", "23514", "23P01", "24000", "25001", "25P02",
                "26000", "27000",
            ],
            Client,
            Never,
            Healthy,
            Caller,
        ),
        (
            &[
                "2B000", "2D000", "2F005", "34000", "38000", "39000", "3B001", "3D000", "3F000", "42601",
                "42P01", "44000", "54001", "P0001", "40002", "57P04",
            ],
            Client,
            Never,
            Healthy,
            Caller,
        ),
        (&["28000", "28P01", "42501"], Auth, Never, Healthy, Caller),
        (&["08000", "08003", "08006", "08007"], Transient, IfIdempotent, Unhealthy, Transport),
        (&["08001"], Unavailable, IfIdempotent, Neutral, Remote),
        (&["08004"], Unavailable, Refused, Unhealthy, Transport),
        (&["08P01"], Unavailable, IfIdempotent, Unhealthy, Remote),
        (&["0A000"], Protocol, Never, Neutral, Remote),
        (&["25006"], Unavailable, Refused, Neutral, Remote),
        (&["25P03"], Timeout, Refused, Neutral, Caller),
        (&["25P04"], Timeout, IfIdempotent, Neutral, Remote),
        (&["40000", "40001", "40P01", "55006", "55P03", "72000"], Conflict, Refused, Healthy, Remote),
        (&["40003"], Transient, IfIdempotent, Unhealthy, Remote),
        (&["53000", "53200"], Overloaded, IfIdempotent, Unhealthy, Remote),
        (&["53100", "F0000", "F0001", "XX001", "XX002"], Server, Never, Unhealthy, Remote),
        (&["53300"], Overloaded, Refused, Unhealthy, Remote),
        (&["53400"], Quota, Never, Neutral, Remote),
        (&["55000", "55P02", "55P04"], Conflict, Never, Healthy, Remote),
        (&["57000", "57P01", "57P02"], Unavailable, IfIdempotent, Unhealthy, Remote),
        (&["57014"], Timeout, IfIdempotent, Unhealthy, Remote),
        (&["57P03"], Unavailable, Refused, Unhealthy, Remote),
        (&["57P05"], Transient, Refused, Neutral, Remote),
        (&["58000", "58030", "XX000"], Server, IfIdempotent, Unhealthy, Remote),
        (&["58P01", "58P02", "HV000", "HV00N"], Server, Never, Neutral, Remote),
    ];

    #[test]
    fn table_rows_match_reference() {
        for &(codes, kind, retryable, health, origin) in EXPECTED {
            let expected = Fault::new(kind, retryable, health, origin);
            for code in codes {
                assert_eq!(sqlstate_fault(code), Some(expected), "{code}");
            }
        }
        let tested =
            |code: &str| EXPECTED.iter().any(|(codes, ..)| codes.iter().any(|c| c.starts_with(code)));
        let mut codes: Vec<_> = ROWS.iter().flat_map(|row| row.codes).collect();
        assert!(codes.iter().all(|code| tested(code)), "each code is tested");
        let listed = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), listed, "each code is listed once");
    }

    #[test]
    fn sqlstate_success_or_unlisted_code_has_no_verdict() {
        for code in ["00000", "01000", "02000", "A0001", "", "23", "235055", "é3505", "ééé"] {
            assert_eq!(sqlstate_fault(code), None, "{code}");
        }
    }
}
