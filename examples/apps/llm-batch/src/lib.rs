//! Sends each item of a file to an LLM API.

pub mod ask;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod config;
pub mod console;
pub mod demo;
pub mod engine;
pub mod errors;
pub mod events;
pub mod files;
pub mod input;
pub mod llm;
pub mod progress;
pub mod prompt;
pub mod reply;
mod text;
pub mod unit;
pub mod writer;
