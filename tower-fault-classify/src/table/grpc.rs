//! The table of gRPC status codes.

use std::time::Duration;

use ::http::StatusCode;

use crate::fault::Health::{Healthy, Neutral, Unhealthy};
use crate::fault::Kind::{
    Auth, Cancelled, Client, Conflict, Protocol, Server, Throttled, Timeout, Unavailable,
};
use crate::fault::Origin::{Caller, Remote};
use crate::fault::Retryable::{IfIdempotent, Never, Refused};
use crate::fault::{Fault, Health, Kind, Origin, Retryable, Verdict};

/// The fault of one code. The row's index is its code minus one, because 0 is a success.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "only the docs contain name and source; a test generates them")
)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) fault: Fault,
    /// The source of this row.
    pub(crate) source: &'static str,
}

const fn row(
    name: &'static str,
    kind: Kind,
    retry: Retryable,
    health: Health,
    origin: Origin,
    source: &'static str,
) -> Row {
    Row { name, fault: Fault::new(kind, retry, health, origin), source }
}

/// The rows, by code from 1 to 16 (grpc.io, "Status codes and their use in gRPC").
pub(crate) const ROWS: [Row; 16] = [
    row("CANCELLED", Cancelled, Never, Neutral, Caller, "AIP-194"),
    row("UNKNOWN", Server, Never, Unhealthy, Remote, "AIP-194"),
    row("INVALID_ARGUMENT", Client, Never, Healthy, Caller, "AIP-194"),
    row("DEADLINE_EXCEEDED", Timeout, Never, Unhealthy, Remote, "AIP-194: the caller's deadline has passed"),
    row("NOT_FOUND", Client, Never, Healthy, Caller, "AIP-194"),
    row("ALREADY_EXISTS", Client, Never, Healthy, Caller, "AIP-194"),
    row("PERMISSION_DENIED", Auth, Never, Healthy, Caller, "AIP-194"),
    row(
        "RESOURCE_EXHAUSTED",
        Throttled,
        Never,
        Neutral,
        Remote,
        "gRFC A6: retried only with pushback or `RetryInfo`; linkerd reads it as 429",
    ),
    row("FAILED_PRECONDITION", Client, Never, Healthy, Caller, "AIP-194"),
    row("ABORTED", Conflict, Never, Healthy, Remote, "AIP-194: retry the whole transaction instead"),
    row("OUT_OF_RANGE", Client, Never, Healthy, Caller, "AIP-194"),
    row("UNIMPLEMENTED", Protocol, Never, Neutral, Remote, "AIP-194"),
    row("INTERNAL", Server, Never, Unhealthy, Remote, "AIP-194"),
    row(
        "UNAVAILABLE",
        Unavailable,
        IfIdempotent,
        Unhealthy,
        Remote,
        "AIP-194: the only code that it retries",
    ),
    row("DATA_LOSS", Server, Never, Unhealthy, Remote, "AIP-194"),
    row("UNAUTHENTICATED", Auth, Never, Healthy, Caller, "AIP-194"),
];

const UNKNOWN: u32 = 2;
const RESOURCE_EXHAUSTED: u32 = 8;

/// The server's hint on another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryHint {
    /// There is no hint.
    None,
    /// Wait at least this long (`RetryInfo`).
    AtLeast(Duration),
    /// Wait exactly this long (pushback, gRFC A6).
    Exactly(Duration),
    /// Do not retry: the pushback is negative or invalid (gRFC A6).
    Stop,
}

/// Returns the verdict on a code and a hint. An invalid code is read as UNKNOWN.
pub(crate) fn classify(code: u32, hint: RetryHint) -> Verdict {
    if code == 0 {
        return Verdict::Success;
    }
    let fault = fault(code);
    // A server that asks for a delay with RESOURCE_EXHAUSTED did not process the request.
    let hinted = if code == RESOURCE_EXHAUSTED { fault.with_retryable(Refused) } else { fault };
    Verdict::Fault(match hint {
        RetryHint::None => fault,
        RetryHint::Stop => fault.with_retryable(Never),
        _ if hinted.retryable() == Never => fault,
        RetryHint::AtLeast(delay) => hinted.with_retry_after(delay),
        RetryHint::Exactly(delay) => hinted.with_exact_retry_after(delay),
    })
}

/// Returns the row of a code other than 0. An invalid code has the row of UNKNOWN.
pub(crate) fn fault(code: u32) -> Fault {
    let row = |code: u32| ROWS.get((code as usize).wrapping_sub(1));
    row(code).or_else(|| row(UNKNOWN)).map_or(super::UNKNOWN, |row| row.fault)
}

/// Returns the gRPC code that a client reports for an HTTP status without a `grpc-status`.
///
/// Source: grpc.io, "HTTP to gRPC Status Code Mapping". A status that the mapping does not list is
/// UNKNOWN (2).
///
/// This crate does not classify such a response by that code, but by its HTTP status, because an
/// intermediary sent it.
pub const fn grpc_code_of_status(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected verdicts, written a second time: codes, kind, retryable, health.
    const EXPECTED: &[(&[u32], Kind, Retryable, Health)] = &[
        (&[1], Cancelled, Never, Neutral),
        (&[2, 15], Server, Never, Unhealthy),
        (&[13], Server, Never, Unhealthy),
        (&[3, 5, 6, 9, 11], Client, Never, Healthy),
        (&[7, 16], Auth, Never, Healthy),
        (&[4], Timeout, Never, Unhealthy),
        (&[8], Throttled, Never, Neutral),
        (&[10], Conflict, Never, Healthy),
        (&[12], Protocol, Never, Neutral),
        (&[14], Unavailable, IfIdempotent, Unhealthy),
        (&[17, 99, u32::MAX], Server, Never, Unhealthy),
    ];

    #[test]
    fn table_rows_match_reference() {
        for &(codes, kind, retryable, health) in EXPECTED {
            for &code in codes {
                let verdict = classify(code, RetryHint::None);
                let fault = verdict.fault().unwrap();
                assert_eq!(
                    (fault.kind(), fault.retryable(), fault.health()),
                    (kind, retryable, health),
                    "{code}"
                );
            }
        }
        for code in 1..=16 {
            assert!(EXPECTED.iter().any(|(codes, ..)| codes.contains(&code)), "{code} is untested");
        }
        assert_eq!(classify(0, RetryHint::Stop), Verdict::Success);
        assert!(ROWS.iter().all(|row| !row.source.is_empty() && !row.name.is_empty()));
    }

    #[test]
    fn grpc_row_with_pushback_changes_retryable() {
        let delay = Duration::from_millis(250);
        let classified = |code, hint| {
            let verdict = classify(code, hint);
            let fault = *verdict.fault().unwrap();
            (fault.retryable(), fault.retry_after(), fault.retry_after_is_exact())
        };
        for (hint, exact) in [(RetryHint::AtLeast(delay), false), (RetryHint::Exactly(delay), true)] {
            assert_eq!(classified(8, hint), (Refused, Some(delay), exact));
            assert_eq!(classified(14, hint), (IfIdempotent, Some(delay), exact));
            assert_eq!(classified(3, hint), (Never, None, false));
        }
        assert_eq!(classified(14, RetryHint::Stop), (Never, None, false));
    }

    #[test]
    fn grpc_code_of_status_matches_grpc_mapping() {
        let mapping = [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (502, 14), (503, 14), (504, 14)];
        for (status, code) in
            mapping.into_iter().chain([(200, 2), (204, 2), (302, 2), (418, 2), (500, 2), (599, 2)])
        {
            assert_eq!(grpc_code_of_status(StatusCode::from_u16(status).unwrap()), code, "{status}");
        }
    }
}
