//! Clients that update one row, by the jitter of their backoff.
//!
//! The model and the numbers are those of M. Brooker, "Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015, and of its program, <https://github.com/aws-samples/aws-arch-backoff-simulator>.

use std::time::Duration;

use plotters::style::RGBColor;
use tower_jitter_retry::{Jitter, RetryPolicy};

use super::{Case, Lines, Scenario, cases_of};
use crate::client::Guard;
use crate::contention::Contention;
use crate::figure::{Figure, Panel, Scale, colour};
use crate::report::Report;
use crate::server::ServerConfig;
use crate::setup::{Load, Setup, Timeout};
use crate::table::{Table, Value};
use crate::time::{MILLISECOND, SECOND};

/// The numbers of clients.
pub const CLIENTS: [u32; 11] = [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100];

/// The guards.
pub fn guards() -> [Guard; 6] {
    const INITIAL: Duration = Duration::from_millis(5);
    [
        guard("no_backoff", colour::BLACK, Duration::ZERO, Jitter::None),
        guard("no_jitter", colour::ORANGE, INITIAL, Jitter::None),
        guard("full", colour::GREEN, INITIAL, Jitter::Full),
        guard("equal", colour::SKY, INITIAL, Jitter::Equal),
        guard("decorrelated", colour::RED, INITIAL, Jitter::Decorrelated),
        guard("aws_decorrelated", colour::PURPLE, INITIAL, Jitter::AwsDecorrelated),
    ]
}

fn guard(name: &'static str, colour: RGBColor, initial: Duration, jitter: Jitter) -> Guard {
    let policy = RetryPolicy::builder()
        .initial_backoff(initial)
        .backoff_multiplier(2.0)
        .max_backoff(Duration::from_secs(2))
        .jitter(jitter)
        .max_attempts(1_000)
        .max_elapsed(None)
        .budget(None);
    Guard { name, colour, retry: Some(policy.build().expect("the settings are valid")), breaker: None }
}

/// The scenario.
///
/// | column | content |
/// |---|---|
/// | `writes` | writes that arrived at the server |
/// | `done_milliseconds` | the time until the last client ended |
/// | `gave_up` | clients whose write was not accepted in 1,000 attempts |
pub const SCENARIO: Scenario = Scenario {
    name: "backoff-and-jitter",
    about: "writes and time until all clients have updated one row, by the number of clients",
    columns: (&["guard", "clients"], &["writes", "done_milliseconds", "gave_up"]),
    cases,
    measure,
    figure,
};

fn cases() -> Vec<Case> {
    cases_of(guards(), &CLIENTS, case)
}

/// Returns the case of a guard with retries and a number of clients.
///
/// The updates have a loop of their own. The setup has the clients, the policy and the seed, and no
/// calls.
pub fn case(guard: &Guard, clients: u32) -> Case {
    let setup = Setup {
        seed: 0,
        processes: clients,
        guard: guard.clone(),
        load: Load::Open { per_second: 0 },
        timeout: Timeout::Inside(SECOND),
        server: ServerConfig::default(),
        until: 0,
    };
    Case { labels: vec![Value::Name(guard.name), Value::Number(clients.into())], setup }
}

fn measure(setup: &Setup, _: &Report) -> Vec<i64> {
    let contention = Contention {
        seed: setup.seed,
        clients: setup.processes,
        delay: 10 * MILLISECOND,
        deviation: 2 * MILLISECOND,
    };
    let policy = setup.guard.retry.as_ref().expect("each guard of this scenario has retries");
    let outcome = contention.run(policy);
    [outcome.writes, outcome.ended / MILLISECOND, outcome.gave_up].map(u64::cast_signed).to_vec()
}

fn figure(table: &Table) -> Figure {
    let guards = guards();
    let lines = Lines { guards: &guards, axis: "clients", numbers: &CLIENTS, labels: &[] };
    let panel = |title: &str, column, y| Panel {
        title: title.to_owned(),
        x_label: "clients",
        x_ticks: lines.ticks(),
        y,
        series: lines.series(|labels| table.median(column, labels)),
    };
    let writes = Scale { label: "writes", last: 3_000, step: 500, last_text: None };
    let time = Scale { label: "milliseconds", last: 7_000, step: 1_000, last_text: Some("≥ 7000") };
    Figure {
        title: "Clients that update one row",
        panels: vec![
            panel("Writes, accepted or refused", "writes", writes),
            panel("Time until all clients are done", "done_milliseconds", time),
        ],
    }
}
