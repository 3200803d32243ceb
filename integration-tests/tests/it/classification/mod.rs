//! Real clients against servers that misbehave. The verdict is that of the fault table, for every
//! row that can be tested over loopback.
//!
//! `http1_rows.rs` and `http2_rows.rs` have the rows that several clients share. Each client has
//! its own file. Some rows are not tested here:
//!
//! - a call that its caller dropped, which has no outcome to classify;
//! - the content of a body, which no layer reads here.

mod connectors;
mod http1_rows;
mod http2_rows;
mod hyper_conn;
mod hyper_util_client;
mod hyper_util_sockets;
mod proxies;
mod request_bodies;
mod reqwest_client;

#[cfg(target_os = "linux")]
mod connect_errors;
mod reqwest_http2;
mod retry_and_breaker;
mod tls;
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

/// The axes of a fault and its delay, as found or as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axes(Kind, Retryable, Health, Option<Duration>);

impl Axes {
    /// Returns the same axes with a delay that the server asked for.
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

/// The client did not reach the server, so the request was not sent.
const UNAVAILABLE_UNSENT: Axes = axes(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy);
/// No connection was made in time.
const CONNECT_TIMEOUT: Axes = axes(Kind::Timeout, Retryable::Unsent, Health::Unhealthy);
const TIMEOUT: Axes = axes(Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy);
/// The connection broke, and the server may have received the request.
const BROKEN: Axes = axes(Kind::Transient, Retryable::IfIdempotent, Health::Unhealthy);
/// The connection broke before anything was written.
const BROKEN_UNSENT: Axes = axes(Kind::Transient, Retryable::Unsent, Health::Unhealthy);
/// The response was invalid.
const INVALID_RESPONSE: Axes = axes(Kind::Protocol, Retryable::Never, Health::Unhealthy);
/// The server refused the stream without processing it.
const REFUSED_STREAM_ROW: Axes = axes(Kind::Unavailable, Retryable::Unsent, Health::Neutral);
/// A fault of the caller, such as an invalid request or a request body that fails.
const CALLER: Axes = axes(Kind::Client, Retryable::Never, Health::Neutral);
/// A limit of the client rejected the call.
const SHED: Axes = axes(Kind::Rejected, Retryable::Unsent, Health::Neutral);
const UNKNOWN: Axes = axes(Kind::Unknown, Retryable::IfIdempotent, Health::Unhealthy);

/// A real timeout, for waits that nothing else ends.
const SHORT: Duration = Duration::from_millis(30);

/// Collects the rows that are not as expected. Dropping the table fails the test with all of them,
/// not only with the first.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    fn row(&mut self, row: &dyn Debug, got: impl Into<Option<Axes>>, want: impl Into<Option<Axes>>) {
        let (got, want) = (got.into(), want.into());
        self.check(got == want, || format!("{row:?}\n  got      {got:?}\n  expected {want:?}"));
    }

    /// Checks a row whose outcome is an error.
    fn error(&mut self, row: &dyn Debug, error: &(dyn Error + 'static), want: Axes) {
        self.row(&(row, debug_chain(error)), verdict(error), want);
    }

    fn check(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(message());
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        assert!(self.0.is_empty() || std::thread::panicking(), "\n{}", self.0.join("\n"));
    }
}

/// Returns the verdict on an error.
///
/// If a layer has classified the error, its verdict has to equal that on the client's own error.
fn verdict(error: &(dyn Error + 'static)) -> Axes {
    let verdict = Axes::of(&classify_error(error));
    if let Some(classified) = error.downcast_ref::<ClassifiedError>() {
        let own = classified.get_ref().expect("the client's error is the source");
        assert_eq!(
            (Axes::of(&classified.fault()), Axes::of(&classify_error(own))),
            (verdict, verdict),
            "{error:?}"
        );
    }
    verdict
}

/// Returns an error and all its sources.
fn source_chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Returns the error and its sources, debugged.
fn debug_chain(error: &(dyn Error + 'static)) -> Vec<String> {
    source_chain(error).map(|error| format!("{error:?}")).collect()
}

/// Returns whether the client knows that nothing was written: hyper reports a cancelled request, or
/// hyper-util's error belongs to a connection that was not used.
fn is_unsent(error: &(dyn Error + 'static)) -> bool {
    source_chain(error).any(|error| {
        let is_unused = |error: &legacy::Error| error.source().is_some() && error.connect_info().is_none();
        error.downcast_ref().is_some_and(hyper::Error::is_canceled)
            || error.downcast_ref().is_some_and(is_unused)
    })
}

/// Returns a URL whose name cannot be resolved: a label has at most 63 characters.
fn unresolvable_url() -> String {
    format!("http://{}.invalid/", "a".repeat(64))
}

/// Returns the error of a call that has to fail.
fn expect_error<T>(result: Result<T, impl Into<BoxError>>) -> BoxError {
    match result {
        Ok(_) => panic!("the call should fail"),
        Err(error) => error.into(),
    }
}
