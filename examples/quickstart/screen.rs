//! The output on the terminal while the script runs.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// ANSI "select graphic rendition" parameters.
pub(crate) mod colour {
    /// For a good result.
    pub(crate) const GREEN: &str = "32";
    /// For a bad result.
    pub(crate) const RED: &str = "31";
    /// For a result between the two.
    pub(crate) const YELLOW: &str = "33";
    /// For a heading.
    pub(crate) const BOLD: &str = "1";
}

/// Standard output, shared by everything that prints.
#[derive(Debug)]
pub(crate) struct Screen {
    silent: bool,
    /// Whether standard output is a terminal, on which lines can be replaced.
    live: bool,
    coloured: bool,
    /// The lines at the bottom, which the next progress lines replace.
    progress: Mutex<Vec<String>>,
}

impl Screen {
    /// Returns a screen for standard output: plain text unless it is a terminal.
    pub(crate) fn new() -> Self {
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        // See https://no-color.org: any value except an empty one turns colours off.
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let live = io::stdout().is_terminal() && !dumb;
        Self { silent: false, live, coloured: live && !no_colour, progress: Mutex::default() }
    }

    /// Returns a screen that prints nothing.
    pub(crate) fn silent() -> Self {
        Self { silent: true, live: false, coloured: false, progress: Mutex::default() }
    }

    /// Returns the text in a colour, if the screen has colours.
    pub(crate) fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Prints a text above the progress lines.
    pub(crate) fn print(&self, text: &str) {
        self.draw(|progress| format!("{text}\n{}", join_lines(progress)));
    }

    /// Prints progress lines. On a terminal they replace the previous ones.
    pub(crate) fn update(&self, lines: Vec<String>) {
        self.draw(|progress| {
            let text = join_lines(&lines);
            if self.live {
                *progress = lines;
            }
            text
        });
    }

    /// Keeps the current progress lines: the next output goes below them.
    pub(crate) fn finish_progress(&self) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Replaces the progress lines with the text that `render` returns.
    fn draw(&self, render: impl FnOnce(&mut Vec<String>) -> String) {
        if self.silent {
            return;
        }
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        // Moves the cursor up to the first progress line and clears the rest of the screen.
        let erase =
            if progress.is_empty() { String::new() } else { format!("\x1b[{}F\x1b[J", progress.len()) };
        let text = render(&mut progress);
        let output = if self.live {
            // Without wrapping, each line takes one row, so that the cursor finds the first one.
            format!("\x1b[?7l{erase}{text}\x1b[?7h")
        } else {
            text
        };
        let mut stdout = io::stdout().lock();
        // If standard output is closed, the program still completes.
        let _ = stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush());
    }
}

fn join_lines(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}
