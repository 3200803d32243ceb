//! The table of Redis' error codes.

use crate::fault::Fault;
use crate::fault::Health::{Healthy, Neutral, Unhealthy};
use crate::fault::Kind::{Auth, Client, Overloaded, Protocol, Transient, Unavailable};
use crate::fault::Origin::{Caller, Remote};
use crate::fault::Retryable::{IfIdempotent, Never, Refused};
use crate::table::row::{CodeRow, code_row as row};

/// The rows. The first row that matches decides.
pub(crate) const ROWS: &[CodeRow] = &[
    row(
        &["ERR max number of clients"],
        Overloaded,
        Refused,
        Unhealthy,
        Remote,
        "`maxclients` of redis.conf: the server closes the connection before it reads a command",
    ),
    row(
        &["ERR", "WRONGTYPE", "CROSSSLOT", "NOSCRIPT", "BUSYKEY", "BUSYGROUP", "NOGROUP"],
        Client,
        Never,
        Healthy,
        Caller,
        "the command, or its use with this key, is wrong",
    ),
    row(
        &["EXECABORT"],
        Client,
        Never,
        Neutral,
        Caller,
        "EXEC: an earlier command of the transaction failed, and only its error has the cause",
    ),
    row(
        &["NOTBUSY", "UNKILLABLE", "NOSUB"],
        Client,
        Never,
        Healthy,
        Caller,
        "SCRIPT KILL, FUNCTION KILL, UNSUBSCRIBE: nothing to stop, or it cannot be stopped",
    ),
    row(
        &["NOAUTH", "WRONGPASS", "NOPERM", "DENIED"],
        Auth,
        Never,
        Healthy,
        Caller,
        "Redis, \"ACL\"; DENIED: protected mode",
    ),
    row(&["NOPROTO"], Protocol, Never, Neutral, Remote, "HELLO: like HTTP's 505"),
    row(
        &["MOVED", "ASK", "REDIRECT"],
        Unavailable,
        Refused,
        Neutral,
        Remote,
        "Redis, \"Cluster specification\"; REDIRECT: Valkey. The key is on another node; like HTTP's 421",
    ),
    row(
        &["READONLY"],
        Unavailable,
        Refused,
        Neutral,
        Remote,
        "`replica-read-only` of redis.conf: the write reached a replica; like HTTP's 421",
    ),
    row(
        &["TRYAGAIN"],
        Transient,
        Refused,
        Neutral,
        Remote,
        "Redis, \"Cluster specification\": the keys of the command are being moved to another node",
    ),
    row(
        &["UNBLOCKED"],
        Transient,
        Refused,
        Neutral,
        Remote,
        "CLIENT UNBLOCK, or the server has become a replica: the command waited and did not run",
    ),
    row(
        &["CLUSTERDOWN"],
        Unavailable,
        Refused,
        Unhealthy,
        Remote,
        "Redis, \"Cluster specification\": no node serves the slot",
    ),
    row(
        &["LOADING"],
        Unavailable,
        Refused,
        Unhealthy,
        Remote,
        "Redis, \"Persistence\": the server reads its data into memory",
    ),
    row(
        &["MASTERDOWN"],
        Unavailable,
        Refused,
        Unhealthy,
        Remote,
        "`replica-serve-stale-data` of redis.conf: a replica lost its master",
    ),
    row(
        &["BUSY"],
        Unavailable,
        Refused,
        Unhealthy,
        Remote,
        "`busy-reply-threshold` of redis.conf: a script runs, and no other command does",
    ),
    row(&["OOM"], Overloaded, Refused, Unhealthy, Remote, "`maxmemory` of redis.conf: writes are refused"),
    row(
        &["MISCONF"],
        Unavailable,
        Refused,
        Unhealthy,
        Remote,
        "`stop-writes-on-bgsave-error` of redis.conf: the data cannot be saved, so writes are refused",
    ),
    row(
        &["NOREPLICAS"],
        Unavailable,
        Refused,
        Unhealthy,
        Remote,
        "`min-replicas-to-write` of redis.conf: too few replicas are connected, so writes are refused",
    ),
    row(
        &["IOERR"],
        Transient,
        IfIdempotent,
        Neutral,
        Remote,
        "MIGRATE: the connection to the target server broke",
    ),
];

/// The beginning of an error of `EXEC` that contains the reason.
const DISCARDED: &str = "EXECABORT Transaction discarded because of: ";

/// Returns the fault of an error of Redis or Valkey, by its code.
///
/// The code is the first word of the error, such as `WRONGTYPE`. `error` is the code alone, or the
/// whole error as the server sent it, without the leading `-`. Only the whole error distinguishes
/// `ERR max number of clients reached`, which is an overload, from any other `ERR`, which is the
/// caller's error. [The table](crate::tables#error-codes-of-redis) lists the codes.
///
/// If the server refuses to execute a transaction, the error is
/// `EXECABORT Transaction discarded because of: ` and the reason, such as `OOM …`. The reason
/// decides.
///
/// Returns `None` for a code that the table does not list, such as one of a script or a module.
///
/// A fault describes one command. In a pipeline, the commands before it may have run: change
/// `Refused` to `IfIdempotent` there ([`Fault::with_retryable`]).
///
/// ```
/// use tower_fault_classify::tables::redis_fault;
/// use tower_fault_classify::{Health, Kind, Retryable};
///
/// let loading = redis_fault("LOADING").unwrap();
/// assert_eq!((loading.retryable(), loading.health()), (Retryable::Refused, Health::Unhealthy));
///
/// let syntax = redis_fault("ERR syntax error").unwrap();
/// assert_eq!((syntax.kind(), syntax.health()), (Kind::Client, Health::Healthy));
/// let full = redis_fault("ERR max number of clients reached").unwrap();
/// assert_eq!((full.kind(), full.health()), (Kind::Overloaded, Health::Unhealthy));
/// ```
pub fn redis_fault(error: &str) -> Option<Fault> {
    let reason = error.strip_prefix(DISCARDED);
    reason.and_then(fault_of).or_else(|| fault_of(error))
}

/// Returns the fault of the first row that matches.
fn fault_of(error: &str) -> Option<Fault> {
    let matches = |code: &&str| {
        error.strip_prefix(code).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    };
    ROWS.iter().find(|row| row.codes.iter().any(matches)).map(|row| row.fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Kind, Origin, Retryable};

    /// The expected verdicts, written a second time.
    const EXPECTED: &[(&[&str], Kind, Retryable, Health, Origin)] = &[
        (
            &[
                "ERR",
                "WRONGTYPE",
                "CROSSSLOT",
                "NOSCRIPT",
                "BUSYKEY",
                "BUSYGROUP",
                "NOGROUP",
                "NOTBUSY",
                "UNKILLABLE",
                "NOSUB",
            ],
            Client,
            Never,
            Healthy,
            Caller,
        ),
        (&["NOAUTH", "WRONGPASS", "NOPERM", "DENIED"], Auth, Never, Healthy, Caller),
        (&["EXECABORT"], Client, Never, Neutral, Caller),
        (&["NOPROTO"], Protocol, Never, Neutral, Remote),
        (&["MOVED", "ASK", "REDIRECT", "READONLY"], Unavailable, Refused, Neutral, Remote),
        (&["TRYAGAIN", "UNBLOCKED"], Transient, Refused, Neutral, Remote),
        (
            &["CLUSTERDOWN", "LOADING", "MASTERDOWN", "BUSY", "MISCONF", "NOREPLICAS"],
            Unavailable,
            Refused,
            Unhealthy,
            Remote,
        ),
        (&["OOM", "ERR max number of clients"], Overloaded, Refused, Unhealthy, Remote),
        (&["IOERR"], Transient, IfIdempotent, Neutral, Remote),
    ];

    #[test]
    fn table_rows_match_reference() {
        for &(codes, kind, retryable, health, origin) in EXPECTED {
            let expected = Fault::new(kind, retryable, health, origin);
            for code in codes {
                assert_eq!(redis_fault(code), Some(expected), "{code}");
                assert_eq!(redis_fault(&format!("{code} and a text")), Some(expected), "{code}");
            }
        }
        let listed: Vec<_> = ROWS.iter().flat_map(|row| row.codes).collect();
        let tested: usize = EXPECTED.iter().map(|(codes, ..)| codes.len()).sum();
        assert_eq!(listed.len(), tested, "each code is tested, and is listed once");
    }

    #[test]
    fn redis_max_clients_in_a_cluster_is_overloaded() {
        let fault = redis_fault("ERR max number of clients + cluster connections reached").unwrap();
        assert_eq!((fault.kind(), fault.retryable()), (Overloaded, Refused));
    }

    #[test]
    fn redis_discarded_transaction_has_the_fault_of_its_reason() {
        for reason in ["OOM", "LOADING Redis is loading", "ERR unknown command"] {
            assert_eq!(redis_fault(&format!("{DISCARDED}{reason}")), redis_fault(reason), "{reason}");
        }
        assert_eq!(redis_fault(&format!("{DISCARDED}MYERROR")), redis_fault("EXECABORT"));
    }

    #[test]
    fn redis_code_without_row_has_no_verdict() {
        for error in ["", "MYERROR", "ERRATIC", "MOVED1 2", "moved", "-ERR", "BUSYX"] {
            assert_eq!(redis_fault(error), None, "{error}");
        }
    }
}
