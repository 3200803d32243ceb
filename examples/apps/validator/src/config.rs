//! The configuration file, in TOML or JSON.

use std::error::Error;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use tower_fault_classify::BoxError;

use crate::external::{External, ExternalConfig, InvalidSetting, NotConfigured, ToolValidator};
use crate::orchestrator::{DEFAULT_CONCURRENCY, ValidationOrchestrator};
use crate::resilience::ResilienceSettings;
use crate::timeouts::Timeouts;
use crate::validator::{CommandValidator, Validator, rust_validators};

/// The configuration. Every part may be left out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many validators run at the same time. **Default**: 4.
    pub concurrency: NonZeroUsize,
    /// The time limits, by dimension, in seconds.
    pub timeouts: Timeouts,
    /// When circuits open and close.
    pub resilience: ResilienceSettings,
    /// The addresses of the external services.
    pub external: ExternalConfig,
    /// The validators. If there are none, those of a Rust package run.
    pub validators: Vec<ValidatorConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: DEFAULT_CONCURRENCY,
            timeouts: Timeouts::default(),
            resilience: ResilienceSettings::default(),
            external: ExternalConfig::default(),
            validators: Vec::new(),
        }
    }
}

/// The configuration of a validator: it has either a command or a tool.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidatorConfig {
    /// What the validator checks, such as `lint`.
    pub dimension: String,
    /// The importance of the validator. **Default**: 1, the most important tier.
    #[serde(default = "first_tier")]
    pub tier: u8,
    /// The program and its arguments.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// The exit codes of the command with which the check passes. **Default**: 0.
    #[serde(default)]
    pub success_exit_codes: Option<Vec<i32>>,
    /// The name of a tool of the MCP server.
    #[serde(default)]
    pub tool: Option<String>,
    /// The arguments of the tool. **Default**: none.
    #[serde(default)]
    pub arguments: Option<Map<String, Value>>,
}

const fn first_tier() -> u8 {
    1
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
            Some("toml") => toml::from_str(&text).map_err(BoxError::from),
            Some("json") => from_json(&text),
            _ => return Err(ConfigError::Format { path: path.to_owned() }),
        };
        parsed.map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }

    /// Creates the validators of the project in `dir`, and the orchestrator that runs them.
    ///
    /// Commands run in `dir`. Tools are called through `external`.
    ///
    /// # Errors
    ///
    /// Returns an error if a validator or a setting of the external services is not valid.
    pub fn orchestrator(
        &self,
        dir: &Path,
        external: &External,
    ) -> Result<ValidationOrchestrator, ConfigError> {
        self.external.check().map_err(|problem| ConfigError::External { problem })?;
        let validators = if self.validators.is_empty() {
            rust_validators(dir).into_iter().map(|validator| Box::new(validator) as _).collect()
        } else {
            let numbered = (1..).zip(&self.validators);
            numbered
                .map(|(number, validator)| {
                    validator.build(dir, external).map_err(|problem| ConfigError::Validator {
                        number,
                        dimension: validator.dimension.clone(),
                        problem,
                    })
                })
                .collect::<Result<_, _>>()?
        };
        Ok(ValidationOrchestrator::new(validators, self.timeouts.clone()).concurrency(self.concurrency))
    }
}

/// Parses JSON. The errors have the path of the field, such as `validators[0].tier`.
fn from_json(text: &str) -> Result<Config, BoxError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let config = serde_path_to_error::deserialize(&mut json)?;
    json.end()?;
    Ok(config)
}

impl ValidatorConfig {
    fn build(&self, dir: &Path, external: &External) -> Result<Box<dyn Validator>, ValidatorProblem> {
        if self.dimension.is_empty() {
            return Err(ValidatorProblem::EmptyDimension);
        }
        match (&self.command, &self.tool) {
            (Some(_), Some(_)) => Err(ValidatorProblem::TwoChecks),
            (None, None) => Err(ValidatorProblem::NoCheck),
            (Some(command), None) => Ok(Box::new(self.command(command, dir)?)),
            (None, Some(tool)) => Ok(Box::new(self.tool(tool, external)?)),
        }
    }

    fn command(&self, command: &[String], dir: &Path) -> Result<CommandValidator, ValidatorProblem> {
        if self.arguments.is_some() {
            return Err(ValidatorProblem::Unused { field: "arguments", needs: "tool" });
        }
        let (program, args) = match command {
            [program, args @ ..] if !program.is_empty() => (program, args),
            _ => return Err(ValidatorProblem::EmptyCommand),
        };
        if self.success_exit_codes.as_ref().is_some_and(Vec::is_empty) {
            return Err(ValidatorProblem::EmptyExitCodes);
        }
        let validator = CommandValidator::new(&self.dimension, self.tier, program, args, dir);
        Ok(match &self.success_exit_codes {
            Some(codes) => validator.success_exit_codes(codes.clone()),
            None => validator,
        })
    }

    fn tool(&self, tool: &str, external: &External) -> Result<ToolValidator, ValidatorProblem> {
        if self.success_exit_codes.is_some() {
            return Err(ValidatorProblem::Unused { field: "success_exit_codes", needs: "command" });
        }
        let arguments = self.arguments.clone().unwrap_or_default();
        Ok(ToolValidator::new(&self.dimension, self.tier, tool, arguments, external.clone())?)
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
    /// A setting of the external services is not valid.
    External {
        /// The problem.
        problem: InvalidSetting,
    },
    /// A validator is not valid.
    Validator {
        /// The position of the validator, from 1.
        number: usize,
        /// Its dimension.
        dimension: String,
        /// The problem.
        problem: ValidatorProblem,
    },
}

/// Why a validator of a configuration is not valid.
#[derive(Debug)]
#[non_exhaustive]
pub enum ValidatorProblem {
    /// Its dimension is empty.
    EmptyDimension,
    /// It has neither a command nor a tool.
    NoCheck,
    /// It has a command and a tool.
    TwoChecks,
    /// Its command is an empty list, or its program is empty.
    EmptyCommand,
    /// It lists no exit code with which the check passes.
    EmptyExitCodes,
    /// It has a setting of the other kind of validator.
    Unused {
        /// The setting.
        field: &'static str,
        /// The setting that it belongs to.
        needs: &'static str,
    },
    /// It has a tool, and there is no MCP server.
    NoServer(NotConfigured),
}

impl From<NotConfigured> for ValidatorProblem {
    fn from(error: NotConfigured) -> Self {
        Self::NoServer(error)
    }
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
            Self::External { .. } => f.write_str("the settings of the external services are not valid"),
            Self::Validator { number, dimension, .. } => {
                write!(f, "validator {number} (`{dimension}`) is not valid")
            }
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Format { .. } => None,
            Self::Parse { source, .. } => Some(&**source),
            Self::External { problem } => Some(problem),
            Self::Validator { problem, .. } => Some(problem),
        }
    }
}

impl fmt::Display for ValidatorProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyDimension => f.write_str("its `dimension` is empty; name what it checks"),
            Self::NoCheck => f.write_str("it has no check; set `command` or `tool`"),
            Self::TwoChecks => f.write_str("it has two checks; remove `command` or `tool`"),
            Self::EmptyCommand => f.write_str("its `command` is empty; name a program"),
            Self::EmptyExitCodes => f.write_str("its `success_exit_codes` are empty; list a code"),
            Self::Unused { field, needs } => write!(f, "it has `{field}` without `{needs}`; remove it"),
            Self::NoServer(error) => error.fmt(f),
        }
    }
}

impl Error for ValidatorProblem {}
