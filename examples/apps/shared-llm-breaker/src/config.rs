//! The configuration of a worker: flags, environment variables and a file.

mod error;
pub(crate) mod seconds;

use std::ffi::OsStr;
use std::fmt::{self, Debug};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use serde::Deserialize;

pub use self::error::ConfigError;
use crate::breaker::CircuitBreaker;
use crate::llm::address::without_secrets;
use crate::llm::{ApiKey, InvalidKey, LlmConfig};
use crate::settings::BreakerSettings;

const BASE_URL_HELP: &str = "The address of the API, with /v1 [default: https://api.openai.com/v1]";

const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

/// The address of the store, and the namespace of the breakers.
#[expect(clippy::doc_markdown, reason = "the comments are the texts of --help")]
#[derive(Args, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    /// The store: redis://HOST:PORT/DATABASE, or file:/FOLDER for the workers of one machine
    /// [default: redis://localhost:6379/0]
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true)]
    pub redis: Option<String>,
    /// The namespace of the breakers in the store [default: circuit_breaker]
    #[arg(long, env = "CIRCUIT_BREAKER_NAMESPACE")]
    pub namespace: Option<String>,
}

/// The settings of a worker, from flags and variables, or from a file.
#[expect(clippy::doc_markdown, reason = "the comments are the texts of --help")]
#[derive(Args, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The store.
    #[command(flatten)]
    #[serde(skip)]
    pub store: StoreOptions,
    /// The name of the breaker; workers with the same name share it [default: claude_api]
    #[arg(long, env = "CIRCUIT_BREAKER_NAME")]
    pub name: Option<String>,
    /// The consecutive failures of all workers that open the circuit [default: 5]
    #[arg(long, value_name = "N", env = "CIRCUIT_BREAKER_FAIL_MAX")]
    pub fail_max: Option<u32>,
    /// How long the circuit stays open [default: 30]
    #[arg(long, value_name = "SECONDS", env = "CIRCUIT_BREAKER_RESET_TIMEOUT", value_parser = seconds::parse)]
    #[serde(deserialize_with = "seconds::read")]
    pub reset_timeout: Option<Duration>,
    /// The successful probes that close the circuit [default: 2]
    #[arg(long, value_name = "N", env = "CIRCUIT_BREAKER_SUCCESS_THRESHOLD")]
    pub success_threshold: Option<u32>,
    /// The probes of all workers at the same time [default: 1]
    #[arg(long, value_name = "N", env = "CIRCUIT_BREAKER_PROBES")]
    pub probes: Option<u32>,
    /// How long a probe of a dead worker holds its slot [default: the time of --reset-timeout]
    #[arg(long, value_name = "SECONDS", env = "CIRCUIT_BREAKER_PROBE_LEASE", value_parser = seconds::parse)]
    #[serde(deserialize_with = "seconds::read")]
    pub probe_lease: Option<Duration>,
    /// The name of this worker [default: HOSTNAME-PID; without the variable HOSTNAME a random text
    /// and the PID]
    #[arg(long, env = "CIRCUIT_BREAKER_INSTANCE")]
    pub instance: Option<String>,
    /// The time between two messages to the store [default: 1]
    #[arg(long, value_name = "SECONDS", env = "CIRCUIT_BREAKER_HEARTBEAT", value_parser = seconds::parse)]
    #[serde(deserialize_with = "seconds::read")]
    pub heartbeat: Option<Duration>,
    /// How long an open circuit waits for a silent store [default: 2]
    #[arg(long, value_name = "SECONDS", env = "CIRCUIT_BREAKER_TAKEOVER", value_parser = seconds::parse)]
    #[serde(deserialize_with = "seconds::read")]
    pub takeover: Option<Duration>,
    /// How long the start waits for the store [default: 1]
    #[arg(long, value_name = "SECONDS", env = "CIRCUIT_BREAKER_READY_WITHIN", value_parser = seconds::parse)]
    #[serde(deserialize_with = "seconds::read")]
    pub ready_within: Option<Duration>,
    /// The address of the API, with `/v1`.
    #[arg(long, value_name = "URL", env = "OPENAI_BASE_URL", hide_env_values = true, help = BASE_URL_HELP)]
    pub base_url: Option<String>,
    /// The key of the API; a file cannot set it
    #[arg(long, value_name = "KEY", env = "OPENAI_API_KEY", hide_env_values = true, value_parser = KeyParser)]
    #[serde(skip)]
    pub api_key: Option<ApiKey>,
    /// The model [default: gpt-4o-mini]
    #[arg(long, env = "LLM_MODEL")]
    pub model: Option<String>,
    /// Whether the replies are streamed [default: true]
    #[arg(long, value_name = "BOOL", env = "LLM_STREAM")]
    pub stream: Option<bool>,
    /// The longest time of an attempt, until its reply is complete [default: 120]
    #[arg(long, value_name = "SECONDS", env = "LLM_TIMEOUT", value_parser = seconds::parse)]
    #[serde(deserialize_with = "seconds::read")]
    pub timeout: Option<Duration>,
    /// The attempts of a call; each of them counts in the circuit [default: 3]
    #[arg(long, value_name = "N", env = "LLM_MAX_ATTEMPTS")]
    pub max_attempts: Option<u32>,
    /// The longest delay that the API may ask for before the next attempt [default: 60]
    #[arg(long, value_name = "SECONDS", env = "LLM_MAX_RETRY_AFTER", value_parser = seconds::parse)]
    #[serde(deserialize_with = "seconds::read")]
    pub max_retry_after: Option<Duration>,
    /// The prompt of each call [default: Write a haiku about circuit breakers.]
    #[arg(long, env = "WORKER_PROMPT")]
    pub prompt: Option<String>,
    /// The number of calls; 0: until the worker is interrupted [default: 0]
    #[arg(long, value_name = "N", env = "WORKER_CALLS")]
    pub calls: Option<u64>,
    /// The calls that run at the same time [default: 1]
    #[arg(long, value_name = "N", env = "WORKER_CONCURRENCY")]
    pub concurrency: Option<u32>,
    /// The time between the end of a call and the next one [default: 1]
    #[arg(long, value_name = "SECONDS", env = "WORKER_INTERVAL", value_parser = seconds::parse)]
    #[serde(deserialize_with = "seconds::read")]
    pub interval: Option<Duration>,
}

/// Parses the key. The error of the parser that clap derives would repeat the value.
#[derive(Clone)]
struct KeyParser;

impl TypedValueParser for KeyParser {
    type Value = ApiKey;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<ApiKey, clap::Error> {
        value.to_str().ok_or(InvalidKey).and_then(str::parse).map_err(|error| {
            clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")).with_cmd(command)
        })
    }
}

/// A file: the options of the store and of the worker in one table.
#[derive(Debug, Default)]
struct File {
    store: StoreOptions,
    worker: Options,
}

/// The complete configuration of a worker.
#[derive(Clone, PartialEq)]
pub struct WorkerConfig {
    /// The address of the store.
    pub redis_url: String,
    /// The name of the breaker.
    pub name: String,
    /// The settings of the breaker.
    pub breaker: BreakerSettings,
    /// The settings of the client of the API.
    pub llm: LlmConfig,
    /// The prompt of each call.
    pub prompt: String,
    /// The number of calls. `None`: until the worker is interrupted.
    pub calls: Option<u64>,
    /// The calls that run at the same time.
    pub concurrency: u32,
    /// The time between the end of a call and the next one.
    pub interval: Duration,
}

impl StoreOptions {
    fn or(self, file: Self) -> Self {
        Self { redis: self.redis.or(file.redis), namespace: self.namespace.or(file.namespace) }
    }

    /// Adds the values of a file, whose other fields are checked and not used.
    ///
    /// # Errors
    ///
    /// The error names the file, and the line or the field.
    pub fn with_file(self, path: Option<&Path>) -> Result<Self, ConfigError> {
        Ok(match path {
            Some(path) => self.or(File::read(path)?.store),
            None => self,
        })
    }

    /// Returns the address of the store.
    pub fn redis_url(&self) -> String {
        self.redis.clone().unwrap_or_else(|| CircuitBreaker::DEFAULT_REDIS_URL.to_owned())
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> String {
        self.namespace.clone().unwrap_or_else(|| BreakerSettings::default().namespace)
    }
}

impl Options {
    fn or(self, file: Self) -> Self {
        Self {
            store: self.store,
            name: self.name.or(file.name),
            fail_max: self.fail_max.or(file.fail_max),
            reset_timeout: self.reset_timeout.or(file.reset_timeout),
            success_threshold: self.success_threshold.or(file.success_threshold),
            probes: self.probes.or(file.probes),
            probe_lease: self.probe_lease.or(file.probe_lease),
            instance: self.instance.or(file.instance),
            heartbeat: self.heartbeat.or(file.heartbeat),
            takeover: self.takeover.or(file.takeover),
            ready_within: self.ready_within.or(file.ready_within),
            base_url: self.base_url.or(file.base_url),
            api_key: self.api_key,
            model: self.model.or(file.model),
            stream: self.stream.or(file.stream),
            timeout: self.timeout.or(file.timeout),
            max_attempts: self.max_attempts.or(file.max_attempts),
            max_retry_after: self.max_retry_after.or(file.max_retry_after),
            prompt: self.prompt.or(file.prompt),
            calls: self.calls.or(file.calls),
            concurrency: self.concurrency.or(file.concurrency),
            interval: self.interval.or(file.interval),
        }
    }

    /// Returns the configuration: a flag or a variable, or else the file, or else the default.
    ///
    /// The settings of the breaker are checked when it is created.
    ///
    /// # Errors
    ///
    /// The error names the file, and the line or the field; or the field, its value and the allowed
    /// range.
    pub fn resolve(self, file: Option<&Path>) -> Result<WorkerConfig, ConfigError> {
        let file = file.map(File::read).transpose()?.unwrap_or_default();
        let store = self.store.clone().or(file.store);
        let options = self.or(file.worker);
        let defaults = BreakerSettings::default();
        let breaker = BreakerSettings {
            fail_max: options.fail_max.unwrap_or(defaults.fail_max),
            reset_timeout: options.reset_timeout.unwrap_or(defaults.reset_timeout),
            success_threshold: options.success_threshold.unwrap_or(defaults.success_threshold),
            probes: options.probes.unwrap_or(defaults.probes),
            probe_lease: options.probe_lease,
            instance: options.instance,
            namespace: store.namespace(),
            heartbeat: options.heartbeat.unwrap_or(defaults.heartbeat),
            takeover: options.takeover.unwrap_or(defaults.takeover),
            ready_within: options.ready_within.unwrap_or(defaults.ready_within),
        };
        let llm = LlmConfig {
            base_url: options.base_url.unwrap_or_else(|| "https://api.openai.com/v1".to_owned()),
            key: options.api_key.unwrap_or_default(),
            model: options.model.unwrap_or_else(|| "gpt-4o-mini".to_owned()),
            stream: options.stream.unwrap_or(true),
            timeout: options.timeout.unwrap_or(Duration::from_secs(120)),
            max_attempts: options.max_attempts.unwrap_or(3),
            max_retry_after: options.max_retry_after.unwrap_or(Duration::from_secs(60)),
        };
        let config = WorkerConfig {
            redis_url: store.redis_url(),
            name: options.name.unwrap_or_else(|| CircuitBreaker::DEFAULT_NAME.to_owned()),
            breaker,
            llm,
            prompt: options.prompt.unwrap_or_else(|| "Write a haiku about circuit breakers.".to_owned()),
            calls: options.calls.filter(|calls| *calls > 0),
            concurrency: options.concurrency.unwrap_or(1),
            interval: options.interval.unwrap_or(Duration::from_secs(1)),
        };
        config.check()?;
        Ok(config)
    }
}

// The addresses of the store and of the API can contain passwords.
impl Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Debug for WorkerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConfig")
            .field("redis_url", &without_secrets(&self.redis_url))
            .field("name", &self.name)
            .field("breaker", &self.breaker)
            .field("llm", &self.llm)
            .field("prompt", &self.prompt)
            .field("calls", &self.calls)
            .field("concurrency", &self.concurrency)
            .field("interval", &self.interval)
            .finish()
    }
}

impl WorkerConfig {
    fn check(&self) -> Result<(), ConfigError> {
        check("timeout", self.llm.timeout, TIMES)?;
        check("max_attempts", self.llm.max_attempts, 1..=100)?;
        check("max_retry_after", self.llm.max_retry_after, Duration::ZERO..=*TIMES.end())?;
        check("concurrency", self.concurrency, 1..=1000)?;
        check("interval", self.interval, Duration::ZERO..=*TIMES.end())
    }
}

fn check<T: Copy + PartialOrd + Debug>(
    field: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let range = format!("{:?} to {:?}", range.start(), range.end());
    Err(ConfigError::Invalid { field, value: format!("{value:?}"), range })
}

impl File {
    /// Reads a file in TOML or JSON, by its extension.
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::read(path, source))?;
        let value: serde_json::Value = match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => toml::from_str(&text).map_err(|error| ConfigError::toml(path, &text, &error))?,
            Some("json") => serde_json::from_str(&text).map_err(|source| ConfigError::parse(path, source))?,
            _ => return Err(ConfigError::Extension { path: PathBuf::from(path) }),
        };
        let serde_json::Value::Object(mut worker) = value else {
            return Err(ConfigError::parse(path, "it must be one object"));
        };
        let store = ["redis", "namespace"].iter().filter_map(|field| worker.remove_entry(*field)).collect();
        Ok(Self { store: from_object(path, store)?, worker: from_object(path, worker)? })
    }
}

fn from_object<T: serde::de::DeserializeOwned>(
    path: &Path,
    object: serde_json::Map<String, serde_json::Value>,
) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(serde_json::Value::Object(object))
        .map_err(|error| ConfigError::parse(path, error))
}
