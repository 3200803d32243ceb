//! The options of the command line.

use lexopt::prelude::*;

use crate::measure::Effort;

pub(crate) const USAGE: &str = "\
Usage: cargo bench --manifest-path benches/Cargo.toml -- [OPTIONS] [WORD]...

Measures the variants whose label contains all words. The bare service and the uncontended lock are
always measured. The label is the row, the crate and the style, for instance
`breaker, success, ours, await`. The styles are `raw`, a poll loop, and `await`, an async function.

Options:
  --list    print the labels of the selected variants, and measure nothing
  --ours    only variants of this workspace
  --quick   few rounds: enough to see large differences
  --help    print this text";

#[derive(Default)]
pub(crate) struct Options {
    pub(crate) help: bool,
    pub(crate) list: bool,
    pub(crate) ours: bool,
    pub(crate) effort: Effort,
    pub(crate) words: Vec<String>,
}

impl Options {
    pub(crate) fn parse() -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("help") => options.help = true,
                Long("list") => options.list = true,
                Long("ours") => options.ours = true,
                Long("quick") => options.effort = Effort::Quick,
                // `cargo bench` passes it to each benchmark.
                Long("bench") => {}
                Value(word) => options.words.push(word.string()?),
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }
}
