//! The pace of messages and of attempts to connect.

use std::time::Duration;

use super::Time;

/// The messages that an agent sends in a second, and the messages that it may send at once.
const MESSAGES: f64 = 10.0;

/// Limits the messages of a process, so that flapping circuits do not load the store.
pub(crate) struct TokenBucket {
    tokens: f64,
    at: Time,
}

impl TokenBucket {
    pub(crate) const fn new() -> Self {
        Self { tokens: MESSAGES, at: Time::ZERO }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Time) -> bool {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * MESSAGES).min(MESSAGES);
        self.at = now;
        let has_token = self.tokens >= 1.0;
        if has_token {
            self.tokens -= 1.0;
        }
        has_token
    }

    /// Returns when the next token is there.
    pub(crate) fn next(&self) -> Time {
        let missing = (1.0 - self.tokens).max(0.0) / MESSAGES;
        // Rounded up, so that the token is there at this time.
        self.at + Duration::from_secs_f64(missing) + Duration::from_micros(1)
    }
}

/// The delays between attempts to connect: full jitter, up to a maximum that doubles.
pub(crate) struct Backoff {
    max: Duration,
}

impl Backoff {
    const LONGEST: Duration = Duration::from_secs(5);

    /// The delays at the start of a process.
    pub(crate) const fn start() -> Self {
        Self { max: Duration::from_millis(100) }
    }

    /// The delays after the loss of a connection.
    ///
    /// All processes of a fleet lose the store at the same time. So the first maximum is longer:
    /// it spreads their first attempts.
    pub(crate) const fn lost() -> Self {
        Self { max: Duration::from_millis(1600) }
    }

    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let delay = self.max.mul_f64(random);
        self.max = (self.max * 2).min(Self::LONGEST);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_bucket_allows_a_burst_and_then_ten_messages_a_second() {
        let mut bucket = TokenBucket::new();
        let start = Duration::from_secs(100);
        assert_eq!((0..20).filter(|_| bucket.take(start)).count(), 10);
        let mut sent = 0;
        let mut now = start;
        while now < start + Duration::from_secs(10) {
            now = bucket.next();
            assert!(bucket.take(now), "{now:?}");
            sent += 1;
        }
        assert!((99..=101).contains(&sent), "{sent}");
    }

    #[test]
    fn backoff_grows_to_five_seconds() {
        let mut backoff = Backoff::start();
        let delays: Vec<_> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(Backoff::start().next(0.5).as_millis(), 50);
    }

    #[test]
    fn backoff_after_a_loss_spreads_the_first_attempts_over_a_second() {
        let mut random = fastrand::Rng::with_seed(1);
        let delays: Vec<_> = (0..400).map(|_| Backoff::lost().next(random.f64())).collect();
        let (first, last) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!(*last >= *first + Duration::from_secs(1), "{first:?} to {last:?}");
    }
}
