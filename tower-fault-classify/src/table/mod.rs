//! The built-in tables: one row for each case, with its source.
//!
//! The tables contain data only. [`error_chain`](crate::error_chain) walks an error's chain to find
//! the row. [`classify`](crate::classify) chooses between a carried verdict, a rule and a table.

#[cfg(any(test, feature = "hyper-util", feature = "tonic"))]
pub(crate) mod connector;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod io;
#[cfg(any(test, feature = "llm"))]
pub(crate) mod llm;
pub(crate) mod redis;
mod row;
pub(crate) mod sqlstate;
pub(crate) mod tls;

use crate::fault::{Fault, Health, Kind, Origin, Retryable};

/// A layer on this side sheds load: the request was not sent.
#[cfg(any(test, feature = "tower"))]
pub(crate) const SHED: Fault = Fault::new(Kind::Rejected, Retryable::Unsent, Health::Neutral, Origin::Local);

/// The worker of a `Buffer` has ended, so every later call through that buffer fails.
#[cfg(any(test, feature = "tower"))]
pub(crate) const WORKER_GONE: Fault =
    Fault::new(Kind::Local, Retryable::Never, Health::Neutral, Origin::Local);

/// The task on this side that drives a connection ended before the response arrived.
///
/// The request may have been sent.
#[cfg(any(test, feature = "hyper"))]
pub(crate) const CONNECTION_TASK_GONE: Fault =
    Fault::new(Kind::Transient, Retryable::IfIdempotent, Health::Neutral, Origin::Local);

/// RFC 9113 §7: the server requires HTTP/1.1, or stronger TLS, for this request.
///
/// Over the same connection it responds the same again.
#[cfg(any(test, feature = "h2"))]
pub(crate) const OTHER_CONNECTION_REQUIRED: Fault =
    Fault::new(Kind::Protocol, Retryable::Never, Health::Neutral, Origin::Remote);

/// An HTTP/2 stream that the server did not process (RFC 9113 §8.7; gRFC A6 calls its retry a
/// transparent retry).
#[cfg(any(test, feature = "h2"))]
pub(crate) const REFUSED_STREAM: Fault =
    Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Neutral, Origin::Remote);

/// A redirect loop, or too many redirects: another attempt has the same result.
#[cfg(feature = "reqwest")]
pub(crate) const REDIRECTS: Fault =
    Fault::new(Kind::Protocol, Retryable::Never, Health::Neutral, Origin::Remote);

/// The reader dropped the response's body before its end.
pub(crate) const DROPPED: Fault =
    Fault::new(Kind::Cancelled, Retryable::Never, Health::Neutral, Origin::Caller);

/// The response's body panicked while it was read: a failure, like a call that panics.
pub(crate) const PANICKED: Fault =
    Fault::new(Kind::Unknown, Retryable::Never, Health::Unhealthy, Origin::Local);

/// The response's body was pending for longer than its idle limit.
pub(crate) const STALLED: Fault =
    Fault::new(Kind::Timeout, Retryable::Never, Health::Unhealthy, Origin::Transport);

/// The request's own body failed: its source failed, or it was shorter than its `content-length`.
pub(crate) const REQUEST_BODY: Fault =
    Fault::new(Kind::Client, Retryable::Never, Health::Neutral, Origin::Caller);

/// A timeout ended the call while the request's body waited for its source.
pub(crate) const UPLOAD_STALLED: Fault =
    Fault::new(Kind::Timeout, Retryable::Never, Health::Neutral, Origin::Caller);

/// The connection was lost while the request's body waited for its source.
///
/// The peer may have timed out the request.
pub(crate) const UPLOAD_DISCONNECTED: Fault =
    Fault::new(Kind::Transient, Retryable::Never, Health::Neutral, Origin::Transport);

/// An event stream that ended without an event.
#[cfg(any(test, feature = "error-body"))]
pub(crate) const NO_EVENT: Fault =
    Fault::new(Kind::Transient, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);

/// An event stream whose first event did not arrive in time.
#[cfg(any(test, feature = "error-body"))]
pub(crate) const FIRST_EVENT_LATE: Fault =
    Fault::new(Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);

/// An error that no row matches.
pub(crate) const UNKNOWN: Fault =
    Fault::new(Kind::Unknown, Retryable::IfIdempotent, Health::Unhealthy, Origin::Unknown);

/// The fault of a `ClassifiedError` around an error that is classified as a success.
///
/// Layers above must neither count it as a failure nor send the request again.
pub(crate) const SUCCESS_ERROR: Fault =
    Fault::new(Kind::Unknown, Retryable::Never, Health::Healthy, Origin::Local);

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::{Fault, connector, grpc, http, io, llm, redis, sqlstate, tls};

    fn cells(fault: &Fault) -> String {
        format!("`{}` | `{}` | `{}` | `{}`", fault.kind(), fault.retryable(), fault.health(), fault.origin())
    }

    const AXES: &str = "kind | retry | health | origin";

    /// Generates the page `TABLES.md` from the tables.
    fn page() -> String {
        let mut page = String::from(
            "The built-in tables that classify responses and errors.\n\nEach row gives the axes of a fault: its `Kind`, its `Retryable`, its `Health` and its `Origin`. A\ndelay that the server asks for is added to the fault, unless the fault is `never` retried. Rules\nchange single rows: see the module `rules`.\n\nA test generates this page from the tables and compares the two. With `UPDATE_TABLES=1` the test\nrewrites the page.\n",
        );
        write!(page, "\n# HTTP\n\n1xx, 2xx and 3xx are successes.\n\n| status | {AXES} | source |\n|---|---|---|---|---|---|\n").unwrap();
        for row in http::ROWS {
            let statuses = if row.first == row.last {
                row.first.to_string()
            } else {
                format!("{} to {}", row.first, row.last)
            };
            writeln!(page, "| {statuses} | {} | {} |", cells(&row.fault), row.source).unwrap();
        }
        for (statuses, fault, source) in [
            ("413 with `Retry-After`", http::THROTTLED_413, "RFC 9110 §15.5.14"),
            ("any other 4xx", http::OTHER_4XX, "RFC 9110 §15: like 400"),
            ("any other", http::OTHER_5XX, "RFC 9110 §15: like 500"),
        ] {
            writeln!(page, "| {statuses} | {} | {source} |", cells(&fault)).unwrap();
        }
        write!(page, "\n# gRPC\n\n0, OK, is a success.\n\n| code | name | {AXES} | source |\n|---|---|---|---|---|---|---|\n").unwrap();
        for (code, row) in (1..).zip(&grpc::ROWS) {
            writeln!(page, "| {code} | `{}` | {} | {} |", row.name, cells(&row.fault), row.source).unwrap();
        }
        write!(page, "\n# I/O errors\n\n| `ErrorKind` | {AXES} |\n|---|---|---|---|---|\n").unwrap();
        for row in io::ROWS {
            writeln!(page, "| `{:?}` | {} |", row.kind, cells(&row.fault)).unwrap();
            if let Some(fault) = row.connecting {
                writeln!(page, "| `{:?}` while connecting | {} |", row.kind, cells(&fault)).unwrap();
            }
        }
        page.push_str("\nWhile a connection is being opened, `if_idempotent` becomes `unsent`, because no part of the\nrequest was sent.\n");
        write!(page, "\n# Errors of connectors\n\nMost connectors keep their error types private. These errors are recognised by the beginning of\ntheir text, inside a failure to connect (features `hyper-util`, `reqwest` and `tonic`).\n\n| text | {AXES} | source |\n|---|---|---|---|---|---|\n").unwrap();
        for row in connector::ROWS {
            writeln!(page, "| `{}` | {} | {} |", row.text, cells(&row.fault), row.source).unwrap();
        }
        write!(page, "\n# Proxies and DNS\n\nFailures of a proxy and of name resolution, as reqwest, hyper-util and tonic report them.\n\nA proxy that answers a request for an `http` URL itself, without a tunnel, sends a response like any\nother: its status decides.\n\n| situation | {AXES} | source |\n|---|---|---|---|---|---|\n").unwrap();
        for row in connector::PROXIES_AND_DNS {
            writeln!(page, "| {} | {} | {} |", row.text, cells(&row.fault), row.source).unwrap();
        }
        write!(page, "\n# Errors of clients and layers\n\nA row that begins with the name of a crate needs that crate's feature. The rows of HTTP/2 need the\nfeature `h2`.\n\n| error | {AXES} |\n|---|---|---|---|---|\n").unwrap();
        for (error, fault) in [
            ("HTTP/2: `REFUSED_STREAM`, a stream above the last one of a `GOAWAY`", super::REFUSED_STREAM),
            ("HTTP/2: `HTTP_1_1_REQUIRED`, `INADEQUATE_SECURITY`", super::OTHER_CONNECTION_REQUIRED),
            ("hyper: the connection's task was dropped or panicked", super::CONNECTION_TASK_GONE),
            ("an event stream ends before its first event (`first_event_timeout`)", super::NO_EVENT),
            (
                "the first event of an event stream does not arrive in time (`first_event_timeout`)",
                super::FIRST_EVENT_LATE,
            ),
            ("tower: `load_shed::error::Overloaded`", super::SHED),
            ("tower: `buffer::error::Closed`", super::WORKER_GONE),
            (
                "hyper: the body of the request fails, or is shorter than its `content-length`",
                super::REQUEST_BODY,
            ),
            (
                "a timeout while the body of the request waits for its source (`upload`)",
                super::UPLOAD_STALLED,
            ),
            (
                "the connection is lost, or the HTTP/2 stream reset, while the body of the request waits for its source (`upload`)",
                super::UPLOAD_DISCONNECTED,
            ),
        ] {
            writeln!(page, "| {error} | {} |", cells(&fault)).unwrap();
        }
        page.push_str("\nAn error of the request's own body decides alone: the errors below it in the chain say nothing about\nthe server.\n\ntower's `buffer::error::ServiceError` has the axes of its cause, but is `never` retried: the worker\nof the `Buffer` has ended, and every later call through that buffer fails.\n");
        write!(page, "\n# TLS\n\nFailures of TLS, as reqwest, hyper-util with hyper-rustls and tonic report them.\n\n| situation | {AXES} | source |\n|---|---|---|---|---|---|\n").unwrap();
        for row in tls::SITUATIONS {
            writeln!(page, "| {} | {} | {} |", row.text, cells(&row.fault), row.source).unwrap();
        }
        write!(page, "\nThe errors of rustls have the `ErrorKind` `InvalidData`. Some of them have a row of their own, and\nso have the errors of OpenSSL, which native-tls uses. They are recognised by the beginning of their\ntext, inside an I/O error or inside a failure to connect. The first row that matches decides.\n\n| text | {AXES} | source |\n|---|---|---|---|---|---|\n").unwrap();
        for row in tls::ROWS {
            writeln!(page, "| `{}` | {} | {} |", row.text, cells(&row.fault), row.source).unwrap();
        }
        write!(page, "\n# Unknown errors\n\nAn error that no row matches counts as a failure of the server, and the request is sent again if it\nis idempotent. This is the convention: resilience4j, Polly and `tower_http::classify` also count\nevery error as a failure. The rule `UnknownErrors` changes this row in any layer:\n`.rule(UnknownErrors::new(…))`.\n\n| error | {AXES} |\n|---|---|---|---|---|\n| any other | {} |\n", cells(&super::UNKNOWN)).unwrap();
        write!(page, "\n# Error bodies of LLM APIs\n\nWith the feature `llm`, `LlmErrors` reads these codes from bodies whose status is 400 or more, and\n`inspect_llm_events` reads them from event streams. In an event stream, each of them is `never`\nretried, unless it is in the first event and the layer waits for that event\n(`first_event_timeout`). `LlmErrors` also changes rows, and adds codes.\n\nIn a response whose status is 400 or more, the header `x-should-retry` takes precedence over the\nretry axis of the row, as in the SDKs of OpenAI and Anthropic: `false` makes it `never`, and `true`\nraises `never` to `if_idempotent`, except for the kind `quota`. The other axes are those of the row.\n\n| code or type | {AXES} | source |\n|---|---|---|---|---|---|\n").unwrap();
        for row in llm::ROWS {
            let codes: Vec<_> = row.codes.iter().map(|code| format!("`{code}`")).collect();
            writeln!(page, "| {} | {} | {} |", codes.join(", "), cells(&row.fault), row.source).unwrap();
        }
        write!(page, "\n# SQLSTATE codes of PostgreSQL\n\n`sqlstate_fault` returns these faults. The row of a code takes precedence over the row of its class,\nwhich is the first two characters. The classes 00, 01 and 02 are not errors. The codes are from\nPostgreSQL's Appendix A, \"PostgreSQL Error Codes\".\n\n| class or code | {AXES} | source |\n|---|---|---|---|---|---|\n").unwrap();
        for row in sqlstate::ROWS {
            writeln!(page, "| {} | {} | {} |", row.codes.join(", "), cells(&row.fault), row.source).unwrap();
        }
        write!(page, "\n# Error codes of Redis\n\n`redis_fault` returns these faults. A code is the first word of the error. The first row that\nmatches decides.\n\n| code | {AXES} | source |\n|---|---|---|---|---|---|\n").unwrap();
        for row in redis::ROWS {
            let codes: Vec<_> = row.codes.iter().map(|code| format!("`{code}`")).collect();
            writeln!(page, "| {} | {} | {} |", codes.join(", "), cells(&row.fault), row.source).unwrap();
        }
        page
    }

    #[test]
    fn tables_page_matches_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/TABLES.md");
        if std::env::var_os("UPDATE_TABLES").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written == page(), "TABLES.md is out of date: run this test with UPDATE_TABLES=1");
    }
}
