//! The table of HTTP statuses.

use std::time::Duration;

use ::http::StatusCode;

use crate::fault::Health::{Healthy, Neutral, Unhealthy};
use crate::fault::Kind::{
    Auth, Cancelled, Client, Conflict, Overloaded, Protocol, Server, Throttled, Timeout, Transient,
    Unavailable,
};
use crate::fault::Origin::{Caller, Remote};
use crate::fault::Retryable::{IfIdempotent, Never, Refused};
use crate::fault::{Fault, Health, Kind, Origin, Retryable, Verdict};

/// The fault of one status, or of a range of statuses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) fault: Fault,
    /// The source of this row.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the docs contain it, and a test generates them"))]
    pub(crate) source: &'static str,
}

const fn one(
    status: u16,
    kind: Kind,
    retry: Retryable,
    health: Health,
    origin: Origin,
    source: &'static str,
) -> Row {
    range(status, status, kind, retry, health, origin, source)
}

const fn range(
    first: u16,
    last: u16,
    kind: Kind,
    retry: Retryable,
    health: Health,
    origin: Origin,
    source: &'static str,
) -> Row {
    Row { first, last, fault: Fault::new(kind, retry, health, origin), source }
}

/// The rows, ordered by status. A status without a row has the row of its class.
pub(crate) const ROWS: &[Row] = &[
    one(400, Client, Never, Healthy, Caller, "RFC 9110 §15.5.1; AIP-194"),
    one(401, Auth, Never, Healthy, Caller, "RFC 9110 §15.5.2"),
    one(402, Client, Never, Healthy, Caller, "RFC 9110 §15.5.3"),
    one(403, Auth, Never, Healthy, Caller, "RFC 9110 §15.5.4"),
    range(404, 406, Client, Never, Healthy, Caller, "RFC 9110 §15.5.5 to §15.5.7"),
    one(407, Auth, Never, Neutral, Caller, "RFC 9110 §15.5.8: from the proxy, not from the server"),
    one(408, Timeout, IfIdempotent, Neutral, Remote, "RFC 9110 §15.5.9; the SDKs of AWS and OpenAI resend"),
    one(409, Conflict, Never, Healthy, Remote, "RFC 9110 §15.5.10; Envoy's `retriable-4xx` warns of it"),
    range(410, 418, Client, Never, Healthy, Caller, "RFC 9110 §15.5.11 to §15.5.19"),
    one(421, Unavailable, Refused, Neutral, Remote, "RFC 9110 §15.5.20: retry on another connection"),
    one(422, Client, Never, Healthy, Caller, "RFC 9110 §15.5.21"),
    one(423, Conflict, Never, Healthy, Remote, "RFC 4918 §11.3"),
    one(424, Client, Never, Healthy, Caller, "RFC 4918 §11.4"),
    one(425, Transient, Refused, Neutral, Remote, "RFC 8470 §5.2: too early"),
    one(426, Client, Never, Healthy, Caller, "RFC 9110 §15.5.22"),
    one(428, Client, Never, Healthy, Caller, "RFC 6585 §3"),
    one(
        429,
        Throttled,
        Refused,
        Neutral,
        Remote,
        "RFC 6585 §4: refused, not processed; LLM SDKs resend their POST",
    ),
    one(431, Client, Never, Healthy, Caller, "RFC 6585 §5"),
    one(451, Client, Never, Healthy, Caller, "RFC 7725 §3"),
    one(499, Cancelled, Never, Neutral, Caller, "nginx: the client closed the request"),
    one(500, Server, IfIdempotent, Unhealthy, Remote, "AWS SDKs; Envoy's `5xx`"),
    one(
        501,
        Protocol,
        Never,
        Neutral,
        Remote,
        "RFC 9110 §15.6.2: not an outage, another attempt has the same result",
    ),
    one(502, Unavailable, IfIdempotent, Unhealthy, Remote, "RFC 9110 §15.6.3; Envoy's `gateway-error`"),
    one(503, Unavailable, IfIdempotent, Unhealthy, Remote, "RFC 9110 §15.6.4; Envoy's `gateway-error`"),
    one(504, Timeout, IfIdempotent, Unhealthy, Remote, "RFC 9110 §15.6.5; Envoy's `gateway-error`"),
    one(505, Protocol, Never, Neutral, Remote, "RFC 9110 §15.6.6: not an outage"),
    one(506, Server, Never, Unhealthy, Remote, "RFC 2295 §8.1: misconfiguration"),
    one(507, Server, Never, Unhealthy, Remote, "RFC 4918 §11.5"),
    one(508, Server, Never, Unhealthy, Remote, "RFC 5842 §7.2: misconfiguration"),
    one(509, Throttled, Refused, Neutral, Remote, "de facto: bandwidth limit exceeded"),
    range(510, 511, Protocol, Never, Neutral, Remote, "RFC 2774 §7; RFC 6585 §6: not an outage"),
    one(520, Transient, IfIdempotent, Unhealthy, Remote, "Cloudflare: the origin's response is invalid"),
    one(521, Unavailable, IfIdempotent, Unhealthy, Remote, "Cloudflare: the origin refused the connection"),
    one(522, Timeout, IfIdempotent, Unhealthy, Remote, "Cloudflare: also a stall after connecting"),
    one(523, Unavailable, IfIdempotent, Unhealthy, Remote, "Cloudflare: the origin was not reached"),
    one(524, Timeout, IfIdempotent, Unhealthy, Remote, "Cloudflare: connected, no response in time"),
    range(525, 526, Server, Never, Unhealthy, Remote, "Cloudflare: TLS with the origin"),
    one(527, Transient, IfIdempotent, Unhealthy, Remote, "Cloudflare: Railgun, origin unclear"),
    one(529, Overloaded, Refused, Unhealthy, Remote, "Anthropic, Shopify: refused"),
    one(530, Server, Never, Unhealthy, Remote, "Cloudflare: the origin's DNS"),
];

/// Any other 4xx: RFC 9110 §15 treats it like 400.
pub(crate) const OTHER_4XX: Fault = Fault::new(Client, Never, Healthy, Caller);

/// Any other 5xx, and a status outside 100..=599: RFC 9110 §15 treats both like 500.
pub(crate) const OTHER_5XX: Fault = Fault::new(Server, IfIdempotent, Unhealthy, Remote);

/// 413 with `Retry-After` is a temporary condition (RFC 9110 §15.5.14).
pub(crate) const THROTTLED_413: Fault = Fault::new(Throttled, IfIdempotent, Healthy, Remote);

/// Returns whether a proxy reports that it could not reach the server at all.
///
/// The request's body does not cause that status. The other timeouts may be about a body that did
/// not arrive.
pub(crate) fn is_origin_unreachable(status: StatusCode) -> bool {
    status.as_u16() == 522
}

/// The statuses that [`INDEX`] covers.
const FIRST: u16 = 400;
const LAST: u16 = 599;

/// The row of each status from [`FIRST`] to [`LAST`], so that a lookup is one load.
static INDEX: [Fault; (LAST - FIRST + 1) as usize] = {
    let mut index = [OTHER_4XX; (LAST - FIRST + 1) as usize];
    let mut status = 500;
    while status <= LAST {
        index[(status - FIRST) as usize] = OTHER_5XX;
        status += 1;
    }
    let mut row = 0;
    while row < ROWS.len() {
        let mut status = ROWS[row].first;
        while status <= ROWS[row].last {
            index[(status - FIRST) as usize] = ROWS[row].fault;
            status += 1;
        }
        row += 1;
    }
    index
};

/// Returns the verdict on a status.
///
/// The delay that the server asked for is kept if the fault can be retried.
///
/// `retry_after` is called for faults only.
#[inline]
pub(crate) fn classify(status: StatusCode, retry_after: impl FnOnce() -> Option<Duration>) -> Verdict {
    if status.as_u16() < FIRST { Verdict::Success } else { Verdict::Fault(fault(status, retry_after())) }
}

/// Returns the row of a status, without hints. `None`: a success.
pub(crate) fn row(status: StatusCode) -> Option<&'static Fault> {
    let index = status.as_u16().checked_sub(FIRST)?;
    Some(INDEX.get(usize::from(index)).unwrap_or(&OTHER_5XX))
}

fn fault(status: StatusCode, retry_after: Option<Duration>) -> Fault {
    let row = match (status, retry_after) {
        (StatusCode::PAYLOAD_TOO_LARGE, Some(_)) => &THROTTLED_413,
        _ => row(status).unwrap_or(&OTHER_5XX),
    };
    match retry_after {
        Some(delay) if row.retryable() != Never => row.with_retry_after(delay),
        _ => *row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, retry_after: Option<Duration>) -> Verdict {
        classify(StatusCode::from_u16(status).unwrap(), || retry_after)
    }

    /// The expected verdicts, written a second time: statuses, kind, retryable, health.
    const EXPECTED: &[(&[u16], Kind, Retryable, Health)] = &[
        (
            &[
                400, 402, 404, 405, 406, 410, 411, 412, 413, 414, 415, 416, 417, 418, 422, 424, 426, 428,
                431, 451, 419, 420, 427, 430, 440, 498,
            ],
            Client,
            Never,
            Healthy,
        ),
        (&[401, 403], Auth, Never, Healthy),
        (&[407], Auth, Never, Neutral),
        (&[408], Timeout, IfIdempotent, Neutral),
        (&[409, 423], Conflict, Never, Healthy),
        (&[421], Unavailable, Refused, Neutral),
        (&[425], Transient, Refused, Neutral),
        (&[429, 509], Throttled, Refused, Neutral),
        (&[499], Cancelled, Never, Neutral),
        (&[500, 512, 519, 528, 531, 599, 600, 999], Server, IfIdempotent, Unhealthy),
        (&[501, 505, 510, 511], Protocol, Never, Neutral),
        (&[502, 503, 521, 523], Unavailable, IfIdempotent, Unhealthy),
        (&[504, 522, 524], Timeout, IfIdempotent, Unhealthy),
        (&[506, 507, 508, 525, 526, 530], Server, Never, Unhealthy),
        (&[520, 527], Transient, IfIdempotent, Unhealthy),
        (&[529], Overloaded, Refused, Unhealthy),
    ];

    #[test]
    fn table_rows_match_reference() {
        for &(statuses, kind, retryable, health) in EXPECTED {
            for &status in statuses {
                let verdict = verdict(status, None);
                let fault = verdict.fault().unwrap_or_else(|| panic!("{status} is a fault"));
                assert_eq!(
                    (fault.kind(), fault.retryable(), fault.health()),
                    (kind, retryable, health),
                    "{status}"
                );
            }
        }
        for row in ROWS {
            for status in row.first..=row.last {
                assert!(
                    EXPECTED.iter().any(|(statuses, ..)| statuses.contains(&status)),
                    "{status} is untested"
                );
            }
        }
    }

    #[test]
    fn status_below_400_is_a_success() {
        for status in [100, 101, 199, 200, 204, 299, 301, 304, 399] {
            assert_eq!(verdict(status, Some(Duration::from_secs(1))), Verdict::Success, "{status}");
        }
    }

    #[test]
    fn origin_is_unreachable_for_522_only() {
        let unreachable = |&status: &u16| is_origin_unreachable(StatusCode::from_u16(status).unwrap());
        assert_eq!((100..=999).filter(unreachable).collect::<Vec<_>>(), [522]);
    }

    #[test]
    fn status_rows_are_sorted_and_have_a_source() {
        assert!(ROWS.windows(2).all(|pair| pair[0].last < pair[1].first));
        assert!(ROWS.iter().all(|row| row.first <= row.last && !row.source.is_empty()));
    }

    #[test]
    fn status_delay_kept_only_if_retryable() {
        let delay = Duration::from_secs(7);
        for status in 400..=599 {
            let verdict = verdict(status, Some(delay));
            let fault = verdict.fault().unwrap();
            assert_eq!(fault.retry_after(), (fault.retryable() != Never).then_some(delay), "{status}");
        }
    }

    #[test]
    fn status_413_with_delay_is_throttled() {
        let verdict = verdict(413, Some(Duration::from_secs(1)));
        let fault = verdict.fault().unwrap();
        assert_eq!((fault.kind(), fault.retryable(), fault.health()), (Throttled, IfIdempotent, Healthy));
    }
}
