//! Clients that fail at the same moment, with a `Retry-After` of 5 s.
//!
//! The server answers each request with 503 for three seconds. Afterwards it serves 200 requests
//! per second, and keeps 100 requests in its queue. It answers the others with 503 and
//! `Retry-After`.

use std::time::Duration;

use plotters::style::RGBColor;
use tower_breaker::BreakerConfig;
use tower_jitter_retry::{Jitter, RetryPolicy};

use super::{Case, Lines, Scenario, cases_of};
use crate::client::guards::retry;
use crate::client::{Breaker, Guard};
use crate::figure::{Figure, Panel, Scale, Series, colour};
use crate::report::Report;
use crate::server::{Down, Outage, ServerConfig};
use crate::setup::{Load, Setup, Timeout};
use crate::table::{Labels, Table, Value};
use crate::time::{MILLISECOND, SECOND};

/// The seconds of `Retry-After`.
const HINT: u32 = 5;
/// How long a run lasts, in seconds.
const HORIZON: u32 = 200;

/// The numbers of clients.
pub const CLIENTS: [u32; 4] = [100, 300, 1_000, 3_000];

/// The seconds of the first panel, with the names of their columns.
const SECONDS: [(usize, &str); 11] = [
    (4, "sent_4"),
    (5, "sent_5"),
    (6, "sent_6"),
    (7, "sent_7"),
    (8, "sent_8"),
    (9, "sent_9"),
    (10, "sent_10"),
    (11, "sent_11"),
    (12, "sent_12"),
    (13, "sent_13"),
    (14, "sent_14"),
];

/// Returns the default retries without jitter.
///
/// # Panics
///
/// Does not panic: the settings are valid.
pub fn retry_no_jitter() -> Guard {
    let policy = RetryPolicy::builder().jitter(Jitter::None).build().expect("the settings are valid");
    Guard { name: "retry_no_jitter", colour: colour::ORANGE, retry: Some(policy), breaker: None }
}

/// Returns a breaker that opens at the first failure, for `seconds` or the longer `Retry-After`.
pub fn breaker(name: &'static str, colour: RGBColor, seconds: u64, open_jitter: f64) -> Guard {
    let config = BreakerConfig::builder()
        .consecutive_failures(1)
        .consecutive_failures_span(Duration::ZERO)
        .open_for(Duration::from_secs(seconds))
        .open_jitter(open_jitter);
    Guard { name, colour, retry: None, breaker: Some(Breaker::Local(config)) }
}

/// The guards.
pub fn guards() -> [Guard; 6] {
    [
        retry_no_jitter(),
        retry(),
        breaker("open_1s_jitter_1", colour::GREEN, 1, 1.0),
        breaker("open_5s_jitter_0", colour::BLACK, 5, 0.0),
        breaker("open_5s_jitter_0.5", colour::SKY, 5, 0.5),
        breaker("open_5s_jitter_1", colour::PURPLE, 5, 1.0),
    ]
}

/// The scenario.
///
/// | column | content |
/// |---|---|
/// | `peak` | most requests in a tenth of a second, after the first second |
/// | `done_milliseconds` | the time until each client is answered; -1: never, in 200 s |
/// | `sent` | requests that were sent |
/// | `sent_4` to `sent_14` | requests that were sent in this second |
pub const SCENARIO: Scenario = Scenario {
    name: "retry-after",
    about: "how clients return that failed together with `Retry-After`, by their number",
    columns: (
        &["guard", "clients"],
        &[
            "peak",
            "done_milliseconds",
            "sent",
            "sent_4",
            "sent_5",
            "sent_6",
            "sent_7",
            "sent_8",
            "sent_9",
            "sent_10",
            "sent_11",
            "sent_12",
            "sent_13",
            "sent_14",
        ],
    ),
    cases,
    measure,
    figure,
};

fn cases() -> Vec<Case> {
    cases_of(guards(), &CLIENTS, case)
}

/// Returns the case of a guard and a number of clients.
pub fn case(guard: &Guard, clients: u32) -> Case {
    let server = ServerConfig {
        rate: 200,
        queue: Some(100),
        retry_after: Some(HINT),
        outage: Some(Outage::new(0..3 * SECOND, Down::Unavailable)),
        ..ServerConfig::default()
    };
    let setup = Setup {
        seed: 0,
        processes: clients,
        guard: guard.clone(),
        load: Load::Backlog { per_second: 0, initial: 1, workers: 1, pause: 100 * MILLISECOND },
        timeout: Timeout::Inside(SECOND),
        server,
        until: u64::from(HORIZON) * SECOND,
    };
    Case { labels: vec![Value::Name(guard.name), Value::Number(clients.into())], setup }
}

fn measure(_: &Setup, report: &Report) -> Vec<i64> {
    let peak = report.sent_tenths.iter().skip(10).max().copied().unwrap_or(0).cast_signed();
    let done = report.drained.map_or(-1, |at| (at / MILLISECOND).cast_signed());
    let sent = report.total().sent.cast_signed();
    let seconds = SECONDS.map(|(second, _)| report.sum(second..second + 1).sent.cast_signed());
    [peak, done, sent].into_iter().chain(seconds).collect()
}

fn figure(table: &Table) -> Figure {
    let guards = guards();
    let lines = Lines { guards: &guards, axis: "clients", numbers: &CLIENTS, labels: &[] };
    let panel = |title: &str, y, value: fn(&Table, Labels<'_>) -> Option<i64>| Panel {
        title: title.to_owned(),
        x_label: "clients",
        x_ticks: lines.ticks(),
        y,
        series: lines.series(|labels| value(table, labels)),
    };
    let share = Scale { label: "% of the clients", last: 100, step: 20, last_text: None };
    let done = Scale { label: "seconds", last: 60, step: 10, last_text: Some("≥ 60") };
    let sent =
        Scale { label: "requests per 100 clients", last: 1_000, step: 200, last_text: Some("≥ 1000") };
    Figure {
        title: "Clients that failed together, with Retry-After: 5",
        panels: vec![
            over_time(table, &guards),
            panel("Most requests in a tenth of a second", share, |table, labels| {
                let (_, clients) = labels.iter().find(|(name, _)| *name == "clients")?;
                Some(table.median("peak", labels)? * 100 / clients.number())
            }),
            panel("Time until each client is answered", done, |table, labels| {
                Some(table.median_or("done_milliseconds", i64::from(HORIZON) * 1_000, labels)? / 1_000)
            }),
            panel("Requests until each client is answered", sent, |table, labels| {
                let (_, clients) = labels.iter().find(|(name, _)| *name == "clients")?;
                Some(table.median("sent", labels)? * 100 / clients.number())
            }),
        ],
    }
}

/// Returns the panel of the requests in each second, with 1,000 clients.
fn over_time(table: &Table, guards: &[Guard]) -> Panel {
    let line = |guard: &Guard| {
        let labels = [("guard", Value::Name(guard.name)), ("clients", Value::Number(1_000))];
        let values = SECONDS.map(|(_, column)| table.median(column, &labels));
        Series { name: guard.name, colour: guard.colour, values: values.to_vec() }
    };
    Panel {
        title: "Requests of 1,000 clients".to_owned(),
        x_label: "second after the failure",
        x_ticks: SECONDS.map(|(second, _)| second.to_string()).to_vec(),
        y: Scale { label: "requests/s", last: 1_000, step: 200, last_text: None },
        series: guards.iter().map(line).collect(),
    }
}
