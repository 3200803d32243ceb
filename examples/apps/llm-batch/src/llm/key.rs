//! The key of the API.

use std::error::Error;
use std::fmt;

use http::HeaderValue;

/// The key of the API. It is in no `Debug` output, and is removed from messages.
///
/// An empty key is sent in no request: some local servers need no key.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Creates a key. Spaces and line ends around it are removed.
    ///
    /// # Errors
    ///
    /// Fails if the key contains a character that no header may contain.
    pub fn new(key: &str) -> Result<Self, InvalidKey> {
        let key = key.trim();
        match HeaderValue::from_str(key) {
            Ok(_) if key.is_ascii() => Ok(Self(key.to_owned())),
            _ => Err(InvalidKey),
        }
    }

    /// Returns the value of a header, which no log shows. `None`: the key is empty.
    pub(super) fn header(&self, prefix: &str) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("{prefix}{}", self.0)).ok()?;
        value.set_sensitive(true);
        (!self.0.is_empty()).then_some(value)
    }

    /// Removes the key from a text, such as the message of a server that repeats it.
    pub(super) fn redact(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, "***") }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

/// A key with a character that no header may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the API key contains a line end or a character that is not ASCII; copy it again")
    }
}

impl Error for InvalidKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_trimmed_and_checked() {
        let key = ApiKey::new(" sk-1\n").expect("the key is valid");
        assert_eq!(key.header("Bearer ").expect("the key is not empty"), "Bearer sk-1");
        for invalid in ["sk\n1", "sk-é", "sk\u{0}1"] {
            assert_eq!(ApiKey::new(invalid).expect_err(invalid), InvalidKey);
        }
        assert_eq!(ApiKey::new("").expect("no key is valid").header("Bearer "), None);
    }

    #[test]
    fn key_is_hidden_in_debug_and_texts() {
        let key = ApiKey::new("sk-1").expect("the key is valid");
        assert_eq!(format!("{key:?} {:?}", key.header("")), "ApiKey(***) Some(Sensitive)");
        assert_eq!(key.redact("no key sk-1, really sk-1"), "no key ***, really ***");
        assert_eq!(ApiKey::new("").expect("no key is valid").redact("text"), "text");
    }
}
