//! Reads the fields of a table, each by the kind of its value.

use std::fmt::{self, Display};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};

use super::kind::Kind;
use super::table::{Invalid, quoted};
use super::values::Text;

/// The field in which a file names its JSON Schema.
pub(super) const SCHEMA: &str = "$schema";

/// A kind of value, with its allowed range.
pub trait Setting {
    type Value;

    /// Returns the allowed values in words, for the documentation.
    fn range(&self) -> String;

    /// Returns the allowed values in words, for errors.
    fn allowed(&self) -> String {
        self.range()
    }

    /// Returns the allowed values, for the JSON Schema.
    fn kind(&self) -> Kind;

    /// Reads a value that is neither a table nor a list. `None`: the value is not allowed.
    fn scalar(&self, given: &Scalar<'_>) -> Option<Self::Value>;

    /// Reads a table. `None`: a table is not allowed.
    fn table<'de, A: MapAccess<'de>>(&self, fields: &mut Fields<A>) -> Result<Option<Self::Value>, A::Error> {
        let _ = fields;
        Ok(None)
    }

    /// Reads the list that is the field's value. `None`: a list is not allowed.
    fn list<'de, A: SeqAccess<'de>>(
        &self,
        field: &str,
        items: &mut A,
    ) -> Result<Option<Self::Value>, A::Error> {
        let _ = (field, items);
        Ok(None)
    }
}

impl<S: Setting> Setting for &S {
    type Value = S::Value;

    fn range(&self) -> String {
        (*self).range()
    }

    fn allowed(&self) -> String {
        (*self).allowed()
    }

    fn kind(&self) -> Kind {
        (*self).kind()
    }

    fn scalar(&self, given: &Scalar<'_>) -> Option<S::Value> {
        (*self).scalar(given)
    }

    fn table<'de, A: MapAccess<'de>>(&self, fields: &mut Fields<A>) -> Result<Option<S::Value>, A::Error> {
        (*self).table(fields)
    }

    fn list<'de, A: SeqAccess<'de>>(&self, field: &str, items: &mut A) -> Result<Option<S::Value>, A::Error> {
        (*self).list(field, items)
    }
}

/// A value in a file, other than a table or a list.
#[derive(Debug)]
pub enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'a str),
}

impl Scalar<'_> {
    /// Returns the value if it is a whole number.
    ///
    /// A number such as `3.0` or `1e6` is one, as in JSON Schema, because some programs write
    /// integers in this form. Above 2⁵³, a number in this form may not be exact.
    pub(super) fn as_integer(&self) -> Option<i128> {
        const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;

        match self {
            Self::Integer(integer) => Some(*integer),
            Self::Float(number) if number.fract() == 0.0 && number.abs() <= EXACT => Some(*number as i128),
            _ => None,
        }
    }
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
    /// The prefix of the field names in errors: empty, or for example `budget.window.`.
    prefix: String,
    names: Vec<String>,
    /// A name that was read ahead.
    ahead: Option<String>,
    /// Whether this is the outermost table of a file, which may name its schema.
    is_root: bool,
    table: A,
}

impl<'de, A: MapAccess<'de>> Fields<A> {
    /// Returns the fields of the outermost table.
    pub fn new(table: A) -> Self {
        Self { prefix: String::new(), names: Vec::new(), ahead: None, is_root: true, table }
    }

    /// Returns the name of the next setting. Its value must be read before the next name.
    ///
    /// Skips the name of the schema in the outermost table, which is for editors.
    ///
    /// # Errors
    ///
    /// Fails if the field appears twice, or if the file is not valid JSON or TOML.
    pub fn next_name(&mut self) -> Result<Option<String>, A::Error> {
        let mut name = self.next_field()?;
        while self.is_root && name.as_deref() == Some(SCHEMA) {
            self.value(Text)?;
            name = self.next_field()?;
        }
        Ok(name)
    }

    fn next_field(&mut self) -> Result<Option<String>, A::Error> {
        let name = match self.ahead.take() {
            Some(name) => Some(name),
            None => self.table.next_key()?,
        };
        if let Some(name) = &name {
            if self.names.contains(name) {
                return Err(A::Error::custom(format_args!(
                    "field `{}{}` appears twice; remove one of them",
                    self.prefix,
                    quoted(name)
                )));
            }
            self.names.push(name.clone());
        }
        Ok(name)
    }

    /// Reads the value of the field whose name was returned last.
    ///
    /// # Errors
    ///
    /// Fails if the value is not allowed.
    pub fn value<S: Setting>(&mut self, setting: S) -> Result<S::Value, A::Error> {
        let name = self.names.last().map_or("", String::as_str);
        self.table.next_value_seed(FieldReader { name: format!("{}{}", self.prefix, quoted(name)), setting })
    }

    /// Returns the error for a field that is not in `known`.
    pub(super) fn unknown(&self, name: &str, known: &[&str]) -> A::Error {
        A::Error::custom(format_args!(
            "unknown field `{}{}`; allowed is {}",
            self.prefix,
            quoted(name),
            alternatives(known.iter().map(|name| format!("`{name}`")))
        ))
    }

    /// Returns the error for a value that a builder rejected.
    pub(super) fn invalid(&self, Invalid { path, error }: &Invalid) -> A::Error {
        let (field, value, allowed) = (error.field(), error.value(), error.allowed());
        A::Error::custom(format_args!("`{}{path}{field}` is {value}; allowed is {allowed}", self.prefix))
    }

    /// Returns the error for a required field that is missing.
    pub(super) fn missing(&self, name: &str) -> A::Error {
        A::Error::custom(format_args!("field `{}{name}` is missing", self.prefix))
    }

    /// Returns the error for two fields of which only one may be set.
    pub(super) fn exclusive(&self, one: &str, other: &str) -> A::Error {
        A::Error::custom(format_args!(
            "`{0}{one}` and `{0}{other}` are set; set only one of them",
            self.prefix
        ))
    }

    /// Returns whether the field was read.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

/// Reads the value of one field.
pub(super) struct FieldReader<S> {
    pub(super) name: String,
    pub(super) setting: S,
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
        let mut fields = Fields { prefix: format!("{}.", self.name), is_root: false, ..Fields::new(table) };
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
/// Fails if the file is not a table, or if `settings` does not allow the table.
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

/// The key of the table as which `serde_json` represents a number that is not an integer, if any
/// crate enables its feature `arbitrary_precision`.
const NUMBER_AS_TABLE: &str = "$serde_json::private::Number";

/// Joins the items to a list such as `a, b or c`.
pub(super) fn alternatives(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<_> = items.collect();
    let last = items.pop().unwrap_or_default();
    if items.is_empty() { last } else { format!("{} or {last}", items.join(", ")) }
}

#[cfg(test)]
mod tests {
    use serde::de::value::{Error as TestError, MapDeserializer};
    use serde::de::{Deserialize, IntoDeserializer};

    use super::super::values::Float;
    use super::*;

    /// A number for the tests of [`FieldReader`].
    #[derive(Debug, PartialEq)]
    struct Rate(f64);

    impl<'de> Deserialize<'de> for Rate {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let setting = Float(0.0..=1.0);
            FieldReader { name: "rate".to_owned(), setting }.deserialize(from).map(Rate)
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
}
