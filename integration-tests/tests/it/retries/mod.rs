//! Retries over every client, counted on a server that fails so many times.

mod early_answer;
mod hyper_client;
mod last_outcome;
mod reqwest_client;
mod tonic_channel;
