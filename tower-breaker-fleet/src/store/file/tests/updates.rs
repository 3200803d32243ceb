use std::fs::{self, OpenOptions};
use std::io::Write;

use super::*;
use crate::store::Update;

/// Waits for the next update, which must be a record.
pub(super) async fn next_record(session: &mut dyn Session) -> CircuitRecord {
    match tokio::time::timeout(10 * SECOND, session.update()).await.expect("an update arrives").unwrap() {
        Update::Record(record) => record,
        other @ Update::SlotsTaken { .. } => panic!("{other:?}"),
    }
}

/// Waits for updates until one is of this epoch.
async fn wait_for(session: &mut dyn Session, epoch: u64) -> CircuitRecord {
    let wait = async {
        loop {
            match session.update().await.unwrap() {
                Update::Record(record) if record.epoch == epoch => return record,
                _ => {}
            }
        }
    };
    tokio::time::timeout(10 * SECOND, wait).await.expect("the update arrives")
}

#[tokio::test]
async fn decision_reaches_other_session_and_heartbeat_does_not() {
    let setup = Setup::new();
    let (mut first, mut second) = (setup.connect().await, setup.connect().await);
    trip(&mut *first, "earlier").await.unwrap();
    let length = || fs::metadata(setup.file("updates")).unwrap().len();
    let before = length();
    sync(&mut *first, "p", "a").await.unwrap();
    sync(&mut *second, "q", "a").await.unwrap();
    assert_eq!(length(), before);

    let epoch = trip(&mut *first, "a").await.unwrap().record.epoch;
    let record = wait_for(&mut *second, epoch).await;
    assert_eq!(record.circuit, "a");
    assert!(record.remaining.unwrap() <= 30 * SECOND);
}

#[tokio::test]
async fn dropped_wait_loses_no_update() {
    let setup = Setup::new();
    let (mut writer, mut reader) = (setup.connect().await, setup.connect().await);
    let mut expected = Vec::new();
    for number in 0..20 {
        expected.push(trip(&mut *writer, &format!("c{number}")).await.unwrap().record.epoch);
    }
    let mut seen = Vec::new();
    let wait = async {
        // Each wait is dropped after one poll, so that it is dropped in each phase.
        while seen.len() < expected.len() {
            tokio::select! {
                biased;
                update = reader.update() => match update.unwrap() {
                    Update::Record(record) => seen.push(record.epoch),
                    other @ Update::SlotsTaken { .. } => panic!("{other:?}"),
                },
                () = tokio::task::yield_now() => {}
            }
        }
    };
    tokio::time::timeout(10 * SECOND, wait).await.expect("all updates arrive");
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn several_decisions_of_a_circuit_arrive_as_the_last_one() {
    let setup = Setup::new();
    let (mut writer, mut reader) = (setup.connect().await, setup.connect().await);
    for _ in 0..5 {
        trip(&mut *writer, "a").await.unwrap();
    }
    let last = trip(&mut *writer, "a").await.unwrap().record;
    assert_eq!(next_record(&mut *reader).await.epoch, last.epoch);
    trip(&mut *writer, "b").await.unwrap();
    assert_eq!(next_record(&mut *reader).await.circuit, "b");
}

#[tokio::test]
async fn updates_before_the_connection_are_not_delivered() {
    let setup = Setup::new();
    let mut writer = setup.connect().await;
    trip(&mut *writer, "before").await.unwrap();
    let mut reader = setup.connect().await;
    trip(&mut *writer, "after").await.unwrap();
    assert_eq!(next_record(&mut *reader).await.circuit, "after");
}

#[tokio::test]
async fn large_log_is_replaced_and_readers_follow() {
    let setup = Setup::new();
    let (mut writer, mut reader) = (setup.connect().await, setup.connect().await);
    // The reader has not read this update when the log is replaced.
    trip(&mut *writer, "first").await.unwrap();
    let mut log = OpenOptions::new().append(true).open(setup.file("updates")).unwrap();
    log.write_all(&b"{\"circuit\":\"unknown\"}\n".repeat(13_000)).unwrap();
    trip(&mut *writer, "second").await.unwrap();
    assert!(fs::metadata(setup.file("updates")).unwrap().len() < 1000);
    for circuit in ["first", "second"] {
        assert_eq!(next_record(&mut *reader).await.circuit, circuit);
    }
}

#[tokio::test]
async fn part_of_a_line_does_not_hide_the_next_update() {
    let setup = Setup::new();
    let (mut writer, mut reader) = (setup.connect().await, setup.connect().await);
    let first = trip(&mut *writer, "first").await.unwrap().record.epoch;
    wait_for(&mut *reader, first).await;
    let mut log = OpenOptions::new().append(true).open(setup.file("updates")).unwrap();
    log.write_all(b"{\"circuit\":\"se").unwrap();
    let second = trip(&mut *writer, "second").await.unwrap().record.epoch;
    wait_for(&mut *reader, second).await;
}

#[tokio::test]
async fn truncated_or_deleted_log_loses_no_later_update() {
    let setup = Setup::new();
    let (mut writer, mut reader) = (setup.connect().await, setup.connect().await);
    for number in 0..5 {
        let path = setup.file("updates");
        match number {
            2 => fs::write(&path, "").unwrap(),
            3 => fs::remove_file(&path).unwrap(),
            4 => fs::remove_dir_all(path.parent().unwrap()).unwrap(),
            _ => {}
        }
        let epoch = trip(&mut *writer, "a").await.unwrap().record.epoch;
        wait_for(&mut *reader, epoch).await;
    }
}
