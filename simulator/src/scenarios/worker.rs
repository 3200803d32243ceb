//! A worker that makes one call at a time while its server is down: the default breaker against the
//! preset for workers.
//!
//! One process has a backlog of items and one worker. The server hangs for ten minutes.

use tower_breaker::BreakerConfig;

use super::{Case, Lines, Scenario, cases_of};
use crate::client::guards::{both, none};
use crate::client::{Breaker, Guard};
use crate::figure::{Figure, Panel, Scale, colour};
use crate::report::Report;
use crate::server::{Down, ServerConfig};
use crate::setup::{Load, Setup, Timeout};
use crate::table::{Labels, Table, Value};
use crate::time::{MINUTE, SECOND};

/// The timeouts of an attempt, in seconds.
pub const TIMEOUTS: [u32; 4] = [1, 5, 10, 30];

/// How long the server hangs, in seconds.
const DOWN_SECONDS: usize = 600;

/// The guards.
pub fn guards() -> [Guard; 3] {
    let worker = Some(Breaker::Local(BreakerConfig::single_flight()));
    [none(), both(), Guard { name: "single_flight", colour: colour::BLUE, breaker: worker, ..both() }]
}

/// The scenario.
///
/// | column | content |
/// |---|---|
/// | `reject_seconds` | seconds until the circuit rejects a call; -1: never, in ten minutes |
/// | `sent` | requests that were sent in ten minutes |
/// | `failed` | calls that were sent and failed |
pub const SCENARIO: Scenario = Scenario {
    name: "worker",
    about: "a worker that makes one call at a time to a server that hangs",
    columns: (&["guard", "timeout_seconds"], &["reject_seconds", "sent", "failed"]),
    cases,
    measure,
    figure,
};

fn cases() -> Vec<Case> {
    cases_of(guards(), &TIMEOUTS, case)
}

/// Returns the case of a guard and the timeout of an attempt, in seconds.
pub fn case(guard: &Guard, timeout: u32) -> Case {
    let setup = Setup {
        seed: 0,
        processes: 1,
        guard: guard.clone(),
        load: Load::Backlog { per_second: 0, initial: 1_000, workers: 1, pause: SECOND },
        timeout: Timeout::Inside(u64::from(timeout) * SECOND),
        server: ServerConfig { dead: Some((1, Down::Hangs)), ..ServerConfig::default() },
        until: DOWN_SECONDS as u64 * SECOND,
    };
    Case { labels: vec![Value::Name(guard.name), Value::Number(timeout.into())], setup }
}

fn measure(_: &Setup, report: &Report) -> Vec<i64> {
    let rejects = report.seconds.iter().position(|second| second.rejected > 0);
    let total = report.sum(0..DOWN_SECONDS);
    let counts = [total.sent, total.failed].map(u64::cast_signed);
    [rejects.map_or(-1, |second| (second as u64).cast_signed())].into_iter().chain(counts).collect()
}

fn figure(table: &Table) -> Figure {
    let guards = guards();
    let lines = Lines { guards: &guards, axis: "timeout_seconds", numbers: &TIMEOUTS, labels: &[] };
    let panel = |title: &str, y: Scale, value: fn(&Table, Labels<'_>) -> Option<i64>| Panel {
        title: title.to_owned(),
        x_label: "timeout of an attempt, in seconds",
        x_ticks: lines.ticks(),
        series: lines.series(|labels| value(table, labels)),
        y,
    };
    let seconds = Scale { label: "seconds", last: 600, step: 100, last_text: Some("never") };
    let requests = Scale { label: "requests", last: 300, step: 50, last_text: None };
    Figure {
        title: "A worker, and a server that hangs for ten minutes",
        panels: vec![
            panel("First rejection", seconds, |table, labels| {
                table.median_or("reject_seconds", (10 * MINUTE / SECOND).cast_signed(), labels)
            }),
            panel("Requests in ten minutes", requests, |table, labels| table.median("sent", labels)),
        ],
    }
}
