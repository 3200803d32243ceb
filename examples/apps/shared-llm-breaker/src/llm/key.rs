//! The key of the API.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use http::HeaderValue;

/// The key of the API. It is in no `Debug` output, and is removed from messages.
///
/// An empty key is sent in no request: some local servers need no key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ApiKey(String);

impl FromStr for ApiKey {
    type Err = InvalidKey;

    /// Spaces and line ends around the key are removed.
    fn from_str(key: &str) -> Result<Self, InvalidKey> {
        let key = key.trim();
        match HeaderValue::from_str(key) {
            Ok(_) if key.is_ascii() => Ok(Self(key.to_owned())),
            _ => Err(InvalidKey),
        }
    }
}

impl ApiKey {
    /// Returns the value of the header, which no log shows. `None`: the key is empty.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
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
    fn key_is_trimmed_checked_and_hidden() {
        let key: ApiKey = " sk-1\n".parse().unwrap();
        assert_eq!(key.header().unwrap(), "Bearer sk-1");
        assert_eq!(format!("{key:?} {:?}", key.header()), "ApiKey(***) Some(Sensitive)");
        assert_eq!(key.redact("wrong key sk-1"), "wrong key ***");
        assert_eq!("sk\n1".parse::<ApiKey>(), Err(InvalidKey));
        assert_eq!(ApiKey::default().header(), None);
    }
}
