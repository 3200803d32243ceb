//! A server that becomes slow or hangs, with the timeout inside or outside of the breaker.
//!
//! The server has one worker for each call per second, and a request usually takes 20 ms. When the
//! server is 20 times slower, a request takes 400 ms: nearly all calls are still answered in time.

use std::time::Duration;

use tower_breaker::{BreakerConfig, CancelledPolicy};

use super::{Case, Lines, Scenario, sent_per_100};
use crate::client::guards::{both, breaker};
use crate::client::{Breaker, Guard};
use crate::figure::{Figure, Panel, Scale, colour};
use crate::report::Report;
use crate::server::{Down, Outage, ServerConfig};
use crate::setup::{Load, Setup, Timeout};
use crate::table::{Labels, Table, Value};
use crate::time::SECOND;

/// The second in which the fault begins. The windows of the circuits are full by then.
const BEGIN: usize = 70;
/// How many seconds the fault lasts.
pub const FAULT: u32 = 120;
/// The second in which the fault ends.
const END: usize = BEGIN + FAULT as usize;
/// How many seconds after the fault a run lasts.
const HORIZON: usize = 120;

/// Calls per second.
pub const RATES: [u32; 3] = [1, 10, 100];

/// What the server does in the fault, with the name for tables.
pub const FAULTS: [(&str, Down); 2] = [("slow", Down::Slow(20)), ("hanging", Down::Hangs)];

/// Where the timeout is, with the name for tables.
pub const TIMEOUTS: [(&str, Timeout); 2] =
    [("inside", Timeout::Inside(SECOND)), ("outside", Timeout::Outside(SECOND))];

/// Returns a breaker that opens when half of the calls take 200 ms or longer.
pub fn slow_call_rate() -> Guard {
    let config = BreakerConfig::builder().slow_call_rate(Duration::from_millis(200), 0.5);
    let breaker = Some(Breaker::Local(config));
    Guard { name: "slow_call_rate", colour: colour::PURPLE, retry: None, breaker }
}

/// Returns a breaker that records a call as failed if it is cancelled after 500 ms or later.
pub fn failure_after() -> Guard {
    let after = CancelledPolicy::FailureAfter(Duration::from_millis(500));
    let breaker = Some(Breaker::Local(BreakerConfig::builder().cancelled(after)));
    Guard { name: "failure_after", colour: colour::ORANGE, retry: None, breaker }
}

/// The guards.
pub fn guards() -> [Guard; 4] {
    [breaker(), both(), slow_call_rate(), failure_after()]
}

/// The scenario.
///
/// | column | content |
/// |---|---|
/// | `reject_seconds` | seconds from the beginning of the fault until a call is rejected; -1: never, in the fault |
/// | `back_seconds` | seconds after the fault until 95 % of the calls are answered; -1: never, in 120 s |
/// | `asked` | calls that began in the fault |
/// | `answered` | how many of these calls were answered |
/// | `sent` | requests that were sent in the fault |
pub const SCENARIO: Scenario = Scenario {
    name: "slow-backend",
    about: "time until a circuit rejects calls if the server is slow or hangs, by the request rate",
    columns: (
        &["guard", "fault", "timeout", "server_cancels", "calls_per_second"],
        &["reject_seconds", "back_seconds", "asked", "answered", "sent"],
    ),
    cases,
    measure,
    figure,
};

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for guard in guards() {
        for fault in FAULTS {
            for timeout in TIMEOUTS {
                for cancels in [false, true] {
                    cases.extend(RATES.map(|rate| case(&guard, fault, timeout, cancels, rate)));
                }
            }
        }
    }
    cases
}

/// Returns the case of a guard, a fault and a timeout with their names, whether the server skips
/// requests whose clients have gone, and a number of calls per second.
pub fn case(
    guard: &Guard,
    (fault, down): (&'static str, Down),
    (place, timeout): (&'static str, Timeout),
    cancels: bool,
    rate: u32,
) -> Case {
    let during = BEGIN as u64 * SECOND..END as u64 * SECOND;
    let server = ServerConfig {
        rate: 50,
        shards: rate,
        cancels,
        outage: Some(Outage::new(during, down)),
        ..ServerConfig::default()
    };
    let setup = Setup {
        seed: 0,
        processes: 1,
        guard: guard.clone(),
        load: Load::Open { per_second: rate },
        timeout,
        server,
        until: (END + HORIZON) as u64 * SECOND,
    };
    let names = [guard.name, fault, place].map(Value::Name);
    let numbers = [cancels.into(), rate.into()].map(Value::Number);
    Case { labels: [names.as_slice(), &numbers].concat(), setup }
}

fn measure(_: &Setup, report: &Report) -> Vec<i64> {
    let reject = (BEGIN..END).find(|&second| report.sum(second..second + 1).rejected > 0);
    let back = report.recovery(END, END + HORIZON);
    let seconds = |count: Option<usize>| count.map_or(-1, |count| (count as u64).cast_signed());
    let fault = report.sum(BEGIN..END);
    let counts = [fault.asked, fault.answered, fault.sent].map(u64::cast_signed);
    [seconds(reject.map(|second| second - BEGIN)), seconds(back)].into_iter().chain(counts).collect()
}

fn figure(table: &Table) -> Figure {
    let seconds = Scale { label: "seconds", last: FAULT.into(), step: 20, last_text: Some("never") };
    let sent = Scale { label: "requests per 100 calls", last: 120, step: 20, last_text: None };
    let guards = guards();
    let row = |(fault, place, text): (&'static str, &'static str, &str)| {
        let labels = [
            ("fault", Value::Name(fault)),
            ("timeout", Value::Name(place)),
            ("server_cancels", Value::Number(0)),
        ];
        let lines = Lines { guards: &guards, axis: "calls_per_second", numbers: &RATES, labels: &labels };
        let panel = |measure: &str, y, value: fn(&Table, Labels<'_>) -> Option<i64>| Panel {
            title: format!("{measure}, {text}"),
            x_label: "calls/s",
            x_ticks: lines.ticks(),
            y,
            series: lines.series(|labels| value(table, labels)),
        };
        [panel("First rejection", seconds, reject_or_never), panel("Sent", sent, sent_per_100)]
    };
    let rows = [
        ("slow", "inside", "20 times slower"),
        ("hanging", "inside", "hangs, timeout inside"),
        ("hanging", "outside", "hangs, timeout outside"),
    ];
    Figure { title: "A fault of 120 s, one circuit", panels: rows.map(row).into_iter().flatten().collect() }
}

/// Returns the median time until a call is rejected. A run in which no call is rejected counts as
/// the whole fault.
fn reject_or_never(table: &Table, labels: Labels<'_>) -> Option<i64> {
    table.median_or("reject_seconds", FAULT.into(), labels)
}
