//! The command line.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::scenarios::{ALL, Scenario};

/// The help text.
pub const USAGE: &str = "\
usage: cargo run --release -p simulator -- --list | NAME... [--seeds N] [--out DIR]

Runs scenarios, and writes a table (CSV) and a figure (SVG) of each to a folder.

  NAME         a scenario, or `all`
  --list       lists the scenarios
  --seeds N    runs each case with the seeds 1 to N, 1 to 1,000 (default 10)
  --out DIR    the folder (default target/simulations)
  --help       shows this text
";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Show the help text.
    Help,
    /// List the scenarios.
    List,
    /// Run scenarios.
    Run {
        /// The scenarios, in the order of the command line.
        scenarios: Vec<Scenario>,
        /// The number of seeds.
        seeds: u64,
        /// The folder for the files.
        out: PathBuf,
    },
}

/// A problem of the command line.
#[derive(Debug)]
#[non_exhaustive]
pub enum UsageError {
    /// No scenario is given.
    NoScenario,
    /// There is no scenario of this name.
    UnknownScenario(String),
    /// The number of seeds is out of its range.
    Seeds(u64),
    /// An option is unknown, or its value is missing or invalid.
    Option(lexopt::Error),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoScenario => f.write_str("no scenario is given; `--list` shows all scenarios"),
            Self::UnknownScenario(name) => {
                write!(f, "there is no scenario `{name}`; `--list` shows all scenarios")
            }
            Self::Seeds(seeds) => write!(f, "`--seeds` is {seeds}, but must be 1 to 1000"),
            Self::Option(error) => write!(f, "{error}; `--help` shows the options"),
        }
    }
}

impl std::error::Error for UsageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Option(error) => error.source(),
            _ => None,
        }
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self::Option(error)
    }
}

/// Reads the arguments after the name of the program.
///
/// # Errors
///
/// Returns the first problem of the command line.
pub fn parse(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Command, UsageError> {
    use lexopt::prelude::*;

    let mut parser = lexopt::Parser::from_args(arguments.into_iter().map(Into::into));
    let (mut scenarios, mut seeds, mut out) = (Vec::new(), 10, PathBuf::from("target/simulations"));
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("list") => return Ok(Command::List),
            Long("seeds") => seeds = parser.value()?.parse()?,
            Long("out") => out = parser.value()?.into(),
            Value(name) => match name.string()?.as_str() {
                "all" => scenarios.extend(ALL),
                name => {
                    let unknown = || UsageError::UnknownScenario(name.to_owned());
                    scenarios.push(Scenario::named(name).ok_or_else(unknown)?);
                }
            },
            other => return Err(other.unexpected().into()),
        }
    }
    if !(1..=1_000).contains(&seeds) {
        return Err(UsageError::Seeds(seeds));
    }
    if scenarios.is_empty() {
        return Err(UsageError::NoScenario);
    }
    Ok(Command::Run { scenarios, seeds, out })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(arguments: &[&str]) -> String {
        parse(arguments).unwrap_err().to_string()
    }

    #[test]
    fn command_line_names_scenarios_seeds_and_folder() {
        let parsed = parse(["metastable", "--seeds=3", "--out", "figures", "random-failures"]).unwrap();
        let Command::Run { scenarios, seeds, out } = parsed else { panic!("{parsed:?}") };
        let names: Vec<_> = scenarios.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, ["metastable", "random-failures"]);
        assert_eq!((seeds, out), (3, PathBuf::from("figures")));
        let Command::Run { scenarios, seeds, .. } = parse(["all"]).unwrap() else { panic!() };
        assert_eq!((scenarios.len(), seeds), (ALL.len(), 10));
        assert!(matches!(parse(["--list"]), Ok(Command::List)));
        assert!(matches!(parse(["all", "--help"]), Ok(Command::Help)));
    }

    #[test]
    fn usage_errors_name_the_argument_and_the_next_step() {
        assert_eq!(error(&[]), "no scenario is given; `--list` shows all scenarios");
        assert_eq!(error(&["storm"]), "there is no scenario `storm`; `--list` shows all scenarios");
        assert_eq!(error(&["all", "--seeds", "0"]), "`--seeds` is 0, but must be 1 to 1000");
        let seeds = error(&["all", "--seeds", "many"]);
        assert!(seeds.contains("many") && seeds.ends_with("; `--help` shows the options"), "{seeds}");
        assert_eq!(error(&["--quiet"]), "invalid option '--quiet'; `--help` shows the options");
    }
}
