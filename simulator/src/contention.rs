//! Clients that update one row by optimistic concurrency control.
//!
//! Each client reads the row and then writes it. The write is accepted if no other write was
//! accepted after the read. A client whose write is refused waits for the delay of its policy and
//! begins again. Each of the messages between a client and the server takes a random time.

use std::time::Duration;

use tower_breaker::Verdict;
use tower_jitter_retry::RetryPolicy;
use tower_jitter_retry::decision::{CallOptions, Decision, RetryCall};

use crate::events::Events;
use crate::random::{Random, Stream};
use crate::reply::Reply;
use crate::time::nanos;

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Contention {
    /// The seed of all random numbers.
    pub seed: u64,
    /// The number of clients. All begin at the same time, and each makes one update.
    pub clients: u32,
    /// The mean time of a message, in nanoseconds.
    pub delay: u64,
    /// The standard deviation of the time of a message, in nanoseconds.
    pub deviation: u64,
}

/// The result of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Writes that arrived at the server.
    pub writes: u64,
    /// When the last client ended, in nanoseconds.
    pub ended: u64,
    /// Clients whose policy allowed no further retry.
    pub gave_up: u64,
}

/// A message, when it arrives. All have the number of the client.
#[derive(Clone, Copy, Debug)]
enum Message {
    /// At the server: a read.
    Read(usize),
    /// At the client: the version of the row.
    Version(usize, u64),
    /// At the server: a write by a client that has read this version.
    Write(usize, u64),
    /// At the client: whether the write was accepted.
    Written(usize, bool),
}

impl Contention {
    /// Runs until each client has made its update or gives up. The policy decides on retries.
    ///
    /// # Panics
    ///
    /// Does not panic: a policy can be built again with another seed.
    pub fn run(&self, policy: &RetryPolicy) -> Outcome {
        let seed = Random::new(self.seed, Stream::Seeds).bits();
        let policy = policy.to_builder().seed(seed).build().expect("only the seed is new");
        let begin = |_| policy.begin(CallOptions::new(), Duration::ZERO);
        let mut clients: Vec<RetryCall> = (0..self.clients).map(begin).collect();
        let mut network = Random::new(self.seed, Stream::Network);
        let mut delay = || network.normal(self.delay, self.deviation);

        let mut events = Events::new(1);
        for client in 0..clients.len() {
            events.add(delay(), Message::Read(client));
        }
        let (mut version, mut outcome) = (0, Outcome::default());
        while let Some((now, message)) = events.pop() {
            // The next message, and the time until it is sent.
            let next = match message {
                Message::Read(client) => Some((0, Message::Version(client, version))),
                Message::Version(client, read) => Some((0, Message::Write(client, read))),
                Message::Write(client, read) => {
                    outcome.writes += 1;
                    let accepted = read == version;
                    version += u64::from(accepted);
                    Some((0, Message::Written(client, accepted)))
                }
                Message::Written(client, accepted) => {
                    outcome.ended = now;
                    match clients[client].record(&verdict(accepted), Duration::from_nanos(now)) {
                        Decision::Retry { delay } => Some((nanos(delay), Message::Read(client))),
                        Decision::GiveUp(_) => {
                            outcome.gave_up += 1;
                            None
                        }
                        Decision::Done => None,
                    }
                }
            };
            if let Some((wait, message)) = next {
                events.add(now + wait + delay(), message);
            }
        }
        outcome
    }
}

/// Returns the verdict of a write. A refused write may be sent again, like a request after a 503.
fn verdict(accepted: bool) -> Verdict {
    if accepted { Verdict::Success } else { Reply::Unavailable { retry_after: None }.verdict() }
}

#[cfg(test)]
mod tests {
    use tower_jitter_retry::Jitter;

    use super::*;
    use crate::time::MILLISECOND;

    fn run(clients: u32, max_attempts: u32) -> Outcome {
        let policy = RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None).budget(None);
        let policy = policy.max_attempts(max_attempts).build().unwrap();
        Contention { seed: 1, clients, delay: 10 * MILLISECOND, deviation: 0 }.run(&policy)
    }

    /// Without a deviation, all clients read and write in rounds of four messages. The first write
    /// of each round is accepted.
    #[test]
    fn one_client_succeeds_in_each_round() {
        for clients in [1, 2, 10] {
            let writes = u64::from(clients * (clients + 1) / 2);
            let ended = u64::from(clients) * 40 * MILLISECOND;
            assert_eq!(run(clients, 10), Outcome { writes, ended, gave_up: 0 });
        }
    }

    #[test]
    fn clients_give_up_after_their_attempts() {
        let outcome = Outcome { writes: 10 + 9 + 8, ended: 120 * MILLISECOND, gave_up: 7 };
        assert_eq!(run(10, 3), outcome);
    }
}
