//! The rows that several tables share.

use crate::fault::{Fault, Health, Kind, Origin, Retryable};

/// The fault of one or more codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeRow {
    pub(crate) codes: &'static [&'static str],
    pub(crate) fault: Fault,
    /// The source of this row, and the reason for the fault.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the docs contain it, and a test generates them"))]
    pub(crate) source: &'static str,
}

pub(crate) const fn code_row(
    codes: &'static [&'static str],
    kind: Kind,
    retry: Retryable,
    health: Health,
    origin: Origin,
    source: &'static str,
) -> CodeRow {
    CodeRow { codes, fault: Fault::new(kind, retry, health, origin), source }
}

/// The fault of an error whose text begins with `text`, or of a situation that `text` describes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextRow {
    pub(crate) text: &'static str,
    pub(crate) fault: Fault,
    #[cfg_attr(not(test), expect(dead_code, reason = "only the docs contain it, and a test generates them"))]
    pub(crate) source: &'static str,
}

pub(crate) const fn text_row(text: &'static str, fault: Fault, source: &'static str) -> TextRow {
    TextRow { text, fault, source }
}

/// Returns the fault of the first row with which an error's text begins.
pub(crate) fn find_text(rows: &'static [TextRow], text: &[u8]) -> Option<&'static Fault> {
    let row = rows.iter().find(|row| text.starts_with(row.text.as_bytes()));
    row.map(|row| &row.fault)
}

/// Checks that each text fits into the 64 bytes that are read of an error's text, and that no
/// earlier row hides it.
#[cfg(test)]
pub(crate) fn assert_texts_are_reached(rows: &'static [TextRow]) {
    for (index, row) in rows.iter().enumerate() {
        assert!(row.text.len() <= 64 && !row.source.is_empty(), "{}", row.text);
        let matching = rows.iter().position(|other| row.text.starts_with(other.text));
        assert_eq!(matching, Some(index), "{}", row.text);
        assert_eq!(find_text(rows, format!("{}: more", row.text).as_bytes()), Some(&row.fault));
    }
}
