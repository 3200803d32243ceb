use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const START: u64 = 1_700_000_000_000;

#[tokio::test]
async fn clock_set_back_does_not_prolong_open_time() {
    static NOW: AtomicU64 = AtomicU64::new(START);
    let setup = Setup::new();
    let mut session = connect_at(setup.root(), || NOW.load(Ordering::Relaxed)).await.unwrap();
    let first = trip(&mut *session, "a").await.unwrap().record;

    NOW.store(START - 3_600_000, Ordering::Relaxed);
    assert_eq!(record(&mut *session, "a").await.remaining, Some(30 * SECOND));
    assert_eq!(sync(&mut *session, "p", "a").await.unwrap().record.unwrap().remaining, Some(30 * SECOND));
    NOW.store(START - 3_600_000 + 30_000, Ordering::Relaxed);
    assert_eq!(record(&mut *session, "a").await.remaining, Some(Duration::ZERO));
    let second = trip(&mut *session, "a").await.unwrap().record;
    assert!(second.epoch > first.epoch, "{} {}", first.epoch, second.epoch);
}

#[tokio::test]
async fn clock_set_forward_ends_open_time() {
    static NOW: AtomicU64 = AtomicU64::new(START);
    let setup = Setup::new();
    let mut session = connect_at(setup.root(), || NOW.load(Ordering::Relaxed)).await.unwrap();
    trip(&mut *session, "a").await.unwrap();
    NOW.store(START + 40_000, Ordering::Relaxed);
    assert_eq!(record(&mut *session, "a").await.remaining, Some(Duration::ZERO));
}

#[tokio::test]
async fn unused_circuit_file_is_deleted_at_connect() {
    // The files have the time of the real clock, so the time of the store is in the future.
    static AHEAD: AtomicU64 = AtomicU64::new(0);
    let now = || wall_clock::now_ms() + AHEAD.load(Ordering::Relaxed);
    let setup = Setup::new();
    let mut session = connect_at(setup.root(), now).await.unwrap();
    sync(&mut *session, "p", "killed").await.unwrap();
    trip(&mut *session, "tripped").await.unwrap();
    session.operate(&operation("forced", Action::ForceOpen)).await.unwrap();

    for (ahead, expected) in
        [(50, [true, true, true]), (80, [false, true, true]), (200, [false, false, true])]
    {
        AHEAD.store(ahead * 1000, Ordering::Relaxed);
        connect_at(setup.root(), now).await.unwrap();
        let exist = ["killed", "tripped", "forced"].map(|name| setup.file(&format!("{name}.json")).exists());
        assert_eq!(exist, expected, "{ahead} s");
    }
}

#[tokio::test]
async fn leaving_member_deletes_circuit_without_record() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    sync(&mut *session, "p", "a").await.unwrap();
    let path = setup.file("a.json");
    assert!(path.exists());
    let mut leave = heartbeat("p", "a");
    leave.circuits[0].member = false;
    session.sync(&leave).await.unwrap();
    assert!(!path.exists());
}
