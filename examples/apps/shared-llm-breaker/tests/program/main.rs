//! Runs the program `worker`, and reads the README.
#![cfg(unix)]

mod commands;
mod config;
mod demo;
mod readme;
mod signals;
mod streams;
mod support;
