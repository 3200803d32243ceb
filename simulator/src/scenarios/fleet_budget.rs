//! The outage of [`metastable`], with retries alone: which budget ends it in a large fleet.

use tower_jitter_retry::budget::{BudgetBuilder, BudgetSettings};
use tower_jitter_retry::{Budget, RetryPolicy};

use super::{Case, Scenario, cases_of, metastable};
use crate::client::Guard;
use crate::client::guards::{none, retry};
use crate::figure::{Figure, colour};
use crate::report::Report;
use crate::setup::Setup;
use crate::table::Table;

/// The numbers of processes.
pub const PROCESSES: [u32; 5] = [1, 10, 100, 1_000, 10_000];

/// The guards: three attempts, each guard with another budget, and no breaker.
pub fn guards() -> [Guard; 10] {
    let window = |retries: f64| BudgetBuilder::Window(Budget::window().ratio(0.2).min_per_second(retries));
    let small = Budget::aws().capacity(100).cost(10).timeout_cost(10).increment(1);
    let budget = |name, colour, budget| guard(name, colour, Some(budget));
    [
        none(),
        guard("no_budget", colour::ORANGE, None),
        budget("window_10", colour::RED, window(10.0)),
        budget("window_1", colour::PURPLE, window(1.0)),
        budget("window_0.1", colour::BLUE, window(0.1)),
        budget("window_0", colour::GREEN, window(0.0)),
        budget("grpc", colour::SKY, BudgetBuilder::Grpc(Budget::grpc())),
        budget("aws", colour::GREY, BudgetBuilder::Aws(Budget::aws())),
        budget("tokens_100", colour::YELLOW, BudgetBuilder::Aws(small)),
        Guard { name: "default", ..retry() },
    ]
}

/// Returns retries with three attempts and this budget.
fn guard(name: &'static str, colour: plotters::style::RGBColor, budget: Option<BudgetBuilder>) -> Guard {
    let budget = budget.map(|budget| budget.build().expect("the settings are valid"));
    let policy =
        RetryPolicy::builder().max_attempts(3).budget(budget).build().expect("the settings are valid");
    Guard { name, colour, retry: Some(policy), breaker: None }
}

/// The scenario.
///
/// The columns are those of [`metastable::SCENARIO`], and `limit_per_second`: the requests per
/// second that the clients can send in a long outage; -1: the budget does not depend on time.
pub const SCENARIO: Scenario = Scenario {
    name: "fleet-budget",
    about: "time until a fleet with retries recovers from an outage, by the retry budget",
    columns: (
        metastable::COLUMNS.0,
        &[
            "back_seconds",
            "lost_milliseconds",
            "asked",
            "sent",
            "asked_after",
            "sent_after",
            "limit_per_second",
        ],
    ),
    cases,
    measure,
    figure,
};

fn cases() -> Vec<Case> {
    cases_of(guards(), &PROCESSES, case)
}

/// Returns the case of a guard and a number of processes.
pub fn case(guard: &Guard, processes: u32) -> Case {
    metastable::case(guard, processes)
}

fn measure(setup: &Setup, report: &Report) -> Vec<i64> {
    let limit = limit(setup).map_or(-1, i64::from);
    metastable::measure(setup, report).into_iter().chain([limit]).collect()
}

/// Returns the requests per second that the clients send if no call succeeds: each call makes all
/// attempts, or fewer if the budgets do not pay for them.
fn limit(setup: &Setup) -> Option<u32> {
    let offered = setup.load.per_second();
    let Some(policy) = &setup.guard.retry else { return Some(offered) };
    let attempts = policy.max_attempts().unwrap_or(u32::MAX).saturating_mul(offered);
    let Some(budget) = policy.budget() else { return Some(attempts) };
    let Some(BudgetSettings::Window { ratio, min_per_second, .. }) = budget.settings() else { return None };
    let paid = f64::from(offered) * (1.0 + ratio) + f64::from(setup.processes) * min_per_second;
    #[expect(clippy::cast_sign_loss, reason = "the settings are not negative")]
    Some(attempts.min(paid.round() as u32))
}

fn figure(table: &Table) -> Figure {
    metastable::figure_of("Retries without a breaker, by the budget", table, &guards(), &PROCESSES)
}
