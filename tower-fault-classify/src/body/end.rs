//! How a body ends, and what that means.

use std::error::Error;

use http::HeaderMap;

use crate::error_chain::classify_body_error;
use crate::fault::{Retryable, Verdict};
use crate::grpc;
use crate::table;
use crate::upload::excuse_stalled_timeout;

/// Learns what a call came to, at the end of its response's body.
///
/// A closure that takes a [`Verdict`] is one. It is called exactly once, from within the body's `poll_frame` or its drop, so that it
/// should be quick and must not panic.
pub trait OnEnd {
    /// The call is over.
    fn on_end(self, verdict: Verdict);

    /// The body has delivered data. Called for each frame with at least one byte of data, before
    /// the end.
    ///
    /// **Default**: does nothing.
    #[inline]
    fn on_data(&mut self) {}

    /// The call is over for its reader has dropped the body before its end: the verdict alone does not tell it from a server's own
    /// CANCELLED. **Default**: as [`on_end`](Self::on_end).
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

/// The end of a response's body, to be judged. The head was a success.
#[derive(Clone, Copy, Debug)]
pub struct BodyEnd<'a> {
    reason: EndReason<'a>,
    grpc: bool,
}

/// How a body ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum EndReason<'a> {
    /// It came to its end, with these trailers, if there were any.
    Complete(Option<&'a HeaderMap>),
    /// Reading it failed.
    Failed(&'a (dyn Error + 'static)),
    /// Its reader dropped it before its end.
    Dropped,
    /// Reading it panicked.
    Panicked,
}

impl<'a> BodyEnd<'a> {
    pub(crate) const fn new(reason: EndReason<'a>, grpc: bool) -> Self {
        Self { reason, grpc }
    }

    /// How the body ended.
    pub const fn reason(&self) -> EndReason<'a> {
        self.reason
    }

    /// Whether the response was gRPC's own, which ends in trailers; not gRPC-Web, whose status is in its body.
    pub const fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// The gRPC code that the end says: that of the trailers; UNKNOWN (2) where there is none, or it is garbled, or it contradicts itself.
    /// `None`: this is no gRPC, or the body did not come to its end.
    pub fn grpc_code(&self) -> Option<u32> {
        match self.reason {
            EndReason::Complete(trailers) if self.grpc => {
                Some(trailers.and_then(grpc::code_in).unwrap_or(grpc::UNKNOWN))
            }
            _ => None,
        }
    }
}

/// Judges the end of a body as the tables say.
///
/// The call has been answered, so that it is not sent again: gRPC's own rule for it is "committed" (gRFC A6).
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
    }
}

fn answered(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Success => Verdict::Success,
        Verdict::Fault(fault) => excuse_stalled_timeout(fault.with_retryable(Retryable::Never)).into(),
    }
}

/// How a classifier of a known call judges the end of its response: [`Classify::classify_end`](crate::Classify::classify_end).
pub type ClassifyEnd<C> = fn(&C, &BodyEnd<'_>) -> Verdict;
