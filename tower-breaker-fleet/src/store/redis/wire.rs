//! The texts of the scripts: arguments, replies and published messages.
//!
//! Every number, state and text of the server is checked. `None` is an answer that makes no sense.

use std::time::Duration;

use redis::Value;

use crate::record::{CircuitRecord, FleetState, Override};
use crate::rules::{LONGEST, clean_text, milliseconds};
use crate::store::{LocalOpen, Update};

/// The largest epoch of an answer: up to it, the numbers of Lua are exact.
const LARGEST_EPOCH: u64 = (1 << 53) - 1;

/// The longest name of a circuit or process, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 256;

/// The longest reason, and the longest name of an operator, in bytes.
const MAX_TEXT_BYTES: usize = 256;

pub(super) fn duration_argument(duration: Option<Duration>) -> String {
    duration.map_or_else(String::new, |duration| milliseconds(duration).to_string())
}

/// Returns ages as one argument, separated by spaces.
pub(super) fn ages_argument(ages: &[Duration]) -> String {
    let ages: Vec<_> = ages.iter().map(|age| milliseconds(*age).to_string()).collect();
    ages.join(" ")
}

pub(super) fn local_argument(local: LocalOpen) -> String {
    match local {
        LocalOpen::Unknown => String::new(),
        LocalOpen::No => "0".to_owned(),
        LocalOpen::For(length) => milliseconds(length).to_string(),
        LocalOpen::UntilReset => "until_reset".to_owned(),
    }
}

/// Returns the arguments of a record: epoch, state, remaining, override, remaining of the override,
/// reason, by.
pub(super) fn record_arguments(record: &CircuitRecord) -> [String; 7] {
    let manual = match record.manual {
        None => "",
        Some(Override::ForcedOpen) => "forced_open",
        Some(Override::ForcedClosed) => "forced_closed",
    };
    let state = match record.state {
        FleetState::Closed => "closed",
        FleetState::Open => "open",
        FleetState::HalfOpen => "half_open",
    };
    [
        record.epoch.to_string(),
        state.to_owned(),
        duration_argument(record.remaining),
        manual.to_owned(),
        duration_argument(record.manual_remaining),
        clean_text(&record.reason),
        clean_text(&record.by),
    ]
}

/// Reads a row of a script.
pub(super) fn record(circuit: &str, row: &Value) -> Option<CircuitRecord> {
    let Value::Array(fields) = row else { return None };
    let fields: Vec<_> = fields.iter().map(text).collect::<Option<_>>()?;
    record_of_fields(circuit, &fields)
}

fn record_of_fields(circuit: &str, fields: &[&str]) -> Option<CircuitRecord> {
    let &[epoch, state, remaining, manual, manual_remaining, reason, by] = fields else { return None };
    let state = match state {
        "closed" => FleetState::Closed,
        "open" => FleetState::Open,
        "half_open" => FleetState::HalfOpen,
        _ => return None,
    };
    let manual = match manual {
        "" => None,
        "forced_open" => Some(Override::ForcedOpen),
        "forced_closed" => Some(Override::ForcedClosed),
        _ => return None,
    };
    let remaining = optional_duration(remaining)?;
    if remaining.is_none() && state != FleetState::Open {
        return None;
    }
    let manual_remaining = optional_duration(manual_remaining)?.filter(|_| manual.is_some());
    if reason.len() > MAX_TEXT_BYTES || by.len() > MAX_TEXT_BYTES || circuit.len() > MAX_NAME_BYTES {
        return None;
    }
    Some(CircuitRecord {
        circuit: circuit.to_owned(),
        epoch: self::epoch(epoch)?,
        state,
        remaining,
        manual,
        manual_remaining,
        reason: spaces_for_control_characters(reason),
        by: spaces_for_control_characters(by),
    })
}

/// Reads a published message.
pub(super) fn update(payload: &[u8]) -> Option<Update> {
    let payload = std::str::from_utf8(payload).ok()?;
    let (epoch, rest) = payload.split_once('\t')?;
    if let Some(rest) = rest.strip_prefix("slots_taken\t") {
        let (retry_after, circuit) = rest.split_once('\t')?;
        if circuit.len() > MAX_NAME_BYTES {
            return None;
        }
        let (circuit, epoch) = (circuit.to_owned(), self::epoch(epoch)?);
        return Some(Update::SlotsTaken { circuit, epoch, retry_after: duration(retry_after)? });
    }
    // The name may contain tabs.
    let mut fields: Vec<_> = payload.splitn(8, '\t').collect();
    let circuit = fields.pop()?;
    record_of_fields(circuit, &fields).map(Update::Record)
}

pub(super) fn local(value: &Value) -> Option<LocalOpen> {
    match text(value)? {
        "" => Some(LocalOpen::Unknown),
        "0" => Some(LocalOpen::No),
        "until_reset" => Some(LocalOpen::UntilReset),
        length => duration(length).map(LocalOpen::For),
    }
}

pub(super) fn count(value: &Value) -> Option<u32> {
    match value {
        Value::Int(count) => u32::try_from(*count).ok(),
        _ => None,
    }
}

pub(super) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Int(0) => Some(false),
        Value::Int(1) => Some(true),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(super) fn duration(text: &str) -> Option<Duration> {
    number(text, LONGEST).map(Duration::from_millis)
}

/// The outer `None`: the text is no duration.
#[allow(clippy::option_option, reason = "an absent duration is not a wrong one")]
fn optional_duration(text: &str) -> Option<Option<Duration>> {
    if text.is_empty() { Some(None) } else { duration(text).map(Some) }
}

fn epoch(text: &str) -> Option<u64> {
    number(text, LARGEST_EPOCH)
}

fn number(text: &str, largest: u64) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&number| number <= largest)
}

fn spaces_for_control_characters(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_record_is_read() {
        let payload = "17\topen\t250\t\t\tquorum\thost-1\ta\tname";
        let expected = CircuitRecord {
            circuit: "a\tname".to_owned(),
            epoch: 17,
            state: FleetState::Open,
            remaining: Some(Duration::from_millis(250)),
            reason: "quorum".to_owned(),
            by: "host-1".to_owned(),
            ..CircuitRecord::default()
        };
        assert_eq!(update(payload.as_bytes()), Some(Update::Record(expected.clone())));
        let row = record_arguments(&expected).map(|field| Value::BulkString(field.into_bytes()));
        assert_eq!(record("a\tname", &Value::Array(row.to_vec())), Some(expected));
    }

    #[test]
    fn senseless_messages_are_refused() {
        let long = "x".repeat(257);
        for payload in [
            "",
            "\t\t\t\t\t\t\t",
            "17\topen\t250\t\t\tquorum\thost-1",
            "-1\topen\t250\t\t\tquorum\thost-1\tname",
            "+1\topen\t250\t\t\tquorum\thost-1\tname",
            "1e3\topen\t250\t\t\tquorum\thost-1\tname",
            "9007199254740992\topen\t250\t\t\tquorum\thost-1\tname",
            "17\tOPEN\t250\t\t\tquorum\thost-1\tname",
            "17\topen\t-1\t\t\tquorum\thost-1\tname",
            "17\topen\t99999999999999\t\t\tquorum\thost-1\tname",
            "17\tclosed\t\t\t\tquorum\thost-1\tname",
            "17\topen\t250\tforced\t\tquorum\thost-1\tname",
            "17\topen\t250\t\tsoon\tquorum\thost-1\tname",
            &format!("17\topen\t250\t\t\t{long}\thost-1\tname"),
            &format!("17\topen\t250\t\t\tquorum\t{long}\tname"),
            &format!("17\topen\t250\t\t\tquorum\thost-1\t{long}"),
            "17\tslots_taken\tsoon\tname",
            "17\tslots_taken\t5",
            &format!("17\tslots_taken\t5\t{long}"),
        ] {
            assert_eq!(update(payload.as_bytes()), None, "{payload}");
        }
        assert_eq!(update(b"17\topen\t250\t\t\t\xff\thost-1\tname"), None);
    }

    #[test]
    fn control_characters_of_stored_texts_become_spaces() {
        let fields = ["1", "open", "", "", "", "a\nb", "\u{7}"];
        let record = record_of_fields("name", &fields).unwrap();
        assert_eq!((record.reason.as_str(), record.by.as_str(), record.remaining), ("a b", " ", None));
    }
}
