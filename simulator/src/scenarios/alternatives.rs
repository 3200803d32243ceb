//! Each default against another value, all other settings being the defaults.
//!
//! Four tests: an outage of 10 s and one of 60 s in which the server hangs, a dead shard, and a
//! quarter of random failures.

use std::time::Duration;

use plotters::style::RGBColor;
use tower_breaker::{BreakerConfig, BreakerConfigBuilder};
use tower_jitter_retry::budget::TokenBudgetBuilder;
use tower_jitter_retry::{Budget, RetryPolicy};

use super::{Case, Lines, Scenario, dead_shard, fleet_recovery, random_failures};
use crate::client::guards::both;
use crate::client::{Breaker, Guard};
use crate::figure::{Figure, Panel, Scale, colour};
use crate::report::Report;
use crate::server::Down;
use crate::setup::Setup;
use crate::table::{Table, Value};
use crate::time::SECOND;

/// The numbers of processes in the outages.
pub const PROCESSES: [u32; 4] = [1, 10, 100, 1_000];

/// Calls per second with a dead shard, and with random failures.
pub const RATES: [u32; 4] = [1, 10, 100, 1_000];

/// The defaults, and the guards that differ from them in one setting.
pub fn guards() -> Vec<Guard> {
    let default = BreakerConfig::builder;
    let open_for = |seconds| default().open_for(Duration::from_secs(seconds));
    vec![
        breaker("open_1s", colour::SKY, open_for(1)),
        breaker("open_10s", colour::BLUE, open_for(10)),
        breaker("probes_3", colour::PURPLE, default().probes(3)),
        breaker("failures_3", colour::BROWN, default().consecutive_failures(3)),
        breaker("failures_10", colour::PINK, default().consecutive_failures(10)),
        breaker("span_0", colour::RED, default().consecutive_failures_span(Duration::ZERO)),
        breaker("failed_retries", colour::ORANGE, default().count_failed_retries(true)),
        breaker("minimum_10", colour::YELLOW, default().minimum_calls(10)),
        budget("per_success_0.1", colour::GREY, Budget::tokens().per_success(0.1)),
        budget("timeout_cost_1", colour::BLACK, Budget::tokens().timeout_cost(1.0)),
        // The last line is drawn above the others.
        Guard { name: "default", colour: colour::GREEN, ..both() },
    ]
}

/// More values, which are in the table only: they make hardly any difference in these tests.
pub fn undecided() -> Vec<Guard> {
    let default = BreakerConfig::builder;
    let window = |seconds| default().time_window(Duration::from_secs(seconds));
    let without_jitter = default().open_for(Duration::from_millis(3_750)).open_jitter(0.0);
    vec![
        breaker("failure_rate_0.7", colour::GREY, default().failure_rate(0.7)),
        breaker("window_5s", colour::GREY, window(5)),
        breaker("window_30s", colour::GREY, window(30)),
        breaker("close_1", colour::GREY, default().successes_to_close(1)),
        breaker("close_5", colour::GREY, default().successes_to_close(5)),
        breaker("open_3.75s_jitter_0", colour::GREY, without_jitter),
    ]
}

fn breaker(name: &'static str, colour: RGBColor, config: BreakerConfigBuilder) -> Guard {
    Guard { name, colour, breaker: Some(Breaker::Local(config)), ..both() }
}

fn budget(name: &'static str, colour: RGBColor, budget: TokenBudgetBuilder) -> Guard {
    let budget = budget.build().expect("the settings are valid");
    let policy = RetryPolicy::builder().budget(budget).build().expect("the settings are valid");
    Guard { name, colour, retry: Some(policy), ..both() }
}

/// The units of the figure.
const SECONDS: &str = "seconds of traffic lost";
const CALLS: &str = "calls lost, of 1000";

/// The scenario. `number` is the number of processes in an outage, and calls per second otherwise.
///
/// | column | content |
/// |---|---|
/// | `lost_milliseconds` | in an outage: calls that were not answered, as a time of the traffic; otherwise -1 |
/// | `lost_per_mille` | calls of 1,000 that were not answered |
pub const SCENARIO: Scenario = Scenario {
    name: "alternatives",
    about: "each default against another value, in outages and under failures",
    columns: (&["guard", "test", "number"], &["lost_milliseconds", "lost_per_mille"]),
    cases,
    measure,
    figure,
};

/// The tests, with the numbers of their cases.
pub const TESTS: [(&str, [u32; 4]); 4] =
    [("outage_10s", PROCESSES), ("outage_60s", PROCESSES), ("dead_shard", RATES), ("random_failures", RATES)];

fn cases() -> Vec<Case> {
    let numbers = |guard: &Guard, (test, numbers): (&'static str, [u32; 4])| {
        numbers.map(|number| case(guard, test, number))
    };
    let tests = |guard: Guard| TESTS.map(|test| numbers(&guard, test)).into_iter().flatten();
    guards().into_iter().chain(undecided()).flat_map(tests).collect()
}

/// Returns the case of a guard, a test and its number.
///
/// # Panics
///
/// Panics if there is no such test.
pub fn case(guard: &Guard, test: &'static str, number: u32) -> Case {
    let outage =
        |seconds| fleet_recovery::case(guard, false, fleet_recovery::Backend::Hangs, seconds, number);
    let Case { setup, .. } = match test {
        "outage_10s" => outage(10),
        "outage_60s" => outage(60),
        "dead_shard" => dead_shard::case(guard, ("refused", Down::Refused), number),
        "random_failures" => random_failures::case(guard, number, 250),
        _ => panic!("there is no test `{test}`"),
    };
    Case { labels: vec![Value::Name(guard.name), Value::Name(test), Value::Number(number.into())], setup }
}

fn measure(setup: &Setup, report: &Report) -> Vec<i64> {
    let begin = setup.server.outage.as_ref().map(|outage| (outage.during.start / SECOND) as usize);
    let counts = report.sum(begin.unwrap_or(0)..report.seconds.len());
    let lost = counts.asked - counts.answered;
    let time = match begin {
        Some(_) => (lost * 1_000 / u64::from(setup.load.per_second())).cast_signed(),
        None => -1,
    };
    vec![time, (lost * 1_000 / counts.asked.max(1)).cast_signed()]
}

fn figure(table: &Table) -> Figure {
    let guards = guards();
    let panel = |title: &str, test: (&'static str, [u32; 4]), x_label, y: Scale| {
        let labels = [("test", Value::Name(test.0))];
        let lines = Lines { guards: &guards, axis: "number", numbers: &test.1, labels: &labels };
        let (column, unit) = match y.label {
            SECONDS => ("lost_milliseconds", 1_000),
            _ => ("lost_per_mille", 1),
        };
        let series = lines.series(|labels| Some(table.median(column, labels)? / unit));
        Panel { title: title.to_owned(), x_label, x_ticks: lines.ticks(), y, series }
    };
    let scale = |label, last| Scale { label, last, step: last / 5, last_text: None };
    let [short, long, dead, random] = TESTS;
    Figure {
        title: "Each default against another value",
        panels: vec![
            panel("Outage of 10 s", short, "processes", scale(SECONDS, 100)),
            panel("Outage of 60 s", long, "processes", scale(SECONDS, 300)),
            panel("One of four shards is dead", dead, "calls/s", scale(CALLS, 500)),
            panel("A quarter of the requests fail at random", random, "calls/s", scale(CALLS, 100)),
        ],
    }
}
