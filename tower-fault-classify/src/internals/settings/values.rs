//! The kinds of values of settings.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{MapAccess, SeqAccess};
use serde::{Serialize, Serializer};

use super::duration::{HumanDuration, PATTERN, unit_names};
use super::kind::Kind;
use super::read::{FieldReader, Fields, Scalar, Setting, alternatives};

/// A string with any content.
#[derive(Debug)]
pub struct Text;

impl Setting for Text {
    type Value = String;

    fn range(&self) -> String {
        "a string".to_owned()
    }

    fn kind(&self) -> Kind {
        Kind::Text { pattern: None }
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<String> {
        match given {
            Scalar::Text(text) => Some((*text).to_owned()),
            _ => None,
        }
    }
}

/// A list of strings, whose form is only checked when the settings are checked together.
#[derive(Debug)]
pub struct TextList {
    /// The form of each string, as a regular expression of ECMA-262.
    pub pattern: &'static str,
}

impl Setting for TextList {
    type Value = Vec<String>;

    fn range(&self) -> String {
        "a list of strings".to_owned()
    }

    fn kind(&self) -> Kind {
        Kind::List(Box::new(Kind::Text { pattern: Some(self.pattern) }))
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

    fn range(&self) -> String {
        "true or false".to_owned()
    }

    fn kind(&self) -> Kind {
        Kind::Bool
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

    fn range(&self) -> String {
        format!("{:?} to {:?}", self.0.start(), self.0.end())
    }

    fn kind(&self) -> Kind {
        Kind::Float(self.0.clone())
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

impl<T: Copy + Debug + PartialOrd + TryFrom<i128> + TryInto<i128>> Setting for Integer<T> {
    type Value = T;

    fn range(&self) -> String {
        format!("{:?} to {:?}", self.0.start(), self.0.end())
    }

    fn kind(&self) -> Kind {
        // Every type of a setting fits into an `i128`.
        let end = |end: &T| (*end).try_into().unwrap_or_default();
        Kind::Integer(end(self.0.start())..=end(self.0.end()))
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<T> {
        let integer = T::try_from(given.as_integer()?).ok()?;
        self.0.contains(&integer).then_some(integer)
    }
}

/// A seed of random numbers. It is read from a number, or from a string with a number.
///
/// A seed above [`i64::MAX`] is written as a string, because TOML has no such integers.
#[derive(Debug)]
pub struct Seed;

impl Setting for Seed {
    type Value = u64;

    fn range(&self) -> String {
        format!("0 to {}, in quotes if it is above {}", u64::MAX, i64::MAX)
    }

    fn kind(&self) -> Kind {
        let quoted = Kind::Text { pattern: Some("^[+]?[0-9]+$") };
        Kind::Any(vec![Kind::Integer(0..=u64::MAX.into()), quoted])
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<u64> {
        match given {
            Scalar::Text(seed) => seed.parse().ok(),
            number => u64::try_from(number.as_integer()?).ok(),
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

    fn range(&self) -> String {
        let [least, most] = [self.0.start(), self.0.end()].map(|end| HumanDuration(*end));
        format!("{least} to {most}")
    }

    fn allowed(&self) -> String {
        format!("{}, such as \"1m 30s\", with the units {}", self.range(), unit_names())
    }

    fn kind(&self) -> Kind {
        Kind::Text { pattern: Some(PATTERN) }
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<Duration> {
        match given {
            Scalar::Text(text) => HumanDuration::parse(text).filter(|time| self.0.contains(time)),
            _ => None,
        }
    }
}

/// A duration within a range, or zero.
#[derive(Debug)]
pub struct DurationOrZero(pub RangeInclusive<Duration>);

impl Setting for DurationOrZero {
    type Value = Duration;

    fn range(&self) -> String {
        format!("{}, or 0s", DurationIn(self.0.clone()).range())
    }

    fn allowed(&self) -> String {
        format!("{}, or 0s", DurationIn(self.0.clone()).allowed())
    }

    fn kind(&self) -> Kind {
        DurationIn(self.0.clone()).kind()
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<Duration> {
        let zero = DurationIn(Duration::ZERO..=Duration::ZERO).scalar(given);
        zero.or_else(|| DurationIn(self.0.clone()).scalar(given))
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

    fn range(&self) -> String {
        alternatives(self.0.iter().map(|(word, _)| format!("{word:?}")))
    }

    fn kind(&self) -> Kind {
        Kind::Words(self.0.iter().map(|(word, _)| *word).collect())
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

/// A value of the first kind, or of the second. The first kind has neither tables nor lists.
#[derive(Debug)]
pub struct Either<A, B>(pub A, pub B);

impl<A: Setting, B: Setting<Value = A::Value>> Setting for Either<A, B> {
    type Value = A::Value;

    fn range(&self) -> String {
        format!("{}, or {}", self.0.range(), self.1.range())
    }

    fn allowed(&self) -> String {
        format!("{}, or {}", self.0.allowed(), self.1.allowed())
    }

    fn kind(&self) -> Kind {
        Kind::Any(vec![self.0.kind(), self.1.kind()])
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<A::Value> {
        self.0.scalar(given).or_else(|| self.1.scalar(given))
    }

    fn table<'de, M: MapAccess<'de>>(&self, fields: &mut Fields<M>) -> Result<Option<A::Value>, M::Error> {
        self.1.table(fields)
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

    fn range(&self) -> String {
        format!("{}, or {NONE:?}", self.0.range())
    }

    fn allowed(&self) -> String {
        format!("{}, or {NONE:?} to turn it off", self.0.allowed())
    }

    fn kind(&self) -> Kind {
        Kind::Any(vec![self.0.kind(), Kind::Words(vec![NONE])])
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
