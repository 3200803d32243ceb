//! The client of the LLM API.
//!
//! | module | content |
//! |---|---|
//! | `client` | the stack of layers, and the circuits of the models |
//! | `api` | what differs between the styles of APIs: requests, and the text of replies |
//! | `read` | one attempt: reads a response to its end |
//! | `stream` | the events of a streamed reply |
//! | `outcome` | the error of a call, from that of its last attempt |

mod api;
mod client;
mod key;
mod outcome;
mod read;
mod stream;

use std::future::Future;

use tokio_util::sync::CancellationToken;

pub use self::client::{ClientError, LlmClient, Model, retry_policy};
pub use self::key::{ApiKey, InvalidKey};
use crate::errors::LlmError;

/// A question to a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// The text of the one message of the user.
    pub prompt: String,
    /// The model. `None`: the model of the configuration.
    pub model: Option<String>,
    /// The sampling temperature. `None`: that of the configuration.
    pub temperature: Option<f64>,
    /// The largest number of tokens of the reply. `None`: that of the configuration.
    pub max_tokens: Option<u32>,
}

/// A service that replies to questions.
pub trait Complete {
    /// Returns the text of the reply.
    fn complete(&self, ask: &Ask) -> impl Future<Output = Result<String, LlmError>> + Send;

    /// Returns the text of the reply. `None`: `stopped` was cancelled, and the call was waiting for
    /// its next attempt. An attempt that runs is finished.
    fn complete_unless_stopped(
        &self,
        ask: &Ask,
        stopped: &CancellationToken,
    ) -> impl Future<Output = Option<Result<String, LlmError>>> + Send;

    /// Waits until the circuit of the model admits calls.
    ///
    /// `None`: the model of the configuration.
    fn ready(&self, model: Option<&str>) -> impl Future<Output = ()> + Send;
}
