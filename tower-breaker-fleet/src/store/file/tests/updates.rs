use std::fs::{self, OpenOptions};
use std::io::Write;

use super::*;
use crate::store::Update;

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
    let last = trip(&mut *writer, "a").await.unwrap().record.epoch;
    let Update::Record(record) = reader.update().await.unwrap() else { panic!("no record") };
    assert_eq!(record.epoch, last);
}

#[tokio::test]
async fn large_log_is_replaced_and_readers_follow() {
    let setup = Setup::new();
    let (mut writer, mut reader) = (setup.connect().await, setup.connect().await);
    let first = trip(&mut *writer, "first").await.unwrap().record.epoch;
    wait_for(&mut *reader, first).await;
    let mut log = OpenOptions::new().append(true).open(setup.file("updates")).unwrap();
    log.write_all(&b"{\"circuit\":\"unknown\"}\n".repeat(13_000)).unwrap();
    let last_in_old = {
        // A session that has not read the old log yet reads it to its end.
        let epoch = trip(&mut *writer, "second").await.unwrap().record.epoch;
        assert!(fs::metadata(setup.file("updates")).unwrap().len() < 1000);
        epoch
    };
    wait_for(&mut *reader, last_in_old).await;
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
