//! What each answer means, as data: one row a case, each with its source.
//!
//! The tables hold facts only. Who walks an error's chain to find the row is [`chain`](crate::chain); who chooses
//! between a carried verdict, a rule and a table is [`classify`](crate::classify).

pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod io;
#[cfg(any(test, feature = "llm"))]
pub(crate) mod llm;

use crate::fault::{Fault, Health, Kind, Origin, Retryable};

/// A layer on this side was full: the request was never sent.
#[cfg(feature = "tower")]
pub(crate) const SHED: Fault = Fault::new(Kind::Rejected, Retryable::Unsent, Health::Neutral, Origin::Local);

/// A stream of HTTP/2 that the server did not take on (RFC 9113 §8.7; gRFC A6 calls it a transparent retry).
#[cfg(feature = "h2")]
pub(crate) const UNSENT_STREAM: Fault =
    Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Neutral, Origin::Remote);

/// Redirects that lead in a circle or too far: another attempt goes the same way.
#[cfg(feature = "reqwest")]
pub(crate) const REDIRECTS: Fault =
    Fault::new(Kind::Protocol, Retryable::Never, Health::Neutral, Origin::Remote);

/// A response whose reader dropped it before its end: the caller wanted no more.
pub(crate) const DROPPED: Fault =
    Fault::new(Kind::Cancelled, Retryable::Never, Health::Neutral, Origin::Caller);

/// A response whose body panicked while it was read: a failure, as a call that panics is.
pub(crate) const PANICKED: Fault =
    Fault::new(Kind::Unknown, Retryable::Never, Health::Failure, Origin::Local);

/// What is said of an error that no row knows.
pub(crate) const UNKNOWN: Fault =
    Fault::new(Kind::Unknown, Retryable::IfIdempotent, Health::Failure, Origin::Transport);

/// What is written around an error that a classifier calls a success: layers above must neither count nor resend it.
pub(crate) const HARMLESS: Fault =
    Fault::new(Kind::Unknown, Retryable::Never, Health::Success, Origin::Local);

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::{Fault, grpc, http, io, llm};

    fn cells(fault: &Fault) -> String {
        format!("`{}` | `{}` | `{}` | `{}`", fault.kind(), fault.retryable(), fault.health(), fault.origin())
    }

    const AXES: &str = "kind | retry | health | origin";

    /// The tables as the docs show them.
    fn page() -> String {
        let mut page = String::from(
            "The built-in tables, row by row.\n\nThis page is made from the tables themselves: a test compares the two, and writes the page anew when it is\nrun with `UPDATE_TABLES=1`.\n",
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
            ("413 with `Retry-After`", http::HINTED_413, "RFC 9110 §15.5.14"),
            ("any other 4xx", http::OTHER_4XX, "RFC 9110 §15: as 400"),
            ("any other", http::OTHER_5XX, "RFC 9110 §15: as 500"),
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
        page.push_str("\nWhile connecting, what is sent again only if idempotent is sent again always: the request never left.\n");
        write!(page, "\n# Error bodies of LLM APIs\n\nWith the feature `llm`, in a body whose status is 400 or more. In an event stream the retry is `never`.\n\n| code or type | {AXES} | source |\n|---|---|---|---|---|---|\n").unwrap();
        for row in llm::ROWS {
            let codes: Vec<_> = row.codes.iter().map(|code| format!("`{code}`")).collect();
            writeln!(page, "| {} | {} | {} |", codes.join(", "), cells(&row.fault), row.source).unwrap();
        }
        page
    }

    #[test]
    fn the_page_in_the_docs_says_what_the_tables_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/TABLES.md");
        if std::env::var_os("UPDATE_TABLES").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written == page(), "TABLES.md is out of date: run this test with UPDATE_TABLES=1");
    }
}
