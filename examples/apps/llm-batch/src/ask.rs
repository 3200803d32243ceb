//! Shows why the job's circuit has opened, and asks the person what to do.

use std::io::{self, BufRead, Write};

use serde_json::Value;

use crate::checkpoint::Counts;
use crate::engine::TripStatus;

/// The width of the lines around the banner.
const BANNER_WIDTH: usize = 60;

/// The width of the line below the details.
const DETAILS_WIDTH: usize = 40;

/// The largest number of characters of a unit in the banner.
const UNIT_EXCERPT: usize = 100;

/// What the person decides after a trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The circuit is reset, and the job goes on.
    Continue,
    /// The job ends. It can be resumed.
    Abort,
}

/// Prints the banner of a trip, and asks until the person continues or aborts.
///
/// The end of the input aborts, as an empty line does.
///
/// # Errors
///
/// Returns an error if the input cannot be read or the output cannot be written.
pub fn after_trip(
    input: &mut impl BufRead,
    output: &mut impl Write,
    status: &TripStatus,
    counts: Counts,
) -> io::Result<Choice> {
    write_banner(output, status, counts)?;
    loop {
        writeln!(output, "[C]ontinue  [A]bort  [I]nspect details")?;
        write!(output, "> ")?;
        output.flush()?;
        match read_answer(input)?.unwrap_or_default().as_str() {
            "c" => {
                writeln!(output, "Resuming processing...")?;
                return Ok(Choice::Continue);
            }
            "" | "a" => return Ok(Choice::Abort),
            "i" => write_details(output, status)?,
            _ => writeln!(output, "Enter c, a or i")?,
        }
    }
}

/// Shows the progress, and asks whether to continue. Enter and `y` continue, and `n` aborts.
///
/// The end of the input aborts, too.
///
/// # Errors
///
/// Returns an error if the input cannot be read or the output cannot be written.
pub fn check_in(input: &mut impl BufRead, output: &mut impl Write, counts: Counts) -> io::Result<Choice> {
    let Counts { total, processed, failed } = counts;
    let rate = counts.success_rate();
    writeln!(output, "Processed: {processed}/{total} | Failed: {failed} | Success rate: {rate:.1}%")?;
    loop {
        write!(output, "Continue? [Y/n] ")?;
        output.flush()?;
        match read_answer(input)?.as_deref() {
            Some("" | "y" | "yes") => return Ok(Choice::Continue),
            Some("n" | "no") | None => return Ok(Choice::Abort),
            Some(_) => writeln!(output, "Enter y or n")?,
        }
    }
}

fn write_banner(output: &mut impl Write, status: &TripStatus, counts: Counts) -> io::Result<()> {
    let line = "=".repeat(BANNER_WIDTH);
    writeln!(output, "\n{line}")?;
    writeln!(output, "⚠️  Circuit breaker triggered: {} consecutive failures", status.consecutive_failures)?;
    writeln!(output, "{line}")?;
    writeln!(output, "Last error: {}", text(status.last_error_type.as_ref()))?;
    writeln!(output, "Message: {}", text(status.last_error_message.as_ref()))?;
    writeln!(output, "Failed unit: {}", unit_excerpt(status.last_failed_unit.as_ref()))?;
    let Counts { total, processed, failed } = counts;
    let rate = counts.success_rate();
    writeln!(output, "Processed: {processed}/{total} | Failed: {failed} | Success rate: {rate:.1}%\n")
}

fn write_details(output: &mut impl Write, status: &TripStatus) -> io::Result<()> {
    writeln!(output, "Error type: {}", text(status.last_error_type.as_ref()))?;
    writeln!(output, "Message: {}", text(status.last_error_message.as_ref()))?;
    let unit = status.last_failed_unit.as_ref().map(|unit| format!("{unit:#}"));
    writeln!(output, "Failed unit:\n{}", text(unit.as_ref()))?;
    writeln!(output, "{}", "-".repeat(DETAILS_WIDTH))
}

fn text(text: Option<&String>) -> &str {
    text.map_or("unknown", String::as_str)
}

fn unit_excerpt(unit: Option<&Value>) -> String {
    let mut excerpt = text(unit.map(Value::to_string).as_ref()).to_owned();
    if let Some((end, _)) = excerpt.char_indices().nth(UNIT_EXCERPT) {
        excerpt.truncate(end);
        excerpt.push_str("...");
    }
    excerpt
}

/// Reads a line in lower case, without the white space around it. `None`: the input has ended.
fn read_answer(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let length = input.read_until(b'\n', &mut line)?;
    Ok((length > 0).then(|| String::from_utf8_lossy(&line).trim().to_lowercase()))
}
