//! The table of the results.

use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use orchestrator::report::{Outcome, Report, Trip};
use tower_breaker::Reason;

/// The width of the table. Longer details are wrapped.
const WIDTH: u16 = 110;

/// How many characters of an answer the table shows.
const ANSWER_LENGTH: usize = 60;

/// Returns the table of the results.
pub(crate) fn results(report: &Report) -> Table {
    let mut table = new_table(["task", "backend", "state", "attempts", "time", "detail"]);
    for task in &report.tasks {
        table.add_row([
            one_line(&task.id),
            one_line(&task.agent),
            state(&task.outcome).to_owned(),
            task.attempts.to_string(),
            seconds(task.duration),
            detail(&task.outcome),
        ]);
    }
    for column in [3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
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

pub(crate) fn state(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed { .. } => "completed",
        Outcome::Failed { .. } => "failed",
        Outcome::Skipped { .. } => "skipped",
        Outcome::Cancelled => "cancelled",
    }
}

/// Returns the begin of an answer, or why the task has none.
pub(crate) fn detail(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed { response } => shorten(&one_line(response.trim())),
        Outcome::Failed { error, circuit: None } => one_line(error),
        Outcome::Failed { error, circuit: Some(trip) } => {
            format!("{} ({})", one_line(error), trip_reason(*trip))
        }
        Outcome::Skipped { because } => format!("`{}` failed", one_line(because)),
        Outcome::Cancelled => "the run was interrupted".to_owned(),
    }
}

fn trip_reason(trip: Trip) -> String {
    match trip.reason {
        Reason::ConsecutiveFailures => {
            format!("the circuit opened after {} failures in a row", trip.consecutive_failures)
        }
        reason => format!("the circuit opened: {}", reason.as_str()),
    }
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Replaces line breaks and other control characters, which would change the terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(ANSWER_LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
