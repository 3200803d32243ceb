//! Tables of settings: one list for the reader, the JSON Schema and the documentation.

use std::fmt;

use serde::de::MapAccess;

use super::kind::{Described, Kind, TableKind};
use super::read::{Fields, Scalar, Setting};
use super::values::Choice;
use crate::__internals::ConfigError;

/// The name of the setting that selects a preset.
pub(super) const PRESET: &str = "preset";

/// The presets of a table, each with its name in files.
pub type Presets<B> = &'static [(&'static str, fn() -> B)];

/// The settings of a table in a file.
///
/// [`visit`](Self::visit) is their only list. The reader, the JSON Schema and the tables of the
/// documentation visit it.
pub trait Table {
    /// The type that the settings change.
    type Builder: 'static;
    type Value;

    /// Returns a description of the table, for errors.
    fn allowed(&self) -> String;

    /// Returns the builder that the settings of a file change.
    fn start(&self) -> Self::Builder;

    /// Returns the presets that a file can select in place of [`start`](Self::start).
    fn presets(&self) -> Presets<Self::Builder> {
        &[]
    }

    /// Returns the pairs of settings of which a file may contain only one.
    fn exclusive(&self) -> &'static [[&'static str; 2]] {
        &[]
    }

    /// Returns the settings that [`build`](Self::build) rejects, for the JSON Schema.
    fn forbidden(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the pairs of settings that [`build`](Self::build) rejects if both are `"none"`, for
    /// the JSON Schema.
    fn not_both_none(&self) -> &'static [[&'static str; 2]] {
        &[]
    }

    /// Passes every setting to `visitor`.
    fn visit(&self, visitor: &mut impl Visit<Self::Builder>);

    /// Checks the settings together.
    ///
    /// # Errors
    ///
    /// Fails if a setting does not fit the others.
    fn build(&self, builder: Self::Builder) -> Result<Self::Value, Invalid>;
}

/// Visits the settings of a [`Table`].
pub trait Visit<B> {
    fn entry<S>(&mut self, entry: Entry, kind: S, set: impl FnOnce(B, S::Value) -> B + 'static)
    where
        S: Setting,
        S::Value: 'static;

    /// Visits a setting that has a default.
    fn setting<S>(
        &mut self,
        name: &'static str,
        meaning: &'static str,
        kind: S,
        set: impl FnOnce(B, S::Value) -> B + 'static,
    ) where
        S: Setting,
        S::Value: 'static,
    {
        self.entry(Entry { name, meaning, required: false }, kind, set);
    }

    /// Visits a setting that a file must contain.
    fn required<S>(
        &mut self,
        name: &'static str,
        meaning: &'static str,
        kind: S,
        set: impl FnOnce(B, S::Value) -> B + 'static,
    ) where
        S: Setting,
        S::Value: 'static,
    {
        self.entry(Entry { name, meaning, required: true }, kind, set);
    }
}

/// The name of a setting, and what the documentation says about it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    pub meaning: &'static str,
    pub required: bool,
}

/// A setting that does not fit the others of its table.
#[derive(Debug)]
pub struct Invalid {
    /// The tables around the field, each with a dot: empty, or for example `each.`.
    pub(super) path: String,
    pub(super) error: ConfigError,
}

impl Invalid {
    /// Places the error in an inner table.
    #[must_use]
    pub fn within(mut self, table: &str) -> Self {
        self.path = format!("{}.{}", quoted(table), self.path);
        self
    }
}

impl From<ConfigError> for Invalid {
    fn from(error: ConfigError) -> Self {
        Self { path: String::new(), error }
    }
}

/// Returns a key as TOML writes it: in quotes if it contains other characters than a bare key.
pub(super) fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") }
}

/// The settings that a file contains for a table, in the order of the file.
///
/// They are applied after the whole table is read, because a preset may follow the settings that
/// differ from it.
pub struct Changes<B> {
    preset: Option<fn() -> B>,
    changes: Vec<Change<B>>,
}

type Change<B> = Box<dyn FnOnce(B) -> B>;

impl<B> Changes<B> {
    /// Changes `start`, or the preset that the file selects in place of it.
    pub fn apply(self, start: B) -> B {
        let start = self.preset.map_or(start, |preset| preset());
        self.changes.into_iter().fold(start, |builder, change| change(builder))
    }
}

impl<B> Default for Changes<B> {
    fn default() -> Self {
        Self { preset: None, changes: Vec::new() }
    }
}

impl<B> fmt::Debug for Changes<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("changes", &self.changes.len()).finish_non_exhaustive()
    }
}

/// Reads a table. The value is what the table builds.
#[derive(Debug)]
pub struct Nested<T>(pub T);

impl<T: Table> Setting for Nested<T> {
    type Value = T::Value;

    fn range(&self) -> String {
        self.0.allowed()
    }

    fn kind(&self) -> Kind {
        Kind::Table(describe(&self.0))
    }

    fn scalar(&self, _: &Scalar<'_>) -> Option<T::Value> {
        None
    }

    fn table<'de, A: MapAccess<'de>>(&self, fields: &mut Fields<A>) -> Result<Option<T::Value>, A::Error> {
        let builder = read_changes(&self.0, fields)?.apply(self.0.start());
        self.0.build(builder).map(Some).map_err(|invalid| fields.invalid(&invalid))
    }
}

/// Reads a table that changes another configuration. The value is the changes.
#[derive(Debug)]
pub struct Overrides<T>(pub T);

impl<T: Table> Setting for Overrides<T> {
    type Value = Changes<T::Builder>;

    fn range(&self) -> String {
        self.0.allowed()
    }

    fn kind(&self) -> Kind {
        Kind::Table(describe(&self.0))
    }

    fn scalar(&self, _: &Scalar<'_>) -> Option<Self::Value> {
        None
    }

    fn table<'de, A: MapAccess<'de>>(&self, fields: &mut Fields<A>) -> Result<Option<Self::Value>, A::Error> {
        read_changes(&self.0, fields).map(Some)
    }
}

/// Reads a table that contains exactly one of its settings.
#[derive(Debug)]
pub struct OneOf<T>(pub T);

impl<T: Table> Setting for OneOf<T> {
    type Value = T::Value;

    fn range(&self) -> String {
        self.0.allowed()
    }

    fn kind(&self) -> Kind {
        Kind::Table(TableKind { exactly_one: true, ..describe(&self.0) })
    }

    fn scalar(&self, _: &Scalar<'_>) -> Option<T::Value> {
        None
    }

    fn table<'de, A: MapAccess<'de>>(&self, fields: &mut Fields<A>) -> Result<Option<T::Value>, A::Error> {
        let Some(first) = fields.next_name()? else { return Ok(None) };
        let change = read_setting(&self.0, &first, fields)?;
        if let Some(second) = fields.next_name()? {
            return Err(fields.exclusive(&first, &second));
        }
        let builder = change(self.0.start());
        self.0.build(builder).map(Some).map_err(|invalid| fields.invalid(&invalid))
    }
}

fn read_changes<'de, T: Table, A: MapAccess<'de>>(
    table: &T,
    fields: &mut Fields<A>,
) -> Result<Changes<T::Builder>, A::Error> {
    let mut changes = Changes::default();
    while let Some(name) = fields.next_name()? {
        if name == PRESET && !table.presets().is_empty() {
            changes.preset = Some(fields.value(Choice(table.presets()))?);
        } else {
            changes.changes.push(read_setting(table, &name, fields)?);
        }
    }
    for [one, other] in table.exclusive() {
        if fields.contains(one) && fields.contains(other) {
            return Err(fields.exclusive(one, other));
        }
    }
    let settings = describe(table).settings;
    match settings.iter().find(|setting| setting.required && !fields.contains(setting.name)) {
        Some(missing) => Err(fields.missing(missing.name)),
        None => Ok(changes),
    }
}

fn read_setting<'de, T: Table, A: MapAccess<'de>>(
    table: &T,
    name: &str,
    fields: &mut Fields<A>,
) -> Result<Change<T::Builder>, A::Error> {
    let mut reader = Reader { name, fields, change: None };
    table.visit(&mut reader);
    match reader.change {
        Some(change) => change,
        None => Err(fields.unknown(name, &describe(table).names())),
    }
}

/// Reads the value of the setting with this name.
struct Reader<'a, A, B, E> {
    name: &'a str,
    fields: &'a mut Fields<A>,
    change: Option<Result<Change<B>, E>>,
}

impl<'de, A: MapAccess<'de>, B> Visit<B> for Reader<'_, A, B, A::Error> {
    fn entry<S>(&mut self, entry: Entry, kind: S, set: impl FnOnce(B, S::Value) -> B + 'static)
    where
        S: Setting,
        S::Value: 'static,
    {
        if entry.name == self.name {
            let value = self.fields.value(kind);
            self.change = Some(value.map(|value| -> Change<B> { Box::new(|builder| set(builder, value)) }));
        }
    }
}

/// Describes the settings of a table.
pub(super) fn describe<T: Table>(table: &T) -> TableKind {
    let mut settings = Settings(Vec::new());
    if !table.presets().is_empty() {
        settings.0.push(Described {
            name: PRESET,
            meaning: "starts from the values of a [preset](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/configuration.md#presets), in place of the defaults",
            required: false,
            range: Choice(table.presets()).range(),
            kind: Choice(table.presets()).kind(),
        });
    }
    table.visit(&mut settings);
    TableKind {
        settings: settings.0,
        exclusive: table.exclusive(),
        forbidden: table.forbidden(),
        not_both_none: table.not_both_none(),
        exactly_one: false,
    }
}

/// Collects the descriptions of settings.
struct Settings(Vec<Described>);

impl<B> Visit<B> for Settings {
    fn entry<S>(&mut self, entry: Entry, kind: S, _: impl FnOnce(B, S::Value) -> B + 'static)
    where
        S: Setting,
        S::Value: 'static,
    {
        let Entry { name, meaning, required } = entry;
        self.0.push(Described { name, meaning, required, range: kind.range(), kind: kind.kind() });
    }
}

/// Reads a table with any keys, and a table of the same kind for each of them.
#[derive(Debug)]
pub struct Keyed<S>(pub S);

impl<S: Setting> Setting for Keyed<S> {
    type Value = Vec<(String, S::Value)>;

    fn range(&self) -> String {
        format!("a table with {} for each key", self.0.range())
    }

    fn kind(&self) -> Kind {
        Kind::Map(Box::new(self.0.kind()))
    }

    fn scalar(&self, _: &Scalar<'_>) -> Option<Self::Value> {
        None
    }

    fn table<'de, A: MapAccess<'de>>(&self, fields: &mut Fields<A>) -> Result<Option<Self::Value>, A::Error> {
        let mut values = Vec::new();
        while let Some(key) = fields.next_name()? {
            let value = fields.value(&self.0)?;
            values.push((key, value));
        }
        Ok(Some(values))
    }
}
