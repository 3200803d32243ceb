//! Runs the program with real files, databases, signals, clients and browsers.
#![cfg(unix)]

mod actions;
mod audit;
mod configuration;
mod event_stream;
mod rude_clients;
mod support;
mod tokens;
mod websocket;
