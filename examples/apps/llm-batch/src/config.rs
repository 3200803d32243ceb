//! The configuration of a job.

mod error;
pub(crate) mod range;
mod seconds;

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use self::error::ConfigError;

/// The configuration of a job, read from a file or built from flags.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobConfig {
    /// How the items are processed.
    pub processing: ProcessingConfig,
    /// Which API is called, and how.
    pub llm: LlmConfig,
}

/// How the items are processed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessingConfig {
    /// Whether calls run concurrently. Default: `async`.
    pub mode: Mode,
    /// The largest number of concurrent calls in `async` mode. Default: 10. Range: 1 to 10000.
    pub batch_size: usize,
    /// The number of attempts of a call, the first one included. Default: 3. Range: 1 to 1000.
    pub max_retries: u32,
    /// The delay before the first retry, in seconds, without its jitter. Default: 1.
    /// Range: 0 to 60.
    #[serde(with = "seconds")]
    pub retry_delay: Duration,
    /// The longest time that an item waits for the circuit of its model, in seconds, in all. Then
    /// the item fails. Zero: an item fails when the circuit rejects its call. Default: 3600.
    /// Range: 0 to 31536000.
    #[serde(with = "seconds")]
    pub max_wait: Duration,
    /// The number of results after which the person is asked whether to go on. Default: never.
    pub checkin_interval: Option<usize>,
    /// The number of consecutive fatal errors that stop the job. Zero never stops it. Default: 5.
    pub circuit_breaker_threshold: u32,
    /// How often an item is asked again whose reply does not parse. Default: 2. Range: 0 to 100.
    pub parse_error_retries: u32,
    /// Whether JSON is extracted from the reply. Default: `true`.
    pub post_process: bool,
    /// Whether the fields of the reply's JSON object are merged into the item. Default: `true`.
    pub merge_results: bool,
    /// Whether a result also has the text of the reply. Default: `false`.
    pub include_raw_result: bool,
}

impl Default for ProcessingConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Async,
            batch_size: 10,
            max_retries: 3,
            retry_delay: Duration::from_secs(1),
            max_wait: Duration::from_secs(3600),
            checkin_interval: None,
            circuit_breaker_threshold: 5,
            parse_error_retries: 2,
            post_process: true,
            merge_results: true,
            include_raw_result: false,
        }
    }
}

/// Whether calls run concurrently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Mode {
    /// Up to `batch_size` calls run at once.
    #[default]
    Async,
    /// One call runs at a time.
    Sequential,
}

/// Which API is called, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlmConfig {
    /// The style of the API. Default: `openai`.
    pub api: Api,
    /// The model of items that name no model. Default: `gpt-4o-mini`.
    pub model: String,
    /// The field of an item that names its model. Default: none.
    pub model_field: Option<String>,
    /// The address that the path of the API is appended to. Default: that of the API.
    pub base_url: Option<String>,
    /// The sampling temperature. Default: 0.7. Range: 0 to 2, or 0 to 1 for Anthropic.
    pub temperature: f64,
    /// The largest number of tokens of a reply. Default: 1500. Range: from 1.
    pub max_tokens: u32,
    /// Whether replies are streamed. Default: `false`.
    pub stream: bool,
    /// The longest time of an attempt, in seconds: until its reply is complete, streamed or not.
    /// Default: 120. Range: 0.001 to 86400.
    #[serde(with = "seconds")]
    pub timeout: Duration,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            api: Api::OpenAi,
            model: "gpt-4o-mini".to_owned(),
            model_field: None,
            base_url: None,
            temperature: 0.7,
            max_tokens: 1500,
            stream: false,
            timeout: Duration::from_secs(120),
        }
    }
}

/// The style of an API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Api {
    /// Chat completions, as OpenAI and compatible servers have them.
    #[default]
    OpenAi,
    /// Messages, as Anthropic has them.
    Anthropic,
}

impl JobConfig {
    /// Reads a file in TOML or JSON, by its extension, and validates it.
    ///
    /// # Errors
    ///
    /// The error names the file, and the line or the field.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::read(path, source))?;
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let config: Self = match extension.to_str() {
            Some("toml") => toml::from_str(&text).map_err(|error| ConfigError::toml(path, &text, &error))?,
            Some("json") => serde_json::from_str(&text).map_err(|source| ConfigError::parse(path, source))?,
            _ => return Err(ConfigError::extension(path)),
        };
        config.validate().map_err(|source| ConfigError::parse(path, source))?;
        Ok(config)
    }

    /// Checks the range of each field.
    ///
    /// # Errors
    ///
    /// The error names the field, its value and the allowed range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.processing.validate()?;
        self.llm.validate()
    }
}

impl ProcessingConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        check("batch_size", &self.batch_size, (1..=10_000).contains(&self.batch_size), range::BATCH_SIZE)?;
        check("max_retries", &self.max_retries, (1..=1000).contains(&self.max_retries), range::MAX_RETRIES)?;
        let delay = self.retry_delay;
        check("retry_delay", &delay.as_secs_f64(), delay <= Duration::from_secs(60), "0 to 60")?;
        let wait = self.max_wait;
        check("max_wait", &wait.as_secs_f64(), wait <= Duration::from_secs(31_536_000), "0 to 31536000")?;
        let interval = self.checkin_interval.unwrap_or(1);
        check("checkin_interval", &interval, interval > 0, range::CHECKIN_INTERVAL)?;
        let retries = self.parse_error_retries;
        check("parse_error_retries", &retries, retries <= 100, range::PARSE_ERROR_RETRIES)
    }
}

impl LlmConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        check("model", &self.model, !self.model.is_empty(), "a name")?;
        let (hottest, temperatures) = match self.api {
            Api::OpenAi => (2.0, "0 to 2"),
            Api::Anthropic => (1.0, "0 to 1"),
        };
        check("temperature", &self.temperature, (0.0..=hottest).contains(&self.temperature), temperatures)?;
        check("max_tokens", &self.max_tokens, self.max_tokens > 0, range::MAX_TOKENS)?;
        let timeout = self.timeout;
        let in_range = (Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&timeout);
        check("timeout", &timeout.as_secs_f64(), in_range, "0.001 to 86400")
    }
}

fn check(
    field: &'static str,
    value: &impl Debug,
    in_range: bool,
    range: &'static str,
) -> Result<(), ConfigError> {
    if in_range { Ok(()) } else { Err(ConfigError::Invalid { field, value: format!("{value:?}"), range }) }
}
