//! Runs the program with real files, databases, signals, clients and browsers.
#![cfg(unix)]

mod actions;
mod audit;
mod browser;
mod configuration;
mod demo;
mod event_stream;
mod fuzz;
mod outages;
mod readme;
mod restarts;
mod rude_clients;
mod support;
mod tokens;
mod websocket;
