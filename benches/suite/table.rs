//! Prints results as a table.

use crate::record::{Kind, Record};

pub(crate) fn print(records: &[Record]) {
    let mut last = None;
    for Record { kind, row, subject, style, nanos, value, bare } in records {
        if last.replace(*kind) != Some(*kind) {
            println!(
                "\n{:32} {:16} {:5} {:>9} {:>12} {:>16} {:>9}",
                kind.name(),
                "crate",
                "style",
                "ns",
                kind.unit(),
                "spread",
                "× bare"
            );
        }
        let spread = match kind {
            Kind::Time | Kind::Threads(_) => format!("{:.2} – {:.2}", value.lower, value.upper),
            Kind::Allocations | Kind::Bytes => String::new(),
        };
        println!(
            "{row:32} {subject:16} {:5} {:>9} {:>12.2} {spread:>16} {:>9}",
            style.map_or("", |style| style.name()),
            nanos.map_or(String::new(), |nanos| format!("{nanos:.2}")),
            value.median,
            bare.map_or(String::new(), |bare| format!("{bare:.2}")),
        );
    }
}
