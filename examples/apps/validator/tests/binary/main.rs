//! Runs the program with real commands, files, signals and services.
#![cfg(unix)]

mod broken_input;
mod demo;
mod exit_codes;
mod interrupts;
mod output;
mod readme;
mod selection;
mod services;
mod support;
mod terminal;
