//! Reads and writes settings in configuration files, through serde.
//!
//! An error names the field, the value and what is allowed. Derived implementations of serde do
//! not: their errors do not name the field, and those of untagged enums name nothing. So the
//! settings are read by hand-written code:
//!
//! | in the file | meaning |
//! |---|---|
//! | `"none"` | the setting is off ([`OrNone`]) |
//! | the field is missing | the default |
//! | `null` | an error, because it could mean off or the default |

mod duration;
mod read;
mod values;

pub use duration::HumanDuration;
pub use read::{Fields, Scalar, Setting, read_table};
pub use values::{Bool, Choice, DurationIn, Float, Integer, OrNone, Seed, Text, TextList, WrittenSeed};
