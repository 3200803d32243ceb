//! The scenarios, and the failures that tests can cause.

use tokio::time::{advance, timeout};

use super::*;
use crate::record::FleetState;
use crate::store::scenarios::helpers::{self, votes};
use crate::store::{Action, SyncCircuit};

const SECOND: Duration = Duration::from_secs(1);
const OPEN: Duration = Duration::from_secs(30);

fn new_store() -> std::future::Ready<(MemoryStore, ())> {
    std::future::ready((MemoryStore::new(), ()))
}

crate::store::scenarios::run_scenarios!(new_store);

fn trip() -> Operation {
    Operation { open_for: Some(OPEN), grace: OPEN, ..helpers::operation(Action::Trip) }
}

async fn connect(store: &MemoryStore) -> Box<dyn Session> {
    store.connect("default").await.unwrap()
}

async fn state(session: &mut Box<dyn Session>) -> FleetState {
    session.list(None, 1).await.unwrap().first().map_or(FleetState::Closed, |record| record.state)
}

fn is_record(update: &Update) -> bool {
    matches!(update, Update::Record(record) if record.state == FleetState::Open)
}

#[tokio::test(start_paused = true)]
async fn open_time_follows_paused_clock() {
    let store = MemoryStore::new();
    let mut session = connect(&store).await;
    let record = session.operate(&trip()).await.unwrap().record;
    assert_eq!(record.remaining, Some(OPEN));
    advance(29 * SECOND).await;
    let listed = connect(&store.clone()).await.list(None, 1).await.unwrap();
    assert_eq!((listed[0].epoch, listed[0].remaining), (record.epoch, Some(SECOND)));
}

#[tokio::test(start_paused = true)]
async fn stopped_store_processes_requests_later_without_sender() {
    let store = MemoryStore::new();
    let (mut session, mut other) = (connect(&store).await, connect(&store).await);
    store.set_availability(Availability::Stopped);
    assert!(timeout(SECOND, session.operate(&trip())).await.is_err());
    assert!(timeout(SECOND, store.connect("default")).await.is_err());
    let trip = trip();
    let mut waiting = other.operate(&trip);
    assert!(timeout(SECOND, &mut waiting).await.is_err());
    store.set_availability(Availability::Available);
    let second = waiting.await.unwrap().record.epoch;
    let Update::Record(first) = session.update().await.unwrap() else { panic!("no record") };
    assert!(first.epoch < second, "both requests were processed, in their order");
    assert_eq!(state(&mut session).await, FleetState::Open);
}

#[tokio::test(start_paused = true)]
async fn cut_off_store_loses_requests_and_updates() {
    let store = MemoryStore::new();
    let (mut session, mut other) = (connect(&store).await, connect(&store).await);
    // An update that was published before is lost on its way.
    session.operate(&trip()).await.unwrap();
    store.set_availability(Availability::CutOff);
    store.flush();
    assert!(timeout(SECOND, other.update()).await.is_err());
    let trip = trip();
    let mut lost = session.operate(&trip);
    assert!(timeout(SECOND, &mut lost).await.is_err());
    store.set_availability(Availability::Available);
    assert!(timeout(60 * SECOND, lost).await.is_err());
    assert_eq!(state(&mut other).await, FleetState::Closed);
    session.operate(&trip).await.unwrap();
    assert!(is_record(&other.update().await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn failing_store_refuses_requests_and_ends_sessions() {
    let store = MemoryStore::new();
    let (mut session, mut other) = (connect(&store).await, connect(&store).await);
    let fail = async {
        tokio::task::yield_now().await;
        store.set_availability(Availability::Failing);
    };
    let (ended, ()) = tokio::join!(other.update(), fail);
    let errors = [
        ended.unwrap_err(),
        session.operate(&trip()).await.unwrap_err(),
        store.connect("default").await.err().expect("the store fails"),
    ];
    for error in errors {
        assert_eq!((error.kind, &*error.message), (StoreErrorKind::Unreachable, "the memory store fails"));
    }
    store.set_availability(Availability::Available);
    assert_eq!(state(&mut connect(&store).await).await, FleetState::Closed);
}

#[tokio::test(start_paused = true)]
async fn stopped_store_that_fails_drops_requests() {
    let store = MemoryStore::new();
    let mut session = connect(&store).await;
    store.set_availability(Availability::Stopped);
    let trip = trip();
    let mut waiting = session.operate(&trip);
    assert!(timeout(SECOND, &mut waiting).await.is_err());
    store.set_availability(Availability::Failing);
    let error = waiting.await.unwrap_err();
    assert_eq!(error.message, "the memory store failed before it answered");
    store.set_availability(Availability::Available);
    assert_eq!(state(&mut session).await, FleetState::Closed);
}

#[tokio::test(start_paused = true)]
async fn flush_deletes_records_and_keeps_subscriptions() {
    let store = MemoryStore::new();
    let (mut session, mut other) = (connect(&store).await, connect(&store).await);
    let before = session.operate(&trip()).await.unwrap().record;
    other.update().await.unwrap();
    store.flush();
    assert_eq!(state(&mut session).await, FleetState::Closed);
    advance(SECOND).await;
    let after = session.operate(&trip()).await.unwrap().record;
    assert!(after.epoch > before.epoch);
    assert!(is_record(&other.update().await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn delayed_request_is_lost_with_its_sender() {
    let store = MemoryStore::new();
    let mut session = connect(&store).await;
    store.set_delay(2 * SECOND);
    assert!(timeout(SECOND, session.operate(&trip())).await.is_err());
    advance(2 * SECOND).await;
    store.set_delay(Duration::ZERO);
    assert_eq!(state(&mut session).await, FleetState::Closed);
    store.set_delay(2 * SECOND);
    let start = Instant::now();
    session.operate(&trip()).await.unwrap();
    assert_eq!(start.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn updates_are_lost_or_repeated() {
    let store = MemoryStore::new();
    let mut session = connect(&store).await;
    store.set_delivery(Delivery::Never);
    session.operate(&trip()).await.unwrap();
    assert!(timeout(SECOND, session.update()).await.is_err());
    store.set_delivery(Delivery::Twice);
    session.operate(&trip()).await.unwrap();
    for _ in 0..2 {
        let update = timeout(SECOND, session.update()).await.expect("the update arrives twice");
        assert!(is_record(&update.unwrap()));
    }
    assert!(timeout(SECOND, session.update()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn cancelled_wait_loses_no_update() {
    let store = MemoryStore::new();
    let mut session = connect(&store).await;
    for _ in 0..10 {
        assert!(timeout(SECOND, session.update()).await.is_err());
    }
    for _ in 0..3 {
        session.operate(&trip()).await.unwrap();
    }
    let mut epoch = 0;
    for _ in 0..3 {
        let Update::Record(record) = session.update().await.unwrap() else { panic!("no record") };
        assert!(record.epoch > epoch);
        epoch = record.epoch;
    }
}

#[tokio::test(start_paused = true)]
async fn session_far_behind_ends() {
    let store = MemoryStore::new();
    let (mut session, mut slow) = (connect(&store).await, connect(&store).await);
    for _ in 0..=MAX_UPDATES_BEHIND {
        session.operate(&trip()).await.unwrap();
    }
    let error = slow.update().await.unwrap_err();
    assert!(error.message.contains("too slow"), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn circuit_without_data_is_deleted() {
    let store = MemoryStore::new();
    let mut session = connect(&store).await;
    let sync = |name: &str, member| {
        let circuit = SyncCircuit { name: name.to_owned(), member, ..helpers::member(votes(1)) };
        SyncRequest { instance: "a".to_owned(), lifetime: SECOND, grace: SECOND, circuits: vec![circuit] }
    };
    let circuits = |store: &MemoryStore| store.shared.lock().namespaces["default"].circuits.len();
    session.sync(&sync("search", true)).await.unwrap();
    assert_eq!(circuits(&store), 1);
    session.sync(&sync("search", false)).await.unwrap();
    assert_eq!(circuits(&store), 0);
    // A member that does not leave expires. The next list deletes its circuit.
    session.sync(&sync("search", true)).await.unwrap();
    advance(2 * SECOND).await;
    session.list(None, 10).await.unwrap();
    assert_eq!(circuits(&store), 0);
}
