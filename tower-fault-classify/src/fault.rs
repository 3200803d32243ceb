//! The vocabulary: what a call came to, on axes that are kept apart.

use std::fmt;
use std::time::Duration;

use crate::duration::DisplayDuration;

/// What a call came to.
///
/// A verdict is small and `Copy`, so that it can travel with a response or an error past every layer above the one
/// that judged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Verdict {
    /// The call did what it was asked to do.
    Success,
    /// It did not; the [`Fault`] says in which way.
    Fault(Fault),
}

impl Verdict {
    /// Whether the call did what it was asked to do.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }

    /// The fault, unless the call was a success.
    pub const fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Success => None,
            Self::Fault(fault) => Some(fault),
        }
    }

    /// What the outcome says of the server's health: a success says that it is healthy.
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

/// What went wrong, whether the call may be sent again, what it says of the server's health, and where it arose.
///
/// The axes are independent. A 429 may be sent again although the server is healthy, a 500 says that the server is ill
/// although a POST must not be sent again, a 404 is neither: a single yes or no cannot carry that.
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
    /// Whether `retry_after` is exact; `false` without one.
    exact: bool,
    maybe_redirected: bool,
    retry_after: Option<Duration>,
}

impl Fault {
    /// A fault with every axis given, and no delay asked for.
    pub const fn new(kind: Kind, retryable: Retryable, health: Health, origin: Origin) -> Self {
        Self { kind, retryable, health, origin, exact: false, maybe_redirected: false, retry_after: None }
    }

    /// What went wrong, for people and metrics.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the call may be sent again.
    pub const fn retryable(&self) -> Retryable {
        self.retryable
    }

    /// What the outcome says of the server's health.
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Where the fault arose.
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// The delay that the server, or a layer in its stead, asked for before the call is sent again.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether [`retry_after`](Self::retry_after) replaces the client's own backoff.
    ///
    /// `true` for gRPC's pushback, where a delay of zero means at once. `false` for a minimum, such
    /// as `Retry-After`: the client waits at least that long, and longer if its backoff is longer.
    pub const fn retry_after_is_exact(&self) -> bool {
        self.exact
    }

    /// Whether a redirect may have been followed before this fault arose.
    ///
    /// The fault then describes the last hop. The hops before it may have been processed, so that
    /// `Unsent` and `Refused` say nothing about the request that the caller sent: a retry layer
    /// reads both as `IfIdempotent`. It is `true` for errors of reqwest, whose client follows
    /// redirects and whose errors do not say which hop failed.
    pub const fn maybe_redirected(&self) -> bool {
        self.maybe_redirected
    }

    /// The same fault of another kind.
    #[must_use]
    pub const fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The same fault with another word on retries.
    #[must_use]
    pub const fn with_retryable(mut self, retryable: Retryable) -> Self {
        self.retryable = retryable;
        self
    }

    /// The same fault with another word on the server's health.
    #[must_use]
    pub const fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// The same fault from another place.
    #[must_use]
    pub const fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The same fault, with or without a redirect that may have been followed before.
    #[must_use]
    pub const fn with_maybe_redirected(mut self, maybe_redirected: bool) -> Self {
        self.maybe_redirected = maybe_redirected;
        self
    }

    /// The same fault with a delay that was asked for, as a minimum.
    #[must_use]
    pub const fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.exact = false;
        self
    }

    /// The same fault with a delay that replaces the client's own backoff, as gRPC's pushback does.
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

/// An axis: an enum whose values have names, for people, logs and metric labels.
macro_rules! axis {
    ($(#[$doc:meta])* $axis:ident { $($(#[$value_doc:meta])* $value:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $axis {
            $($(#[$value_doc])* $value,)+
        }

        impl $axis {
            /// The name of the value, in `snake_case`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
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
    /// What went wrong. For people and metrics: no layer of this workspace decides by it.
    Kind {
        /// The request was wrong and would be wrong again.
        Client = "client",
        /// The caller is not known, or not allowed.
        Auth = "auth",
        /// What was paid for or granted is used up; waiting a little does not bring it back.
        Quota = "quota",
        /// The request collided with the state of the resource.
        Conflict = "conflict",
        /// The server asks this caller to slow down.
        Throttled = "throttled",
        /// No answer in time.
        Timeout = "timeout",
        /// The connection broke, or another passing hindrance.
        Transient = "transient",
        /// The server cannot be reached, or says that it is not there.
        Unavailable = "unavailable",
        /// The server sheds everybody's load.
        Overloaded = "overloaded",
        /// The server failed on the request.
        Server = "server",
        /// The two sides do not understand each other.
        Protocol = "protocol",
        /// Somebody stopped waiting.
        Cancelled = "cancelled",
        /// A layer on this side refused to send the request.
        Rejected = "rejected",
        /// This machine or process lacks something.
        Local = "local",
        /// Nothing is known of it.
        Unknown = "unknown",
    }
}

axis! {
    /// Whether the call may be sent again. The axis describes the fate of the request, not its
    /// method.
    Retryable {
        /// The request never reached the server: a refused connection, a rejection by a layer on
        /// this side. Sending it again is safe, whatever it asks for.
        Unsent = "unsent",
        /// The server says that it did not process the request: 429, 421, `RESOURCE_EXHAUSTED` with
        /// pushback. Sending it again is as safe as the server's word.
        Refused = "refused",
        /// The server may have processed the request: send it again only if the request is
        /// idempotent.
        IfIdempotent = "if_idempotent",
        /// Sending the request again does not help, or does harm.
        Never = "never",
    }
}

axis! {
    /// What an outcome says of the server's health.
    Health {
        /// The server answered and is healthy, even if it refused the request.
        Healthy = "healthy",
        /// The server is failing.
        Unhealthy = "unhealthy",
        /// The outcome says nothing about the server. It is not counted and resets no count.
        Neutral = "neutral",
    }
}

axis! {
    /// Where a fault arose.
    Origin {
        /// The request was wrong from the start.
        Caller = "caller",
        /// This process or machine.
        Local = "local",
        /// Between the two sides.
        Transport = "transport",
        /// The server, or a proxy in front of it.
        Remote = "remote",
        /// Not known: the error is of a type that no table has a row for.
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
