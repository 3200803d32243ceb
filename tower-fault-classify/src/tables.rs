#![doc = include_str!("../TABLES.md")]

pub use crate::table::redis::redis_fault;
pub use crate::table::sqlstate::sqlstate_fault;
