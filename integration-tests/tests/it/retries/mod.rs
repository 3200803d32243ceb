//! Retries over every client. The server fails a given number of times and counts the requests.

mod early_answer;
mod event_streams;
mod hyper_client;
mod last_outcome;
mod reqwest_client;
mod tonic_channel;
mod without_tower;
