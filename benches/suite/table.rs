//! Prints results as a table.

use crate::measure::Measured;

pub(crate) fn print(measured: &[Measured]) {
    println!(
        "{:32} {:16} {:5} {:>9} {:>9} {:>15} {:>9}",
        "row", "crate", "style", "ns", "× lock", "quartiles", "× bare"
    );
    for Measured { row, subject, style, nanos, locks, bare } in measured {
        let spread = format!("{:.2} – {:.2}", locks.lower, locks.upper);
        println!(
            "{row:32} {subject:16} {:5} {:>9.2} {:>9.2} {spread:>15} {:>9.2}",
            style.name(),
            nanos.median,
            locks.median,
            bare.median
        );
    }
}
