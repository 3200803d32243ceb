//! The command line.

use std::error::Error;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use circuit_manager::config::{Agents, Config, ConfigError, DatabaseUrl, MAX_SIMULATED};
use circuit_manager::health::HealthSettings;
use circuit_manager::store::WriterSettings;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// The address without another one in the configuration.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Manages the circuits of agents: persistence, health, an HTTP API and a live page
///
/// Exit codes: 0 if the server was stopped by a signal, 1 if it cannot start or fails, 2 if the
/// command line, the configuration or the token file is invalid, 130 if a second signal ended it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the API, its documentation at /docs, and the administration page at /admin
    Serve(ServeArgs),
    /// Show an outage, an operator, a killed server and its restart in 7 seconds
    Demo(DemoArgs),
    /// Print the OpenAPI document
    Openapi,
}

/// Each setting is taken from the command line, else from the environment, else from the
/// configuration file.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The configuration: a file that ends in .toml or .json
    #[arg(long, value_name = "FILE", env = "CIRCUIT_MANAGER_CONFIG")]
    config: Option<PathBuf>,
    /// The address of the server [default: 127.0.0.1:8080]. Port 0: the system picks one
    #[arg(long, value_name = "ADDRESS", env = "CIRCUIT_MANAGER_LISTEN")]
    listen: Option<SocketAddr>,
    /// The database that keeps the circuits, such as `postgres://user:password@host/db`. Prefer the
    /// variable: other users of the machine can see a flag
    #[arg(long, value_name = "URL", env = "CIRCUIT_MANAGER_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// The file that keeps the circuits, instead of a database
    #[arg(long, value_name = "FILE", env = "CIRCUIT_MANAGER_EMBEDDED")]
    embedded: Option<PathBuf>,
    /// The file with the users: a line `reader NAME TOKEN` or `operator NAME TOKEN` for each. A
    /// token has 16 to 512 bytes
    #[arg(long, value_name = "FILE", env = "CIRCUIT_MANAGER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The file to which each attempt of a user to change a circuit is appended, as a line of JSON
    #[arg(long, value_name = "FILE", env = "CIRCUIT_MANAGER_AUDIT_FILE")]
    audit_file: Option<PathBuf>,
    /// Call simulated agents with outages: simulated-1 and so on, at most 1000
    #[arg(long, value_name = "N", env = "CIRCUIT_MANAGER_SIMULATE", value_parser = clap::value_parser!(u16).range(..=i64::from(MAX_SIMULATED)))]
    simulate: Option<u16>,
    /// Print the address and the logs as lines of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Print each step and each event as a line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the circuits are kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StoreSetting {
    Database(DatabaseUrl),
    Embedded(PathBuf),
}

/// The settings of a server.
#[derive(Clone, Debug)]
pub(crate) struct ServeSettings {
    pub(crate) listen: SocketAddr,
    pub(crate) store: StoreSetting,
    pub(crate) token_file: PathBuf,
    pub(crate) audit_file: Option<PathBuf>,
    pub(crate) simulate: u16,
    pub(crate) agents: Agents,
    pub(crate) health: HealthSettings,
    pub(crate) ping: Duration,
    pub(crate) writer: WriterSettings,
    pub(crate) json: bool,
}

/// Where a value comes from. The later ones take precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    File,
    Environment,
    Flag,
}

impl Cli {
    /// Parses the command line, or exits.
    pub(crate) fn parse_args() -> (Self, ArgMatches) {
        let matches = Self::command().get_matches();
        let cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        (cli, matches)
    }
}

impl ServeArgs {
    /// Reads the configuration file, and merges it with the arguments. `matches` has the sources of
    /// the arguments.
    pub(crate) fn resolve(self, matches: &ArgMatches) -> Result<ServeSettings, InvalidSettings> {
        let config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        let level = |name| match matches.value_source(name) {
            Some(ValueSource::CommandLine) => Level::Flag,
            _ => Level::Environment,
        };
        let given = [
            self.database.map(|url| (level("database"), StoreSetting::Database(url.into()))),
            self.embedded.map(|path| (level("embedded"), StoreSetting::Embedded(path))),
            config.database.clone().map(|url| (Level::File, StoreSetting::Database(url))),
            config.embedded.clone().map(|path| (Level::File, StoreSetting::Embedded(path))),
        ];
        Ok(ServeSettings {
            store: choose_store(given.into_iter().flatten())?,
            listen: self.listen.or(config.listen).unwrap_or(DEFAULT_LISTEN),
            token_file: self
                .token_file
                .or_else(|| config.token_file.clone())
                .ok_or(InvalidSettings::NoTokens)?,
            audit_file: self.audit_file.or_else(|| config.audit_file.clone()),
            simulate: config.simulated_agents(self.simulate)?,
            agents: config.agents()?,
            ping: config.ping()?,
            writer: config.writer()?,
            health: config.health,
            json: self.json,
        })
    }
}

/// Returns the store of the highest level.
fn choose_store(given: impl Iterator<Item = (Level, StoreSetting)>) -> Result<StoreSetting, InvalidSettings> {
    let mut given: Vec<_> = given.collect();
    given.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let mut given = given.into_iter();
    match (given.next(), given.next()) {
        (None, _) => Err(InvalidSettings::NoStore),
        (Some((first, _)), Some((second, _))) if first == second => Err(InvalidSettings::TwoStores),
        (Some((_, store)), _) => Ok(store),
    }
}

/// Why the settings of a server cannot be used.
#[derive(Debug)]
pub(crate) enum InvalidSettings {
    Config(ConfigError),
    NoStore,
    TwoStores,
    NoTokens,
}

impl From<ConfigError> for InvalidSettings {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::NoStore => f.write_str("no store is set; use `--database URL` or `--embedded FILE`"),
            Self::TwoStores => f.write_str("two stores are set; remove the database or the embedded file"),
            Self::NoTokens => f.write_str("no users are set; use `--token-file FILE`"),
        }
    }
}

impl Error for InvalidSettings {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(level: Level) -> (Level, StoreSetting) {
        (level, StoreSetting::Database("postgres://host/".to_owned().into()))
    }

    fn embedded(level: Level) -> (Level, StoreSetting) {
        (level, StoreSetting::Embedded("circuits.json".into()))
    }

    #[test]
    fn store_of_highest_level_is_used() {
        let choose = |given: &[(Level, StoreSetting)]| choose_store(given.iter().cloned());
        let (flag, environment, file) = (Level::Flag, Level::Environment, Level::File);
        let chosen = choose(&[database(environment), embedded(flag), database(file)]).unwrap();
        assert_eq!(chosen, embedded(flag).1);
        let chosen = choose(&[database(environment), embedded(file)]).unwrap();
        assert_eq!(chosen, database(environment).1);
        assert!(matches!(choose(&[database(flag), embedded(flag)]), Err(InvalidSettings::TwoStores)));
        assert!(choose(&[database(flag), embedded(file), database(file)]).is_ok());
        assert!(matches!(choose(&[]), Err(InvalidSettings::NoStore)));
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
