//! The figures of both clients, as a table and as JSON.

use std::cmp::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{CallLog, Outcome};
use crate::progress::Side;
use crate::screen::{Screen, colour};
use crate::script::{PHASES, Phase, Script};

/// The figures of one side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    calls: u64,
    answered: u64,
    failed: u64,
    rejected: u64,
    /// The number of requests that the client sent.
    sent: u64,
    /// The number of requests that the server received in each phase.
    received: [(Phase, u64); PHASES.len()],
    latency_p50: Duration,
    latency_p99: Duration,
    /// `None` if the client got no answer after the outage.
    time_to_first_answer: Option<Duration>,
}

impl Figures {
    /// Counts what the client and its server have recorded.
    pub(crate) fn of(side: &Side, script: Script) -> Self {
        let log = side.log.lock();
        Self {
            calls: log.started,
            answered: log.count(Outcome::Answered),
            failed: log.count(Outcome::Failed),
            rejected: log.count(Outcome::Rejected),
            sent: log.ended.iter().map(|call| u64::from(call.requests)).sum(),
            received: PHASES.map(|(phase, _)| (phase, side.server.received_in(phase))),
            latency_p50: latency_percentile(&log, 50),
            latency_p99: latency_percentile(&log, 99),
            time_to_first_answer: time_to_first_answer(&log, script),
        }
    }

    fn received_in_outage(&self) -> u64 {
        let outage = self.received.iter().filter(|(phase, _)| *phase == Phase::Outage);
        outage.map(|(_, count)| count).sum()
    }

    fn answered_percent(&self) -> f64 {
        100.0 * self.answered as f64 / self.calls.max(1) as f64
    }

    fn json(&self) -> Value {
        let by_phase = self.received.iter().map(|(phase, count)| (phase.name().to_owned(), json!(count)));
        json!({
            "offered": self.calls,
            "answered": self.answered,
            "failed": self.failed,
            "rejected": self.rejected,
            "tries": self.sent,
            "reached": self.received.iter().map(|(_, count)| count).sum::<u64>(),
            "reached_by_phase": Value::Object(by_phase.collect()),
            "reached_in_outage": self.received_in_outage(),
            "answered_percent": self.answered_percent(),
            "p50_ms": milliseconds(self.latency_p50),
            "p99_ms": milliseconds(self.latency_p99),
            "recovery_ms": self.time_to_first_answer.map(milliseconds),
        })
    }
}

/// Returns the latency that `percent` of the calls do not exceed (nearest rank), regardless of
/// their outcome.
fn latency_percentile(log: &CallLog, percent: usize) -> Duration {
    let mut latencies: Vec<_> = log.ended.iter().map(|call| call.latency).collect();
    latencies.sort_unstable();
    let rank = (latencies.len() * percent).div_ceil(100);
    latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Returns the time from the scripted end of the outage to the client's first answer after it.
fn time_to_first_answer(log: &CallLog, script: Script) -> Option<Duration> {
    let outage_end = script.end_of(Phase::Outage);
    let answered = log.ended.iter().filter(|call| call.outcome == Outcome::Answered);
    answered.filter_map(|call| call.ended_at.checked_duration_since(outage_end)).min()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Returns both sides as one JSON object.
pub(crate) fn json(naive: &Figures, stack: &Figures) -> Value {
    json!({ "naive": naive.json(), "stack": stack.json() })
}

/// Returns both sides as a table, the meaning of its rows, and a note for each row on which the
/// stack is worse.
pub(crate) fn table(screen: &Screen, naive: &Figures, stack: &Figures) -> String {
    let heading = format!("{:<47}{:>10}{:>12}   better", "", "naive", "stack");
    let mut lines = vec![String::new(), screen.paint(colour::BOLD, &heading)];
    let mut notes = Vec::new();
    for row in &ROWS {
        let naive_figure = row.rounded(naive);
        let stack_figure = row.rounded(stack);
        let better = match row.compare(stack_figure, naive_figure) {
            Ordering::Greater => screen.paint(colour::GREEN, "stack"),
            Ordering::Equal => screen.paint(colour::BOLD, "equal"),
            Ordering::Less => {
                notes.push(format!("Why the stack is worse on \"{}\":\n  {}", row.name, row.note));
                screen.paint(colour::YELLOW, "naive")
            }
        };
        let naive_text = row.format(naive_figure);
        let stack_text = row.format(stack_figure);
        lines.push(format!("{:<47}{naive_text:>10}{stack_text:>12}   {better}", row.name));
    }
    lines.push(LEGEND.to_owned());
    lines.append(&mut notes);
    lines.join("\n")
}

const LEGEND: &str = "
calls answered: share of all calls. Both clients made the same number of calls. The load of their
  servers differs, but these servers answer at any load. A real server also has to recover under
  the retries of the naive client.
latency: time from the start of a call to its end, for answered, failed and rejected calls alike.
time to first answer: from the end of the outage to the end of the first answered call.
";

/// A row of the table.
struct Row {
    name: &'static str,
    /// Infinite if the event did not happen.
    figure: fn(&Figures) -> f64,
    unit: &'static str,
    decimals: u8,
    more_is_better: bool,
    /// Why the stack can be worse.
    note: &'static str,
}

const UNEXPECTED: &str = "This is not expected. Perhaps the machine was too busy for 200 calls a second.";

const ROWS: [Row; 5] = [
    Row {
        name: "calls answered",
        figure: Figures::answered_percent,
        unit: " %",
        decimals: 1,
        more_is_better: true,
        note: "The open circuit also rejects calls for a short time after the outage. The \
               retries made up for fewer of them.",
    },
    Row {
        name: "requests sent to the server during the outage",
        figure: |figures| figures.received_in_outage() as f64,
        unit: "",
        decimals: 0,
        more_is_better: false,
        note: UNEXPECTED,
    },
    Row {
        name: "latency p50",
        figure: |figures| milliseconds(figures.latency_p50),
        unit: " ms",
        decimals: 2,
        more_is_better: false,
        note: "Half of the calls succeed at the first attempt. The layers add a little time to them.",
    },
    Row {
        name: "latency p99",
        figure: |figures| milliseconds(figures.latency_p99),
        unit: " ms",
        decimals: 1,
        more_is_better: false,
        note: "With both clients, more than 1 % of the calls end with a timeout, so the figures differ \
               only by chance. The stack has such calls in the first second of the outage, until \
               its circuit opens.",
    },
    Row {
        name: "time to first answer after the outage",
        figure: |figures| figures.time_to_first_answer.map_or(f64::INFINITY, milliseconds),
        unit: " ms",
        decimals: 1,
        more_is_better: false,
        note: "The open circuit rejects calls until its open time is over. The naive client never \
               stops sending.",
    },
];

impl Row {
    /// Returns the figure, rounded as it is printed, so that equal texts compare as equal.
    fn rounded(&self, figures: &Figures) -> f64 {
        let factor = 10_f64.powi(i32::from(self.decimals));
        ((self.figure)(figures) * factor).round() / factor
    }

    /// Compares two figures. The better figure is the greater one.
    fn compare(&self, left: f64, right: f64) -> Ordering {
        let order = left.total_cmp(&right);
        if self.more_is_better { order } else { order.reverse() }
    }

    fn format(&self, figure: f64) -> String {
        if figure.is_infinite() {
            return "never".to_owned();
        }
        format!("{figure:.*}{}", usize::from(self.decimals), self.unit)
    }
}
