//! Times as numbers of seconds, in flags, variables and files.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Parses a flag or a variable.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "it must be a number of seconds, such as 1.5".to_owned())
}

/// Reads a field of a file.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    let time = Duration::try_from_secs_f64(seconds);
    time.map(Some).map_err(|_| {
        serde::de::Error::custom(format_args!("{seconds} is not a number of seconds, such as 1.5"))
    })
}
