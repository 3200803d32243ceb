//! The health of agents.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use circuit_manager::health::{
    Health, HealthMonitor, HealthSettings, HealthTransition, setup_health_integration,
};
use tokio_util::sync::CancellationToken;
use tower_breaker::CircuitState::{Closed, ForcedOpen, HalfOpen, Open};

use crate::support::{AGENT, changes, manager};

const FAST: Option<Duration> = Some(Duration::from_millis(10));
const FAILED: Option<Duration> = None;

fn monitor() -> HealthMonitor {
    HealthMonitor::new(HealthSettings::default()).unwrap()
}

/// Records probes, and returns the names of the transitions.
fn record(monitor: &HealthMonitor, probes: &[Option<Duration>]) -> Vec<&'static str> {
    let transitions = probes.iter().filter_map(|probe| monitor.record(AGENT, *probe));
    transitions.map(|transition| transition.name()).collect()
}

#[test]
fn critical_health_opens_and_recovery_probes() {
    let (manager, time) = manager();
    let monitor = monitor();
    setup_health_integration(&manager, &monitor);
    let changes = changes(&manager);

    assert_eq!(record(&monitor, &[FAILED, FAILED]), ["critical_from_healthy"]);
    assert_eq!(manager.get_state(AGENT), Some(Open));
    assert!(!manager.can_execute(AGENT).unwrap());

    // The agent recovers long before the cooldown ends.
    time.advance(Duration::from_secs(1));
    assert_eq!(record(&monitor, &[FAST, FAST]), ["recovered_from_critical"]);
    assert_eq!(manager.get_state(AGENT), Some(HalfOpen));
    for _ in 0..2 {
        assert!(manager.can_execute(AGENT).unwrap());
        manager.record_success(AGENT).unwrap();
    }
    let expected = [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)];
    let expected = expected.map(|(from, to)| (AGENT.to_owned(), from, to));
    assert_eq!(*changes.lock().unwrap(), expected);
}

#[test]
fn critical_from_degraded_opens() {
    let (manager, _time) = manager();
    let monitor = monitor();
    setup_health_integration(&manager, &monitor);
    let names = record(&monitor, &[FAST, FAST, FAILED]);
    assert_eq!(names, ["degraded_from_healthy"]);
    assert_eq!(manager.get_state(AGENT), None, "a degraded agent is called");
    assert_eq!(record(&monitor, &[FAILED, FAILED]), ["critical_from_degraded"]);
    assert_eq!(manager.get_state(AGENT), Some(Open));
}

#[test]
fn degraded_agent_recovers() {
    let monitor = monitor();
    let probes = [FAST, FAST, FAILED, FAST, FAST, FAST, FAST, FAST];
    assert_eq!(record(&monitor, &probes), ["degraded_from_healthy", "recovered_from_degraded"]);
    assert_eq!(monitor.health(AGENT), Health::Healthy);
}

#[test]
fn slow_probes_degrade() {
    let monitor = monitor();
    let slow = Some(Duration::from_millis(1_500));
    assert_eq!(record(&monitor, &[slow, slow]), ["degraded_from_healthy"]);
    let very_slow = Some(Duration::from_secs(60));
    assert_eq!(record(&monitor, &[very_slow]), ["critical_from_degraded"]);
}

#[test]
fn error_rate_of_zero_is_not_reached_without_errors() {
    let settings = HealthSettings { degraded_error_rate: 0.0, ..HealthSettings::default() };
    let monitor = HealthMonitor::new(settings).unwrap();
    let quick = Some(Duration::from_millis(10));
    assert!(record(&monitor, &[quick; 2]).is_empty());
    assert_eq!(record(&monitor, &[None]), ["degraded_from_healthy"]);
}

#[test]
fn first_probe_decides_nothing() {
    let monitor = monitor();
    assert!(record(&monitor, &[FAILED]).is_empty());
    assert_eq!(monitor.health(AGENT), Health::Healthy);
}

#[test]
fn health_does_not_end_a_manual_override() {
    let (manager, _time) = manager();
    let monitor = monitor();
    setup_health_integration(&manager, &monitor);
    manager.get_or_create(AGENT).unwrap().force_open().unwrap();
    record(&monitor, &[FAILED, FAILED, FAST, FAST, FAST, FAST, FAST]);
    assert_eq!(manager.get_state(AGENT), Some(ForcedOpen));
}

#[test]
fn snapshots_show_the_last_probes() {
    let monitor = monitor();
    let transitions = Arc::<Mutex<Vec<HealthTransition>>>::default();
    let seen = Arc::clone(&transitions);
    monitor.on_transition(|_| panic!("a callback of the test"));
    monitor.on_transition(move |transition| seen.lock().unwrap().push(transition.clone()));
    record(&monitor, &[FAST, FAILED, FAST, FAST, FAST]);
    let snapshot = &monitor.snapshots()[AGENT];
    assert_eq!((snapshot.health, snapshot.probes), (Health::Degraded, 5));
    assert!((snapshot.error_rate - 0.2).abs() < 1e-9);
    assert!((snapshot.latency_seconds.unwrap() - 0.01).abs() < 1e-9);
    assert!(snapshot.changed_at.is_some() && snapshot.changed_at <= snapshot.probed_at);
    let expected =
        HealthTransition { agent_id: AGENT.to_owned(), from: Health::Healthy, to: Health::Degraded };
    assert_eq!(*transitions.lock().unwrap(), [expected]);
}

#[tokio::test(start_paused = true)]
async fn worker_probes_all_agents_until_shutdown() {
    let monitor = monitor();
    let shutdown = CancellationToken::new();
    let agents = ["hangs", "fails", "works"].map(str::to_owned).to_vec();
    let probe = |agent: &str| {
        let agent = agent.to_owned();
        async move {
            match agent.as_str() {
                "hangs" => std::future::pending().await,
                "fails" => Err("no route"),
                _ => Ok(()),
            }
        }
    };
    let worker = monitor.run(agents, probe, shutdown.clone());
    let stop = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        shutdown.cancel();
    };
    tokio::join!(worker, stop);
    let snapshots = monitor.snapshots();
    let health = |agent: &str| (snapshots[agent].health, snapshots[agent].probes);
    assert_eq!(health("works"), (Health::Healthy, 3));
    assert_eq!(health("fails"), (Health::Critical, 3));
    // A probe that hangs fails after 2 s, so that the third one has failed at 12 s.
    assert_eq!(health("hangs").0, Health::Critical);
}

#[test]
fn health_setting_out_of_range_is_named() {
    for (json, error) in [
        (r#"{"interval_seconds": 0}"#, "`interval_seconds` is 0; allowed is 0.001 to 86400"),
        (r#"{"critical_error_rate": 2}"#, "`critical_error_rate` is 2; allowed is 0 to 1"),
        (r#"{"window_probes": 0}"#, "`window_probes` is 0; allowed is 1 to 1000"),
        (r#"{"min_probes": 6}"#, "`min_probes` is 6; allowed is 1 to 5, which is `window_probes`"),
    ] {
        let settings: HealthSettings = serde_json::from_str(json).unwrap();
        assert_eq!(HealthMonitor::new(settings).unwrap_err().to_string(), error);
    }
}
