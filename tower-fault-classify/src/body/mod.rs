//! What only the body knows.
//!
//! A response's head is not always the last word. A gRPC call fails in its trailers, a stream breaks after its head said 200, and whether
//! a 429 may be sent again can stand in its JSON. Two modes of [`FaultClassifyLayer`](crate::FaultClassifyLayer) look further, each on
//! demand, for each has a price:
//!
//! - [`track_body`](crate::FaultClassifyLayer::track_body) puts a [`JudgedBody`] around the body, which tells a hook, exactly once, what
//!   the call came to: at the end of the body, when it breaks, or when it is dropped before. Nothing is held up, nothing is buffered.
//! - [`read_error_bodies`](crate::FaultClassifyLayer::read_error_bodies) (feature `error-body`) reads the beginning of a body whose status
//!   is 400 or more, shows it to a [`BodyRule`](crate::BodyRule), and hands on every byte.
//!
//! Both work on `http::Response<B>` and on `reqwest::Response`, whose type stays the same.

mod end;
#[cfg(feature = "llm")]
mod llm;
mod mode;
#[cfg(feature = "error-body")]
mod peek;
mod replace;
mod tracked;

pub(crate) use end::judge_end;
pub use end::{BodyEnd, How, JudgeEnd, OnEnd};
#[cfg(feature = "llm")]
pub use llm::{LlmErrors, LlmEvents};
pub use mode::{Head, Peek, Peeked, Track};
#[cfg(feature = "error-body")]
pub use peek::{BodyRule, ErrorBodies, ErrorBody, PeekedBody, Reading};
pub use replace::{PutBody, TakeBody};
pub use tracked::{JudgedBody, Told, TrackBody, Unwatched, Watch, judge_body};
