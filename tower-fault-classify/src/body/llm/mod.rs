//! The errors of LLM APIs: OpenAI, Anthropic, and compatible APIs.

mod code;
mod events;

pub use events::LlmEvents;

use super::peek::{BodyRule, ErrorBody};
use crate::fault::{Retryable, Verdict};
use crate::hint;
use crate::system_time;

/// A body rule that classifies the error bodies of OpenAI, Anthropic and compatible APIs.
///
/// It reads the error code in the JSON:
///
/// - A quota that is used up (429) is not retried.
/// - An overloaded server (529) counts as failing.
/// - A context that is too long does not count against the server.
///
/// The [tables](crate::tables) list the codes. The code is read from `error`, from
/// `response.error`, and from the top level. A number in place of a code is an HTTP status, which
/// is used in event streams only.
///
/// The code takes precedence over `x-should-retry` and the status. A delay that the headers ask for
/// is kept if the fault can be retried.
///
/// The head decides, as without this rule, if the body contains no listed code, is not JSON, or is
/// compressed. A client below the layer can decompress the body first, as reqwest does with its
/// features `gzip`, `brotli`, `zstd` and `deflate`.
///
/// ```
/// use tower_fault_classify::body::{ErrorBodies, LlmErrors};
/// use tower_fault_classify::FaultClassifyLayer;
///
/// let layer = FaultClassifyLayer::new()
///     .read_error_bodies(ErrorBodies::new(LlmErrors))
///     .track_body(|verdict: tower_fault_classify::Verdict| println!("{verdict:?}"))
///     .inspect_llm_events();
/// # type Response = http::Response<http_body_util::Full<bytes::Bytes>>;
/// # let service = tower::ServiceBuilder::new().layer(layer)
/// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(Response::default())));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LlmErrors;

impl BodyRule for LlmErrors {
    fn verdict(&self, body: &ErrorBody<'_>) -> Option<Verdict> {
        let fault = code::read(body.bytes).row()?;
        Some(match hint::delay(body.headers, system_time::now) {
            Some(delay) if fault.retryable() != Retryable::Never => fault.with_retry_after(delay).into(),
            _ => fault.into(),
        })
    }
}
