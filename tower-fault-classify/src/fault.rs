//! Verdicts and faults, with independent axes.

use std::fmt;
use std::time::Duration;

use crate::duration::DisplayDuration;

/// The classification of a call's outcome: a success, or a fault.
///
/// A verdict is small and `Copy`. It travels with a response or an error through every layer above
/// the layer that classified the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Verdict {
    /// The call succeeded.
    Success,
    /// The call failed, as the [`Fault`] describes.
    Fault(Fault),
}

impl Verdict {
    /// Returns whether the call succeeded.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }

    /// Returns the fault, or `None` if the call succeeded.
    pub const fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Success => None,
            Self::Fault(fault) => Some(fault),
        }
    }

    /// Returns what the outcome says about the server's health. A success is [`Health::Healthy`].
    pub const fn health(&self) -> Health {
        match self {
            Self::Success => Health::Healthy,
            Self::Fault(fault) => fault.health,
        }
    }
}

impl From<Fault> for Verdict {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A failed call, described on independent axes.
///
/// | axis | answers | read by |
/// |---|---|---|
/// | [`Kind`] | What went wrong? | logs, metrics, retry budgets |
/// | [`Retryable`] | May the request be sent again? | retry layers |
/// | [`Health`] | Does the outcome count against the server? | circuit breakers |
/// | [`Origin`] | Where did the fault arise? | logs, metrics |
/// | [`retry_after`](Self::retry_after) | How long does the server ask the client to wait? | both |
///
/// A single yes or no cannot say all of this:
///
/// - A 429 may be sent again, and does not count against the server.
/// - A 500 counts against the server, and a POST must not be sent again.
/// - A 404 must not be sent again, and does not count against the server.
///
/// ```
/// use std::time::Duration;
/// use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable};
///
/// let fault = Fault::new(Kind::Throttled, Retryable::Refused, Health::Neutral, Origin::Remote)
///     .with_retry_after(Duration::from_secs(3));
/// assert_eq!(fault.retry_after(), Some(Duration::from_secs(3)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    kind: Kind,
    retryable: Retryable,
    health: Health,
    origin: Origin,
    /// Whether `retry_after` replaces the client's backoff. `false` if there is no `retry_after`.
    exact: bool,
    maybe_redirected: bool,
    retry_after: Option<Duration>,
}

impl Fault {
    /// Creates a fault from its four axes, without a requested delay.
    pub const fn new(kind: Kind, retryable: Retryable, health: Health, origin: Origin) -> Self {
        Self { kind, retryable, health, origin, exact: false, maybe_redirected: false, retry_after: None }
    }

    /// Returns what went wrong.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns whether the request may be sent again.
    pub const fn retryable(&self) -> Retryable {
        self.retryable
    }

    /// Returns what the outcome says about the server's health.
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Returns where the fault arose.
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns the requested delay before the request is sent again.
    ///
    /// The server asked for it, or a layer on this side, such as a circuit breaker that is open.
    /// `None`: no delay was requested.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns whether [`retry_after`](Self::retry_after) replaces the client's own backoff.
    ///
    /// - `true`: the client waits exactly that long, as gRPC's pushback asks. Zero means
    ///   immediately.
    /// - `false`: the delay is a minimum, such as that of `Retry-After`. The client waits longer if
    ///   its own backoff is longer. Also `false` without a delay.
    pub const fn retry_after_is_exact(&self) -> bool {
        self.exact
    }

    /// Returns whether a redirect may have been followed before this fault arose.
    ///
    /// The fault then describes the last hop, and an earlier hop may have processed the request. So
    /// `Unsent` and `Refused` say nothing about the request that the caller sent: a retry layer
    /// reads both as `IfIdempotent`.
    ///
    /// It is `true` for errors of reqwest: its client follows redirects, and its errors do not say
    /// which hop failed.
    pub const fn maybe_redirected(&self) -> bool {
        self.maybe_redirected
    }

    /// Returns the fault with its kind replaced.
    #[must_use]
    pub const fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Returns the fault with its [`Retryable`] replaced.
    #[must_use]
    pub const fn with_retryable(mut self, retryable: Retryable) -> Self {
        self.retryable = retryable;
        self
    }

    /// Returns the fault with its [`Health`] replaced.
    #[must_use]
    pub const fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Returns the fault with its origin replaced.
    #[must_use]
    pub const fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Returns the fault with [`maybe_redirected`](Self::maybe_redirected) replaced.
    ///
    /// **Default**: `false`.
    #[must_use]
    pub const fn with_maybe_redirected(mut self, maybe_redirected: bool) -> Self {
        self.maybe_redirected = maybe_redirected;
        self
    }

    /// Returns the fault with a requested delay, which is a minimum.
    ///
    /// **Default**: no delay.
    #[must_use]
    pub const fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.exact = false;
        self
    }

    /// Returns the fault with a requested delay, which replaces the client's own backoff.
    ///
    /// gRPC's pushback is such a delay.
    ///
    /// **Default**: no delay.
    #[must_use]
    pub const fn with_exact_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.exact = true;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (origin: {})", self.kind, self.origin)?;
        match self.retry_after {
            Some(delay) if !delay.is_zero() => write!(f, ", retry after {}", DisplayDuration(delay)),
            _ => Ok(()),
        }
    }
}

/// Defines an axis: an enum whose values have names for logs and metric labels.
macro_rules! axis {
    ($(#[$doc:meta])* $axis:ident { $($(#[$value_doc:meta])* $value:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $axis {
            $($(#[$value_doc])* $value,)+
        }

        impl $axis {
            /// Returns the name of the value in `snake_case`, as logs and metrics show it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }

            /// Returns the value with this name; `None` if there is none.
            #[doc(hidden)]
            pub fn __from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$value),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $axis {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

axis! {
    /// What went wrong, for logs, metrics and retry budgets.
    ///
    /// [`Retryable`] and [`Health`] decide about retries and circuits. The kind changes details
    /// only:
    ///
    /// - [`Rejected`](Self::Rejected) counts as not sent in retry budgets, and in a retry layer if
    ///   its origin is `local`. A breaker ignores the delay of a rejection.
    /// - [`Timeout`](Self::Timeout) can have its own cost in a retry budget.
    /// - [`Throttled`](Self::Throttled) and [`Overloaded`](Self::Overloaded) count as failures in a
    ///   gRPC retry budget, even if they are never retried.
    /// - [`Cancelled`](Self::Cancelled) by the caller, at the drop of a tracked body, is recorded
    ///   by a breaker as a cancelled call.
    ///
    /// The examples are from the [tables](crate::tables).
    Kind {
        /// The request is invalid, and fails again if it is sent again.
        ///
        /// Used for 400, 404, `INVALID_ARGUMENT`, and a request body that fails.
        Client = "client",
        /// The caller is not authenticated or not authorized.
        ///
        /// Used for 401, 403, 407 and `PERMISSION_DENIED`.
        Auth = "auth",
        /// A quota or credit is used up, and a short wait does not restore it.
        ///
        /// Used for `insufficient_quota` of an LLM API.
        Quota = "quota",
        /// The request conflicts with the state of the resource.
        ///
        /// Used for 409, 423 and `ABORTED`.
        Conflict = "conflict",
        /// The server asks this caller to slow down.
        ///
        /// Used for 429, 509 and `RESOURCE_EXHAUSTED`.
        Throttled = "throttled",
        /// No response came in time.
        ///
        /// Used for 408, 504, `DEADLINE_EXCEEDED`, and a timeout of a layer or a socket.
        Timeout = "timeout",
        /// The connection broke, or another temporary problem ended the call.
        ///
        /// Used for a connection reset, 425 and 520.
        Transient = "transient",
        /// The server cannot be reached, or reports that it is unavailable.
        ///
        /// Used for a refused connection, 421, 502, 503, `UNAVAILABLE` and `REFUSED_STREAM`.
        Unavailable = "unavailable",
        /// The server sheds the load of all callers.
        ///
        /// Used for 529, and for `overloaded_error` of an LLM API.
        Overloaded = "overloaded",
        /// The server failed while it processed the request.
        ///
        /// Used for 500, `INTERNAL`, and gRPC's `UNKNOWN`.
        Server = "server",
        /// The two sides do not understand each other.
        ///
        /// Used for 501, 505, `UNIMPLEMENTED`, malformed data, and too many redirects.
        Protocol = "protocol",
        /// The caller stopped waiting.
        ///
        /// Used for 499, `CANCELLED`, and a response body that is dropped before its end.
        Cancelled = "cancelled",
        /// A layer on this side rejected the call before it was sent.
        ///
        /// Used for an open circuit, and for tower's `load_shed`.
        Rejected = "rejected",
        /// This machine or process lacks a resource.
        ///
        /// Used for a lack of memory, file descriptors or network, and for a `Buffer` whose worker
        /// has ended.
        Local = "local",
        /// The cause is not known.
        ///
        /// Used for an error that no table has a row for, and for a call that panicked.
        Unknown = "unknown",
    }
}

axis! {
    /// Whether the request may be sent again.
    ///
    /// The axis describes what happened to the request, and not its method:
    ///
    /// | value | the request | may be sent again |
    /// |---|---|---|
    /// | `Unsent` | was not sent, or certainly not processed | yes, with any method |
    /// | `Refused` | was not processed, according to the server | yes, as far as the server is right |
    /// | `IfIdempotent` | may have been processed | only if it is idempotent |
    /// | `Never` | any of the above | no |
    Retryable {
        /// The request was not sent, or the protocol guarantees that it was not processed.
        ///
        /// Used for a refused connection, for tower's `load_shed`, and for HTTP/2's
        /// `REFUSED_STREAM`. Sending the request again is safe, whatever it does.
        Unsent = "unsent",
        /// The server reports that it did not process the request.
        ///
        /// Used for 421, 425, 429, 509, 529, and for `RESOURCE_EXHAUSTED` with a pushback or a
        /// `RetryInfo`. Sending the request again is as safe as the server's report is reliable.
        Refused = "refused",
        /// The server may have processed the request: send it again only if it is idempotent.
        ///
        /// Used for 500, 502, 503, and for a timeout or a broken connection after the request may
        /// have been sent.
        IfIdempotent = "if_idempotent",
        /// Sending the request again does not help, or does harm.
        ///
        /// Used for 400, 401, 404, most gRPC codes, a gRPC call whose response has begun, and a
        /// rejection by an open circuit.
        Never = "never",
    }
}

axis! {
    /// What an outcome says about the server's health.
    ///
    /// | value | a circuit breaker counts |
    /// |---|---|
    /// | `Healthy` | a success |
    /// | `Unhealthy` | a failure |
    /// | `Neutral` | nothing |
    Health {
        /// The server responded and is healthy, even if it refused the request: 400, 404, 409.
        Healthy = "healthy",
        /// The server is failing: 500, 503, a timeout, a refused connection.
        Unhealthy = "unhealthy",
        /// The outcome says nothing about the server: 429, 499, a rejection on this side.
        ///
        /// It is not counted, and resets no count.
        Neutral = "neutral",
    }
}

axis! {
    /// Where a fault arose.
    Origin {
        /// The caller, or its request: 400, 404, a request body that fails.
        Caller = "caller",
        /// This process or machine: a rejection by a layer, a lack of memory.
        Local = "local",
        /// The connection between the two sides: a refused or broken connection.
        Transport = "transport",
        /// The server, or a proxy in front of it: 429, 500, `UNAVAILABLE`.
        Remote = "remote",
        /// Not known: no table has a row for the error.
        Unknown = "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_size_is_at_most_24_bytes() {
        assert!(size_of::<Verdict>() <= 24, "{}", size_of::<Verdict>());
    }

    #[test]
    fn fault_setters_change_one_axis_each() {
        let fault = Fault::new(Kind::Server, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);
        let changed = fault
            .with_kind(Kind::Local)
            .with_retryable(Retryable::Never)
            .with_health(Health::Neutral)
            .with_origin(Origin::Local)
            .with_retry_after(Duration::from_millis(1_500));
        assert_eq!(changed.kind(), Kind::Local);
        assert_eq!(changed.retryable(), Retryable::Never);
        assert_eq!(changed.health(), Health::Neutral);
        assert_eq!(changed.origin(), Origin::Local);
        assert_eq!(changed.to_string(), "local (origin: local), retry after 1.5 s");
        assert_eq!(fault.to_string(), "server (origin: remote)");
        assert_eq!(fault.with_retry_after(Duration::ZERO).to_string(), fault.to_string());
    }

    #[test]
    fn retry_after_is_minimum_unless_exact() {
        let fault = Fault::new(Kind::Unavailable, Retryable::Refused, Health::Unhealthy, Origin::Remote);
        assert!(!fault.retry_after_is_exact());
        let exact = fault.with_exact_retry_after(Duration::ZERO);
        assert_eq!((exact.retry_after(), exact.retry_after_is_exact()), (Some(Duration::ZERO), true));
        assert!(!exact.with_retry_after(Duration::ZERO).retry_after_is_exact());
    }

    #[test]
    fn success_is_healthy() {
        assert_eq!(Verdict::Success.health(), Health::Healthy);
        assert!(Verdict::Success.fault().is_none());
    }
}
