//! Limits of the data of a circuit, so that neither a process nor a damaged file can break a store.

use serde::de::{Deserialize, Deserializer, Error, Unexpected};

/// The longest reason, and the longest name of an operator, in bytes.
const MAX_TEXT_BYTES: usize = 200;

/// The largest epoch that a store takes from a process or a file.
///
/// It leaves room for all later epochs in the numbers of Lua, which are exact up to 2^53. As a
/// time in milliseconds, it is 140,000 years ahead.
pub(crate) const MAX_EPOCH: u64 = 1 << 52;

/// Cuts a text to 200 bytes at a character boundary, and replaces each control character by a
/// space.
pub(crate) fn clean_text(text: &str) -> String {
    let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|&end| text.is_char_boundary(end));
    let cut = &text[..end.unwrap_or(0)];
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Reads an epoch up to [`MAX_EPOCH`].
pub(super) fn read_epoch<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let epoch = u64::deserialize(from)?;
    if epoch > MAX_EPOCH {
        return Err(D::Error::invalid_value(Unexpected::Unsigned(epoch), &"an epoch up to 2^52"));
    }
    Ok(epoch)
}

/// Reads a text, and cleans it.
pub(super) fn read_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(|text| clean_text(&text))
}

/// Reads the weight of a lease.
pub(super) fn read_weight<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let weight = f64::deserialize(from)?;
    if !(0.0..=1.0).contains(&weight) {
        return Err(D::Error::invalid_value(Unexpected::Float(weight), &"a weight from 0 to 1"));
    }
    Ok(weight)
}
