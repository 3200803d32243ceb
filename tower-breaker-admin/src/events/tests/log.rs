//! Tests of the log alone: what it keeps.

use bytes::Bytes;

use super::super::inbox::{Entry, Inbox};
use super::super::log::{Cursor, Log, Next};
use super::audit_entry;

fn item(bytes: usize) -> Bytes {
    vec![b'x'; bytes].into()
}

/// Reads a log until there is nothing, and returns the first byte of each frame.
fn read(log: &mut Log, cursor: &mut Cursor) -> String {
    let mut read = String::new();
    loop {
        match log.next(cursor) {
            Next::Events(bytes) => read.push(char::from(bytes[0])),
            Next::Nothing => return read,
            Next::NeedsSnapshot => return read + "!",
        }
    }
}

#[test]
fn snapshot_is_not_used_if_items_after_it_are_missing() {
    let mut log = Log::new(1);
    let mut slow = log.open(None);
    log.add_snapshot(vec![Bytes::from_static(b"s")]);
    assert_eq!(read(&mut log, &mut slow), "s");
    log.add(item(1));
    assert_eq!(read(&mut log, &mut slow), "x");
    for _ in 0..1_023 {
        log.add(item(1));
    }
    let mut new = log.open(None);
    assert_eq!(read(&mut log, &mut new), "s".to_owned() + &"x".repeat(1_024));
    log.add(item(1));
    log.add(item(1));
    // The snapshot is older than what the slow stream has.
    assert_eq!(read(&mut log, &mut slow), "!");
    let mut new = log.open(None);
    assert_eq!(read(&mut log, &mut new), "!");
}

#[test]
fn live_items_have_a_bounded_size() {
    let mut log = Log::new(1);
    for _ in 0..100 {
        log.add(item(100 << 10));
        assert!(log.written_bytes() <= 2 << 20);
    }
    let mut cursor = log.open(None);
    log.add_snapshot(vec![Bytes::from_static(b"s")]);
    for _ in 0..8 {
        log.add(item(1 << 20));
    }
    assert_eq!(read(&mut log, &mut cursor), "sxxxxxxxx", "the newest items are kept");
    log.add(item(1 << 20));
    assert_eq!(log.written_bytes(), (8 << 20) + 1);
}

#[test]
fn streams_keep_few_snapshots_alive() {
    let mut log = Log::new(1);
    let mut cursors = Vec::new();
    for _ in 0..100 {
        log.begin_second(true);
        log.add(item(1));
        let mut cursor = log.open(None);
        assert_eq!(log.next(&mut cursor), Next::NeedsSnapshot);
        log.add_snapshot(vec![item(1_000), item(1_000)]);
        assert_eq!(log.next(&mut cursor), Next::Events(item(1_000)));
        cursors.push(cursor);
        assert!(log.written_bytes() <= 8 * 2_000 + 100);
    }
    // The old streams start again.
    assert_eq!(read(&mut log, &mut cursors[99]), "x");
    assert_eq!(read(&mut log, &mut cursors[0]), "xx");
    // Snapshots that no stream reads are dropped.
    drop(cursors);
    log.begin_second(true);
    assert_eq!(log.written_bytes(), 2_000 + 100);
    log.begin_second(false);
    assert_eq!(log.written_bytes(), 0);
}

fn inbox(entries: usize) -> Inbox {
    let mut inbox = Inbox::default();
    for _ in 0..entries {
        inbox.push(Entry::Audit(audit_entry("search")));
    }
    inbox
}

#[test]
fn many_entries_are_sent_in_several_frames() {
    let mut log = Log::new(1);
    let mut cursor = log.open(None);
    log.add_snapshot(vec![Bytes::from_static(b"s")]);
    log.add_entries(inbox(64), true);
    log.add_entries(inbox(65), true);
    assert_eq!(read(&mut log, &mut cursor), "seee");
}

#[test]
fn entries_that_a_stream_has_are_not_repeated_after_an_interruption() {
    let mut log = Log::new(1);
    let mut cursor = log.open(None);
    log.add_snapshot(vec![Bytes::from_static(b"s")]);
    assert_eq!(read(&mut log, &mut cursor), "s");
    log.add_entries(inbox(1), true);
    assert_eq!(read(&mut log, &mut cursor), "e");
    log.interrupt();
    assert_eq!(read(&mut log, &mut cursor), "!");
    log.add_snapshot(vec![Bytes::from_static(b"s")]);
    assert_eq!(read(&mut log, &mut cursor), "s");
}
