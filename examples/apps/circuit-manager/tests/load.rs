//! Calls through the circuits of many agents, beside a real PostgreSQL.
//!
//! The full run measures the cost of a guard, and what the writer sends to the database. The gate
//! has a small run, which measures nothing.

use std::fmt::Write as _;
use std::time::Duration;

use circuit_manager::guard::CallError;
use circuit_manager::manager::Manager;
use circuit_manager::settings::CircuitSettings;
use circuit_manager::store::{Store, StoreStatus, WriterSettings};
use test_servers::Postgres;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tower_breaker::CircuitState;

/// How long an agent works on a call.
const CALL_TIME: Duration = Duration::from_millis(5);

/// A call in this many uses `can_execute` and a record instead of a guard.
const UNGUARDED: u64 = 4;

/// The size of a run.
struct Plan {
    agents: u64,
    calls_per_second: u64,
    /// The time with the database, and then the time without it.
    phase: Duration,
    /// The time for which some agents fail. Then others do.
    wave: Duration,
    cooldown_seconds: f64,
}

/// The calls of a phase.
#[derive(Default)]
struct Calls {
    costs: Vec<Duration>,
    rejected: u64,
    failed: u64,
}

impl Calls {
    fn add(&mut self, other: Self) {
        self.costs.extend(other.costs);
        self.rejected += other.rejected;
        self.failed += other.failed;
    }

    /// Returns the largest cost among the cheapest `permille` of the calls, in microseconds.
    fn cost(&self, permille: usize) -> f64 {
        let index = self.costs.len() * permille / 1_000;
        let cost = self.costs.get(index.min(self.costs.len() - 1));
        cost.map_or(0.0, |cost| cost.as_secs_f64() * 1e6)
    }
}

/// Calls an agent, and measures the cost of the circuit: without the time of the agent.
async fn call(manager: Manager, number: u64, agent: u64, is_down: bool) -> Calls {
    let id = format!("agent-{agent:04}");
    let mut calls = Calls::default();
    let start = Instant::now();
    if number.is_multiple_of(UNGUARDED) {
        let is_admitted = manager.can_execute(&id).unwrap();
        let mut cost = start.elapsed();
        if is_admitted {
            sleep(CALL_TIME).await;
            let end = Instant::now();
            let recorded = if is_down { manager.record_failure(&id) } else { manager.record_success(&id) };
            cost += end.elapsed();
            recorded.unwrap();
            calls.failed = is_down.into();
        } else {
            calls.rejected = 1;
        }
        calls.costs.push(cost);
        return calls;
    }
    match manager.guard(&id) {
        Ok(guard) => {
            let cost = start.elapsed();
            sleep(CALL_TIME).await;
            let end = Instant::now();
            if is_down {
                guard.fail();
            } else {
                guard.succeed();
            }
            calls.costs.push(cost + end.elapsed());
            calls.failed = is_down.into();
        }
        Err(CallError::Open(_)) => {
            calls.costs.push(start.elapsed());
            calls.rejected = 1;
        }
        Err(error) => panic!("{error}"),
    }
    calls
}

/// Calls the agents at the rate of the plan, for a phase.
async fn run_phase(manager: &Manager, plan: &Plan) -> Calls {
    const TICKS: u64 = 100;
    let mut ticks = interval(Duration::from_secs(1) / TICKS as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut random = fastrand::Rng::with_seed(7);
    let mut calls = Calls::default();
    let mut running = JoinSet::new();
    let count = plan.calls_per_second * plan.phase.as_millis() as u64 / 1_000;
    for number in 0..count {
        if number.is_multiple_of(plan.calls_per_second / TICKS) {
            ticks.tick().await;
            while let Some(ended) = running.try_join_next() {
                calls.add(ended.unwrap());
            }
        }
        // In each wave, another tenth of the agents is down.
        let time = number * 1_000 / plan.calls_per_second;
        let wave = time / plan.wave.as_millis() as u64;
        let agent = random.u64(..plan.agents);
        running.spawn(call(manager.clone(), number, agent, agent % 10 == wave % 10));
    }
    for ended in running.join_all().await {
        calls.add(ended);
    }
    calls.costs.sort_unstable();
    calls
}

/// Waits until the table has the state of each agent, and nothing is pending.
///
/// # Panics
///
/// Panics if a state is still missing after a minute.
async fn written(manager: &Manager, store: &Store) -> StoreStatus {
    let expected: Vec<_> = manager.get_all_states().into_iter().collect();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let status = manager.store_status().unwrap();
        if status.pending == 0 && status.reachable {
            let stored = states_in(store).await;
            if stored == expected {
                return status;
            }
            assert!(Instant::now() < end, "{stored:?} is not {expected:?}");
        }
        assert!(Instant::now() < end, "{status:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn states_in(store: &Store) -> Vec<(String, CircuitState)> {
    store.load().await.unwrap().into_iter().map(|row| (row.agent_id, row.state)).collect()
}

/// Runs a phase with the database and one without it, and returns a table.
///
/// # Panics
///
/// Panics if the table of the database does not have the last state of each agent.
async fn run(plan: &Plan) -> String {
    let mut server = Postgres::start();
    let store = Store::postgres(&server.url()).unwrap();
    let limits = CircuitSettings { cooldown_seconds: plan.cooldown_seconds, ..CircuitSettings::default() };
    let manager = Manager::new(limits, [].into()).unwrap();
    let (manager, writer) = manager.persist(store.clone(), WriterSettings::default()).await.unwrap();
    let shutdown = CancellationToken::new();
    let writer = tokio::spawn(writer.run(shutdown.clone()));

    let with_database = run_phase(&manager, plan).await;
    let status = written(&manager, &store).await;

    server.kill();
    let without_database = run_phase(&manager, plan).await;
    let pending = manager.store_status().unwrap().pending;
    assert!(pending > 0);
    server.restart();
    let after = written(&manager, &store).await;
    assert_eq!(manager.get_all_states().len() as u64, plan.agents);
    shutdown.cancel();
    writer.await.unwrap();

    let mut table = String::from(
        "| database | calls | rejected | failed | p50 | p99 | p99.9 | max | changes | rows | statements |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let caught_up = StoreStatus {
        changes: after.changes - status.changes,
        rows: after.rows - status.rows,
        statements: after.statements - status.statements,
        ..after
    };
    for (name, calls, status) in
        [("answers", &with_database, &status), ("is stopped", &without_database, &caught_up)]
    {
        writeln!(
            table,
            "| {name} | {} | {} | {} | {:.1} µs | {:.1} µs | {:.1} µs | {:.0} µs | {} | {} | {} |",
            calls.costs.len(),
            calls.rejected,
            calls.failed,
            calls.cost(500),
            calls.cost(990),
            calls.cost(999),
            calls.cost(1_000),
            status.changes,
            status.rows,
            status.statements,
        )
        .unwrap();
    }
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_states_are_stored_under_load() {
    let plan = Plan {
        agents: 50,
        calls_per_second: 1_000,
        phase: Duration::from_secs(1),
        wave: Duration::from_millis(300),
        cooldown_seconds: 0.1,
    };
    run(&plan).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "two minutes under load: run `./campaign circuit_manager`"]
async fn load_of_a_thousand_agents() {
    let plan = Plan {
        agents: 1_000,
        calls_per_second: 2_000,
        phase: Duration::from_secs(60),
        wave: Duration::from_secs(10),
        cooldown_seconds: 2.0,
    };
    println!("{}", run(&plan).await);
}
