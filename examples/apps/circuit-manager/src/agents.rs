//! The agents that the server calls: real ones over HTTP, and simulated ones.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures::future::join_all;
use http::{Request, Response, StatusCode};
use reqwest::{Client, Url};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerLayer, Circuit};
use tower_fault_classify::{ErrorChain, FaultClassifyLayer};

use crate::config;
use crate::health::HealthMonitor;
use crate::manager::{Manager, ManagerError};

/// The time from one call of a simulated agent to the next.
const SIMULATED_INTERVAL: Duration = Duration::from_millis(500);

/// How long a simulated agent takes to answer.
const SIMULATED_LATENCY: Duration = Duration::from_millis(20);

/// The outages of simulated agents repeat after this time.
const CYCLE: Duration = Duration::from_secs(90);

/// How long an outage lasts.
const OUTAGE: Duration = Duration::from_secs(20);

/// The time from the outage of one simulated agent to that of the next.
const SHIFT: Duration = Duration::from_secs(17);

/// The agents that are called through their circuits, and probed without them.
#[derive(Debug)]
pub struct Agents {
    by_name: BTreeMap<String, Agent>,
    manager: Manager,
    monitor: HealthMonitor,
    stopping: CancellationToken,
}

/// An agent, and how it is called.
#[derive(Clone, Debug)]
enum Agent {
    Http { client: Client, url: Url, health_url: Url, interval: Duration, timeout: Duration },
    Simulated(Simulated),
}

/// A simulated agent with outages.
#[derive(Clone, Copy, Debug)]
struct Simulated {
    started: Instant,
    /// The time from the start of the program to the first outage.
    first_outage: Duration,
}

/// A call of an agent through its circuit.
type Call = BoxCloneSyncService<(), (), BoxError>;

impl Agents {
    /// Creates no agents. Their calls and probes end when `stopping` is cancelled.
    pub fn new(manager: Manager, monitor: HealthMonitor, stopping: CancellationToken) -> Self {
        Self { by_name: BTreeMap::new(), manager, monitor, stopping }
    }

    /// Adds the agents of a configuration that have a URL.
    pub fn add_configured(&mut self, agents: &BTreeMap<String, config::Agent>, client: &Client) {
        for (name, agent) in agents {
            let Some(url) = agent.url.clone() else { continue };
            let agent = Agent::Http {
                client: client.clone(),
                health_url: agent.health_url.clone().unwrap_or_else(|| url.clone()),
                url,
                interval: agent.interval,
                timeout: agent.timeout,
            };
            self.by_name.insert(name.clone(), agent);
        }
    }

    /// Adds simulated agents, with the names `simulated-1` and so on.
    pub fn add_simulated(&mut self, count: u16) {
        let started = Instant::now();
        for number in 1..=count {
            let simulated = Simulated { started, first_outage: first_outage(number) };
            self.by_name.insert(config::simulated_name(number), Agent::Simulated(simulated));
        }
    }

    /// Calls and probes all agents until the server stops.
    ///
    /// # Errors
    ///
    /// Returns an error if the name of an agent is not valid.
    pub fn run(self) -> Result<impl Future<Output = ()> + Send + 'static, ManagerError> {
        let Self { by_name: agents, manager, monitor, stopping } = self;
        let mut calls = Vec::new();
        for (name, agent) in &agents {
            let call = agent.call(manager.get_or_create(name)?);
            calls.push(call_forever(name.clone(), call, agent.interval()));
        }
        Ok(async move {
            let names = agents.keys().cloned().collect();
            let probe = move |name: &str| {
                let agent = agents.get(name).cloned();
                async move {
                    match agent {
                        Some(agent) => agent.probe().await,
                        None => Ok(()),
                    }
                }
            };
            let calls = stopping.clone().run_until_cancelled_owned(join_all(calls));
            let probes = monitor.run(names, probe, stopping);
            tokio::join!(calls, probes);
        })
    }
}

impl Agent {
    fn interval(&self) -> Duration {
        match self {
            Self::Http { interval, .. } => *interval,
            Self::Simulated(_) => SIMULATED_INTERVAL,
        }
    }

    /// Returns the call of the agent, behind its circuit.
    fn call(&self, circuit: Circuit) -> Call {
        let breaker = BreakerLayer::with_circuit(circuit).keep_last_failure("GET");
        match self.clone() {
            Self::Http { client, url, timeout, .. } => {
                let request = {
                    let client = client.clone();
                    move |()| client.get(url.clone()).timeout(timeout).build()
                };
                let service =
                    ServiceBuilder::new().layer(breaker).layer(FaultClassifyLayer::new()).service(client);
                BoxCloneSyncService::new(service_fn(move |()| {
                    let (request, service) = (request(()), service.clone());
                    async move {
                        let response = service.oneshot(request?).await?;
                        check(response.status())
                    }
                }))
            }
            Self::Simulated(agent) => {
                let answer = service_fn(move |_: Request<()>| agent.answer());
                let service = ServiceBuilder::new().layer(breaker).service(answer);
                BoxCloneSyncService::new(service_fn(move |()| {
                    let service = service.clone();
                    async move {
                        let response = service.oneshot(Request::new(())).await?;
                        check(response.status())
                    }
                }))
            }
        }
    }

    /// Calls the agent without its circuit.
    async fn probe(self) -> Result<(), BoxError> {
        match self {
            Self::Http { client, health_url, timeout, .. } => {
                let response = client.get(health_url).timeout(timeout).send().await?;
                check(response.status())
            }
            Self::Simulated(agent) => check(agent.answer().await?.status()),
        }
    }
}

impl Simulated {
    async fn answer(self) -> io::Result<Response<()>> {
        sleep(SIMULATED_LATENCY).await;
        if self.is_down(self.started.elapsed()) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Response::new(()))
    }

    fn is_down(self, time: Duration) -> bool {
        let Some(since) = time.checked_sub(self.first_outage) else { return false };
        since.as_millis() % CYCLE.as_millis() < OUTAGE.as_millis()
    }
}

fn first_outage(number: u16) -> Duration {
    let shift = SHIFT.as_secs() * u64::from(number - 1);
    Duration::from_secs(10 + shift % CYCLE.as_secs())
}

fn check(status: StatusCode) -> Result<(), BoxError> {
    if status.is_client_error() || status.is_server_error() {
        return Err(format!("the agent answered {status}").into());
    }
    Ok(())
}

async fn call_forever(name: String, call: Call, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = call.clone().oneshot(()).await {
            tracing::debug!(agent = name, "the call failed: {}", ErrorChain(error.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn outages_of_simulated_agents_repeat() {
        let agent = Simulated { started: Instant::now(), first_outage: first_outage(1) };
        let second = Duration::from_secs(1);
        for cycle in [Duration::ZERO, CYCLE] {
            for (time, is_down) in [(9, false), (10, true), (29, true), (30, false), (89, false)] {
                assert_eq!(agent.is_down(cycle + second * time), is_down, "{cycle:?} {time}");
            }
        }
        assert!(agent.answer().await.is_ok());
        tokio::time::advance(second * 10).await;
        assert!(agent.answer().await.is_err());
    }

    #[test]
    fn first_outages_of_agents_differ() {
        let first: Vec<_> = (1..=5).map(|number| first_outage(number).as_secs()).collect();
        assert_eq!(first, [10, 27, 44, 61, 78]);
    }
}
