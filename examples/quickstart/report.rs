//! What came of it: the naive client beside the stack.

use std::cmp::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Book, End};
use crate::progress::Side;
use crate::screen::{Screen, colour};
use crate::script::{PHASES, Phase, Script};

/// The figures of one side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    offered: u64,
    answered: u64,
    failed: u64,
    rejected: u64,
    /// How often the client sent a request.
    tries: u64,
    /// How many requests the upstream counted in each phase.
    reached: [(Phase, u64); PHASES.len()],
    median: Duration,
    slowest_percent: Duration,
    recovery: Option<Duration>,
}

impl Figures {
    /// Counts what the client and its upstream have seen.
    pub(crate) fn of(side: &Side, script: Script) -> Self {
        let book = side.log.book();
        Self {
            offered: book.offered,
            answered: book.ended(End::Answered),
            failed: book.ended(End::Failed),
            rejected: book.ended(End::Rejected),
            tries: book.calls.iter().map(|call| u64::from(call.tries)).sum(),
            reached: PHASES.map(|(phase, _)| (phase, side.upstream.reached_in(phase))),
            median: percentile(&book, 50),
            slowest_percent: percentile(&book, 99),
            recovery: recovery(&book, script),
        }
    }

    fn reached_in_outage(&self) -> u64 {
        self.reached.iter().filter(|(phase, _)| *phase == Phase::Outage).map(|(_, count)| count).sum()
    }

    fn answered_percent(&self) -> f64 {
        100.0 * self.answered as f64 / self.offered.max(1) as f64
    }

    fn json(&self) -> Value {
        let reached = self.reached.iter().map(|(phase, count)| (phase.name().to_owned(), json!(count)));
        json!({
            "offered": self.offered,
            "answered": self.answered,
            "failed": self.failed,
            "rejected": self.rejected,
            "tries": self.tries,
            "reached": self.reached.iter().map(|(_, count)| count).sum::<u64>(),
            "reached_by_phase": Value::Object(reached.collect()),
            "reached_in_outage": self.reached_in_outage(),
            "answered_percent": self.answered_percent(),
            "p50_ms": millis(self.median),
            "p99_ms": millis(self.slowest_percent),
            "recovery_ms": self.recovery.map(millis),
        })
    }
}

/// The time within which so many percent of the calls ended, whatever they came to (nearest rank).
fn percentile(book: &Book, percent: usize) -> Duration {
    let mut times: Vec<_> = book.calls.iter().map(|call| call.took).collect();
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100);
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// From the end of the outage, as the script has it, until the client had its first answer. `None`:
/// it had none.
fn recovery(book: &Book, script: Script) -> Option<Duration> {
    let over = script.end_of(Phase::Outage);
    let answered = book.calls.iter().filter(|call| call.end == End::Answered && call.at >= over);
    answered.map(|call| call.at - over).min()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Both sides as one JSON object.
pub(crate) fn json(naive: &Figures, stack: &Figures) -> Value {
    json!({ "naive": naive.json(), "stack": stack.json() })
}

/// Both sides as a table, and a word on every row on which the stack is behind.
pub(crate) fn table(screen: &Screen, naive: &Figures, stack: &Figures) -> String {
    let head = format!("{:<39}{:>10}{:>12}   ahead", "", "naive", "stack");
    let (mut lines, mut notes) =
        (vec![String::new(), screen.paint(colour::BOLD, &head)], vec![String::new()]);
    for row in &ROWS {
        let [left, right] = [naive, stack].map(|figures| row.rounded(figures));
        let (ahead, paint) = match row.rank(right, left) {
            Ordering::Greater => ("stack", colour::GREEN),
            Ordering::Equal => ("even", colour::BOLD),
            Ordering::Less => {
                notes.push(format!("The stack is behind on \"{}\": {}.", row.name, row.behind));
                ("naive", colour::YELLOW)
            }
        };
        let (ahead, [left, right]) =
            (screen.paint(paint, ahead), [left, right].map(|figure| row.print(figure)));
        lines.push(format!("{:<39}{left:>10}{right:>12}   {ahead}", row.name));
    }
    lines.append(&mut notes);
    lines.join("\n")
}

/// A row of the table.
struct Row {
    name: &'static str,
    /// Infinite: it never came to that.
    figure: fn(&Figures) -> f64,
    unit: &'static str,
    decimals: u8,
    more_is_better: bool,
    /// Why the stack may be behind.
    behind: &'static str,
}

const UNEXPECTED: &str = "it should not be; was this machine too busy to keep the pace?";

const ROWS: [Row; 5] = [
    Row {
        name: "calls answered",
        figure: Figures::answered_percent,
        unit: " %",
        decimals: 1,
        more_is_better: true,
        behind: "its circuit rejects calls until its probes succeed, and that cost more answers than its retries won",
    },
    Row {
        name: "requests to the upstream in the outage",
        figure: |figures| figures.reached_in_outage() as f64,
        unit: "",
        decimals: 0,
        more_is_better: false,
        behind: UNEXPECTED,
    },
    Row {
        name: "time until the caller knows, p50",
        figure: |figures| millis(figures.median),
        unit: " ms",
        decimals: 1,
        more_is_better: false,
        behind: "this is the time of a call that just succeeds, to which four layers can only add",
    },
    Row {
        name: "time until the caller knows, p99",
        figure: |figures| millis(figures.slowest_percent),
        unit: " ms",
        decimals: 1,
        more_is_better: false,
        behind: UNEXPECTED,
    },
    Row {
        name: "first answer after the outage",
        figure: |figures| figures.recovery.map_or(f64::INFINITY, millis),
        unit: " ms",
        decimals: 1,
        more_is_better: false,
        behind: "its circuit stays open until its time is over and then asks with a few probes, where the naive client \
                 never stopped asking",
    },
];

impl Row {
    /// The figure as exact as it is printed, so that what looks even is.
    fn rounded(&self, figures: &Figures) -> f64 {
        let unit = 10_f64.powi(i32::from(self.decimals));
        ((self.figure)(figures) * unit).round() / unit
    }

    /// How one figure ranks beside another; the better is the greater.
    fn rank(&self, one: f64, other: f64) -> Ordering {
        let order = one.total_cmp(&other);
        if self.more_is_better { order } else { order.reverse() }
    }

    fn print(&self, figure: f64) -> String {
        if figure.is_infinite() {
            "never".to_owned()
        } else {
            format!("{figure:.*}{}", usize::from(self.decimals), self.unit)
        }
    }
}
