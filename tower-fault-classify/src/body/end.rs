//! The end of a response's body, and its classification.

use std::error::Error;
use std::time::Duration;

use http::HeaderMap;

use crate::error_chain::classify_body_error;
use crate::fault::{Retryable, Verdict};
use crate::grpc;
use crate::table;
use crate::upload::excuse_stalled_timeout;

/// A hook that is called with the verdict on a call, at the end of the response's body.
///
/// A closure that takes a [`Verdict`] implements it. The layer calls exactly one of
/// [`on_end`](Self::on_end), [`on_error`](Self::on_error) and [`on_drop`](Self::on_drop), exactly
/// once:
///
/// - within the body's `poll_frame`, or when the body is dropped;
/// - before the response is returned, if the head decides, or if the body is empty and is not one
///   of gRPC.
///
/// So it should be fast, and must not panic.
pub trait OnEnd {
    /// Called with the verdict when the call is complete.
    fn on_end(self, verdict: Verdict);

    /// Called for each frame with at least one byte of data, before the end.
    ///
    /// **Default**: does nothing.
    #[inline]
    fn on_data(&mut self) {}

    /// Called instead of [`on_end`](Self::on_end) when reading the body fails with `error`.
    ///
    /// **Default**: calls [`on_end`](Self::on_end).
    fn on_error(self, verdict: Verdict, error: &(dyn Error + 'static))
    where
        Self: Sized,
    {
        let _ = error;
        self.on_end(verdict);
    }

    /// Called instead of [`on_end`](Self::on_end) when the reader drops the body before its end.
    ///
    /// For a dropped body that counts as complete ([`EndReason::Complete`]),
    /// [`on_end`](Self::on_end) is called.
    ///
    /// The verdict alone cannot distinguish such a drop from a CANCELLED of the server.
    ///
    /// **Default**: calls [`on_end`](Self::on_end).
    fn on_drop(self, verdict: Verdict)
    where
        Self: Sized,
    {
        self.on_end(verdict);
    }
}

impl<F: FnOnce(Verdict)> OnEnd for F {
    fn on_end(self, verdict: Verdict) {
        self(verdict);
    }
}

/// The end of a response's body, to be classified.
///
/// [`Classify::classify_end`](crate::Classify::classify_end) and
/// [`Rule::verdict_on_end`](crate::Rule::verdict_on_end) read it.
///
/// The head of the response was a success.
#[derive(Clone, Copy, Debug)]
pub struct BodyEnd<'a> {
    reason: EndReason<'a>,
    grpc: bool,
}

/// How a response's body ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum EndReason<'a> {
    /// The body was read to its end; it had these trailers, or none.
    ///
    /// A body that was dropped before it was polled is complete too, unless it is one of gRPC.
    Complete(Option<&'a HeaderMap>),
    /// Reading the body failed with this error.
    Failed(&'a (dyn Error + 'static)),
    /// The reader dropped the body before its end.
    Dropped,
    /// Reading the body panicked.
    Panicked,
    /// The body was polled, and was pending for longer than this idle limit. Its reader may still
    /// read it to its end.
    Stalled(Duration),
}

impl<'a> BodyEnd<'a> {
    pub(crate) const fn new(reason: EndReason<'a>, grpc: bool) -> Self {
        Self { reason, grpc }
    }

    /// Returns how the body ended.
    pub const fn reason(&self) -> EndReason<'a> {
        self.reason
    }

    /// Returns whether the response is one of gRPC, which ends in trailers.
    ///
    /// It is `false` for gRPC-Web, whose status is in its body.
    pub const fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// Returns the gRPC code at the end of the body.
    ///
    /// | end | code |
    /// |---|---|
    /// | trailers with one valid `grpc-status` | that code |
    /// | no trailers, or an absent, invalid or contradictory `grpc-status` | UNKNOWN (2) |
    /// | the body was not read to its end, or the response is not gRPC | `None` |
    pub fn grpc_code(&self) -> Option<u32> {
        match self.reason {
            EndReason::Complete(trailers) if self.grpc => {
                Some(trailers.and_then(grpc::code_in).unwrap_or(grpc::UNKNOWN))
            }
            _ => None,
        }
    }
}

/// Classifies the end of a body by the tables.
///
/// The response has begun, so the request is not sent again: gRPC calls such a call "committed"
/// (gRFC A6).
pub(crate) fn classify_end_by_tables(end: &BodyEnd<'_>) -> Verdict {
    match (end.reason, end.grpc_code()) {
        (EndReason::Complete(Some(trailers)), Some(code)) => {
            answered(grpc::classify_trailers(code, trailers))
        }
        (EndReason::Complete(None), Some(code)) => {
            answered(table::grpc::classify(code, table::grpc::RetryHint::None))
        }
        (EndReason::Complete(_), None) => Verdict::Success,
        (EndReason::Failed(error), _) => classify_body_error(error, end.grpc).into(),
        (EndReason::Dropped, _) => table::DROPPED.into(),
        (EndReason::Panicked, _) => table::PANICKED.into(),
        (EndReason::Stalled(_), _) => excuse_stalled_timeout(table::STALLED).into(),
    }
}

fn answered(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Success => Verdict::Success,
        Verdict::Fault(fault) => excuse_stalled_timeout(fault.with_retryable(Retryable::Never)).into(),
    }
}

/// A function pointer to [`Classify::classify_end`](crate::Classify::classify_end).
pub type ClassifyEnd<C> = fn(&C, &BodyEnd<'_>) -> Verdict;
