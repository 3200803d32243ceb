//! Reads and writes settings in configuration files, through serde.
//!
//! An error names the field, the value and what is allowed. Derived implementations of serde do
//! not: their errors do not name the field, and those of untagged enums name nothing. So the
//! settings are read by hand-written code. A [`Table`] lists them once, for the reader, the JSON
//! Schema and the documentation.
//!
//! | in the file | meaning |
//! |---|---|
//! | `"none"` | the setting is off ([`OrNone`]) |
//! | the field is missing | the default, or the value of the preset |
//! | `null` | an error, because it could mean off or the default |

mod duration;
mod kind;
mod read;
#[cfg(feature = "__internals-schemars")]
mod schema;
mod table;
mod values;

pub use duration::HumanDuration;
pub use kind::Kind;
pub use read::{Fields, Scalar, Setting, read_table};
#[cfg(feature = "__internals-schemars")]
pub use schema::TableSchema;
pub use table::{Changes, Invalid, Keyed, Nested, OneOf, Overrides, Presets, Table, Visit};
pub use values::{
    Bool, Choice, DurationIn, DurationOrZero, Either, Float, Integer, OrNone, Seed, Text, TextList,
    WrittenSeed,
};
