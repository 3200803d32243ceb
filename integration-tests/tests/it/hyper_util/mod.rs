//! hyper-util's legacy client: which requests it resends by itself, and what the layers around it
//! do.

mod idle_connections;
mod kept_connections;
mod redirects;
