//! The last events, and where each stream is in them.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::frame::{self, Id};
use super::inbox::{Entry, Inbox};

/// The events with an id that are kept for streams that resume.
const REPLAY: usize = 256;
/// The items that are kept for open streams.
const LIVE_ITEMS: usize = 1024;
/// The bytes of these items. The newest items are kept even if they are larger.
const LIVE_BYTES: usize = 2 << 20;
const LIVE_ITEMS_AT_LEAST: usize = 8;
/// The snapshots that are kept for streams that are still reading them.
const SNAPSHOTS: usize = 8;
/// The entries in one item at most. So a stream with a slow reader holds few bytes.
const ENTRIES_PER_ITEM: usize = 64;

/// The last events.
///
/// It has a bounded size. A stream that is too far behind continues with a snapshot.
pub(super) struct Log {
    boot: u64,
    /// The id of the last entry.
    number: u64,
    /// The last entries. The last one has the id `number`, and the ids are consecutive.
    replay: VecDeque<Stored>,
    /// The last events of every kind, for open streams.
    live: VecDeque<Item>,
    live_bytes: usize,
    /// The position of the next item.
    position: u64,
    snapshots: VecDeque<Arc<Snapshot>>,
    /// The last snapshot is of the current second.
    has_new_snapshot: bool,
    /// A stream waits for a snapshot.
    needs_snapshot: bool,
    /// The log has changed since the streams were woken.
    has_news: bool,
}

/// An event with an id.
enum Stored {
    /// Not serialized yet: no stream was open.
    Entry(Box<Entry>),
    Written(Bytes),
}

/// Some events.
struct Item {
    bytes: Bytes,
    /// The id of the last entry in this item and all before it.
    number: u64,
}

/// All circuits at one moment.
struct Snapshot {
    pieces: Vec<Bytes>,
    /// The id of the last entry before the snapshot.
    number: u64,
    /// The position of the first item after the snapshot.
    position: u64,
}

/// Where a stream is in the log.
pub(super) struct Cursor {
    /// The id of the last entry that the stream has. `None`: it has no entry and no snapshot.
    number: Option<u64>,
    phase: Phase,
}

enum Phase {
    /// The stream needs a snapshot, since the next item was at this position.
    Start { position: u64 },
    /// The stream reads the entries that it has missed, and then the pieces of a snapshot. It does
    /// not keep the snapshot alive.
    Snapshot { snapshot: Weak<Snapshot>, next_piece: usize },
    /// The stream reads the item at this position next.
    Live { position: u64 },
}

/// What a stream sends next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Events(Bytes),
    /// There is nothing new.
    Nothing,
    /// The stream waits for a snapshot, which the sampler writes.
    NeedsSnapshot,
}

/// Writing, by the sampler.
impl Log {
    pub(super) const fn new(boot: u64) -> Self {
        Self {
            boot,
            number: 0,
            replay: VecDeque::new(),
            live: VecDeque::new(),
            live_bytes: 0,
            position: 0,
            snapshots: VecDeque::new(),
            has_new_snapshot: false,
            needs_snapshot: false,
            has_news: false,
        }
    }

    /// Returns whether the log has changed since the last time.
    pub(super) const fn take_news(&mut self) -> bool {
        mem::replace(&mut self.has_news, false)
    }

    /// Lets each stream continue with a snapshot, because items are missing.
    pub(super) fn interrupt(&mut self) {
        self.live.clear();
        self.live_bytes = 0;
        self.position += 1;
        self.has_new_snapshot = false;
        self.has_news = true;
    }

    /// Adds new entries. `has_streams`: they are serialized, and open streams send them.
    pub(super) fn add_entries(&mut self, inbox: Inbox, has_streams: bool) {
        if inbox.dropped > 0 {
            self.number += inbox.dropped;
            self.replay.clear();
            self.interrupt();
        } else if !has_streams {
            // No item has these entries. So a snapshot from before them is not up to date.
            self.interrupt();
        }
        let mut entries = inbox.entries;
        while !entries.is_empty() {
            let some = entries.drain(..entries.len().min(ENTRIES_PER_ITEM));
            if has_streams {
                self.write_entries(some);
            } else {
                for entry in some {
                    self.store(Stored::Entry(Box::new(entry)));
                }
            }
        }
    }

    fn write_entries(&mut self, entries: impl Iterator<Item = Entry>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for (number, entry) in (self.number + 1..).zip(entries) {
            frame::write_entry(&mut bytes, Id { boot: self.boot, number }, &entry);
            ends.push(bytes.len());
        }
        let bytes = Bytes::from(bytes);
        let mut start = 0;
        for end in ends {
            self.store(Stored::Written(bytes.slice(start..end)));
            start = end;
        }
        self.add(bytes);
    }

    fn store(&mut self, entry: Stored) {
        self.number += 1;
        if self.replay.len() == REPLAY {
            self.replay.pop_front();
        }
        self.replay.push_back(entry);
    }

    /// Adds events for the open streams.
    pub(super) fn add(&mut self, bytes: Bytes) {
        self.live_bytes += bytes.len();
        self.live.push_back(Item { bytes, number: self.number });
        self.position += 1;
        self.has_news = true;
        while self.live.len() > LIVE_ITEMS_AT_LEAST
            && (self.live.len() > LIVE_ITEMS || self.live_bytes > LIVE_BYTES)
            && let Some(item) = self.live.pop_front()
        {
            self.live_bytes -= item.bytes.len();
        }
    }

    /// Begins a second, in which there may be another snapshot.
    pub(super) fn begin_second(&mut self, has_streams: bool) {
        self.has_new_snapshot = false;
        if has_streams {
            // A stream that waits for the last one may not have read it yet.
            let last = self.snapshots.pop_back();
            self.snapshots.retain(|snapshot| Arc::weak_count(snapshot) > 0);
            self.snapshots.extend(last);
        } else {
            self.interrupt();
            self.snapshots.clear();
        }
    }

    /// Returns the id that a snapshot of this moment has. `None`: no stream waits for one, or there
    /// was one in this second.
    pub(super) fn needed_snapshot(&self) -> Option<Id> {
        let is_needed = self.needs_snapshot && !self.has_new_snapshot;
        is_needed.then_some(Id { boot: self.boot, number: self.number })
    }

    /// Adds the snapshot of all circuits at this moment.
    pub(super) fn add_snapshot(&mut self, pieces: Vec<Bytes>) {
        if self.snapshots.len() == SNAPSHOTS {
            self.snapshots.pop_front();
        }
        let snapshot = Snapshot { pieces, number: self.number, position: self.position };
        self.snapshots.push_back(Arc::new(snapshot));
        self.has_new_snapshot = true;
        self.needs_snapshot = false;
        self.has_news = true;
    }
}

/// Reading, by the streams.
impl Log {
    /// Returns where a new stream starts. It resumes after `last_event_id`, if the log has that
    /// event.
    pub(super) fn open(&self, last_event_id: Option<&str>) -> Cursor {
        let number = last_event_id.and_then(|id| Id::read(id, self.boot));
        Cursor { number: number.filter(|number| *number <= self.number), phase: self.start() }
    }

    /// Returns the next events of a stream.
    pub(super) fn next(&mut self, cursor: &mut Cursor) -> Next {
        loop {
            match &mut cursor.phase {
                Phase::Start { position } => {
                    let Some(snapshot) = self.snapshot_for(cursor.number, *position) else {
                        self.needs_snapshot = true;
                        return Next::NeedsSnapshot;
                    };
                    cursor.phase = Phase::Snapshot { snapshot: Arc::downgrade(snapshot), next_piece: 0 };
                }
                Phase::Snapshot { snapshot, next_piece } => {
                    let Some(snapshot) = snapshot.upgrade() else {
                        cursor.phase = self.start();
                        continue;
                    };
                    if let Some(number) = &mut cursor.number
                        && *next_piece == 0
                        && *number < snapshot.number
                        && let Some(entry) = self.replayed(*number + 1)
                    {
                        *number += 1;
                        return Next::Events(entry);
                    }
                    let piece = snapshot.pieces.get(*next_piece).cloned();
                    *next_piece += 1;
                    if *next_piece >= snapshot.pieces.len() {
                        cursor.number = Some(snapshot.number);
                        cursor.phase = Phase::Live { position: snapshot.position };
                    }
                    if let Some(piece) = piece {
                        return Next::Events(piece);
                    }
                }
                Phase::Live { position } if *position == self.position => return Next::Nothing,
                Phase::Live { position } => {
                    let index = position.checked_sub(self.first_position());
                    let item = index.and_then(|index| self.live.get(usize::try_from(index).ok()?));
                    if let Some(item) = item {
                        *position += 1;
                        cursor.number = Some(item.number);
                        return Next::Events(item.bytes.clone());
                    }
                    cursor.phase = self.start();
                }
            }
        }
    }

    fn first_position(&self) -> u64 {
        self.position - self.live.len() as u64
    }

    const fn start(&self) -> Phase {
        Phase::Start { position: self.position }
    }

    /// Returns the last snapshot, if a stream can use it that needs one since `position` and has
    /// the entries up to `number`.
    ///
    /// - The snapshot is of the current second, or newer than `position`. Then it is not older than
    ///   the changes that the stream has.
    /// - It is not older than the entries that the stream has.
    /// - The log has all items after it.
    fn snapshot_for(&self, number: Option<u64>, position: u64) -> Option<&Arc<Snapshot>> {
        let snapshot = self.snapshots.back()?;
        let is_new = self.has_new_snapshot || position <= snapshot.position;
        let has_entries = number.is_none_or(|number| number <= snapshot.number);
        (is_new && has_entries && self.first_position() <= snapshot.position).then_some(snapshot)
    }

    /// Returns the entry with this id, if the log still has it.
    fn replayed(&mut self, number: u64) -> Option<Bytes> {
        let age = usize::try_from(self.number.checked_sub(number)?).ok()?;
        let index = self.replay.len().checked_sub(age + 1)?;
        let stored = self.replay.get_mut(index)?;
        if let Stored::Entry(entry) = stored {
            let mut bytes = Vec::new();
            frame::write_entry(&mut bytes, Id { boot: self.boot, number }, entry);
            *stored = Stored::Written(bytes.into());
        }
        match stored {
            Stored::Written(bytes) => Some(bytes.clone()),
            Stored::Entry(_) => None,
        }
    }
}

#[cfg(test)]
impl Log {
    pub(super) const fn boot(&self) -> u64 {
        self.boot
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Returns how many bytes of events are kept.
    pub(super) fn written_bytes(&self) -> usize {
        let replayed = |stored: &Stored| match stored {
            Stored::Entry(_) => 0,
            Stored::Written(bytes) => bytes.len(),
        };
        let snapshots = self.snapshots.iter().flat_map(|snapshot| &snapshot.pieces).map(Bytes::len);
        self.live_bytes + self.replay.iter().map(replayed).sum::<usize>() + snapshots.sum::<usize>()
    }
}
