//! The quick set: some cases of each scenario, and inequalities that do not depend on the exact
//! numbers.

use std::fs;
use std::path::Path;

use simulator::client::Guard;
use simulator::client::guards::{self, peers as peer_guards};
use simulator::scenarios::{
    ALL, Case, Scenario, alternatives, backoff_and_jitter, dead_shard, failure_bursts, fleet_budget,
    fleet_recovery, metastable, peers, random_failures, retry_after, shared_circuit, slow_backend, worker,
};
use simulator::table::{Table, Value};

fn table(scenario: Scenario, cases: &[Case]) -> Table {
    scenario.run(cases, 1, || ())
}

fn name(guard: &Guard) -> (&'static str, Value) {
    ("guard", Value::Name(guard.name))
}

fn metastable(guards: &[Guard], processes: &[u32]) -> Table {
    let of = |guard| processes.iter().map(move |&processes| metastable::case(guard, processes));
    table(metastable::SCENARIO, &guards.iter().flat_map(of).collect::<Vec<_>>())
}

#[test]
fn same_seeds_give_the_same_bytes() {
    let csv = || metastable(&[guards::both(), guards::breaker()], &[1, 10, 100]).csv();
    let first = csv();
    assert_eq!(first, csv());
    assert_eq!(first.lines().count(), 7);
}

/// 700 requests are in the queue after the outage, and the server has 30/s of capacity to spare. It
/// answers in time again when 100 are left, so after 20 s.
#[test]
fn clients_without_retries_recover_when_the_queue_is_short_again() {
    let table = metastable(&[guards::none()], &[1, 1_000]);
    for back in table.numbers("back_seconds", &[]) {
        assert!((15..=27).contains(&back), "{back} s");
    }
    let numbers = |column| table.numbers(column, &[]);
    assert_eq!(numbers("asked"), numbers("sent"));
}

#[test]
fn naive_retries_keep_the_server_overloaded() {
    let table = metastable(&[guards::naive()], &[1, 100]);
    assert_eq!(table.numbers("back_seconds", &[]), [-1, -1]);
    let (asked, sent) = (table.numbers("asked", &[])[0], table.numbers("sent", &[])[0]);
    assert!(sent >= 2 * asked, "{asked} {sent}");
}

/// The limits are those that the defaults were chosen for. Without retries and without a breaker,
/// the traffic of 31 s is lost.
#[test]
fn default_retries_above_the_default_breaker_end_the_outage() {
    let table = metastable(&[guards::both()], &[1, 10, 100, 1_000]);
    for (processes, lost, sent_percent) in [(1, 16, 130), (10, 16, 130), (100, 21, 130), (1_000, 62, 180)] {
        let of = |column| table.median(column, &[("processes", Value::Number(processes))]).unwrap();
        assert!((0..=60).contains(&of("back_seconds")), "{processes}: {} s", of("back_seconds"));
        assert!(of("lost_milliseconds") <= lost * 1_000, "{processes}: {} ms", of("lost_milliseconds"));
        assert!(of("sent") * 100 <= of("asked") * sent_percent, "{processes}: {}", of("sent"));
    }
}

/// The server has a capacity of 100/s.
#[test]
fn retries_keep_the_server_overloaded_only_if_the_budgets_pay_for_more_than_its_capacity() {
    let guards = fleet_budget::guards();
    let named = |name| guards.iter().find(|guard| guard.name == name).unwrap();
    let cases = [("no_budget", 1), ("window_1", 10), ("window_1", 100), ("window_0", 1_000)];
    let cases = cases.map(|(guard, processes)| fleet_budget::case(named(guard), processes));
    let table = table(fleet_budget::SCENARIO, &cases);
    let (back, limit) = (table.column("back_seconds"), table.column("limit_per_second"));
    for row in &table.rows {
        assert_eq!(row[back].number() == -1, row[limit].number() >= 100, "{row:?}");
    }
}

#[test]
fn token_budgets_stop_the_retries_of_a_small_fleet() {
    let guards = fleet_budget::guards();
    let tokens = guards.iter().filter(|guard| ["grpc", "aws", "tokens_100"].contains(&guard.name));
    let cases: Vec<_> = tokens.map(|guard| fleet_budget::case(guard, 10)).collect();
    let table = table(fleet_budget::SCENARIO, &cases);
    for back in table.numbers("back_seconds", &[]) {
        assert!((15..=60).contains(&back), "{back} s");
    }
}

#[test]
fn shared_circuit_ends_the_outage_of_a_large_fleet() {
    let guards = shared_circuit::guards();
    let shared = guards.iter().filter(|guard| guard.name.starts_with("shared"));
    let cases: Vec<_> = shared.map(|guard| shared_circuit::case(guard, 10_000)).collect();
    let table = table(shared_circuit::SCENARIO, &cases);
    assert_eq!(table.rows.len(), 3);
    for row in &table.rows {
        let of = |column| row[table.column(column)].number();
        assert!((0..=10).contains(&of("back_seconds")), "{row:?}");
        assert!(of("sent") <= of("asked"), "{row:?}");
    }
}

/// 700 items arrive in the outage, and the server has 30/s of capacity to spare.
#[test]
fn backlog_of_a_refused_outage_is_empty_after_the_spare_capacity_has_served_it() {
    let cases = [10, 100].map(|processes| {
        fleet_recovery::case(&guards::none(), true, fleet_recovery::Backend::Refuses, 10, processes)
    });
    let table = table(fleet_recovery::SCENARIO, &cases);
    for back in table.numbers("back_seconds", &[]) {
        assert!((15..=40).contains(&back), "{back} s");
    }
    assert_eq!(table.numbers("left", &[]), [0, 0]);
}

#[test]
fn breaker_sends_less_in_an_outage_and_empties_the_backlog_later() {
    let guards = [guards::none(), guards::both()];
    let cases =
        guards.map(|guard| fleet_recovery::case(&guard, true, fleet_recovery::Backend::Refuses, 60, 10));
    let table = table(fleet_recovery::SCENARIO, &cases);
    let of = |column, guard: Guard| table.median(column, &[name(&guard)]).unwrap();
    assert!(of("sent", guards::both()) * 2 < of("sent", guards::none()));
    let (without, with) = (of("back_seconds", guards::none()), of("back_seconds", guards::both()));
    assert!(0 < without && without <= with, "{without} s, {with} s");
}

/// The server can empty the backlog in 23 s.
#[test]
fn large_fleet_with_a_backlog_recovers_if_the_queue_is_bounded() {
    let case = fleet_recovery::case(&guards::both(), true, fleet_recovery::Backend::Bounded, 10, 1_000);
    let back = table(fleet_recovery::SCENARIO, &[case]).numbers("back_seconds", &[])[0];
    assert!((15..=40).contains(&back), "{back} s");
}

#[test]
fn retries_answer_fewer_calls_if_failures_come_in_bursts() {
    let cases = [(guards::none(), 20), (guards::retry(), 0), (guards::retry(), 50)];
    let cases = cases.map(|(guard, burst)| failure_bursts::case(&guard, 10, 200, burst));
    let table = table(failure_bursts::SCENARIO, &cases);
    let answered = |guard: Guard, burst| {
        table.median("answered_per_mille", &[name(&guard), ("burst", Value::Number(burst))]).unwrap()
    };
    let none = answered(guards::none(), 20);
    assert!((760..=840).contains(&none), "{none}");
    let (alone, bursts) = (answered(guards::retry(), 0), answered(guards::retry(), 50));
    assert!(none + 50 < bursts && bursts + 20 < alone, "{none}, {bursts}, {alone}");
}

/// Three attempts without a budget answer all calls but those whose attempts all fail: 98.4 % if a
/// quarter of the requests fails.
#[test]
fn defaults_answer_nearly_as_many_calls_as_possible_if_a_quarter_fails_at_random() {
    let guards = [guards::none(), guards::breaker(), guards::both()];
    let cases = guards.map(|guard| [1, 10, 100, 1_000].map(|rate| random_failures::case(&guard, rate, 250)));
    let table = table(random_failures::SCENARIO, cases.as_flattened());
    for (guard, best) in [(guards::breaker(), 750), (guards::both(), 984)] {
        for answered in table.numbers("answered_per_mille", &[name(&guard)]) {
            assert!(answered * 100 >= best * 97, "{}: {answered} of {best}", guard.name);
        }
    }
    let none = table.numbers("answered_per_mille", &[name(&guards::none())]);
    assert!(none.iter().all(|share| (730..=770).contains(share)), "{none:?}");
}

/// Each alternative is worse than the default in the test that it was rejected for.
#[test]
fn alternatives_lose_more_than_the_defaults() {
    let guards = alternatives::guards();
    let lost = |name: &str, test, number, column| {
        let guard = guards.iter().find(|guard| guard.name == name).unwrap();
        let table = table(alternatives::SCENARIO, &[alternatives::case(guard, test, number)]);
        table.numbers(column, &[])[0]
    };
    for (name, test, number, column, percent) in [
        ("open_1s", "outage_60s", 1_000, "lost_milliseconds", 105),
        ("open_10s", "outage_60s", 1, "lost_milliseconds", 105),
        ("probes_3", "outage_60s", 100, "lost_milliseconds", 105),
        ("failures_3", "dead_shard", 1, "lost_per_mille", 105),
        ("failures_10", "outage_10s", 100, "lost_milliseconds", 105),
        ("span_0", "random_failures", 1_000, "lost_per_mille", 1_000),
        ("failed_retries", "dead_shard", 1, "lost_per_mille", 103),
        ("minimum_10", "dead_shard", 1, "lost_per_mille", 105),
        ("per_success_0.1", "random_failures", 100, "lost_per_mille", 150),
        ("timeout_cost_1", "outage_10s", 1_000, "lost_milliseconds", 150),
    ] {
        let (default, other) = (lost("default", test, number, column), lost(name, test, number, column));
        assert!(other * 100 >= default * percent, "{name}, {test} {number}: {other}, {default}");
    }
}

/// A quarter of the calls go to the dead shard. 0.97 of the others are 727 of 1,000.
#[test]
fn dead_shard_costs_little_more_than_its_share_of_the_calls() {
    let rates = [1, 10, 100, 1_000];
    for guard in dead_shard::guards() {
        let cases = dead_shard::DEATHS.map(|death| rates.map(|rate| dead_shard::case(&guard, death, rate)));
        let table = table(dead_shard::SCENARIO, cases.as_flattened());
        let answered = table.numbers("answered_per_mille", &[]);
        assert_eq!(answered.len(), 12);
        assert!(answered.iter().all(|share| (727..=765).contains(share)), "{}: {answered:?}", guard.name);
        if guard.breaker.is_none() {
            assert!(table.numbers("rejected", &[]).iter().all(|&rejected| rejected == 0), "{}", guard.name);
        }
    }
}

/// The probability of a run of failures, and of half of many calls, separates the rules widely.
#[test]
fn peers_reject_few_or_many_calls_by_their_rule() {
    let guards = [
        (peer_guards::resilience4j_breaker(), 0..=0),
        (peer_guards::hystrix(), 0..=0),
        (peer_guards::linkerd(), 1..=40),
        (peer_guards::gobreaker(), 450..=750),
        (peer_guards::envoy(), 750..=950),
        (peer_guards::polly_breaker(), 800..=900),
    ];
    let cases = guards.each_ref().map(|(guard, _)| random_failures::case(guard, peers::RATE, 250));
    let table = table(peers::RANDOM_FAILURES, &cases);
    for (guard, expected) in guards {
        let rejected = table.median("rejected_per_mille", &[name(&guard)]).unwrap();
        assert!(expected.contains(&rejected), "{}: {rejected}", guard.name);
    }
}

#[test]
fn peers_recover_from_an_outage_if_their_budget_is_spent_once() {
    let guards = [peer_guards::grpc(), peer_guards::aws(), peer_guards::tower()];
    let cases = guards.each_ref().map(|guard| metastable::case(guard, 10));
    let table = table(peers::OUTAGE, &cases);
    let back = guards.map(|guard| table.median("back_seconds", &[name(&guard)]).unwrap());
    assert!((0..=30).contains(&back[0]) && (30..=60).contains(&back[1]) && back[2] == -1, "{back:?}");
}

#[test]
fn hanging_server_is_found_if_timeouts_are_failures() {
    let [_, hanging] = slow_backend::FAULTS;
    let [inside, outside] = slow_backend::TIMEOUTS;
    let found = |guard: &Guard, timeout| {
        let case = slow_backend::case(guard, hanging, timeout, false, 10);
        let table = table(slow_backend::SCENARIO, &[case]);
        let of = |column| table.numbers(column, &[])[0];
        assert!(of("sent") < of("asked"), "{}", guard.name);
        of("reject_seconds")
    };
    for (guard, timeout) in [
        (guards::breaker(), inside),
        (guards::both(), inside),
        (slow_backend::failure_after(), inside),
        (guards::breaker(), outside),
        (slow_backend::failure_after(), outside),
    ] {
        let seconds = found(&guard, timeout);
        assert!((0..=5).contains(&seconds), "{} {}: {seconds}", guard.name, timeout.0);
    }
}

#[test]
fn slow_server_is_found_by_the_slow_call_rate() {
    let [slow, _] = slow_backend::FAULTS;
    let guards = [guards::breaker(), slow_backend::slow_call_rate()];
    let cases = slow_backend::TIMEOUTS
        .map(|timeout| guards.each_ref().map(|guard| slow_backend::case(guard, slow, timeout, false, 10)));
    let table = table(slow_backend::SCENARIO, cases.as_flattened());
    let numbers = |guard, column| table.numbers(column, &[name(guard)]);
    let [breaker, slow_call_rate] = guards.each_ref();
    let rejects = numbers(slow_call_rate, "reject_seconds");
    assert!(rejects.iter().all(|seconds| (3..=10).contains(seconds)), "{rejects:?}");
    for (less, more) in numbers(slow_call_rate, "sent").iter().zip(numbers(breaker, "sent")) {
        assert!(less * 2 < more, "{less} {more}");
    }
}

#[test]
fn preset_for_workers_stops_after_five_requests() {
    let [none, default, single_flight] = worker::guards();
    let sent = |guard| {
        let cases = worker::TIMEOUTS.map(|timeout| worker::case(guard, timeout));
        table(worker::SCENARIO, &cases).numbers("sent", &[])
    };
    assert_eq!(sent(&single_flight), [5; 4]);
    for (default, none) in sent(&default).into_iter().zip(sent(&none)) {
        assert!(5 < default && default < none, "{default}, {none}");
    }
}

#[test]
fn clients_with_jitter_return_spread_out() {
    let guards = retry_after::guards();
    let cases = guards.each_ref().map(|guard| retry_after::case(guard, 1_000));
    let table = table(retry_after::SCENARIO, &cases);
    let of = |guard, column| table.numbers(column, &[name(guard)])[0];
    let [retry_no_jitter, retry, _, jitter_0, jitter_half, jitter_1] = &guards;
    for (guard, spread) in [(retry_no_jitter, retry), (jitter_0, jitter_half), (jitter_0, jitter_1)] {
        assert_eq!(of(guard, "peak"), 1_000, "{}", guard.name);
        assert!(of(spread, "peak") < 150, "{}: {}", spread.name, of(spread, "peak"));
        assert!(of(spread, "done_milliseconds") < of(guard, "done_milliseconds"), "{}", spread.name);
        assert!(of(spread, "sent") < of(guard, "sent"), "{}", spread.name);
    }
}

#[test]
fn full_jitter_saves_a_third_of_the_writes() {
    let guards = backoff_and_jitter::guards();
    let cases =
        guards.each_ref().map(|guard| [1, 50].map(|clients| backoff_and_jitter::case(guard, clients)));
    let table = table(backoff_and_jitter::SCENARIO, cases.as_flattened());
    let writes =
        |guard, clients| table.median("writes", &[name(guard), ("clients", Value::Number(clients))]).unwrap();
    let [no_backoff, no_jitter, full, ..] = &guards;
    assert!(writes(full, 50) * 3 < writes(no_backoff, 50) * 2, "{}", writes(full, 50));
    assert!(writes(full, 50) < writes(no_jitter, 50), "{}", writes(no_jitter, 50));
    assert!(guards.iter().all(|guard| writes(guard, 1) == 1 && writes(guard, 50) > 50));
    assert!(table.numbers("gave_up", &[]).iter().all(|&clients| clients == 0));
}

#[test]
fn each_scenario_has_its_figure_in_the_guide() {
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    let guide = fs::read_to_string(docs.join("simulations.md")).unwrap();
    for Scenario { name, .. } in ALL {
        let command = format!("cargo run --release -p simulator -- {name}\n");
        assert!(guide.contains(&command), "{name}");
        assert!(guide.contains(&format!("](figures/{name}.svg)")), "{name}");
        let figure = fs::read_to_string(docs.join("figures").join(name).with_extension("svg")).unwrap();
        assert!(figure.len() < 100_000, "{name}: {} bytes", figure.len());
    }
}
