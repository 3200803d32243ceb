//! The errors of LLM APIs: OpenAI's, Anthropic's, and those that speak like them.

mod code;
mod events;

pub use events::LlmEvents;

use super::peek::{BodyRule, ErrorBody};
use crate::fault::{Retryable, Verdict};
use crate::hint;
use crate::system_time;

/// Reads the code in an error body of OpenAI, Anthropic, and those who speak like them: a quota that is used up (429) is not retried, a
/// server that is overloaded (529) counts as failing, a context that is too long does not.
///
/// The code is looked for under `error`, under `response.error`, and at the top; a number in its place is an HTTP status, which counts in
/// event streams alone. It goes before `x-should-retry` and the status. A delay that the headers ask for is kept where a retry may follow. A
/// body without a code that it knows, or that is no JSON, gives no verdict: the head decides. So does one that is compressed, unless the
/// client beneath decompresses it, as reqwest does.
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
