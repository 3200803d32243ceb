//! Descriptions of the kinds of values, from which the JSON Schema is made.

use std::ops::RangeInclusive;

/// What a file may contain as a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A string. The pattern is a regular expression of ECMA-262.
    Text {
        pattern: Option<&'static str>,
    },
    Bool,
    Float(RangeInclusive<f64>),
    Integer(RangeInclusive<i128>),
    Words(Vec<&'static str>),
    List(Box<Kind>),
    Table(TableKind),
    /// A table with any keys, whose values are of one kind.
    Map(Box<Kind>),
    Any(Vec<Kind>),
}

/// The settings of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableKind {
    pub settings: Vec<Described>,
    /// Pairs of settings of which only one may be set.
    pub exclusive: &'static [[&'static str; 2]],
    /// Settings that are an error in this table.
    pub forbidden: &'static [&'static str],
    /// Pairs of settings of which only one may be `"none"`.
    pub not_both_none: &'static [[&'static str; 2]],
    /// Whether the table contains exactly one of the settings.
    pub exactly_one: bool,
}

impl TableKind {
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.settings.iter().map(|setting| setting.name).collect()
    }
}

/// A setting with its documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    pub name: &'static str,
    pub meaning: &'static str,
    pub required: bool,
    /// The allowed values, in words.
    pub range: String,
    pub kind: Kind,
}
