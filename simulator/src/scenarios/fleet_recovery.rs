//! Recovery of a fleet after an outage, with and without a backlog.
//!
//! A server of 100 requests per second receives 70 per second in all. In the outage it hangs, or
//! refuses connections. Its queue has no limit, or a limit that it can serve within the timeout.
//! With a backlog, the items that are not answered wait for their workers.

use std::ops::Range;
use std::time::Duration;

use plotters::style::RGBColor;
use tower_breaker::{BreakerConfig, BreakerConfigBuilder};

use super::{Case, Lines, Scenario};
use crate::client::guards::{both, none};
use crate::client::{Breaker, Guard};
use crate::figure::{Figure, Panel, Scale, colour};
use crate::report::Report;
use crate::server::{Down, Outage, ServerConfig};
use crate::setup::{Load, Setup, Timeout};
use crate::table::{Labels, Table, Value};
use crate::time::SECOND;

/// Requests per second in all.
const OFFERED: u32 = 70;
/// The second in which the outage begins. The windows of budgets and circuits are full by then.
const BEGIN: usize = 70;
/// How many seconds after the outage a run lasts.
pub const HORIZON: u32 = 600;

/// The numbers of processes.
pub const PROCESSES: [u32; 4] = [1, 10, 100, 1_000];

/// The lengths of the outage, in seconds.
pub const OUTAGES: [u32; 2] = [10, 60];

/// How many requests the server with a bounded queue keeps. It serves them in half of the timeout.
const BOUND: usize = 50;

/// The server of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In the outage it hangs. Its queue has no limit.
    Hangs,
    /// In the outage it hangs. It answers with 503 if its queue is full.
    Bounded,
    /// In the outage it refuses connections. Its queue has no limit.
    Refuses,
}

/// The servers.
pub const SERVERS: [Backend; 3] = [Backend::Hangs, Backend::Bounded, Backend::Refuses];

impl Backend {
    const fn name(self) -> &'static str {
        match self {
            Self::Hangs => "hangs",
            Self::Bounded => "bounded",
            Self::Refuses => "refuses",
        }
    }

    fn config(self, outage: Range<u64>) -> ServerConfig {
        let (down, queue) = match self {
            Self::Hangs => (Down::Hangs, None),
            Self::Bounded => (Down::Hangs, Some(BOUND)),
            Self::Refuses => (Down::Refused, None),
        };
        ServerConfig { outage: Some(Outage::new(outage, down)), queue, ..ServerConfig::default() }
    }
}

/// The guards: without a breaker, and the default retries above breakers.
pub fn guards() -> Vec<Guard> {
    let default = BreakerConfig::builder;
    let without_jitter = default().open_for(Duration::from_millis(3_750)).open_jitter(0.0);
    vec![
        none(),
        both(),
        above("jitter_0", colour::ORANGE, default().open_jitter(0.0)),
        above("jitter_0.5", colour::BLUE, default().open_jitter(0.5)),
        above("jitter_1", colour::SKY, default().open_jitter(1.0)),
        above("open_3.75s_jitter_0", colour::GREY, without_jitter),
        above("backoff", colour::RED, default().open_backoff(2.0, Duration::from_secs(60))),
        above("slow_start", colour::PURPLE, default().slow_start(Duration::from_secs(5))),
        above("successes_10", colour::YELLOW, default().slow_start_successes(10)),
    ]
}

/// Returns the default retries above a breaker.
fn above(name: &'static str, colour: RGBColor, breaker: BreakerConfigBuilder) -> Guard {
    Guard { name, colour, breaker: Some(Breaker::Local(breaker)), ..both() }
}

/// The scenario.
///
/// | column | content |
/// |---|---|
/// | `back_seconds` | seconds after the outage until the backlog is empty, or until 95 % of the calls are answered; -1: never, in 600 s |
/// | `asked` | calls that began in the outage |
/// | `sent` | requests that were sent in the outage |
/// | `peak` | requests in the busiest second of the minute after the outage |
/// | `left` | items that are in the backlog at the end |
pub const SCENARIO: Scenario = Scenario {
    name: "fleet-recovery",
    about: "time until a fleet recovers from an outage, with and without a backlog",
    columns: (
        &["guard", "load", "server", "outage_seconds", "processes"],
        &["back_seconds", "asked", "sent", "peak", "left"],
    ),
    cases,
    measure,
    figure,
};

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for guard in guards() {
        for backlog in [false, true] {
            for (server, seconds) in
                SERVERS.into_iter().flat_map(|server| OUTAGES.map(|outage| (server, outage)))
            {
                cases.extend(PROCESSES.map(|processes| case(&guard, backlog, server, seconds, processes)));
            }
        }
    }
    cases
}

/// Returns the case of a guard, with or without a backlog, the server, the seconds of the outage,
/// and the number of processes.
pub fn case(guard: &Guard, backlog: bool, server: Backend, seconds: u32, processes: u32) -> Case {
    let end = BEGIN as u64 + u64::from(seconds);
    let during = BEGIN as u64 * SECOND..end * SECOND;
    let setup = Setup {
        seed: 0,
        processes,
        guard: guard.clone(),
        load: if backlog { with_backlog(processes) } else { Load::Open { per_second: OFFERED } },
        timeout: Timeout::Inside(SECOND),
        server: server.config(during),
        until: (end + u64::from(HORIZON)) * SECOND,
    };
    let [load, server] = [load_name(backlog), server.name()].map(Value::Name);
    let [seconds, processes] = [seconds, processes].map(|number| Value::Number(number.into()));
    Case { labels: vec![Value::Name(guard.name), load, server, seconds, processes], setup }
}

/// Returns the load of processes with an empty backlog. Each has a worker, and a fleet has at least
/// ten.
fn with_backlog(processes: u32) -> Load {
    let workers = (10 / processes).max(1);
    Load::Backlog { per_second: OFFERED, initial: 0, workers, pause: SECOND }
}

const fn load_name(backlog: bool) -> &'static str {
    if backlog { "backlog" } else { "calls" }
}

fn measure(setup: &Setup, report: &Report) -> Vec<i64> {
    let end = setup.server.outage.as_ref().map_or(0, |outage| outage.during.end / SECOND) as usize;
    let back = match setup.load {
        Load::Open { .. } => report.recovery(end, end + HORIZON as usize).map(|back| back as u64),
        Load::Backlog { .. } => report.drained.map(|at| at / SECOND - end as u64),
    };
    let outage = report.sum(BEGIN..end);
    let peak = (end..end + 60).map(|second| report.sum(second..second + 1).sent).max();
    let counts = [outage.asked, outage.sent, peak.unwrap_or(0), report.left];
    [back.map_or(-1, u64::cast_signed)].into_iter().chain(counts.map(u64::cast_signed)).collect()
}

/// Computes a point of a line from the rows with its labels.
type Point = fn(&Table, Labels<'_>) -> Option<i64>;

fn figure(table: &Table) -> Figure {
    let guards = guards();
    let panel = |title: &str, backlog: bool, server: Backend, seconds: u32, y: Scale, point: Point| {
        let labels = [
            ("load", Value::Name(load_name(backlog))),
            ("server", Value::Name(server.name())),
            ("outage_seconds", Value::Number(seconds.into())),
        ];
        let lines = Lines { guards: &guards, axis: "processes", numbers: &PROCESSES, labels: &labels };
        Panel {
            title: title.to_owned(),
            x_label: "processes",
            x_ticks: lines.ticks(),
            series: lines.series(|labels| point(table, labels)),
            y,
        }
    };
    let back = Scale { label: "seconds", last: 120, step: 20, last_text: Some("later") };
    let left = Scale { label: "items", last: 50_000, step: 10_000, last_text: None };
    let peak = Scale { label: "requests per second", last: 1_000, step: 200, last_text: None };
    let time: Point = |table, labels| table.median_or("back_seconds", HORIZON.into(), labels);
    let busiest: Point = |table, labels| table.median("peak", labels);
    let rest: Point = |table, labels| table.median("left", labels);
    Figure {
        title: "Recovery of a fleet",
        panels: vec![
            panel("10 s, hangs: back, without a backlog", false, Backend::Hangs, 10, back, time),
            panel("10 s, hangs: backlog empty", true, Backend::Hangs, 10, back, time),
            panel("10 s, bounded queue: back, without a backlog", false, Backend::Bounded, 10, back, time),
            panel("10 s, bounded queue: backlog empty", true, Backend::Bounded, 10, back, time),
            panel("60 s, refuses, with a backlog: busiest second", true, Backend::Refuses, 60, peak, busiest),
            panel("60 s, refuses: backlog 600 s later", true, Backend::Refuses, 60, left, rest),
        ],
    }
}
