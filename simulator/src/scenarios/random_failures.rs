//! A server that fails at random and otherwise works: no breaker helps.
//!
//! One process calls a server with much capacity. A share of the requests is answered with 503.

use super::{Case, Lines, Scenario};
use crate::client::Guard;
use crate::client::guards::{both, breaker, gateway, none, retry};
use crate::figure::{Figure, Panel, Scale};
use crate::report::Report;
use crate::server::ServerConfig;
use crate::setup::{Load, Setup, Timeout};
use crate::table::{Table, Value};
use crate::time::{MINUTE, SECOND};

/// Requests per second.
pub const RATES: [u32; 5] = [1, 10, 100, 1_000, 10_000];

/// How many of 1,000 requests fail.
pub const FAILING: [u32; 10] = [10, 20, 50, 100, 150, 200, 250, 300, 400, 500];

/// The guards.
pub fn guards() -> [Guard; 5] {
    [none(), breaker(), retry(), both(), gateway()]
}

/// The scenario.
///
/// | column | content |
/// |---|---|
/// | `asked` | calls |
/// | `answered` | calls that were answered |
/// | `sent` | requests that were sent |
/// | `answered_per_mille` | answered calls of 1,000 |
pub const SCENARIO: Scenario = Scenario {
    name: "random-failures",
    about: "share of calls that are answered if requests fail at random, by the request rate",
    columns: (
        &["guard", "requests_per_second", "failing_per_mille"],
        &["asked", "answered", "sent", "answered_per_mille"],
    ),
    cases,
    measure,
    figure,
};

fn cases() -> Vec<Case> {
    let shares = |guard: &Guard, rate| FAILING.map(|failing| case(guard, rate, failing));
    let rates = |guard: Guard| RATES.map(|rate| shares(&guard, rate)).into_iter().flatten();
    guards().into_iter().flat_map(rates).collect()
}

/// Returns how long a run lasts: longer at low rates, because a circuit trips seldom there.
pub(super) fn duration(rate: u32) -> u64 {
    match rate {
        0..=10 => 60 * MINUTE,
        11..=100 => 20 * MINUTE,
        101..=1_000 => 5 * MINUTE,
        _ => 20 * SECOND,
    }
}

/// Returns the case of a guard, a number of requests per second, and a share that fails.
pub fn case(guard: &Guard, rate: u32, failing_per_mille: u32) -> Case {
    let setup = Setup {
        seed: 0,
        processes: 1,
        guard: guard.clone(),
        load: Load::Open { per_second: rate },
        timeout: Timeout::Inside(SECOND),
        server: ServerConfig { rate: 10 * rate.max(1_000), failing_per_mille, ..ServerConfig::default() },
        until: duration(rate),
    };
    let numbers = [rate, failing_per_mille].map(|number| Value::Number(number.into()));
    Case { labels: [Value::Name(guard.name)].into_iter().chain(numbers).collect(), setup }
}

pub(super) fn measure(_: &Setup, report: &Report) -> Vec<i64> {
    let total = report.total();
    let share = total.answered * 1_000 / total.asked.max(1);
    [total.asked, total.answered, total.sent, share].map(u64::cast_signed).to_vec()
}

fn figure(table: &Table) -> Figure {
    let guards = guards();
    let panel = |rate: u32| {
        let labels = [("requests_per_second", Value::Number(rate.into()))];
        let lines = Lines { guards: &guards, axis: "failing_per_mille", numbers: &FAILING, labels: &labels };
        Panel {
            title: format!("{rate} calls/s"),
            x_label: "% of the requests fail",
            x_ticks: FAILING.map(|failing| (failing / 10).to_string()).to_vec(),
            y: Scale { label: "% of the calls answered", last: 100, step: 20, last_text: None },
            series: lines.series(|labels| Some(table.median("answered_per_mille", labels)? / 10)),
        }
    };
    Figure { title: "Random failures, one circuit", panels: RATES.map(panel).to_vec() }
}
