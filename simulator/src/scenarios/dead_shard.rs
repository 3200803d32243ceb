//! One of four shards is dead, and the clients have one circuit for all shards.
//!
//! Each call needs one shard, and so do its retries. A guard that lets each request through
//! therefore answers three quarters of the calls, and no guard can answer more.

use super::random_failures::duration;
use super::{Case, Lines, Scenario, sent_per_100};
use crate::client::Guard;
use crate::client::guards::{both, breaker, none, retry};
use crate::figure::{Figure, Panel, Scale};
use crate::report::Report;
use crate::server::{Down, ServerConfig};
use crate::setup::{Load, Setup, Timeout};
use crate::table::{Labels, Table, Value};
use crate::time::SECOND;

/// Calls per second.
pub const RATES: [u32; 4] = [1, 10, 100, 1_000];

/// What the dead shard does, with the name for tables and figures.
pub const DEATHS: [(&str, Down); 3] =
    [("refused", Down::Refused), ("status_503", Down::Unavailable), ("hanging", Down::Hangs)];

/// The guards.
pub fn guards() -> [Guard; 4] {
    [none(), breaker(), retry(), both()]
}

/// The scenario.
///
/// | column | content |
/// |---|---|
/// | `asked` | calls |
/// | `answered` | calls that were answered |
/// | `rejected` | calls that the breaker rejected before any request was sent |
/// | `sent` | requests that were sent |
/// | `answered_per_mille` | answered calls of 1,000 |
pub const SCENARIO: Scenario = Scenario {
    name: "dead-shard",
    about: "share of calls that are answered if one of four shards is dead, by the request rate",
    columns: (
        &["guard", "dead", "requests_per_second"],
        &["asked", "answered", "rejected", "sent", "answered_per_mille"],
    ),
    cases,
    measure,
    figure,
};

fn cases() -> Vec<Case> {
    let rates = |guard: &Guard, death| RATES.map(|rate| case(guard, death, rate));
    let deaths = |guard: Guard| DEATHS.map(|death| rates(&guard, death)).into_iter().flatten();
    guards().into_iter().flat_map(deaths).collect()
}

/// Returns the case of a guard, a kind of death with its name, and a number of calls per second.
pub fn case(guard: &Guard, (name, down): (&'static str, Down), rate: u32) -> Case {
    let server = ServerConfig { rate: 10_000, shards: 4, dead: Some((1, down)), ..ServerConfig::default() };
    let setup = Setup {
        seed: 0,
        processes: 1,
        guard: guard.clone(),
        load: Load::Open { per_second: rate },
        timeout: Timeout::Inside(SECOND),
        server,
        until: duration(rate),
    };
    Case { labels: vec![Value::Name(guard.name), Value::Name(name), Value::Number(rate.into())], setup }
}

fn measure(_: &Setup, report: &Report) -> Vec<i64> {
    let total = report.total();
    let share = total.answered * 1_000 / total.asked.max(1);
    [total.asked, total.answered, total.rejected, total.sent, share].map(u64::cast_signed).to_vec()
}

fn figure(table: &Table) -> Figure {
    let guards = guards();
    let panel = |title: &str, death, y, value: fn(&Table, Labels<'_>) -> Option<i64>| {
        let labels = [("dead", Value::Name(death))];
        let lines = Lines { guards: &guards, axis: "requests_per_second", numbers: &RATES, labels: &labels };
        Panel {
            title: title.to_owned(),
            x_label: "calls/s",
            x_ticks: lines.ticks(),
            y,
            series: lines.series(|labels| value(table, labels)),
        }
    };
    let answered = Scale { label: "calls answered, of 1000", last: 1_000, step: 250, last_text: None };
    let sent = Scale { label: "requests per 100 calls", last: 200, step: 50, last_text: None };
    let share = |table: &Table, labels: Labels<'_>| table.median("answered_per_mille", labels);
    Figure {
        title: "One of four shards is dead, one circuit",
        panels: vec![
            panel("Answered, if it refuses connections", "refused", answered, share),
            panel("Answered, if it hangs", "hanging", answered, share),
            panel("Sent, if it refuses connections", "refused", sent, sent_per_100),
            panel("Sent, if it hangs", "hanging", sent, sent_per_100),
        ],
    }
}
