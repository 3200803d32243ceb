//! The server: queue, shards, outage, failures.
//!
//! The server is a state machine without time of its own. Each method receives the time, and
//! returns the events that the loop of the run has to add.

use std::collections::VecDeque;
use std::ops::Range;

use crate::random::Random;
use crate::reply::Reply;
use crate::time::{MILLISECOND, SECOND};

/// The number of an attempt.
pub type AttemptId = u64;

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Requests per second that one shard can serve.
    pub rate: u32,
    /// How the time that one request takes is distributed.
    pub service: Service,
    /// How many requests a shard keeps in its queue. `None`: any number. A request that finds the
    /// queue full is answered with 503.
    pub queue: Option<usize>,
    /// Whether a request leaves the queue when its client stops waiting. A request that the server
    /// works on is finished in both cases.
    pub cancels: bool,
    /// The time between the end of the server's work and the arrival of the answer, in nanoseconds.
    pub network: u64,
    /// How many of 1,000 requests are answered with 503 at random.
    pub failing_per_mille: u32,
    /// The mean number of requests in a burst of failures, if requests fail in bursts. `None`: each
    /// request fails independently of the others.
    ///
    /// The share of failures is `failing_per_mille` in both cases. Bursts of `n` requests can have
    /// a share of at most `n` / (`n` + 1).
    pub failing_burst: Option<u32>,
    /// The seconds of `Retry-After` with each 503, if any.
    pub retry_after: Option<u32>,
    /// The outage, if any.
    pub outage: Option<Outage>,
    /// The number of shards. Each has a queue and a rate of its own.
    pub shards: u32,
    /// How many of the shards are dead during the whole run, and what a request to them gets.
    pub dead: Option<(u32, Down)>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            rate: 100,
            service: Service::Constant,
            queue: None,
            cancels: false,
            network: MILLISECOND,
            failing_per_mille: 0,
            failing_burst: None,
            retry_after: None,
            outage: None,
            shards: 1,
            dead: None,
        }
    }
}

/// How the time that one request takes is distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Each request takes the same time.
    Constant,
    /// Exponentially distributed.
    Exponential,
}

/// A time in which the server does not work as usual.
#[derive(Clone, Debug)]
pub struct Outage {
    /// When the outage begins and ends, in nanoseconds.
    pub during: Range<u64>,
    /// What a request gets in that time.
    pub down: Down,
    /// How long the server is slower after the outage, in nanoseconds. It begins with
    /// `slow_start_factor` times the usual time for each request, and gets evenly faster.
    pub slow_start: u64,
    /// The factor at the beginning of the slow start.
    pub slow_start_factor: u32,
}

impl Outage {
    /// Creates an outage without a slow start.
    pub const fn new(during: Range<u64>, down: Down) -> Self {
        Self { during, down, slow_start: 0, slow_start_factor: 1 }
    }
}

/// What a request to a server gets that does not work as usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Status 503, immediately. Requests in the queue stay there until the outage is over.
    Unavailable,
    /// The connection is refused. Requests in the queue are lost: their connections are reset.
    Refused,
    /// No answer. The server accepts requests into its queue and does not work on them.
    Hangs,
    /// An answer after this many times the usual time.
    Slow(u32),
}

/// A server with its shards.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    shards: Vec<Shard>,
    /// Whether the last request failed in a burst.
    in_burst: bool,
    random: Random,
}

#[derive(Debug, Default)]
struct Shard {
    waiting: VecDeque<AttemptId>,
    running: Option<AttemptId>,
}

impl Server {
    /// Creates a server with empty queues.
    pub fn new(config: ServerConfig, random: Random) -> Self {
        let shards = (0..config.shards).map(|_| Shard::default()).collect();
        Self { config, shards, in_burst: false, random }
    }

    /// Returns the settings.
    pub const fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Receives a request. Returns the answer if the server answers immediately. Otherwise the
    /// request is in the queue.
    pub fn receive(&mut self, now: u64, shard: u32, attempt: AttemptId) -> Option<Reply> {
        match self.down(now, shard) {
            Some(Down::Unavailable) => return Some(self.unavailable()),
            Some(Down::Refused) => return Some(Reply::Refused),
            Some(Down::Hangs | Down::Slow(_)) | None => {}
        }
        let queue = &mut self.shards[shard as usize].waiting;
        if self.config.queue.is_some_and(|limit| queue.len() >= limit) {
            return Some(self.unavailable());
        }
        queue.push_back(attempt);
        None
    }

    /// Starts the work on the next request if the shard is idle. Returns the request and when its
    /// work ends.
    ///
    /// `waits` returns whether the client still waits for an attempt.
    pub fn start(
        &mut self,
        now: u64,
        shard: u32,
        waits: impl Fn(AttemptId) -> bool,
    ) -> Option<(AttemptId, u64)> {
        if !matches!(self.down(now, shard), None | Some(Down::Slow(_))) {
            return None;
        }
        let Shard { waiting, running } = &mut self.shards[shard as usize];
        if running.is_some() {
            return None;
        }
        let cancels = self.config.cancels;
        let next = std::iter::from_fn(|| waiting.pop_front()).find(|&attempt| !cancels || waits(attempt))?;
        *running = Some(next);
        Some((next, now.saturating_add(self.work(now, shard))))
    }

    /// Ends the work on a request and returns the answer. `None`: an outage has lost the request.
    pub fn finish(&mut self, shard: u32, attempt: AttemptId) -> Option<Reply> {
        let running = &mut self.shards[shard as usize].running;
        if *running != Some(attempt) {
            return None;
        }
        *running = None;
        Some(if self.fails() { self.unavailable() } else { Reply::Ok })
    }

    /// Returns whether the next request fails.
    fn fails(&mut self) -> bool {
        let per_mille = self.config.failing_per_mille;
        let Some(mean) = self.config.failing_burst else { return self.random.happens(per_mille) };
        // A Markov chain with two states. With a share `p` of failures, a burst ends with the
        // probability 1 / mean, and begins with the probability p / ((1 − p) · mean).
        let (mean, failing) = (u64::from(mean), u64::from(per_mille));
        self.in_burst = if self.in_burst {
            self.random.below(mean) > 0
        } else {
            self.random.below((1_000 - failing) * mean) < failing
        };
        self.in_burst
    }

    /// Begins the outage. Returns the requests whose connections are reset.
    pub fn begin_outage(&mut self) -> Vec<AttemptId> {
        let refused = self.config.outage.as_ref().is_some_and(|outage| outage.down == Down::Refused);
        if !refused {
            return Vec::new();
        }
        let lost = |shard: &mut Shard| {
            shard.running.take().into_iter().chain(shard.waiting.drain(..)).collect::<Vec<_>>()
        };
        self.shards.iter_mut().flat_map(lost).collect()
    }

    /// Returns how the shard is down, if it is.
    fn down(&self, now: u64, shard: u32) -> Option<Down> {
        let dead = self.config.dead.filter(|&(dead, _)| shard < dead).map(|(_, down)| down);
        let outage = self.config.outage.as_ref().filter(|outage| outage.during.contains(&now));
        dead.or_else(|| outage.map(|outage| outage.down))
    }

    /// Returns how long the work on a request takes that begins now.
    fn work(&mut self, now: u64, shard: u32) -> u64 {
        let mean = SECOND / u64::from(self.config.rate.max(1));
        let usual = match self.config.service {
            Service::Constant => mean,
            Service::Exponential => self.random.exponential(mean),
        };
        match self.down(now, shard) {
            Some(Down::Slow(factor)) => usual.saturating_mul(factor.into()),
            _ => self.config.outage.as_ref().map_or(usual, |outage| slow_start(outage, now, usual)),
        }
    }

    const fn unavailable(&self) -> Reply {
        Reply::Unavailable { retry_after: self.config.retry_after }
    }
}

/// Returns how long a request takes whose usual time is `usual`, in the slow start after an outage.
fn slow_start(outage: &Outage, now: u64, usual: u64) -> u64 {
    let left = match now.checked_sub(outage.during.end) {
        Some(since) => outage.slow_start.saturating_sub(since),
        None => 0,
    };
    if left == 0 {
        return usual;
    }
    let more = u128::from(usual) * u128::from(outage.slow_start_factor.saturating_sub(1));
    usual + (more * u128::from(left) / u128::from(outage.slow_start)) as u64
}

#[cfg(test)]
mod tests;
