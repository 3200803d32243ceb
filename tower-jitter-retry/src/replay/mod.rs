//! Request bodies that can be sent again.
//!
//! A body in memory is cloned if its clones share the data. Otherwise it is copied, up to a limit.
//! A stream can be read only once: [`ReplayBody`] records the data while the first attempt reads
//! it, up to the same limit.
//!
//! | item | use |
//! |---|---|
//! | [`RetryBody`] | a body that can be sent again; implement it for your own body type |
//! | [`ReplayBody`] | wraps a streaming body so that it can be sent again ([`SavedStream`]) |
//! | [`ReplayError`] | why a `ReplayBody` fails although the body in it does not |
//!
//! With the features `axum`, `reqwest` and `tonic`, the bodies of these crates can be sent again
//! (`SavedBody`).

mod body;
mod buffer;
#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
mod client_body;
mod error;
mod recorded;
mod retry_body;
#[cfg(all(test, not(loom_models)))]
mod tests;

pub use body::{ReplayBody, SavedStream};
#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
pub use client_body::SavedBody;
pub use error::ReplayError;
pub use retry_body::RetryBody;
