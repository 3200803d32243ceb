//! Policies in files: by the setters' names, with durations as people write them.

/// A duration as people write it: `"1m 30s"`.
pub(crate) mod duration {
    use std::time::Duration;

    use ::serde::de::Error as _;
    use ::serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format_args!("`{text}` is no duration such as \"1m 30s\": {error}"))
        })
    }
}
