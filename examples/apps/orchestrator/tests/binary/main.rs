//! Runs the program with plans whose backends are shell scripts.
#![cfg(unix)]

mod demo;
mod exit_codes;
mod interrupts;
mod output;
mod plans;
mod support;
