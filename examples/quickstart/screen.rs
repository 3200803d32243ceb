//! What is shown while the script runs.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// The colours, as the parameters of ANSI's "select graphic rendition".
pub(crate) mod colour {
    /// All is well.
    pub(crate) const GREEN: &str = "32";
    /// Something is not.
    pub(crate) const RED: &str = "31";
    /// It may become so.
    pub(crate) const YELLOW: &str = "33";
    /// A heading.
    pub(crate) const BOLD: &str = "1";
}

/// Standard output, shared by all who have something to show.
#[derive(Debug)]
pub(crate) struct Screen {
    shown: bool,
    /// It is a terminal, on which lines can be drawn anew.
    live: bool,
    coloured: bool,
    /// The lines at the bottom that the next ones take the place of.
    bottom: Mutex<Vec<String>>,
}

impl Screen {
    /// One that fits what standard output is: plain text, unless it is a terminal.
    pub(crate) fn new() -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let live = io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { shown: true, live, coloured: live && !set("NO_COLOR"), bottom: Mutex::default() }
    }

    /// One that shows nothing.
    pub(crate) fn dark() -> Self {
        Self { shown: false, live: false, coloured: false, bottom: Mutex::default() }
    }

    /// The text in a colour, if there are colours.
    pub(crate) fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Shows something that stays.
    pub(crate) fn say(&self, text: &str) {
        self.draw(|bottom| format!("{text}\n{}", lines(bottom)));
    }

    /// Shows lines that, on a terminal, take the place of the last ones shown so.
    pub(crate) fn update(&self, fresh: Vec<String>) {
        self.draw(|bottom| {
            let drawn = lines(&fresh);
            if self.live {
                *bottom = fresh;
            }
            drawn
        });
    }

    /// Lets the lines at the bottom stay where they are.
    pub(crate) fn settle(&self) {
        self.bottom.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Writes what `make` makes of the lines at the bottom over them.
    fn draw(&self, make: impl FnOnce(&mut Vec<String>) -> String) {
        if !self.shown {
            return;
        }
        let mut bottom = self.bottom.lock().unwrap_or_else(PoisonError::into_inner);
        let erase = if bottom.is_empty() { String::new() } else { format!("\x1b[{}F\x1b[J", bottom.len()) };
        let text = make(&mut bottom);
        // A line that wrapped would be two to the cursor.
        let (unwrapped, wrapped) = if self.live { ("\x1b[?7l", "\x1b[?7h") } else { ("", "") };
        let mut out = io::stdout().lock();
        // Nobody is left to be told that nobody reads.
        let _ = write!(out, "{unwrapped}{erase}{text}{wrapped}").and_then(|()| out.flush());
    }
}

/// The lines, each with its end.
fn lines(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}
