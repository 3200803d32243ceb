//! Runs the program that counts allocations.

use std::io;
use std::process::{Command, Stdio};

use crate::record::{Kind, Record};
use crate::statistics::Quartiles;

/// Returns the allocations of each row, and the bytes of circuits.
pub(crate) fn records() -> io::Result<Vec<Record>> {
    let output = Command::new(env!("CARGO_BIN_EXE_memory")).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("the program `memory` failed: {}", output.status)));
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    lines
        .lines()
        .map(|line| parse(line).ok_or_else(|| io::Error::other(format!("not a result: {line}"))))
        .collect()
}

/// Returns the result in a line of the program's output.
pub(crate) fn parse(line: &str) -> Option<Record> {
    let [kind, row, subject, value] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
    let kind = match kind {
        "bytes" => Kind::Bytes,
        "allocations" => Kind::Allocations,
        _ => return None,
    };
    let value = Quartiles::exact(value.parse().ok()?);
    let (row, subject) = (row.to_owned(), subject.to_owned());
    Some(Record { kind, row, subject, style: None, nanos: None, value, bare: None })
}
