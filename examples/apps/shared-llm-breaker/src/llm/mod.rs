//! The client of an API in the style of OpenAI.
//!
//! | module | content |
//! |---|---|
//! | `client` | a call: its attempts, each through the breaker |
//! | `read` | one attempt: reads a response to its end |
//! | `stream` | the events of a streamed reply |

mod client;
mod error;
mod key;
mod read;
mod stream;

pub use client::{LlmClient, LlmConfig};
pub use error::{ClientError, LlmError};
pub use key::{ApiKey, InvalidKey};
