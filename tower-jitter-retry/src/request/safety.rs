//! Which faults a request may be sent again after.

use std::fmt;

use tower_fault_classify::Retryable;

/// Whether one request may be sent more than once.
///
/// Set it for a policy with [`RetryPolicyBuilder::safety`](crate::RetryPolicyBuilder::safety). As
/// an extension of an `http::Request` it applies to that request, and takes precedence over the
/// policy:
///
/// ```
/// use tower_jitter_retry::RetrySafety;
///
/// let mut request = http::Request::post("/orders/42/confirm").body(String::new())?;
/// request.extensions_mut().insert(RetrySafety::Always);
/// # Ok::<(), http::Error>(())
/// ```
///
/// | a request | is sent again after |
/// |---|---|
/// | that is idempotent, or `Always` | any fault but [`Retryable::Never`] |
/// | that is not idempotent | the faults that [`NonIdempotent`] allows |
/// | `Never` | no fault |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetrySafety {
    /// The request decides. An HTTP request is idempotent by its method (RFC 9110 §9.2.2: GET,
    /// HEAD, OPTIONS, TRACE, PUT, DELETE) or by an `Idempotency-Key` header that is not blank; `""`
    /// is blank. A gRPC call is idempotent if its method is in
    /// [`idempotent_methods`](crate::RetryPolicyBuilder::idempotent_methods). Any other request
    /// counts as idempotent unless its [`RequestInfo`](crate::RequestInfo) says otherwise, because
    /// it was put behind a retry layer.
    #[default]
    ByRequest,
    /// As `ByRequest`, but an `Idempotency-Key` header has no effect. Use it where remote clients
    /// write the headers and the backend may not know such keys;
    /// [`RetryPolicy::gateway`](crate::RetryPolicy::gateway) does.
    ByMethod,
    /// The request counts as idempotent.
    Always,
    /// The request is sent once, even if the first attempt is known not to have reached the server.
    Never,
}

impl RetrySafety {
    /// Returns the name of the value, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByRequest => "by_request",
            Self::ByMethod => "by_method",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl fmt::Display for RetrySafety {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which faults a request that is not idempotent is sent again after.
///
/// ```
/// use tower_jitter_retry::{NonIdempotent, RetryPolicy};
///
/// // Do not rely on a server's word that it did not process a POST.
/// let policy = RetryPolicy::builder().non_idempotent(NonIdempotent::Unsent).build()?;
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NonIdempotent {
    /// None.
    Never,
    /// Faults that prove that the request was not sent ([`Retryable::Unsent`]): a refused
    /// connection, a load shed below. RFC 9110 §9.2.2 allows a proxy no more than that.
    Unsent,
    /// Also answers by which the server says that it did not process the request
    /// ([`Retryable::Refused`]): 421, 425, 429.
    #[default]
    UnsentOrRefused,
}

impl NonIdempotent {
    /// Returns the name of the value, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Unsent => "unsent",
            Self::UnsentOrRefused => "unsent_or_refused",
        }
    }
}

impl fmt::Display for NonIdempotent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The faults after which one request may be sent again, each level with those of the levels before
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ResendAfter {
    Nothing,
    Unsent,
    Refused,
    /// Any fault but [`Retryable::Never`].
    Any,
}

impl ResendAfter {
    /// The level of a request. `own` is the request's own word, `idempotent` whether sending it
    /// twice has the effect of sending it once, `has_key` whether it carries an idempotency key.
    #[inline]
    pub(crate) fn of(
        own: Option<RetrySafety>,
        policy: RetrySafety,
        level: NonIdempotent,
        idempotent: bool,
        has_key: impl FnOnce() -> bool,
    ) -> Self {
        let idempotent = match own.unwrap_or(policy) {
            RetrySafety::Never => return Self::Nothing,
            RetrySafety::Always => true,
            RetrySafety::ByMethod => idempotent,
            RetrySafety::ByRequest => idempotent || has_key(),
        };
        match level {
            _ if idempotent => Self::Any,
            NonIdempotent::Never => Self::Nothing,
            NonIdempotent::Unsent => Self::Unsent,
            NonIdempotent::UnsentOrRefused => Self::Refused,
        }
    }

    /// Whether a fault is one of them.
    #[inline]
    pub(crate) const fn includes(self, retryable: Retryable) -> bool {
        match retryable {
            Retryable::Unsent => !matches!(self, Self::Nothing),
            Retryable::Refused => matches!(self, Self::Refused | Self::Any),
            Retryable::IfIdempotent => matches!(self, Self::Any),
            _ => false,
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const SAFETIES: [RetrySafety; 4] =
        [RetrySafety::ByRequest, RetrySafety::ByMethod, RetrySafety::Always, RetrySafety::Never];
    const LEVELS: [NonIdempotent; 3] =
        [NonIdempotent::Never, NonIdempotent::Unsent, NonIdempotent::UnsentOrRefused];
    const AXIS: [Retryable; 4] =
        [Retryable::Unsent, Retryable::Refused, Retryable::IfIdempotent, Retryable::Never];

    /// The decisions on unsent, refused, if-idempotent and never, `x` for sent again.
    fn row(
        own: Option<RetrySafety>,
        policy: RetrySafety,
        level: NonIdempotent,
        traits: (bool, bool),
    ) -> String {
        let (idempotent, has_key) = traits;
        let after = ResendAfter::of(own, policy, level, idempotent, || has_key);
        AXIS.map(|retryable| if after.includes(retryable) { 'x' } else { '-' }).iter().collect()
    }

    /// The columns are the levels `Never`, `Unsent` and `UnsentOrRefused`.
    #[test]
    fn resend_after_truth_table() {
        let all = ["xxx-"; 3];
        let none = ["----"; 3];
        let level = ["----", "x---", "xx--"];
        // Safety; (idempotent by itself, has a key); the row.
        let table = [
            (RetrySafety::ByRequest, (true, true), all),
            (RetrySafety::ByRequest, (true, false), all),
            (RetrySafety::ByRequest, (false, true), all),
            (RetrySafety::ByRequest, (false, false), level),
            (RetrySafety::ByMethod, (true, true), all),
            (RetrySafety::ByMethod, (true, false), all),
            (RetrySafety::ByMethod, (false, true), level),
            (RetrySafety::ByMethod, (false, false), level),
            (RetrySafety::Always, (true, true), all),
            (RetrySafety::Always, (true, false), all),
            (RetrySafety::Always, (false, true), all),
            (RetrySafety::Always, (false, false), all),
            (RetrySafety::Never, (true, true), none),
            (RetrySafety::Never, (true, false), none),
            (RetrySafety::Never, (false, true), none),
            (RetrySafety::Never, (false, false), none),
        ];
        for (safety, traits, expected) in table {
            for (level, expected) in LEVELS.into_iter().zip(expected) {
                assert_eq!(row(None, safety, level, traits), expected, "{safety:?} {level:?} {traits:?}");
                for policy in SAFETIES {
                    let own = row(Some(safety), policy, level, traits);
                    assert_eq!(own, expected, "own {safety:?} over {policy:?} {level:?} {traits:?}");
                }
            }
        }
    }
}
