//! The error of an invalid configuration.

use std::error::Error;
use std::fmt;

/// The error of a setting whose value is not allowed.
///
/// It names the setting, the value and the allowed range:
///
/// ```text
/// `failure_rate` is 1.5; allowed is 0.0 to 1.0
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    value: String,
    allowed: String,
}

impl ConfigError {
    /// Creates an error: `value` was given for `field`, which allows `allowed`.
    #[doc(hidden)]
    pub fn new(field: &'static str, value: impl fmt::Debug, allowed: impl Into<String>) -> Self {
        Self { field, value: format!("{value:?}"), allowed: allowed.into() }
    }

    /// Returns `value`, or an error if it is not in `allowed`.
    #[doc(hidden)]
    pub fn check<T>(field: &'static str, value: T, allowed: std::ops::RangeInclusive<T>) -> Result<T, Self>
    where
        T: PartialOrd + fmt::Debug,
    {
        if allowed.contains(&value) {
            Ok(value)
        } else {
            Err(Self::new(field, value, format!("{:?} to {:?}", allowed.start(), allowed.end())))
        }
    }

    /// Adds the setting on which the allowed values depend, and its value.
    #[doc(hidden)]
    #[must_use]
    pub fn because(mut self, field: &str, value: impl fmt::Debug) -> Self {
        self.allowed = format!("{}, because `{field}` is {value:?}", self.allowed);
        self
    }

    /// Returns the name of the setting, which is the name of its setter.
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// Returns the value that was given, in its `Debug` form.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns a description of the allowed values, such as `0.0 to 1.0`.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}; allowed is {}", self.field, self.value, self.allowed)
    }
}

impl Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_error_names_field_value_and_range() {
        let error = ConfigError::check("failure_rate", 1.5, 0.0..=1.0).unwrap_err();
        assert_eq!(error.to_string(), "`failure_rate` is 1.5; allowed is 0.0 to 1.0");
        assert_eq!((error.field(), error.value(), error.allowed()), ("failure_rate", "1.5", "0.0 to 1.0"));
        let error = error.because("mode", "strict");
        let expected = "`failure_rate` is 1.5; allowed is 0.0 to 1.0, because `mode` is \"strict\"";
        assert_eq!(error.to_string(), expected);
        assert!(ConfigError::check("failure_rate", f64::NAN, 0.0..=1.0).is_err());
        assert_eq!(ConfigError::check("failure_rate", 1.0, 0.0..=1.0), Ok(1.0));
    }
}
