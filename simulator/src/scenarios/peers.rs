//! The breakers and retries of other projects, in two scenarios: random failures, and the outage of
//! the scenario `metastable`.

use super::{Case, Lines, Scenario, cases_of, metastable, random_failures};
use crate::client::Guard;
use crate::client::guards::peers::{
    aws, envoy, gobreaker, grpc, hystrix, linkerd, polly, polly_breaker, resilience4j, resilience4j_breaker,
    tower,
};
use crate::client::guards::{both, breaker, none};
use crate::figure::{Figure, Panel, Scale};
use crate::report::Report;
use crate::setup::Setup;
use crate::table::Table;

/// Requests per second, with random failures.
pub const RATE: u32 = 100;

/// How many of 1,000 requests fail at random.
pub const FAILING: [u32; 7] = [50, 100, 200, 250, 300, 400, 500];

/// The guards for random failures: breakers without retries.
pub fn breakers() -> [Guard; 8] {
    [none(), breaker(), resilience4j_breaker(), polly_breaker(), envoy(), gobreaker(), linkerd(), hystrix()]
}

/// The guards for the outage: retries, with a breaker if the project has one.
pub fn retries() -> [Guard; 7] {
    [none(), both(), resilience4j(), polly(), grpc(), aws(), tower()]
}

/// The scenario of random failures.
///
/// | column | content |
/// |---|---|
/// | `asked` | calls |
/// | `answered` | calls that were answered |
/// | `rejected` | calls that the breaker rejected |
/// | `answered_per_mille`, `rejected_per_mille` | the same, of 1,000 calls |
pub const RANDOM_FAILURES: Scenario = Scenario {
    name: "peers-random-failures",
    about: "share of calls that breakers of other projects reject if requests fail at random",
    columns: (
        &["guard", "requests_per_second", "failing_per_mille"],
        &["asked", "answered", "rejected", "answered_per_mille", "rejected_per_mille"],
    ),
    cases: random_failure_cases,
    measure: measure_random_failures,
    figure: random_failures_figure,
};

/// The scenario of the outage. Its columns are those of [`metastable::SCENARIO`].
pub const OUTAGE: Scenario = Scenario {
    name: "peers-outage",
    about: "time until a fleet with retries of other projects recovers from an outage of 10 s",
    columns: metastable::COLUMNS,
    cases: outage_cases,
    measure: metastable::measure,
    figure: outage_figure,
};

fn random_failure_cases() -> Vec<Case> {
    let shares = |guard: Guard| FAILING.map(|failing| random_failures::case(&guard, RATE, failing));
    breakers().into_iter().flat_map(shares).collect()
}

fn measure_random_failures(_: &Setup, report: &Report) -> Vec<i64> {
    let total = report.total();
    let per_mille = |calls: u64| calls * 1_000 / total.asked.max(1);
    let shares = [per_mille(total.answered), per_mille(total.rejected)];
    [total.asked, total.answered, total.rejected].into_iter().chain(shares).map(u64::cast_signed).collect()
}

fn random_failures_figure(table: &Table) -> Figure {
    let guards = breakers();
    let lines = Lines { guards: &guards, axis: "failing_per_mille", numbers: &FAILING, labels: &[] };
    let panel = |title: &str, label, column: &str| Panel {
        title: title.to_owned(),
        x_label: "% of the requests fail",
        x_ticks: FAILING.map(|failing| (failing / 10).to_string()).to_vec(),
        y: Scale { label, last: 100, step: 20, last_text: None },
        series: lines.series(|labels| Some(table.median(column, labels)? / 10)),
    };
    Figure {
        title: "Random failures at 100 calls/s, one circuit",
        panels: vec![
            panel("Answered", "% of the calls answered", "answered_per_mille"),
            panel("Rejected by the breaker", "% of the calls rejected", "rejected_per_mille"),
        ],
    }
}

fn outage_cases() -> Vec<Case> {
    cases_of(retries(), &metastable::PROCESSES, metastable::case)
}

fn outage_figure(table: &Table) -> Figure {
    metastable::figure_of("Other projects after an outage of 10 s", table, &retries(), &metastable::PROCESSES)
}
