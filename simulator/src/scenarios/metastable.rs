//! A short outage, after which retries may keep the server overloaded.
//!
//! One FIFO server of 100 requests per second receives 70 per second in all. For ten seconds it
//! accepts requests and does not work on them. It does not notice when a client stops waiting, and
//! so it works on requests whose clients have gone.

use super::{Case, Scenario};
use crate::client::Guard;
use crate::report::Report;
use crate::run::{Load, Setup};
use crate::server::{Down, Outage, ServerConfig};
use crate::table::Value;
use crate::time::SECOND;

/// Requests per second in all.
const OFFERED: u32 = 70;
/// The second in which the outage begins. The windows of budgets and circuits are full by then.
const BEGIN: usize = 70;
/// The second in which the outage ends.
const END: usize = BEGIN + 10;
/// How many seconds after the outage a run lasts.
pub const HORIZON: usize = 300;

/// The numbers of processes.
pub const PROCESSES: [u32; 4] = [1, 10, 100, 1_000];

/// The guards.
pub const GUARDS: [Guard; 6] =
    [Guard::NONE, Guard::NAIVE, Guard::RETRY, Guard::BREAKER, Guard::BOTH, Guard::HIGH_TRAFFIC];

/// The scenario.
///
/// | column | content |
/// |---|---|
/// | `back_seconds` | seconds after the outage until 95 % of the calls are answered; -1: never, in 300 s |
/// | `lost_milliseconds` | calls that were not answered, as a time of the traffic |
/// | `asked` | calls that began in the outage |
/// | `sent` | requests that were sent in the outage |
pub const SCENARIO: Scenario = Scenario {
    name: "metastable",
    about: "time until a fleet recovers from an outage of 10 s, by the number of processes",
    columns: (&["guard", "processes"], &["back_seconds", "lost_milliseconds", "asked", "sent"]),
    cases,
    measure,
};

fn cases() -> Vec<Case> {
    let processes = |guard| PROCESSES.map(|processes| case(guard, processes));
    GUARDS.into_iter().flat_map(processes).collect()
}

/// Returns the case of a guard and a number of processes.
pub fn case(guard: Guard, processes: u32) -> Case {
    let during = BEGIN as u64 * SECOND..END as u64 * SECOND;
    let server = ServerConfig { outage: Some(Outage::new(during, Down::Hangs)), ..ServerConfig::default() };
    let setup = Setup {
        seed: 0,
        processes,
        guard,
        load: Load::Open { per_second: OFFERED },
        timeout: SECOND,
        server,
        until: (END + HORIZON) as u64 * SECOND,
    };
    Case { labels: vec![Value::Name(guard.name()), Value::Number(processes.into())], setup }
}

fn measure(_: &Setup, report: &Report) -> Vec<i64> {
    let back = report.recovery(END, END + HORIZON);
    let after = report.sum(BEGIN..END + HORIZON);
    let lost = (after.asked - after.answered) * 1_000 / u64::from(OFFERED);
    let outage = report.sum(BEGIN..END);
    let back = back.map_or(-1, |back| (back as u64).cast_signed());
    vec![back, lost.cast_signed(), outage.asked.cast_signed(), outage.sent.cast_signed()]
}
