//! The circuits by agent.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use circuit_manager::manager::{Manager, ManagerError};
use circuit_manager::settings::CircuitSettings;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::CircuitState::{Closed, ForcedOpen, HalfOpen, Open};
use tower_breaker::{BreakerLayer, CircuitState, Clock};

use crate::support::{AGENT, changes, fail, manager, manager_with};

/// The error of a callback.
type Failed = Result<(), &'static str>;

#[test]
fn manager_creates_one_circuit_per_agent() {
    let own = CircuitSettings { failure_threshold: 2, ..CircuitSettings::default() };
    let (manager, _time) =
        manager_with(CircuitSettings::default(), BTreeMap::from([("fragile".into(), own)]));
    assert!(manager.get("fragile").is_none() && manager.get_state("search").is_none());
    manager.record_failure("fragile").unwrap();
    manager.record_failure("fragile").unwrap();
    manager.get_or_create("fragile").unwrap();
    manager.record_success("search").unwrap();
    manager.record_failure("search").unwrap();
    let expected = [("fragile".to_owned(), Open), ("search".to_owned(), Closed)];
    assert_eq!(manager.get_all_states(), BTreeMap::from(expected));
    let statuses = manager.statuses();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["fragile", "search"]);
    let search = &statuses["search"];
    assert_eq!((search.agent_id.as_str(), search.success_count, search.failure_count), ("search", 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thousand_tasks_get_one_circuit() {
    let (manager, _time) = manager();
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let manager = manager.clone();
        tasks.spawn(async move {
            manager.record_success(AGENT).unwrap();
            manager.get_or_create(AGENT).unwrap().status().window.calls
        });
    }
    tasks.join_all().await;
    assert_eq!(manager.registry().circuits().len(), 1);
    assert_eq!(manager.status(AGENT).unwrap().success_count, 1_000);
}

#[test]
fn agent_ids_are_checked() {
    let (manager, _time) = manager();
    for id in ["a", "A-1_b.c", &"x".repeat(128)] {
        manager.get_or_create(id).unwrap();
    }
    for id in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(129)] {
        assert!(matches!(manager.get_or_create(id), Err(ManagerError::AgentId { .. })), "{id:?}");
        assert!(manager.can_execute(id).is_err() && manager.record_failure(id).is_err());
        assert!(manager.guard(id).is_err());
    }
    let error = manager.get_or_create("a b").unwrap_err();
    assert_eq!(error.to_string(), "`agent_id` is `a b`; allowed is 1 to 128 characters of A-Z a-z 0-9 . _ -");
    assert_eq!(manager.registry().circuits().len(), 3);
}

#[test]
fn force_open_lasts_for_the_cooldown_of_the_agent() {
    let short = CircuitSettings { cooldown_seconds: 10.0, ..CircuitSettings::default() };
    let (manager, time) = manager_with(CircuitSettings::default(), [("short".to_owned(), short)].into());
    for agent in ["short", "other"] {
        manager.get_or_create(agent).unwrap();
        manager.force_open(agent).unwrap();
    }
    time.advance(Duration::from_secs(10));
    assert!(manager.can_execute("short").unwrap() && !manager.can_execute("other").unwrap());
}

#[test]
fn commands_refuse_unknown_agents() {
    let (manager, _time) = manager();
    for result in [manager.force_open("serach"), manager.force_close("serach"), manager.reset("serach")] {
        let error = result.unwrap_err();
        assert!(matches!(error, ManagerError::Unknown { .. }));
        assert_eq!(error.to_string(), "no agent `serach`; check the id, or call the agent first");
    }
    assert!(manager.get_all_states().is_empty());
}

#[test]
fn commands_refuse_an_overridden_circuit() {
    let (manager, _time) = manager();
    manager.get_or_create(AGENT).unwrap().force_open().unwrap();
    for result in [manager.force_open(AGENT), manager.force_close(AGENT), manager.reset(AGENT)] {
        assert_eq!(
            result.unwrap_err().to_string(),
            "circuit breaker `search` is forced open; release it first"
        );
    }
    assert_eq!(manager.get_state(AGENT), Some(ForcedOpen));
    assert!(manager.is_open(AGENT) && manager.status(AGENT).unwrap().opened_at.is_some());
}

#[test]
fn invalid_settings_name_the_agent() {
    let broken = CircuitSettings { cooldown_seconds: 0.0, ..CircuitSettings::default() };
    let error = Manager::new(broken.clone(), BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "the default limits are not valid");
    let own = BTreeMap::from([(AGENT.to_owned(), broken)]);
    let error = Manager::new(CircuitSettings::default(), own).unwrap_err();
    assert_eq!(error.to_string(), "the limits of agent `search` are not valid");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "`cooldown_seconds` is 0; allowed is 0.001 to 31536000");
}

#[test]
fn callbacks_are_called_for_each_change() {
    let (manager, time) = manager();
    let changes = changes(&manager);
    // Also of agents that exist later, and of manual changes.
    fail(&manager, 5);
    manager.get_or_create("billing").unwrap();
    manager.force_open("billing").unwrap();
    time.advance(Duration::from_secs(60));
    assert!(manager.can_execute(AGENT).unwrap());
    manager.reset(AGENT).unwrap();
    let expected: [(&str, CircuitState, CircuitState); 4] = [
        (AGENT, Closed, Open),
        ("billing", Closed, Open),
        (AGENT, Open, HalfOpen),
        (AGENT, HalfOpen, Closed),
    ];
    let expected = expected.map(|(agent, from, to)| (agent.to_owned(), from, to));
    assert_eq!(*changes.lock().unwrap(), expected);
}

#[tokio::test]
async fn async_callback_continues_after_error_and_panic() {
    let (manager, _time) = manager();
    let seen = Arc::<Mutex<Vec<CircuitState>>>::default();
    let states = Arc::clone(&seen);
    manager.on_state_change_async(move |agent, _, to| {
        let states = Arc::clone(&states);
        async move {
            assert_eq!(agent, AGENT);
            yield_now().await;
            states.lock().unwrap().push(to);
            match to {
                Open => Failed::Err("an error of the test"),
                _ => panic!("a panic of the test"),
            }
        }
    });
    fail(&manager, 5);
    manager.reset(AGENT).unwrap();
    fail(&manager, 5);
    let three_calls = async {
        while seen.lock().unwrap().len() < 3 {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), three_calls).await.expect("the task goes on");
    assert_eq!(*seen.lock().unwrap(), [Open, Closed, Open]);
}

#[tokio::test]
async fn calls_through_a_layer_are_in_the_statistics() {
    let (manager, _time) = manager();
    let layer: BreakerLayer = BreakerLayer::with_circuit(manager.get_or_create(AGENT).unwrap());
    let agent = service_fn(async |works: bool| {
        if works {
            Ok(http::Response::new(()))
        } else {
            Err(io::Error::from(io::ErrorKind::ConnectionRefused))
        }
    });
    let mut service = ServiceBuilder::new().layer(layer).service(agent);
    for works in [true, true, false, true] {
        let _result = service.ready().await.unwrap().call(works).await;
    }
    let stats = manager.stats(AGENT).unwrap();
    assert_eq!((stats.stats.successful_requests, stats.stats.failed_requests), (3, 1));
    assert_eq!((stats.stats.consecutive_failures, stats.stats.consecutive_successes), (0, 1));
    assert!(stats.last_success_time.is_some() && stats.last_failure_time.is_some());
}

#[tokio::test(start_paused = true)]
async fn circuit_opens_within_ten_seconds_of_breach() {
    let manager = Manager::with_clock(CircuitSettings::default(), BTreeMap::new(), Clock::tokio()).unwrap();
    let opened = Arc::new(tokio::sync::Notify::new());
    let notifier = Arc::clone(&opened);
    manager.on_state_change(move |_, _, to| {
        if to == Open {
            notifier.notify_one();
        }
    });
    // An agent that is called once a second begins to fail.
    for _ in 0..5 {
        manager.record_success(AGENT).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let breach = tokio::time::Instant::now();
    let calls = async {
        loop {
            manager.record_failure(AGENT).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = calls => {}
        () = opened.notified() => {}
    }
    assert!(breach.elapsed() <= Duration::from_secs(10), "{:?}", breach.elapsed());
}
