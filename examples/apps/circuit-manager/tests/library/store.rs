//! The stores. Each scenario runs on each of them.

use std::future::poll_fn;
use std::ops::Not;
use std::path::PathBuf;
use std::time::Duration;

use circuit_manager::manager::{Manager, ManagerError};
use circuit_manager::settings::CircuitSettings;
use circuit_manager::store::{MemoryStore, Outage, Row, StateWriter, Store, StoreError, WriterSettings};
use tempfile::TempDir;
use test_servers::{Postgres, Tls};
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use tower_breaker::CircuitState::{Closed, ForcedOpen, HalfOpen, Open};
use tower_breaker::{CircuitState, Clock, ManualClock};

use crate::support::{AGENT, fail};

/// The longest wait for the writer. A machine with other work needs some seconds.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A store, and what it needs.
enum Backend {
    /// The URL of an empty database.
    Postgres(String),
    File(TempDir),
    Memory(MemoryStore),
}

impl Backend {
    /// Creates a database.
    async fn postgres(server: &Postgres, name: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let url = server.url();
        Self::Postgres(format!("{}/{name}", url.strip_suffix("/postgres").unwrap()))
    }

    fn file() -> Self {
        Self::File(TempDir::new().unwrap())
    }

    fn memory() -> Self {
        Self::Memory(MemoryStore::new())
    }

    /// Returns a store as a process that starts opens it.
    fn open(&self) -> Store {
        match self {
            Self::Postgres(url) => Store::postgres(url).unwrap(),
            Self::File(folder) => Store::file(folder.path().join("states.json")),
            Self::Memory(store) => Store::Memory(store.clone()),
        }
    }

    async fn row(&self, agent: &str) -> Option<Row> {
        let rows = self.open().load().await.unwrap();
        rows.into_iter().find(|row| row.agent_id == agent)
    }

    /// Changes the row of an agent, as if its process had ended `earlier`.
    async fn age(&self, agent: &str, earlier: Duration) {
        let mut row = self.row(agent).await.unwrap();
        let mut snapshot = row.snapshot().unwrap();
        snapshot.taken_at -= earlier;
        row.metadata["snapshot"] = serde_json::to_value(snapshot).unwrap();
        self.open().upsert(&[row]).await.unwrap();
    }
}

/// A manager with a writer, as in a process.
struct Process {
    manager: Manager,
    time: ManualClock,
    writer: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Process {
    async fn start(backend: &Backend) -> Self {
        Self::start_with(backend.open(), WriterSettings::default()).await
    }

    async fn start_with(store: Store, settings: WriterSettings) -> Self {
        let (clock, time) = Clock::manual();
        let manager = Manager::with_clock(CircuitSettings::default(), [].into(), clock).unwrap();
        let (manager, writer): (_, StateWriter) = manager.persist(store, settings).await.unwrap();
        let shutdown = CancellationToken::new();
        let writer = tokio::spawn(writer.run(shutdown.clone()));
        Self { manager, time, writer, shutdown }
    }

    /// Ends the process in an orderly way.
    async fn shut_down(self) {
        self.shutdown.cancel();
        self.writer.await.unwrap();
    }

    /// Ends the process without the last writes.
    async fn kill(self) {
        self.writer.abort();
        self.writer.await.unwrap_err();
    }

    /// Waits until all changes are written.
    async fn written(&self) {
        // The writer has not seen the last changes before it runs.
        for _ in 0..10 {
            yield_now().await;
        }
        let nothing_is_pending = async {
            while self.manager.store_status().unwrap().pending > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIME_LIMIT, nothing_is_pending).await.expect("the changes are written in time");
    }
}

/// Defines the tests of the scenarios. PostgreSQL has one test for all of them, because its start
/// takes longer than a scenario.
macro_rules! scenarios {
    ($($name:ident)+) => {
        $(
            mod $name {
                use super::Backend;

                #[tokio::test]
                async fn file() {
                    super::scenarios::$name(Backend::file()).await;
                }

                #[tokio::test]
                async fn memory() {
                    super::scenarios::$name(Backend::memory()).await;
                }
            }
        )+

        #[tokio::test]
        async fn postgres_passes_all_scenarios() {
            let server = Postgres::start();
            $(
                println!("{}", stringify!($name));
                scenarios::$name(Backend::postgres(&server, stringify!($name)).await).await;
            )+
        }
    };
}

scenarios! {
    transition_is_stored_with_counts
    restart_keeps_circuit_open_for_rest_of_cooldown
    restart_after_cooldown_admits_probe
    forced_circuit_stays_forced_over_restart
    half_open_circuit_probes_after_restart
    closed_circuit_keeps_times_over_restart
    shutdown_writes_counts
    forced_open_again_is_written
    unusable_row_is_skipped
    thousand_rows_are_written_in_few_statements
    late_write_does_not_replace_newer_row
    late_write_of_killed_process_does_not_replace_newer_row
}

mod scenarios {
    use super::*;

    pub(super) async fn transition_is_stored_with_counts(backend: Backend) {
        let process = Process::start(&backend).await;
        for _ in 0..3 {
            process.manager.record_success(AGENT).unwrap();
        }
        fail(&process.manager, 5);
        process.written().await;

        let row = backend.row(AGENT).await.unwrap();
        let stats = process.manager.stats(AGENT).unwrap();
        assert_eq!((row.state, row.failure_count, row.success_count), (Open, 5, 3));
        assert_eq!(row.metadata["stats"]["consecutive_failures"], 5);
        assert_eq!(row.stats().unwrap(), stats);
        assert_eq!(row.snapshot().unwrap().state, Open);
        let opened_at = stats.opened_at.unwrap();
        let last_failure_at = row.last_failure_at.unwrap();
        // PostgreSQL stores microseconds.
        assert!((row.last_state_change_at - opened_at).abs() < Duration::from_micros(1));
        assert!((last_failure_at - stats.last_failure_time.unwrap()).abs() < Duration::from_micros(1));
        process.shut_down().await;
    }

    pub(super) async fn restart_keeps_circuit_open_for_rest_of_cooldown(backend: Backend) {
        let process = Process::start(&backend).await;
        process.manager.record_success(AGENT).unwrap();
        fail(&process.manager, 5);
        process.written().await;
        let stats = process.manager.stats(AGENT).unwrap();
        process.kill().await;
        backend.age(AGENT, Duration::from_secs(40)).await;

        let process = Process::start(&backend).await;
        let manager = &process.manager;
        assert_eq!(manager.get_state(AGENT), Some(Open));
        assert!(!manager.can_execute(AGENT).unwrap());
        assert_eq!(manager.stats(AGENT).unwrap(), stats, "the counts and times are restored");
        let rest = manager.get(AGENT).unwrap().status().retry_after.unwrap();
        assert!(rest <= Duration::from_secs(20) && rest.is_zero().not(), "{rest:?}");
        process.time.advance(rest);
        assert!(manager.can_execute(AGENT).unwrap());
        assert_eq!(manager.get_state(AGENT), Some(HalfOpen));
        manager.record_failure(AGENT).unwrap();
        let counts = manager.stats(AGENT).unwrap().stats;
        assert_eq!((counts.failed_requests, counts.consecutive_failures), (6, 6));
        process.shut_down().await;
    }

    pub(super) async fn restart_after_cooldown_admits_probe(backend: Backend) {
        let process = Process::start(&backend).await;
        fail(&process.manager, 5);
        process.written().await;
        process.kill().await;
        backend.age(AGENT, Duration::from_secs(60)).await;

        let process = Process::start(&backend).await;
        assert_eq!(process.manager.get_state(AGENT), Some(Open));
        assert!(process.manager.can_execute(AGENT).unwrap());
        assert_eq!(process.manager.get_state(AGENT), Some(HalfOpen));
        process.shut_down().await;
    }

    pub(super) async fn forced_circuit_stays_forced_over_restart(backend: Backend) {
        let process = Process::start(&backend).await;
        process.manager.get_or_create(AGENT).unwrap().force_open().unwrap();
        process.written().await;
        let opened_at = process.manager.stats(AGENT).unwrap().opened_at;
        process.kill().await;

        let process = Process::start(&backend).await;
        assert_eq!(process.manager.get_state(AGENT), Some(ForcedOpen));
        assert_eq!(process.manager.stats(AGENT).unwrap().opened_at, opened_at);
        process.manager.get(AGENT).unwrap().release();
        process.shut_down().await;
        assert_eq!(backend.row(AGENT).await.unwrap().state, HalfOpen);
    }

    pub(super) async fn half_open_circuit_probes_after_restart(backend: Backend) {
        let process = Process::start(&backend).await;
        fail(&process.manager, 5);
        process.time.advance(Duration::from_secs(60));
        assert!(process.manager.can_execute(AGENT).unwrap());
        process.written().await;
        process.kill().await;
        assert_eq!(backend.row(AGENT).await.unwrap().state, HalfOpen);

        let process = Process::start(&backend).await;
        for _ in 0..2 {
            assert!(process.manager.can_execute(AGENT).unwrap());
            process.manager.record_success(AGENT).unwrap();
        }
        assert_eq!(process.manager.get_state(AGENT), Some(Closed));
        process.shut_down().await;
        assert_eq!(backend.row(AGENT).await.unwrap().state, Closed);
    }

    pub(super) async fn closed_circuit_keeps_times_over_restart(backend: Backend) {
        let process = Process::start(&backend).await;
        process.manager.record_success(AGENT).unwrap();
        fail(&process.manager, 1);
        let stats = process.manager.stats(AGENT).unwrap();
        process.shut_down().await;
        let last_change = backend.row(AGENT).await.unwrap().last_state_change_at;

        let process = Process::start(&backend).await;
        let restored = process.manager.stats(AGENT).unwrap();
        assert_eq!((restored.state, restored.stats.total_requests), (Closed, 0));
        assert_eq!(restored.last_failure_time, stats.last_failure_time);
        assert_eq!(restored.last_success_time, stats.last_success_time);
        process.shut_down().await;
        assert_eq!(backend.row(AGENT).await.unwrap().last_state_change_at, last_change);
    }

    pub(super) async fn shutdown_writes_counts(backend: Backend) {
        let process = Process::start(&backend).await;
        process.manager.get_or_create(AGENT).unwrap();
        process.written().await;
        let row = backend.row(AGENT).await.expect("a new agent is written");
        assert_eq!((row.state, row.success_count), (Closed, 0));
        for _ in 0..7 {
            process.manager.record_success(AGENT).unwrap();
        }
        fail(&process.manager, 2);
        process.shut_down().await;
        let row = backend.row(AGENT).await.unwrap();
        assert_eq!((row.state, row.success_count, row.failure_count), (Closed, 7, 2));
    }

    pub(super) async fn forced_open_again_is_written(backend: Backend) {
        let process = Process::start(&backend).await;
        process.manager.get_or_create(AGENT).unwrap();
        process.manager.force_open(AGENT).unwrap();
        process.time.advance(Duration::from_secs(60));
        process.written().await;
        let opened_at = process.manager.stats(AGENT).unwrap().opened_at;
        process.manager.force_open(AGENT).unwrap();
        assert!(process.manager.stats(AGENT).unwrap().opened_at > opened_at);
        process.written().await;
        process.kill().await;

        let process = Process::start(&backend).await;
        assert!(!process.manager.can_execute(AGENT).unwrap());
        process.shut_down().await;
    }

    pub(super) async fn unusable_row_is_skipped(backend: Backend) {
        let process = Process::start(&backend).await;
        for agent in ["broken", "invalid", AGENT] {
            process.manager.get_or_create(agent).unwrap();
            process.manager.force_open(agent).unwrap();
        }
        process.shut_down().await;
        let mut broken = backend.row("broken").await.unwrap();
        broken.metadata["snapshot"]["version"] = 2.into();
        let mut invalid = backend.row("invalid").await.unwrap();
        "not valid".clone_into(&mut invalid.agent_id);
        backend.open().upsert(&[broken, invalid]).await.unwrap();

        let process = Process::start(&backend).await;
        let states = process.manager.get_all_states();
        let expected = [("broken", Closed), ("invalid", Open), (AGENT, Open)];
        let expected = expected.map(|(agent, state)| (agent.to_owned(), state));
        assert_eq!(states.into_iter().collect::<Vec<_>>(), expected);
        process.shut_down().await;
    }

    pub(super) async fn thousand_rows_are_written_in_few_statements(backend: Backend) {
        let process = Process::start(&backend).await;
        for agent in 0..1_000 {
            process.manager.record_failure(&format!("agent-{agent:04}")).unwrap();
        }
        process.shut_down().await;
        let rows = backend.open().load().await.unwrap();
        assert_eq!(rows.len(), 1_000);
        assert!(rows.iter().all(|row| row.failure_count == 1));
        assert!(rows.is_sorted_by_key(|row| row.agent_id.clone()));
        if let Backend::Memory(store) = &backend {
            assert_eq!(store.statements(), [500, 500]);
        }
    }

    pub(super) async fn late_write_does_not_replace_newer_row(backend: Backend) {
        let process = Process::start(&backend).await;
        process.manager.get_or_create(AGENT).unwrap();
        process.manager.force_open(AGENT).unwrap();
        process.written().await;
        let late = backend.row(AGENT).await.unwrap();
        process.manager.reset(AGENT).unwrap();
        process.written().await;
        // A statement that has timed out runs now.
        backend.open().upsert(&[late]).await.unwrap();
        assert_eq!(backend.row(AGENT).await.unwrap().state, Closed);
        process.shut_down().await;
    }

    pub(super) async fn late_write_of_killed_process_does_not_replace_newer_row(backend: Backend) {
        let process = Process::start(&backend).await;
        process.manager.get_or_create(AGENT).unwrap();
        process.written().await;
        let mut late = backend.row(AGENT).await.unwrap();
        process.kill().await;
        // The last statement of the killed process has not arrived when the next process starts.
        late.metadata["write"] = (late.write() + 100).into();
        late.state = HalfOpen;

        let process = Process::start(&backend).await;
        process.manager.force_open(AGENT).unwrap();
        process.written().await;
        backend.open().upsert(&[late]).await.unwrap();
        assert_eq!(backend.row(AGENT).await.unwrap().state, Open);
        process.shut_down().await;
    }
}

#[tokio::test(start_paused = true)]
async fn changes_of_an_agent_are_coalesced() {
    let store = MemoryStore::new();
    let process = Process::start_with(Store::Memory(store.clone()), WriterSettings::default()).await;
    for _ in 0..10 {
        fail(&process.manager, 5);
        process.manager.reset(AGENT).unwrap();
    }
    process.written().await;
    assert_eq!(store.statements(), [1]);
    let status = process.manager.store_status().unwrap();
    assert_eq!((status.changes, status.rows, status.statements), (20, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn counts_without_change_are_written_at_interval() {
    let store = MemoryStore::new();
    let process = Process::start_with(Store::Memory(store.clone()), WriterSettings::default()).await;
    process.manager.get_or_create("idle").unwrap();
    fail(&process.manager, 1);
    process.written().await;
    assert_eq!(store.statements(), [2]);
    fail(&process.manager, 1);
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert_eq!(store.statements(), [2, 1], "only the agent with new counts is written, and once");
}

#[tokio::test(start_paused = true)]
async fn store_is_checked_while_nothing_changes() {
    let store = MemoryStore::new();
    let process = Process::start_with(Store::Memory(store.clone()), WriterSettings::default()).await;
    for (outage, is_reachable) in [(Some(Outage::Refuses), false), (None, true)] {
        store.set_outage(outage);
        tokio::time::sleep(Duration::from_secs(13)).await;
        assert_eq!(process.manager.store_status().unwrap().reachable, is_reachable);
    }
}

#[tokio::test(start_paused = true)]
async fn missed_transitions_write_all_agents() {
    let store = MemoryStore::new();
    let process = Process::start_with(Store::Memory(store.clone()), WriterSettings::default()).await;
    let agents: Vec<_> = (0..400).map(|agent| format!("agent-{agent:04}")).collect();
    for agent in &agents {
        process.manager.get_or_create(agent).unwrap();
    }
    process.written().await;
    // The stream keeps 256 transitions, and the writer does not run in between.
    for agent in &agents {
        process.manager.force_open(agent).unwrap();
    }
    process.written().await;
    let rows = Store::Memory(store.clone()).load().await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.state == Open).count(), 400);
    assert_eq!(process.manager.store_status().unwrap().changes, 400);
}

/// Returns the states in the table.
async fn states_in(store: &Store) -> Vec<(String, CircuitState)> {
    store.load().await.unwrap().into_iter().map(|row| (row.agent_id, row.state)).collect()
}

/// Changes the circuits of agents at random, with calls and commands.
fn change_randomly(manager: &Manager, random: &mut u64) {
    for _ in 0..100 {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let agent = format!("agent-{}", (*random >> 33) % 50);
        match (*random >> 40) % 8 {
            0 => manager.record_success(&agent).unwrap(),
            1 if manager.get(&agent).is_some() => manager.reset(&agent).unwrap(),
            _ => manager.record_failure(&agent).unwrap(),
        }
    }
}

/// All calls are synchronous, so a call that waited for the store would never return in a runtime
/// of one thread.
async fn states_are_caught_up_with_after(outage: Outage) {
    let store = MemoryStore::new();
    let process = Process::start_with(Store::Memory(store.clone()), WriterSettings::default()).await;
    let mut random = 7;
    change_randomly(&process.manager, &mut random);
    process.written().await;
    store.set_outage(Some(outage));
    // The next write of all counts is 9 s after the end of the outage.
    for _ in 0..61 {
        change_randomly(&process.manager, &mut random);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let status = process.manager.store_status().unwrap();
    assert!(!status.reachable && status.pending > 0);
    let expected = match outage {
        Outage::Refuses => "the store in memory refuses",
        Outage::Hangs => "call timed out after 5 s: timeout (origin: transport)",
    };
    assert_eq!(status.last_error.as_deref(), Some(expected), "not that its circuit is open");

    store.set_outage(None);
    // A hanging statement ends after 5 s, and the store's circuit is open for 2 s.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let expected: Vec<_> = process.manager.get_all_states().into_iter().collect();
    assert!(expected.iter().any(|(_, state)| *state == Open));
    assert!(expected.iter().any(|(_, state)| *state == Closed));
    assert_eq!(states_in(&Store::Memory(store)).await, expected);
    let status = process.manager.store_status().unwrap();
    assert!(status.reachable && status.last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn store_that_refuses_for_a_minute_gets_all_last_states() {
    states_are_caught_up_with_after(Outage::Refuses).await;
}

#[tokio::test(start_paused = true)]
async fn store_that_hangs_for_a_minute_gets_all_last_states() {
    states_are_caught_up_with_after(Outage::Hangs).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_at_its_limit_while_store_hangs() {
    let store = MemoryStore::new();
    let process = Process::start_with(Store::Memory(store.clone()), WriterSettings::default()).await;
    fail(&process.manager, 5);
    store.set_outage(Some(Outage::Hangs));
    let start = tokio::time::Instant::now();
    process.shut_down().await;
    assert!(start.elapsed() <= WriterSettings::default().shutdown_limit + Duration::from_millis(2));
    assert!(store.statements().is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_a_store_that_is_back_in_time() {
    let store = MemoryStore::new();
    let process = Process::start_with(Store::Memory(store.clone()), WriterSettings::default()).await;
    store.set_outage(Some(Outage::Refuses));
    fail(&process.manager, 5);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let back = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        store.set_outage(None);
    };
    tokio::join!(process.shut_down(), back);
    assert_eq!(states_in(&Store::Memory(store)).await, [(AGENT.to_owned(), Open)]);
}

/// How long the real server is stopped. The campaign has the whole minute.
const STOPPED: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn calls_continue_while_database_is_down() {
    let mut server = Postgres::start();
    let store = Store::postgres(&server.url()).unwrap();
    let process = Process::start_with(store.clone(), WriterSettings::default()).await;
    let mut random = 11;
    change_randomly(&process.manager, &mut random);
    process.written().await;

    server.kill();
    let end = tokio::time::Instant::now() + STOPPED;
    while tokio::time::Instant::now() < end || process.manager.store_status().unwrap().reachable {
        change_randomly(&process.manager, &mut random);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(process.manager.store_status().unwrap().pending > 0);
    server.restart();
    process.written().await;
    let expected: Vec<_> = process.manager.get_all_states().into_iter().collect();
    assert_eq!(states_in(&store).await, expected);
    process.shut_down().await;
}

#[tokio::test]
async fn paused_database_is_caught_up_with() {
    let mut server = Postgres::start();
    let store = Store::postgres(&server.url()).unwrap();
    let settings = WriterSettings { timeout: Duration::from_secs(1), ..WriterSettings::default() };
    let process = Process::start_with(store.clone(), settings).await;
    server.pause();
    fail(&process.manager, 5);
    let is_lost = async {
        while process.manager.store_status().unwrap().reachable {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIME_LIMIT, is_lost).await.expect("a statement times out");
    process.manager.reset(AGENT).unwrap();
    server.resume();
    process.written().await;
    assert_eq!(states_in(&store).await, [(AGENT.to_owned(), Closed)]);
    process.shut_down().await;
}

#[tokio::test]
async fn table_has_exactly_the_documented_columns() {
    let server = Postgres::start();
    let store = Store::postgres(&server.url()).unwrap();
    store.migrate().await.unwrap();
    // A second start.
    store.migrate().await.unwrap();
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let query = "SELECT column_name::text, data_type::text FROM information_schema.columns
        WHERE table_name = 'circuit_breaker_state' ORDER BY ordinal_position";
    let rows = client.query(query, &[]).await.unwrap();
    let columns: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [
        ("agent_id", "text"),
        ("state", "text"),
        ("failure_count", "bigint"),
        ("success_count", "bigint"),
        ("last_failure_at", "timestamp with time zone"),
        ("last_state_change_at", "timestamp with time zone"),
        ("metadata", "jsonb"),
    ];
    assert_eq!(columns, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));

    // A user who may not create tables can start the program.
    let grants =
        "CREATE USER app PASSWORD 'app'; GRANT SELECT, INSERT, UPDATE ON circuit_breaker_state TO app;
        INSERT INTO circuit_breaker_state VALUES ('odd', 'melted', 0, 0, NULL, now(), '{}')";
    client.batch_execute(grants).await.unwrap();
    let app = Store::postgres(&server.url_as("app", "app")).unwrap();
    app.migrate().await.unwrap();
    assert!(app.load().await.unwrap().is_empty(), "a row with an unknown state is skipped");
    let error = Store::postgres(&server.url_as("app", "wrong")).unwrap().check().await.unwrap_err();
    assert!(matches!(error, StoreError::Postgres(_)));
}

/// A table that another program has created, and changes of its administrator.
const ODD_ROWS: &str = "
    ALTER TABLE circuit_breaker_state ALTER failure_count DROP NOT NULL, ALTER metadata DROP NOT NULL;
    UPDATE circuit_breaker_state SET last_failure_at = 'infinity' WHERE agent_id = 'time';
    UPDATE circuit_breaker_state SET failure_count = NULL WHERE agent_id = 'count';
    UPDATE circuit_breaker_state SET metadata = NULL WHERE agent_id = 'metadata';
    UPDATE circuit_breaker_state SET metadata = '{\"write\": true}' WHERE agent_id = 'boolean';
    UPDATE circuit_breaker_state SET metadata = '{\"write\": 1e300}' WHERE agent_id = 'huge';
    UPDATE circuit_breaker_state SET metadata = '{\"write\": 18446744073709551615}' WHERE agent_id = 'last';
    UPDATE circuit_breaker_state SET state = 'melted', metadata = '{\"write\": 30064771072}'
        WHERE agent_id = 'state'";

#[tokio::test]
async fn odd_rows_are_skipped_and_replaced() {
    const AGENTS: [&str; 7] = ["boolean", "count", "huge", "last", "metadata", "state", "time"];
    let server = Postgres::start();
    let store = Store::postgres(&server.url()).unwrap();
    let process = Process::start_with(store.clone(), WriterSettings::default()).await;
    for agent in AGENTS {
        process.manager.get_or_create(agent).unwrap();
    }
    process.shut_down().await;
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(ODD_ROWS).await.unwrap();

    let process = Process::start_with(store.clone(), WriterSettings::default()).await;
    assert!(process.manager.get_all_states().values().all(|state| *state == Closed));
    for agent in AGENTS {
        process.manager.get_or_create(agent).unwrap();
        process.manager.force_open(agent).unwrap();
    }
    process.shut_down().await;
    assert_eq!(states_in(&store).await, AGENTS.map(|agent| (agent.to_owned(), Open)));
}

#[tokio::test]
async fn rejected_row_keeps_no_other_row_from_the_table() {
    let server = Postgres::start();
    let store = Store::postgres(&server.url()).unwrap();
    let process = Process::start_with(store.clone(), WriterSettings::default()).await;
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let shorter = "ALTER TABLE circuit_breaker_state ALTER agent_id TYPE varchar(100)";
    client.batch_execute(shorter).await.unwrap();
    let too_long = "a".repeat(101);
    process.manager.get_or_create(&too_long).unwrap();
    // More than the rows of a statement.
    for agent in 0..600 {
        process.manager.get_or_create(&format!("agent-{agent:03}")).unwrap();
    }
    process.written().await;
    assert_eq!(states_in(&store).await.len(), 600);
    process.manager.force_open("agent-007").unwrap();
    process.manager.force_open(&too_long).unwrap();
    process.shut_down().await;
    assert_eq!(states_in(&store).await[7], ("agent-007".to_owned(), Open));
}

#[tokio::test]
async fn table_of_other_types_is_an_error_at_start() {
    let server = Postgres::start();
    let store = Store::postgres(&server.url()).unwrap();
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let table = "CREATE TABLE circuit_breaker_state (agent_id text PRIMARY KEY, state text,
        failure_count text, success_count bigint, last_failure_at timestamptz,
        last_state_change_at timestamptz, metadata jsonb);
        INSERT INTO circuit_breaker_state VALUES ('a', 'open', '0', 0, now(), now(), '{}')";
    client.batch_execute(table).await.unwrap();
    let error = Manager::with_store(CircuitSettings::default(), [].into(), store).await.unwrap_err();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("failure_count") && text.contains("text"), "{text}");
}

#[tokio::test]
async fn file_of_a_running_process_is_refused() {
    let backend = Backend::file();
    let process = Process::start(&backend).await;
    let second = Manager::with_store(CircuitSettings::default(), [].into(), backend.open()).await;
    let ManagerError::Store(error) = second.unwrap_err() else { panic!("the file is used") };
    let text = error.to_string();
    assert!(text.contains("states.json") && text.contains("is used by another process"), "{text}");
    process.shut_down().await;
    Process::start(&backend).await.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writes_of_a_file_lose_no_row() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("states.json");
    let source = MemoryStore::new();
    let process = Process::start_with(Store::Memory(source.clone()), WriterSettings::default()).await;
    for agent in 0..40 {
        process.manager.get_or_create(&format!("agent-{agent}")).unwrap();
    }
    process.shut_down().await;
    let store = Store::file(&path);
    let mut writes = JoinSet::new();
    for row in Store::Memory(source).load().await.unwrap() {
        let store = store.clone();
        writes.spawn(async move { store.upsert(&[row]).await.unwrap() });
    }
    writes.join_all().await;
    assert_eq!(Store::file(&path).load().await.unwrap().len(), 40);
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files, [path], "no temporary file is left");
}

/// Polls a write of the file once, so that its thread runs, and drops it.
async fn begin_and_drop(store: &Store, rows: &[Row]) {
    let mut write = std::pin::pin!(store.upsert(rows));
    poll_fn(|context| {
        let _ = write.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn dropped_write_of_a_file_does_not_undo_the_next() {
    let backend = Backend::file();
    let process = Process::start(&backend).await;
    process.manager.get_or_create(AGENT).unwrap();
    process.shut_down().await;
    let store = backend.open();
    let mut row = backend.row(AGENT).await.unwrap();
    for count in 0..50 {
        row.success_count = 1_000;
        begin_and_drop(&store, std::slice::from_ref(&row)).await;
        row.success_count = count;
        store.upsert(std::slice::from_ref(&row)).await.unwrap();
        assert_eq!(backend.row(AGENT).await.unwrap().success_count, count);
    }
}

#[tokio::test]
async fn damaged_file_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let path: PathBuf = folder.path().join("states.json");
    std::fs::write(&path, "{\"circuit_breaker_state\": [").unwrap();
    let manager = Manager::with_store(CircuitSettings::default(), [].into(), Store::file(&path)).await;
    let ManagerError::Store(error) = manager.unwrap_err() else { panic!("the file is damaged") };
    let expected =
        format!("the file {} is damaged; repair it, or remove it to start without states", path.display());
    assert_eq!(error.to_string(), expected);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"circuit_breaker_state\": [");
}

#[tokio::test]
async fn missing_folder_is_an_error_at_start() {
    let folder = TempDir::new().unwrap();
    let store = Store::file(folder.path().join("missing/states.json"));
    assert!(matches!(store.migrate().await, Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn manager_has_only_one_store() {
    let process = Process::start(&Backend::memory()).await;
    let store = Store::Memory(MemoryStore::new());
    let second = process.manager.clone().persist(store, WriterSettings::default()).await;
    assert!(matches!(second, Err(ManagerError::HasStore)));
}

#[test]
fn url_error_has_no_password() {
    let error = Store::postgres("postgresql://user:secret@host:port/x").unwrap_err();
    let text = format!("{error:?}: {error}");
    assert!(matches!(error, StoreError::Url(_)) && !text.contains("secret"), "{text}");
}

/// rustls panics if no crypto provider is compiled in, or more than one.
#[tokio::test]
async fn database_with_tls_needs_no_crypto_provider_at_start() {
    let server = Postgres::start_tls(&Tls::new());
    let url = server.url_at(server.address());
    let required = Store::postgres(&format!("{url}?sslmode=require")).unwrap();
    // The certificate is that of an authority that the system does not know.
    let StoreError::Postgres(error) = required.check().await.unwrap_err() else { panic!("TLS is used") };
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("invalid peer certificate"), "{text}");
    let disabled = Store::postgres(&format!("{url}?sslmode=disable")).unwrap();
    disabled.check().await.unwrap();
}
