//! Runs the program, with real files, signals and an API on loopback.

mod api;
mod disk;
mod files;
mod input;
mod machine;
mod messages;
mod resume;
mod signals;
mod support;
mod trip;
mod waits;
