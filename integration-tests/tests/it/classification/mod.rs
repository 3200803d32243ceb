//! Real clients against servers that misbehave: the verdict is that of the fault table, on every
//! row that loopback can provoke.
//!
//! The tables and the ways to fail that several clients share stand in `http1_rows.rs` and
//! `http2_rows.rs`; each client has a file. Some rows are not here: a rejected certificate, for no
//! client of this workspace is built with TLS; a call that its caller dropped, which leaves nothing
//! to judge; and what a body says, which no layer reads.

mod connectors;
mod http1_rows;
mod http2_rows;
mod hyper_conn;
mod hyper_util_client;
mod hyper_util_sockets;
mod request_bodies;
mod reqwest_client;

#[cfg(target_os = "linux")]
mod connect_errors;
mod reqwest_http2;
mod retry_and_breaker;
mod tonic_channel;
mod tonic_codes;
mod tonic_hints;
mod wrapped_errors;

use std::error::Error;
use std::fmt::Debug;
use std::iter::successors;
use std::time::Duration;

use hyper_util::client::legacy;
use tower::BoxError;
use tower_fault_classify::{ClassifiedError, Fault, Health, Kind, Retryable, classify_error};

/// What a fault is, or is wanted to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axes(Kind, Retryable, Health, Option<Duration>);

impl Axes {
    /// The same with a delay that the server asked for.
    const fn after(self, delay: Duration) -> Self {
        Self(self.0, self.1, self.2, Some(delay))
    }

    const fn of(fault: &Fault) -> Self {
        Self(fault.kind(), fault.retryable(), fault.health(), fault.retry_after())
    }
}

const fn axes(kind: Kind, retry: Retryable, health: Health) -> Axes {
    Axes(kind, retry, health, None)
}

/// Nobody was reached.
const UNREACHED: Axes = axes(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy);
/// Nobody was reached in time.
const CONNECT_TIMEOUT: Axes = axes(Kind::Timeout, Retryable::Unsent, Health::Unhealthy);
const TIMEOUT: Axes = axes(Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy);
/// The connection broke.
const BROKEN: Axes = axes(Kind::Transient, Retryable::IfIdempotent, Health::Unhealthy);
/// The connection broke before anything was written.
const BROKEN_UNSENT: Axes = axes(Kind::Transient, Retryable::Unsent, Health::Unhealthy);
/// The answer made no sense.
const GARBLED: Axes = axes(Kind::Protocol, Retryable::Never, Health::Unhealthy);
/// The server says that it did not look at the stream.
const TURNED_AWAY: Axes = axes(Kind::Unavailable, Retryable::Unsent, Health::Neutral);
/// The request could not be built, or its body could not be read.
const CALLER: Axes = axes(Kind::Client, Retryable::Never, Health::Neutral);
/// A limit on this side.
const SHED: Axes = axes(Kind::Rejected, Retryable::Unsent, Health::Neutral);
const UNKNOWN: Axes = axes(Kind::Unknown, Retryable::IfIdempotent, Health::Unhealthy);

/// Limits waits that have no other end.
const SHORT: Duration = Duration::from_millis(30);

/// A table of rows. When it is dropped it fails with all that are not as they are wanted, not with
/// the first.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    fn row(&mut self, row: &dyn Debug, got: impl Into<Option<Axes>>, want: impl Into<Option<Axes>>) {
        let (got, want) = (got.into(), want.into());
        self.check(got == want, || format!("{row:?}\n  is     {got:?}\n  wanted {want:?}"));
    }

    /// A row whose outcome is an error.
    fn error(&mut self, row: &dyn Debug, error: &(dyn Error + 'static), want: Axes) {
        self.row(&(row, chain(error)), verdict(error), want);
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        assert!(self.0.is_empty() || std::thread::panicking(), "\n{}", self.0.join("\n"));
    }
}

/// The verdict on an error: the layer's, if there was one, which is the same as that on the
/// client's own error.
fn verdict(error: &(dyn Error + 'static)) -> Axes {
    let verdict = Axes::of(&classify_error(error));
    if let Some(judged) = error.downcast_ref::<ClassifiedError>() {
        let own = judged.get_ref().expect("a client's error is the source");
        assert_eq!(
            (Axes::of(judged.fault()), Axes::of(&classify_error(own))),
            (verdict, verdict),
            "{error:?}"
        );
    }
    verdict
}

fn levels<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    levels(error).map(|error| format!("{error:?}")).collect()
}

/// Whether the client knows that nothing was written: hyper says that it cancelled the request, or
/// hyper-util's error is that of a connection which it did not get to use.
fn is_unsent(error: &(dyn Error + 'static)) -> bool {
    levels(error).any(|error| {
        let is_unused = |error: &legacy::Error| error.source().is_some() && error.connect_info().is_none();
        error.downcast_ref().is_some_and(hyper::Error::is_canceled)
            || error.downcast_ref().is_some_and(is_unused)
    })
}

/// A name that no resolver can ask anybody for: a label has at most 63 characters.
fn name_that_does_not_resolve() -> String {
    format!("http://{}.invalid/", "a".repeat(64))
}

/// The error of a call that should have failed.
fn failed<T>(result: Result<T, impl Into<BoxError>>) -> BoxError {
    match result {
        Ok(_) => panic!("the call should fail"),
        Err(error) => error.into(),
    }
}
