//! Settings in configuration files.
//!
//! An error names the field, the value and what is allowed. Derived implementations of serde
//! cannot: their errors do not name the field, and those of untagged enums name nothing. So
//! settings are read by hand:
//!
//! | in the file | meaning |
//! |---|---|
//! | `"none"` | off ([`OrNone`]) |
//! | no field | the default |
//! | `null` | an error, because it could mean either |

use std::fmt::{self, Debug, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Serialize, Serializer};

use super::ConfigError;

/// A kind of value, with its range.
pub trait Setting {
    type Value;

    /// What is allowed, for errors.
    fn allowed(&self) -> String;

    /// Reads a value that is no table and no list. `None`: it is not allowed.
    fn scalar(&self, given: &Scalar<'_>) -> Option<Self::Value>;

    /// Reads a table. `None`: no table is allowed.
    fn table<'de, A: MapAccess<'de>>(&self, fields: &mut Fields<A>) -> Result<Option<Self::Value>, A::Error> {
        let _ = fields;
        Ok(None)
    }

    /// Reads the list that is the field's value. `None`: no list is allowed.
    fn list<'de, A: SeqAccess<'de>>(
        &self,
        field: &str,
        items: &mut A,
    ) -> Result<Option<Self::Value>, A::Error> {
        let _ = (field, items);
        Ok(None)
    }
}

/// A value of a file.
#[derive(Debug)]
pub enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'a str),
}

impl Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// The fields of a table, in the order of the file.
#[derive(Debug)]
pub struct Fields<A> {
    /// What precedes the names of the fields in errors: nothing, or `budget.window.`.
    prefix: String,
    names: Vec<String>,
    /// A name that was read ahead.
    ahead: Option<String>,
    table: A,
}

impl<'de, A: MapAccess<'de>> Fields<A> {
    /// The fields of the outermost table.
    pub fn new(table: A) -> Self {
        Self { prefix: String::new(), names: Vec::new(), ahead: None, table }
    }

    /// The name of the next field. Its value must be read before the next name.
    ///
    /// # Errors
    ///
    /// The field is there twice, or the file is no valid JSON or TOML.
    pub fn next_name(&mut self) -> Result<Option<String>, A::Error> {
        let name = match self.ahead.take() {
            Some(name) => Some(name),
            None => self.table.next_key()?,
        };
        if let Some(name) = &name {
            if self.names.contains(name) {
                return Err(A::Error::custom(format_args!("field `{}{name}` is there twice", self.prefix)));
            }
            self.names.push(name.clone());
        }
        Ok(name)
    }

    /// Reads the value of the field that was named last.
    ///
    /// # Errors
    ///
    /// It is not allowed.
    pub fn value<S: Setting>(&mut self, setting: S) -> Result<S::Value, A::Error> {
        let name = self.names.last().map_or("", String::as_str);
        self.table.next_value_seed(FieldReader { name: format!("{}{name}", self.prefix), setting })
    }

    /// The error for a field that is none of `known`.
    pub fn unknown(&self, name: &str, known: &[&str]) -> A::Error {
        A::Error::custom(format_args!(
            "unknown field `{}{name}`; allowed is {}",
            self.prefix,
            alternatives(known.iter().map(|name| format!("`{name}`")))
        ))
    }

    /// The error for a value that a builder refused.
    pub fn invalid(&self, error: &ConfigError) -> A::Error {
        let (field, value, allowed) = (error.field(), error.value(), error.allowed());
        A::Error::custom(format_args!("`{}{field}` is {value}; allowed is {allowed}", self.prefix))
    }

    /// The value of a field that must be there.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, A::Error> {
        value.ok_or_else(|| A::Error::custom(format_args!("field `{}{name}` is missing", self.prefix)))
    }

    /// The value of a table of one field, once that field was read.
    ///
    /// # Errors
    ///
    /// There is another field.
    pub fn single<T>(&mut self, value: T) -> Result<Option<T>, A::Error> {
        match self.next_name()? {
            None => Ok(Some(value)),
            Some(name) => Err(A::Error::custom(format_args!(
                "field `{}{name}` is one too many; allowed is one",
                self.prefix
            ))),
        }
    }
}

/// Reads one field.
struct FieldReader<S> {
    name: String,
    setting: S,
}

impl<S: Setting> FieldReader<S> {
    fn reject<E: Error>(&self, given: impl Display) -> E {
        let Self { name, setting } = self;
        E::custom(format_args!("`{name}` is {given}; allowed is {}", setting.allowed()))
    }

    fn scalar<E: Error>(&self, given: &Scalar<'_>) -> Result<S::Value, E> {
        self.setting.scalar(given).ok_or_else(|| self.reject(given))
    }
}

impl<'de, S: Setting> DeserializeSeed<'de> for FieldReader<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<S::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, S: Setting> Visitor<'de> for FieldReader<S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.name, self.setting.allowed())
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<S::Value, E> {
        self.scalar(&Scalar::Bool(flag))
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<S::Value, E> {
        self.scalar(&Scalar::Integer(integer.into()))
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<S::Value, E> {
        self.scalar(&Scalar::Integer(integer.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<S::Value, E> {
        self.scalar(&Scalar::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<S::Value, E> {
        self.scalar(&Scalar::Text(text))
    }

    fn visit_unit<E: Error>(self) -> Result<S::Value, E> {
        let Self { name, setting } = self;
        Err(E::custom(format_args!(
            "`{name}` is null; allowed is {}; leave the field out for its default",
            setting.allowed()
        )))
    }

    fn visit_none<E: Error>(self) -> Result<S::Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<S::Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<S::Value, A::Error> {
        let mut fields = Fields { prefix: format!("{}.", self.name), ..Fields::new(table) };
        fields.ahead = fields.table.next_key()?;
        if fields.ahead.as_deref() == Some(NUMBER_AS_TABLE) {
            let text: String = fields.table.next_value()?;
            return match text.parse() {
                Ok(number) => self.scalar(&Scalar::Float(number)),
                Err(_) => Err(self.reject(text)),
            };
        }
        self.setting.table(&mut fields)?.ok_or_else(|| self.reject("a table"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<S::Value, A::Error> {
        self.setting.list(&self.name, &mut items)?.ok_or_else(|| self.reject("a list"))
    }
}

/// Reads the outermost table.
///
/// # Errors
///
/// It is no table, or `settings` does not allow it.
pub fn read_table<'de, S: Setting, D: Deserializer<'de>>(settings: S, from: D) -> Result<S::Value, D::Error> {
    from.deserialize_map(RootTable(settings))
}

struct RootTable<S>(S);

impl<'de, S: Setting> Visitor<'de> for RootTable<S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.allowed())
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<S::Value, A::Error> {
        let settings = self.0.table(&mut Fields::new(table))?;
        settings.ok_or_else(|| A::Error::invalid_type(Unexpected::Map, &self))
    }
}

/// How `serde_json` presents a number that is no integer if some crate enables its feature
/// `arbitrary_precision`.
const NUMBER_AS_TABLE: &str = "$serde_json::private::Number";

/// `a`, `b` or `c`.
fn alternatives(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<_> = items.collect();
    let last = items.pop().unwrap_or_default();
    if items.is_empty() { last } else { format!("{} or {last}", items.join(", ")) }
}

/// A text of any content.
#[derive(Debug)]
pub struct Text;

impl Setting for Text {
    type Value = String;

    fn allowed(&self) -> String {
        "text".to_owned()
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<String> {
        match given {
            Scalar::Text(text) => Some((*text).to_owned()),
            _ => None,
        }
    }
}

/// A list of texts.
#[derive(Debug)]
pub struct TextList;

impl Setting for TextList {
    type Value = Vec<String>;

    fn allowed(&self) -> String {
        "a list of texts".to_owned()
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

/// A number.
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

/// A whole number.
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

/// A duration, written as [`HumanDuration`].
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

/// One of some words, each with its value.
#[derive(Debug)]
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Clone + PartialEq> Choice<T> {
    /// The word for a value.
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

/// A setting that `"none"` turns off. Around an `Option` it writes the value.
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

/// The units of durations in nanoseconds, the longest first.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

fn unit_names() -> String {
    alternatives(UNITS.iter().rev().map(|(name, _)| (*name).to_owned()))
}

/// A duration as people write it: `1m 30s`, `1.5s`.
///
/// Months and years are left out, because their length varies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// Reads numbers, each with its unit, and adds them up. `None`: the text is no such sum, or the
    /// sum is longer than a `Duration`, or a number has a part of a nanosecond.
    pub fn parse(text: &str) -> Option<Duration> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return None;
        }
        let mut nanos = 0_u128;
        while !rest.is_empty() {
            let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
            let end_of_unit = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end_of_unit);
            let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
            nanos = nanos.checked_add(times(number, (*length).into())?)?;
            rest = after.trim_start();
        }
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
    }
}

/// The product of a decimal number and the length of a unit, if it is a whole number.
fn times(number: &str, length: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let denominator = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let numerator = length.checked_mul(fraction.parse::<u64>().ok()?.into())?;
    if numerator % denominator != 0 {
        return None;
    }
    length.checked_mul(whole.parse::<u64>().ok()?.into())?.checked_add(numerator / denominator)
}

impl Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        let mut separator = "";
        for (unit, length) in UNITS {
            let number = rest / u128::from(length);
            rest %= u128::from(length);
            if number > 0 {
                write!(f, "{separator}{number}{unit}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::value::{Error as TestError, MapDeserializer};
    use serde::de::{Deserialize, IntoDeserializer};

    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    /// One number, for the tests of [`FieldReader`].
    #[derive(Debug, PartialEq)]
    struct Rate(f64);

    impl<'de> Deserialize<'de> for Rate {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let setting = Float(0.0..=1.0);
            FieldReader { name: "rate".to_owned(), setting }.deserialize(from).map(Rate)
        }
    }

    #[test]
    fn duration_with_units_is_parsed() {
        for (text, nanos) in [
            ("1d 2h 3m 4s 5ms 6us 7ns", 93_784_005_006_007),
            ("1m30s", 90_000_000_000),
            (" 1m  30s ", 90_000_000_000),
            ("90s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.25ms", 250_000),
            ("0s", 0),
            ("0.1d", 8_640_000_000_000),
        ] {
            assert_eq!(HumanDuration::parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn duration_malformed_is_rejected() {
        for text in [
            "",
            " ",
            "s",
            "soon",
            "30",
            "0",
            "1M",
            "1month",
            "1y",
            "1w",
            "1S",
            "-5s",
            "+5s",
            "1m -30s",
            "1e3s",
            ".5s",
            "5.s",
            "1.2.3s",
            "1 30s",
            "1,5s",
            "NaNs",
            "inf",
            "infs",
            "0.5ns",
            "0.3333333333333333333s",
            "18446744073709551616s",
            "213503982334602d",
            "18446744073709551615s 1000000000ns",
            "99999999999999999999999999999999999999999s",
            "\u{ff15}s",
        ] {
            assert_eq!(HumanDuration::parse(text), None, "{text}");
        }
    }

    #[test]
    fn number_as_serde_json_table_is_read() {
        let number = |text: &'static str| {
            let fields = [(NUMBER_AS_TABLE, text)].into_iter();
            Rate::deserialize(MapDeserializer::<_, TestError>::new(fields)).map_err(|error| error.to_string())
        };
        assert_eq!(number("0.25"), Ok(Rate(0.25)));
        assert_eq!(number("1.5"), Err("`rate` is 1.5; allowed is 0.0 to 1.0".to_owned()));
        assert_eq!(number("x"), Err("`rate` is x; allowed is 0.0 to 1.0".to_owned()));
    }

    #[test]
    fn number_out_of_range_error_names_field() {
        let number =
            |number: f64| Rate::deserialize(IntoDeserializer::<TestError>::into_deserializer(number));
        for (given, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (-0.5, "-0.5")] {
            let error = number(given).unwrap_err().to_string();
            assert_eq!(error, format!("`rate` is {text}; allowed is 0.0 to 1.0"));
        }
    }

    proptest! {
        #[test]
        fn duration_display_parses_back(seconds: u64, nanos in 0..1_000_000_000_u32) {
            for duration in [Duration::new(seconds, nanos), Duration::new(seconds % (365 * DAY), nanos)] {
                prop_assert_eq!(HumanDuration::parse(&HumanDuration(duration).to_string()), Some(duration));
            }
        }
    }
}
