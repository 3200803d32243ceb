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
mod judged;
#[cfg(feature = "llm")]
mod llm;
mod mode;
mod part;
#[cfg(feature = "error-body")]
mod peek;
mod track;
mod watch;

pub(crate) use end::judge_end;
pub use end::{BodyEnd, How, OnEnd};
pub use judged::JudgedBody;
#[cfg(feature = "llm")]
pub use llm::{LlmErrors, LlmEvents};
pub use mode::{Head, JudgeEnd, Peek, Peeked, Track};
pub use part::{PutBody, TakeBody};
#[cfg(feature = "error-body")]
pub use peek::{BodyRule, ErrorBodies, ErrorBody, PeekedBody, Reading};
pub use track::{Told, TrackBody, judge_body};
pub use watch::{Unwatched, Watch};
