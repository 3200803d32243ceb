//! hyper-util's legacy client: what it sends again by itself, and what the layers over it do.

mod example;
