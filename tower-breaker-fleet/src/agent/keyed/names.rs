//! The names of keys in the fleet.
//!
//! A name is `LAYER/KEY`. In the layer's name, `%` and `/` are written as `%25` and `%2F`; in the
//! text of the key, `%` as `%25` and each byte of a control character as its number. The empty text
//! is written as `%`. So different keys have different names, and the names of a layer's keys are
//! one range in the order of names.

use std::fmt::Write;

pub(super) const SEPARATOR: char = '/';

/// Returns what the names of all keys of a layer begin with.
pub(crate) fn prefix(layer: &str) -> String {
    let mut prefix = encode(layer, |c| c == SEPARATOR);
    prefix.push(SEPARATOR);
    prefix
}

/// Returns the name of a key in the fleet.
pub(crate) fn key_name(layer: &str, text: &str) -> String {
    with_prefix(&prefix(layer), text)
}

pub(super) fn with_prefix(prefix: &str, text: &str) -> String {
    // No other text is written as a single `%`.
    let key = if text.is_empty() { "%".to_owned() } else { encode(text, |_| false) };
    format!("{prefix}{key}")
}

fn encode(text: &str, is_special: impl Fn(char) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '%' || c.is_control() || is_special(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string never fails.
                let _ = write!(encoded, "%{byte:02X}");
            }
        } else {
            encoded.push(c);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_keys_are_readable() {
        assert_eq!(key_name("tenants", "acme"), "tenants/acme");
        assert_eq!(key_name("tenants", "a/b"), "tenants/a/b");
        assert_eq!(key_name("a/b%", "100%\n"), "a%2Fb%25/100%25%0A");
        assert_eq!(key_name("tenants", ""), "tenants/%");
        assert_eq!(key_name("tenants", "\u{85}"), "tenants/%C2%85");
    }

    /// Returns all texts of up to `longest` of these characters.
    fn texts(characters: &[char], longest: usize) -> Vec<String> {
        let mut texts = vec![String::new()];
        let mut first = 0;
        for _ in 0..longest {
            let shorter = texts[first..].to_vec();
            first = texts.len();
            texts
                .extend(shorter.iter().flat_map(|text| characters.iter().map(move |c| format!("{text}{c}"))));
        }
        texts
    }

    #[test]
    fn different_keys_have_different_names() {
        let mut names = BTreeSet::new();
        for layer in texts(&['a', '/', '%'], 2) {
            for text in texts(&['a', '/', '%', '2', '5', 'F', '0', 'A', '\n'], 3) {
                let name = key_name(&layer, &text);
                assert!(name.starts_with(&prefix(&layer)) && name != prefix(&layer), "{name}");
                assert!(names.insert(name), "{layer:?}, {text:?}");
            }
        }
    }
}
