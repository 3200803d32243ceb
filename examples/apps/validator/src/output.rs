//! The output of a run: JSON, or a table and what explains it.

use std::fmt::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use validator::external::Delivery;
use validator::result::{Report, ValidationResult};

use crate::{DEGRADED, FAILED, INTERRUPTED, PASSED};

/// The width of a table. Longer messages are wrapped.
const WIDTH: u16 = 110;

/// How many lines of each output of a failed command are printed.
const OUTPUT_LINES: usize = 10;

/// The end of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    report: Report,
    deliveries: Vec<Delivery>,
    interrupted: bool,
}

impl Outcome {
    /// Creates the outcome of a run. The run was interrupted if `deliveries` is `None`.
    pub(crate) fn new(report: Report, deliveries: Option<Vec<Delivery>>) -> Self {
        let interrupted = deliveries.is_none();
        Self { report, deliveries: deliveries.unwrap_or_default(), interrupted }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        let push_failed = self.deliveries.iter().any(|delivery| delivery.error.is_some());
        if self.interrupted {
            INTERRUPTED
        } else if self.report.has_failed_check() {
            FAILED
        } else if self.report.degraded || push_failed {
            DEGRADED
        } else {
            PASSED
        }
    }

    pub(crate) fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Returns the table, the output of failed commands, the failed pushes, and a summary.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", results(&self.report));
        for result in &self.report.results {
            text += &command_output(result);
        }
        // Writing to a string does not fail.
        for delivery in &self.deliveries {
            let _ = writeln!(text, "{}", delivery_line(delivery));
        }
        if self.interrupted {
            text += "the run was interrupted, so the report may not have been sent\n";
        }
        let _ = writeln!(text, "{}", summary(&self.report));
        text
    }
}

/// Returns the table of the results.
pub(crate) fn results(report: &Report) -> Table {
    let mut table = new_table(["dimension", "tier", "result", "message"]);
    for result in &report.results {
        let message = one_line(&result.message);
        table.add_row([&one_line(&result.dimension), &result.tier.to_string(), state(result), &message]);
    }
    table
}

/// Returns an empty table.
pub(crate) fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(header);
    table
}

pub(crate) fn state(result: &ValidationResult) -> &'static str {
    match (result.passed, result.error()) {
        (true, _) => "passed",
        (false, None) => "failed",
        (false, Some(_)) => "no verdict",
    }
}

pub(crate) fn delivery_line(Delivery { service, error }: &Delivery) -> String {
    match error {
        None => format!("{service}: the report was delivered"),
        Some(error) => format!("{service}: the report was not delivered: {}", one_line(error)),
    }
}

/// Returns the last lines that a failed command has printed.
fn command_output(result: &ValidationResult) -> String {
    let mut text = String::new();
    if state(result) != "failed" {
        return text;
    }
    for stream in ["stdout", "stderr"] {
        let output = result.details.get(stream).and_then(|output| output.as_str()).unwrap_or_default();
        let lines: Vec<_> = output.lines().collect();
        if lines.is_empty() {
            continue;
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}: the end of {stream}:", one_line(&result.dimension));
        for line in &lines[lines.len().saturating_sub(OUTPUT_LINES)..] {
            let _ = writeln!(text, "    {}", one_line(line));
        }
    }
    text
}

fn summary(report: &Report) -> String {
    let count = |wanted| report.results.iter().filter(|result| state(result) == wanted).count();
    format!(
        "{} passed, {} failed, {} without a verdict",
        count("passed"),
        count("failed"),
        count("no verdict")
    )
}

/// Replaces line breaks and other control characters, which would change the terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
