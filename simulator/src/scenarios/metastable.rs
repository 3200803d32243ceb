//! A short outage, after which retries may keep the server overloaded.
//!
//! One FIFO server of 100 requests per second receives 70 per second in all. For ten seconds it
//! accepts requests and does not work on them. It does not notice when a client stops waiting, and
//! so it works on requests whose clients have gone.

use super::{Case, Lines, Scenario, cases_of, sent_per_100};
use crate::client::Guard;
use crate::client::guards::{both, breaker, naive, none, retry};
use crate::figure::{Figure, Panel, Scale};
use crate::report::Report;
use crate::server::{Down, Outage, ServerConfig};
use crate::setup::{Load, Setup, Timeout};
use crate::table::{Labels, Table, Value};
use crate::time::SECOND;

/// Requests per second in all.
const OFFERED: u32 = 70;
/// The second in which the outage begins. The windows of budgets and circuits are full by then.
const BEGIN: usize = 70;
/// The second in which the outage ends.
const END: usize = BEGIN + 10;
/// How many seconds after the outage a run lasts.
pub const HORIZON: u32 = 300;

/// The numbers of processes.
pub const PROCESSES: [u32; 4] = [1, 10, 100, 1_000];

/// The guards.
pub fn guards() -> [Guard; 5] {
    [none(), naive(), retry(), breaker(), both()]
}

/// The columns of [`SCENARIO`].
pub(super) const COLUMNS: (&[&str], &[&str]) = (
    &["guard", "processes"],
    &["back_seconds", "lost_milliseconds", "asked", "sent", "asked_after", "sent_after"],
);

/// The scenario.
///
/// | column | content |
/// |---|---|
/// | `back_seconds` | seconds after the outage until 95 % of the calls are answered; -1: never, in 300 s |
/// | `lost_milliseconds` | calls that were not answered, as a time of the traffic |
/// | `asked` | calls that began in the outage |
/// | `sent` | requests that were sent in the outage |
/// | `asked_after`, `sent_after` | the same for the minute after the outage |
pub const SCENARIO: Scenario = Scenario {
    name: "metastable",
    about: "time until a fleet recovers from an outage of 10 s, by the number of processes",
    columns: COLUMNS,
    cases,
    measure,
    figure,
};

fn cases() -> Vec<Case> {
    cases_of(guards(), &PROCESSES, case)
}

/// Returns the case of a guard and a number of processes.
pub fn case(guard: &Guard, processes: u32) -> Case {
    let during = BEGIN as u64 * SECOND..END as u64 * SECOND;
    let server = ServerConfig { outage: Some(Outage::new(during, Down::Hangs)), ..ServerConfig::default() };
    let setup = Setup {
        seed: 0,
        processes,
        guard: guard.clone(),
        load: Load::Open { per_second: OFFERED },
        timeout: Timeout::Inside(SECOND),
        server,
        until: (END as u64 + u64::from(HORIZON)) * SECOND,
    };
    Case { labels: vec![Value::Name(guard.name), Value::Number(processes.into())], setup }
}

/// Returns the results of a case with this outage.
pub(super) fn measure(_: &Setup, report: &Report) -> Vec<i64> {
    let horizon = END + HORIZON as usize;
    let back = report.recovery(END, horizon);
    let after = report.sum(BEGIN..horizon);
    let lost = (after.asked - after.answered) * 1_000 / u64::from(OFFERED);
    let (outage, minute) = (report.sum(BEGIN..END), report.sum(END..END + 60));
    let back = back.map_or(-1, |back| (back as u64).cast_signed());
    let counts = [lost, outage.asked, outage.sent, minute.asked, minute.sent];
    [back].into_iter().chain(counts.map(u64::cast_signed)).collect()
}

fn figure(table: &Table) -> Figure {
    figure_of("After an outage of 10 s", table, &guards(), &PROCESSES)
}

/// Returns the figure of a table with these guards and numbers of processes.
pub(super) fn figure_of(title: &'static str, table: &Table, guards: &[Guard], processes: &[u32]) -> Figure {
    let lines = Lines { guards, axis: "processes", numbers: processes, labels: &[] };
    let panel = |title: &str, y: Scale, value: fn(&Table, Labels<'_>) -> Option<i64>| Panel {
        title: title.to_owned(),
        x_label: "processes",
        x_ticks: lines.ticks(),
        series: lines.series(|labels| value(table, labels)),
        y,
    };
    let seconds = Scale { label: "seconds", last: HORIZON.into(), step: 50, last_text: None };
    let back = Scale { last_text: Some("never"), ..seconds };
    let lost = Scale { label: "seconds of traffic", ..seconds };
    let sent = Scale { label: "requests per 100 calls", ..seconds };
    Figure {
        title,
        panels: vec![
            panel("Time until the fleet is back", back, |table, labels| {
                table.median_or("back_seconds", HORIZON.into(), labels)
            }),
            panel("Traffic lost", lost, |table, labels| {
                Some(table.median("lost_milliseconds", labels)? / 1_000)
            }),
            panel("Sent during the outage", sent, sent_per_100),
            panel("Sent in the minute after the outage", sent, |table, labels| {
                let asked = table.median("asked_after", labels)?.max(1);
                Some(table.median("sent_after", labels)? * 100 / asked)
            }),
        ],
    }
}
