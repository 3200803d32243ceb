//! Circuits by key: only keys with trouble take part.

use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{CircuitState, Verdict};
use tower_breaker_fleet::{
    Fleet, FleetAction, FleetOperation, FleetState, FleetStore, KeyedSharing, MemoryStore, Override, Quorum,
};

use super::*;

/// A process with circuits by key.
struct KeyedProcess {
    circuits: KeyedCircuits<String>,
    fleet: Fleet,
    agent: tokio::task::JoinHandle<()>,
}

impl KeyedProcess {
    fn start(store: impl FleetStore, instance: &str) -> Self {
        Self::start_with(store, instance, KeyedSharing::new())
    }

    fn start_with(store: impl FleetStore, instance: &str, sharing: KeyedSharing<String>) -> Self {
        let each = config().name("tenants").build().unwrap();
        let circuits = KeyedCircuits::new(KeyedConfig::builder(each).build().unwrap());
        let (fleet, agent) = Fleet::builder(store).instance(instance).heartbeat(HEARTBEAT).build().unwrap();
        fleet.share_keyed(&circuits, sharing).unwrap();
        Self { circuits, fleet, agent: tokio::spawn(agent) }
    }

    /// Makes a call that ends at once. Returns whether it was admitted.
    fn call(&self, key: &str, succeeds: bool) -> bool {
        let verdict = if succeeds { Verdict::Success } else { failure() };
        self.circuits.try_acquire(key).map(|permit| permit.record(verdict)).is_ok()
    }

    fn state(&self, key: &str) -> CircuitState {
        self.circuits.get(key).expect("the key has a circuit").status().state
    }

    fn fleet_state(&self, key: &str) -> Option<FleetState> {
        Some(self.fleet.circuit_status(&name(key))?.record?.state)
    }

    /// How many keys take part.
    fn keys(&self) -> usize {
        self.fleet.status().circuits
    }
}

fn name(key: &str) -> String {
    Fleet::key_name("tenants", key)
}

async fn start(count: usize) -> (MemoryStore, Vec<KeyedProcess>) {
    let store = MemoryStore::new();
    let processes: Vec<_> =
        (0..count).map(|number| KeyedProcess::start(store.clone(), &format!("p{number}"))).collect();
    for process in &processes {
        assert!(process.fleet.ready(seconds(1)).await);
    }
    (store, processes)
}

/// Makes a call with the key every 100 ms in each of the processes.
async fn fail(processes: &[KeyedProcess], key: &str, time: std::time::Duration) {
    for _ in 0..time.as_millis() / 100 {
        for process in processes {
            process.call(key, false);
        }
        tokio::time::sleep(millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn quorum_opens_key_for_all_and_no_other_key() {
    let (_store, processes) = start(5).await;
    for process in &processes {
        assert!(process.call("a", true) && process.call("b", true));
    }
    fail(&processes[..3], "a", seconds(2)).await;
    for process in &processes {
        assert_eq!(process.state("a"), CircuitState::Open);
        assert_eq!(process.state("b"), CircuitState::Closed);
    }
    let record = processes[4].fleet.circuit_status("tenants/a").unwrap().record.unwrap();
    assert_eq!((record.state, record.reason.as_str()), (FleetState::Open, "quorum"));
}

#[tokio::test(start_paused = true)]
async fn fewer_processes_than_quorum_open_no_key_of_others() {
    let (_store, processes) = start(20).await;
    let keys: Vec<_> = (0..300).map(|number| format!("k{number}")).collect();
    for key in &keys {
        assert!(processes.iter().all(|process| process.call(key, true)));
    }
    for _ in 0..40 {
        for key in &keys {
            processes[0].call(key, false);
            processes[1].call(key, false);
        }
        tokio::time::sleep(millis(500)).await;
    }
    assert!(processes[0].circuits.statuses().iter().all(|status| status.state != CircuitState::Closed));
    for process in &processes[2..] {
        assert!(keys.iter().all(|key| process.state(key) == CircuitState::Closed));
        assert_eq!(process.keys(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn key_closes_for_all_after_recovery_and_leaves() {
    let (_store, processes) = start(5).await;
    for process in &processes {
        process.call("a", true);
    }
    fail(&processes, "a", seconds(2)).await;
    assert!(processes.iter().all(|process| process.state("a") == CircuitState::Open));
    let mut seconds_until_closed = 0;
    while !processes.iter().all(|process| process.state("a") == CircuitState::Closed) {
        for _ in 0..10 {
            for process in &processes {
                process.call("a", true);
            }
            tokio::time::sleep(millis(100)).await;
        }
        seconds_until_closed += 1;
        assert!(seconds_until_closed < 8, "the key does not close");
    }
    assert!(processes.iter().any(|process| process.fleet_state("a") == Some(FleetState::Closed)));
    assert_eq!(processes[0].keys(), 1);
    tokio::time::sleep(4 * HEARTBEAT).await;
    assert!(processes.iter().all(|process| process.keys() == 0), "the key has no trouble");
    // It joins again.
    processes[0].call("a", false);
    tokio::time::sleep(millis(100)).await;
    assert_eq!(processes[0].keys(), 1);
}

#[tokio::test(start_paused = true)]
async fn key_without_circuit_is_open_at_its_first_call() {
    let (_store, processes) = start(4).await;
    fail(&processes[..3], "a", seconds(2)).await;
    let last = &processes[3];
    assert!(last.circuits.is_empty());
    assert_eq!(last.fleet_state("a"), Some(FleetState::Open), "the status shows the kept record");
    assert!(!last.call("a", true), "the first call is rejected");
    assert!(last.call("b", true));
    tokio::time::sleep(millis(100)).await;
    assert_eq!(last.keys(), 1);
}

#[tokio::test(start_paused = true)]
async fn ready_loads_open_keys_after_restart() {
    let (store, mut processes) = start(3).await;
    for number in 0..600 {
        // More than two pages of other records.
        let operation = FleetOperation::new(FleetAction::Reset);
        processes[0].fleet.operate(&name(&format!("c{number:03}")), operation).await.unwrap();
        tokio::time::advance(millis(100)).await;
    }
    fail(&processes, "z", seconds(2)).await;
    processes.pop().unwrap().agent.abort();
    let restarted = KeyedProcess::start(store, "p2");
    assert!(restarted.fleet.ready(seconds(2)).await);
    assert!(!restarted.call("z", true));
    assert!(restarted.call("a", true));
}

#[tokio::test(start_paused = true)]
async fn number_of_keys_is_bounded_and_quiet_keys_leave_first() {
    let store = MemoryStore::new();
    let sharing = KeyedSharing::new().max_keys(10);
    let process = KeyedProcess::start_with(store, "p0", sharing);
    assert!(process.fleet.ready(seconds(1)).await);
    for number in 0..30 {
        process.call(&format!("old{number}"), false);
    }
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(process.keys(), 10);
    // No key has been quiet for a heartbeat.
    process.call("new", false);
    tokio::time::sleep(millis(200)).await;
    assert!(process.fleet.circuit_status(&name("new")).is_none());
    tokio::time::sleep(HEARTBEAT).await;
    process.call("newer", false);
    tokio::time::sleep(millis(200)).await;
    assert_eq!(process.keys(), 10);
    assert!(process.fleet.circuit_status(&name("newer")).is_some());
    // The refused key joins with its next failure, once there is room.
    tokio::time::sleep(5 * HEARTBEAT).await;
    assert_eq!(process.keys(), 0);
    process.call("new", false);
    tokio::time::sleep(millis(200)).await;
    assert!(process.fleet.circuit_status(&name("new")).is_some());
}

#[tokio::test(start_paused = true)]
async fn new_circuit_of_removed_key_follows_fleet() {
    let (_store, processes) = start(3).await;
    let process = &processes[0];
    assert!(process.call("a", true));
    let force = FleetOperation::new(FleetAction::ForceOpen);
    processes[1].fleet.operate(&name("a"), force).await.unwrap();
    tokio::time::sleep(millis(100)).await;
    let removed = process.circuits.remove("a").unwrap();
    assert!(!process.call("a", true), "the new circuit is forced open");
    tokio::time::sleep(millis(100)).await;
    // The removed circuit has no influence any more.
    removed.release();
    drop(removed);
    tokio::time::sleep(2 * HEARTBEAT).await;
    assert!(!process.call("a", true));
    assert_eq!(process.keys(), 1);
    process.circuits.remove("a");
    tokio::time::sleep(2 * HEARTBEAT).await;
    assert_eq!(process.keys(), 0, "the circuit has ended");
    assert!(!process.call("a", true), "the record was kept");
}

#[tokio::test(start_paused = true)]
async fn override_applies_to_key_in_all_processes() {
    let (_store, processes) = start(3).await;
    assert!(processes[0].call("a", true));
    let force = || FleetOperation::new(FleetAction::ForceOpen).by("anna");
    let record = processes[0].fleet.operate(&name("a"), force()).await.unwrap();
    assert_eq!(record.manual, Some(Override::ForcedOpen));
    tokio::time::sleep(millis(100)).await;
    assert_eq!(processes[0].state("a"), CircuitState::ForcedOpen);
    // One of the circuits is created later.
    assert!(!processes[1].call("a", true));
    processes[2].fleet.operate(&name("a"), FleetOperation::new(FleetAction::Release)).await.unwrap();
    let mut admitted = 0;
    for _ in 0..40 {
        tokio::time::sleep(millis(100)).await;
        admitted += processes.iter().filter(|process| process.call("a", true)).count();
    }
    assert!(admitted > 30, "{admitted}");
    assert!(processes.iter().all(|process| process.state("a") == CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn open_key_survives_loss_of_data() {
    let (store, processes) = start(3).await;
    fail(&processes, "a", seconds(2)).await;
    store.flush();
    let late = KeyedProcess::start(store, "late");
    tokio::time::sleep(2 * HEARTBEAT).await;
    assert!(!late.call("a", true), "the processes have given the record back");
}

#[tokio::test(start_paused = true)]
async fn keys_without_trouble_send_no_message() {
    let (_store, processes) = start(3).await;
    let before = processes[0].fleet.status().messages;
    for _ in 0..100 {
        for number in 0..300 {
            assert!(processes[0].call(&format!("k{number}"), true));
        }
        tokio::time::sleep(millis(200)).await;
    }
    assert_eq!(processes[0].fleet.status().messages, before);
}

#[tokio::test(start_paused = true)]
async fn key_that_failed_before_it_was_shared_takes_part() {
    let each = config().name("tenants").build().unwrap();
    let circuits: KeyedCircuits<String> = KeyedCircuits::new(KeyedConfig::builder(each).build().unwrap());
    circuits.try_acquire("a").unwrap().record(failure());
    circuits.try_acquire("b").unwrap().record(Verdict::Success);
    let (fleet, agent) = Fleet::builder(MemoryStore::new()).instance("p0").build().unwrap();
    fleet.share_keyed(&circuits, KeyedSharing::new()).unwrap();
    let agent = tokio::spawn(agent);
    assert!(fleet.ready(seconds(1)).await);
    tokio::time::sleep(millis(100)).await;
    assert!(fleet.circuit_status(&name("a")).is_some() && fleet.circuit_status(&name("b")).is_none());
    fleet.leave().await;
    agent.await.unwrap();
    circuits.try_acquire("b").unwrap().record(failure());
}

#[tokio::test(start_paused = true)]
async fn single_vote_opens_key_with_quorum_of_one() {
    let store = MemoryStore::new();
    let sharing = KeyedSharing::new().quorum(Quorum::at_least(1));
    let start = |instance: &str| KeyedProcess::start_with(store.clone(), instance, sharing.clone());
    let processes = [start("p0"), start("p1")];
    for process in &processes {
        assert!(process.fleet.ready(seconds(1)).await);
    }
    fail(&processes[..1], "a", seconds(2)).await;
    assert!(!processes[1].call("a", true));
}

/// The same on a real store, in real time.
#[cfg(all(feature = "redis", unix))]
#[tokio::test]
async fn quorum_opens_key_for_all_with_redis() {
    let server = test_servers::Redis::start();
    let start = |instance: &str| {
        let store = tower_breaker_fleet::RedisStore::open(&server.url()).unwrap();
        KeyedProcess::start_with(store, instance, KeyedSharing::new().quorum(Quorum::at_least(2)))
    };
    let processes = [start("p0"), start("p1"), start("p2")];
    for process in &processes {
        assert!(process.fleet.ready(seconds(10)).await);
    }
    assert!(processes[2].call("a b/%", true));
    // A circuit that was tripped manually votes, too.
    for process in &processes[..2] {
        process.circuits.circuit("a b/%").trip().unwrap();
    }
    let is_open = async {
        while processes[2].state("a b/%") != CircuitState::Open {
            tokio::time::sleep(millis(10)).await;
        }
    };
    tokio::time::timeout(seconds(10), is_open).await.expect("the key opens");
    let restarted = start("p3");
    assert!(restarted.fleet.ready(seconds(10)).await);
    assert!(!restarted.call("a b/%", true), "the record is loaded at the start");
}
