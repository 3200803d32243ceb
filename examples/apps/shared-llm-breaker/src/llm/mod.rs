//! The client of an API in the style of OpenAI.
//!
//! | module | content |
//! |---|---|
//! | `client` | a call: its attempts, each through the breaker |
//! | `address` | addresses without their secrets |
//! | `read` | one attempt: reads a response to its end |
//! | `stream` | the events of a streamed reply |

pub(crate) mod address;
mod client;
mod error;
mod key;
mod read;
mod stream;

pub use client::{LlmClient, LlmConfig};
pub use error::{ClientError, LlmError};
pub use key::{ApiKey, InvalidKey};
