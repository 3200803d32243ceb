//! Verdicts from response bodies.
//!
//! A response's head does not always decide:
//!
//! - A gRPC call fails in its trailers.
//! - A stream breaks after a status of 200.
//! - The JSON of a 429 can say that another attempt is useless.
//!
//! Two optional modes of [`FaultClassifyLayer`](crate::FaultClassifyLayer) also classify the body.
//! Both are off by default:
//!
//! | mode | reads | result |
//! |---|---|---|
//! | [`track_body`](crate::FaultClassifyLayer::track_body) | the whole body, while its reader reads it | calls a hook ([`OnEnd`]) exactly once with the verdict on the call: at the end of the body, when the body breaks or stalls, or when it is dropped before its end. Nothing is delayed or buffered |
//! | [`read_error_bodies`](crate::FaultClassifyLayer::read_error_bodies) (feature `error-body`) | the beginning of a body whose status is 400 or more, before the response is returned | passes it to a `BodyRule`, and forwards every byte |
//! | `read_error_bodies` with `first_event_timeout` of `ErrorBodies` | also the beginning of an event stream, up to its first event | a stream that breaks before its first event can be retried |
//!
//! Both work on `http::Response<B>` and on `reqwest::Response`, whose type stays the same.
//!
//! | items | for |
//! |---|---|
//! | [`OnEnd`], [`BodyEnd`], [`EndReason`] | a hook or a rule that reads the end of a body |
//! | `ErrorBodies`, `BodyRule`, `ErrorBody`, `StreamEvent`, `LlmErrors` | rules that read the beginning of an error response's body, or the first event of a stream |
//! | `llm_fault` | error codes of LLM APIs that do not arrive in an HTTP response |
//! | [`DataInspector`], [`NoInspector`], `LlmEvents` | inspecting the data of a tracked body |
//! | [`track_response`], [`TrackedBody`], [`ClassifyEnd`], [`TakeBody`], [`ReplaceBody`] | a layer of your own that tracks bodies |
//! | [`Idle`], [`NoIdleLimit`], `IdleLimit` | the limit on the time that a tracked body may be pending |
//! | [`Head`], [`TrackBody`], [`ObservedHook`], [`Track`], [`Peek`], [`Peeked`], `PeekedBody`, `Reading` | types in the signature of the layer |

pub(crate) mod end;
mod idle;
#[cfg(feature = "llm")]
mod llm;
mod mode;
#[cfg(feature = "error-body")]
mod peek;
mod replace;
#[cfg(feature = "error-body")]
mod sse;
mod tracked;

pub use end::{BodyEnd, ClassifyEnd, EndReason, OnEnd};
#[cfg(feature = "tokio")]
pub use idle::IdleLimit;
pub use idle::{Idle, NoIdleLimit};
#[cfg(feature = "llm")]
pub use llm::{LlmErrors, LlmEvents, llm_fault};
pub use mode::{Head, Peek, Peeked, Track};
#[cfg(feature = "error-body")]
pub use peek::{BodyRule, ErrorBodies, ErrorBody, PeekedBody, Reading};
pub use replace::{ReplaceBody, TakeBody};
#[cfg(feature = "error-body")]
pub use sse::StreamEvent;
pub use tracked::{DataInspector, NoInspector, ObservedHook, TrackBody, TrackedBody, track_response};
