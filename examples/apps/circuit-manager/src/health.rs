//! The health of agents, from probes.
//!
//! [`HealthMonitor`] derives the health of each agent from its last probes. Its transitions open
//! the circuits of critical agents, and let them recover, if [`setup_health_integration`] connects
//! both.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::serde::rfc3339;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tower_breaker::HealthReport;
use utoipa::ToSchema;

use crate::manager::Manager;
use crate::settings::SettingsError;

/// The health of an agent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The probes succeed in time.
    #[default]
    Healthy,
    /// Some probes fail, or they are slow.
    Degraded,
    /// The agent does not work.
    Critical,
}

impl Health {
    /// Returns the name: `healthy`, `degraded` or `critical`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The limits of the health of an agent. A missing setting has its default.
///
/// A limit is reached if the value is as large as the limit, or larger. The error rate and the
/// latency are compared when the last probes are at least [`min_probes`](Self::min_probes).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthSettings {
    /// The seconds between two probes, 0.001 to 86,400. **Default**: 5.
    pub interval_seconds: f64,
    /// The seconds after which a probe fails, 0.001 to 86,400. **Default**: 2.
    pub timeout_seconds: f64,
    /// How many of the last probes count, 1 to 1,000. **Default**: 5.
    pub window_probes: u32,
    /// How many probes are needed before an agent can become degraded or critical, 1 to
    /// `window_probes`. **Default**: 2.
    pub min_probes: u32,
    /// The share of failed probes of a degraded agent, 0 to 1. **Default**: 0.2.
    pub degraded_error_rate: f64,
    /// The share of failed probes of a critical agent, 0 to 1. **Default**: 0.6.
    pub critical_error_rate: f64,
    /// The mean seconds of the successful probes of a degraded agent. **Default**: 1.
    pub degraded_latency_seconds: f64,
    /// The mean seconds of the successful probes of a critical agent. **Default**: 10, which
    /// the default timeout excludes.
    pub critical_latency_seconds: f64,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            interval_seconds: 5.0,
            timeout_seconds: 2.0,
            window_probes: 5,
            min_probes: 2,
            degraded_error_rate: 0.2,
            critical_error_rate: 0.6,
            degraded_latency_seconds: 1.0,
            critical_latency_seconds: 10.0,
        }
    }
}

impl HealthSettings {
    fn check(&self) -> Result<(), SettingsError> {
        let error =
            |field, value: &dyn fmt::Display, allowed: &str| Err(SettingsError::new(field, value, allowed));
        for (field, value) in [
            ("interval_seconds", self.interval_seconds),
            ("timeout_seconds", self.timeout_seconds),
            ("degraded_latency_seconds", self.degraded_latency_seconds),
            ("critical_latency_seconds", self.critical_latency_seconds),
        ] {
            if !(0.001..=86_400.0).contains(&value) {
                return error(field, &value, "0.001 to 86400");
            }
        }
        for (field, value) in [
            ("degraded_error_rate", self.degraded_error_rate),
            ("critical_error_rate", self.critical_error_rate),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return error(field, &value, "0 to 1");
            }
        }
        if !(1..=1_000).contains(&self.window_probes) {
            return error("window_probes", &self.window_probes, "1 to 1000");
        }
        if !(1..=self.window_probes).contains(&self.min_probes) {
            let allowed = format!("1 to {}, which is `window_probes`", self.window_probes);
            return error("min_probes", &self.min_probes, &allowed);
        }
        Ok(())
    }

    /// Returns the health of an agent with these probes.
    fn health(&self, probes: &VecDeque<Probe>) -> Health {
        if probes.len() < self.min_probes as usize {
            return Health::Healthy;
        }
        let (error_rate, latency) = (error_rate(probes), mean_latency(probes));
        let reaches = |rate: f64, seconds: f64| {
            (error_rate > 0.0 && error_rate >= rate) || latency.is_some_and(|mean| mean >= seconds)
        };
        if reaches(self.critical_error_rate, self.critical_latency_seconds) {
            Health::Critical
        } else if reaches(self.degraded_error_rate, self.degraded_latency_seconds) {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }
}

/// A change of the health of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthTransition {
    /// The agent.
    pub agent_id: String,
    /// The health before.
    pub from: Health,
    /// The health after.
    pub to: Health,
}

impl HealthTransition {
    /// Returns the name of the transition.
    ///
    /// It is `critical_from_healthy`, `critical_from_degraded`, `degraded_from_healthy`,
    /// `recovered_from_critical`, or `recovered_from_degraded`. An agent recovers from critical
    /// also if it is degraded afterwards.
    pub const fn name(&self) -> &'static str {
        match (self.from, self.to) {
            (Health::Healthy, Health::Critical) => "critical_from_healthy",
            (_, Health::Critical) => "critical_from_degraded",
            (Health::Critical, _) => "recovered_from_critical",
            (_, Health::Degraded) => "degraded_from_healthy",
            (_, Health::Healthy) => "recovered_from_degraded",
        }
    }
}

/// The health of an agent at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct HealthSnapshot {
    /// The agent.
    pub agent_id: String,
    /// The health.
    pub health: Health,
    /// How many probes count now.
    pub probes: u32,
    /// The share of them that failed, 0 to 1.
    pub error_rate: f64,
    /// The mean seconds of those that succeeded. `None`: all failed.
    pub latency_seconds: Option<f64>,
    /// When the last probe ended.
    #[serde(with = "rfc3339::option")]
    pub probed_at: Option<OffsetDateTime>,
    /// When the health changed the last time. `None`: it has not changed.
    #[serde(with = "rfc3339::option")]
    pub changed_at: Option<OffsetDateTime>,
}

type Callback = Arc<dyn Fn(&HealthTransition) + Send + Sync>;

/// Derives the health of agents from their probes.
///
/// A clone is another handle to the same monitor.
#[derive(Clone)]
pub struct HealthMonitor {
    inner: Arc<Inner>,
}

struct Inner {
    settings: HealthSettings,
    agents: Mutex<BTreeMap<String, AgentHealth>>,
    callbacks: RwLock<Vec<Callback>>,
}

#[derive(Default)]
struct AgentHealth {
    health: Health,
    probes: VecDeque<Probe>,
    probed_at: Option<OffsetDateTime>,
    changed_at: Option<OffsetDateTime>,
}

/// The latency of a probe; `None` if it failed.
type Probe = Option<Duration>;

impl HealthMonitor {
    /// Creates a monitor without probes: each agent is healthy.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range.
    pub fn new(settings: HealthSettings) -> Result<Self, SettingsError> {
        settings.check()?;
        let inner = Inner { settings, agents: Mutex::default(), callbacks: RwLock::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Adds a callback, which is called after each change of the health of an agent.
    ///
    /// A panic of the callback is logged, and has no other effect.
    pub fn on_transition(&self, callback: impl Fn(&HealthTransition) + Send + Sync + 'static) {
        self.inner.callbacks.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(callback));
    }

    /// Records a probe of an agent: its latency, or `None` if it failed.
    ///
    /// Returns the change of the agent's health, after its callbacks have returned.
    pub fn record(&self, agent_id: &str, latency: Option<Duration>) -> Option<HealthTransition> {
        let transition = {
            let mut agents = self.agents();
            let agent = agents.entry(agent_id.to_owned()).or_default();
            agent.add(latency, &self.inner.settings).map(|(from, to)| HealthTransition {
                agent_id: agent_id.to_owned(),
                from,
                to,
            })
        }?;
        tracing::info!(agent = agent_id, health = %transition.to, "{}", transition.name());
        let callbacks = self.inner.callbacks.read().unwrap_or_else(PoisonError::into_inner).clone();
        for callback in callbacks {
            if catch_unwind(AssertUnwindSafe(|| callback(&transition))).is_err() {
                tracing::error!(agent = agent_id, "a callback of health transitions panicked");
            }
        }
        Some(transition)
    }

    /// Returns the health of an agent. An agent without probes is healthy.
    pub fn health(&self, agent_id: &str) -> Health {
        self.agents().get(agent_id).map(|agent| agent.health).unwrap_or_default()
    }

    /// Returns the health of each agent that was probed.
    pub fn snapshots(&self) -> BTreeMap<String, HealthSnapshot> {
        let agents = self.agents();
        agents.iter().map(|(id, agent)| (id.clone(), agent.snapshot(id))).collect()
    }

    /// Probes the agents at the interval of the settings, until `shutdown` is cancelled.
    ///
    /// All agents are probed at the same time. A probe that takes longer than the timeout fails.
    pub async fn run<P, Fut, E>(&self, agents: Vec<String>, probe: P, shutdown: CancellationToken)
    where
        P: Fn(&str) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let mut ticks = interval(Duration::from_secs_f64(self.inner.settings.interval_seconds));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let rounds = async {
            loop {
                ticks.tick().await;
                join_all(agents.iter().map(|id| self.probe(id, probe(id)))).await;
            }
        };
        shutdown.run_until_cancelled(rounds).await;
    }

    async fn probe<E: fmt::Display>(&self, id: &str, probe: impl Future<Output = Result<(), E>>) {
        let limit = Duration::from_secs_f64(self.inner.settings.timeout_seconds);
        let start = Instant::now();
        let latency = match timeout(limit, probe).await {
            Ok(Ok(())) => Some(start.elapsed()),
            Ok(Err(error)) => {
                tracing::debug!(agent = id, "the probe failed: {error}");
                None
            }
            Err(_) => {
                tracing::debug!(agent = id, "the probe failed: no answer in {limit:?}");
                None
            }
        };
        self.record(id, latency);
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<String, AgentHealth>> {
        self.inner.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AgentHealth {
    /// Adds a probe, and returns the health before and after if it changes.
    fn add(&mut self, probe: Probe, settings: &HealthSettings) -> Option<(Health, Health)> {
        let now = OffsetDateTime::now_utc();
        self.probed_at = Some(now);
        self.probes.push_back(probe);
        if self.probes.len() > settings.window_probes as usize {
            self.probes.pop_front();
        }
        let (from, to) = (self.health, settings.health(&self.probes));
        if from == to {
            return None;
        }
        (self.health, self.changed_at) = (to, Some(now));
        Some((from, to))
    }

    fn snapshot(&self, id: &str) -> HealthSnapshot {
        HealthSnapshot {
            agent_id: id.to_owned(),
            health: self.health,
            probes: self.probes.len() as u32,
            error_rate: error_rate(&self.probes),
            latency_seconds: mean_latency(&self.probes),
            probed_at: self.probed_at,
            changed_at: self.changed_at,
        }
    }
}

impl fmt::Debug for HealthMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthMonitor").field("snapshots", &self.snapshots()).finish_non_exhaustive()
    }
}

/// Opens the circuit of each agent that becomes critical, and half-opens it when the agent recovers
/// from critical: the next call is a probe, which decides.
///
/// A circuit with a manual override ignores the health of its agent.
pub fn setup_health_integration(manager: &Manager, monitor: &HealthMonitor) {
    let manager = manager.clone();
    monitor.on_transition(move |transition| {
        let report = match (transition.from, transition.to) {
            (_, Health::Critical) => HealthReport::Critical,
            (Health::Critical, _) => HealthReport::Recovered,
            _ => return,
        };
        if let Err(error) = manager.report(&transition.agent_id, report) {
            tracing::error!("the health of an agent cannot be reported: {}", chain(&error));
        }
    });
}

/// Returns the text of an error and of its sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn error_rate(probes: &VecDeque<Probe>) -> f64 {
    let failed = probes.iter().filter(|probe| probe.is_none()).count();
    if probes.is_empty() { 0.0 } else { failed as f64 / probes.len() as f64 }
}

fn mean_latency(probes: &VecDeque<Probe>) -> Option<f64> {
    let latencies: Vec<_> = probes.iter().flatten().map(Duration::as_secs_f64).collect();
    (!latencies.is_empty()).then(|| latencies.iter().sum::<f64>() / latencies.len() as f64)
}
