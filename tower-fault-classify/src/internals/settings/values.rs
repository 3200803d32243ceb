//! The kinds of values of settings.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{MapAccess, SeqAccess};
use serde::{Serialize, Serializer};

use super::duration::{HumanDuration, unit_names};
use super::read::{FieldReader, Fields, Scalar, Setting, alternatives};

/// A string with any content.
#[derive(Debug)]
pub struct Text;

impl Setting for Text {
    type Value = String;

    fn allowed(&self) -> String {
        "a string".to_owned()
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<String> {
        match given {
            Scalar::Text(text) => Some((*text).to_owned()),
            _ => None,
        }
    }
}

/// A list of strings.
#[derive(Debug)]
pub struct TextList;

impl Setting for TextList {
    type Value = Vec<String>;

    fn allowed(&self) -> String {
        "a list of strings".to_owned()
    }

    fn scalar(&self, _: &Scalar<'_>) -> Option<Vec<String>> {
        None
    }

    fn list<'de, A: SeqAccess<'de>>(
        &self,
        field: &str,
        items: &mut A,
    ) -> Result<Option<Vec<String>>, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) =
            items.next_element_seed(FieldReader { name: field.to_owned(), setting: Text })?
        {
            texts.push(text);
        }
        Ok(Some(texts))
    }
}

/// `true` or `false`.
#[derive(Debug)]
pub struct Bool;

impl Setting for Bool {
    type Value = bool;

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<bool> {
        match given {
            Scalar::Bool(flag) => Some(*flag),
            _ => None,
        }
    }
}

/// A number within a range.
#[derive(Debug)]
pub struct Float(pub RangeInclusive<f64>);

impl Setting for Float {
    type Value = f64;

    fn allowed(&self) -> String {
        format!("{:?} to {:?}", self.0.start(), self.0.end())
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<f64> {
        let number = match given {
            Scalar::Float(number) => *number,
            Scalar::Integer(integer) => *integer as f64,
            _ => return None,
        };
        self.0.contains(&number).then_some(number)
    }
}

/// A whole number within a range.
#[derive(Debug)]
pub struct Integer<T>(pub RangeInclusive<T>);

impl<T: Copy + Debug + PartialOrd + TryFrom<i128>> Setting for Integer<T> {
    type Value = T;

    fn allowed(&self) -> String {
        format!("{:?} to {:?}", self.0.start(), self.0.end())
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<T> {
        match given {
            Scalar::Integer(integer) => T::try_from(*integer).ok().filter(|integer| self.0.contains(integer)),
            _ => None,
        }
    }
}

/// A seed of random numbers. It is read from a number, or from a string with a number.
///
/// A seed above [`i64::MAX`] is written as a string, because TOML has no such integers.
#[derive(Debug)]
pub struct Seed;

impl Setting for Seed {
    type Value = u64;

    fn allowed(&self) -> String {
        format!("0 to {}, in quotes if it is above {}", u64::MAX, i64::MAX)
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<u64> {
        match given {
            Scalar::Integer(seed) => u64::try_from(*seed).ok(),
            Scalar::Text(seed) => seed.parse().ok(),
            _ => None,
        }
    }
}

/// Writes a seed in the form that [`Seed`] reads.
#[derive(Debug)]
pub struct WrittenSeed(pub u64);

impl Serialize for WrittenSeed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(self.0) {
            Ok(seed) => to.serialize_i64(seed),
            Err(_) => to.collect_str(&self.0),
        }
    }
}

/// A duration within a range, written as a [`HumanDuration`].
#[derive(Debug)]
pub struct DurationIn(pub RangeInclusive<Duration>);

impl Setting for DurationIn {
    type Value = Duration;

    fn allowed(&self) -> String {
        let [least, most] = [self.0.start(), self.0.end()].map(|end| HumanDuration(*end));
        format!("{least} to {most}, such as \"1m 30s\", with the units {}", unit_names())
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<Duration> {
        match given {
            Scalar::Text(text) => HumanDuration::parse(text).filter(|time| self.0.contains(time)),
            _ => None,
        }
    }
}

/// One of several words, each with its value.
#[derive(Debug)]
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Clone + PartialEq> Choice<T> {
    /// Returns the word for a value.
    pub fn of(&self, value: &T) -> Option<&'static str> {
        self.0.iter().find(|(_, known)| known == value).map(|(word, _)| *word)
    }
}

impl<T: Clone> Setting for Choice<T> {
    type Value = T;

    fn allowed(&self) -> String {
        alternatives(self.0.iter().map(|(word, _)| format!("{word:?}")))
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<T> {
        match given {
            Scalar::Text(text) => {
                self.0.iter().find(|(word, _)| word == text).map(|(_, value)| value.clone())
            }
            _ => None,
        }
    }
}

const NONE: &str = "none";

/// A setting that `"none"` turns off.
///
/// Around a [`Setting`] it reads the value. Around an `Option` it writes the value.
#[derive(Debug)]
pub struct OrNone<S>(pub S);

impl<S: Setting> Setting for OrNone<S> {
    type Value = Option<S::Value>;

    fn allowed(&self) -> String {
        format!("{}, or {NONE:?} to turn it off", self.0.allowed())
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<Option<S::Value>> {
        match given {
            Scalar::Text(NONE) => Some(None),
            _ => self.0.scalar(given).map(Some),
        }
    }

    fn table<'de, A: MapAccess<'de>>(&self, fields: &mut Fields<A>) -> Result<Option<Self::Value>, A::Error> {
        Ok(self.0.table(fields)?.map(Some))
    }
}

impl<T: Serialize> Serialize for OrNone<Option<T>> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(to),
            None => to.serialize_str(NONE),
        }
    }
}
