//! The options of the command line.

use lexopt::prelude::*;

use crate::measure::Effort;

pub(crate) const USAGE: &str = "\
Usage: cargo bench --manifest-path benches/Cargo.toml [--features FEATURES] -- [OPTIONS] [WORD]...

Measures the variants whose label contains all words. The label is the row, the crate and the
style, for instance `breaker, success, ours, await`. The styles are `raw`, a poll loop, and `await`,
an async function. The service without layers and the uncontended lock are always measured.

Prints the results as a table for each kind. Use a machine without other load.

Options:
  --list            print the labels of the selected variants, and measure nothing
  --ours            only variants of this workspace
  --quick           few rounds: enough to see large differences
  --only KIND       only `time`, `threads` or `memory` (allocations, bytes of circuits and keys)
  --runs NUMBER     merge several runs: the median of their medians, the smallest and the largest
  --report          write these results to docs/benchmarks.md and docs/figures/benchmarks.{csv,svg}
  -h, --help        print this text

Features of the package:
  grpc              rows for gRPC, through tonic's client
  reqwest           rows for reqwest, and the crate reqwest-retry";

/// What the program does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Help,
    List,
    Measure,
    Report,
}

pub(crate) struct Options {
    pub(crate) action: Action,
    pub(crate) ours: bool,
    pub(crate) runs: usize,
    pub(crate) only: Option<String>,
    pub(crate) effort: Effort,
    pub(crate) words: Vec<String>,
}

impl Options {
    /// Reads the options of this program.
    pub(crate) fn from_arguments() -> Result<Self, lexopt::Error> {
        Self::parse(lexopt::Parser::from_env())
    }

    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self {
            action: Action::Measure,
            ours: false,
            runs: 1,
            only: None,
            effort: Effort::Full,
            words: Vec::new(),
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => options.action = Action::Help,
                Long("list") => options.action = Action::List,
                Long("ours") => options.ours = true,
                Long("quick") => options.effort = Effort::Quick,
                Long("report") => options.action = Action::Report,
                Long("runs") => options.runs = arguments.value()?.parse_with(runs)?,
                Long("only") => options.only = Some(arguments.value()?.parse_with(kind)?),
                // `cargo bench` passes it to each benchmark.
                Long("bench") => {}
                Value(word) => options.words.push(word.string()?),
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }

    /// Returns whether the kind of results is selected.
    pub(crate) fn includes(&self, kind: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == kind)
    }
}

fn kind(text: &str) -> Result<String, &'static str> {
    match text {
        "time" | "threads" | "memory" => Ok(text.to_owned()),
        _ => Err("no kind of results: use `time`, `threads` or `memory`"),
    }
}

fn runs(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|runs| *runs > 0).ok_or("not a number of runs: use 1 or more")
}
