//! The text of server-sent events.
//!
//! The data is JSON on one line: `serde_json` escapes line ends within strings.

use std::io::Write;

use bytes::Bytes;
use serde::Serialize;

use super::changes::Row;
use super::inbox::Entry;
use crate::auth::{Role, User};
use crate::view::View;

/// The circuits of one event at most.
const CIRCUITS_PER_EVENT: usize = 200;

/// The identifier of an event: which hub numbered it, and its number.
#[derive(Clone, Copy)]
pub(super) struct Id {
    pub(super) boot: u64,
    pub(super) number: u64,
}

impl Id {
    /// Reads the value of a `last-event-id` header. `None`: it is no identifier of this hub.
    pub(super) fn read(text: &str, boot: u64) -> Option<u64> {
        let (of, number) = text.split_once('-')?;
        if u64::from_str_radix(of, 16) != Ok(boot) {
            return None;
        }
        number.parse().ok()
    }
}

/// Appends an event. An event is left out if its data cannot be written.
fn write(to: &mut Vec<u8>, kind: &str, id: Option<Id>, data: &impl Serialize) {
    let start = to.len();
    let written = (|| {
        writeln!(to, "event: {kind}")?;
        if let Some(Id { boot, number }) = id {
            writeln!(to, "id: {boot:016x}-{number}")?;
        }
        to.write_all(b"data: ")?;
        serde_json::to_writer(&mut *to, data)?;
        to.write_all(b"\n\n")
    })();
    if written.is_err() {
        to.truncate(start);
    }
}

fn frame(kind: &str, id: Option<Id>, data: &impl Serialize) -> Bytes {
    let mut frame = Vec::new();
    write(&mut frame, kind, id, data);
    frame.into()
}

/// A comment, which keeps proxies from closing an idle connection.
pub(super) const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// Returns the first event of a stream.
pub(super) fn hello(user: &User, fleet: Option<serde_json::Value>, history: bool) -> Bytes {
    #[derive(Serialize)]
    struct Hello<'a> {
        version: &'a str,
        user: &'a str,
        role: Role,
        fleet: Option<serde_json::Value>,
        history: bool,
    }

    let version = env!("CARGO_PKG_VERSION");
    frame("hello", None, &Hello { version, user: user.name(), role: user.role(), fleet, history })
}

/// Appends a transition or an entry of the audit.
pub(super) fn write_entry(to: &mut Vec<u8>, id: Id, entry: &Entry) {
    match entry {
        Entry::Transition(transition) => write(to, "transition", Some(id), transition),
        Entry::Audit(audit) => write(to, "audit", Some(id), audit),
    }
}

#[derive(Serialize)]
struct Circuits<'a> {
    complete: bool,
    #[serde(rename = "circuits")]
    views: &'a [&'a View],
    removed: &'a [&'a str],
}

/// Returns the events with all circuits. The last one has the identifier.
pub(super) fn all_circuits(views: &[View], id: Id) -> Vec<Bytes> {
    let views: Vec<&View> = views.iter().collect();
    // Without circuits there is an event, too.
    let last = views.len().saturating_sub(1) / CIRCUITS_PER_EVENT;
    let piece = |index| {
        let start = index * CIRCUITS_PER_EVENT;
        let views = &views[start..views.len().min(start + CIRCUITS_PER_EVENT)];
        let event = Circuits { complete: index == 0, views, removed: &[] };
        frame("circuits", (index == last).then_some(id), &event)
    };
    (0..=last).map(piece).collect()
}

/// Returns the events with the circuits that have changed.
pub(super) fn changed_circuits(changed: &[&View], removed: &[&str]) -> Vec<Bytes> {
    let gone = Circuits { complete: false, views: &[], removed };
    let gone = (!removed.is_empty()).then(|| frame("circuits", None, &gone));
    let changed = changed
        .chunks(CIRCUITS_PER_EVENT)
        .map(|views| frame("circuits", None, &Circuits { complete: false, views, removed: &[] }));
    gone.into_iter().chain(changed).collect()
}

/// Returns the event with the counters that have changed.
pub(super) fn samples(at: std::time::SystemTime, rows: &[Row]) -> Bytes {
    #[derive(Serialize)]
    struct Samples<'a> {
        #[serde(serialize_with = "crate::view::time")]
        at: std::time::SystemTime,
        rows: &'a [Row],
    }

    frame("samples", None, &Samples { at, rows })
}

/// Returns the event with the connection to the fleet.
pub(super) fn fleet(status: &serde_json::Value) -> Bytes {
    frame("fleet", None, status)
}
