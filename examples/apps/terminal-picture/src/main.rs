//! Draws the output of a program as an SVG picture of a terminal.
//!
//! ```text
//! PROGRAM | terminal-picture > picture.svg
//! ```
//!
//! Colors and other styles are kept. The cursor cannot be moved, so the output must not contain
//! progress bars. Programs print none into a pipe.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use anstyle_svg::{Term, WIN10_CONSOLE};
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// The width of the terminal, in characters. Longer lines are wrapped.
const COLUMNS: usize = 110;

fn main() -> ExitCode {
    match draw_stdin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: no picture can be drawn: {error}");
            ExitCode::FAILURE
        }
    }
}

fn draw_stdin() -> io::Result<()> {
    let mut output = String::new();
    io::stdin().read_to_string(&mut output)?;
    io::stdout().write_all(picture(&output).as_bytes())
}

/// Returns the picture of a program's output.
fn picture(output: &str) -> String {
    let lines: Vec<_> = output.lines().flat_map(wrap).collect();
    // The palette has a black that differs from the background of GitHub's dark theme.
    Term::new().palette(WIN10_CONSOLE).render_svg(&lines.join("\n"))
}

/// Breaks a line between words. Escape sequences have no width.
fn wrap(line: &str) -> Vec<String> {
    let options = Options::new(COLUMNS)
        .subsequent_indent("    ")
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::wrap(line, options).into_iter().map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_line_is_wrapped_between_words() {
        let (first, second) = ("a".repeat(60), "--b".repeat(20));
        assert_eq!(wrap(&format!("  {first} {second}")), [format!("  {first}"), format!("    {second}")]);
    }

    #[test]
    fn line_that_fits_with_its_colors_is_not_wrapped() {
        let word = "\u{1b}[31mred\u{1b}[0m";
        let line = vec![word; 27].join(" ");
        assert_eq!(wrap(&line), [line]);
    }

    #[test]
    fn picture_has_each_line_and_its_color() {
        let svg = picture("first\n\n\u{1b}[31msecond <&>\u{1b}[0m\n");
        assert_eq!(svg.matches("<tspan x=").count(), 3, "{svg}");
        assert!(svg.contains(">first<"), "{svg}");
        assert!(svg.contains(r#"class="fg-red">second &lt;&amp;&gt;<"#), "{svg}");
    }
}
