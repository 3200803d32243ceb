//! An async closure changes a variable that it captures.
//~ async closure does not implement `FnMut` because it captures state from its environment

use std::io;

use tower_jitter_retry::RetryPolicy;

async fn query(_attempt: u32) -> io::Result<u32> {
    Ok(7)
}

async fn rows(policy: RetryPolicy) -> io::Result<u32> {
    let mut attempts = 0;
    let attempt = async || {
        attempts += 1;
        query(attempts).await
    };
    policy.retry(attempt).await
}

fn main() {
    drop(rows(RetryPolicy::default()));
}
