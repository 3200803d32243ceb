//! The server of [`random_failures`], which fails in bursts.

use super::{Case, Lines, Scenario, random_failures};
use crate::client::Guard;
use crate::client::guards::{both, breaker, none, retry};
use crate::figure::{Figure, Panel, Scale};
use crate::table::{Table, Value};

/// Requests per second.
pub const RATES: [u32; 2] = [10, 100];

/// How many of 1,000 requests fail.
pub const FAILING: [u32; 2] = [50, 200];

/// The mean number of requests in a burst. 0: each request fails independently of the others.
pub const BURSTS: [u32; 6] = [0, 2, 5, 10, 20, 50];

/// The guards.
pub fn guards() -> [Guard; 4] {
    [none(), breaker(), retry(), both()]
}

/// The scenario. The results are those of [`random_failures::SCENARIO`].
pub const SCENARIO: Scenario = Scenario {
    name: "failure-bursts",
    about: "share of calls that are answered if requests fail in bursts, by their length",
    columns: (
        &["guard", "requests_per_second", "failing_per_mille", "burst"],
        random_failures::SCENARIO.columns.1,
    ),
    cases,
    measure: random_failures::measure,
    figure,
};

/// Returns the pairs of a request rate and a share of failures.
fn pairs() -> impl Iterator<Item = (u32, u32)> {
    FAILING.into_iter().flat_map(|failing| RATES.map(|rate| (rate, failing)))
}

fn cases() -> Vec<Case> {
    let bursts = |guard: &Guard, (rate, failing)| BURSTS.map(|burst| case(guard, rate, failing, burst));
    guards().iter().flat_map(|guard| pairs().flat_map(move |pair| bursts(guard, pair))).collect()
}

/// Returns the case of a guard, a number of requests per second, a share that fails, and the mean
/// number of requests in a burst.
pub fn case(guard: &Guard, rate: u32, failing_per_mille: u32, burst: u32) -> Case {
    let Case { mut labels, mut setup } = random_failures::case(guard, rate, failing_per_mille);
    labels.push(Value::Number(burst.into()));
    setup.server.failing_burst = (burst > 0).then_some(burst);
    Case { labels, setup }
}

fn figure(table: &Table) -> Figure {
    let guards = guards();
    let panel = |(rate, failing): (u32, u32)| {
        let labels = [
            ("requests_per_second", Value::Number(rate.into())),
            ("failing_per_mille", Value::Number(failing.into())),
        ];
        let lines = Lines { guards: &guards, axis: "burst", numbers: &BURSTS, labels: &labels };
        let tick = |burst: u32| if burst == 0 { "none".to_owned() } else { burst.to_string() };
        Panel {
            title: format!("{} % of the requests fail, {rate} calls/s", failing / 10),
            x_label: "mean requests in a burst",
            x_ticks: BURSTS.map(tick).to_vec(),
            y: Scale { label: "% of the calls answered", last: 100, step: 20, last_text: None },
            series: lines.series(|labels| Some(table.median("answered_per_mille", labels)? / 10)),
        }
    };
    Figure { title: "Failures in bursts, one circuit", panels: pairs().map(panel).collect() }
}
