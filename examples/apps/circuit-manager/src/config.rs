//! The configuration file, in TOML or JSON.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde_json::{Map, Value};
use tower_fault_classify::BoxError;

use crate::health::HealthSettings;
use crate::settings::CircuitSettings;
use crate::store::WriterSettings;

/// The names that the API needs for its streams, and those that clients remove from a path.
pub const RESERVED: [&str; 4] = ["events", "ws", ".", ".."];

/// The largest number of simulated agents.
pub const MAX_SIMULATED: u16 = 1_000;

const DEFAULT_PING_SECONDS: f64 = 15.0;

/// The content of a configuration file. Every part may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address of the server.
    pub listen: Option<SocketAddr>,
    /// The URL of the database.
    pub database: Option<DatabaseUrl>,
    /// The file that replaces the database.
    pub embedded: Option<PathBuf>,
    /// The file with the tokens of the users.
    pub token_file: Option<PathBuf>,
    /// The file to which the audit is appended.
    pub audit_file: Option<PathBuf>,
    /// The number of simulated agents.
    pub simulate: Option<u16>,
    /// The limits of the health of agents.
    pub health: HealthSettings,
    /// The seconds between two pings of a client that follows the events. **Default**: 15.
    ping_seconds: Option<f64>,
    /// The seconds between two writes of the counts of circuits whose state does not change.
    /// **Default**: 10.
    write_counts_seconds: Option<f64>,
    // They are parsed later, because the circuits of agents inherit the settings of `circuit`.
    circuit: Map<String, Value>,
    agents: BTreeMap<String, AgentSection>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentSection {
    url: Option<String>,
    health_url: Option<String>,
    #[serde(default = "default_interval")]
    interval_seconds: f64,
    #[serde(default = "default_timeout")]
    timeout_seconds: f64,
    #[serde(default)]
    circuit: Map<String, Value>,
}

const fn default_interval() -> f64 {
    5.0
}

const fn default_timeout() -> f64 {
    2.0
}

/// An agent that the server calls.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The URL that is called through the circuit. `None`: other code calls the agent.
    pub url: Option<Url>,
    /// The URL that is probed without the circuit. `None`: the URL of the calls.
    pub health_url: Option<Url>,
    /// The time from one call to the next.
    pub interval: Duration,
    /// The time limit of a call.
    pub timeout: Duration,
    /// The settings of its circuit.
    pub circuit: CircuitSettings,
}

/// The circuits and agents of a configuration.
#[derive(Clone, Debug)]
pub struct Agents {
    /// The settings of the circuits of other agents.
    pub default: CircuitSettings,
    /// The agents by name.
    pub by_name: BTreeMap<String, Agent>,
}

impl Config {
    /// Reads a configuration file. The extension selects the format: `.toml` or `.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, or if its content is not valid.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let parsed = match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => parse_toml(&text),
            Some("json") => parse_json(&text),
            _ => return Err(ConfigError::Format { path: path.to_owned() }),
        };
        parsed.map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }

    /// Returns the circuits and agents. A circuit inherits the settings that its agent leaves out.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is not valid.
    pub fn agents(&self) -> Result<Agents, ConfigError> {
        let default = parse_circuit(self.circuit.clone(), "circuit")?;
        let mut by_name = BTreeMap::new();
        for (name, section) in &self.agents {
            let agent = section.build(name, &self.circuit)?;
            by_name.insert(name.clone(), agent);
        }
        Ok(Agents { default, by_name })
    }

    /// Returns the number of simulated agents; `number` takes precedence over the configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if the number is out of its range, or if an agent of the configuration has
    /// the name of a simulated agent.
    pub fn simulated_agents(&self, number: Option<u16>) -> Result<u16, ConfigError> {
        let number = number.or(self.simulate).unwrap_or(0);
        if number > MAX_SIMULATED {
            let (field, value) = ("simulate".to_owned(), number.to_string());
            return Err(ConfigError::Value { field, value, allowed: "0 to 1000" });
        }
        let mut simulated = (1..=number).map(simulated_name);
        if let Some(value) = simulated.find(|name| self.agents.contains_key(name)) {
            let allowed = "another name; a simulated agent has this one";
            return Err(ConfigError::Value { field: "agents".to_owned(), value, allowed });
        }
        Ok(number)
    }

    /// Returns the time between two pings of a client that follows the events.
    ///
    /// # Errors
    ///
    /// Returns an error if the time is out of its range.
    pub fn ping(&self) -> Result<Duration, ConfigError> {
        seconds("ping_seconds".to_owned(), self.ping_seconds.unwrap_or(DEFAULT_PING_SECONDS))
    }

    /// Returns the times of the writer.
    ///
    /// # Errors
    ///
    /// Returns an error if a time is out of its range.
    pub fn writer(&self) -> Result<WriterSettings, ConfigError> {
        let mut writer = WriterSettings::default();
        if let Some(value) = self.write_counts_seconds {
            writer.counts_interval = seconds("write_counts_seconds".to_owned(), value)?;
        }
        Ok(writer)
    }
}

/// Returns the name of a simulated agent. The first number is 1.
pub(crate) fn simulated_name(number: u16) -> String {
    format!("simulated-{number}")
}

impl AgentSection {
    fn build(&self, name: &str, inherited: &Map<String, Value>) -> Result<Agent, ConfigError> {
        if RESERVED.contains(&name) {
            let allowed = "another name; `events`, `ws`, `.` and `..` are reserved";
            return Err(ConfigError::Value { field: "agents".to_owned(), value: name.to_owned(), allowed });
        }
        let url = |field: &str, text: &Option<String>| {
            let parse = |text: &String| parse_url(format!("agents.{name}.{field}"), text);
            text.as_ref().map(parse).transpose()
        };
        if let (None, Some(value)) = (&self.url, &self.health_url) {
            let (field, allowed) = (format!("agents.{name}.health_url"), "only a URL beside `url`");
            return Err(ConfigError::Value { field, value: value.clone(), allowed });
        }
        let seconds = |field, value| seconds(format!("agents.{name}.{field}"), value);
        let mut circuit = inherited.clone();
        circuit.extend(self.circuit.clone());
        Ok(Agent {
            url: url("url", &self.url)?,
            health_url: url("health_url", &self.health_url)?,
            interval: seconds("interval_seconds", self.interval_seconds)?,
            timeout: seconds("timeout_seconds", self.timeout_seconds)?,
            circuit: parse_circuit(circuit, &format!("agents.{name}.circuit"))?,
        })
    }
}

fn parse_url(field: String, text: &str) -> Result<Url, ConfigError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => Err(ConfigError::Value { field, value: text.to_owned(), allowed: "a URL with http or https" }),
    }
}

fn seconds(field: String, seconds: f64) -> Result<Duration, ConfigError> {
    if (0.01..=86_400.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(ConfigError::Value { field, value: seconds.to_string(), allowed: "0.01 to 86400" })
}

fn parse_circuit(settings: Map<String, Value>, section: &str) -> Result<CircuitSettings, ConfigError> {
    // A JSON value cannot be NaN or infinite: it is null then.
    if let Some((name, _)) = settings.iter().find(|(_, value)| value.is_null()) {
        return Err(ConfigError::Value {
            field: format!("{section}.{name}"),
            value: "null, NaN or infinite".to_owned(),
            allowed: "a finite number",
        });
    }
    let failed = |source: BoxError| ConfigError::Circuit { section: section.to_owned(), source };
    let settings: CircuitSettings =
        serde_path_to_error::deserialize(Value::Object(settings)).map_err(|error| failed(error.into()))?;
    settings.to_config().map_err(|error| failed(error.into()))?;
    Ok(settings)
}

/// Parses TOML. The errors have no line of the file, which may contain a password.
fn parse_toml(text: &str) -> Result<Config, BoxError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.split('\n').count();
        let column = before.chars().rev().take_while(|char| *char != '\n').count() + 1;
        format!("line {line}, column {column}: {}", error.message()).into()
    })
}

/// Parses JSON. The errors have the path of the field, such as `agents.search.url`.
fn parse_json(text: &str) -> Result<Config, BoxError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let config = serde_path_to_error::deserialize(&mut json)?;
    json.end()?;
    Ok(config)
}

/// The URL of a database. Its `Debug` output has no password.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Returns the URL, with its password.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl")
    }
}

/// Why a configuration cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The extension of the file is neither `.toml` nor `.json`.
    Format {
        /// The path of the file.
        path: PathBuf,
    },
    /// The content of the file is not valid.
    Parse {
        /// The path of the file.
        path: PathBuf,
        /// The error of the parser, which has the line and the column.
        source: BoxError,
    },
    /// The settings of a circuit are not valid.
    Circuit {
        /// The section of the file.
        section: String,
        /// The setting, its value, and the allowed range.
        source: BoxError,
    },
    /// A value is not valid.
    Value {
        /// The path of the field.
        field: String,
        /// The value.
        value: String,
        /// The allowed values.
        allowed: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => {
                write!(f, "configuration `{}` cannot be read; check the path", path.display())
            }
            Self::Format { path } => {
                write!(f, "configuration `{}` has no known format; use `.toml` or `.json`", path.display())
            }
            Self::Parse { path, .. } => {
                write!(f, "configuration `{}` is not valid; correct it", path.display())
            }
            Self::Circuit { section, .. } => write!(f, "section `{section}` is not valid; correct it"),
            Self::Value { field, value, allowed } => {
                write!(f, "`{field}` is `{value}`; allowed is {allowed}")
            }
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Parse { source, .. } | Self::Circuit { source, .. } => Some(&**source),
            Self::Format { .. } | Self::Value { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Agents, ConfigError> {
        toml::from_str::<Config>(text).unwrap().agents()
    }

    #[test]
    fn circuit_of_agent_inherits_settings_of_default() {
        let agents = parse(
            "[circuit]\nfailure_threshold = 7\ncooldown_seconds = 30\n\
             [agents.search]\nurl = 'http://127.0.0.1:1/'\ncircuit = { cooldown_seconds = 10 }\n\
             [agents.mail]\n",
        )
        .unwrap();
        assert_eq!(agents.default.failure_threshold, 7);
        let search = &agents.by_name["search"];
        assert_eq!(search.circuit.failure_threshold, 7);
        assert_eq!(search.circuit.to_config().unwrap().open_for(), Duration::from_secs(10));
        assert_eq!(search.interval, Duration::from_secs(5));
        let mail = &agents.by_name["mail"];
        assert_eq!(mail.circuit.to_config().unwrap().open_for(), Duration::from_secs(30));
        assert!(mail.url.is_none());
    }

    #[test]
    fn invalid_values_name_field_value_and_range() {
        for (text, message) in [
            ("[agents.ws]", "`agents` is `ws`; allowed is another name"),
            (
                "[agents.a]\nurl = 'ftp://host/'",
                "`agents.a.url` is `ftp://host/`; allowed is a URL with http",
            ),
            (
                "[agents.a]\nurl = 'http://a/'\nhealth_url = 'nothing'",
                "`agents.a.health_url` is `nothing`; allowed is a URL",
            ),
            (
                "[agents.a]\nhealth_url = 'http://a/'",
                "`agents.a.health_url` is `http://a/`; allowed is only a URL beside `url`",
            ),
            ("[agents.a]\ninterval_seconds = 0", "`agents.a.interval_seconds` is `0`; allowed is 0.01"),
            ("[agents.a]\ntimeout_seconds = nan", "`agents.a.timeout_seconds` is `NaN`; allowed is 0.01"),
            ("[circuit]\nfailure_threshold = -1", "section `circuit` is not valid"),
            ("[agents.a.circuit]\nnone = 1", "section `agents.a.circuit` is not valid"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn unknown_fields_are_errors() {
        for text in ["port = 1", "[agents.a]\nuri = 'http://a/'"] {
            let error = toml::from_str::<Config>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn debug_output_has_no_password() {
        let config: Config = toml::from_str("database = 'postgresql://a:secret@host/'").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
