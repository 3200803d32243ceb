//! The outage of [`metastable`]: one circuit for the whole fleet against one in each process.

use tower_breaker::BreakerConfig;

use super::{Case, Scenario, cases_of, metastable};
use crate::client::guards::{both, retry};
use crate::client::{Breaker, Guard};
use crate::figure::{Figure, colour};
use crate::table::Table;
use crate::time::{MILLISECOND, SECOND};

/// The numbers of processes.
pub const PROCESSES: [u32; 5] = [1, 10, 100, 1_000, 10_000];

/// The guards: the default retries, without a breaker or above the default breaker.
pub fn guards() -> [Guard; 5] {
    [
        retry(),
        Guard { name: "local", ..both() },
        shared("shared", colour::BLACK, 0),
        shared("shared_100ms", colour::BLUE, 100 * MILLISECOND),
        shared("shared_1s", colour::ORANGE, SECOND),
    ]
}

/// Returns the guard with one circuit for all processes, whose state they see `delay` later.
fn shared(name: &'static str, colour: plotters::style::RGBColor, delay: u64) -> Guard {
    Guard { name, colour, breaker: Some(Breaker::Shared(BreakerConfig::builder(), delay)), ..both() }
}

/// The scenario. The columns are those of [`metastable::SCENARIO`].
pub const SCENARIO: Scenario = Scenario {
    name: "shared-circuit",
    about: "time until a fleet recovers from an outage, with a circuit of each process or of all",
    columns: metastable::COLUMNS,
    cases,
    measure: metastable::measure,
    figure,
};

fn cases() -> Vec<Case> {
    cases_of(guards(), &PROCESSES, case)
}

/// Returns the case of a guard and a number of processes.
pub fn case(guard: &Guard, processes: u32) -> Case {
    metastable::case(guard, processes)
}

fn figure(table: &Table) -> Figure {
    metastable::figure_of("One circuit for the fleet, or one in each process", table, &guards(), &PROCESSES)
}
