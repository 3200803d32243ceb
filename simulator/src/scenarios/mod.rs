//! The scenarios: each is a list of cases, which are run with several seeds.

pub mod alternatives;
pub mod backoff_and_jitter;
pub mod dead_shard;
pub mod failure_bursts;
pub mod fleet_budget;
pub mod fleet_recovery;
pub mod metastable;
pub mod peers;
pub mod random_failures;
pub mod retry_after;
pub mod shared_circuit;
pub mod slow_backend;
pub mod worker;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::client::Guard;
use crate::figure::{Figure, Series};
use crate::report::Report;
use crate::run::run;
use crate::setup::Setup;
use crate::table::{Labels, Table, Value};

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The name on the command line and of the files.
    pub name: &'static str,
    /// What the scenario shows, in one line.
    pub about: &'static str,
    /// The names of the labels, then those of the results.
    pub columns: (&'static [&'static str], &'static [&'static str]),
    /// Returns the cases.
    pub cases: fn() -> Vec<Case>,
    /// Returns the results of a case, one for each column.
    pub measure: fn(&Setup, &Report) -> Vec<i64>,
    /// Returns the figure of a table of all cases.
    pub figure: fn(&Table) -> Figure,
}

/// A case of a scenario: a setup, and the labels that tell it from the other cases.
#[derive(Clone, Debug)]
pub struct Case {
    /// The labels, one for each column.
    pub labels: Vec<Value>,
    /// The setup. Its seed is replaced.
    pub setup: Setup,
}

/// All scenarios.
pub const ALL: [Scenario; 14] = [
    metastable::SCENARIO,
    alternatives::SCENARIO,
    fleet_budget::SCENARIO,
    shared_circuit::SCENARIO,
    fleet_recovery::SCENARIO,
    random_failures::SCENARIO,
    failure_bursts::SCENARIO,
    dead_shard::SCENARIO,
    slow_backend::SCENARIO,
    worker::SCENARIO,
    retry_after::SCENARIO,
    backoff_and_jitter::SCENARIO,
    peers::RANDOM_FAILURES,
    peers::OUTAGE,
];

impl Scenario {
    /// Returns the scenario with this name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|scenario| scenario.name == name)
    }

    /// Runs cases of this scenario with the seeds 1 to `seeds`, on all processors. Calls `progress`
    /// after each run.
    ///
    /// The order of the rows is that of the cases and seeds.
    ///
    /// # Panics
    ///
    /// Panics if `progress` panics.
    pub fn run(&self, cases: &[Case], seeds: u64, progress: impl Fn() + Sync) -> Table {
        let runs: Vec<_> = cases.iter().flat_map(|case| (1..=seeds).map(move |seed| (case, seed))).collect();
        let (next, rows) = (AtomicUsize::new(0), Mutex::new(vec![Vec::new(); runs.len()]));
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(&(case, seed)) = runs.get(number) else { return };
                let row = self.row(case, seed);
                rows.lock().expect("no thread panics with the lock")[number] = row;
                progress();
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        let (labels, results) = self.columns;
        let columns = labels.iter().chain(&["seed"]).chain(results).copied().collect();
        Table { columns, rows: rows.into_inner().expect("no thread panics with the lock") }
    }

    fn row(&self, case: &Case, seed: u64) -> Vec<Value> {
        let setup = Setup { seed, ..case.setup.clone() };
        let results = (self.measure)(&setup, &run(&setup));
        let seed = Value::Number(seed.cast_signed());
        case.labels.iter().copied().chain([seed]).chain(results.into_iter().map(Value::Number)).collect()
    }
}

/// Returns the case of each guard with each number.
fn cases_of(
    guards: impl IntoIterator<Item = Guard>,
    numbers: &[u32],
    case: fn(&Guard, u32) -> Case,
) -> Vec<Case> {
    let of = |guard: Guard| numbers.iter().map(move |&number| case(&guard, number));
    guards.into_iter().flat_map(of).collect()
}

/// Returns the median of the requests for each 100 calls that began.
fn sent_per_100(table: &Table, labels: Labels<'_>) -> Option<i64> {
    Some(table.median("sent", labels)? * 100 / table.median("asked", labels)?.max(1))
}

/// The lines of a panel: one for each guard, with a value for each number of a label.
struct Lines<'a> {
    guards: &'a [Guard],
    /// The name of the label on the horizontal axis.
    axis: &'static str,
    numbers: &'a [u32],
    /// The other labels of the panel.
    labels: Labels<'a>,
}

impl Lines<'_> {
    /// Computes each value from the rows with the labels of its point.
    fn series(&self, value: impl Fn(Labels<'_>) -> Option<i64>) -> Vec<Series> {
        let line = |guard: &Guard| {
            let at = |&number: &u32| {
                let point = [("guard", Value::Name(guard.name)), (self.axis, Value::Number(number.into()))];
                value(&[&point, self.labels].concat())
            };
            Series { name: guard.name, colour: guard.colour, values: self.numbers.iter().map(at).collect() }
        };
        self.guards.iter().map(line).collect()
    }

    /// Returns the texts at the ticks of the horizontal axis.
    fn ticks(&self) -> Vec<String> {
        self.numbers.iter().map(u32::to_string).collect()
    }
}
