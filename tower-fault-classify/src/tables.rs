#![doc = include_str!("../TABLES.md")]
