//! The errors of LLM APIs: OpenAI, Anthropic, and compatible APIs.

mod code;
mod events;

use std::sync::Arc;

pub use events::LlmEvents;

use super::peek::{BodyRule, ErrorBody};
use super::sse::StreamEvent;
use crate::fault::{Fault, Verdict};
use crate::outcome::apply_should_retry;
use crate::table;
use crate::{hint, system_time};

/// Returns the built-in row of an LLM API's error code, or `None` if the table has no row for it.
///
/// Use it for codes that do not arrive in an HTTP response: in a message of a websocket, in the
/// result file of a batch, or in the error type of an SDK. A code is an `error.code` or an
/// `error.type` of OpenAI or Anthropic. The [tables](crate::tables) list the codes. Upper and lower
/// case are distinguished.
///
/// For a table with changed rows, use [`LlmErrors::fault`].
///
/// ```
/// use tower_fault_classify::body::llm_fault;
/// use tower_fault_classify::{Kind, Retryable};
///
/// let fault = llm_fault("rate_limit_exceeded").expect("the table has a row for it");
/// assert_eq!((fault.kind(), fault.retryable()), (Kind::Throttled, Retryable::Refused));
/// assert!(llm_fault("model_not_found").is_none());
/// ```
pub fn llm_fault(code: &str) -> Option<Fault> {
    table::llm::fault(code)
}

/// The errors of OpenAI, Anthropic and compatible APIs: a table of error codes.
///
/// | passed to | classifies |
/// |---|---|
/// | [`ErrorBodies::new`](crate::body::ErrorBodies::new) | error bodies, as a [`BodyRule`] |
/// | `inspect_llm_events` of a layer | errors within event streams |
/// | nothing: call [`fault`](Self::fault) | codes that do not arrive in an HTTP response |
///
/// [`code`](Self::code) changes single rows, and adds codes that the table lacks.
///
/// **Default**: the built-in rows, which the [tables](crate::tables) list.
///
/// ```
/// use tower_fault_classify::body::{ErrorBodies, LlmErrors};
/// use tower_fault_classify::{FaultClassifyLayer, Kind, Retryable, Verdict};
///
/// let errors = LlmErrors::new()
///     // Each request to this API may be sent twice.
///     .code("server_error", LlmErrors::row("server_error").with_retryable(Retryable::Refused))
///     // A code that the table lacks.
///     .code("model_loading", LlmErrors::row("server_is_overloaded").with_kind(Kind::Unavailable));
/// let layer = FaultClassifyLayer::new()
///     .read_error_bodies(ErrorBodies::new(errors.clone()))
///     .track_body(|verdict: Verdict| println!("{verdict:?}"))
///     .inspect_llm_events(errors);
/// # type Response = http::Response<http_body_util::Full<bytes::Bytes>>;
/// # let service = tower::ServiceBuilder::new().layer(layer)
/// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(Response::default())));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
///
/// # Event streams
///
/// [`LlmEvents`] says which events are errors. The fault of an error is never retried, because the
/// response has begun. If the layer waits for the first event
/// ([`first_event_timeout`](crate::body::ErrorBodies::first_event_timeout)), an error in that event
/// keeps the [`Retryable`](crate::Retryable) of its row.
///
/// # Error bodies
///
/// The rule reads the error code in the JSON:
///
/// - A quota that is used up (429) is not retried.
/// - An overloaded server (529) counts as failing.
/// - A context that is too long does not count against the server.
///
/// The code is read from `error`, from `response.error`, and from the top level. A number in place
/// of a code is an HTTP status, which is used in event streams only.
///
/// The code takes precedence over the status. On whether the request is sent again, the header
/// `x-should-retry` takes precedence over the code, as in the SDKs of OpenAI and Anthropic:
///
/// | `x-should-retry` | [`Retryable`](crate::Retryable) |
/// |---|---|
/// | `false` | [`Never`](crate::Retryable::Never) |
/// | `true` | [`IfIdempotent`](crate::Retryable::IfIdempotent) for a row that is `Never`, unless its kind is [`Quota`](crate::Kind::Quota); other rows keep theirs |
/// | absent, or malformed | that of the row |
///
/// The kind and the health are always those of the row. A quota that is used up is not available
/// again before the next attempt, so `true` has no effect on it.
///
/// A delay that the headers ask for is added if the fault can be retried and its row has no delay.
///
/// The head decides, as without this rule, if the body contains no listed code, is not JSON, or is
/// compressed. A client below the layer can decompress the body first, as reqwest does with its
/// features `gzip`, `brotli`, `zstd` and `deflate`.
#[derive(Clone, Debug, Default)]
pub struct LlmErrors {
    /// `None`: the built-in rows only. Clones share the rows, because a rule is cloned for every
    /// call.
    changed: Option<Arc<[ChangedRow]>>,
}

type ChangedRow = (Box<str>, Fault);

impl LlmErrors {
    /// Creates the built-in table.
    pub const fn new() -> Self {
        Self { changed: None }
    }

    /// Sets the fault of a code, and replaces an earlier row for it.
    ///
    /// `code` is an `error.code` or an `error.type` of the API, compared exactly. If an error has
    /// both, the row of its `error.code` takes precedence.
    ///
    /// **Default**: the built-in row, or none.
    #[must_use]
    pub fn code(self, code: impl Into<Box<str>>, fault: Fault) -> Self {
        let code = code.into();
        let others = self.changed.iter().flat_map(|rows| rows.iter());
        let others = others.filter(|(other, _)| *other != code).cloned().collect::<Vec<_>>();
        Self { changed: Some(others.into_iter().chain([(code, fault)]).collect()) }
    }

    /// Returns the built-in row of a code, as the base of a row of your own.
    ///
    /// The row keeps the built-in kind, origin, health and retryable until a setter changes them.
    ///
    /// A code without a row has the row of `server_error`. [`llm_fault`] returns `None` for it.
    pub fn row(code: &str) -> Fault {
        table::llm::fault(code).unwrap_or(table::llm::SERVER_ERROR)
    }

    /// Returns the fault of a code: the row that [`code`](Self::code) set, or else the built-in
    /// row. `None`: there is no row for the code.
    ///
    /// Use it for codes that do not arrive in an HTTP response, as [`llm_fault`].
    pub fn fault(&self, code: &str) -> Option<Fault> {
        let changed = self.changed.as_ref().and_then(|rows| rows.iter().find(|(other, _)| **other == *code));
        changed.map(|(_, fault)| *fault).or_else(|| table::llm::fault(code))
    }
}

impl BodyRule for LlmErrors {
    fn verdict(&self, body: &ErrorBody<'_>) -> Option<Verdict> {
        let row = code::read(body.bytes, self).row()?;
        let delay = hint::delay(body.headers, system_time::now);
        Some(apply_should_retry(row, body.headers, delay).into())
    }

    fn first_event(&self, event: &StreamEvent<'_>) -> Option<Verdict> {
        events::error_in(event, &events::error_key(), self).map(Verdict::from)
    }
}
