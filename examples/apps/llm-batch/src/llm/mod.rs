//! The client of the LLM API.

use std::future::Future;

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

    /// Waits until the circuit of the model admits calls.
    ///
    /// `None`: the model of the configuration.
    fn ready(&self, model: Option<&str>) -> impl Future<Output = ()> + Send;
}
