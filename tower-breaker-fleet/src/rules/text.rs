//! Limits of texts, so that the data of a circuit is bounded.

/// The longest reason, and the longest name of an operator, in bytes.
const MAX_TEXT_BYTES: usize = 200;

/// Cuts a text to [`MAX_TEXT_BYTES`], and replaces each control character by a space.
pub(crate) fn clean_text(text: &str) -> String {
    let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|&end| text.is_char_boundary(end));
    let cut = &text[..end.unwrap_or(0)];
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
