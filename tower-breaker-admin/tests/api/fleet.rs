//! Actions and lists of the fleet.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower_breaker::{Circuit, CircuitState};
use tower_breaker_admin::Admin;
use tower_breaker_fleet::{Availability, Fleet, KeyedSharing, MemoryStore};

use super::harness::*;

/// An admin of circuits that are shared, and another process that shares `search`.
struct Shared {
    circuits: Circuits,
    admin: Admin,
    store: MemoryStore,
    fleet: Fleet,
    other: Circuit,
    agents: [JoinHandle<()>; 2],
}

impl Shared {
    async fn start() -> Self {
        let (circuits, store) = (Circuits::new(), MemoryStore::new());
        let (fleet, agent) = Fleet::builder(store.clone()).instance("here").build().unwrap();
        fleet.share_registry(&circuits.registry).unwrap();
        // The text of a key in the fleet is not its label.
        let sharing = KeyedSharing::with_text(|key: &String| format!("t-{key}"));
        fleet.share_keyed(&circuits.tenants, sharing).unwrap();
        let admin = circuits.builder().fleet(&fleet).build().unwrap();

        let (other_fleet, other_agent) = Fleet::builder(store.clone()).instance("there").build().unwrap();
        let other = Circuit::new(config("search"));
        other_fleet.share(&other).unwrap();
        let agents = [agent, other_agent].map(tokio::spawn);
        for fleet in [&fleet, &other_fleet] {
            assert!(fleet.ready(Duration::from_secs(10)).await);
        }
        Self { circuits, admin, store, fleet, other, agents }
    }

    /// Waits until the agents have processed what the store has sent.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    async fn act(&self, path: String) -> Value {
        Call::act(path).json(&in_fleet()).ok(&self.admin).await
    }
}

fn in_fleet() -> Value {
    json!({"reason": "test", "scope": "fleet"})
}

fn in_fleet_for(seconds: f64) -> Value {
    json!({"reason": "test", "scope": "fleet", "for_seconds": seconds})
}

#[tokio::test(start_paused = true)]
async fn action_reaches_all_processes() {
    let shared = Shared::start().await;
    let search = shared.circuits.search();
    for (name, here) in [
        ("force_open", CircuitState::ForcedOpen),
        ("release", CircuitState::Open),
        ("force_closed", CircuitState::ForcedClosed),
        ("release", CircuitState::Closed),
        ("trip", CircuitState::Open),
        ("reset", CircuitState::Closed),
    ] {
        let before = last_epoch(&shared, "search");
        let view = shared.act(action("search", name)).await;
        let record = &view["fleet"]["record"];
        assert_eq!((&record["by"], &record["circuit"]), (&"anna".into(), &"search".into()), "{name}");
        assert_eq!(record["reason"], "test", "{name}");
        shared.settle().await;
        assert_eq!([search.status().state, shared.other.status().state], [here; 2], "{name}");
        let entry = last_audit(&shared.admin).await;
        assert_eq!((&entry["scope"], &entry["epoch_after"]), (&"fleet".into(), &record["epoch"]));
        assert_eq!(entry["epoch_before"], before, "{name}");
    }
}

fn last_epoch(shared: &Shared, circuit: &str) -> u64 {
    shared.fleet.circuit_status(circuit).and_then(|status| status.record).map_or(0, |record| record.epoch)
}

#[tokio::test(start_paused = true)]
async fn duration_is_passed_to_the_fleet() {
    let shared = Shared::start().await;
    let force = Call::act(action("search", "force_open")).json(&in_fleet_for(3600.0));
    let record = force.ok(&shared.admin).await["fleet"]["record"].clone();
    assert_eq!(record["manual"], "forced_open");
    let remaining = record["manual_remaining_seconds"].as_f64().unwrap();
    assert!((3599.0..=3600.0).contains(&remaining), "{remaining}");
    shared.act(action("search", "release")).await;
    shared.act(action("search", "reset")).await;
    let trip = Call::act(action("search", "trip")).json(&in_fleet_for(20.0));
    let record = trip.ok(&shared.admin).await["fleet"]["record"].clone();
    let remaining = record["remaining_seconds"].as_f64().unwrap();
    assert!(record["state"] == "open" && (19.0..=20.0).contains(&remaining), "{record}");
    for name in ["reset", "release"] {
        Call::act(action("search", name)).json(&in_fleet_for(1.0)).fail(&shared.admin, 400).await;
    }
}

#[tokio::test(start_paused = true)]
async fn conflict_in_the_fleet_is_409() {
    let shared = Shared::start().await;
    let forced = shared.act(action("search", "force_open")).await;
    let detail = Call::act(action("search", "trip")).json(&in_fleet()).fail(&shared.admin, 409).await;
    assert_eq!(detail, "circuit `search` has a manual override; release it first");
    let epoch = forced["fleet"]["record"]["epoch"].as_u64().unwrap();
    let release = Call::act(action("search", "release")).json(&in_fleet());
    let wrong = release.clone().header("if-match", &format!("\"{}\"", epoch - 1));
    let detail = wrong.fail(&shared.admin, 409).await;
    assert!(detail.starts_with(&format!("circuit `search` is in epoch {epoch}, not in")), "{detail}");
    release.header("if-match", &format!("\"{epoch}\"")).ok(&shared.admin).await;
}

#[tokio::test(start_paused = true)]
async fn store_without_an_answer_is_503_and_nothing_is_done() {
    let shared = Shared::start().await;
    let force = Call::act(action("search", "force_open")).json(&in_fleet());
    for availability in [Availability::CutOff, Availability::Failing] {
        shared.store.set_availability(availability);
        let detail = force.fail(&shared.admin, 503).await;
        assert!(detail.starts_with("the store of the fleet"), "{detail}");
        assert_eq!(last_audit(&shared.admin).await["error"].as_str(), Some(&detail[..detail.len().min(200)]));
        Call::get(format!("{API}/fleet")).fail(&shared.admin, 503).await;
    }
    shared.settle().await;
    assert_eq!(shared.circuits.search().status().state, CircuitState::Closed);
    // Actions of this process still work.
    Call::act(action("search", "trip")).ok(&shared.admin).await;
    shared.store.set_availability(Availability::Available);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(shared.other.status().state, CircuitState::Closed);
    for agent in &shared.agents {
        agent.abort();
    }
    shared.settle().await;
    let detail = force.fail(&shared.admin, 503).await;
    assert_eq!(detail, "the agent of the fleet does not run; spawn it and keep it running");
}

#[tokio::test(start_paused = true)]
async fn circuit_that_is_not_shared_is_400_and_the_store_has_no_record() {
    let shared = Shared::start().await;
    let force = Call::act(action("billing", "force_open")).json(&in_fleet());
    let detail = force.fail(&shared.admin, 400).await;
    assert_eq!(detail, "`scope` is `fleet`, and this process does not share the circuit; use `process`");
    assert!(shared.fleet.list(None, 10).await.unwrap().is_empty());

    let (_circuits, without_fleet) = admin();
    let detail = Call::act(action("search", "force_open")).json(&in_fleet()).fail(&without_fleet, 400).await;
    assert_eq!(detail, "`scope` is `fleet`, and there is no fleet; use `process`");
}

#[tokio::test(start_paused = true)]
async fn action_on_a_key_uses_its_name_in_the_fleet() {
    let shared = Shared::start().await;
    let view = shared.act(key_action("tenants", "acme", "force_open")).await;
    assert_eq!((&view["key"], &view["circuit"]), (&"acme".into(), &"tenants".into()));
    shared.settle().await;
    assert_eq!(shared.circuits.tenants.get("acme").unwrap().status().state, CircuitState::ForcedOpen);
    let records = shared.fleet.list(None, 10).await.unwrap();
    assert_eq!(records.iter().map(|record| &*record.circuit).collect::<Vec<_>>(), ["tenants/t-acme"]);
    let path = format!("{API}/circuits/tenants/keys/acme");
    let view = Call::get(&path).ok(&shared.admin).await;
    assert_eq!(view["fleet"]["record"]["manual"], "forced_open");
    let entry = last_audit(&shared.admin).await;
    assert_eq!((&entry["key"], &entry["epoch_after"]), (&"acme".into(), &view["fleet"]["record"]["epoch"]));
}

#[tokio::test(start_paused = true)]
async fn overflow_circuit_takes_no_part() {
    let shared = Shared::start().await;
    let _held = ["acme", HOSTILE].map(|key| shared.circuits.tenants.circuit(key));
    shared.circuits.tenants.circuit("third").trip().unwrap();
    let path = key_action("tenants", "(overflow)", "reset");
    Call::act(&path).json(&in_fleet()).fail(&shared.admin, 400).await;
    Call::act(&path).ok(&shared.admin).await;
}

#[tokio::test(start_paused = true)]
async fn records_are_listed_in_parts() {
    let shared = Shared::start().await;
    let path = format!("{API}/fleet");
    let empty = Call::get(&path).token(READER).ok(&shared.admin).await;
    assert_eq!((&empty["records"], &empty["next"]), (&json!([]), &Value::Null));
    assert_eq!((&empty["status"]["instance"], &empty["status"]["attached"]), (&"here".into(), &true.into()));
    for name in ["search", "disabled", HOSTILE] {
        shared.act(action(name, "force_closed")).await;
    }
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let part = Call::get(format!("{path}?limit=1&after={}", encoded(&after))).ok(&shared.admin).await;
        names.extend(part["records"].as_array().unwrap().iter().map(|record| record["circuit"].clone()));
        let Some(next) = part["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    assert_eq!(names, [HOSTILE, "disabled", "search"]);
    // Two heartbeats later, each process knows the other.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let view = Call::get(format!("{API}/circuits/search")).ok(&shared.admin).await;
    assert_eq!(view["fleet"]["members"], 2);
}

#[tokio::test(start_paused = true)]
async fn name_that_the_store_may_refuse_is_not_sent_to_it() {
    let shared = Shared::start().await;
    let messages = shared.fleet.status().messages;
    for after in ["%00", "a%0Ab", &"x".repeat(257)] {
        let detail = Call::get(format!("{API}/fleet?after={after}")).fail(&shared.admin, 400).await;
        assert!(detail.ends_with("; allowed is up to 256 bytes without control characters"), "{detail}");
    }
    assert_eq!(shared.fleet.status().messages, messages);
    Call::get(format!("{API}/fleet?after={}", "x".repeat(256))).ok(&shared.admin).await;
    assert_eq!(shared.fleet.status().messages, messages + 1);
}

#[tokio::test(start_paused = true)]
async fn user_with_control_characters_is_safe_for_the_store() {
    let circuits = Circuits::new();
    let (fleet, agent) = Fleet::builder(MemoryStore::new()).build().unwrap();
    fleet.share_registry(&circuits.registry).unwrap();
    let user = tower_breaker_admin::User::operator("eve\0");
    let admin = circuits.builder().fleet(&fleet).bearer("token-0123456789ab", user).build().unwrap();
    tokio::spawn(agent);
    assert!(fleet.ready(Duration::from_secs(10)).await);
    let trip = Call::act(action("search", "trip")).token("token-0123456789ab").json(&in_fleet());
    assert_eq!(trip.ok(&admin).await["fleet"]["record"]["by"], "eve\u{fffd}");
}

#[tokio::test(start_paused = true)]
async fn action_does_not_wait_for_many_lists() {
    let shared = Shared::start().await;
    shared.store.set_delay(Duration::from_millis(10));
    let list = Call::get(format!("{API}/fleet")).token(READER);
    let lists: Vec<_> = (0..100)
        .map(|_| {
            let (list, admin) = (list.clone(), shared.admin.clone());
            tokio::spawn(async move { list.ok(&admin).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let start = tokio::time::Instant::now();
    shared.act(action("search", "trip")).await;
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    for list in lists {
        list.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn view_counts_members_open_on_local_evidence() {
    let shared = Shared::start().await;
    shared.other.trip_for(Duration::from_secs(60)).unwrap();
    // Two heartbeats later, this process knows what the other has reported.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let view = Call::get(format!("{API}/circuits/search")).ok(&shared.admin).await;
    assert_eq!((&view["fleet"]["open_members"], &view["fleet"]["members"]), (&1.into(), &2.into()));
    let view = shared.act(action("search", "trip")).await;
    assert_eq!((&view["local"]["state"], &view["fleet"]["open_members"]), (&"open".into(), &0.into()));
}
