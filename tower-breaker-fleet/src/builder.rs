//! The settings of a fleet.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tower_breaker::ConfigError;

use crate::agent::{Agent, Settings, Shared};
use crate::fleet::{Fleet, FleetAgent};
use crate::quorum::Quorum;
use crate::store::Backend;

const HEARTBEATS: RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(600);
const TAKEOVERS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const MAX_OPENS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 3600);

/// Builds a [`Fleet`] and its [`FleetAgent`].
///
/// | setting | default | range | meaning |
/// |---|---|---|---|
/// | [`namespace`](Self::namespace) | `"default"` | 1 to 100 bytes | the processes and circuits that belong together |
/// | [`instance`](Self::instance) | `HOSTNAME-PID` | 1 to 200 bytes | the name of this process |
/// | [`quorum`](Self::quorum) | [`Quorum::majority()`] | | how many processes open a circuit |
/// | [`heartbeat`](Self::heartbeat) | 5 s | 250 ms to 10 min | time between two messages of a healthy process |
/// | [`takeover`](Self::takeover) | 2 s | 1 ms to 10 min | how long a circuit waits for a silent store |
/// | [`timeout`](Self::timeout) | 250 ms | 1 ms to 1 min | the longest wait for a reply of the store |
/// | [`max_open`](Self::max_open) | 10 min | 1 ms to 365 days | the longest open time that the store can command |
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct FleetBuilder {
    store: Arc<dyn Backend>,
    namespace: String,
    instance: Option<String>,
    quorum: Quorum,
    heartbeat: Duration,
    takeover: Duration,
    timeout: Duration,
    max_open: Duration,
}

impl FleetBuilder {
    pub(crate) fn new(store: Arc<dyn Backend>) -> Self {
        Self {
            store,
            namespace: "default".to_owned(),
            instance: None,
            quorum: Quorum::default(),
            heartbeat: Duration::from_secs(5),
            takeover: Duration::from_secs(2),
            timeout: Duration::from_millis(250),
            max_open: Duration::from_secs(600),
        }
    }

    /// Sets the namespace. Default: `"default"`.
    ///
    /// Only circuits of the same namespace are shared. Processes that depend on different servers
    /// behind the same circuit name, such as those of two zones, need a namespace each. Allowed: 1
    /// to 100 bytes without control characters, spaces and braces.
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), ..self }
    }

    /// Sets the name of this process. Default: the environment variable `HOSTNAME`, or else a
    /// random name, and the number of the process.
    ///
    /// Two processes of a fleet with the same name count as one.
    ///
    /// A name that stays the same over restarts lets the store keep the open time of a circuit that
    /// this process alone has opened. The default name stays only where the number of the process
    /// does, as in a container.
    ///
    /// Allowed: 1 to 200 bytes without control characters.
    pub fn instance(self, instance: impl Into<String>) -> Self {
        Self { instance: Some(instance.into()), ..self }
    }

    /// Sets how many processes must vote to open a circuit. Default: [`Quorum::majority()`].
    pub fn quorum(self, quorum: Quorum) -> Self {
        Self { quorum, ..self }
    }

    /// Sets the time between two messages of a healthy process, ± 20 %. Default: 5 s.
    ///
    /// A process sends at most 10 messages per second. At the shortest heartbeat, 250 ms, the
    /// heartbeats of up to 64 circuits take half of them. The other half is for votes and probes.
    ///
    /// A process counts as a member for 2.5 heartbeats. After the first member has appeared, or
    /// most members have expired, the store waits this long before it decides by votes.
    pub fn heartbeat(self, heartbeat: Duration) -> Self {
        Self { heartbeat, ..self }
    }

    /// Sets how long a circuit waits for a silent store. Default: 2 s.
    ///
    /// After the fleet's open time and this time, a circuit half-opens by itself. Each process
    /// draws between once and twice this time, so that not all probe together. While the store
    /// answers, the circuit also waits for the reply to the next heartbeat.
    pub fn takeover(self, takeover: Duration) -> Self {
        Self { takeover, ..self }
    }

    /// Sets the longest wait for a reply of the store. Default: 250 ms.
    ///
    /// After this time the agent connects again. Connecting may take four times as long.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets the longest open time that the store can command. Default: 10 min.
    ///
    /// It bounds the effect of wrong data in the store. Manual overrides are exempt, and circuits
    /// that are configured as
    /// [open until they are reset](tower_breaker::BreakerConfigBuilder::open_until_reset).
    pub fn max_open(self, max_open: Duration) -> Self {
        Self { max_open, ..self }
    }

    /// Builds the handle and the agent. Spawn the agent: `tokio::spawn(agent)`.
    ///
    /// # Errors
    ///
    /// A setting is out of its range.
    pub fn build(self) -> Result<(Fleet, FleetAgent), ConfigError> {
        check_namespace(&self.namespace)?;
        let instance = self.instance.unwrap_or_else(default_instance);
        check_text("instance", &instance, 200, |_| true)?;
        self.quorum.validate()?;
        ConfigError::check("heartbeat", self.heartbeat, HEARTBEATS)?;
        ConfigError::check("takeover", self.takeover, TAKEOVERS)?;
        ConfigError::check("timeout", self.timeout, TIMEOUTS)?;
        ConfigError::check("max_open", self.max_open, MAX_OPENS)?;
        let settings = Settings {
            namespace: self.namespace,
            instance,
            quorum: self.quorum,
            heartbeat: self.heartbeat,
            takeover: self.takeover,
            timeout: self.timeout,
            max_open: self.max_open,
        };
        let (sender, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(settings, sender));
        let agent = Agent::new(Arc::clone(&shared), self.store, inbox);
        Ok((Fleet::new(shared), FleetAgent::new(agent)))
    }
}

fn check_namespace(namespace: &str) -> Result<(), ConfigError> {
    // Redis Cluster hashes the text in braces, and PostgreSQL separates fields.
    check_text("namespace", namespace, 100, |c| !c.is_whitespace() && !matches!(c, '{' | '}'))
}

fn check_text(
    field: &'static str,
    text: &str,
    longest: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<(), ConfigError> {
    let is_allowed = text.chars().all(|c| !c.is_control() && allowed(c));
    if is_allowed && (1..=longest).contains(&text.len()) {
        return Ok(());
    }
    let excluded =
        if field == "namespace" { "control characters, spaces and braces" } else { "control characters" };
    Err(ConfigError::new(field, text, format!("1 to {longest} bytes without {excluded}")))
}

fn default_instance() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty() && host.len() <= 180);
    let host = host.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    // Several processes of one host must not count as one member.
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    fn builder() -> FleetBuilder {
        Fleet::builder(MemoryStore::new()).instance("a")
    }

    #[test]
    fn setting_out_of_range_is_an_error() {
        let error = |builder: FleetBuilder| builder.build().unwrap_err().to_string();
        let expected = "`heartbeat` is 1ms; allowed is 250ms to 600s";
        assert_eq!(error(builder().heartbeat(Duration::from_millis(1))), expected);
        assert!(error(builder().takeover(Duration::ZERO)).starts_with("`takeover` is 0ns"));
        assert!(error(builder().timeout(Duration::ZERO)).starts_with("`timeout` is 0ns"));
        assert!(error(builder().max_open(Duration::ZERO)).starts_with("`max_open` is 0ns"));
        assert!(error(builder().quorum(Quorum::at_least(0))).starts_with("`quorum.at_least` is 0"));
    }

    #[test]
    fn namespace_and_instance_are_checked() {
        let expected = "`namespace` is \"a b\"; allowed is 1 to 100 bytes without control characters, spaces \
                        and braces";
        assert_eq!(builder().namespace("a b").build().unwrap_err().to_string(), expected);
        let long = "x".repeat(101);
        for namespace in ["", "a{b", "a}", "a\tb", &long] {
            assert!(builder().namespace(namespace).build().is_err(), "{namespace}");
        }
        for instance in ["", "a\nb"] {
            assert!(builder().instance(instance).build().is_err(), "{instance}");
        }
        assert!(builder().namespace("shop:eu-1").build().is_ok());
    }
}
