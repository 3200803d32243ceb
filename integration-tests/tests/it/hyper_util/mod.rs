//! hyper-util's legacy client: what it sends again by itself, and what the layers over it do.

mod idle_connections;
mod kept_connections;
mod redirects;
