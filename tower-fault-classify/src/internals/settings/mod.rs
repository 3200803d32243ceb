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

mod duration;
mod read;
mod values;

pub use duration::HumanDuration;
pub use read::{Fields, Scalar, Setting, read_table};
pub use values::{Bool, Choice, DurationIn, Float, Integer, OrNone, Text, TextList};
